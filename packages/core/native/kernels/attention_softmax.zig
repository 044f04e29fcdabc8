//! The weights of attention within a page: exp(score - largest) of the keys that a row sees.

const simd = @import("simd.zig");
const capScores = @import("activation.zig").capScores;
const Range = @import("kv_page.zig").Range;

const F = simd.F;
const lanes = simd.lanes;

/// Rows whose maxima and sums are found side by side, as one alone waits for each step.
pub const rows_max = 4;

/// Replaces the visible scores of rows that see the same keys by exp(score - max), the others of their vectors by 0.
pub fn page(comptime rows: usize, scores: [*]f32, stride: usize, seen: Range, softcap: f32, max: [*]f32, sum: [*]f32) void {
    const first = seen.low / lanes * lanes;
    var best: [rows]F = @splat(simd.splat(-simd.inf));
    var j = first;
    while (j < seen.high) : (j += lanes) {
        const part = j < seen.low or j + lanes > seen.high;
        inline for (0..rows) |r| {
            const at = scores + r * stride + j;
            var x = simd.load(at);
            if (softcap != 0) x = capScores(x, softcap);
            if (part) x = seen.keep(x, j, -simd.inf);
            if (softcap != 0 or part) simd.store(at, x);
            best[r] = simd.maxSkipNan(best[r], x);
        }
    }
    var shift: [rows]F = undefined;
    inline for (0..rows) |r| {
        const largest = simd.maxLanes(best[r]);
        max[r] = if (largest == -simd.inf) 0 else largest;
        shift[r] = simd.splat(max[r]);
    }
    var sums: [rows]F = @splat(simd.zero);
    j = first;
    while (j < seen.high) : (j += lanes) inline for (0..rows) |r| {
        const at = scores + r * stride + j;
        const y = simd.expFalling(simd.load(at) - shift[r]);
        simd.store(at, y);
        sums[r] += y;
    };
    inline for (0..rows) |r| sum[r] = simd.sumLanes(sums[r]);
}
