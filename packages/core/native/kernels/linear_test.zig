//! `linear` against scalar oracles that follow the same float operations, bit for bit.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const dot = @import("dot.zig");
const packed_weights = @import("packed.zig");
const quantize = @import("quantize.zig");
const testing = @import("linear_testing.zig");
const linear = @import("linear.zig");
const linear_i8 = @import("linear_i8.zig");
const linear_swiglu = @import("linear_swiglu.zig");
const Rows = @import("weights.zig").Rows;

/// GEMV and GEMM of one level, and what the selector may ask of them; every one gives the same bits.
const variants = [_]abi.LinearVariant{
    .{},                                .{ .mode = .gemv },                          .{ .mode = .gemm },
    .{ .few_rows = 2, .run = 1 },       .{ .few_rows = 255, .run = 4095 },           .{ .mode = .gemv, .run = 3, .prefetch = 15 },
    .{ .mode = .gemm, .tile_rows = 1 }, .{ .mode = .gemm, .tile_rows = 4 },          .{ .mode = .gemm, .tile_rows = 63 },
    .{ .mode = .gemv, .prefetch = 7 },  .{ .mode = .gemv, .run = 6, .prefetch = 3 },
};

fn fma(a: f32, b: f32, c: f32) f32 {
    return if (dot.has_fma) @mulAdd(f32, a, b, c) else a * b + c;
}

/// Scalar oracle of the i8 mode from the packed weights: one output element.
fn oracleI8(w: *const testing.Weights, r: usize, x: quantize.Row, k: usize) f32 {
    const kind = packed_weights.kindOf(w.packed_desc.dtype).?;
    const base = w.packed_bytes.ptr + r / 16 * packed_weights.panelBytes(kind, k);
    switch (kind) {
        .f32, .f16, .bf16 => unreachable,
        inline else => |q| {
            const f = comptime packed_weights.form(q);
            const panel = packed_weights.Panel(q).init(base);
            var acc: f32 = 0;
            for (0..k / 32) |b| for (0..32 / f.group) |g| {
                const scale, const min, const codes = panel.columnGroup(b, r % 16, g);
                var sum: i32 = 0;
                var ints: i32 = 0;
                for (0..f.group) |i| {
                    const a: i32 = x.codes[b * 32 + g * f.group + i];
                    sum += a;
                    ints += a * codes[i];
                }
                acc = fma(@floatFromInt(ints), scale * x.scales[b], acc);
                if (f.has_min) acc = fma(min, x.scales[b] * @as(f32, @floatFromInt(sum)), acc);
            };
            return acc;
        },
    }
}

const Case = struct { dtype: abi.Dtype, n: usize, k: usize, bias: bool };

fn checkCase(case: Case, random: std.Random, i8_mode: bool) !void {
    const gpa = std.testing.allocator;
    const n, const k = .{ case.n, case.k };
    const rows_max = 17;
    var w = try testing.Weights.init(gpa, case.dtype, n, k, random, true);
    defer w.deinit();
    try w.pack(1);
    const x = try gpa.alignedAlloc(f32, .@"64", rows_max * k);
    defer gpa.free(x);
    for (x) |*v| v.* = random.floatNorm(f32);
    const bias = try gpa.alloc(f32, n);
    defer gpa.free(bias);
    for (bias) |*v| v.* = random.floatNorm(f32);
    const codes = try gpa.alignedAlloc(u8, .@"64", rows_max * abi.q8aRowBytes(k));
    defer gpa.free(codes);
    if (i8_mode) {
        var cmd: abi.Command = .{};
        cmd.inputs[0] = testing.describe(.f32, @intFromPtr(x.ptr), &.{ rows_max, k });
        cmd.outputs[0] = testing.describe(.q8a, @intFromPtr(codes.ptr), &.{ rows_max, k });
        try testing.run(quantize.quantize_rows, null, &cmd, 1);
    }
    const want = try gpa.alloc(f32, rows_max * n);
    defer gpa.free(want);
    const row = try gpa.alloc(f32, k);
    defer gpa.free(row);
    const source = Rows.init(&w.desc);
    for (0..n) |c| {
        source.decodeRow(c, row);
        for (0..rows_max) |r| {
            var acc: f32 = 0;
            if (i8_mode) {
                acc = oracleI8(&w, c, quantize.Row.init(codes.ptr + r * abi.q8aRowBytes(k), k), k);
            } else for (0..k) |i| {
                acc = fma(row[i], x[r * k + i], acc);
            }
            want[r * n + c] = if (case.bias) acc + bias[c] else acc;
        }
    }
    const out = try gpa.alloc(f32, rows_max * (n + 1));
    defer gpa.free(out);
    for ([_]usize{ 1, 2, 3, 4, 5, 6, 7, 8, 9, 17 }) |rows| for (variants) |asked| {
        const variant: u32 = @bitCast(asked);
        const threads = random.intRangeAtMost(u32, 1, 3);
        @memset(out, 12345);
        var cmd: abi.Command = .{ .input_count = 3, .output_count = 1, .variant = variant };
        const address = if (i8_mode) @intFromPtr(codes.ptr) else @intFromPtr(x.ptr);
        cmd.inputs[0] = testing.describe(if (i8_mode) .q8a else .f32, address, &.{ rows, k });
        cmd.inputs[1] = w.packed_desc;
        if (case.bias) cmd.inputs[2] = testing.describe(.f32, @intFromPtr(bias.ptr), &.{n});
        cmd.outputs[0] = testing.describe(.f32, @intFromPtr(out.ptr), &.{ rows, n });
        cmd.outputs[0].strides[0] = @intCast(n + 1);
        try testing.run(linear.linear, linear.linear_workspace, &cmd, threads);
        for (0..rows) |r| {
            for (0..n) |c| testing.expectBits(want[r * n + c], out[r * (n + 1) + c]) catch |e| {
                const values = .{ case.dtype, n, k, rows, variant, threads, r, c };
                std.debug.print("{t} n {d} k {d} rows {d} variant {d} threads {d} at {d},{d}\n", values);
                return e;
            };
            try std.testing.expectEqual(@as(f32, 12345), out[r * (n + 1) + n]); // nothing past the row
        }
    };
}

test "linear f32 equals the sequential oracle for every dtype and tail" {
    var prng = std.Random.DefaultPrng.init(11);
    for (testing.weight_dtypes) |dtype| {
        const block = abi.blockInfo(dtype).?.elements;
        for ([_]usize{ 1, 3, 15, 16, 17, 33, 65, 129 }, 0..) |n, i| {
            const k: usize = switch (block) {
                1 => ([_]usize{ 1, 3, 7, 17, 33, 65, 129, 32 })[i],
                32 => 32 * (1 + i % 3),
                else => 256 * (1 + i % 2),
            };
            try checkCase(.{ .dtype = dtype, .n = n, .k = k, .bias = i % 2 == 0 }, prng.random(), false);
        }
    }
}

test "linear q8a equals the block oracle for every dtype and tail" {
    var prng = std.Random.DefaultPrng.init(12);
    for (@import("blocks.zig").all) |dtype| {
        const block = abi.blockInfo(dtype).?.elements;
        for ([_]usize{ 1, 3, 15, 16, 17, 33, 65, 129 }, 0..) |n, i| {
            const k: usize = if (block == 32) 32 * (1 + i % 3) else 256 * (1 + i % 2);
            try checkCase(.{ .dtype = dtype, .n = n, .k = k, .bias = i % 2 == 0 }, prng.random(), true);
        }
    }
}

test "shares take every panel once, each its given run first, which the outlook names" {
    for ([_]u32{ 1, 2, 3, 8 }) |threads| for ([_]i64{ 16, 100, 1024 }) |n| for ([_]u4{ 0, 7 }) |prefetch| for ([_]u12{ 0, 3 }) |run| {
        const variant: abi.LinearVariant = .{ .run = run, .prefetch = prefetch };
        var cmd: abi.Command = .{ .op = 1, .variant = @bitCast(variant), .input_count = 2, .output_count = 1 };
        cmd.inputs[0] = testing.describe(.q8a, 64, &.{ 1, 64 });
        cmd.inputs[1] = testing.describe(.q4_0, 1 << 20, &.{ @intCast(n), 64 });
        cmd.outputs[0] = testing.describe(.f32, 64, &.{ 1, @intCast(n) });
        const problem = linear.productOf(&cmd, 1);
        const stretch = linear.linear_outlook(&cmd, threads);
        try std.testing.expectEqual(threads, stretch.shares);
        try std.testing.expectEqual(1 << 20, stretch.base);
        var taken: [64]u8 = @splat(0);
        var shared: context.Shared = .{};
        for (0..threads) |share| {
            var ctx: context.Context = .{ .thread = @intCast(share), .threads = threads, .scratch = &.{}, .shared = &shared };
            var runs = linear_i8.runsOf(&ctx, &problem, linear_i8.gemv_grain);
            var first = true;
            while (runs.next()) |range| : (first = false) {
                for (range.start..range.end) |p| taken[p] += 1;
                if (!first or range.end == problem.panels()) continue;
                try std.testing.expectEqual(stretch.share_bytes * share, range.start * problem.panel_bytes);
                try std.testing.expectEqual(stretch.share_bytes, (range.end - range.start) * problem.panel_bytes);
                try std.testing.expect(stretch.streams * stretch.stream_bytes <= stretch.share_bytes);
            }
        }
        for (taken, 0..) |count, p| try std.testing.expectEqual(@intFromBool(p < problem.panels()), count);
    };
}

test "the outlook of linear_swiglu names the gate's panels, in whole blocks of columns" {
    for ([_]u32{ 1, 2, 3 }) |threads| for ([_]i64{ 96, 1024 }) |n| {
        var cmd: abi.Command = .{ .op = 1, .input_count = 3, .output_count = 1 };
        cmd.inputs[0] = testing.describe(.q8a, 64, &.{ 1, 64 });
        for (1..3) |i| cmd.inputs[i] = testing.describe(.q4_0, i << 20, &.{ @intCast(n), 64 });
        cmd.outputs[0] = testing.describe(.q8a, 64, &.{ 1, @intCast(n) });
        const stretch = linear_swiglu.linear_swiglu_outlook(&cmd, threads);
        try std.testing.expectEqual(1 << 20, stretch.base);
        try std.testing.expectEqual(threads, stretch.shares);
        const problem = linear.productOf(&cmd, 1);
        try std.testing.expectEqual(0, stretch.share_bytes % (2 * problem.panel_bytes));
        var shared: context.Shared = .{};
        var ctx: context.Context = .{ .thread = threads - 1, .threads = threads, .scratch = &.{}, .shared = &shared };
        var runs = linear_swiglu.runsOf(&ctx, &problem);
        const last = runs.next().?;
        try std.testing.expectEqual(last.start * problem.panel_bytes, stretch.share_bytes * (threads - 1));
    };
}
