//! The gate of `linear_swiglu` on sums that lie in tiles: sixteen rows at a time, so that their block scales come out of one
//! division. The bits are those of `Pair.finish`.

const activation = @import("activation.zig");
const amx = @import("amx.zig");
const quantize = @import("quantize.zig");
const simd = @import("simd.zig");
const Pair = @import("linear_swiglu.zig").Pair;

const F = simd.F;

/// silu(gate) * up of `present` rows from `row` on, columns first … first+31; `gates` and `ups` are two tiles each.
pub fn gateTile(pair: *const Pair, row: usize, present: usize, first: usize, gates: [*]align(64) const f32, ups: [*]align(64) const f32) void {
    if (!quantize.isWanted(pair.out)) {
        for (0..present) |i| {
            const at = i * 16;
            pair.finish(row + i, first, .{ gates + at, gates + at + 256 }, .{ ups + at, ups + at + 256 });
        }
        return;
    }
    var values: [amx.rows][2]F align(64) = undefined;
    for (&values, 0..) |*value, i| inline for (value, 0..) |*v, half| {
        const at = half * 256 + i * 16;
        v.* = (activation.Swiglu{}).eval(simd.load(gates + at), simd.load(ups + at));
    };
    var rows: [amx.rows]quantize.Writer = undefined;
    for (rows[0..present], row..) |*writer, r| writer.* = .row(pair.out, r, pair.gate.n);
    quantize.blockOfRows(rows[0..present], first / 32, &values);
}
