const std = @import("std");
const softmax = @import("softmax.zig");
const testing = @import("testing.zig");

const allocator = std.testing.allocator;
const inf = std.math.inf(f32);
const nan = std.math.nan(f32);

/// Rows: ordinary, some -inf, all -inf, one NaN, huge offsets.
fn fill(values: []f32, n: usize) void {
    for (0..n) |i| {
        if (i % 2 == 1) values[n + i] = -inf;
        values[2 * n + i] = -inf;
        values[4 * n + i] += if (i % 2 == 0) 1e4 else -1e5;
    }
    values[3 * n + n / 2] = nan;
}

test "softmax and log_softmax equal their oracles" {
    for (testing.tails) |n| for (testing.layouts) |layout| for ([_]f32{ 1, 0.125, -0.5 }) |scale| {
        const values = try testing.normal(n, 5 * n, 5);
        defer allocator.free(values);
        fill(values, n);
        const x: testing.Tensor(f32) = try .init(&.{ 5, n }, layout);
        defer x.deinit();
        const out: testing.Tensor(f32) = try .init(&.{ 5, n }, .dense);
        defer out.deinit();
        x.write(values);
        var cmd = testing.command(&.{x.desc}, &.{out.desc});
        cmd.floats[0] = scale;
        const expected = try allocator.alloc(f64, 5 * n);
        defer allocator.free(expected);
        for (0..5) |r| softmax.scalar.softmax(values[r * n ..][0..n], scale, expected[r * n ..][0..n]);
        // A scale below 0 makes +inf of -inf.
        const limit = if (scale < 0) n else 5 * n;
        for (testing.thread_counts) |threads| {
            try testing.run(softmax.softmax, null, &cmd, threads);
            const actual = try out.read();
            defer allocator.free(actual);
            try testing.expectClose(expected[0..limit], actual[0..limit], 2e-6, 1e-12);
            if (scale > 0) for (actual[2 * n .. 3 * n]) |v| try std.testing.expectEqual(@as(f32, 0), v);
            for (actual[3 * n .. 4 * n]) |v| try std.testing.expect(v != v);
        }
        const apart = try out.read();
        defer allocator.free(apart);
        cmd.outputs[0] = x.desc;
        try testing.run(softmax.softmax, null, &cmd, 2);
        const same = try x.read();
        defer allocator.free(same);
        try testing.expectBits(apart, same);

        x.write(values);
        cmd.outputs[0] = out.desc;
        try testing.run(softmax.log_softmax, null, &cmd, 3);
        const logs = try out.read();
        defer allocator.free(logs);
        for ([_]usize{ 0, 1, 4 }) |r| {
            const sum = softmax.scalar.logSumExp(values[r * n ..][0..n]);
            for (0..n) |i| try testing.expectClose(&.{values[r * n + i] - sum}, logs[r * n + i ..][0..1], 2e-7, 1e-6);
        }
    };
}

test "causal_softmax hides later keys, NaN among them too" {
    for (testing.tails) |n| for ([_]i64{ -2, 0, 3, 1000 }) |offset| {
        const queries = 6;
        const values = try testing.normal(n, 2 * queries * n, 3);
        defer allocator.free(values);
        const x: testing.Tensor(f32) = try .init(&.{ 2, queries, n }, .narrowed);
        defer x.deinit();
        if (offset == 0 and n > queries) for (0..2 * queries) |r| {
            values[r * n + n - 1] = nan;
        };
        x.write(values);
        var cmd = testing.command(&.{x.desc}, &.{x.desc});
        cmd.floats[0] = 0.5;
        cmd.ints[0] = offset;
        try testing.run(softmax.causal_softmax, null, &cmd, 3);
        const actual = try x.read();
        defer allocator.free(actual);
        const expected = try allocator.alloc(f64, n);
        defer allocator.free(expected);
        for (0..2 * queries) |r| {
            const limit = @as(i64, @intCast(r % queries)) + offset + 1;
            const visible: usize = @intCast(std.math.clamp(limit, 0, @as(i64, @intCast(n))));
            @memset(expected, 0);
            softmax.scalar.softmax(values[r * n ..][0..visible], 0.5, expected[0..visible]);
            try testing.expectClose(expected, actual[r * n ..][0..n], 2e-6, 1e-12);
        }
    };
}

test "cross_entropy" {
    const n = 129;
    const values = try testing.normal(1, 9 * n, 5);
    defer allocator.free(values);
    const x: testing.Tensor(f32) = try .init(&.{ 9, n }, .dense);
    defer x.deinit();
    x.write(values);
    const target: testing.Tensor(i32) = try .init(&.{9}, .dense);
    defer target.deinit();
    const out: testing.Tensor(f32) = try .init(&.{9}, .dense);
    defer out.deinit();
    for (0..9) |r| target.at(r).* = @intCast(r * 14 % n);
    const cmd = testing.command(&.{ x.desc, target.desc }, &.{out.desc});
    for (testing.thread_counts) |threads| {
        try testing.run(softmax.cross_entropy, null, &cmd, threads);
        for (0..9) |r| {
            const row = values[r * n ..][0..n];
            const expected = softmax.scalar.logSumExp(row) - row[@intCast(target.at(r).*)];
            try testing.expectClose(&.{expected}, &.{out.at(r).*}, 3e-7, 1e-6);
        }
    }
    target.at(3).* = n;
    try std.testing.expectError(error.KernelFailed, testing.run(softmax.cross_entropy, null, &cmd, 2));
}
