//! Attention of many queries in int8: pages of a head of the cache are brought into int8 once; then tiles of query rows
//! pass over them. See attention_i8_page.zig for the pages, attention_i8_weights.zig for what is calculated with them,
//! attention_i8_dot.zig and attention_i8_amx.zig for the products.
//!
//! A row's bits depend on the row, its keys and values, and on their stretches, merged in order: neither on the tile, nor on
//! threads, nor on how many queries there are (from `abi.attention_i8_tokens_min` on, where this begins).

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");
const hadamard = @import("hadamard.zig");
const gemm = @import("gemm.zig");
const kv = @import("kv_cache.zig");
const kv_page = @import("kv_page.zig");
const transposing = @import("transpose.zig");
const amx = @import("amx.zig");
const dot = @import("dot.zig");
const dots = @import("attention_i8_dot.zig");
const tiles = if (amx.available) @import("attention_i8_amx.zig") else struct {};
const float = @import("attention_i8_weights.zig");
const i8_page = @import("attention_i8_page.zig");
const view_zig = @import("attention_view.zig");

const Stretch = i8_page.Stretch;
const Shape = i8_page.Shape;
const State = view_zig.State;
const View = view_zig.View;
const padded = view_zig.padded;
const lanes = simd.lanes;

/// Whether this command multiplies in int8.
pub fn applies(cmd: *const abi.Command) bool {
    const fits = views.dim(&cmd.inputs[0], 0) >= abi.attention_i8_tokens_min and views.dim(&cmd.inputs[1], 2) <= i8_page.keys_max;
    return cmd.ints[2] == 1 and fits;
}

/// Sizes that follow from a command's shapes, in elements.
const Plan = struct {
    tokens: usize,
    group: usize,
    kv_heads: usize,
    /// Of the page table.
    pages: usize,
    shape: Shape,
    tile_tokens: usize,
    /// In whole tiles of the products.
    tile_rows: usize,
    score_floats: usize,

    fn init(comptime Products: type, cmd: *const abi.Command) Plan {
        const q = &cmd.inputs[0];
        const cache = &cmd.inputs[1];
        const kv_heads = views.dim(cache, 1);
        const group = views.dim(q, 1) / kv_heads;
        const head_dim = views.dim(q, 2);
        const shape: Shape = .init(views.dim(cache, 2), head_dim);
        // Few rows of the products' tiles are idle.
        const most = @max(1, Products.rowsAtMost(head_dim) / group);
        const whole = Products.rows_max / std.math.gcd(Products.rows_max, group);
        const tile_tokens = @min(if (most > whole) most / whole * whole else most, views.dim(q, 0));
        return .{
            .tokens = views.dim(q, 0),
            .group = group,
            .kv_heads = kv_heads,
            .pages = views.dim(&cmd.inputs[3], 0),
            .shape = shape,
            .tile_tokens = tile_tokens,
            .tile_rows = std.mem.alignForwardAnyAlign(usize, tile_tokens * group, Products.rows_max),
            .score_floats = Products.scoreFloats(shape),
        };
    }

    /// Floats of the pages of one head.
    fn pageFloats(p: *const Plan) usize {
        // Saturating: nothing bounds what a page table claims but that no memory is as large.
        return p.referenceFloats() +| p.stretches() *| p.shape.floats();
    }

    fn referenceFloats(p: *const Plan) usize {
        return p.pages *| p.shape.width;
    }

    fn stretches(p: *const Plan) usize {
        return std.math.divCeil(usize, p.pages, p.shape.pages) catch unreachable;
    }

    /// Tiles of query rows of one head.
    fn tiles(p: *const Plan) usize {
        return std.math.divCeil(usize, p.tokens, p.tile_tokens) catch unreachable;
    }

    /// Heads 0 … whole-1 are each one share's alone: it makes their pages, which its second cache then holds, and passes over
    /// them. Of the others, too few to go round, all shares make the pages. With less than two for each share none is whole: a
    /// share may be much slower than others.
    fn wholeHeads(p: *const Plan, threads: usize) usize {
        return if (p.kv_heads < 2 * threads) 0 else p.kv_heads - p.kv_heads % threads;
    }

    /// The i-th of them to be taken: heads that are at work together lie far apart, so that no two shares write to one line
    /// of the output.
    fn wholeHead(p: *const Plan, i: usize, threads: usize) usize {
        return i % threads * (p.wholeHeads(threads) / threads) + i / threads;
    }

    /// Heads whose pages are there at one time: one of each share, and those that do not go round.
    fn pageAreas(p: *const Plan, threads: usize) usize {
        const whole = p.wholeHeads(threads);
        return @min(threads, whole) + p.kv_heads - whole;
    }

    fn threadFloats(p: *const Plan) usize {
        return State.floats(p.tile_rows, p.shape.width) + view_zig.floatsOf(&p.parts()) +| p.commonFloats();
    }

    /// Floats of the products of a tile's rows with the references of all pages.
    fn commonFloats(p: *const Plan) usize {
        return p.stretches() *| (p.shape.pages * padded(p.tile_rows));
    }

    /// Floats of the scratch arrays of a tile, by the names of its fields.
    fn parts(p: *const Plan) [scratch_fields.len]usize {
        const rows = p.tile_rows;
        const s = p.shape;
        return .{
            // some_rows, columns, codes, scales, starts
            i8_page.Maker.rowFloats(s),
            lanes * s.width,
            padded(rows) * s.width / 4,
            rows,
            rows,
            // scores, weights, max, sum, keep, gain, low, high
            p.score_floats,
            rows * s.keys / 4,
            rows,
            rows,
            rows,
            rows,
            rows,
            rows,
        };
    }
};

pub fn workspace(cmd: *const abi.Command, threads: u32) u64 {
    return if (onTiles(cmd)) workspaceOf(tiles, cmd, threads) else workspaceOf(dots, cmd, threads);
}

pub fn workspaceOf(comptime Products: type, cmd: *const abi.Command, threads: u32) u64 {
    const p: Plan = .init(Products, cmd);
    var most: usize = 0;
    for (1..threads + 1) |t| { // fewer threads may need more: eight heads go round for four, not for three
        most = @max(most, p.pageAreas(t) *| p.pageFloats() +| t *| p.threadFloats());
    }
    return most *| @sizeOf(f32);
}

inline fn onTiles(cmd: *const abi.Command) bool {
    const cache = &cmd.inputs[1];
    return amx.available and tiles.takes(.init(views.dim(cache, 2), views.dim(cache, 3)));
}

const no_logs: [i8_page.keys_max]f32 align(64) = @splat(0);

const scratch_fields = .{
    "some_rows", "columns", "codes", "scales", "starts", "scores", "weights",
    "max",       "sum",     "keep",  "gain",   "low",    "high",
};

const Tile = struct {
    plan: Plan,
    view: View,
    rows: usize,
    softcap: f32,
    /// References [pages][W] and stretches of the head: memory beyond those that are seen is never touched.
    references: [*]f32,
    stretches: [*]f32,
    // Scratch; Plan.parts has the sizes of all but the last two.
    some_rows: [*]f32,
    /// Some rows times scale, rotated [W][lanes].
    columns: [*]f32,
    codes: [*]i8,
    scales: [*]f32,
    starts: [*]i32,
    scores: [*]f32,
    weights: [*]u8,
    /// Of the stretch, per row: largest score, sum of weights, factors of the merge, visible keys.
    max: [*]f32,
    sum: [*]f32,
    keep: [*]f32,
    gain: [*]f32,
    low: [*]u32,
    high: [*]u32,
    total: State,
    /// q · reference of the pages, from the first stretch that is seen on [pages][rows padded].
    commons: [*]f32,

    fn init(plan: Plan, memory: [*]f32) Tile {
        var t: Tile = undefined;
        t.plan = plan;
        const results = view_zig.place(&t, scratch_fields, plan.parts(), memory);
        t.total = .at(results, plan.tile_rows);
        t.commons = results + State.floats(plan.tile_rows, plan.shape.width);
        return t;
    }

    /// Turns to a head, whose pages are or will be in `pages`.
    fn turnTo(t: *Tile, head: usize, pages: [*]f32) void {
        t.view.head = head;
        t.references = pages;
        t.stretches = pages + t.plan.referenceFloats();
    }

    fn referenceOf(t: *const Tile, page: usize) [*]f32 {
        return t.references + page * t.plan.shape.width;
    }

    fn stretchOf(t: *const Tile, page: usize) Stretch {
        const s = t.plan.shape;
        return .at(s, t.stretches + page / s.pages * s.floats());
    }

    /// Takes on the query rows of tokens first … first+count-1.
    fn begin(t: *Tile, q: *const abi.TensorDesc, first: usize, scale: f32) void {
        const s = t.plan.shape;
        var start: usize = 0;
        while (start < t.rows) : (start += lanes) {
            const count = @min(lanes, t.rows - start);
            for (0..count) |i| t.view.readQuery(q, first, start + i, scale, (t.some_rows + i * s.head_dim)[0..s.head_dim]);
            transposing.transpose(f32, t.some_rows, count, s.head_dim, t.columns, lanes);
            simd.setAll(t.columns + s.head_dim * lanes, (s.width - s.head_dim) * lanes, 0);
            hadamard.rotateColumns(t.columns, s.head_dim);
            t.meetReferences(start);
            t.quantise(start);
        }
        t.total.resetSums(t.rows);
    }

    /// Products of the rows in columns with the references of the pages. Those of a stretch that lie before the window are not
    /// there.
    fn meetReferences(t: *const Tile, start: usize) void {
        const width = t.plan.shape.width;
        const first = t.view.firstPage();
        const to = t.commonsOf(first) + start;
        const count = t.view.lastPage() + 1 - first;
        gemm.multiply(f32, .zero, count, lanes, width, t.referenceOf(first), width, t.columns, lanes, to, padded(t.rows));
    }

    /// The first page of the first stretch that is seen.
    fn firstOfStretches(t: *const Tile) usize {
        return t.view.firstPage() / t.plan.shape.pages * t.plan.shape.pages;
    }

    fn commonsOf(t: *const Tile, page: usize) [*]f32 {
        return t.commons + (page - t.firstOfStretches()) * padded(t.rows);
    }

    /// Scales and codes of the rows in columns.
    fn quantise(t: *Tile, start: usize) void {
        @setEvalBranchQuota(10_000);
        const width = t.plan.shape.width;
        const columns: i8_page.Columns = .of(t.columns, width);
        simd.store(t.scales + start, columns.scales);
        const steps = width / 4;
        const codes: [*]i32 = @as([*]i32, @ptrCast(@alignCast(t.codes))) + start * steps;
        var sums: simd.I = @splat(0);
        var step: usize = 0;
        while (step + lanes <= steps) : (step += lanes) {
            var block: [lanes]simd.F = undefined; // moved, never calculated with
            inline for (&block, 0..) |*four, i| {
                const own = columns.codes(step + i);
                sums = dot.addBytes(sums, @splat(1), @bitCast(own));
                four.* = @bitCast(own);
            }
            transposing.square(&block);
            inline for (block, 0..) |row, i| simd.store(@ptrCast(codes + i * steps + step), row);
        }
        while (step < steps) : (step += 1) {
            const own = columns.codes(step);
            sums = dot.addBytes(sums, @splat(1), @bitCast(own));
            for (@as([lanes]i32, own), 0..) |four, i| codes[i * steps + step] = four;
        }
        t.starts[start..][0..lanes].* = sums * @as(simd.I, @splat(float.start_factor));
    }

    fn run(t: *const Tile, comptime Products: type) void {
        const s = t.plan.shape;
        const first = t.firstOfStretches();
        var page = first;
        while (page <= t.view.lastPage()) : (page += s.pages) t.runStretch(Products, page, page == first);
    }

    fn runStretch(t: *const Tile, comptime Products: type, page: usize, is_first: bool) void {
        const s = t.plan.shape;
        const stretch = t.stretchOf(page);
        t.view.look(page * s.page_size, s.pages * s.page_size, t.low, t.high);
        const all: float.Rows = .{
            .stretch = stretch,
            .shape = s,
            .count = t.rows,
            .queries = t.codes,
            .query_scales = t.scales,
            .query_starts = t.starts,
            .commons = t.commonsOf(page),
            .commons_apart = padded(t.rows),
            .softcap = t.softcap,
            .logs = if (t.softcap == 0) stretch.value_logs else &no_logs,
            .low = t.low,
            .high = t.high,
            .scores = t.scores,
            .weights = t.weights,
            .max = t.max,
            .sum = t.sum,
            .acc = t.total.acc,
            .is_first = is_first,
            .keep = t.keep,
            .gain = t.gain,
        };
        // One after the other, so that the first cache holds either the keys or the values of the stretch.
        Products.weigh(&all);
        for (t.max[0..t.rows]) |*max| max.* *= 1.0 / i8_page.log2e;
        t.total.absorb(t.max, t.sum, 0, t.rows, t.keep, t.gain);
        Products.merge(&all);
    }
};

/// A command that `applies` said yes to: in a first phase whole heads, and the pages of the others; in a second, where there
/// are others, their tiles.
pub fn run(ctx: *Context, cmd: *const abi.Command) void {
    if (onTiles(cmd)) runWith(tiles, ctx, cmd) else runWith(dots, ctx, cmd);
}

/// `run` with the products of attention_i8_dot.zig or attention_i8_amx.zig: the same bits.
pub fn runWith(comptime Products: type, ctx: *Context, cmd: *const abi.Command) void {
    const k: kv.Cache = .init(&cmd.inputs[1], &cmd.inputs[3]);
    const v: kv.Cache = .init(&cmd.inputs[2], &cmd.inputs[3]);
    const view: View = .of(cmd);
    // The first page takes its reference from the one before.
    const least = view.firstKey(view.position) -| view.page_size;
    if (!k.mapped(least, view.position + view.tokens)) return ctx.fail(kv.not_mapped);
    std.debug.assert(ctx.scratch.len >= workspaceOf(Products, cmd, ctx.threads));
    const plan: Plan = .init(Products, cmd);
    const page_floats = plan.pageFloats();
    const scratch: [*]f32 = @ptrCast(ctx.scratch.ptr);
    var tile: Tile = .init(plan, scratch + plan.pageAreas(ctx.threads) * page_floats + ctx.thread * plan.threadFloats());
    tile.softcap = cmd.floats[1] * i8_page.log2e;
    const maker: i8_page.Maker = .{ .shape = plan.shape, .k = k, .v = v, .key_zero = Products.key_zero, .rows = tile.some_rows };
    const first = view.firstPage();
    const pages = view.lastPage() + 1 - first;
    const whole = plan.wholeHeads(ctx.threads);
    const rest = plan.kv_heads - whole;
    const own_pages = scratch + ctx.thread * page_floats;
    const rest_pages = scratch + @min(ctx.threads, whole) * page_floats;
    const count = plan.tiles();
    Products.begin();
    defer Products.end();
    while (true) {
        const task = ctx.take();
        tile.view = view;
        if (ctx.phase == 1) {
            if (task >= rest * count) return;
            tile.turnTo(whole + task / count, rest_pages + task / count * page_floats);
            runTile(Products, &tile, cmd, &view, task % count);
        } else if (task < whole) {
            tile.turnTo(plan.wholeHead(task, ctx.threads), own_pages);
            for (0..pages) |i| makePage(&tile, &maker, first + i, 1);
            for (0..count) |i| runTile(Products, &tile, cmd, &view, i);
        } else {
            const i = task - whole;
            if (i >= rest * pages) return if (rest > 0) ctx.again();
            tile.turnTo(whole + i / pages, rest_pages + i / pages * page_floats);
            // The next page of this thread, or of one of its neighbours.
            makePage(&tile, &maker, first + i % pages, ctx.threads);
        }
    }
}

/// Brings a page of the tile's head into int8, and asks for the one `next` pages behind it. The view is the whole command's.
fn makePage(t: *const Tile, maker: *const i8_page.Maker, page: usize, next: usize) void {
    if (page + next <= t.view.lastPage()) maker.ask(page + next, t.view.head);
    const end = t.view.position + t.view.tokens;
    const live = @min(maker.shape.page_size, end - page * maker.shape.page_size);
    maker.make(t.stretchOf(page), t.referenceOf(page), page, t.view.head, live);
}

/// Passes tile i of the head over its pages; `all` is the view of the whole command. The last tokens see most keys: longest
/// tiles first.
fn runTile(comptime Products: type, t: *Tile, cmd: *const abi.Command, all: *const View, i: usize) void {
    const start = (t.plan.tiles() - 1 - i) * t.plan.tile_tokens;
    t.view.position = all.position + start;
    t.view.tokens = @min(t.plan.tokens - start, t.plan.tile_tokens);
    t.rows = t.view.rows();
    t.begin(&cmd.inputs[0], start, cmd.floats[0] * i8_page.log2e);
    t.run(Products);
    t.view.finish(t.total, t.plan.shape.width, true, &cmd.outputs[0], start);
}
