//! Op `linear_swiglu`: silu(x @ gate^T) * (x @ up^T) in q8a or f32. Columns go through both products and the gate in
//! blocks of 32, those of one block of q8a, so that neither product is ever in memory as a whole.
//!
//! Elements see the operations of `linear` (linear_i8.zig) and of `swiglu`: the bits are those of the ops one by one.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const activation = @import("activation.zig");
const linear = @import("linear.zig");
const linear_i8 = @import("linear_i8.zig");
const packed_weights = @import("packed.zig");
const quantize = @import("quantize.zig");
const simd = @import("simd.zig");

const Kind = packed_weights.Kind;
const Problem = linear.Problem;
const Range = context.Context.Range;

/// Columns of a block.
const block = 32;
const block_panels = block / packed_weights.panel;

pub fn linear_swiglu(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    std.debug.assert(ctx.scratch.len >= linear_swiglu_workspace(cmd, ctx.threads));
    const pair: Pair = .init(cmd);
    switch (pair.gate.kind) {
        .f32, .f16, .bf16 => unreachable, // the boundary takes quantised weights only
        inline else => |kind| if (pair.usesGemm(cmd, pair.gate.rows)) gemm(kind, ctx, &pair) else gemv(kind, ctx, &pair),
    }
}

pub fn linear_swiglu_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    const pair: Pair = .init(cmd);
    const rows = pair.gate.rows;
    const row_bytes = 2 * pair.gate.n * @sizeOf(f32);
    if (!pair.usesGemm(cmd, rows)) return rows * row_bytes;
    // A run of fewer rows may go through GEMV.
    const few: usize = @max(linear_i8.few_rows, linear_i8.tile_rows_max, pair.gate.variant.few_rows);
    const fewer: u64 = @min(rows, few);
    return @max(fewer * row_bytes, recordBytes(&pair, threads) + threads * bufferBytes(rows));
}

/// Where a GEMV of int8 activations begins, in the weights of the gate.
pub fn linear_swiglu_outlook(cmd: *const abi.Command, threads: u32) callconv(.c) context.Stretch {
    const pair: Pair = .init(cmd);
    const gemv_i8 = cmd.inputs[0].dtype == @intFromEnum(abi.Dtype.q8a) and !pair.usesGemm(cmd, pair.gate.rows);
    return if (gemv_i8) linear_i8.stretchOf(&pair.gate, threads, block_panels) else .{};
}

fn recordBytes(pair: *const Pair, threads: u32) u64 {
    return std.mem.alignForward(u64, linear_i8.scratchBytes(pair.gate.kind, pair.gate.rows, pair.gate.k, threads), 64);
}

/// Of each thread: both products of a block of columns.
fn bufferBytes(rows: usize) u64 {
    const most: u64 = @min(rows, Blocks.rows_max + linear_i8.tile_rows_max);
    return most * 2 * block * @sizeOf(f32);
}

/// Both products, and where what they make goes.
pub const Pair = struct {
    gate: Problem,
    up: Problem,
    out: *const abi.TensorDesc,

    pub fn init(cmd: *const abi.Command) Pair {
        return .{ .gate = linear.productOf(cmd, 1), .up = linear.productOf(cmd, 2), .out = &cmd.outputs[0] };
    }

    fn usesGemm(pair: *const Pair, cmd: *const abi.Command, rows: usize) bool {
        return rows >= linear_i8.tileRows(&pair.gate) and linear.usesGemm(cmd, rows);
    }

    /// The same with both products side by side: element (row, column) of them lies at to[row * stride + column] and
    /// `apart` behind it.
    fn into(pair: *const Pair, to: usize, stride: usize, apart: usize) Pair {
        var moved = pair.*;
        inline for (.{ &moved.gate, &moved.up }, 0..) |product, i| {
            product.out = @ptrFromInt(to +% i * apart * @sizeOf(f32));
            product.out_row = stride;
        }
        return moved;
    }

    /// Puts a row's columns first … first+31 in their place; `gate` and `up` are 16 columns each and 16 more.
    pub inline fn finish(pair: *const Pair, row: usize, first: usize, gate: [2][*]const f32, up: [2][*]const f32) void {
        var values: [block]f32 = undefined;
        inline for (0..block / simd.lanes) |v| {
            const half, const at = .{ v * simd.lanes / 16, v * simd.lanes % 16 };
            simd.store(values[half * 16 + at ..].ptr, (activation.Swiglu{}).eval(simd.load(gate[half] + at), simd.load(up[half] + at)));
        }
        if (quantize.isWanted(pair.out)) return quantize.Writer.row(pair.out, row, pair.gate.n).block(first / block, &values);
        const at = row * @as(usize, @intCast(pair.out.strides[0])) + first;
        @as([*]f32, @ptrFromInt(pair.out.data))[at..][0..block].* = values;
    }
};

inline fn halves(columns: [*]const f32) [2][*]const f32 {
    return .{ columns, columns + 16 };
}

/// Runs of panels of the gate, and the same of the other.
pub fn runsOf(ctx: *context.Context, gate: *const Problem) linear.PanelRuns {
    return linear_i8.runsOf(ctx, gate, block_panels);
}

fn gemv(comptime kind: Kind, ctx: *context.Context, pair: *const Pair) void {
    const n = pair.gate.n;
    const products: [*]f32 = @ptrCast(ctx.scratch.ptr);
    const both = pair.into(@intFromPtr(products), 2 * n, n);
    var runs = runsOf(ctx, &pair.gate);
    var taken = runs.next();
    while (taken) |run| {
        const gate: linear_i8.Walk = .init(&both.gate, run);
        const up: linear_i8.Walk = .init(&both.up, run);
        gate.multiplyButLast(kind);
        gate.multiplyLast(kind, up);
        up.multiplyButLast(kind);
        taken = runs.next(); // as in `linear_i8.gemv`
        up.multiplyLast(kind, .init(&both.gate, taken orelse run));
        for (0..pair.gate.rows) |row| {
            const gates = products + row * 2 * n;
            for (run.start / 2..run.end / 2) |b| pair.finish(row, b * block, halves(gates + b * block), halves(gates + n + b * block));
        }
    }
}

/// A GEMM in blocks of columns.
const Blocks = struct {
    pair: *const Pair,
    buffer: [*]f32,

    /// Most rows that a thread takes at a time: both products of a block of columns then fit the second cache.
    pub const rows_max = 512;

    pub fn run(self: Blocks, task: anytype, panels: Range) void {
        const first = panels.start * packed_weights.panel;
        const before = (task.rows.start * 2 * block + first) * @sizeOf(f32);
        const both = self.pair.into(@intFromPtr(self.buffer) -% before, 2 * block, block);
        task.multiply(&both.gate, panels);
        task.multiply(&both.up, panels);
        for (task.rows.start..task.rows.end, 0..) |row, i| {
            const gate = self.buffer + i * 2 * block;
            self.pair.finish(row, first, halves(gate), halves(gate + block));
        }
    }
};

fn gemm(comptime kind: Kind, ctx: *context.Context, pair: *const Pair) void {
    const own = ctx.scratch.ptr + recordBytes(pair, ctx.threads) + ctx.thread * bufferBytes(pair.gate.rows);
    linear_i8.gemmOf(kind, ctx, &pair.gate, Blocks{ .pair = pair, .buffer = @ptrCast(@alignCast(own)) });
}
