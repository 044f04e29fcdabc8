const std = @import("std");
const norm = @import("norm.zig");
const rope = @import("rope.zig");
const kv = @import("kv_cache.zig");
const testing = @import("testing.zig");

const allocator = std.testing.allocator;

test "rope equals its oracle: halves, interleaved, partial, far positions, in place" {
    for ([_]usize{ 2, 8, 16, 34, 64, 66, 128 }) |n| for ([_]usize{ n / 2, n / 4, 1 }) |half| {
        for (testing.layouts) |layout| for ([_]i64{ 0, 1 }) |interleaved| for ([_]i64{ 0, 32_767, 1_000_000 }) |position| {
            if (half == 0) continue;
            const values = try testing.normal(n, 4 * 3 * n, 1);
            defer allocator.free(values);
            const x: testing.Tensor(f32) = try .init(&.{ 4, 3, n }, layout);
            defer x.deinit();
            x.write(values);
            const out: testing.Tensor(f32) = try .init(&.{ 4, 3, n }, .dense);
            defer out.deinit();
            const frequencies: testing.Tensor(f32) = try .init(&.{half}, .misaligned);
            defer frequencies.deinit();
            for (0..half) |i| {
                const exponent = @as(f64, @floatFromInt(i)) / @as(f64, @floatFromInt(half));
                frequencies.at(i).* = @floatCast(std.math.pow(f64, 10000, -exponent));
            }
            var cmd = testing.command(&.{ x.desc, frequencies.desc }, &.{out.desc});
            cmd.ints[0] = position;
            cmd.ints[1] = interleaved;
            cmd.floats[0] = 1.1386;
            const inv_freq = try frequencies.read();
            defer allocator.free(inv_freq);
            const expected = try allocator.alloc(f64, values.len);
            defer allocator.free(expected);
            for (0..12) |r| {
                const at: f64 = @floatFromInt(position + @as(i64, @intCast(r / 3)));
                rope.ropeScalar(values[r * n ..][0..n], inv_freq, at, interleaved != 0, cmd.floats[0], expected[r * n ..][0..n]);
            }
            for (testing.thread_counts) |threads| {
                try testing.run(rope.rope, rope.rope_workspace, &cmd, threads);
                const actual = try out.read();
                defer allocator.free(actual);
                try testing.expectClose(expected, actual, 3e-7, 1e-6);
            }
            const apart = try out.read();
            defer allocator.free(apart);
            cmd.outputs[0] = x.desc;
            try testing.run(rope.rope, rope.rope_workspace, &cmd, 2);
            const same = try x.read();
            defer allocator.free(same);
            try testing.expectBits(apart, same);
        };
    };
}

test "rmsnorm_rope is rmsnorm then rope bit for bit, in place too, with and without positions" {
    for ([_]usize{ 2, 8, 34, 66, 128 }) |n| for ([_]usize{ n / 2, @max(1, n / 4) }) |half| for (testing.layouts) |layout| {
        for ([_]i64{ 0, 1 }) |interleaved| for ([_]bool{ false, true }) |given| {
            const values = try testing.normal(n, 4 * 3 * n, 3);
            defer allocator.free(values);
            const x: testing.Tensor(f32) = try .init(&.{ 4, 3, n }, layout);
            defer x.deinit();
            x.write(values);
            const weight: testing.Tensor(f32) = try .init(&.{n}, .misaligned);
            defer weight.deinit();
            weight.write(values[n..][0..n]);
            const frequencies: testing.Tensor(f32) = try .init(&.{half}, .misaligned);
            defer frequencies.deinit();
            for (0..half) |i| frequencies.at(i).* = 1 / @as(f32, @floatFromInt(i + 1));
            const positions: testing.Tensor(i32) = try .init(&.{4}, .dense);
            defer positions.deinit();
            positions.write(&.{ 7, 0, 100, 8 });
            const normed: testing.Tensor(f32) = try .init(&.{ 4, 3, n }, .dense);
            defer normed.deinit();
            var first = testing.command(&.{ x.desc, weight.desc }, &.{normed.desc});
            first.floats[0..2].* = .{ 1e-5, 1 };
            try testing.run(norm.rmsnorm, null, &first, 1);
            const count: u32 = if (given) 4 else 3;
            var second = testing.command(&.{ normed.desc, frequencies.desc, positions.desc }, &.{normed.desc});
            second.input_count = count - 1;
            second.ints[0..2].* = .{ 40_000, interleaved };
            second.floats[0] = 1.1386;
            try testing.run(rope.rope, rope.rope_workspace, &second, 1);
            const expected = try normed.read();
            defer allocator.free(expected);
            const apart: testing.Tensor(f32) = try .init(&.{ 4, 3, n }, layout);
            defer apart.deinit();
            var fused = testing.command(&.{ x.desc, weight.desc, frequencies.desc, positions.desc }, &.{apart.desc});
            fused.input_count = count;
            fused.ints[0..2].* = .{ 40_000, interleaved };
            fused.floats[0..3].* = .{ 1e-5, 1, 1.1386 };
            for (testing.thread_counts) |threads| {
                try testing.run(rope.rmsnorm_rope, rope.rmsnorm_rope_workspace, &fused, threads);
                const actual = try apart.read();
                defer allocator.free(actual);
                try testing.expectBits(expected, actual);
            }
            fused.outputs[0] = x.desc;
            try testing.run(rope.rmsnorm_rope, rope.rmsnorm_rope_workspace, &fused, 2);
            const same = try x.read();
            defer allocator.free(same);
            try testing.expectBits(expected, same);
        };
    };
}

test "rope reads positions" {
    const n = 16;
    const x: testing.Tensor(f32) = try .init(&.{ 3, 1, n }, .dense);
    defer x.deinit();
    const values = try testing.normal(3, 3 * n, 1);
    defer allocator.free(values);
    x.write(values);
    const frequencies: testing.Tensor(f32) = try .init(&.{n / 2}, .dense);
    defer frequencies.deinit();
    frequencies.write(&.{ 1, 0.5, 0.25, 0.1, 0.01, 0.001, 0.3, 0.7 });
    const positions: testing.Tensor(i32) = try .init(&.{3}, .dense);
    defer positions.deinit();
    positions.write(&.{ 7, 0, 100 });
    var cmd = testing.command(&.{ x.desc, frequencies.desc, positions.desc }, &.{x.desc});
    cmd.ints[0] = 55;
    cmd.floats[0] = 1;
    try testing.run(rope.rope, rope.rope_workspace, &cmd, 2);
    var expected: [n]f64 = undefined;
    const inv_freq = try frequencies.read();
    defer allocator.free(inv_freq);
    for ([_]f64{ 7, 0, 100 }, 0..) |position, r| {
        rope.ropeScalar(values[r * n ..][0..n], inv_freq, position, false, 1, &expected);
        for (expected, 0..) |e, i| try testing.expectClose(&.{e}, &.{x.at(r * n + i).*}, 3e-7, 1e-6);
    }
}

test "kv_append writes rows of scattered pages and rounds to f16" {
    inline for (.{ f32, f16 }) |T| for (testing.layouts) |layout| {
        const heads = 2;
        const page_size = 4;
        const n = 19;
        const tokens = 6;
        const x: testing.Tensor(f32) = try .init(&.{ tokens, heads, n }, layout);
        defer x.deinit();
        const values = try testing.normal(1, tokens * heads * n, 1);
        defer allocator.free(values);
        x.write(values);
        const cache: testing.Tensor(T) = try .init(&.{ 5, heads, page_size, n }, .dense);
        defer cache.deinit();
        const pages: testing.Tensor(i32) = try .init(&.{3}, .dense);
        defer pages.deinit();
        pages.write(&.{ 4, 1, 2 });
        var cmd = testing.command(&.{ x.desc, pages.desc }, &.{cache.desc});
        cmd.ints[0] = 3;
        for (testing.thread_counts) |threads| {
            try testing.run(kv.kv_append, kv.kv_append_workspace, &cmd, threads);
            for (0..tokens) |t| for (0..heads) |h| for (0..n) |i| {
                const page: usize = @intCast(pages.at((t + 3) / page_size).*);
                const index = ((page * heads + h) * page_size + (t + 3) % page_size) * n + i;
                try std.testing.expectEqual(@as(T, @floatCast(values[(t * heads + h) * n + i])), cache.at(index).*);
            };
        }
        cmd.ints[0] = 0;
        pages.at(1).* = 5;
        try std.testing.expectError(error.KernelFailed, testing.run(kv.kv_append, kv.kv_append_workspace, &cmd, 1));
    };
}
