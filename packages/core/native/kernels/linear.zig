//! Op `linear`: x @ w^T + bias over packed weights, by the dtype of x: linear_i8.zig (q8a) or linear_f32.zig (f32).
//!
//! Few rows (GEMV) read the packed codes once, straight into registers; more rows (GEMM) are put into the order of use
//! first, or panels unpacked. Both take every output element through the same float operations in the same order, so
//! its bits depend neither on the number of rows nor on threads, tiles or variant (linear_variant.zig).

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const dot = @import("dot.zig");
const packed_weights = @import("packed.zig");
const linear_f32 = @import("linear_f32.zig");
const linear_i8 = @import("linear_i8.zig");
const linear_variant = @import("linear_variant.zig");

/// A linear command.
pub const Problem = struct {
    variant: abi.LinearVariant,
    rows: usize,
    n: usize,
    k: usize,
    kind: packed_weights.Kind,
    x: [*]const u8,
    x_row_bytes: usize,
    weights: [*]const u8,
    panel_bytes: usize,
    out: [*]align(4) f32,
    out_row: usize,
    bias: ?[*]align(4) const f32,

    pub fn panels(self: *const Problem) usize {
        return (self.n + 15) / 16;
    }

    pub inline fn panelAt(self: *const Problem, p: usize) [*]const u8 {
        return self.weights + p * self.panel_bytes;
    }

    pub inline fn xRow(self: *const Problem, r: usize) [*]const u8 {
        return self.x + r * self.x_row_bytes;
    }

    /// `store` for tiles that may reach beyond the last row.
    pub inline fn storeIfRow(self: *const Problem, r: usize, p: usize, acc: [dot.per_panel]dot.F) void {
        if (r < self.rows) self.store(r, p, acc);
    }

    /// Writes 16 columns of one row and adds the bias.
    pub inline fn store(self: *const Problem, r: usize, p: usize, acc: [dot.per_panel]dot.F) void {
        const out = self.out + r * self.out_row + p * 16;
        if (p * 16 + 16 <= self.n) {
            inline for (0..dot.per_panel) |v| {
                var value = acc[v];
                if (self.bias) |bias| value += bias[p * 16 + v * dot.width ..][0..dot.width].*;
                out[v * dot.width ..][0..dot.width].* = value;
            }
        } else {
            const values: [16]f32 = @bitCast(acc);
            for (0..self.n - p * 16) |c| out[c] = if (self.bias) |bias| values[c] + bias[p * 16 + c] else values[c];
        }
    }
};

/// Whether so many rows of a command go through GEMM.
pub fn usesGemm(cmd: *const abi.Command, rows: usize) bool {
    const kind = packed_weights.kindOf(cmd.inputs[1].dtype).?;
    const few: usize = if (isF32(&cmd.inputs[0])) linear_f32.fewRows(kind) else linear_i8.few_rows;
    return linear_variant.isGemm(linear_variant.of(cmd), rows, few);
}

fn isF32(desc: *const abi.TensorDesc) bool {
    return desc.dtype == @intFromEnum(abi.Dtype.f32);
}

pub fn problemOf(cmd: *const abi.Command) Problem {
    const out = &cmd.outputs[0];
    var problem = productOf(cmd, 1);
    problem.out = @ptrFromInt(out.data);
    problem.out_row = @intCast(out.strides[0]);
    problem.bias = if (cmd.given(2)) @ptrFromInt(cmd.inputs[2].data) else null;
    return problem;
}

/// x times the weights that are input `index`, without a bias; whoever asks says where it goes.
pub fn productOf(cmd: *const abi.Command, index: usize) Problem {
    const x = &cmd.inputs[0];
    const w = &cmd.inputs[index];
    const kind = packed_weights.kindOf(w.dtype).?;
    const k: usize = @intCast(w.shape[1]);
    return .{
        .variant = linear_variant.of(cmd),
        .rows = @intCast(x.shape[0]),
        .n = @intCast(w.shape[0]),
        .k = k,
        .kind = kind,
        .x = @ptrFromInt(x.data),
        .x_row_bytes = if (isF32(x)) @as(usize, @intCast(x.strides[0])) * 4 else abi.q8aRowBytes(k),
        .weights = @ptrFromInt(w.data),
        .panel_bytes = packed_weights.panelBytes(kind, k),
        .out = undefined,
        .out_row = undefined,
        .bias = null,
    };
}

/// Inputs: x f32 or q8a [rows, k], w panel16 [n, k], bias f32 [n] or absent. Output: f32 [rows, n].
pub fn linear(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    const problem = problemOf(cmd);
    std.debug.assert(ctx.scratch.len >= linear_workspace(cmd, ctx.threads));
    const gemm = usesGemm(cmd, problem.rows);
    switch (problem.kind) {
        inline else => |kind| {
            if (isF32(&cmd.inputs[0])) {
                if (gemm) linear_f32.gemm(kind, ctx, &problem) else linear_f32.gemv(kind, ctx, &problem);
            } else if (comptime !kind.isFloat()) {
                if (gemm) linear_i8.gemm(kind, ctx, &problem) else linear_i8.gemv(kind, ctx, &problem);
            }
        },
    }
}

/// Where a GEMV of int8 activations begins.
pub fn linear_outlook(cmd: *const abi.Command, threads: u32) callconv(.c) context.Stretch {
    const x = &cmd.inputs[0];
    if (isF32(x) or usesGemm(cmd, @intCast(x.shape[0]))) return .{};
    const problem = productOf(cmd, 1);
    return linear_i8.stretchOf(&problem, threads, linear_i8.gemv_grain);
}

/// Scratch of GEMM: the rows of x in tile order, and unpacked weights per thread.
pub fn linear_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    const x = &cmd.inputs[0];
    const rows: usize = @intCast(x.shape[0]);
    if (!usesGemm(cmd, rows)) return 0;
    const kind = packed_weights.kindOf(cmd.inputs[1].dtype).?;
    const k: usize = @intCast(x.shape[1]);
    return if (isF32(x)) linear_f32.scratchBytes(kind, rows, k, threads) else linear_i8.scratchBytes(kind, rows, k, threads);
}

/// The largest power of two that is at most `n` and at most `max`.
pub fn powerOfTwo(max: usize, n: usize) usize {
    return std.math.floorPowerOfTwo(usize, @min(max, n));
}

/// Runs of neighbouring panels that the threads of a GEMV take one after another: long ones first, as reading has to
/// gather way at the start of each, short ones at last, so that all threads end together. A variant may name one length
/// for all. The first runs, one of each share, are equally long and given, so that threads may ask for them early.
/// A GEMM's blocks are taken likewise.
pub const PanelRuns = struct {
    ctx: *context.Context,
    panels: usize,
    /// Runs are of whole multiples of this.
    grain: usize,
    /// Long runs are of whole multiples of this: of as many as are read side by side. A multiple of the grain, or 1.
    unit: usize = 1,
    /// The length that the variant names; 0 for none.
    named: usize,
    /// Whether the share has had its given run.
    begun: bool = false,
    /// The run that `start` belongs to.
    index: usize = 0,
    start: usize = 0,

    pub fn init(ctx: *context.Context, problem: *const Problem, grain: usize, unit: usize) PanelRuns {
        return .{ .ctx = ctx, .panels = problem.panels(), .grain = grain, .unit = unit, .named = problem.variant.run };
    }

    pub fn next(self: *PanelRuns) ?context.Context.Range {
        const wanted = if (self.begun) self.ctx.threads + self.ctx.take() else self.ctx.thread;
        self.begun = true;
        while (self.index < wanted) : (self.index += 1) self.start += self.length();
        if (self.start >= self.panels) return null;
        return .{ .start = self.start, .end = @min(self.panels, self.start + self.length()) };
    }

    fn length(self: *const PanelRuns) usize {
        if (self.ctx.threads == 1) return self.panels;
        const left = if (self.index < self.ctx.threads) self.panels else self.panels -| self.start;
        const share = left / (@as(usize, self.ctx.threads) * 2);
        const wanted = if (self.named == 0) share else self.named;
        const multiple = if (self.named == 0 and share >= self.unit) @max(self.grain, self.unit) else self.grain;
        return @max(multiple, wanted / multiple * multiple);
    }
};

/// Tasks of a GEMM: groups of panels times blocks of row tiles, enough of them to keep all threads busy.
pub const Tasks = struct {
    groups: usize,
    row_blocks: usize,
    tiles: usize,

    pub fn init(groups: usize, tiles: usize, threads: usize) Tasks {
        const wanted = if (threads == 1 or groups >= 4 * threads) 1 else (4 * threads + groups - 1) / groups;
        return .{ .groups = groups, .row_blocks = @max(1, @min(wanted, tiles / 4)), .tiles = tiles };
    }

    pub fn count(self: Tasks) usize {
        return self.groups * self.row_blocks;
    }

    /// Group of panels and row tiles of a task; the blocks of one group follow each other.
    pub fn at(self: Tasks, task: usize) struct { group: usize, first: usize, end: usize } {
        const block = task % self.row_blocks;
        return .{
            .group = task / self.row_blocks,
            .first = self.tiles * block / self.row_blocks,
            .end = self.tiles * (block + 1) / self.row_blocks,
        };
    }
};
