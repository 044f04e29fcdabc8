//! The two products of attention over pages in int8 (attention_i8_page.zig), and the softmax between them, for a few rows
//! of queries. Integer dots are exact in any order; only the steps between them round, and those are the same for every
//! row:
//!
//!     score   x[j] = f32(q codes · k codes) * (k scale * q scale) + log2(v scale); q carries the factor log2(e)
//!     weight  w[j] = 2^(x[j] - largest x of the row in this page), code = round(w[j] * weight_max)
//!     sum     of w[j] / v scale
//!     value   acc = fma(acc, keep, f32(sum of code * v code) * (gain / weight_max))
//!
//! A value's scale is part of its weight, so that one sum of integers serves all keys of a page. A weight's step is a
//! 255th of the largest one (127th with AVX2) of its row in its page: a page that matters little has as many steps as one
//! that matters much.

const std = @import("std");
const dot = @import("dot.zig");
const simd = @import("simd.zig");
const capScores = @import("activation.zig").capScores;
const i8_page = @import("attention_i8_page.zig");
const Range = @import("kv_page.zig").Range;

const Page = i8_page.Page;
const Shape = i8_page.Shape;
const F = simd.F;
const I = simd.I;
const lanes = simd.lanes;

/// Rows of a register tile, and how many vectors it may have.
pub const rows_max = switch (dot.level) {
    .avx512vnni, .avxvnni => 6,
    .avx2 => 4,
    .portable => 2,
};
const steps = if (dot.level == .avx512vnni) .{ 4, 2, 1 } else .{ 2, 1 };
const weight_max = dot.byte_max;

/// Some rows of a tile and what they see of a page; all pointers are to the first of them.
pub const Rows = struct {
    shape: Shape,
    /// [W] i8, a scale and what integer sums start from.
    queries: [*]const i8,
    query_scales: [*]const f32,
    query_starts: [*]const i32,
    /// q · reference of the page; part of the scores only with a softcap.
    commons: [*]const f32,
    softcap: f32,
    /// Logs of the values' scales; zeros with a softcap, behind which they come.
    logs: [*]const f32,
    low: [*]const u32,
    high: [*]const u32,
    /// [K]
    scores: [*]f32,
    weights: [*]u8,
    /// Largest score, and sum of weights / v scale.
    max: [*]f32,
    sum: [*]f32,

    /// The vectors of keys, from … to before, that hold what `count` rows see.
    fn span(rows: *const Rows, count: usize) [2]usize {
        return .{ rows.low[0] / lanes * lanes, simd.roundUp(rows.high[count - 1]) };
    }
};

/// What integer sums start from, by the sum of a query's codes.
pub fn startOf(codes: i32) i32 {
    return codes * comptime dot.Scheme.startFactor(.fours, 128, 255);
}

/// Scores, weights, maxima and sums of `count` rows.
pub fn weigh(comptime count: usize, page: Page, rows: *const Rows) void {
    @setEvalBranchQuota(10_000);
    const from, const to = rows.span(count);
    const hidden = from < rows.low[count - 1] or to > rows.high[0]; // bounds rise with the row
    var best: [count]F = @splat(simd.splat(-simd.inf));
    var j = from;
    while (j < to) {
        const step = stepOf((to - j) / lanes);
        inline for (steps) |vectors| if (vectors == step) score(count, vectors, page, rows, j, &best);
        j += lanes * step;
    }
    inline for (0..count) |m| {
        if (hidden or rows.softcap != 0) best[m] = amend(page, rows, m, from, to);
        const largest = simd.maxLanes(best[m]);
        rows.max[m] = if (largest == -simd.inf) 0 else largest;
        rows.sum[m] = soften(page, rows, m, from, to);
    }
}

/// Vectors that are taken at once when so many are left.
fn stepOf(left: usize) usize {
    inline for (steps) |vectors| if (left >= vectors) return vectors;
    unreachable;
}

inline fn score(comptime count: usize, comptime vectors: usize, page: Page, rows: *const Rows, j: usize, best: *[count]F) void {
    @setEvalBranchQuota(10_000);
    const s = rows.shape;
    var acc: [count][vectors]dot.I = undefined;
    inline for (0..count) |m| acc[m] = @splat(@splat(rows.query_starts[m]));
    var keys = page.keys + j * 4;
    for (0..s.width / 4) |step| {
        var codes: [vectors]dot.U = undefined;
        inline for (0..vectors) |v| codes[v] = keys[v * lanes * 4 ..][0 .. lanes * 4].*;
        inline for (0..count) |m| {
            const four: dot.I = @splat(@bitCast(rows.queries[m * s.width + step * 4 ..][0..4].*));
            inline for (0..vectors) |v| acc[m][v] = dot.addProducts(.fours, acc[m][v], codes[v], four);
        }
        keys += s.keys * 4;
    }
    inline for (0..vectors) |v| {
        const at = j + v * lanes;
        const scale = simd.load(page.key_scales + at);
        const log = simd.load(rows.logs + at);
        inline for (0..count) |m| {
            const factor = scale * simd.splat(rows.query_scales[m]);
            const x = simd.fma(@as(F, @floatFromInt(acc[m][v])), factor, log);
            simd.store(rows.scores + m * s.keys + at, x);
            best[m] = simd.maxSkipNan(best[m], x);
        }
    }
}

/// Caps the scores of row m and adds the logs behind, hides the keys that it does not see; returns the largest of each
/// lane.
noinline fn amend(page: Page, rows: *const Rows, m: usize, from: usize, to: usize) F {
    const range: Range = .{ .low = rows.low[m], .high = rows.high[m] };
    var best = simd.splat(-simd.inf);
    var j = from;
    while (j < to) : (j += lanes) {
        const at = rows.scores + m * rows.shape.keys + j;
        var x = simd.load(at);
        if (rows.softcap != 0) x = capScores(x + simd.splat(rows.commons[m]), rows.softcap) + simd.load(page.value_logs + j);
        const seen = range.keep(x, j, -simd.inf);
        simd.store(at, seen);
        best = simd.maxSkipNan(best, seen);
    }
    return best;
}

/// Writes the weights' codes of row m; returns the sum.
inline fn soften(page: Page, rows: *const Rows, m: usize, from: usize, to: usize) f32 {
    const largest = simd.splat(rows.max[m]);
    const at = m * rows.shape.keys;
    var total = simd.zero;
    var j = from;
    while (j < to) : (j += lanes) {
        const w = powerOfTwo(simd.load(rows.scores + at + j) - largest);
        total = simd.fma(w, simd.load(page.value_inverses + j), total);
        const code: I = @bitCast(simd.fma(w, simd.splat(weight_max), simd.splat(0x1.8p23)));
        rows.weights[at + j ..][0..lanes].* = @as(@Vector(lanes, u8), @truncate(@as(@Vector(lanes, u32), @bitCast(code))));
    }
    return simd.sumLanes(total);
}

const avx512 = struct {
    extern fn @"llvm.x86.avx512.mask.reduce.ps.512"(F, i32, F, i16, i32) F;
    extern fn @"llvm.x86.avx512.mask.scalef.ps.512"(F, F, F, i16, i32) F;

    /// x - floor(x).
    inline fn fraction(x: F) F {
        return @"llvm.x86.avx512.mask.reduce.ps.512"(x, 1, x, -1, 4);
    }

    /// x * 2^floor(y).
    inline fn scale(x: F, y: F) F {
        return @"llvm.x86.avx512.mask.scalef.ps.512"(x, y, x, -1, 4);
    }
};

/// 2^x for x ≤ 0 to 1.1e-4, exact at 0; below -126 that or 0.
inline fn powerOfTwo(x: F) F {
    if (dot.level == .avx512vnni) return avx512.scale(cubic(avx512.fraction(x), .{ 0.07706704, 0.227645, 0.6951168 }), x);
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

/// Merges the weighted values of `count` rows into acc [count][W]: acc * keep + sum * gain.
pub fn sum(comptime count: usize, page: Page, rows: *const Rows, keep: [*]const f32, gain: [*]const f32, acc: [*]f32) void {
    @setEvalBranchQuota(10_000);
    const from, const to = rows.span(count);
    var c: usize = 0;
    while (c < rows.shape.width) {
        const step = stepOf((rows.shape.width - c) / lanes);
        inline for (steps) |vectors| if (vectors == step) {
            sumVectors(count, vectors, page, rows, from / 4, to / 4, c, keep, gain, acc + c);
        };
        c += lanes * step;
    }
}

inline fn sumVectors(
    comptime count: usize,
    comptime vectors: usize,
    page: Page,
    rows: *const Rows,
    from: usize,
    to: usize,
    c: usize,
    keep: [*]const f32,
    gain: [*]const f32,
    acc: [*]f32,
) void {
    const s = rows.shape;
    var sums: [count][vectors]dot.I = @splat(@splat(@splat(0)));
    var values = page.values + (from * s.width + c) * 4;
    for (from..to) |group| {
        var codes: [vectors]dot.I = undefined;
        inline for (0..vectors) |v| codes[v] = @bitCast(values[v * lanes * 4 ..][0 .. lanes * 4].*);
        inline for (0..count) |m| {
            const four: dot.U = @bitCast(@as(dot.I, @splat(@bitCast(rows.weights[m * s.keys + group * 4 ..][0..4].*))));
            inline for (0..vectors) |v| sums[m][v] = dot.addBytes(sums[m][v], four, codes[v]);
        }
        values += s.width * 4;
    }
    inline for (0..count) |m| {
        const kept = simd.splat(keep[m]);
        const factor = simd.splat(gain[m] * (1.0 / @as(f32, weight_max)));
        inline for (0..vectors) |v| {
            const at = acc + m * s.width + v * lanes;
            simd.store(at, simd.fma(simd.load(at), kept, @as(F, @floatFromInt(sums[m][v])) * factor));
        }
    }
}

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
