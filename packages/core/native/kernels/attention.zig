//! Attention over the paged KV cache, flash-style (Dao 2023): one page of keys and values at a time serves all query rows
//! of a tile, that is all query heads of one kv head for several tokens.
//!
//! The order of every sum is a function of the logical page numbers alone: within a page keys in order; pages are merged
//! into their span (`span_pages` pages, aligned) in order, spans into the result in order. So a query row gives the same
//! bits in any chunk of the prompt, in any tile, and when decoding splits the spans over threads.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");
const gemm = @import("gemm.zig");
const kv = @import("kv_cache.zig");
const capScores = @import("activation.zig").capScores;
const transposing = @import("transpose.zig");

const F = simd.F;
const lanes = simd.lanes;

/// Pages whose partial result is kept apart when spans are split over threads.
const span_pages = 8;
/// Most tokens for which spans may be split (more tokens give enough tasks).
const split_tokens = 4;

/// Sizes that follow from a command's shapes, in elements.
const Plan = struct {
    tokens: usize,
    heads: usize,
    group: usize,
    kv_heads: usize,
    page_size: usize,
    head_dim: usize,
    /// page_size and head_dim in whole vectors.
    page_width: usize,
    width: usize,
    tile_tokens: usize,
    tile_rows: usize,
    spans: usize,

    fn init(cmd: *const abi.Command) ?Plan {
        const q = &cmd.inputs[0];
        const cache = &cmd.inputs[1];
        if (q.rank != 3 or cache.rank != 4 or cmd.inputs[3].rank != 1) return null;
        const kv_heads = views.dim(cache, 1);
        const heads = views.dim(q, 1);
        if (kv_heads == 0 or heads % kv_heads != 0 or heads == 0 or views.dim(q, 2) != views.dim(cache, 3)) return null;
        const group = heads / kv_heads;
        const head_dim = views.dim(q, 2);
        const rows = std.math.clamp(12288 / @max(1, head_dim), 12, 96);
        const tile_tokens = @min(@max(1, rows / group), @max(1, views.dim(q, 0)));
        return .{
            .tokens = views.dim(q, 0),
            .heads = heads,
            .group = group,
            .kv_heads = kv_heads,
            .page_size = views.dim(cache, 2),
            .head_dim = head_dim,
            .page_width = simd.roundUp(views.dim(cache, 2)),
            .width = simd.roundUp(head_dim),
            .tile_tokens = tile_tokens,
            .tile_rows = tile_tokens * group,
            .spans = (views.dim(&cmd.inputs[3], 0) + span_pages - 1) / span_pages,
        };
    }

    /// Floats of one running result: per row its maximum, its sum and the weighted values.
    fn stateFloats(p: Plan, rows: usize) usize {
        return std.mem.alignForward(usize, rows * (p.width + 2), 16);
    }

    fn threadFloats(p: Plan) usize {
        const tile = p.tile_rows * (p.head_dim + p.page_width + 2) + gemm.rows_max * p.width;
        return std.mem.alignForward(usize, tile + p.head_dim * p.page_width + p.page_size * p.width, 16) + 2 * p.stateFloats(p.tile_rows);
    }

    fn splitFloats(p: Plan) usize {
        if (p.tokens > split_tokens) return 0;
        return p.kv_heads * p.spans * p.stateFloats(p.tokens * p.group);
    }
};

/// Scratch of every thread, and the spans' partial results of up to `split_tokens` tokens.
pub fn attention_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    var p = Plan.init(cmd) orelse return 0;
    // A program's smaller runs may split, which a run at its largest token count need not.
    const split = if (p.tokens <= split_tokens) p.splitFloats() else blk: {
        p.tokens = split_tokens;
        const floats = p.splitFloats();
        p.tokens = views.dim(&cmd.inputs[0], 0);
        break :blk floats;
    };
    return (threads * p.threadFloats() + split) * @sizeOf(f32);
}

/// Running result of some rows: out = acc / sum, all relative to exp(max).
const State = struct {
    max: [*]f32,
    sum: [*]f32,
    acc: [*]f32,

    fn at(p: [*]f32, rows: usize) State {
        return .{ .max = p, .sum = p + rows, .acc = p + 2 * rows };
    }

    fn reset(s: State, rows: usize, width: usize) void {
        @memset(s.max[0..rows], -simd.inf);
        @memset(s.sum[0..rows], 0);
        @memset(s.acc[0 .. rows * width], 0);
    }

    /// Adds another result of row r. Adding to an empty one copies it exactly; adding an empty one changes nothing.
    fn merge(s: State, r: usize, width: usize, max: f32, sum: f32, acc: [*]const f32) void {
        if (sum == 0) return;
        const e = simd.exp(simd.splat(-@abs(max - s.max[r])))[0];
        const keep = if (s.max[r] >= max) 1 else e;
        const gain = if (s.max[r] >= max) e else 1;
        s.max[r] = simd.maxSkipNan(@as(@Vector(1, f32), .{s.max[r]}), @as(@Vector(1, f32), .{max}))[0];
        s.sum[r] = s.sum[r] * keep + sum * gain;
        const to = s.acc + r * width;
        var i: usize = 0;
        while (i < width) : (i += lanes) {
            simd.store(to + i, simd.fma(simd.load(to + i), simd.splat(keep), simd.load(acc + i) * simd.splat(gain)));
        }
    }
};

/// Keys that a row sees, and the whole command for one tile.
const Range = struct { low: usize, high: usize };

const Tile = struct {
    plan: Plan,
    k: kv.Cache,
    v: kv.Cache,
    head: usize,
    /// Position of the tile's first token.
    position: usize,
    rows: usize,
    window: usize,
    softcap: f32,
    // Scratch, dense f32: [rows][head_dim], [rows][page_width], [rows] twice, [rows_max][width], [head_dim][page_width], [page][width]
    q: [*]f32,
    scores: [*]f32,
    page_max: [*]f32,
    page_sum: [*]f32,
    sums: [*]f32,
    keys: [*]f32,
    values: [*]f32,
    partial: State,
    total: State,

    fn init(plan: Plan, memory: [*]f32) Tile {
        var t: Tile = undefined;
        var at = memory;
        t.plan = plan;
        inline for (.{ "keys", "values", "q", "scores", "sums", "page_max", "page_sum" }, .{
            plan.head_dim * plan.page_width,    plan.page_size * plan.width,  plan.tile_rows * plan.head_dim,
            plan.tile_rows * plan.page_width,   gemm.rows_max * plan.width,   plan.tile_rows,
            plan.tile_rows,
        }) |name, floats| {
            @field(t, name) = at;
            at += floats;
        }
        const used = (@intFromPtr(at) - @intFromPtr(memory)) / 4;
        at = memory + std.mem.alignForward(usize, used, 16);
        t.partial = .at(at, plan.tile_rows);
        t.total = .at(at + plan.stateFloats(plan.tile_rows), plan.tile_rows);
        return t;
    }

    fn aim(t: *Tile, first: usize, end: usize, head: usize, position: usize) void {
        t.head = head;
        t.position = position + first;
        t.rows = (end - first) * t.plan.group;
    }

    /// Takes on tokens first … end-1 and one kv head: copies their query rows, multiplied by scale.
    fn begin(t: *Tile, q: *const abi.TensorDesc, first: usize, end: usize, head: usize, position: usize, scale: f32) void {
        t.aim(first, end, head, position);
        for (0..t.rows) |r| {
            const from = views.addressOf(q, &.{ first + r / t.plan.group, head * t.plan.group + r % t.plan.group });
            const x: views.Cursor(false) = .{ .p = @ptrFromInt(from), .stride = @intCast(q.strides[2]) };
            const to = t.q + r * t.plan.head_dim;
            for (0..t.plan.head_dim) |i| to[i] = x.at(i).* * scale;
        }
    }

    /// Keys of a page, relative to it, that row r sees.
    fn visible(t: *const Tile, r: usize, page: usize) Range {
        const last = t.position + r / t.plan.group;
        const base = page * t.plan.page_size;
        const first = if (t.window > 0 and last + 1 > t.window) last + 1 - t.window else 0;
        const high = @min(t.plan.page_size, last + 1 -| base);
        return .{ .low = @min(high, first -| base), .high = high };
    }

    fn firstPage(t: *const Tile) usize {
        const first = if (t.window > 0 and t.position + 1 > t.window) t.position + 1 - t.window else 0;
        return first / t.plan.page_size;
    }

    fn lastPage(t: *const Tile) usize {
        return (t.position + (t.rows - 1) / t.plan.group) / t.plan.page_size;
    }

    /// All pages of one span into `to`.
    fn runSpan(t: *const Tile, span: usize, to: State) void {
        to.reset(t.rows, t.plan.width);
        const end = @min(t.lastPage() + 1, (span + 1) * span_pages);
        for (@max(t.firstPage(), span * span_pages)..@max(end, t.firstPage(), span * span_pages)) |page| t.runPage(page, to);
    }

    fn runPage(t: *const Tile, page: usize, to: State) void {
        const p = &t.plan;
        const live = t.visible(t.rows - 1, page).high;
        const keys = t.k.page(page, t.head);
        if (t.k.half) {
            transposing.transpose(f16, @ptrFromInt(keys), live, p.head_dim, t.keys, p.page_width);
        } else {
            transposing.transpose(f32, @ptrFromInt(keys), live, p.head_dim, t.keys, p.page_width);
        }
        var r: usize = 0;
        while (r < t.rows) : (r += gemm.rows_max) t.score(page, r, @min(t.rows, r + gemm.rows_max));
        const values = t.valuesOf(page, live);
        r = 0;
        while (r < t.rows) : (r += gemm.rows_max) t.weigh(page, r, @min(t.rows, r + gemm.rows_max), values, to);
    }

    /// The page's values as f32 rows of whole vectors: in place when they are, else converted.
    fn valuesOf(t: *const Tile, page: usize, live: usize) [*]const f32 {
        const p = &t.plan;
        const address = t.v.page(page, t.head);
        if (!t.v.half and p.width == p.head_dim) return @ptrFromInt(address);
        for (0..live) |j| {
            const to = t.values + j * p.width;
            if (t.v.half) widenRow(f16, @ptrFromInt(address + j * p.head_dim * 2), p.head_dim, to, p.width);
            if (!t.v.half) widenRow(f32, @ptrFromInt(address + j * p.head_dim * 4), p.head_dim, to, p.width);
        }
        return t.values;
    }

    /// Scores of rows r … end-1 against the page, and their softmax relative to the page's own maximum.
    fn score(t: *const Tile, page: usize, r: usize, end: usize) void {
        const p = &t.plan;
        // Later rows see at least as far: the outer bounds come from the first and the last row.
        const low = t.visible(r, page).low / lanes * lanes;
        const high = simd.roundUp(t.visible(end - 1, page).high);
        if (low < high) {
            const to = t.scores + r * p.page_width + low;
            gemm.multiply(.zero, end - r, high - low, p.head_dim, t.q + r * p.head_dim, p.head_dim, t.keys + low, p.page_width, to, p.page_width);
        }
        for (r..end) |row| {
            const seen = t.visible(row, page);
            const result = pageSoftmax(t.scores + row * p.page_width, seen, t.softcap);
            t.page_max[row] = result[0];
            t.page_sum[row] = result[1];
        }
    }

    /// Weighted values of rows r … end-1, merged into `to`. Keys that only some of the rows see go row by row, so that
    /// nothing a row does not see, NaN included, enters it.
    fn weigh(t: *const Tile, page: usize, r: usize, end: usize, values: [*]const f32, to: State) void {
        const p = &t.plan;
        const width = p.width;
        const low = t.visible(end - 1, page).low;
        const high = @max(low, t.visible(r, page).high);
        const shared = t.scores + r * p.page_width + low;
        if (t.visible(r, page).low == low) {
            gemm.multiply(.zero, end - r, width, high - low, shared, p.page_width, values + low * width, width, t.sums, width);
        } else {
            for (r..end) |row| {
                const seen = t.visible(row, page);
                const weights = t.scores + row * p.page_width + seen.low;
                const n = @min(low, seen.high) -| seen.low;
                gemm.multiply(.zero, 1, width, n, weights, 0, values + seen.low * width, width, t.sums + (row - r) * width, width);
            }
            gemm.multiply(.c, end - r, width, high - low, shared, p.page_width, values + low * width, width, t.sums, width);
        }
        for (r..end) |row| {
            const seen = t.visible(row, page);
            const sums = t.sums + (row - r) * width;
            const from = @max(high, seen.low);
            if (seen.high > from) {
                const weights = t.scores + row * p.page_width + from;
                gemm.multiply(.c, 1, width, seen.high - from, weights, 0, values + from * width, width, sums, width);
            }
            to.merge(row, width, t.page_max[row], t.page_sum[row], sums);
        }
    }

    /// Writes acc / sum of row r; zeros when it saw nothing.
    fn finish(t: *const Tile, r: usize, out: *const abi.TensorDesc, first: usize) void {
        const p = &t.plan;
        const address = views.addressOf(out, &.{ first + r / p.group, t.head * p.group + r % p.group });
        const y: views.Cursor(false) = .{ .p = @ptrFromInt(address), .stride = @intCast(out.strides[2]) };
        const sum = t.total.sum[r];
        const inverse = if (sum == 0) 0 else 1 / sum;
        const acc = t.total.acc + r * p.width;
        for (0..p.head_dim) |i| y.at(i).* = acc[i] * inverse;
    }

    fn mergeTotal(t: *const Tile, r: usize, from: State) void {
        t.total.merge(r, t.plan.width, from.max[r], from.sum[r], from.acc + r * t.plan.width);
    }
};

fn widenRow(comptime T: type, from: [*]const T, n: usize, to: [*]f32, width: usize) void {
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) simd.store(to + i, if (T == f16) simd.loadHalf(from + i) else simd.load(from + i));
    while (i < n) : (i += 1) to[i] = transposing.widen(T, from[i]);
    @memset(to[n..width], 0);
}

/// Replaces the visible scores by exp(score - max), the others of their vectors by 0; returns max and sum.
fn pageSoftmax(scores: [*]f32, seen: Range, softcap: f32) [2]f32 {
    const first = seen.low / lanes * lanes;
    var best = simd.splat(-simd.inf);
    var j = first;
    while (j < seen.high) : (j += lanes) {
        var x = simd.load(scores + j);
        if (softcap != 0) x = capScores(x, softcap);
        if (j < seen.low or j + lanes > seen.high) x = mask(x, j, seen);
        simd.store(scores + j, x);
        best = simd.maxSkipNan(best, x);
    }
    const largest = simd.maxLanes(best);
    const shift = simd.splat(if (largest == -simd.inf) 0 else largest);
    var sum = simd.zero;
    j = first;
    while (j < seen.high) : (j += lanes) {
        const y = simd.exp(simd.load(scores + j) - shift);
        simd.store(scores + j, y);
        sum += y;
    }
    return .{ shift[0], simd.sumLanes(sum) };
}

inline fn mask(x: F, j: usize, seen: Range) F {
    const lane: @Vector(lanes, i32) = std.simd.iota(i32, lanes);
    const index = lane + @as(@Vector(lanes, i32), @splat(@intCast(j)));
    const below = index < @as(@Vector(lanes, i32), @splat(@intCast(seen.low)));
    const above = index >= @as(@Vector(lanes, i32), @splat(@intCast(seen.high)));
    const hidden = simd.splat(-simd.inf);
    return @select(f32, below, hidden, @select(f32, above, hidden, x));
}

/// inputs: q [tokens, heads, head_dim], k_cache, v_cache, pages; outputs: out like q; ints: position, window; floats: scale, softcap.
pub fn attention(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const q = &cmd.inputs[0];
    const out = &cmd.outputs[0];
    const plan = Plan.init(cmd) orelse return ctx.fail("attention takes q [tokens, heads, head_dim] and caches with its head_dim whose kv_heads divide heads");
    if (!views.isDtype(q, .f32) or !views.isDtype(out, .f32) or !views.sameShape(q, out)) return ctx.fail("attention takes f32 q and gives an output like it");
    const k = kv.Cache.init(&cmd.inputs[1], &cmd.inputs[3]);
    const v = kv.Cache.init(&cmd.inputs[2], &cmd.inputs[3]);
    if (k == null or v == null or !views.sameShape(&cmd.inputs[1], &cmd.inputs[2])) return ctx.fail("attention takes contiguous f32 or f16 caches of equal shape and i32 pages");
    if (plan.tokens == 0) return;
    if (cmd.ints[0] < 0 or cmd.ints[1] < 0) return ctx.fail("attention: position and window can't be negative");
    const position: usize = @intCast(cmd.ints[0]);
    const window: usize = @intCast(cmd.ints[1]);
    const first = if (window > 0 and position + 1 > window) position + 1 - window else 0;
    if (!k.?.covers(first, position + plan.tokens)) return ctx.fail("attention: the position lies outside the mapped pages of the cache");
    if (ctx.scratch.len < attention_workspace(cmd, ctx.threads)) return ctx.fail("attention: scratch is too small");

    const scratch: [*]f32 = @ptrCast(ctx.scratch.ptr);
    var tile: Tile = .init(plan, scratch + ctx.thread * plan.threadFloats());
    tile.k = k.?;
    tile.v = v.?;
    tile.window = window;
    tile.softcap = cmd.floats[1];
    const tiles = (plan.tokens + plan.tile_tokens - 1) / plan.tile_tokens;
    // Heads alone keep the threads busy when each has the same number of them.
    const split = plan.tokens <= split_tokens and ctx.threads > 1 and tiles * plan.kv_heads % ctx.threads != 0;
    if (split) return runSplit(ctx, cmd, &tile, scratch + ctx.threads * plan.threadFloats(), position);
    while (true) {
        const task = ctx.take();
        if (task >= tiles * plan.kv_heads) return;
        // The last tokens see most keys: longest tasks first.
        const start = (tiles - 1 - task / plan.kv_heads) * plan.tile_tokens;
        const end = @min(plan.tokens, start + plan.tile_tokens);
        tile.begin(q, start, end, task % plan.kv_heads, position, cmd.floats[0]);
        tile.total.reset(tile.rows, plan.width);
        for (tile.firstPage() / span_pages..tile.lastPage() / span_pages + 1) |span| {
            tile.runSpan(span, tile.partial);
            for (0..tile.rows) |r| tile.mergeTotal(r, tile.partial);
        }
        for (0..tile.rows) |r| tile.finish(r, out, start);
    }
}

/// Few tokens: tasks are spans of one kv head; their partial results are merged in order afterwards.
fn runSplit(ctx: *Context, cmd: *const abi.Command, tile: *Tile, memory: [*]f32, position: usize) void {
    const plan = &tile.plan;
    const rows = plan.tokens * plan.group;
    const floats = plan.stateFloats(rows);
    tile.aim(0, plan.tokens, 0, position);
    const first = tile.firstPage() / span_pages;
    const spans = tile.lastPage() / span_pages + 1 - first;
    var loaded: ?usize = null;
    while (true) {
        const task = ctx.take();
        if (task >= spans * plan.kv_heads) break;
        const head = task / spans;
        if (loaded != head) tile.begin(&cmd.inputs[0], 0, plan.tokens, head, position, cmd.floats[0]);
        loaded = head;
        tile.runSpan(first + task % spans, .at(memory + task * floats, rows));
    }
    ctx.barrier();
    const share = ctx.range(plan.kv_heads, 1);
    for (share.start..share.end) |head| {
        tile.aim(0, plan.tokens, head, position);
        tile.total.reset(rows, plan.width);
        for (0..rows) |r| {
            for (0..spans) |s| tile.mergeTotal(r, .at(memory + (head * spans + s) * floats, rows));
            tile.finish(r, &cmd.outputs[0], 0);
        }
    }
}

/// Scalar oracle of one query row: `keys` and `values` are the visible rows [n][head_dim], f64 throughout.
pub fn attentionScalar(q: []const f32, keys: []const f32, values: []const f32, scale: f32, softcap: f32, weights: []f64, out: []f64) void {
    const n = keys.len / q.len;
    var largest = -std.math.inf(f64);
    for (0..n) |j| {
        var s: f64 = 0;
        for (q, keys[j * q.len ..][0..q.len]) |a, b| s += @as(f64, a) * b;
        s *= scale;
        if (softcap != 0) s = softcap * std.math.tanh(s / softcap);
        weights[j] = s;
        largest = @max(largest, s);
    }
    var sum: f64 = 0;
    for (weights[0..n]) |*w| {
        w.* = if (largest == -std.math.inf(f64)) 0 else @exp(w.* - largest);
        sum += w.*;
    }
    for (out, 0..) |*y, i| {
        y.* = 0;
        for (0..n) |j| y.* += weights[j] / (if (sum == 0) 1 else sum) * values[j * q.len + i];
    }
}
