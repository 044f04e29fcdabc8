//! Micro-benchmark of `linear`: GOPS (2 * rows * n * k per second) of GEMM and GB/s of packed weights with few rows.
//!
//! Arguments: [threads] [rows of the GEMM]. Each figure is the best of several runs of one thread pool-less call.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const dot = @import("dot.zig");
const testing = @import("linear_testing.zig");
const linear = @import("linear.zig");
const quantize = @import("quantize.zig");

/// With one thread its own time counts, which other processes disturb less.
var clock_cpu = true;

fn now() u64 {
    var t: std.os.linux.timespec = undefined;
    _ = std.os.linux.clock_gettime(if (clock_cpu) .THREAD_CPUTIME_ID else .MONOTONIC, &t);
    return @as(u64, @intCast(t.sec)) * 1_000_000_000 + @as(u64, @intCast(t.nsec));
}

const Setup = struct { gpa: std.mem.Allocator, threads: u32, i8_mode: bool };

/// Best nanoseconds of `linear` with `rows` rows; weights larger than the caches when `n` is large.
fn measure(setup: Setup, dtype: abi.Dtype, rows: usize, n: usize, k: usize, bytes: *usize) !u64 {
    const gpa = setup.gpa;
    var prng = std.Random.DefaultPrng.init(1);
    var w = try testing.Weights.init(gpa, dtype, n, k, prng.random(), false);
    defer w.deinit();
    try w.pack(1);
    bytes.* = w.packed_bytes.len;
    const x = try gpa.alignedAlloc(f32, .@"64", rows * k);
    defer gpa.free(x);
    for (x) |*v| v.* = prng.random().floatNorm(f32);
    const q = try gpa.alignedAlloc(u8, .@"64", rows * abi.q8aRowBytes(k));
    defer gpa.free(q);
    const out = try gpa.alignedAlloc(f32, .@"64", rows * n);
    defer gpa.free(out);
    var cmd: abi.Command = .{ .input_count = 2, .output_count = 1 };
    cmd.inputs[0] = testing.describe(.f32, @intFromPtr(x.ptr), &.{ rows, k });
    if (setup.i8_mode) {
        cmd.outputs[0] = testing.describe(.q8a, @intFromPtr(q.ptr), &.{ rows, k });
        try testing.run(quantize.quantize_rows, null, &cmd, 1);
        cmd.inputs[0] = cmd.outputs[0];
    }
    cmd.inputs[1] = w.packed_desc;
    cmd.outputs[0] = testing.describe(.f32, @intFromPtr(out.ptr), &.{ rows, n });
    const scratch = try gpa.alignedAlloc(u8, .@"64", @intCast(linear.linear_workspace(&cmd, setup.threads)));
    defer gpa.free(scratch);
    @memset(scratch, 0);
    var best: u64 = std.math.maxInt(u64);
    const end = now() + 300_000_000;
    while (now() < end) {
        const start = now();
        try context.runForTest(linear.linear, &cmd, setup.threads, scratch);
        best = @min(best, now() - start);
    }
    return best;
}

pub fn main(init: std.process.Init.Minimal) !void {
    const gpa = std.heap.page_allocator;
    var args = std.process.Args.Iterator.init(init.args);
    _ = args.next();
    const threads: u32 = if (args.next()) |text| try std.fmt.parseInt(u32, text, 10) else 1;
    clock_cpu = threads == 1;
    const rows: usize = if (args.next()) |text| try std.fmt.parseInt(usize, text, 10) else 512;
    std.debug.print("level {t}, {d} threads; GEMM {d}x3072x1024; GEMV k 2048, 200 MB of weights\n", .{ dot.level, threads, rows });
    const Case = struct { abi.Dtype, bool };
    const cases = [_]Case{
        .{ .q4_0, true },  .{ .q8_0, true },  .{ .q5_0, true },  .{ .q4_k, true }, .{ .q6_k, true }, .{ .iq4_nl, true },
        .{ .q4_0, false }, .{ .q8_0, false }, .{ .q6_k, false }, .{ .f32, false }, .{ .f16, false }, .{ .bf16, false },
    };
    for (cases) |case| {
        const setup: Setup = .{ .gpa = gpa, .threads = threads, .i8_mode = case[1] };
        var bytes: usize = 0;
        const gemm = try measure(setup, case[0], rows, 3072, 1024, &bytes);
        const gops = @as(f64, @floatFromInt(2 * rows * 3072 * 1024)) / @as(f64, @floatFromInt(gemm));
        std.debug.print("{t:<8} {s:<4} gemm {d:7.1} GOPS  gemv GB/s (rows)", .{ case[0], if (case[1]) "i8" else "f32", gops });
        const n = 200_000_000 / (bytes / 3072) / 2 / 16 * 16;
        for ([_]usize{ 1, 2, 4, 5, 6, 8, 16 }) |few| {
            const ns = try measure(setup, case[0], few, n, 2048, &bytes);
            std.debug.print(" {d:5.1} ({d})", .{ @as(f64, @floatFromInt(bytes)) / @as(f64, @floatFromInt(ns)), few });
        }
        std.debug.print("\n", .{});
    }
}
