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

/// Panels of a run come in multiples of this.
pub const gemv_grain = 1;

pub fn gemv(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    var runs = runsOf(ctx, problem, gemv_grain);
    var taken = runs.next();
    while (taken) |run| {
        const walk: Walk = .init(problem, run);
        walk.multiplyButLast(kind);
        // Taken before the last step of this run, so that what it begins with is asked for in time.
        taken = runs.next();
        walk.multiplyLast(kind, .init(problem, taken orelse run));
    }
}

/// Panels that one row goes through side by side where weights are asked for: each is a stream that the CPU follows by itself,
/// too. On an AMX server two threads got 34 to 36 GB/s in plain reading with four streams each, 30 to 33 with one.
const streams_max = context.Stretch.streams_max;

/// Panels that are read side by side in a run that is long enough.
fn streamsOf(problem: *const Problem) usize {
    return if (problem.rows == 1 and aheadOf(problem, 1).second > 0) streams_max else 1;
}

/// The runs of panels that a share of a GEMV takes; `grain` as in PanelRuns.
pub fn runsOf(ctx: *context.Context, problem: *const Problem, grain: usize) linear.PanelRuns {
    return .init(ctx, problem, grain, streamsOf(problem));
}

/// The first runs of a GEMV by so many threads.
pub fn stretchOf(problem: *const Problem, threads: u32, grain: usize) context.Stretch {
    var shared: context.Shared = .{};
    var ctx: context.Context = .{ .thread = 0, .threads = threads, .scratch = &.{}, .shared = &shared };
    var runs = runsOf(&ctx, problem, grain);
    const run = runs.next() orelse return .{};
    const walk: Walk = .init(problem, run);
    return .{
        .base = @intFromPtr(problem.weights),
        .shares = threads,
        .share_bytes = run.end * problem.panel_bytes,
        .streams = walk.streams,
        .stream_bytes = walk.fullSteps() * problem.panel_bytes,
    };
}

/// The way through a run of panels, all rows times each: in equal parts that are read side by side, a panel of each in a
/// step, and at last one by one what is left.
pub const Walk = struct {
    problem: *const Problem,
    run: Range,
    streams: usize,

    pub fn init(problem: *const Problem, run: Range) Walk {
        const streams = streamsOf(problem);
        return .{ .problem = problem, .run = run, .streams = if (run.end - run.start >= streams) streams else 1 };
    }

    /// Steps in which all streams are read.
    fn fullSteps(walk: Walk) usize {
        return (walk.run.end - walk.run.start) / walk.streams;
    }

    fn steps(walk: Walk) usize {
        return walk.fullSteps() + (walk.run.end - walk.run.start) % walk.streams;
    }

    fn panel(walk: Walk, step: usize, stream: usize) usize {
        const full = walk.fullSteps();
        return walk.run.start + step + (if (step < full) stream else walk.streams - 1) * full;
    }

    pub fn multiplyButLast(walk: Walk, comptime kind: Kind) void {
        for (0..walk.steps() - 1) |step| walk.multiply(kind, step, walk, step + 1);
    }

    /// The last step; the walk `next` follows.
    pub fn multiplyLast(walk: Walk, comptime kind: Kind, next: Walk) void {
        walk.multiply(kind, walk.steps() - 1, next, 0);
    }

    /// One step; what the step `after` of the walk `next` reads is asked for meanwhile.
    fn multiply(walk: Walk, comptime kind: Kind, step: usize, next: Walk, after: usize) void {
        if (walk.streams == 1 or step >= walk.fullSteps()) {
            return multiplyFrom(kind, walk.problem, 0, walk.panel(step, 0), next.problem.panelAt(next.panel(after, 0)));
        }
        var panels: [streams_max]usize = undefined;
        var nexts: [streams_max][*]const u8 = undefined;
        for (&panels, &nexts, 0..) |*p, *follower, i| {
            p.* = walk.panel(step, i);
            follower.* = next.problem.panelAt(next.panel(after, @min(i, next.streams - 1)));
        }
        gemvRows(kind, 1, streams_max, walk.problem, 0, panels, nexts);
    }
};

/// Panel p times the rows from `first` on; panel `next` is asked for meanwhile. The panel stays in the cache from the first
/// rows to the last.
fn multiplyFrom(comptime kind: Kind, problem: *const Problem, first: usize, p: usize, next: [*]const u8) void {
    var row = first;
    while (row < problem.rows) row += gemvPanel(kind, problem, row, p, next);
}

/// Takes as many rows from `first` on as one function does; returns how many. Powers of two only, to keep the library
/// small and quick to build.
fn gemvPanel(comptime kind: Kind, problem: *const Problem, first: usize, p: usize, next: [*]const u8) usize {
    const count = linear.powerOfTwo(gemv_rows, problem.rows - first);
    inline for (.{ 1, 2, 4, 8 }) |rows| {
        if (comptime rows <= gemv_rows) if (count == rows) gemvRows(kind, rows, 1, problem, first, .{p}, .{next});
    }
    return count;
}

noinline fn gemvRows(
    comptime kind: Kind,
    comptime rows: usize,
    comptime count: usize,
    problem: *const Problem,
    first: usize,
    panels: [count]usize,
    next: [count][*]const u8,
) void {
    const f = comptime packed_weights.form(kind);
    var x: tile.Rows(f, rows) = undefined;
    inline for (0..rows) |m| x.rows[m] = quantize.Row.init(problem.xRow(first + m), problem.k);
    var w: tile.Panels(kind, count) = .{ .panels = undefined, .bytes = problem.panel_bytes, .next = next, .ahead = aheadOf(problem, rows) };
    inline for (&w.panels, panels) |*panel, p| panel.* = .init(problem.panelAt(p));
    const sums = tile.run(f, rows, problem.k / 32, x, w);
    inline for (0..rows) |m| inline for (panels, 0..) |p, i| {
        problem.store(first + m, p, sums[m][i * dot.per_panel ..][0..dot.per_panel].*);
    };
}

// ---- many rows: x as records

/// A register tile: some rows times the columns of one panel or two.
const Shape = struct {
    rows: usize,
    panels: usize = 1,

    /// Whether each tile unpacks its weights in registers: faster where unpacking runs beside the dots. Two panels are too
    /// much for the registers, so they are unpacked once for all rows.
    fn unpacksInTile(comptime shape: Shape) bool {
        return dot.level == .avx512vnni and shape.panels == 1;
    }
};

/// The tiles, by their rows, of which each has another number. Zen 4 loads more than it multiplies: there one panel times
/// eight rows is best. Intel's units of 512 bits do as many dots as loads in a cycle, and two panels share a load of x.
const shapes: []const Shape = switch (dot.level) {
    .avx512vnni => &.{ .{ .rows = 4 }, .{ .rows = 6, .panels = 2 }, .{ .rows = 8 } },
    .avxvnni => &.{ .{ .rows = 2 }, .{ .rows = 3 } },
    .avx2 => &.{ .{ .rows = 2 }, .{ .rows = 3 }, .{ .rows = 4 } },
    .portable => &.{.{ .rows = 2 }},
};
const tile_sizes: [shapes.len]usize = blk: {
    var sizes: [shapes.len]usize = undefined;
    for (shapes, &sizes) |shape, *size| size.* = shape.rows;
    break :blk sizes;
};
const tile_own: usize = tile_rows_max;

/// Bytes of records that stay in the second cache while panels pass by.
const row_block_bytes = 512 << 10;

/// Most rows of a register tile.
pub const tile_rows_max = shapes[shapes.len - 1].rows;

pub fn gemm(comptime kind: Kind, ctx: *context.Context, problem: *const Problem) void {
    if (problem.rows < tileRows(problem)) return gemv(kind, ctx, problem);
    gemmOf(kind, ctx, problem, Single{ .problem = problem });
}

/// Rows of the register tile that a product goes through; GEMM takes no fewer rows.
pub fn tileRows(problem: *const Problem) usize {
    return linear_variant.tileRows(problem.variant, &tile_sizes, tile_own);
}

/// A GEMM whose results are one product's.
const Single = struct {
    problem: *const Problem,

    pub const rows_max = std.math.maxInt(usize);

    pub fn run(self: Single, task: anytype, pair: Range) void {
        task.multiply(self.problem, pair);
    }
};

/// Runs a GEMM over the rows of `problem`, of which `work` makes what it wants: `run(task, pair)` is called for each pair of
/// panels, the last of which may be one, and some rows, at most about `rows_max`; `task.multiply(product, pair)` is such a
/// pair of a product with these rows of x times them.
pub fn gemmOf(comptime kind: Kind, ctx: *context.Context, problem: *const Problem, work: anytype) void {
    const wanted = tileRows(problem);
    inline for (shapes) |shape| if (shape.rows == wanted) return Gemm(kind, shape).run(ctx, problem, work);
}

/// Scratch for any height of the tile.
pub fn scratchBytes(kind: Kind, rows: usize, k: usize, threads: u32) u64 {
    switch (kind) {
        .f32, .f16, .bf16 => return 0,
        inline else => |q| {
            const Row = Gemm(q, .{ .rows = 1 });
            var most: u64 = 0;
            inline for (shapes) |shape| most = @max(most, Gemm(q, shape).threadBytes(k / 32));
            return Row.recordBytes(rows, k / 32) + threads * most;
        },
    }
}

/// A product in tiles; rows beyond the last whole tile are left to GEMV's functions.
fn Gemm(comptime kind: Kind, comptime shape: Shape) type {
    return struct {
        const f = packed_weights.form(kind);
        const tile_rows = shape.rows;
        const unpacks_in_tile = shape.unpacksInTile();
        const Record = tile.Record(f, tile_rows);
        const Unpacked = tile.UnpackedBlock(f, shape.panels);

        fn recordBytes(tiles: usize, blocks: usize) usize {
            return std.mem.alignForward(usize, tiles * blocks * @sizeOf(Record), 64);
        }

        fn threadBytes(blocks: usize) usize {
            return if (unpacks_in_tile) 0 else blocks * @sizeOf(Unpacked);
        }

        fn run(ctx: *context.Context, problem: *const Problem, work: anytype) void {
            const blocks = problem.k / 32;
            const tiles = problem.rows / tile_rows;
            const records: [*]Record = @ptrCast(ctx.scratch.ptr);
            if (ctx.phase == 0) {
                const share = ctx.range(tiles, 1);
                for (share.start..share.end) |t| prepare(problem, t, records + t * blocks);
                return ctx.again();
            }
            const own = ctx.scratch.ptr + recordBytes(tiles, blocks) + ctx.thread * threadBytes(blocks);
            const cached = if (unpacks_in_tile) row_block_bytes / (blocks * @sizeOf(Record)) else tiles;
            const most = @max(1, @min(cached, @TypeOf(work).rows_max / tile_rows));
            const row_blocks = (tiles + most - 1) / most;
            const panels = problem.panels();
            const pairs = (panels + 1) / 2;
            // Pair by pair with one block of rows, then all of them with the next.
            var runs: linear.PanelRuns = .{ .ctx = ctx, .panels = row_blocks * pairs, .grain = 1, .named = 0 };
            while (runs.next()) |tasks| for (tasks.start..tasks.end) |number| {
                const at = number / pairs;
                const first = number % pairs * 2;
                const share: Range = .{ .start = tiles * at / row_blocks, .end = tiles * (at + 1) / row_blocks };
                const task: Task = .{
                    .tiles = share,
                    .rows = .{ .start = share.start * tile_rows, .end = if (share.end == tiles) problem.rows else share.end * tile_rows },
                    .records = records,
                    .unpacked = @ptrCast(@alignCast(own)),
                };
                work.run(task, .{ .start = first, .end = @min(panels, first + 2) });
            };
        }

        const Task = struct {
            tiles: Range,
            /// The rows of the tiles, and behind the last tile those that fill none.
            rows: Range,
            records: [*]const Record,
            unpacked: [*]Unpacked,

            pub fn multiply(task: Task, product: *const Problem, pair: Range) void {
                var p = pair.start;
                while (p < pair.end) : (p += shape.panels) {
                    multiplyTiles(product, .{ .start = p, .end = @min(pair.end, p + shape.panels) }, task.tiles, task.records, task.unpacked);
                }
                const rest = task.tiles.end * tile_rows;
                if (task.rows.end > rest) for (pair.start..pair.end) |one| multiplyFrom(kind, product, rest, one, product.panelAt(one));
            }
        };

        fn prepare(problem: *const Problem, t: usize, records: [*]Record) void {
            var x: [tile_rows]quantize.Row = undefined;
            for (&x, 0..) |*row, m| row.* = .init(problem.xRow(t * tile_rows + m), problem.k);
            for (0..problem.k / 32) |b| {
                for (x, 0..) |row, m| records[b].set(m, row, b);
            }
        }

        /// The panels of a tile, or the one that is left of two, times some tiles of rows.
        noinline fn multiplyTiles(problem: *const Problem, panels: Range, tiles: Range, records: [*]const Record, unpacked: [*]Unpacked) void {
            const blocks = problem.k / 32;
            if (!unpacks_in_tile) inline for (0..shape.panels) |i| {
                const panel: packed_weights.Panel(kind) = .init(problem.panelAt(@min(panels.start + i, panels.end - 1)));
                for (0..blocks) |b| unpacked[b].set(i, panel, b);
            };
            for (tiles.start..tiles.end) |t| {
                const x: tile.Records(f, tile_rows) = .{ .records = records + t * blocks };
                const sums = if (unpacks_in_tile)
                    tile.run(f, tile_rows, blocks, x, tile.Panels(kind, 1){ .panels = .{.init(problem.panelAt(panels.start))} })
                else
                    tile.run(f, tile_rows, blocks, x, tile.Unpacked(f, shape.panels){ .blocks = unpacked });
                inline for (0..tile_rows) |m| inline for (0..shape.panels) |i| {
                    const part = sums[m][i * dot.per_panel ..][0..dot.per_panel];
                    if (i == 0 or panels.start + i < panels.end) problem.store(t * tile_rows + m, panels.start + i, part.*);
                };
            }
        }
    };
}
