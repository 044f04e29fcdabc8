const std = @import("std");
const matmul = @import("matmul.zig");
const testing = @import("testing.zig");

const allocator = std.testing.allocator;

test "matmul equals its oracle for any shape, stride and thread count" {
    const shapes = [_][3]usize{ .{ 1, 1, 1 }, .{ 3, 7, 17 }, .{ 7, 33, 65 }, .{ 17, 129, 3 }, .{ 100, 65, 300 }, .{ 2, 200, 129 } };
    for (shapes) |s| for (testing.layouts) |layout| {
        const m = s[0];
        const n = s[1];
        const k = s[2];
        const a: testing.Tensor(f32) = try .init(&.{ 3, m, k }, layout);
        defer a.deinit();
        const b: testing.Tensor(f32) = try .init(&.{ 3, k, n }, layout);
        defer b.deinit();
        const out: testing.Tensor(f32) = try .init(&.{ 3, m, n }, layout);
        defer out.deinit();
        const left = try testing.normal(m, a.count(), 1);
        defer allocator.free(left);
        const right = try testing.normal(n, b.count(), 1);
        defer allocator.free(right);
        a.write(left);
        b.write(right);
        const expected = try allocator.alloc(f64, out.count());
        defer allocator.free(expected);
        for (0..3) |i| {
            const factors = .{ left[i * m * k ..][0 .. m * k], right[i * k * n ..][0 .. k * n] };
            matmul.matmulScalar(m, n, k, factors[0], factors[1], expected[i * m * n ..][0 .. m * n]);
        }
        const first = try allocator.alloc(f32, out.count());
        defer allocator.free(first);
        const cmd = testing.command(&.{ a.desc, b.desc }, &.{out.desc});
        for (testing.thread_counts) |threads| {
            try testing.run(matmul.matmul, matmul.matmul_workspace, &cmd, threads);
            const actual = try out.read();
            defer allocator.free(actual);
            if (threads == 1) @memcpy(first, actual);
            try testing.expectBits(first, actual);
            try testing.expectClose(expected, actual, 1e-6, 2e-6 * @sqrt(@as(f64, @floatFromInt(k))));
        }
        // One row alone gives the same bits.
        const row = testing.Tensor(f32){ .memory = a.memory, .desc = blk: {
            var d = a.desc;
            d.rank = 2;
            d.shape = .{ 1, d.shape[2], 0, 0 };
            d.strides = .{ d.strides[1], d.strides[2], 0, 0 };
            break :blk d;
        } };
        var matrix = b.desc;
        matrix.rank = 2;
        matrix.shape = .{ matrix.shape[1], matrix.shape[2], 0, 0 };
        matrix.strides = .{ matrix.strides[1], matrix.strides[2], 0, 0 };
        const alone: testing.Tensor(f32) = try .init(&.{ 1, n }, .dense);
        defer alone.deinit();
        const single = testing.command(&.{ row.desc, matrix }, &.{alone.desc});
        try testing.run(matmul.matmul, matmul.matmul_workspace, &single, 1);
        const actual = try alone.read();
        defer allocator.free(actual);
        try testing.expectBits(first[0..n], actual);
    };
}
