//! Transposes rows of f32 or f16 into f32 columns, a square block of vectors at a time.

const std = @import("std");
const simd = @import("simd.zig");

const F = simd.F;
const lanes = simd.lanes;

/// Within each group of four lanes: pairs of elements (`unpcklps` and its like) from two vectors.
fn inLane(comptime pick: [4]i32) [lanes]i32 {
    var mask: [lanes]i32 = undefined;
    for (0..lanes) |i| {
        const p = pick[i % 4];
        const base: i32 = @intCast(i / 4 * 4);
        mask[i] = if (p >= 0) base + p else ~(base + ~p);
    }
    return mask;
}

/// Whole groups of four lanes from two vectors; group g of the result is group pick[g] of the pair.
fn groups(comptime pick: [lanes / 4]usize) [lanes]i32 {
    var mask: [lanes]i32 = undefined;
    for (0..lanes) |i| {
        const from = pick[i / 4] * 4 + i % 4;
        mask[i] = if (from < lanes) from else ~@as(i32, from - lanes);
    }
    return mask;
}

inline fn shuffle(a: F, b: F, comptime mask: [lanes]i32) F {
    return @shuffle(f32, a, b, mask);
}

/// v[r][c] becomes v[c][r].
pub inline fn square(v: *[lanes]F) void {
    inline for (0..lanes / 4) |q| {
        const r = v[4 * q ..][0..4];
        const a = shuffle(r[0], r[1], comptime inLane(.{ 0, ~@as(i32, 0), 1, ~@as(i32, 1) }));
        const b = shuffle(r[0], r[1], comptime inLane(.{ 2, ~@as(i32, 2), 3, ~@as(i32, 3) }));
        const c = shuffle(r[2], r[3], comptime inLane(.{ 0, ~@as(i32, 0), 1, ~@as(i32, 1) }));
        const d = shuffle(r[2], r[3], comptime inLane(.{ 2, ~@as(i32, 2), 3, ~@as(i32, 3) }));
        const low = comptime inLane(.{ 0, 1, ~@as(i32, 0), ~@as(i32, 1) });
        const high = comptime inLane(.{ 2, 3, ~@as(i32, 2), ~@as(i32, 3) });
        r.* = .{ shuffle(a, c, low), shuffle(a, c, high), shuffle(b, d, low), shuffle(b, d, high) };
    }
    // Now v[4q + i] holds in group g the elements 4q … 4q+3 of column 4g + i: transpose the groups.
    if (lanes == 8) inline for (0..4) |i| {
        const a = v[i];
        const b = v[4 + i];
        v[i] = shuffle(a, b, comptime groups(.{ 0, 2 }));
        v[4 + i] = shuffle(a, b, comptime groups(.{ 1, 3 }));
    };
    if (lanes == 16) inline for (0..4) |i| {
        const even = comptime groups(.{ 0, 2, 4, 6 });
        const odd = comptime groups(.{ 1, 3, 5, 7 });
        const p = shuffle(v[i], v[4 + i], even);
        const q = shuffle(v[i], v[4 + i], odd);
        const r = shuffle(v[8 + i], v[12 + i], even);
        const s = shuffle(v[8 + i], v[12 + i], odd);
        v[i] = shuffle(p, r, even);
        v[8 + i] = shuffle(p, r, odd);
        v[4 + i] = shuffle(q, s, even);
        v[12 + i] = shuffle(q, s, odd);
    };
}

/// One element as f32.
pub inline fn widen(comptime T: type, value: T) f32 {
    return if (T == f16) @floatCast(value) else value;
}

/// One row as f32, zeros up to `width`.
pub fn widenRow(comptime T: type, from: [*]const T, n: usize, to: [*]f32, width: usize) void {
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) simd.store(to + i, simd.loadAs(T, from + i));
    while (i < n) : (i += 1) to[i] = widen(T, from[i]);
    @memset(to[n..width], 0);
}

/// Loads `live` rows (at most `lanes`) of `lanes` elements, transposed; the rows above are zeros.
pub inline fn loadBlock(comptime T: type, from: [*]const T, stride: usize, live: usize) [lanes]F {
    var block: [lanes]F = undefined;
    if (live >= lanes) {
        inline for (0..lanes) |i| block[i] = simd.loadAs(T, from + i * stride);
    } else {
        for (0..lanes) |i| block[i] = if (i < live) simd.loadAs(T, from + i * stride) else simd.zero;
    }
    square(&block);
    return block;
}

/// to[c * width + r] = from[r * columns + c] for r < rows; zeros up to the next multiple of `lanes` rows.
pub fn transpose(comptime T: type, from: [*]const T, rows: usize, columns: usize, to: [*]f32, width: usize) void {
    var r: usize = 0;
    while (r < rows) : (r += lanes) {
        const live = @min(lanes, rows - r);
        var c: usize = 0;
        while (c + lanes <= columns) : (c += lanes) {
            const block = loadBlock(T, from + r * columns + c, columns, live);
            inline for (0..lanes) |i| simd.store(to + (c + i) * width + r, block[i]);
        }
        while (c < columns) : (c += 1) {
            for (0..lanes) |i| to[c * width + r + i] = if (i < live) widen(T, from[(r + i) * columns + c]) else 0;
        }
    }
}

/// Element r is the largest of row r's elements, compared as integers of their bits.
pub inline fn largestOfRows(rows: *const [lanes]F) F {
    comptime std.debug.assert(lanes == 16);
    const singles = comptime [2][lanes]i32{ inLane(.{ 0, ~@as(i32, 0), 1, ~@as(i32, 1) }), inLane(.{ 2, ~@as(i32, 2), 3, ~@as(i32, 3) }) };
    const twos = comptime [2][lanes]i32{ inLane(.{ 0, 1, ~@as(i32, 0), ~@as(i32, 1) }), inLane(.{ 2, 3, ~@as(i32, 2), ~@as(i32, 3) }) };
    const whole = comptime [2][lanes]i32{ groups(.{ 0, 2, 4, 6 }), groups(.{ 1, 3, 5, 7 }) };
    var pairs: [8]F = undefined;
    inline for (&pairs, 0..) |*p, i| p.* = larger(rows[2 * i], rows[2 * i + 1], singles);
    var fours: [4]F = undefined;
    inline for (&fours, 0..) |*f, i| f.* = larger(pairs[2 * i], pairs[2 * i + 1], twos);
    return larger(larger(fours[0], fours[1], whole), larger(fours[2], fours[3], whole), whole);
}

inline fn larger(a: F, b: F, comptime masks: [2][lanes]i32) F {
    const U = @Vector(lanes, u32);
    return @bitCast(@max(@as(U, @bitCast(shuffle(a, b, masks[0]))), @as(U, @bitCast(shuffle(a, b, masks[1])))));
}
