//! One tile of attention: the query rows of one kv head for several tokens against the pages of its keys and values.
//! See attention.zig for the order of the sums.

const std = @import("std");
const abi = @import("abi");
const simd = @import("simd.zig");
const views = @import("views.zig");
const kv = @import("kv_cache.zig");
const kv_page = @import("kv_page.zig");
const floats = @import("attention_float.zig");
const quantised = @import("attention_quantised.zig");
const softmax = @import("attention_softmax.zig");
const view_zig = @import("attention_view.zig");

const lanes = simd.lanes;
const Range = kv_page.Range;
const Stream = @import("attention_stream.zig").Stream;
const Page = kv_page.Page;
const View = view_zig.View;
pub const State = view_zig.State;
pub const direct_rows = floats.direct_rows;

/// Pages whose partial result is kept apart when spans are split over threads.
pub const span_pages = 8;
/// Most tokens for which spans may be split (more tokens give enough tasks).
pub const split_tokens = 4;
/// Rows that go through a page together: their scores and weights stay in the first-level cache. Whole vectors at every
/// level, and whole register tiles.
const strip = 48;

/// Sizes that follow from a command's shapes, in elements.
pub const Plan = struct {
    tokens: usize,
    heads: usize,
    group: usize,
    kv_heads: usize,
    page_size: usize,
    head_dim: usize,
    keys: kv_page.Form,
    values: kv_page.Form,
    /// page_size and head_dim in whole vectors.
    page_width: usize,
    width: usize,
    tile_tokens: usize,
    tile_rows: usize,
    spans: usize,

    pub fn init(cmd: *const abi.Command) Plan {
        const q = &cmd.inputs[0];
        const cache = &cmd.inputs[1];
        const kv_heads = views.dim(cache, 1);
        const heads = views.dim(q, 1);
        const group = heads / kv_heads;
        const head_dim = views.dim(q, 2);
        const rows = std.math.clamp(12288 / head_dim, 12, 96);
        const tile_tokens = @min(@max(1, rows / group), views.dim(q, 0));
        return .{
            .tokens = views.dim(q, 0),
            .heads = heads,
            .group = group,
            .kv_heads = kv_heads,
            .page_size = views.dim(cache, 2),
            .head_dim = head_dim,
            .keys = Page.init(cache).form,
            .values = Page.init(&cmd.inputs[2]).form,
            .page_width = simd.roundUp(views.dim(cache, 2)),
            .width = simd.roundUp(head_dim),
            .tile_tokens = tile_tokens,
            .tile_rows = tile_tokens * group,
            .spans = (views.dim(&cmd.inputs[3], 0) + span_pages - 1) / span_pages,
        };
    }

    pub fn stateFloats(p: Plan, rows: usize) usize {
        return State.floats(rows, p.width);
    }

    pub fn threadFloats(p: Plan) usize {
        return 2 * p.stateFloats(p.tile_rows) + view_zig.floatsOf(&p.parts());
    }

    /// Floats of the scratch arrays of a tile, by the names of its fields.
    fn parts(p: Plan) [scratch_fields.len]usize {
        const rows = p.tile_rows;
        const some = @min(rows, strip);
        const blocks = p.head_dim / 32;
        const q8 = !p.keys.isFloat();
        const w16 = !p.values.isFloat();
        return .{
            // keys, values, sums
            if (q8) 0 else p.head_dim * p.page_width,
            if (w16) 0 else p.page_size * p.width,
            if (w16) 0 else floats.rows_max * p.width,
            // q, query_codes, query_scales, query_starts
            rows * p.head_dim,
            if (q8) rows * p.head_dim / 4 else 0,
            if (q8) rows * blocks else 0,
            if (q8) rows * blocks else 0,
            // magnitudes, scales, bounds, weights, factors
            if (w16) blocks * p.page_size else 0,
            if (w16) blocks * p.page_size else 0,
            if (w16) blocks else 0,
            if (w16) some * blocks * p.page_size / 2 else 0,
            if (w16) some * blocks else 0,
            // scores, page_max, page_sum, keep, gain, low, high
            some * p.page_width,
            rows,
            rows,
            rows,
            rows,
            rows,
            rows,
        };
    }

    pub fn splitFloats(p: Plan) usize {
        if (p.tokens > split_tokens) return 0;
        // Saturating: nothing bounds what a page table claims but that no memory is as large.
        return p.kv_heads *| p.spans *| p.stateFloats(p.tokens * p.group);
    }
};

const scratch_fields = .{
    "keys",    "values",  "sums",   "q",        "query_codes", "query_scales", "query_starts", "magnitudes", "scales", "bounds",
    "weights", "factors", "scores", "page_max", "page_sum",    "keep",         "gain",         "low",        "high",
};

pub const Tile = struct {
    plan: Plan,
    k: kv.Cache,
    v: kv.Cache,
    view: View,
    rows: usize,
    softcap: f32,
    stream: Stream,
    // Scratch; Plan.parts has the sizes.
    /// Of float pages, dense: [head_dim][page_width], [page_size][width], [rows_max][width].
    keys: [*]f32,
    values: [*]f32,
    sums: [*]f32,
    /// [rows][head_dim], rotated where keys are quantised
    q: [*]f32,
    query_codes: [*]i8,
    query_scales: [*]f32,
    query_starts: [*]i32,
    magnitudes: [*]f32,
    scales: [*]f32,
    bounds: [*]f32,
    weights: [*]i16,
    factors: [*]f32,
    /// Of the strip's rows [strip][page_width]: scores, then the weights exp(score - max).
    scores: [*]f32,
    /// Of the page, per row: largest score, sum of weights, factors of the merge, visible keys.
    page_max: [*]f32,
    page_sum: [*]f32,
    keep: [*]f32,
    gain: [*]f32,
    low: [*]u32,
    high: [*]u32,
    partial: State,
    total: State,

    pub fn init(plan: Plan, memory: [*]f32) Tile {
        var t: Tile = undefined;
        t.plan = plan;
        const at = view_zig.place(&t, scratch_fields, plan.parts(), memory);
        t.partial = .at(at, plan.tile_rows);
        t.total = .at(at + plan.stateFloats(plan.tile_rows), plan.tile_rows);
        return t;
    }

    pub fn aim(t: *Tile, first: usize, end: usize, head: usize, position: usize) void {
        t.view.head = head;
        t.view.position = position + first;
        t.view.tokens = end - first;
        t.rows = t.view.rows();
    }

    /// Takes on tokens first … end-1 and one kv head: copies their query rows, multiplied by scale, quantised for
    /// quantised keys.
    pub fn begin(t: *Tile, q: *const abi.TensorDesc, first: usize, end: usize, head: usize, position: usize, scale: f32) void {
        t.aim(first, end, head, position);
        std.debug.assert(t.rows <= t.plan.tile_rows);
        const n = t.plan.head_dim;
        for (0..t.rows) |r| {
            const row = t.q + r * n;
            t.view.readQuery(q, first, r, scale, row[0..n]);
            switch (t.plan.keys) {
                .f32, .f16 => {},
                inline else => |form| t.queries().set(form, r, row),
            }
        }
    }

    fn queries(t: *const Tile) quantised.Queries {
        return .{
            .head_dim = t.plan.head_dim,
            .rows = t.q,
            .codes = t.query_codes,
            .scales = t.query_scales,
            .starts = t.query_starts,
        };
    }

    fn seen(t: *const Tile, r: usize) Range {
        return .{ .low = t.low[r], .high = t.high[r] };
    }

    /// All pages of one span into `to`.
    pub fn runSpan(t: *Tile, span: usize, to: State) void {
        to.reset(t.rows, t.plan.width);
        const start = @max(t.view.firstPage(), span * span_pages);
        const end = @min(t.view.lastPage() + 1, (span + 1) * span_pages);
        for (start..@max(start, end)) |page| t.runPage(page, to);
    }

    fn runPage(t: *Tile, page: usize, to: State) void {
        t.stream.open(page);
        t.view.look(page * t.plan.page_size, t.plan.page_size, t.low, t.high);
        const live: usize = t.high[t.rows - 1];
        const keys = t.k.at(page, t.view.head);
        const values = t.v.at(page, t.view.head);
        if (t.rows > floats.direct_rows) t.prepareKeys(keys, live);
        const coded = !t.plan.values.isFloat();
        var weights: quantised.Weights = undefined;
        if (!coded and t.widens()) t.widenValues(values, live);
        var first: usize = 0;
        while (first < t.rows) : (first += strip) {
            const end = @min(t.rows, first + strip);
            t.scoreStrip(first, end, keys, live);
            if (coded and first == 0) weights = t.openWeights(values, live);
            t.weighStrip(first, end);
            to.absorb(t.page_max, t.page_sum, first, end, t.keep, t.gain);
            if (coded) t.weighCodes(first, end, values, &weights, to) else t.weighFloats(first, end, values, to);
        }
    }

    // ---- scores

    fn prepareKeys(t: *const Tile, keys: [*]const u8, live: usize) void {
        switch (t.plan.keys) {
            inline .f32, .f16 => |form| floats.transpose(floatOf(form), @ptrCast(@alignCast(keys)), live, t.plan.head_dim, t.keys, t.plan.page_width),
            else => {},
        }
    }

    /// Scores of rows first … end-1 to t.scores.
    fn scoreStrip(t: *Tile, first: usize, end: usize, keys: [*]const u8, live: usize) void {
        const p = &t.plan;
        switch (p.keys) {
            inline .f32, .f16 => |form| {
                if (t.rows <= floats.direct_rows) {
                    const source: [*]const floatOf(form) = @ptrCast(@alignCast(keys));
                    const visible: Range = .{ .low = t.low[0], .high = live };
                    floats.scoreDirect(floatOf(form), t.rows, t.q, source, p.head_dim, visible, t.scores, p.page_width, &t.stream);
                } else {
                    var r = first;
                    while (r < end) : (r += floats.rows_max) t.scoreFloats(first, r, @min(end, r + floats.rows_max));
                }
            },
            inline else => |form| {
                const range: Range = .{ .low = t.low[first], .high = t.high[end - 1] };
                quantised.scores(form, t.k.page, keys, &t.queries(), first, end - first, range, t.scores, p.page_width, &t.stream);
            },
        }
    }

    /// Scores of rows r … end-1 against the transposed keys.
    fn scoreFloats(t: *const Tile, first: usize, r: usize, end: usize) void {
        const p = &t.plan;
        const low = t.low[r] / lanes * lanes;
        const high = simd.roundUp(t.high[end - 1]);
        if (low >= high) return;
        const to = t.scores + (r - first) * p.page_width + low;
        floats.multiply(f32, .zero, end - r, high - low, p.head_dim, t.q + r * p.head_dim, p.head_dim, t.keys + low, p.page_width, to, p.page_width);
    }

    /// Weights in place of the scores of rows first … end-1; their maxima and sums to page_max and page_sum.
    fn weighStrip(t: *const Tile, first: usize, end: usize) void {
        var r = first;
        while (r < end) {
            const range = t.seen(r);
            const last = r + softmax.rows_max - 1; // bounds rise: when it sees what r does, so do those between
            const together = last < end and t.low[last] == range.low and t.high[last] == range.high;
            const scores = t.scores + (r - first) * t.plan.page_width;
            inline for (.{ 1, softmax.rows_max }) |rows| if (together == (rows > 1)) {
                softmax.page(rows, scores, t.plan.page_width, range, t.softcap, t.page_max + r, t.page_sum + r);
            };
            r += if (together) softmax.rows_max else 1;
        }
    }

    // ---- merging

    /// acc = acc * keep + sums * gain of row r, unless nothing was added. An empty acc takes the sums exactly.
    inline fn mergeRow(t: *const Tile, to: State, r: usize, added: f32, sums: [*]const f32) void {
        if (added == 0) return;
        const width = t.plan.width;
        const keep = simd.splat(t.keep[r]);
        const gain = simd.splat(t.gain[r]);
        const acc = to.acc + r * width;
        var i: usize = 0;
        while (i < width) : (i += lanes) {
            simd.store(acc + i, simd.fma(simd.load(acc + i), keep, simd.load(sums + i) * gain));
        }
    }

    /// Merges another result of all rows into the total.
    pub fn mergeTotal(t: *const Tile, from: State) void {
        t.total.absorb(from.max, from.sum, 0, t.rows, t.keep, t.gain);
        for (0..t.rows) |r| t.mergeRow(t.total, r, from.sum[r], from.acc + r * t.plan.width);
    }

    // ---- values

    fn openWeights(t: *const Tile, values: [*]const u8, live: usize) quantised.Weights {
        var w: quantised.Weights = .{
            .page_size = t.plan.page_size,
            .blocks = t.plan.head_dim / 32,
            .magnitudes = t.magnitudes,
            .scales = t.scales,
            .bounds = t.bounds,
            .bounds_of = quantised.Weights.nothing,
            .codes = t.weights,
            .factors = t.factors,
        };
        w.open(t.v.page, values, live);
        return w;
    }

    fn weighCodes(t: *Tile, first: usize, end: usize, values: [*]const u8, weights: *quantised.Weights, to: State) void {
        const p = &t.plan;
        const all: Range = .{ .low = t.low[first], .high = t.high[end - 1] };
        for (first..end) |r| weights.set(r - first, t.scores + (r - first) * p.page_width, t.seen(r), all, t.gain[r]);
        switch (p.values) {
            .f32, .f16 => unreachable,
            inline else => |form| {
                quantised.weigh(form, values, weights, end - first, all, t.keep + first, to.acc + first * p.width, p.width, &t.stream);
            },
        }
    }

    /// Whether float values go through scratch: rows that are no whole vectors, or f16 that would be widened repeatedly.
    fn widens(t: *const Tile) bool {
        return t.plan.width != t.plan.head_dim or (t.plan.values == .f16 and t.rows > floats.rows_max);
    }

    fn widenValues(t: *Tile, values: [*]const u8, live: usize) void {
        const p = &t.plan;
        switch (p.values) {
            inline .f32, .f16 => |form| {
                const from: [*]const floatOf(form) = @ptrCast(@alignCast(values));
                const row_bytes = p.head_dim * @sizeOf(floatOf(form));
                var used: usize = 0;
                for (t.low[0]..live, 1..) |j, rows| {
                    while (used < rows * row_bytes) : (used += 64) t.stream.used(64);
                    floats.widenRow(floatOf(form), from + j * p.head_dim, p.head_dim, t.values + j * p.width, p.width);
                }
            },
            else => unreachable,
        }
    }

    fn weighFloats(t: *Tile, first: usize, end: usize, values: [*]const u8, to: State) void {
        var r = first;
        while (r < end) : (r += floats.rows_max) {
            const last = @min(end, r + floats.rows_max);
            if (t.widens()) {
                t.weigh(f32, first, r, last, t.values, to);
            } else switch (t.plan.values) {
                inline .f32, .f16 => |form| t.weigh(floatOf(form), first, r, last, @ptrCast(@alignCast(values)), to),
                else => unreachable,
            }
        }
    }

    /// Weighted values of rows r … end-1, merged into `to`. Keys that only some of the rows see go row by row, so that
    /// nothing a row does not see, NaN included, enters it.
    fn weigh(t: *Tile, comptime T: type, first: usize, r: usize, end: usize, values: [*]const T, to: State) void {
        const p = &t.plan;
        const width = p.width;
        const low: usize = t.low[end - 1];
        const high = @max(low, t.high[r]);
        const scores = t.scores + (r - first) * p.page_width;
        const shared = scores + low;
        // Only what reads the page, and reads it first, may count as its use.
        if (t.low[r] == low and r == 0 and t.rows <= floats.direct_rows and !t.widens()) {
            floats.sumDirect(T, end - r, shared, p.page_width, high - low, values + low * width, width, t.sums, &t.stream);
        } else if (t.low[r] == low) {
            floats.multiply(T, .zero, end - r, width, high - low, shared, p.page_width, values + low * width, width, t.sums, width);
        } else {
            for (r..end) |row| {
                const from: usize = t.low[row];
                const n = @min(low, t.high[row]) -| from;
                const weights = scores + (row - r) * p.page_width + from;
                floats.multiply(T, .zero, 1, width, n, weights, 0, values + from * width, width, t.sums + (row - r) * width, width);
            }
            floats.multiply(T, .c, end - r, width, high - low, shared, p.page_width, values + low * width, width, t.sums, width);
        }
        for (r..end) |row| {
            const sums = t.sums + (row - r) * width;
            const from = @max(high, t.low[row]);
            if (t.high[row] > from) {
                const weights = scores + (row - r) * p.page_width + from;
                floats.multiply(T, .c, 1, width, t.high[row] - from, weights, 0, values + from * width, width, sums, width);
            }
            t.mergeRow(to, row, t.page_sum[row], sums);
        }
    }

    /// Writes the rows' results; `first` is the tile's first token.
    pub fn finish(t: *const Tile, out: *const abi.TensorDesc, first: usize) void {
        t.view.finish(t.total, t.plan.width, !t.plan.values.isFloat(), out, first);
    }
};

fn floatOf(comptime form: kv_page.Form) type {
    return if (form == .f16) f16 else f32;
}
