//! The float part of attention in int8 (attention_i8.zig): from the integer dots of queries and keys to the codes of
//! weights, and from the integer sums of weighted values to results. Integer dots are exact in any order; only the steps
//! between them round, and those are the same for every row:
//!
//!     score   x[j] = f32(q codes · k codes) * (k scale * q scale) + log2(v scale); q carries the factor log2(e)
//!     weight  w[j] = 2^(x[j] - largest x of the row in this stretch), code = round(w[j] * weight_max)
//!     sum     of w[j] / v scale
//!     value   acc = fma(acc, keep, f32(sum of code * v code) * (gain / weight_max)); the first stretch sets acc
//!
//! A value's scale is part of its weight, so that one sum of integers serves all keys of a stretch. A weight's step is a
//! 255th of the largest one (127th with AVX2) of its row in its stretch: one that matters little has as many steps as one
//! that matters much. The dot of the query and the reference of a page is a part of x that the scores of the page leave
//! out: it is added to the largest of them alone.

const std = @import("std");
const dot = @import("dot.zig");
const simd = @import("simd.zig");
const capScores = @import("activation.zig").capScores;
const i8_page = @import("attention_i8_page.zig");
const Range = @import("kv_page.zig").Range;

const Stretch = i8_page.Stretch;
const Shape = i8_page.Shape;
const F = simd.F;
const I = simd.I;
const lanes = simd.lanes;

const weight_max = dot.byte_max;

/// Some rows of a tile and what becomes of them in a stretch of keys; all pointers are to the first of them.
pub const Rows = struct {
    stretch: Stretch,
    shape: Shape,
    count: usize,
    /// [W] i8, a scale and what integer sums start from.
    queries: [*]const i8,
    query_scales: [*]const f32,
    query_starts: [*]const i32,
    /// q · reference of each page, [pages][commons_apart].
    commons: [*]const f32,
    commons_apart: usize,
    softcap: f32,
    /// Logs of the values' scales; zeros with a softcap, behind which they come.
    logs: [*]const f32,
    /// The keys that they see.
    low: [*]const u32,
    high: [*]const u32,
    /// [K], of as many rows as the products have at once.
    scores: [*]f32,
    weights: [*]u8,
    /// Largest score, and sum of weights / v scale.
    max: [*]f32,
    sum: [*]f32,
    /// What the stretch is merged into [W], and the factors; whether it is the first one, and nothing is there yet.
    acc: [*]f32,
    is_first: bool,
    keep: [*]f32,
    gain: [*]f32,

    /// Up to `count` of them from row r on, with the same place for scores.
    pub fn part(rows: *const Rows, r: usize, count: usize) Rows {
        var some = rows.*;
        some.count = @min(count, rows.count - r);
        inline for (.{ "queries", "acc" }) |name| @field(some, name) += r * rows.shape.width;
        some.weights += r * rows.shape.keys;
        inline for (.{ "query_scales", "query_starts", "commons", "low", "high", "max", "sum", "keep", "gain" }) |name| @field(some, name) += r;
        return some;
    }

    /// q · reference of a page.
    pub inline fn commonsOf(rows: *const Rows, page: usize) [*]const f32 {
        return rows.commons + page * rows.commons_apart;
    }

    /// What row m's scores of a page leave out: with a softcap nothing (see `amend`).
    inline fn common(rows: *const Rows, m: usize, page: usize) f32 {
        return if (rows.softcap == 0) rows.commonsOf(page)[m] else 0;
    }

    /// Whole scores of row m from those of a page.
    pub inline fn whole(rows: *const Rows, m: usize, page: usize, scores: F) F {
        return scores + simd.splat(rows.common(m, page));
    }

    /// The same of one score of each row, a lane per row.
    pub inline fn wholeOf(rows: *const Rows, page: usize, scores: F) F {
        return if (rows.softcap == 0) scores + simd.load(rows.commonsOf(page)) else scores;
    }

    /// What becomes the weight 1 among row m's scores of a page, of which `peak` are the largest.
    pub inline fn most(rows: *const Rows, m: usize, page: usize, peak: F) F {
        return bound(rows.max[m] - rows.common(m, page), peak);
    }

    /// The vectors of keys, from … to before, that hold what rows first … end-1 see: their bounds rise with the row. None
    /// when from is not below to.
    pub fn span(rows: *const Rows, first: usize, end: usize) [2]usize {
        return .{ rows.low[first] / lanes * lanes, simd.roundUp(rows.high[end - 1]) };
    }

    /// Those of them that hold what row m sees of keys from … to-1.
    pub fn within(rows: *const Rows, m: usize, from: usize, to: usize) [2]usize {
        const first, const end = rows.span(m, m + 1);
        return .{ @max(first, from), @min(end, to) };
    }
};

/// What integer sums start from, per unit of the sum of a query's codes, where keys lie around `key_zero` 128
/// (attention_i8_dot.zig); tiles take signed keys and start from 0.
pub const start_factor = dot.Scheme.startFactor(.fours, 128, 255);

pub inline fn scoreOf(dots: I, factor: F, log: F) F {
    return simd.fma(@as(F, @floatFromInt(dots)), factor, log);
}

/// The scores of the keys from j on by their dots with row m; kept, and entered into the largest of each lane.
pub inline fn score(rows: *const Rows, m: usize, j: usize, dots: I, best: F) F {
    const factor = simd.load(rows.stretch.key_scales + j) * simd.splat(rows.query_scales[m]);
    const x = scoreOf(dots, factor, simd.load(rows.logs + j));
    simd.store(rows.scores + m * rows.shape.keys + j, x);
    return simd.maxSkipNan(best, x);
}

/// Where sums of large numbers were rounded the largest score may lie below one of its page, whose weight must not be above 1.
pub inline fn bound(largest: f32, peak: F) F {
    return simd.maxSkipNan(simd.splat(largest), peak);
}

/// Caps the scores of row m in keys of one page and adds the logs behind, hides the keys that it does not see; returns the largest
/// of each lane.
pub noinline fn amend(rows: *const Rows, m: usize, from: usize, to: usize) F {
    const common = simd.splat(rows.commonsOf(from / rows.shape.pageKeys())[m]);
    const range: Range = .{ .low = rows.low[m], .high = rows.high[m] };
    var best = simd.splat(-simd.inf);
    var j = from;
    while (j < to) : (j += lanes) {
        const at = rows.scores + m * rows.shape.keys + j;
        var x = simd.load(at);
        if (rows.softcap != 0) x = capScores(x + common, rows.softcap) + simd.load(rows.stretch.value_logs + j);
        const seen = range.keep(x, j, -simd.inf);
        simd.store(at, seen);
        best = simd.maxSkipNan(best, seen);
    }
    return best;
}

/// The weights of keys from j on of row m, as codes, and their part of the sum.
pub const Weights = struct {
    codes: I,
    sum: F,

    pub inline fn of(rows: *const Rows, m: usize, j: usize, most: F, sum: F) Weights {
        const x = simd.load(rows.scores + m * rows.shape.keys + j);
        return .make(x - most, simd.load(rows.stretch.value_inverses + j), sum);
    }

    /// By their scores less the largest, and by 1 / v scale.
    pub inline fn make(x: F, inverse: F, sum: F) Weights {
        const w = powerOfTwo(x);
        return .{
            // Codes are the low bytes.
            .codes = @bitCast(simd.fma(w, simd.splat(weight_max), simd.splat(0x1.8p23))),
            .sum = simd.fma(w, inverse, sum),
        };
    }
};

/// 2^x for x ≤ 0 to 1.1e-4, exact at 0; below -126 that or 0.
inline fn powerOfTwo(x: F) F {
    if (dot.level == .avx512vnni) return simd.avx512.scale(cubic(simd.avx512.fraction(x), .{ 0.07706704, 0.227645, 0.6951168 }), x);
    const magic = simd.splat(12582912.0 + 127); // rounds, and leaves the exponent of 2^n in the low bits
    const t = x + magic;
    const r = x - (t - magic);
    const p = cubic(r, .{ 0.05500908, 0.24221134, 0.69328295 });
    const power: F = @bitCast(@as(I, @bitCast(t)) << @splat(23));
    return @select(f32, x < simd.splat(-126), simd.zero, p * power);
}

/// 1 + c[2] x + c[1] x² + c[0] x³
inline fn cubic(x: F, comptime c: [3]f32) F {
    return simd.fma(simd.fma(simd.fma(x, simd.splat(c[0]), simd.splat(c[1])), x, simd.splat(c[2])), x, simd.splat(1));
}

/// Merges vectors of one row's sums of weighted values.
pub const Merge = struct {
    keep: F,
    gain: F,

    pub inline fn of(rows: *const Rows, m: usize) Merge {
        return .{ .keep = simd.splat(rows.keep[m]), .gain = simd.splat(rows.gain[m] * (1.0 / @as(f32, weight_max))) };
    }

    pub inline fn add(merge: Merge, acc: [*]f32, sums: I) void {
        simd.store(acc, simd.fma(simd.load(acc), merge.keep, merge.part(sums)));
    }

    /// Of the first stretch.
    pub inline fn set(merge: Merge, acc: [*]f32, sums: I) void {
        simd.store(acc, merge.part(sums));
    }

    inline fn part(merge: Merge, sums: I) F {
        return @as(F, @floatFromInt(sums)) * merge.gain;
    }
};

test "powerOfTwo" {
    var x: f32 = -130;
    while (x <= 0) : (x += 0.0137) {
        const y: [lanes]f32 = powerOfTwo(simd.splat(x));
        const want = if (x < -126 and y[0] == 0) 0 else @exp2(@as(f64, x));
        try std.testing.expectApproxEqRel(want, y[0], 1.1e-4);
    }
    const ends: [4]f32 = .{ 0, -simd.inf, -1e30, std.math.nan(f32) };
    for (ends, 0..) |end, i| {
        const y: [lanes]f32 = powerOfTwo(simd.splat(end));
        if (i == 3) try std.testing.expect(std.math.isNan(y[0])) else try std.testing.expectEqual(@as(f32, if (i == 0) 1 else 0), y[0]);
    }
}
