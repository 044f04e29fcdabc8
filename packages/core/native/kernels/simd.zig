//! Vectors of the machine: lane count, FMA, elementary functions of f32 accuracy and reductions in a fixed order.
//!
//! Everything is decided at compile time from `builtin.cpu`, so the same source gives SSE2, AVX2+FMA, AVX-512 and NEON
//! code. The functions return NaN for NaN and keep denormal results; errors are measured by the tests at the end
//! of `simd_test.zig`.

const std = @import("std");
const builtin = @import("builtin");

fn x86Has(comptime feature: std.Target.x86.Feature) bool {
    return builtin.cpu.arch == .x86_64 and std.Target.x86.featureSetHas(builtin.cpu.features, feature);
}

/// f32 lanes of one vector register.
pub const lanes: comptime_int = if (x86Has(.avx512f)) 16 else if (x86Has(.avx)) 8 else 4;
/// Whether `@mulAdd` is one instruction here; where it is not it would be a library call.
pub const has_fma = builtin.cpu.arch == .aarch64 or x86Has(.fma);
/// Whether f16 converts to f32 in hardware.
pub const has_f16 = builtin.cpu.arch == .aarch64 or x86Has(.f16c) or x86Has(.avx512f);
/// Vector registers, which bounds register tiles.
pub const registers: comptime_int = if (x86Has(.avx512f) or builtin.cpu.arch == .aarch64) 32 else 16;

pub const F = @Vector(lanes, f32);
pub const I = @Vector(lanes, i32);
pub const zero: F = @splat(0);
pub const inf = std.math.inf(f32);

/// a * b + c, fused where the CPU can.
pub inline fn fma(a: anytype, b: @TypeOf(a), c: @TypeOf(a)) @TypeOf(a) {
    return if (has_fma) @mulAdd(@TypeOf(a), a, b, c) else a * b + c;
}

pub inline fn splat(value: f32) F {
    return @splat(value);
}

/// Rounds `n` up to whole vectors.
pub fn roundUp(n: usize) usize {
    return (n + lanes - 1) / lanes * lanes;
}

pub inline fn load(p: [*]const f32) F {
    return @as(*align(4) const F, @ptrCast(p)).*;
}

pub inline fn store(p: [*]f32, v: F) void {
    @as(*align(4) F, @ptrCast(p)).* = v;
}

/// Sets `n` elements in whole vectors. Not @memset, which is a loop over bytes in a library that brings its own.
pub fn setAll(p: [*]f32, n: usize, value: f32) void {
    var i: usize = 0;
    while (i < n) : (i += lanes) {
        store(p + i, splat(value));
        asm volatile ("" ::: .{ .memory = true }); // else the compiler makes a call of memset of this loop
    }
}

/// The first `n` < lanes elements; the others are `fill`.
pub inline fn loadPart(p: [*]const f32, n: usize, fill: f32) F {
    return loadPartAs(f32, p, n, fill);
}

/// The first `n` < lanes elements of f32 or f16 as f32; the others are `fill`.
pub inline fn loadPartAs(comptime T: type, p: [*]const T, n: usize, fill: f32) F {
    var buffer: [lanes]f32 = @splat(fill);
    for (0..n) |i| buffer[i] = p[i];
    return buffer;
}

pub inline fn storePart(p: [*]f32, n: usize, v: F) void {
    const buffer: [lanes]f32 = v;
    for (0..n) |i| p[i] = buffer[i];
}

/// Bits of f16 to f32, exact. Without hardware a cast is a call per element: shift the fields into place and rescale by
/// 2^112, which also makes denormals right.
pub inline fn halfToFloat(comptime n: usize, bits: @Vector(n, u16)) @Vector(n, f32) {
    if (has_f16) return @floatCast(@as(@Vector(n, f16), @bitCast(bits)));
    const U = @Vector(n, u32);
    const wide: U = bits;
    const magnitude = (wide & @as(U, @splat(0x7fff))) << @splat(13);
    const scaled: U = @bitCast(@as(@Vector(n, f32), @bitCast(magnitude)) * @as(@Vector(n, f32), @splat(0x1p112)));
    const special = (wide & @as(U, @splat(0x7c00))) == @as(U, @splat(0x7c00));
    const placed = @select(u32, special, magnitude | @as(U, @splat(0x7f800000)), scaled);
    return @bitCast(placed | ((wide & @as(U, @splat(0x8000))) << @splat(16)));
}

/// One vector of f16 as f32.
pub inline fn loadHalf(p: [*]const f16) F {
    return halfToFloat(lanes, @as(*align(2) const @Vector(lanes, u16), @ptrCast(p)).*);
}

/// One vector of f32 or f16 as f32.
pub inline fn loadAs(comptime T: type, p: [*]const T) F {
    return if (T == f16) loadHalf(p) else load(p);
}

/// f32 to f16, round to nearest even.
pub inline fn storeHalf(p: [*]f16, v: F) void {
    @as(*align(2) @Vector(lanes, f16), @ptrCast(p)).* = @floatCast(v);
}

/// max where a NaN of `v` is skipped: one instruction, unlike `@max`.
pub inline fn maxSkipNan(best: anytype, v: @TypeOf(best)) @TypeOf(best) {
    return @select(f32, v > best, v, best);
}

inline fn halves(v: anytype) [2]@Vector(@typeInfo(@TypeOf(v)).vector.len / 2, f32) {
    const n = @typeInfo(@TypeOf(v)).vector.len;
    const low = comptime blk: {
        var m: [n / 2]i32 = undefined;
        for (0..n / 2) |i| m[i] = i;
        break :blk m;
    };
    const high = comptime blk: {
        var m: [n / 2]i32 = undefined;
        for (0..n / 2) |i| m[i] = n / 2 + i;
        break :blk m;
    };
    return .{ @shuffle(f32, v, undefined, low), @shuffle(f32, v, undefined, high) };
}

/// Sum of the lanes as a balanced tree (`@reduce` would add them one after the other).
pub fn sumLanes(v: anytype) f32 {
    if (@typeInfo(@TypeOf(v)).vector.len == 1) return v[0];
    const h = halves(v);
    return sumLanes(h[0] + h[1]);
}

/// Largest lane; a lane that is NaN counts only when it comes first, so start from numbers.
pub fn maxLanes(v: anytype) f32 {
    if (@typeInfo(@TypeOf(v)).vector.len == 1) return v[0];
    const h = halves(v);
    return maxLanes(maxSkipNan(h[0], h[1]));
}

inline fn polynomial(x: F, comptime coefficients: []const f32) F {
    var y = splat(coefficients[0]);
    inline for (coefficients[1..]) |c| y = fma(y, x, splat(c));
    return y;
}

inline fn pow2(n: I) F {
    return @bitCast((n +% @as(I, @splat(127))) << @splat(23));
}

/// Instructions for single floats of AVX-512 that the compiler does not find.
pub const avx512 = struct {
    pub const available = x86Has(.avx512f);
    extern fn @"llvm.x86.avx512.mask.reduce.ps.512"(F, i32, F, i16, i32) F;
    extern fn @"llvm.x86.avx512.mask.scalef.ps.512"(F, F, F, i16, i32) F;
    extern fn @"llvm.x86.avx512.rcp14.ps.512"(F, F, i16) F;

    /// x - floor(x).
    pub inline fn fraction(x: F) F {
        return @"llvm.x86.avx512.mask.reduce.ps.512"(x, 1, x, -1, 4);
    }

    /// x * 2^floor(y), rounded once.
    pub inline fn scale(x: F, y: F) F {
        return @"llvm.x86.avx512.mask.scalef.ps.512"(x, y, x, -1, 4);
    }

    /// 1 / x to 2^-14.
    inline fn reciprocal(x: F) F {
        return @"llvm.x86.avx512.rcp14.ps.512"(x, zero, -1);
    }
};

/// 1 / x for x between 1 and 2, to 1 ulp; faster than a division where the CPU has an estimate good enough.
inline fn reciprocal(x: F) F {
    if (!avx512.available) return splat(1) / x;
    const y = avx512.reciprocal(x);
    return fma(fma(-x, y, splat(1)), y, y);
}

/// exp(x): x = n ln2 + r, a polynomial of r (Cephes expf, Moshier), times 2^n so that denormal results are kept.
pub inline fn exp(x: F) F {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, also for NaN without undefined behaviour.
    const magic = splat(12582912.0);
    var c = @select(f32, x > splat(89.0), splat(89.0), x);
    c = @select(f32, c < splat(-104.0), splat(-104.0), c);
    const t = fma(c, splat(1.44269504088896341), magic);
    const n = t - magic;
    var r = fma(n, splat(-0.693359375), c);
    r = fma(n, splat(2.12194440e-4), r);
    const p = polynomial(r, &.{ 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1 });
    const y = fma(r * r, p, r) + splat(1);
    if (avx512.available) return avx512.scale(y, n);
    const i = @as(I, @bitCast(t)) -% @as(I, @bitCast(magic));
    const first = i >> @splat(1);
    return y * pow2(first) * pow2(i -% first);
}

/// exp(x) for x ≤ 0, in half of exp's instructions: 2^n times a minimax polynomial of degree 5, which is 1 at 0. The
/// relative error is below 2e-7 + 2e-8 |x|; 0 below -87.
pub inline fn expFalling(x: F) F {
    const log2e = splat(1.44269504088896341);
    const magic = splat(12582912.0 + 127); // rounds as in exp, and leaves the exponent of 2^n in the low bits
    const t = fma(x, log2e, magic);
    // Where the product is rounded, ln 2 in two parts keeps r as exact as FMA does.
    const n = t - magic;
    const r = if (has_fma) fma(x, log2e, -n) else (x - n * splat(0.693359375) + n * splat(2.12194440e-4)) * log2e;
    const p = polynomial(r, &.{ 1.3264727e-3, 9.6715128e-3, 5.5507337e-2, 2.4022242e-1, 6.9314698e-1, 1 });
    const power: F = @bitCast(@as(I, @bitCast(t)) << @splat(23));
    return @select(f32, x < splat(-87), zero, p * power);
}

/// 1 / (1 + exp(-x)), without overflow and with full relative accuracy for negative x.
pub inline fn sigmoid(x: F) F {
    const e = exp(-@abs(x));
    const s = reciprocal(splat(1) + e);
    return @select(f32, x < zero, e * s, s);
}

inline fn copySign(magnitude: F, sign: F) F {
    const mask: I = @splat(std.math.minInt(i32));
    return @bitCast((@as(I, @bitCast(magnitude)) & ~mask) | (@as(I, @bitCast(sign)) & mask));
}

/// tanh(x): Cephes tanhf's polynomial below 0.625, 1 - 2 / (exp(2|x|) + 1) above.
pub inline fn tanh(x: F) F {
    const a = @abs(x);
    const z = x * x;
    const p = polynomial(z, &.{ -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1 });
    const small = fma(x * z, p, x);
    const large = splat(1) - splat(2) / (exp(a + a) + splat(1));
    return @select(f32, a < splat(0.625), small, copySign(large, x));
}

const ErfParts = struct { small: F, tail: F, is_small: @Vector(lanes, bool) };

/// erf(x) near 0 and erfc(|x|) = exp(q(|x|)) elsewhere (minimax fits of N. Juffa's erff); 0 where erfc is below 2^-25.
inline fn erfParts(x: F) ErfParts {
    const t = @abs(x);
    const s = x * x;
    var q = polynomial(t, &.{
        -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1,
    });
    q = fma(q, t, -t);
    const far = t > splat(4.0);
    const tail = @select(f32, far, zero, exp(q));
    const p = polynomial(s, &.{ -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1 });
    return .{ .small = fma(p, x, x), .tail = tail, .is_small = t <= splat(0.921875) };
}

/// erf(x).
pub inline fn erf(x: F) F {
    const parts = erfParts(x);
    return @select(f32, parts.is_small, parts.small, copySign(splat(1) - parts.tail, x));
}

/// 0.5 * (1 + erf(x / sqrt 2)), the normal distribution's integral, without cancellation for negative x.
pub inline fn normalCdf(x: F) F {
    const parts = erfParts(x * splat(0.70710678118654752));
    const half_tail = splat(0.5) * parts.tail;
    const outer = @select(f32, x < zero, half_tail, splat(1) - half_tail);
    const value = @select(f32, parts.is_small, fma(splat(0.5), parts.small, splat(0.5)), outer);
    return @select(f32, x != x, x, value);
}

/// log(1 + exp(x)) = max(x, 0) + 2 atanh(e / (2 + e)) with e = exp(-|x|): the series needs no range reduction.
pub inline fn softplus(x: F) F {
    const e = exp(-@abs(x));
    const s = e / (splat(2) + e);
    const p = polynomial(s * s, &.{ 1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0 });
    return fma(s + s, p, @select(f32, x > zero, x, zero));
}

/// f64 lanes of one vector register.
pub const lanes64 = @max(2, lanes / 2);
pub const D = @Vector(lanes64, f64);

inline fn polynomial64(x: D, comptime coefficients: []const f64) D {
    var y: D = @splat(coefficients[0]);
    inline for (coefficients[1..]) |c| y = fma(y, x, @as(D, @splat(c)));
    return y;
}

pub const SinCos = struct { sin: D, cos: D };

/// sin and cos of |x| < 1e9: reduction by pi/2 in two parts and the kernels of fdlibm (Sun Microsystems 1993).
pub inline fn sinCos(x: D) SinCos {
    const magic: D = @splat(6755399441055744.0);
    const t = fma(x, @as(D, @splat(6.36619772367581382433e-01)), magic);
    const q = t - magic;
    // The first part of pi/2 has 33 bits: its product with q is exact up to q = 2^20, also without FMA.
    const head = x - q * @as(D, @splat(1.57079632673412561417e+00));
    const r = head - q * @as(D, @splat(6.07710050650619224932e-11));
    const z = r * r;
    const ps = polynomial64(z, &.{
        1.58969099521155010221e-10,  -2.50507602534068634195e-08, 2.75573137070700676789e-06,
        -1.98412698298579493134e-04, 8.33333333332248946124e-03,  -1.66666666666666324348e-01,
    });
    const pc = polynomial64(z, &.{
        -1.13596475577881948265e-11, 2.08757232129817482790e-09,  -2.75573143513906633035e-07,
        2.48015872894767294178e-05,  -1.38888888888741095749e-03, 4.16666666666666019037e-02,
    });
    const one: D = @splat(1);
    const sine = fma(r * z, ps, r);
    const cosine = fma(z * z, pc, one - z * @as(D, @splat(0.5)));
    const L = @Vector(lanes64, u64);
    const quadrant: L = @as(L, @bitCast(t)) & @as(L, @splat(3));
    const odd: @Vector(lanes64, bool) = (quadrant & @as(L, @splat(1))) != @as(L, @splat(0));
    const sin_sign = (quadrant & @as(L, @splat(2))) << @splat(62);
    const cos_sign = ((quadrant +% @as(L, @splat(1))) & @as(L, @splat(2))) << @splat(62);
    const s = @select(f64, odd, cosine, sine);
    const c = @select(f64, odd, sine, cosine);
    return .{
        .sin = @bitCast(@as(L, @bitCast(s)) ^ sin_sign),
        .cos = @bitCast(@as(L, @bitCast(c)) ^ cos_sign),
    };
}
