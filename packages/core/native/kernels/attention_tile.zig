//! One tile of attention: the query rows of one kv head for several tokens against the pages of its keys and values.
//! See attention.zig for the order of the sums.

const std = @import("std");
const abi = @import("abi");
const simd = @import("simd.zig");
const views = @import("views.zig");
const gemm = @import("gemm.zig");
const kv = @import("kv_cache.zig");
const capScores = @import("activation.zig").capScores;
const transposing = @import("transpose.zig");

const F = simd.F;
const lanes = simd.lanes;

/// Pages whose partial result is kept apart when spans are split over threads.
pub const span_pages = 8;
/// Most tokens for which spans may be split (more tokens give enough tasks).
pub const split_tokens = 4;

/// Sizes that follow from a command's shapes, in elements.
pub const Plan = struct {
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
            .page_width = simd.roundUp(views.dim(cache, 2)),
            .width = simd.roundUp(head_dim),
            .tile_tokens = tile_tokens,
            .tile_rows = tile_tokens * group,
            .spans = (views.dim(&cmd.inputs[3], 0) + span_pages - 1) / span_pages,
        };
    }

    /// Floats of one running result: per row its maximum, its sum and the weighted values.
    pub fn stateFloats(p: Plan, rows: usize) usize {
        return padded(rows) * 2 + padded(rows * p.width);
    }

    pub fn threadFloats(p: Plan) usize {
        var floats = 2 * p.stateFloats(p.tile_rows);
        for (p.parts()) |part| floats += padded(part);
        return floats;
    }

    /// Floats of the scratch arrays in the order in which `Tile.init` takes them.
    pub fn parts(p: Plan) [part_count]usize {
        const rows = padded(p.tile_rows);
        return .{
            p.head_dim * p.page_width, p.page_size * p.width, p.tile_rows * p.head_dim, p.tile_rows * p.page_width,
            gemm.rows_max * p.width,   rows,                  rows,                     rows,
            rows,                      rows,                  rows,
        };
    }

    pub fn splitFloats(p: Plan) usize {
        if (p.tokens > split_tokens) return 0;
        // Saturating: nothing bounds what a page table claims but that no memory is as large.
        return p.kv_heads *| p.spans *| p.stateFloats(p.tokens * p.group);
    }
};

/// Floats in whole cache lines, which are whole vectors at every level.
fn padded(floats: usize) usize {
    return std.mem.alignForward(usize, floats, 16);
}

const part_count = 11;

/// Running result of some rows: out = acc / sum, all relative to exp(max).
pub const State = struct {
    max: [*]f32,
    sum: [*]f32,
    acc: [*]f32,

    pub fn at(p: [*]f32, rows: usize) State {
        return .{ .max = p, .sum = p + padded(rows), .acc = p + 2 * padded(rows) };
    }

    pub fn reset(s: State, rows: usize, width: usize) void {
        @memset(s.max[0..padded(rows)], -simd.inf);
        @memset(s.sum[0..padded(rows)], 0);
        @memset(s.acc[0 .. rows * width], 0);
    }
};

/// Keys of a page that a row sees.
const Range = struct { low: usize, high: usize };

/// Rows for which keys are transposed in registers instead of through scratch.
const direct_rows = if (simd.registers == 32) 8 else 4;

pub const Tile = struct {
    plan: Plan,
    k: kv.Cache,
    v: kv.Cache,
    head: usize,
    /// Position of the tile's first token.
    position: usize,
    rows: usize,
    window: usize,
    softcap: f32,
    // Scratch, dense f32, in the order of Plan.parts.
    /// [head_dim][page_width], [page_size][width]
    keys: [*]f32,
    values: [*]f32,
    /// [rows][head_dim], [rows][page_width], [rows_max][width]
    q: [*]f32,
    scores: [*]f32,
    sums: [*]f32,
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
        var at = memory;
        t.plan = plan;
        const parts = plan.parts();
        inline for (.{ "keys", "values", "q", "scores", "sums", "page_max", "page_sum", "keep", "gain", "low", "high" }, 0..) |name, i| {
            @field(t, name) = @ptrCast(at);
            at += padded(parts[i]);
        }
        t.partial = .at(at, plan.tile_rows);
        t.total = .at(at + plan.stateFloats(plan.tile_rows), plan.tile_rows);
        return t;
    }

    pub fn aim(t: *Tile, first: usize, end: usize, head: usize, position: usize) void {
        t.head = head;
        t.position = position + first;
        t.rows = (end - first) * t.plan.group;
    }

    /// Takes on tokens first … end-1 and one kv head: copies their query rows, multiplied by scale.
    pub fn begin(t: *Tile, q: *const abi.TensorDesc, first: usize, end: usize, head: usize, position: usize, scale: f32) void {
        t.aim(first, end, head, position);
        var to = t.q;
        for (first..end) |token| for (0..t.plan.group) |g| {
            const from = views.addressOf(q, &.{ token, head * t.plan.group + g });
            const x: views.Cursor(false) = .{ .p = @ptrFromInt(from), .stride = @intCast(q.strides[2]) };
            for (0..t.plan.head_dim) |i| to[i] = x.at(i).* * scale;
            to += t.plan.head_dim;
        };
    }

    pub fn firstPage(t: *const Tile) usize {
        const first = if (t.window > 0 and t.position + 1 > t.window) t.position + 1 - t.window else 0;
        return first / t.plan.page_size;
    }

    pub fn lastPage(t: *const Tile) usize {
        return (t.position + t.rows / t.plan.group - 1) / t.plan.page_size;
    }

    /// The visible keys of a page for every row, relative to it. Both bounds rise with the row.
    fn look(t: *const Tile, page: usize) void {
        const base = page * t.plan.page_size;
        var r: usize = 0;
        for (t.position..t.position + t.rows / t.plan.group) |last| {
            const first = if (t.window > 0 and last + 1 > t.window) last + 1 - t.window else 0;
            const high = @min(t.plan.page_size, last + 1 -| base);
            for (0..t.plan.group) |_| {
                t.low[r] = @intCast(@min(high, first -| base));
                t.high[r] = @intCast(high);
                r += 1;
            }
        }
    }

    /// All pages of one span into `to`.
    pub fn runSpan(t: *const Tile, span: usize, to: State) void {
        to.reset(t.rows, t.plan.width);
        const start = @max(t.firstPage(), span * span_pages);
        const end = @min(t.lastPage() + 1, (span + 1) * span_pages);
        for (start..@max(start, end)) |page| {
            if (t.k.half) t.runPage(f16, page, to) else t.runPage(f32, page, to);
        }
    }

    fn runPage(t: *const Tile, comptime T: type, page: usize, to: State) void {
        const p = &t.plan;
        t.look(page);
        const live: usize = t.high[t.rows - 1];
        const keys: [*]const T = @ptrFromInt(t.k.page(page, t.head));
        const values: [*]const T = @ptrFromInt(t.v.page(page, t.head));
        const next: [*]const T = @ptrFromInt(t.k.page(@min(page + 1, t.lastPage()), t.head));
        switch (t.rows) {
            inline 1...direct_rows => |rows| t.scoreDirect(T, rows, keys, live, .{ @ptrCast(values), @ptrCast(next) }),
            else => {
                transposing.transpose(T, keys, live, p.head_dim, t.keys, p.page_width);
                var r: usize = 0;
                while (r < t.rows) : (r += gemm.rows_max) t.score(r, @min(t.rows, r + gemm.rows_max));
            },
        }
        for (0..t.rows) |r| {
            const result = pageSoftmax(t.scores + r * p.page_width, .{ .low = t.low[r], .high = t.high[r] }, t.softcap);
            t.page_max[r] = result[0];
            t.page_sum[r] = result[1];
        }
        t.absorb(to, t.page_max, t.page_sum);
        var r: usize = 0;
        // In place when the rows are whole vectors and f16 would not be widened more than once.
        if (p.width == p.head_dim and (T == f32 or t.rows <= gemm.rows_max)) {
            while (r < t.rows) : (r += gemm.rows_max) t.weigh(T, r, @min(t.rows, r + gemm.rows_max), values, to);
            return;
        }
        for (0..live) |j| widenRow(T, values + j * p.head_dim, p.head_dim, t.values + j * p.width, p.width);
        while (r < t.rows) : (r += gemm.rows_max) t.weigh(f32, r, @min(t.rows, r + gemm.rows_max), t.values, to);
    }

    /// Scores of a few rows, the keys transposed in registers. Meanwhile what is read next comes nearer: a page's rows are
    /// read side by side, which the CPU does not foresee. The same chain over head_dim as `score`.
    fn scoreDirect(t: *const Tile, comptime T: type, comptime rows: usize, keys: [*]const T, live: usize, ahead: [2][*]const u8) void {
        @setEvalBranchQuota(10_000);
        const n = t.plan.head_dim;
        const line = 64;
        const block_lines = @max(1, lanes * lanes * @sizeOf(T) / line);
        var fetched: usize = 0;
        var j: usize = t.low[0] / lanes * lanes;
        while (j < live) : (j += lanes) {
            var acc: [rows]F = @splat(simd.zero);
            var c: usize = 0;
            while (c + lanes <= n) : (c += lanes) {
                inline for (0..block_lines) |l| for (ahead) |p| @prefetch(p + fetched + l * line, .{ .locality = 2 });
                fetched += block_lines * line;
                const block = transposing.loadBlock(T, keys + j * n + c, n, live - j);
                inline for (0..lanes) |i| inline for (0..rows) |r| {
                    acc[r] = simd.fma(simd.splat(t.q[r * n + c + i]), block[i], acc[r]);
                };
            }
            while (c < n) : (c += 1) {
                var column: [lanes]f32 = @splat(0);
                for (0..@min(lanes, live - j)) |i| column[i] = transposing.widen(T, keys[(j + i) * n + c]);
                inline for (0..rows) |r| acc[r] = simd.fma(simd.splat(t.q[r * n + c]), @as(F, column), acc[r]);
            }
            inline for (0..rows) |r| simd.store(t.scores + r * t.plan.page_width + j, acc[r]);
        }
    }

    /// Scores of rows r … end-1 against the transposed keys.
    fn score(t: *const Tile, r: usize, end: usize) void {
        const p = &t.plan;
        const low = t.low[r] / lanes * lanes;
        const high = simd.roundUp(t.high[end - 1]);
        if (low >= high) return;
        const n = p.head_dim;
        const to = t.scores + r * p.page_width + low;
        gemm.multiply(f32, .zero, end - r, high - low, n, t.q + r * n, n, t.keys + low, p.page_width, to, p.page_width);
    }

    /// Merges maxima and sums of all rows into `to`, and leaves the factors for the weighted values in keep and gain.
    fn absorb(t: *const Tile, to: State, max: [*]const f32, sum: [*]const f32) void {
        var r: usize = 0;
        while (r < t.rows) : (r += lanes) {
            const own = simd.load(to.max + r);
            const other = simd.load(max + r);
            const added = simd.load(sum + r);
            const e = simd.exp(-@abs(other - own));
            const newer = other > own;
            const empty = added == simd.zero;
            const keep = @select(f32, newer, e, simd.splat(1));
            const gain = @select(f32, newer, simd.splat(1), e);
            const own_sum = simd.load(to.sum + r);
            simd.store(t.keep + r, keep);
            simd.store(t.gain + r, gain);
            simd.store(to.max + r, @select(f32, empty, own, @select(f32, newer, other, own)));
            simd.store(to.sum + r, @select(f32, empty, own_sum, own_sum * keep + added * gain));
        }
    }

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

    /// Weighted values of rows r … end-1, merged into `to`. Keys that only some of the rows see go row by row, so that
    /// nothing a row does not see, NaN included, enters it.
    fn weigh(t: *const Tile, comptime T: type, r: usize, end: usize, values: [*]const T, to: State) void {
        const p = &t.plan;
        const width = p.width;
        const low: usize = t.low[end - 1];
        const high = @max(low, t.high[r]);
        const shared = t.scores + r * p.page_width + low;
        if (t.low[r] == low) {
            gemm.multiply(T, .zero, end - r, width, high - low, shared, p.page_width, values + low * width, width, t.sums, width);
        } else {
            for (r..end) |row| {
                const from: usize = t.low[row];
                const n = @min(low, t.high[row]) -| from;
                const weights = t.scores + row * p.page_width + from;
                gemm.multiply(T, .zero, 1, width, n, weights, 0, values + from * width, width, t.sums + (row - r) * width, width);
            }
            gemm.multiply(T, .c, end - r, width, high - low, shared, p.page_width, values + low * width, width, t.sums, width);
        }
        for (r..end) |row| {
            const sums = t.sums + (row - r) * width;
            const from = @max(high, t.low[row]);
            if (t.high[row] > from) {
                const weights = t.scores + row * p.page_width + from;
                gemm.multiply(T, .c, 1, width, t.high[row] - from, weights, 0, values + from * width, width, sums, width);
            }
            t.mergeRow(to, row, t.page_sum[row], sums);
        }
    }

    /// Merges another result of all rows into the total.
    pub fn mergeTotal(t: *const Tile, from: State) void {
        t.absorb(t.total, from.max, from.sum);
        for (0..t.rows) |r| t.mergeRow(t.total, r, from.sum[r], from.acc + r * t.plan.width);
    }

    /// Writes acc / sum of all rows; zeros where nothing was seen.
    pub fn finish(t: *const Tile, out: *const abi.TensorDesc, first: usize) void {
        const p = &t.plan;
        for (0..t.rows) |r| {
            const address = views.addressOf(out, &.{ first + r / p.group, t.head * p.group + r % p.group });
            const y: views.Cursor(false) = .{ .p = @ptrFromInt(address), .stride = @intCast(out.strides[2]) };
            const sum = t.total.sum[r];
            const inverse = if (sum == 0) 0 else 1 / sum;
            const acc = t.total.acc + r * p.width;
            for (0..p.head_dim) |i| y.at(i).* = acc[i] * inverse;
        }
    }
};

fn widenRow(comptime T: type, from: [*]const T, n: usize, to: [*]f32, width: usize) void {
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) simd.store(to + i, simd.loadAs(T, from + i));
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
