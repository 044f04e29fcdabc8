//! `linear` with activations in q8a: integer dots per block, then one fused multiply-add per scale.
//!
//! For each output element and each group of K (32, or 16 where scales are finer), in order of K:
//!     acc = fma(f32(dot of codes), weight scale * activation scale, acc)
//!     acc = fma(weight min, activation scale * sum of activation codes, acc)      (forms with minima)
//! A zero point costs nothing: integer accumulators start at -zero * sum of activation codes. This is llama.cpp's
//! scheme (ggml_vec_dot_q4_0_q8_0 and its kin) with f32 activation scales.

const std = @import("std");
const context = @import("context");
const dot = @import("dot.zig");
const packed_weights = @import("packed.zig");
const quantize = @import("quantize.zig");
const linear = @import("linear.zig");
const linear_variant = @import("linear_variant.zig");
const tile = @import("linear_i8_tile.zig");

const Kind = packed_weights.Kind;
const Form = packed_weights.Form;
const Problem = linear.Problem;
const Range = context.Context.Range;

// ---- few rows: q8a as it is, panels unpacked in registers

/// How far ahead a GEMV of at most, and of more than, four rows asks for weights unless the variant says so: CPUs see a
/// single stream coming, and on Zen 4 asking as well made a thread a fifth slower; with more arithmetic per byte their own
/// look ahead is too short.
const ahead_own: [2]tile.Ahead = .{ .{}, .{ .first = 4096 } };

/// What a variant asks for is brought into the second cache, which can wait for three times as many lines as the first; so
/// close before its use into the first. On Intel's servers both were faster than either, at any distance.
const ahead_first = 1024;

fn aheadOf(problem: *const Problem, rows: usize) tile.Ahead {
    const asked = problem.variant.prefetchBytes();
    if (asked == 0) return ahead_own[@intFromBool(rows > 4)];
    return .{ .first = @min(asked, ahead_first), .second = if (asked > ahead_first) asked else 0 };
}

/// Rows that read a panel's codes together.
const gemv_rows = if (dot.level == .avx512vnni) 8 else 4;
/// Up to so many rows this is faster than bringing rows and panels into another form.
pub const few_rows = 2 * gemv_rows;

pub fn gemv(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    var runs = linear.PanelRuns.init(ctx, problem, 1);
    var taken = runs.next();
    while (taken) |run| {
        // Taken before the last panel of this run, so that what it begins with is asked for in time.
        for (run.start..run.end - 1) |p| multiplyFrom(kind, problem, 0, p, p + 1);
        taken = runs.next();
        multiplyFrom(kind, problem, 0, run.end - 1, if (taken) |next| next.start else run.end - 1);
    }
}

/// Panel p times the rows from `first` on; panel `next` is asked for meanwhile. The panel stays in the cache from the first
/// rows to the last.
fn multiplyFrom(comptime kind: Kind, problem: *const Problem, first: usize, p: usize, next: usize) void {
    var row = first;
    while (row < problem.rows) row += gemvPanel(kind, problem, row, p, next);
}

/// Takes as many rows from `first` on as one function does; returns how many. Powers of two only, to keep the library
/// small and quick to build.
fn gemvPanel(comptime kind: Kind, problem: *const Problem, first: usize, p: usize, next: usize) usize {
    const count = linear.powerOfTwo(gemv_rows, problem.rows - first);
    inline for (.{ 1, 2, 4, 8 }) |rows| {
        if (comptime rows <= gemv_rows) if (count == rows) gemvRows(kind, rows, problem, first, p, next);
    }
    return count;
}

noinline fn gemvRows(comptime kind: Kind, comptime rows: usize, problem: *const Problem, first: usize, p: usize, next: usize) void {
    const f = comptime packed_weights.form(kind);
    var x: tile.Rows(f, rows) = undefined;
    inline for (0..rows) |m| x.rows[m] = quantize.Row.init(problem.xRow(first + m), problem.k);
    const w: tile.Panel(kind) = .{
        .panel = .init(problem.panelAt(p)),
        .bytes = problem.panel_bytes,
        .next = problem.panelAt(next),
        .ahead = aheadOf(problem, rows),
    };
    const sums = tile.run(f, rows, problem.k / 32, x, w);
    inline for (0..rows) |m| problem.store(first + m, p, sums[m]);
}

// ---- many rows: x as records

/// Heights of the register tile, in rows, and the one that is best on the CPUs that were measured.
const tile_sizes: []const usize = switch (dot.level) {
    .avx512vnni => &.{ 4, 8 },
    .avx2, .avxvnni => &.{ 2, 4 },
    .portable => &.{2},
};
const tile_own: usize = tile_sizes[tile_sizes.len - 1];

/// Whether each tile unpacks its weights in registers. It is faster where unpacking runs beside the dots.
const unpacks_in_tile = dot.level == .avx512vnni;

/// Bytes of records that stay in the second cache while panels pass by.
const row_block_bytes = 512 << 10;

pub fn gemm(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    const wanted = linear_variant.tileRows(problem.variant, tile_sizes, tile_own);
    inline for (tile_sizes) |rows| {
        if (rows == wanted) return if (problem.rows < rows) gemv(kind, ctx, problem) else Gemm(kind, rows).run(ctx, problem);
    }
}

/// Scratch for any height of the tile.
pub fn scratchBytes(kind: Kind, rows: usize, k: usize, threads: u32) u64 {
    switch (kind) {
        .f32, .f16, .bf16 => return 0,
        inline else => |q| {
            const Row = Gemm(q, 1);
            return Row.recordBytes(rows, k / 32) + threads * Row.threadBytes(k / 32);
        },
    }
}

/// A product in tiles of `tile_rows` rows; rows beyond the last whole tile are left to GEMV's functions.
fn Gemm(comptime kind: Kind, comptime tile_rows: usize) type {
    return struct {
        const f = packed_weights.form(kind);
        const Record = tile.Record(f, tile_rows);
        const Unpacked = tile.UnpackedBlock(f);

        fn recordBytes(tiles: usize, blocks: usize) usize {
            return std.mem.alignForward(usize, tiles * blocks * @sizeOf(Record), 64);
        }

        fn threadBytes(blocks: usize) usize {
            return if (unpacks_in_tile) 0 else blocks * @sizeOf(Unpacked);
        }

        fn run(ctx: *context.Context, problem: *const Problem) void {
            const blocks = problem.k / 32;
            const tiles = problem.rows / tile_rows;
            const records: [*]Record = @ptrCast(ctx.scratch.ptr);
            if (ctx.phase == 0) {
                const share = ctx.range(tiles, 1);
                for (share.start..share.end) |t| prepare(problem, t, records + t * blocks);
                return ctx.again();
            }
            const own = ctx.scratch.ptr + recordBytes(tiles, blocks) + ctx.thread * threadBytes(blocks);
            const most = if (unpacks_in_tile) @max(1, row_block_bytes / (blocks * @sizeOf(Record))) else tiles;
            const row_blocks = (tiles + most - 1) / most;
            const panels = problem.panels();
            // Panel by panel with one block of rows, then all of them with the next.
            var runs: linear.PanelRuns = .{ .ctx = ctx, .panels = row_blocks * panels, .grain = 1, .named = 0 };
            while (runs.next()) |tasks| for (tasks.start..tasks.end) |task| {
                const at = task / panels;
                const share: Range = .{ .start = tiles * at / row_blocks, .end = tiles * (at + 1) / row_blocks };
                multiply(problem, task % panels, share, records, @ptrCast(@alignCast(own)));
                if (share.end == tiles) multiplyFrom(kind, problem, tiles * tile_rows, task % panels, task % panels);
            };
        }

        fn prepare(problem: *const Problem, t: usize, records: [*]Record) void {
            var x: [tile_rows]quantize.Row = undefined;
            for (&x, 0..) |*row, m| row.* = .init(problem.xRow(t * tile_rows + m), problem.k);
            for (0..problem.k / 32) |b| {
                for (x, 0..) |row, m| records[b].set(m, row, b);
            }
        }

        /// Panel p times some tiles.
        noinline fn multiply(problem: *const Problem, p: usize, tiles: Range, records: [*]const Record, unpacked: [*]Unpacked) void {
            const blocks = problem.k / 32;
            const panel: packed_weights.Panel(kind) = .init(problem.panelAt(p));
            if (!unpacks_in_tile) for (0..blocks) |b| unpacked[b].set(panel, b);
            for (tiles.start..tiles.end) |t| {
                const x: tile.Records(f, tile_rows) = .{ .records = records + t * blocks };
                const sums = if (unpacks_in_tile)
                    tile.run(f, tile_rows, blocks, x, tile.Panel(kind){ .panel = panel })
                else
                    tile.run(f, tile_rows, blocks, x, tile.Unpacked(f){ .blocks = unpacked });
                inline for (0..tile_rows) |m| problem.store(t * tile_rows + m, p, sums[m]);
            }
        }
    };
}
