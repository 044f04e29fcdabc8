//! `linear_swiglu` gives the bits of `linear` twice, `swiglu` and `quantize_rows`.

const std = @import("std");
const abi = @import("abi");
const activation = @import("activation.zig");
const linear = @import("linear.zig");
const linear_swiglu = @import("linear_swiglu.zig");
const quantize = @import("quantize.zig");
const testing = @import("linear_testing.zig");

const variants = [_]abi.LinearVariant{
    .{},
    .{ .mode = .gemv, .run = 3 },
    .{ .mode = .gemv, .prefetch = 7 },
    .{ .mode = .gemm, .tile_rows = 1 },
    .{ .mode = .gemm, .tile_rows = 63 },
    .{ .few_rows = 200 },
};

/// A rows-by-n result, in f32 with a gap behind each row or in q8a.
const Result = struct {
    desc: abi.TensorDesc,
    bytes: []align(64) u8,

    fn init(dtype: abi.Dtype, rows: usize, n: usize) !Result {
        const size = if (dtype == .q8a) rows * abi.q8aRowBytes(n) else rows * (n + 1) * 4;
        const bytes = try std.testing.allocator.alignedAlloc(u8, .@"64", size);
        @memset(bytes, 0x55);
        var desc = testing.describe(dtype, @intFromPtr(bytes.ptr), &.{ rows, n });
        if (dtype == .f32) desc.strides[0] = @intCast(n + 1);
        return .{ .desc = desc, .bytes = bytes };
    }

    fn deinit(self: Result) void {
        std.testing.allocator.free(self.bytes);
    }
};

fn check(dtype: abi.Dtype, rows: usize, n: usize, k: usize, random: std.Random) !void {
    const gpa = std.testing.allocator;
    var weights: [2]testing.Weights = undefined;
    for (&weights, 0..) |*w, made| {
        w.* = testing.Weights.init(gpa, dtype, n, k, random, true) catch |e| {
            for (weights[0..made]) |*one| one.deinit();
            return e;
        };
        try w.pack(1);
    }
    defer for (&weights) |*w| w.deinit();
    const values = try gpa.alloc(f32, rows * k);
    defer gpa.free(values);
    for (values) |*v| v.* = random.floatNorm(f32);
    const x = try Result.init(.q8a, rows, k);
    defer x.deinit();
    var quantised: abi.Command = .{ .input_count = 1, .output_count = 1 };
    quantised.inputs[0] = testing.describe(.f32, @intFromPtr(values.ptr), &.{ rows, k });
    quantised.outputs[0] = x.desc;
    try testing.run(quantize.quantize_rows, null, &quantised, 1);
    var products: [2]Result = undefined;
    for (&products, &weights) |*product, *w| {
        product.* = try .init(.f32, rows, n);
        var cmd: abi.Command = .{ .input_count = 2, .output_count = 1 };
        cmd.inputs[0] = x.desc;
        cmd.inputs[1] = w.packed_desc;
        cmd.outputs[0] = product.desc;
        try testing.run(linear.linear, linear.linear_workspace, &cmd, 1);
    }
    defer for (products) |product| product.deinit();
    for ([_]abi.Dtype{ .f32, .q8a }) |out| {
        const want = try Result.init(out, rows, n);
        defer want.deinit();
        var gated: abi.Command = .{ .input_count = 2, .output_count = 1 };
        for (products, 0..) |product, i| gated.inputs[i] = product.desc;
        gated.outputs[0] = want.desc;
        try testing.run(activation.swiglu, null, &gated, 1);
        for (variants) |variant| for ([_]u32{ 1, 2, 3 }) |threads| {
            const got = try Result.init(out, rows, n);
            defer got.deinit();
            var cmd: abi.Command = .{ .input_count = 3, .output_count = 1, .variant = @bitCast(variant) };
            cmd.inputs[0] = x.desc;
            for (&weights, 1..) |*w, i| cmd.inputs[i] = w.packed_desc;
            cmd.outputs[0] = got.desc;
            try testing.run(linear_swiglu.linear_swiglu, linear_swiglu.linear_swiglu_workspace, &cmd, threads);
            std.testing.expectEqualSlices(u8, want.bytes, got.bytes) catch |e| {
                std.debug.print("{t} rows {d} n {d} k {d} to {t} variant {} threads {d}\n", .{ dtype, rows, n, k, out, variant, threads });
                return e;
            };
        };
    }
}

test "linear_swiglu is two linear, then swiglu, bit for bit" {
    var prng = std.Random.DefaultPrng.init(21);
    for (@import("blocks.zig").all) |dtype| {
        const k = abi.blockInfo(dtype).?.elements;
        for ([_]usize{ 1, 2, 7, 17, 40 }, [_]usize{ 96, 64, 32, 160, 32 }) |rows, n| try check(dtype, rows, n, k, prng.random());
    }
    try check(.q4_0, 530, 64, 1024, prng.random()); // more than a thread takes at a time
}
