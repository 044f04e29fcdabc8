//! `linear` with activations in q8a: integer dots per block, then one fused multiply-add per scale.
//!
//! For each output element and each group of K (32, or 16 where scales are finer), in order of K:
//!     acc = fma(f32(dot of codes), weight scale * activation scale, acc)
//!     acc = fma(weight min, activation scale * sum of activation codes, acc)      (forms with minima)
//! A zero point costs nothing: integer accumulators start at -zero * sum of activation codes. This is llama.cpp's
//! scheme (ggml_vec_dot_q4_0_q8_0 and its kin) with f32 activation scales.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const dot = @import("dot.zig");
const packed_weights = @import("packed.zig");
const quantize = @import("quantize.zig");
const linear = @import("linear.zig");

const F = dot.F;
const Kind = packed_weights.Kind;
const Problem = linear.Problem;

/// Rows and panels of a GEMM tile.
const tile_rows = switch (dot.level) {
    .avx512vnni => 6,
    .avx2, .avxvnni => 3,
    .portable => 2,
};
const tile_panels = if (dot.level == .avx512vnni) 2 else 1;
const tile_vectors = tile_panels * dot.per_panel;

inline fn accumulate(ints: dot.I, scale: F, activation_scale: f32, acc: F) F {
    return dot.fma(@floatFromInt(ints), scale * @as(F, @splat(activation_scale)), acc);
}

inline fn loadFour(p: [*]const u8) i32 {
    return std.mem.readInt(i32, p[0..4], .little);
}

// ---- few rows: straight from the packed codes

/// Codes of one vector of columns in registers, from k-step `first` on.
fn RegisterCodes(comptime first: usize) type {
    return struct {
        codes: [8]dot.U,
        pub inline fn at(self: @This(), comptime s: usize, comptime v: usize) dot.U {
            comptime std.debug.assert(v == 0);
            return self.codes[first + s];
        }
    };
}

fn RowCodes(comptime rows: usize) type {
    return struct {
        codes: [rows][*]const u8,
        pub inline fn at(self: @This(), comptime m: usize, comptime s: usize) i32 {
            return loadFour(self.codes[m] + s * 4);
        }
    };
}

/// Rows that read a panel's codes together.
const gemv_rows = if (dot.level == .avx512vnni) 8 else 4;
/// Up to so many rows it pays to unpack codes into registers again for each few rows instead of once into scratch.
pub const few_rows = 2 * gemv_rows;

pub fn gemv(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    var runs = linear.PanelRuns.init(ctx, problem, 1);
    while (runs.next()) |run| {
        if (problem.rows == linear.powerOfTwo(gemv_rows, problem.rows)) {
            _ = gemvRun(kind, problem, 0, run);
        } else for (run.start..run.end) |p| { // a panel stays in the cache for its later rows
            var first: usize = 0;
            while (first < problem.rows) first += gemvRun(kind, problem, first, .{ .start = p, .end = p + 1 });
        }
    }
}

/// Runs as many rows from `first` on as one function takes; returns how many. Powers of two only, to keep the library
/// small and quick to build.
fn gemvRun(comptime kind: Kind, problem: *const Problem, first: usize, run: context.Context.Range) usize {
    const count = linear.powerOfTwo(gemv_rows, problem.rows - first);
    inline for (.{ 1, 2, 4, 8 }) |rows| {
        if (comptime rows <= gemv_rows) if (count == rows) gemvRows(kind, rows, problem, first, run);
    }
    return count;
}

fn gemvRows(comptime kind: Kind, comptime rows: usize, problem: *const Problem, first: usize, run: context.Context.Range) void {
    var x: [rows]quantize.Row = undefined;
    inline for (0..rows) |m| x[m] = quantize.Row.init(problem.xRow(first + m), problem.k);
    for (run.start..run.end) |p| {
        const acc = gemvPanel(kind, rows, problem.panelAt(p), problem.k, &x);
        inline for (0..rows) |m| problem.store(first + m, p, acc[m]);
    }
}

/// Bytes between the codes in use and those asked from memory.
const prefetch_ahead = 4096;

fn gemvPanel(comptime kind: Kind, comptime rows: usize, base: [*]const u8, k: usize, x: *const [rows]quantize.Row) [rows][dot.per_panel]F {
    @setEvalBranchQuota(20000);
    const f = comptime packed_weights.form(kind);
    const start_factor = comptime dot.startFactor(f.zero, f.code_max);
    const panel = packed_weights.Panel(kind).init(base);
    var acc: [rows][dot.per_panel]F = @splat(@splat(@splat(0)));
    for (0..k / 32) |b| {
        inline for (0..comptime (f.blockBytes() + 63) / 64) |line| @prefetch(panel.block(b) + prefetch_ahead + line * 64, .{});
        inline for (0..dot.per_panel) |v| {
            const codes = panel.blockCodes(b, v);
            const scales = panel.blockScales(b, v);
            inline for (0..comptime f.groups()) |g| {
                var start: [rows]i32 = undefined;
                var sums: [rows]i32 = undefined;
                var pointers: RowCodes(rows) = undefined;
                inline for (0..rows) |m| {
                    sums[m] = x[m].sums[b * 2 + g];
                    if (f.group == 32) sums[m] += x[m].sums[b * 2 + 1];
                    start[m] = sums[m] * start_factor;
                    pointers.codes[m] = @ptrCast(x[m].codes + b * 32 + g * 16);
                }
                const w: RegisterCodes(g * 4) = .{ .codes = codes };
                const ints = dot.tile(f.code_max, f.group / 4, rows, 1, start, w, pointers);
                inline for (0..rows) |m| {
                    acc[m][v] = accumulate(ints[m][0], scales.scale[g], x[m].scales[b], acc[m][v]);
                    if (f.has_min) {
                        const sum = x[m].scales[b] * @as(f32, @floatFromInt(sums[m]));
                        acc[m][v] = dot.fma(scales.min[g], @splat(sum), acc[m][v]);
                    }
                }
            }
        }
    }
    return acc;
}

// ---- many rows: x in tile order, panels unpacked

/// Per 32-block and row of a tile; a tile's block has codes [rows][32], activation scales [rows], then per group the
/// starts of the integer accumulators [rows] and the sums times scale [rows]. 4-byte aligned. The last tile is filled up
/// with rows of zeros, which are not stored.
fn rowBlockBytes(comptime f: packed_weights.Form) usize {
    return 32 + 4 + f.groups() * 8;
}

/// Per 32-block of a tile's panels: codes [8 k-steps][vectors], scales [groups][vectors], minima likewise.
fn weightBlockBytes(comptime f: packed_weights.Form) usize {
    const minima = if (f.has_min) 2 else 1;
    return tile_panels * (512 + f.groups() * minima * 64);
}

pub fn scratchBytes(kind: Kind, rows: usize, k: usize, threads: u32) u64 {
    switch (kind) {
        .f32, .f16, .bf16 => return 0,
        inline else => |q| {
            const f = comptime packed_weights.form(q);
            return rowsBytes(f, rows, k) + @as(u64, threads) * (k / 32) * weightBlockBytes(f);
        },
    }
}

fn rowsBytes(comptime f: packed_weights.Form, rows: usize, k: usize) usize {
    const padded = (rows + tile_rows - 1) / tile_rows * tile_rows;
    return std.mem.alignForward(usize, padded * (k / 32) * rowBlockBytes(f), 64);
}

pub fn gemm(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    const f = comptime packed_weights.form(kind);
    const blocks = problem.k / 32;
    const tiles = (problem.rows + tile_rows - 1) / tile_rows;
    const rows_base = ctx.scratch.ptr;
    if (ctx.phase == 0) {
        const share = ctx.range(tiles, 1);
        for (share.start..share.end) |t| prepareTile(f, problem, t, rows_base);
        return ctx.again();
    }
    const own = rows_base + rowsBytes(f, problem.rows, problem.k) + ctx.thread * blocks * weightBlockBytes(f);
    const tasks = linear.Tasks.init((problem.panels() + tile_panels - 1) / tile_panels, tiles, ctx.threads);
    var unpacked: usize = std.math.maxInt(usize);
    while (true) {
        const task = ctx.take();
        if (task >= tasks.count()) break;
        const at = tasks.at(task);
        if (at.group != unpacked) unpackPanels(kind, problem, at.group, own);
        unpacked = at.group;
        for (at.first..at.end) |t| {
            const x = rows_base + t * tile_rows * blocks * rowBlockBytes(f);
            runTile(f, problem, t, at.group, x, own);
        }
    }
}

fn prepareTile(comptime f: packed_weights.Form, problem: *const Problem, t: usize, base: [*]align(64) u8) void {
    const start_factor = comptime dot.startFactor(f.zero, f.code_max);
    const blocks = problem.k / 32;
    const first = t * tile_rows;
    const rows = tile_rows;
    const tile_base = base + first * blocks * rowBlockBytes(f);
    const present: usize = @min(tile_rows, problem.rows - first);
    if (present < rows) @memset(tile_base[0 .. rows * blocks * rowBlockBytes(f)], 0);
    for (0..present) |m| {
        const x = quantize.Row.init(problem.xRow(first + m), problem.k);
        for (0..blocks) |b| {
            const record = tile_base + b * rows * rowBlockBytes(f);
            const words: [*]i32 = @ptrCast(@alignCast(record + rows * 32));
            record[m * 32 ..][0..32].* = @bitCast(x.codes[b * 32 ..][0..32].*);
            words[m] = @bitCast(x.scales[b]);
            inline for (0..comptime f.groups()) |g| {
                var sum: i32 = x.sums[b * 2 + g];
                if (f.group == 32) sum += x.sums[b * 2 + 1];
                words[rows * (1 + 2 * g) + m] = sum * start_factor;
                words[rows * (2 + 2 * g) + m] = @bitCast(x.scales[b] * @as(f32, @floatFromInt(sum)));
            }
        }
    }
}

fn unpackPanels(comptime kind: Kind, problem: *const Problem, group: usize, out: [*]u8) void {
    @setEvalBranchQuota(20000);
    const f = comptime packed_weights.form(kind);
    inline for (0..tile_panels) |i| {
        // The last group may lack a panel: its place repeats the last one and is not stored.
        const p = @min(group * tile_panels + i, problem.panels() - 1);
        const panel = packed_weights.Panel(kind).init(problem.panelAt(p));
        for (0..problem.k / 32) |b| {
            inline for (0..comptime (f.blockBytes() + 63) / 64) |line| @prefetch(panel.block(b) + prefetch_ahead + line * 64, .{});
            const record = out + b * weightBlockBytes(f);
            const vectors: [*]dot.U = @ptrCast(@alignCast(record));
            inline for (0..dot.per_panel) |v| {
                const column = i * dot.per_panel + v;
                const codes = panel.blockCodes(b, v);
                const scales = panel.blockScales(b, v);
                inline for (0..8) |s| vectors[s * tile_vectors + column] = codes[s];
                inline for (0..comptime f.groups()) |g| {
                    vectors[(8 + g) * tile_vectors + column] = @bitCast(scales.scale[g]);
                    if (f.has_min) vectors[(8 + f.groups() + g) * tile_vectors + column] = @bitCast(scales.min[g]);
                }
            }
        }
    }
}

const ScratchCodes = struct {
    vectors: [*]const dot.U,
    pub inline fn at(self: @This(), comptime s: usize, comptime v: usize) dot.U {
        return self.vectors[s * tile_vectors + v];
    }
};

const TileCodes = struct {
    codes: [*]const u8,
    pub inline fn at(self: @This(), comptime m: usize, comptime s: usize) i32 {
        return loadFour(self.codes + m * 32 + s * 4);
    }
};

fn runTile(
    comptime f: packed_weights.Form,
    problem: *const Problem,
    t: usize,
    group: usize,
    x_base: [*]const u8,
    w_base: [*]const u8,
) void {
    @setEvalBranchQuota(20000);
    const rows = tile_rows;
    var acc: [rows][tile_vectors]F = @splat(@splat(@splat(0)));
    var x = x_base;
    var w = w_base;
    for (0..problem.k / 32) |_| {
        const floats: [*]const f32 = @ptrCast(@alignCast(x + rows * 32));
        const words: [*]const i32 = @ptrCast(floats);
        const vectors: [*]const dot.U = @ptrCast(@alignCast(w));
        inline for (0..comptime f.groups()) |g| {
            var start: [rows]i32 = @splat(0);
            if (comptime dot.startFactor(f.zero, f.code_max) != 0) {
                inline for (0..rows) |m| start[m] = words[rows * (1 + 2 * g) + m];
            }
            const codes: ScratchCodes = .{ .vectors = vectors + g * 4 * tile_vectors };
            const ints = dot.tile(f.code_max, f.group / 4, rows, tile_vectors, start, codes, TileCodes{ .codes = x + g * 16 });
            inline for (0..tile_vectors) |v| {
                const scale: F = @bitCast(vectors[(8 + g) * tile_vectors + v]);
                inline for (0..rows) |m| acc[m][v] = accumulate(ints[m][v], scale, floats[m], acc[m][v]);
                if (f.has_min) {
                    const min: F = @bitCast(vectors[(8 + f.groups() + g) * tile_vectors + v]);
                    inline for (0..rows) |m| acc[m][v] = dot.fma(min, @splat(floats[rows * (2 + 2 * g) + m]), acc[m][v]);
                }
            }
        }
        x += rows * comptime rowBlockBytes(f);
        w += comptime weightBlockBytes(f);
    }
    inline for (0..tile_panels) |i| {
        const p = group * tile_panels + i;
        if (p < problem.panels()) {
            inline for (0..rows) |m| problem.storeIfRow(t * tile_rows + m, p, acc[m][i * dot.per_panel ..][0..dot.per_panel].*);
        }
    }
}
