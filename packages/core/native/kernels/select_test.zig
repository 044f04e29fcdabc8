const std = @import("std");
const select = @import("select.zig");
const testing = @import("testing.zig");

const allocator = std.testing.allocator;
const nan = std.math.nan(f32);

/// Coarse values, so that there are ties; one row of NaN, one of NaN and -inf.
fn coarse(n: usize) ![]f32 {
    const values = try testing.normal(n, 5 * n, 3);
    for (values, 0..) |*v, i| {
        v.* = @round(v.*);
        if (i % 11 == 5) v.* = nan;
        if (i / n == 2) v.* = nan;
        if (i / n == 3) v.* = if (i % 2 == 0) nan else -std.math.inf(f32);
    }
    return values;
}

test "argmax and topk equal their oracles, with ties and NaN" {
    for (testing.tails) |n| for (testing.layouts) |layout| {
        const values = try coarse(n);
        defer allocator.free(values);
        const x: testing.Tensor(f32) = try .init(&.{ 5, n }, layout);
        defer x.deinit();
        x.write(values);
        const best: testing.Tensor(i32) = try .init(&.{5}, .dense);
        defer best.deinit();
        const arg = testing.command(&.{x.desc}, &.{best.desc});
        for (testing.thread_counts) |threads| {
            try testing.run(select.argmax, null, &arg, threads);
            for (0..5) |r| {
                const expected = select.scalar.argmax(values[r * n ..][0..n]);
                try std.testing.expectEqual(@as(i32, @intCast(expected)), best.at(r).*);
            }
        }
        for ([_]usize{ 1, 2, n / 2, n }) |k| {
            if (k == 0 or k > n) continue;
            const top: testing.Tensor(f32) = try .init(&.{ 5, k }, layout);
            defer top.deinit();
            const indices: testing.Tensor(i32) = try .init(&.{ 5, k }, .narrowed);
            defer indices.deinit();
            const cmd = testing.command(&.{x.desc}, &.{ top.desc, indices.desc });
            try testing.run(select.topk, null, &cmd, 3);
            const expected = try allocator.alloc(i32, k);
            defer allocator.free(expected);
            for (0..5) |r| {
                select.scalar.topk(values[r * n ..][0..n], expected);
                for (expected, 0..) |index, i| {
                    try std.testing.expectEqual(index, indices.at(r * k + i).*);
                    try testing.expectBits(values[r * n + @as(usize, @intCast(index)) ..][0..1], &.{top.at(r * k + i).*});
                }
            }
        }
    };
}

test "take_rows copies a range of rows" {
    for (testing.layouts) |layout| {
        const values = try testing.normal(1, 7 * 19, 1);
        defer allocator.free(values);
        const x: testing.Tensor(f32) = try .init(&.{ 7, 19 }, layout);
        defer x.deinit();
        x.write(values);
        const out: testing.Tensor(f32) = try .init(&.{ 3, 19 }, .dense);
        defer out.deinit();
        var cmd = testing.command(&.{x.desc}, &.{out.desc});
        cmd.ints[0] = 4;
        try testing.run(select.take_rows, null, &cmd, 2);
        const actual = try out.read();
        defer allocator.free(actual);
        try testing.expectBits(values[4 * 19 ..], actual);
    }
}
