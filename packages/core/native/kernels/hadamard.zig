//! The rotation of rows before they are quantised: a Walsh-Hadamard transform, which is orthonormal and its own inverse.
//!
//! It spreads the few large elements that keys have over the whole row, so that they no longer decide the scale of their
//! neighbours (QuaRot, Ashkboos et al. 2024). Dot products stay: (Hq)·(Hk) = q·k, and sums of Hv rotate back.
//!
//! It mixes the spans of a row, the largest powers of two that divide it: rows of 64, 128 and 256 as a whole, of 96 in
//! spans of 32, of 80 in spans of 16. Rows with spans below 16 (of 24, 40 or 19; only attention in int8 over float caches
//! has them) stay as they are: correct, but their outliers are not spread.

const std = @import("std");
const simd = @import("simd.zig");

/// Elements of a vector, and of the smallest span that is rotated.
const width = 16;
const V = @Vector(width, f32);

/// Elements that are mixed with one another: the largest power of two that divides the row.
pub fn span(n: usize) usize {
    return n & (~n + 1);
}

/// Rotates a row of n elements in place; spans below 16 stay. Additions alone and one product: the same bits everywhere.
pub fn rotate(row: [*]f32, n: usize) void {
    const size = span(n);
    if (size < width) return;
    const factor = 1 / @sqrt(@as(f32, @floatFromInt(size)));
    var start: usize = 0;
    while (start < n) : (start += size) rotateSpan(row + start, size, factor);
}

fn rotateSpan(x: [*]f32, size: usize, factor: f32) void {
    switch (size / width) {
        inline 1, 2, 4, 8, 16 => |count| rotateVectors(count, @ptrCast(x), factor),
        else => {
            const half = size / 2;
            rotateSpan(x, half, 1);
            rotateSpan(x + half, half, 1);
            for (x[0..half], x[half..size]) |*low, *high| {
                const a = low.*;
                const b = high.*;
                low.* = (a + b) * factor;
                high.* = (a - b) * factor;
            }
        },
    }
}

/// In registers, as far as there are so many.
fn rotateVectors(comptime count: usize, x: [*]align(4) V, factor: f32) void {
    @setEvalBranchQuota(10_000);
    var v: [count]V = x[0..count].*;
    inline for (&v) |*one| one.* = within(one.*);
    butterflies(&v);
    inline for (v, 0..) |one, i| x[i] = one * @as(V, @splat(factor));
}

/// All steps between whole vectors.
inline fn butterflies(v: anytype) void {
    comptime var step = 1;
    inline while (step < v.len) : (step *= 2) {
        inline for (0..v.len) |i| if (i & step == 0) {
            const a = v[i];
            const b = v[i + step];
            v[i] = a + b;
            v[i + step] = a - b;
        };
    }
}

/// The steps between elements of one vector.
inline fn within(v: V) V {
    var x = v;
    inline for (.{ 1, 2, 4, 8 }) |step| {
        const other = comptime blk: {
            var mask: [width]i32 = undefined;
            for (&mask, 0..) |*m, i| m.* = @as(i32, @intCast(i)) ^ step;
            break :blk mask;
        };
        const sign: V = comptime blk: {
            var signs: [width]f32 = undefined;
            for (&signs, 0..) |*s, i| s.* = if (i & step == 0) 1 else -1;
            break :blk signs;
        };
        x = simd.fma(x, sign, @shuffle(f32, x, undefined, other)); // rounds once either way
    }
    return x;
}

/// Rotates `simd.lanes` rows of n elements that lie in columns, x[element * lanes + row]: the bits of `rotate`.
pub fn rotateColumns(x: [*]f32, n: usize) void {
    const size = span(n);
    if (size < width) return;
    const factor = 1 / @sqrt(@as(f32, @floatFromInt(size)));
    const columns: [*]align(4) simd.F = @ptrCast(x);
    var start: usize = 0;
    while (start < n) : (start += size) {
        const own = columns + start;
        for (0..size / width) |i| mix(width, own + i * width, 1, if (size == width) factor else 1);
        var done: usize = width;
        while (done < size) {
            const count = @min(width, size / done);
            const last: f32 = if (done * count == size) factor else 1;
            for (0..size / (done * count)) |i| for (0..done) |j| switch (count) {
                inline 2, 4, 8, 16 => |c| mix(c, own + i * done * count + j, done, last),
                else => unreachable,
            };
            done *= count;
        }
    }
}

/// All steps between `count` columns that lie `apart`.
inline fn mix(comptime count: usize, x: [*]align(4) simd.F, apart: usize, factor: f32) void {
    @setEvalBranchQuota(10_000);
    var v: [count]simd.F = undefined;
    inline for (&v, 0..) |*one, i| one.* = x[i * apart];
    butterflies(&v);
    inline for (v, 0..) |one, i| x[i * apart] = one * simd.splat(factor);
}

/// Scalar oracle: element i of the result is the sum of x[j] * (-1)^(number of bits that i and j share).
fn oracle(x: []const f32, out: []f64) void {
    const size = span(x.len);
    for (out, 0..) |*y, i| {
        y.* = 0;
        const start = i / size * size;
        for (x[start..][0..size], 0..) |v, j| y.* += if (@popCount(i % size & j) % 2 == 0) v else -@as(f64, v);
        y.* /= @sqrt(@as(f64, @floatFromInt(size)));
    }
}

test "rotate equals the oracle and is its own inverse" {
    var random: std.Random.DefaultPrng = .init(3);
    for ([_]usize{ 16, 32, 64, 80, 96, 128, 160, 256, 512 }) |n| {
        var x: [512]f32 = undefined;
        for (&x) |*v| v.* = random.random().floatNorm(f32);
        var y = x;
        var want: [512]f64 = undefined;
        rotate(&y, n);
        oracle(x[0..n], want[0..n]);
        for (y[0..n], want[0..n]) |a, b| try std.testing.expectApproxEqAbs(b, a, 2e-6);
        rotate(&y, n);
        for (y[0..n], x[0..n]) |a, b| try std.testing.expectApproxEqAbs(b, a, 2e-6);
    }
}

test "rows in columns rotate to the same bits" {
    for ([_]usize{ 16, 19, 32, 64, 80, 96, 128, 256, 512, 1024 }) |n| {
        var rows: [simd.lanes][1024]f32 = undefined;
        var columns: [1024 * simd.lanes]f32 = undefined;
        var random: std.Random.DefaultPrng = .init(n);
        for (&rows, 0..) |*row, r| {
            for (row[0..n], 0..) |*x, i| {
                x.* = random.random().floatNorm(f32);
                columns[i * simd.lanes + r] = x.*;
            }
            rotate(row, n);
        }
        rotateColumns(&columns, n);
        for (rows, 0..) |row, r| for (row[0..n], 0..) |x, i| try std.testing.expectEqual(x, columns[i * simd.lanes + r]);
    }
}

test "rows with spans below 16 stay" {
    for ([_]usize{ 19, 24, 40 }) |n| {
        var x: [40]f32 = undefined;
        for (&x, 0..) |*v, i| v.* = @floatFromInt(i);
        const before = x;
        rotate(&x, n);
        try std.testing.expectEqualSlices(f32, &before, &x);
    }
}
