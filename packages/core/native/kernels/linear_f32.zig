//! `linear` with f32 activations: every output element is one chain of multiply-adds over k, in order of k.
//!
//! Weights are widened to f32 exactly as the reference dequantises them (packed.zig), nothing else is rounded.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const dot = @import("dot.zig");
const simd = @import("simd.zig");
const packed_weights = @import("packed.zig");
const linear = @import("linear.zig");

const F = dot.F;
const Kind = packed_weights.Kind;
const Problem = linear.Problem;

const tile_rows = switch (dot.level) {
    .avx512vnni => 8,
    .avx2, .avxvnni => 6,
    .portable => 2,
};
const tile_panels = if (dot.level == .avx512vnni) 3 else 1;

/// Vector `v` of the 16 columns at step `k` of a float panel.
inline fn loadWeights(comptime kind: Kind, base: [*]const u8, k: usize, comptime v: usize) F {
    const size = if (kind == .f32) 4 else 2;
    const p = base + (k * 16 + v * dot.width) * size;
    const bytes = p[0 .. dot.width * size].*;
    return switch (kind) {
        .f32 => @bitCast(bytes),
        .f16 => simd.halfToFloat(dot.width, @bitCast(bytes)),
        .bf16 => widen: {
            const bits: @Vector(dot.width, u16) = @bitCast(bytes);
            break :widen @bitCast(@as(@Vector(dot.width, u32), bits) << @splat(16));
        },
        else => comptime unreachable,
    };
}

// ---- few rows: widened in registers or in a block-sized buffer

/// Rows that read a panel together.
const gemv_rows = 4;

/// Up to so many rows GEMV is the default: f16 and bf16 take GEMM longer to widen than several passes over a panel in
/// the cache take GEMV.
pub fn fewRows(kind: Kind) usize {
    return switch (kind) {
        .f16, .bf16 => 2 * gemv_rows,
        else => gemv_rows,
    };
}

pub fn gemv(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    var runs = linear.PanelRuns.init(ctx, problem, comptime panelsTogether(kind, 1), 1);
    while (runs.next()) |run| {
        const most = comptime panelsTogether(kind, 1);
        var start = run.start;
        while (start < run.end) : (start += most) {
            gemvRows(kind, problem, .{ .start = start, .end = @min(start + most, run.end) });
        }
    }
}

/// All rows times a few panels, which stay in the cache from the first rows to the last.
fn gemvRows(comptime kind: Kind, problem: *const Problem, run: context.Context.Range) void {
    var first: usize = 0;
    while (first < problem.rows) {
        const count = linear.powerOfTwo(gemv_rows, problem.rows - first);
        inline for (.{ 1, 2, 4 }) |rows| {
            const together = comptime panelsTogether(kind, rows);
            if (count == rows) {
                var p = run.start;
                while (p < run.end) : (p += together) gemvPanels(kind, rows, together, problem, first, p, run.end);
            }
        }
        first += count;
    }
}

/// Floats are read as fast as memory gives them in one stream. Blocks, widened first, need up to eight chains of
/// additions, as one waits for itself.
fn panelsTogether(comptime kind: Kind, comptime rows: usize) usize {
    return if (kind.isFloat()) 1 else @min(4, @max(1, 8 / (rows * dot.per_panel)));
}

/// Bytes that GEMV asks for floats ahead.
const gemv_ahead = 4096;

/// Panels from p0 on; those at `end` and beyond repeat the last one and are not stored.
noinline fn gemvPanels(
    comptime kind: Kind,
    comptime rows: usize,
    comptime panels: usize,
    problem: *const Problem,
    first: usize,
    p0: usize,
    end: usize,
) void {
    var x: [rows][*]align(4) const f32 = undefined;
    inline for (0..rows) |m| x[m] = @ptrCast(@alignCast(problem.xRow(first + m)));
    var acc: [rows][panels][dot.per_panel]F = @splat(@splat(@splat(@splat(0))));
    var base: [panels][*]const u8 = undefined;
    inline for (0..panels) |p| base[p] = problem.panelAt(@min(p0 + p, end - 1));
    if (comptime kind.isFloat()) {
        const size = if (kind == .f32) 64 else 32;
        var k: usize = 0;
        while (k < problem.k) : (k += 2) {
            inline for (0..size / 32) |line| @prefetch(base[0] + k * size + gemv_ahead + line * 64, .{});
            const steps = @min(2, problem.k - k);
            inline for (0..2) |i| if (i < steps) inline for (0..dot.per_panel) |v| {
                const w = loadWeights(kind, base[0], k + i, v);
                inline for (0..rows) |m| acc[m][0][v] = dot.fma(w, @splat(x[m][k + i]), acc[m][0][v]);
            };
        }
    } else {
        const f = comptime packed_weights.form(kind);
        var buffer: [panels][32 * 16]f32 align(64) = undefined;
        for (0..problem.k / 32) |b| {
            inline for (0..panels) |p| {
                const panel = packed_weights.Panel(kind).init(base[p]);
                inline for (0..f.code_bytes / 64) |line| @prefetch(panel.block(b) + 1024 + line * 64, .{});
                panel.dequantize(b, &buffer[p]);
            }
            for (0..32) |k| {
                inline for (0..panels) |p| inline for (0..dot.per_panel) |v| {
                    const w: F = buffer[p][k * 16 + v * dot.width ..][0..dot.width].*;
                    inline for (0..rows) |m| acc[m][p][v] = dot.fma(w, @splat(x[m][b * 32 + k]), acc[m][p][v]);
                };
            }
        }
    }
    inline for (0..panels) |p| {
        if (p0 + p < end) inline for (0..rows) |m| problem.store(first + m, p0 + p, acc[m][p]);
    }
}

// ---- many rows: x in tile order, panels widened to f32 [k][16]

pub fn scratchBytes(kind: Kind, rows: usize, k: usize, threads: u32) u64 {
    return rowsBytes(rows, k) + @as(u64, threads) * panelScratch(kind, k);
}

fn rowsBytes(rows: usize, k: usize) usize {
    const padded = (rows + tile_rows - 1) / tile_rows * tile_rows;
    return std.mem.alignForward(usize, padded * k * 4, 64);
}

fn panelScratch(kind: Kind, k: usize) usize {
    return if (kind == .f32) 0 else tile_panels * k * 64;
}

pub fn gemm(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    const k = problem.k;
    const rows_base: [*]align(64) f32 = @ptrCast(ctx.scratch.ptr);
    const tiles = (problem.rows + tile_rows - 1) / tile_rows;
    if (ctx.phase == 0) {
        const share = ctx.range(tiles, 1);
        for (share.start..share.end) |t| prepareTile(problem, t, rows_base + t * tile_rows * k);
        return ctx.again();
    }
    const own_base = ctx.scratch.ptr + rowsBytes(problem.rows, k) + ctx.thread * panelScratch(kind, k);
    const own: [*]align(64) f32 = @ptrCast(@alignCast(own_base));
    const tasks = linear.Tasks.init((problem.panels() + tile_panels - 1) / tile_panels, tiles, ctx.threads);
    var unpacked: usize = std.math.maxInt(usize);
    var panels: [tile_panels][*]align(64) const f32 = undefined;
    while (true) {
        const task = ctx.take();
        if (task >= tasks.count()) break;
        const at = tasks.at(task);
        if (at.group != unpacked) inline for (0..tile_panels) |i| {
            // The last group may lack panels: their place repeats the last one and is not stored.
            const base = problem.panelAt(@min(at.group * tile_panels + i, problem.panels() - 1));
            if (kind == .f32) {
                panels[i] = @ptrCast(@alignCast(base));
            } else {
                widenPanel(kind, base, k, own + i * k * 16);
                panels[i] = @alignCast(own + i * k * 16);
            }
        };
        unpacked = at.group;
        for (at.first..at.end) |t| {
            const x = rows_base + t * tile_rows * k;
            runTile(problem, t, at.group, x, &panels);
        }
    }
}

/// Rows of a tile as [k][tile_rows]; the last tile is filled up with zeros, which are not stored.
fn prepareTile(problem: *const Problem, t: usize, out: [*]f32) void {
    const rows = tile_rows;
    const present: usize = @min(tile_rows, problem.rows - t * tile_rows);
    if (present < rows) @memset(out[0 .. rows * problem.k], 0);
    for (0..present) |m| {
        const x: [*]align(4) const f32 = @ptrCast(@alignCast(problem.xRow(t * tile_rows + m)));
        for (0..problem.k) |k| out[k * rows + m] = x[k];
    }
}

fn widenPanel(comptime kind: Kind, base: [*]const u8, k: usize, out: [*]f32) void {
    if (comptime kind.isFloat()) {
        for (0..k) |i| inline for (0..dot.per_panel) |v| {
            out[i * 16 + v * dot.width ..][0..dot.width].* = loadWeights(kind, base, i, v);
        };
    } else {
        const panel = packed_weights.Panel(kind).init(base);
        for (0..k / 32) |b| panel.dequantize(b, out + b * 32 * 16);
    }
}

fn runTile(
    problem: *const Problem,
    t: usize,
    group: usize,
    x_base: [*]const f32,
    panels: *const [tile_panels][*]align(64) const f32,
) void {
    const rows = tile_rows;
    const w_base = panels.*;
    var acc: [rows][tile_panels][dot.per_panel]F = @splat(@splat(@splat(@splat(0))));
    var x = x_base;
    for (0..problem.k) |k| {
        var w: [tile_panels][dot.per_panel]F = undefined;
        inline for (0..tile_panels) |p| inline for (0..dot.per_panel) |v| {
            w[p][v] = w_base[p][k * 16 + v * dot.width ..][0..dot.width].*;
        };
        inline for (0..rows) |m| {
            const value: F = @splat(x[m]);
            inline for (0..tile_panels) |p| inline for (0..dot.per_panel) |v| {
                acc[m][p][v] = dot.fma(w[p][v], value, acc[m][p][v]);
            };
        }
        x += rows;
    }
    inline for (0..tile_panels) |i| {
        const p = group * tile_panels + i;
        if (p < problem.panels()) inline for (0..rows) |m| problem.storeIfRow(t * tile_rows + m, p, acc[m][i]);
    }
}
