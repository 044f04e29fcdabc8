//! `linear` and `linear_swiglu` of at least `rows_min` rows in q8a, on AMX tiles: products of bf16, sums in f32.
//!
//! Activations (scale * code) and weights (as the reference dequantises them) are rounded to bf16, to nearest even. A
//! sum starts at the bias and takes 32 elements of K at a time, in order of K: so its bits depend neither on the number
//! of rows, as long as there are `rows_min`, nor on threads or blocks. Fewer rows are not taken; linear_i8.zig has them.
//!
//! Tiles: two of 16 rows times two panels of 16 columns, sixteen steps of 32 along K. The weights of one such block, 32 KiB,
//! are unpacked into the first cache and stay there while a task's rows pass by, from the second cache; sums wait in scratch from
//! one sixteen steps to the next. Each tile of sums is stored, and that of the next rows loaded, while others are at work.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const amx = @import("amx.zig");
const dot = @import("dot.zig");
const packed_weights = @import("packed.zig");
const quantize = @import("quantize.zig");
const linear = @import("linear.zig");
const unpack = @import("linear_amx_unpack.zig");
const gateTile = @import("linear_amx_gate.zig").gateTile;
const plans = @import("linear_amx_plan.zig");
const Pair = @import("linear_swiglu.zig").Pair;

const F = dot.F;
const U = dot.U;
const Range = context.Context.Range;
const Kind = packed_weights.Kind;
const Problem = linear.Problem;
const Plan = plans.Plan;
const Queue = plans.Queue;
const block_steps = plans.block_steps;
const step_k = plans.step_k;
const divCeil = plans.divCeil;

/// With fewer rows unpacking the weights costs more than the tiles save.
pub const rows_min = 64;

pub const takes = hasRows;

fn hasRows(cmd: *const abi.Command) bool {
    return cmd.inputs[0].dtype == @intFromEnum(abi.Dtype.q8a) and cmd.inputs[0].shape[0] >= rows_min;
}

/// Runs a `linear` that `takes` said yes to.
pub fn run(ctx: *context.Context, cmd: *const abi.Command) void {
    gemmOf(ctx, cmd, .{ .first = linear.problemOf(cmd) });
}

/// Scratch of a `linear` that `takes` says yes to, and of every one with fewer rows.
pub fn scratchBytes(cmd: *const abi.Command, threads: u32) u64 {
    return bytesOf(cmd, threads, 1);
}

/// The same three of `linear_swiglu`.
pub const swiglu = struct {
    pub const takes = hasRows;

    pub fn run(ctx: *context.Context, cmd: *const abi.Command) void {
        const pair: Pair = .init(cmd);
        gemmOf(ctx, cmd, .{ .first = pair.gate, .pair = &pair });
    }

    pub fn scratchBytes(cmd: *const abi.Command, threads: u32) u64 {
        return bytesOf(cmd, threads, 2);
    }
};

fn bytesOf(cmd: *const abi.Command, threads: u32, products: usize) u64 {
    const rows: usize = @intCast(cmd.inputs[0].shape[0]);
    const n: usize = @intCast(cmd.inputs[1].shape[0]);
    const k: usize = @intCast(cmd.inputs[1].shape[1]);
    var most: u64 = 0;
    for (1..threads + 1) |t| { // fewer threads may each need more
        const plan = Plan.init(rows, n, k, products, t);
        most = @max(most, Queue.bytes(plan) + plan.rowsBytes() + t * plan.threadBytes(plan.task_row_pairs_most));
    }
    return most;
}

/// One product, or both of a gate: then pairs of panels of the gate and the other take turns, and a block of 32 columns is
/// two pairs of panels.
const Products = struct {
    first: Problem,
    pair: ?*const Pair = null,

    fn count(self: *const Products) usize {
        return if (self.pair == null) 1 else 2;
    }

    fn panelAt(self: *const Products, p: usize) [*]const u8 {
        const pair = self.pair orelse return self.first.panelAt(p);
        return (if (p / 2 % 2 == 0) &pair.gate else &pair.up).panelAt(p / 4 * 2 + p % 2);
    }
};

fn gemmOf(ctx: *context.Context, cmd: *const abi.Command, products: Products) void {
    std.debug.assert(ctx.scratch.len >= bytesOf(cmd, ctx.threads, products.count()));
    switch (products.first.kind) {
        .f32, .f16, .bf16 => unreachable, // q8a goes with quantised weights only
        inline else => |kind| gemm(kind, ctx, &products),
    }
}

fn gemm(comptime kind: Kind, ctx: *context.Context, products: *const Products) void {
    const problem = &products.first;
    const plan = Plan.init(problem.rows, problem.n, problem.k, products.count(), ctx.threads);
    const queue_memory = ctx.scratch.ptr;
    const rows: [*]align(64) u8 = @alignCast(queue_memory + Queue.bytes(plan));
    if (ctx.phase == 0) {
        if (ctx.thread == 0) Queue.clear(queue_memory, &plan, ctx.threads);
        const first = plan.rowTiles(Queue.firstPart(&plan, ctx.thread, ctx.threads));
        const share = if (plan.parts < ctx.threads) ctx.range(plan.row_tiles, 1) else first;
        packRows(problem, &plan, share, rows);
        return ctx.again();
    }
    const own: [*]align(64) u8 = @alignCast(rows + plan.rowsBytes() + ctx.thread * plan.threadBytes(plan.task_row_pairs));
    amx.configure(&amx.Config.full);
    defer amx.release();
    var queue: Queue = .init(queue_memory, &plan, ctx.thread, ctx.threads);
    while (queue.next()) |next| switch (next) {
        .rows => |part| {
            packRows(problem, &plan, plan.rowTiles(part), rows);
            queue.setTiles(part);
        },
        .product => |product| {
            const task: Task = .{
                .problem = problem,
                .products = products,
                .plan = &plan,
                .rows = rows,
                .weights = own,
                .start = @ptrCast(@alignCast(own + Plan.weights_bytes)),
                .sums = @alignCast(own + Plan.weights_bytes + plan.startBytes()),
                .panels = plan.groupPanels(product.group),
                .tiles = plan.rowTiles(product.part),
            };
            task.run(kind);
        },
    };
}

fn packRows(problem: *const Problem, plan: *const Plan, tiles: Range, out: [*]align(64) u8) void {
    for (tiles.start..tiles.end) |t| packTile(problem, plan, t, out);
}

/// 16 rows of x as tiles of bf16; rows beyond the last are zeros.
fn packTile(problem: *const Problem, plan: *const Plan, t: usize, out: [*]align(64) u8) void {
    const present = @min(amx.rows, problem.rows - t * amx.rows);
    var x: [amx.rows]quantize.Row = undefined;
    for (x[0..present], 0..) |*row, m| row.* = .init(problem.xRow(t * amx.rows + m), problem.k);
    for (0..plan.steps) |s| {
        const tile: [*]align(64) U = @ptrCast(@alignCast(out + plan.rowTile(s, t)));
        for (x[0..present], 0..) |row, m| {
            const scale: F = @splat(row.scales[s]);
            const codes: [*]const i8 = row.codes + s * step_k;
            const low: @Vector(16, i8) = codes[0..16].*;
            const high: @Vector(16, i8) = codes[16..32].*;
            tile[m] = unpack.roundPairs(@as(F, @floatFromInt(high)) * scale, @as(F, @floatFromInt(low)) * scale);
        }
        for (present..amx.rows) |m| tile[m] = @splat(0);
    }
}

/// A group of columns and some of the rows.
const Task = struct {
    problem: *const Problem,
    products: *const Products,
    plan: *const Plan,
    /// Place of all rows' tiles; those of the task's are made.
    rows: [*]align(64) const u8,
    weights: [*]align(64) u8,
    start: [*]align(64) f32,
    sums: [*]align(64) u8,
    panels: Range,
    tiles: Range,

    fn run(task: *const Task, comptime kind: Kind) void {
        task.prepareStart();
        var first: usize = 0;
        while (first < task.plan.steps) : (first += block_steps) {
            const steps = @min(block_steps, task.plan.steps - first);
            const asks = task.rowPairs() * steps; // for one pair of panels
            var rows_ahead = task.rowsAhead(first, asks);
            var p = task.panels.start;
            while (p < task.panels.end) : (p += 2) switch (@as(usize, @min(2, task.panels.end - p))) {
                inline 1, 2 => |panels| {
                    inline for (0..panels) |i| {
                        const tile: [*]align(64) u8 = @alignCast(task.weights + i * amx.tile_bytes);
                        unpack.unpackPanel(kind, task.products.panelAt(p + i), first, steps, tile, panels * amx.tile_bytes);
                    }
                    var weights_ahead: WeightsAhead = if (p + panels < task.panels.end)
                        task.weightsAhead(kind, p + panels, first, asks)
                    else if (first + steps < task.plan.steps)
                        task.weightsAhead(kind, task.panels.start, first + steps, asks)
                    else
                        .{};
                    task.multiply(panels, first, steps, p, &weights_ahead, &rows_ahead);
                },
                else => unreachable,
            };
        }
        if (task.products.pair) |pair| task.gate(pair);
    }

    fn rowPairs(task: *const Task) usize {
        return divCeil(task.tiles.end - task.tiles.start, 2);
    }

    /// Weights of a pair of panels, from step `first` on, asked for so many times.
    fn weightsAhead(task: *const Task, comptime kind: Kind, p: usize, first: usize, asks: usize) WeightsAhead {
        const f = comptime packed_weights.form(kind);
        const start = f.superAt(first) / 64 * 64;
        const end = f.blockAt(@min(first + block_steps, task.plan.steps));
        const panels = [2][*]const u8{ task.products.panelAt(p), task.products.panelAt(@min(p + 1, task.panels.end - 1)) };
        return .init(panels, start, end, asks);
    }

    /// The activations of the block of steps that follows the one from `first` on. Behind the last block that is the first one,
    /// for the next group of these rows.
    fn rowsAhead(task: *const Task, first: usize, asks: usize) RowsAhead {
        const next = if (first + block_steps < task.plan.steps) first + block_steps else 0;
        const next_steps = @min(block_steps, task.plan.steps - next);
        const bytes = (task.tiles.end - task.tiles.start) * next_steps * amx.tile_bytes;
        const pairs = divCeil(task.panels.end - task.panels.start, 2);
        return .init(.{task.rows + task.plan.rowTile(next, task.tiles.start)}, 0, bytes, pairs * asks);
    }

    /// The bias of each column, zeros where there is none.
    fn prepareStart(task: *const Task) void {
        const first = task.panels.start * 16;
        const columns = (task.panels.end - task.panels.start) * 16;
        for (task.start[0..columns], first..) |*value, c| {
            value.* = if (c < task.problem.n) if (task.problem.bias) |bias| bias[c] else 0 else 0;
        }
    }

    /// All rows of the task times `tn` panels, in a block of steps.
    fn multiply(
        task: *const Task,
        comptime tn: usize,
        first: usize,
        steps: usize,
        p: usize,
        weights_ahead: *WeightsAhead,
        rows_ahead: *RowsAhead,
    ) void {
        var t = task.tiles.start;
        var from = task.before(first, t, p);
        inline for (0..2) |i| inline for (0..tn) |j| amx.load(i * 2 + j, from.at(i, j), from.row);
        while (t < task.tiles.end) : (t += 2) {
            const x = task.rows + task.plan.rowTile(first, t);
            if (t + 2 < task.tiles.end) from = task.before(first, t + 2, p);
            switch (@as(usize, @min(2, task.tiles.end - t))) {
                inline 1, 2 => |tm| {
                    const is_last = first + steps == task.plan.steps;
                    const is_result = is_last and task.products.pair == null;
                    const is_direct = is_result and task.isWhole(tm, tn, t, p);
                    const to = if (is_direct) task.output(t, p) else task.kept(t, p);
                    multiplyTiles(tm, tn, steps, x, task.weights, to, from, weights_ahead, rows_ahead);
                    if (is_result and !is_direct) task.copyOut(tm, tn, t, p);
                },
                else => unreachable,
            }
        }
    }

    /// Whether no tile of a block reaches beyond the output.
    fn isWhole(task: *const Task, comptime tm: usize, comptime tn: usize, t: usize, p: usize) bool {
        return (t + tm) * amx.rows <= task.problem.rows and (p + tn) * packed_weights.panel <= task.problem.n;
    }

    /// What a block's sums are before step `first`.
    fn before(task: *const Task, first: usize, t: usize, p: usize) Sums {
        if (first > 0) return task.kept(t, p);
        return .{ .base = @ptrCast(task.start + (p - task.panels.start) * 16), .row = 0, .tile_row = 0, .tile_column = 64 };
    }

    /// Where a block's sums wait: four tiles, one after the other.
    fn kept(task: *const Task, t: usize, p: usize) Sums {
        const block = (p - task.panels.start) / 2 * task.plan.task_row_pairs + (t - task.tiles.start) / 2;
        const base = task.sums + block * 4 * amx.tile_bytes;
        return .{ .base = base, .row = amx.row_bytes, .tile_row = 2 * amx.tile_bytes, .tile_column = amx.tile_bytes };
    }

    fn output(task: *const Task, t: usize, p: usize) Sums {
        const row_bytes = task.problem.out_row * 4;
        const base = task.problem.out + t * amx.rows * task.problem.out_row + p * packed_weights.panel;
        return .{ .base = @ptrCast(base), .row = row_bytes, .tile_row = amx.rows * row_bytes, .tile_column = 64 };
    }

    /// Gates all columns of the task, tile by tile along the rows: what is written of a row then lies in few lines of the cache.
    fn gate(task: *const Task, pair: *const Pair) void {
        for (task.tiles.start..task.tiles.end) |t| {
            const at = t % 2 * 2 * amx.tile_bytes;
            const row = t * amx.rows;
            const present = @min(amx.rows, task.problem.rows - row);
            var p = task.panels.start;
            while (p < task.panels.end) : (p += 4) {
                const gates: [*]align(64) const f32 = @ptrCast(@alignCast(task.kept(t, p).base + at));
                const ups: [*]align(64) const f32 = @ptrCast(@alignCast(task.kept(t, p + 2).base + at));
                gateTile(pair, row, present, p / 4 * 32, gates, ups);
            }
        }
    }

    /// Copies the part of a block of tiles that lies within the output.
    fn copyOut(task: *const Task, comptime tm: usize, comptime tn: usize, t: usize, p: usize) void {
        const problem = task.problem;
        const tiles: [*]const f32 = @ptrCast(@alignCast(task.kept(t, p).base));
        const row = t * amx.rows;
        for (row..@min(row + tm * 16, problem.rows)) |r| inline for (0..tn) |j| {
            const first = (p + j) * packed_weights.panel;
            const columns = @min(16, problem.n -| first);
            const from = tiles + ((r - row) / 16 * 2 + j) * 256 + (r - row) % 16 * 16;
            @memcpy(problem.out[r * problem.out_row + first ..][0..columns], from[0..columns]);
        };
    }
};

/// What is read next and does not wait in the second cache, in streams side by side: asked for in parts, so that tiles go on
/// being loaded.
fn Ahead(comptime streams: usize) type {
    return struct {
        from: [streams][*]const u8 = undefined,
        at: usize = 0,
        end: usize = 0,
        part: usize = 0,

        const line = 64;

        /// Bytes start … end-1 of each stream, in at most so many parts.
        fn init(from: [streams][*]const u8, start: usize, end: usize, parts: usize) @This() {
            return .{ .from = from, .at = start, .end = end, .part = std.mem.alignForward(usize, divCeil(end - start, parts), line) };
        }

        inline fn ask(self: *@This()) void {
            const end = @min(self.end, self.at + self.part);
            while (self.at < end) : (self.at += line) for (self.from) |from| @prefetch(from + self.at, .{ .locality = 2 });
        }
    };
}

/// Packed weights of two panels. In parts as small as a step's: many lines asked for at once hold up the tiles' own loads.
const WeightsAhead = Ahead(2);
/// Activations of the next block of steps, which have left the second cache since they were last read, or come into this one
/// for the first time.
const RowsAhead = Ahead(1);

/// Where a block of tiles of sums lies; distances in bytes.
const Sums = struct {
    base: [*]u8,
    row: usize,
    tile_row: usize,
    tile_column: usize,

    inline fn at(self: Sums, comptime i: usize, comptime j: usize) [*]u8 {
        return self.base + i * self.tile_row + j * self.tile_column;
    }
};

/// Some steps of tm by tn tiles, whose sums lie in tiles 0 to 3; 4 and 5 are for activations, 6 and 7 for weights.
/// Stores the sums, and leaves those of the next block in their tiles.
fn multiplyTiles(
    comptime tm: usize,
    comptime tn: usize,
    steps: usize,
    x: [*]const u8,
    w: [*]const u8,
    to: Sums,
    next: Sums,
    weights_ahead: *WeightsAhead,
    rows_ahead: *RowsAhead,
) void {
    var a = x;
    var b = w;
    for (1..steps) |_| {
        multiplyStep(tm, tn, a, b, null);
        rows_ahead.ask();
        weights_ahead.ask();
        a += tm * amx.tile_bytes;
        b += tn * amx.tile_bytes;
    }
    multiplyStep(tm, tn, a, b, .{ to, next });
    rows_ahead.ask();
    weights_ahead.ask();
}

/// One step. The last one of a block has an `exchange`: a tile of sums goes, and the next one comes, while others work.
inline fn multiplyStep(comptime tm: usize, comptime tn: usize, a: [*]const u8, b: [*]const u8, exchange: ?[2]Sums) void {
    inline for (0..tm) |i| {
        amx.loadPast(4 + i, a + i * amx.tile_bytes, amx.row_bytes);
        inline for (0..tn) |j| {
            if (i == 0) amx.load(6 + j, b + j * amx.tile_bytes, amx.row_bytes);
            amx.dotBf16(i * 2 + j, 4 + i, 6 + j);
            if (exchange) |sums| if (j > 0) exchangeTile(i, j - 1, sums) else if (i > 0) exchangeTile(i - 1, tn - 1, sums);
        }
    }
    if (exchange) |sums| exchangeTile(tm - 1, tn - 1, sums);
}

inline fn exchangeTile(comptime i: usize, comptime j: usize, sums: [2]Sums) void {
    amx.store(i * 2 + j, sums[0].at(i, j), sums[0].row);
    amx.load(i * 2 + j, sums[1].at(i, j), sums[1].row);
}
