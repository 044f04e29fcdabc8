//! Rows of `linear` and `quantize_rows`: operations (2 * rows * n * k) and bytes of packed weights per second, and their
//! share of what the machine can do (bench_peak.zig).

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi");
const context = @import("context");
const runtime = @import("runtime");
const plain = @import("linear.zig");
const bench = @import("bench.zig");
const bench_peak = @import("bench_peak.zig");
const quantize = @import("quantize.zig");
const testing = @import("linear_testing.zig");
const tile_permission = @import("tile_permission.zig");

const Bench = bench.Bench;

/// The kernel of the level that this is compiled for: of `amx`, as level_over.zig of the backend takes it.
const level = if (has_tiles) with_tiles else plain;
const has_tiles = builtin.cpu.arch == .x86_64 and std.Target.x86.featureSetHas(builtin.cpu.features, .amx_bf16);
const with_tiles = struct {
    const linear_amx = @import("linear_amx.zig");

    fn linear(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
        if (linear_amx.takes(cmd)) linear_amx.run(ctx, cmd) else plain.linear(ctx, cmd);
    }

    fn linear_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
        return @max(plain.linear_workspace(cmd, threads), if (linear_amx.takes(cmd)) linear_amx.scratchBytes(cmd, threads) else 0);
    }
};

const tile_rows_min = if (has_tiles) with_tiles.linear_amx.rows_min else 0;

/// A dtype of each packed kind; block kinds also run with f32 activations.
const dtypes = [_]abi.Dtype{ .q4_0, .q8_0, .q5_0, .q4_k, .q6_k, .iq4_nl, .f32, .f16, .bf16 };

/// The matrices [n, k] of Qwen3-0.6B and Qwen2.5-0.5B.
const shapes = [_][2]usize{
    .{ 1024, 1024 }, .{ 2048, 1024 }, .{ 3072, 1024 }, .{ 1024, 3072 },
    .{ 896, 896 },   .{ 4864, 896 },  .{ 896, 4864 },  .{ 151_936, 896 },
};

const row_counts = [_]usize{ 1, 2, 4, 8, 16, 32, 64, 128, 512 };

/// Copies of the weights are used in turn, so that they come from memory as in a model.
const copies_bytes = 192 << 20;
/// Operations of one turn through the copies are bounded; with many rows weights are read seldom anyway.
const turn_operations = 20_000_000_000;

pub fn run(b: *Bench) !void {
    if (has_tiles) if (tile_permission.refusal()) |reason| {
        std.debug.print("linear: {s}\n", .{reason});
        return;
    };
    try quantizeRow(b);
    var peaks: ?bench_peak.Peaks = null;
    for (dtypes) |dtype| for ([_]bool{ true, false }) |i8_mode| {
        if (i8_mode and abi.blockInfo(dtype).?.elements == 1) continue;
        for (shapes) |shape| {
            if (shape[1] % abi.blockInfo(dtype).?.elements != 0) continue; // 896 is in no whole blocks of 256
            var wanted: std.ArrayList(usize) = .empty;
            for (row_counts) |rows| {
                if (b.wants(try title(b, dtype, i8_mode, rows, shape))) try wanted.append(b.gpa, rows);
            }
            if (wanted.items.len == 0) continue;
            if (peaks == null) {
                peaks = try bench_peak.measure(b.team.threads());
                const format = "peaks: int8 {d:.0} GOPS, f32 {d:.1} GFLOPS, DRAM read {d:.2} GB/s\n";
                std.debug.print(format, .{ peaks.?.int8, peaks.?.f32, peaks.?.read });
            }
            try linearRows(b, dtype, i8_mode, shape, wanted.items, peaks.?);
        }
    };
}

fn title(b: *Bench, dtype: abi.Dtype, i8_mode: bool, rows: usize, shape: [2]usize) ![]const u8 {
    const mode = if (i8_mode) "i8" else "f32";
    return std.fmt.allocPrint(b.gpa, "linear {t} {s} {d}x{d}x{d}", .{ dtype, mode, rows, shape[0], shape[1] });
}

fn quantizeRow(b: *Bench) !void {
    const x = try b.tensor(f32, &.{ 512, 1024 });
    var codes = testing.describe(.q8a, 0, &.{ 512, 1024 });
    codes.data = @intFromPtr((try b.gpa.alignedAlloc(u8, .@"64", 512 * abi.q8aRowBytes(1024))).ptr);
    var cmd: abi.Command = .{ .input_count = 1, .output_count = 1 };
    cmd.inputs[0] = x;
    cmd.outputs[0] = codes;
    try b.row("quantize_rows 512x1024", .{ .bytes = 512 * (1024 * 4 + abi.q8aRowBytes(1024)) }, quantize.quantize_rows, null, &cmd);
}

fn linearRows(b: *Bench, dtype: abi.Dtype, i8_mode: bool, shape: [2]usize, wanted: []const usize, peaks: bench_peak.Peaks) !void {
    const n, const k = shape;
    var random = std.Random.DefaultPrng.init(1);
    var w = try testing.Weights.init(b.gpa, dtype, n, k, random.random(), false);
    defer w.deinit();
    try w.pack(1);
    const bytes = w.packed_bytes.len;
    const copies = @max(1, copies_bytes / bytes);
    const memory = try bench.hugePages(copies * bytes);
    defer std.posix.munmap(memory);
    for (0..copies) |i| @memcpy(memory[i * bytes ..][0..bytes], w.packed_bytes);
    for (wanted) |rows| {
        var arena: std.heap.ArenaAllocator = .init(b.gpa);
        defer arena.deinit();
        const gpa = arena.allocator();
        var cmd: abi.Command = .{ .input_count = 2, .output_count = 1 };
        const x = try gpa.alignedAlloc(f32, .@"64", rows * k);
        for (x) |*value| value.* = random.random().floatNorm(f32);
        cmd.inputs[0] = testing.describe(.f32, @intFromPtr(x.ptr), &.{ rows, k });
        if (i8_mode) {
            const codes = try gpa.alignedAlloc(u8, .@"64", rows * abi.q8aRowBytes(k));
            cmd.outputs[0] = testing.describe(.q8a, @intFromPtr(codes.ptr), &.{ rows, k });
            try testing.run(quantize.quantize_rows, null, &cmd, 1);
            cmd.inputs[0] = cmd.outputs[0];
        }
        cmd.inputs[1] = w.packed_desc;
        cmd.inputs[1].data = @intFromPtr(memory.ptr);
        cmd.outputs[0] = testing.describe(.f32, @intFromPtr((try gpa.alignedAlloc(f32, .@"64", rows * n)).ptr), &.{ rows, n });
        const operations = 2 * rows * n * k;
        const cmds = try gpa.alloc(abi.Command, std.math.clamp(turn_operations / operations, 1, copies));
        const steps = try gpa.alloc(runtime.Step, cmds.len);
        for (cmds, steps, 0..) |*copy, *step, i| {
            copy.* = cmd;
            copy.inputs[1].data += i * bytes;
            step.* = .{ .command = copy, .kernel = level.linear, .threads = b.team.threads() };
        }
        const scratch = try bench.hugePages(@max(4096, level.linear_workspace(&cmd, b.team.threads())));
        defer std.posix.munmap(scratch);
        var best: u64 = std.math.maxInt(u64);
        const end = bench.nanoseconds(.MONOTONIC) + 300_000_000;
        while (bench.nanoseconds(.MONOTONIC) < end) best = @min(best, try b.team.time(steps, @alignCast(scratch)) / steps.len);
        const ns: f64 = @floatFromInt(best);
        const speed = @as(f64, @floatFromInt(operations)) / ns;
        const read = @as(f64, @floatFromInt(bytes)) / ns;
        const on_tiles = i8_mode and peaks.tiles_bf16 > 0 and rows >= tile_rows_min;
        const peak = if (on_tiles) peaks.tiles_bf16 else if (i8_mode) peaks.int8 else peaks.f32;
        const format = "{s:<36} {d:>11.1} us {d:>8.1} GOPS {d:>5.1} % {d:>8.2} GB/s {d:>5.1} %\n";
        const name = try title(b, dtype, i8_mode, rows, shape);
        std.debug.print(format, .{ name, ns / 1000, speed, speed / peak * 100, read, read / peaks.read * 100 });
    }
}
