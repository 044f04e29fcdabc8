//! Rows of `linear` and `quantize_rows`: GFLOPS (2 * rows * n * k) of GEMM, GB/s of packed weights with few rows.

const std = @import("std");
const abi = @import("abi");
const linear = @import("linear.zig");
const quantize = @import("quantize.zig");
const testing = @import("linear_testing.zig");
const Bench = @import("bench.zig").Bench;

const Case = struct { dtype: abi.Dtype, i8_mode: bool };

const cases = [_]Case{
    .{ .dtype = .q4_0, .i8_mode = true },  .{ .dtype = .q8_0, .i8_mode = true },  .{ .dtype = .q5_0, .i8_mode = true },
    .{ .dtype = .q4_k, .i8_mode = true },  .{ .dtype = .q6_k, .i8_mode = true },  .{ .dtype = .iq4_nl, .i8_mode = true },
    .{ .dtype = .q4_0, .i8_mode = false }, .{ .dtype = .q8_0, .i8_mode = false }, .{ .dtype = .q4_k, .i8_mode = false },
    .{ .dtype = .f32, .i8_mode = false },  .{ .dtype = .f16, .i8_mode = false },  .{ .dtype = .bf16, .i8_mode = false },
};

pub fn run(b: *Bench) !void {
    const x = try b.tensor(f32, &.{ 512, 1024 });
    var codes = testing.describe(.q8a, 0, &.{ 512, 1024 });
    codes.data = @intFromPtr((try b.gpa.alignedAlloc(u8, .@"64", 512 * abi.q8aRowBytes(1024))).ptr);
    var cmd: abi.Command = .{ .input_count = 1, .output_count = 1 };
    cmd.inputs[0] = x;
    cmd.outputs[0] = codes;
    try b.row("quantize_rows 512x1024", .{ .bytes = 512 * (1024 * 4 + abi.q8aRowBytes(1024)) }, quantize.quantize_rows, null, &cmd);
    for (cases) |case| {
        try rowsOfCase(b, case, 512, 3072, 1024);
        // Weights of about 200 MB, so that they come from memory.
        const n = 200_000_000 / bytesPerWeightRow(case.dtype, 2048) / 16 * 16;
        for ([_]usize{ 1, 2, 4, 8, 16 }) |rows| try rowsOfCase(b, case, rows, n, 2048);
    }
}

fn bytesPerWeightRow(dtype: abi.Dtype, k: usize) usize {
    const info = abi.blockInfo(dtype).?;
    return k / info.elements * info.bytes;
}

fn rowsOfCase(b: *Bench, case: Case, rows: usize, n: usize, k: usize) !void {
    const mode = if (case.i8_mode) "i8" else "f32";
    const name = try std.fmt.allocPrint(b.gpa, "linear {t} {s} {d}x{d}x{d}", .{ case.dtype, mode, rows, n, k });
    if (!b.wants(name)) return;
    var random = std.Random.DefaultPrng.init(1);
    var w = try testing.Weights.init(b.gpa, case.dtype, n, k, random.random(), false);
    defer w.deinit();
    try w.pack(1);
    var cmd: abi.Command = .{ .input_count = 2, .output_count = 1 };
    cmd.inputs[0] = try b.tensor(f32, &.{ rows, k });
    if (case.i8_mode) {
        const bytes = try b.gpa.alignedAlloc(u8, .@"64", rows * abi.q8aRowBytes(k));
        cmd.outputs[0] = testing.describe(.q8a, @intFromPtr(bytes.ptr), &.{ rows, k });
        try testing.run(quantize.quantize_rows, null, &cmd, 1);
        cmd.inputs[0] = cmd.outputs[0];
    }
    cmd.inputs[1] = w.packed_desc;
    const out = try b.gpa.alignedAlloc(f32, .@"64", rows * n);
    defer b.gpa.free(out);
    cmd.outputs[0] = testing.describe(.f32, @intFromPtr(out.ptr), &.{ rows, n });
    if (rows > 16) {
        try b.row(name, .{ .flops = 2 * rows * n * k }, linear.linear, linear.linear_workspace, &cmd);
    } else {
        try b.row(name, .{ .bytes = w.packed_bytes.len }, linear.linear, linear.linear_workspace, &cmd);
    }
}
