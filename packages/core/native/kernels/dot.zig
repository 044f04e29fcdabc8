//! Vector shapes and the integer-dot primitives of each ISA level, chosen at compile time from `builtin.cpu`.
//!
//! Everything here multiplies unsigned weight codes (u8) by signed activation codes (i8, never -128) and adds groups
//! of four neighbours along K into one i32 lane: lane = column, four bytes of a lane = four steps of K. All levels give
//! the same integers, so the float arithmetic after them is the same too. aarch64 has the same shape with 4 lanes
//! (`sdot`, by-element broadcast): codes below 128 are valid as i8, 8-bit codes are flipped as on AVX2.

const std = @import("std");
const builtin = @import("builtin");
const cpu = builtin.cpu;
const is_x86 = cpu.arch == .x86_64;

pub const Level = enum { portable, avx2, avxvnni, avx512vnni };

pub const level: Level = if (is_x86 and cpu.has(.x86, .avx512vnni) and cpu.has(.x86, .avx512bw) and cpu.has(.x86, .avx512vl))
    .avx512vnni
else if (is_x86 and cpu.has(.x86, .avxvnni))
    .avxvnni
else if (is_x86 and cpu.has(.x86, .avx2) and cpu.has(.x86, .fma) and cpu.has(.x86, .f16c))
    .avx2
else
    .portable;

pub const has_fma = (is_x86 and cpu.has(.x86, .fma)) or cpu.arch == .aarch64;
const has_f16c = (is_x86 and cpu.has(.x86, .f16c)) or cpu.arch == .aarch64;

/// Columns in one vector.
pub const width = switch (level) {
    .avx512vnni => 16,
    .avx2, .avxvnni => 8,
    .portable => 4,
};
/// Vectors in a panel of 16 columns.
pub const per_panel = 16 / width;

pub const F = @Vector(width, f32);
pub const I = @Vector(width, i32);
pub const U = @Vector(width * 4, u8);
/// Two steps of K in each lane.
pub const Words = @Vector(width * 2, i16);

/// a*b + c, rounded once where the CPU has FMA, else twice. The only multiply-add of the linear kernels.
pub inline fn fma(a: F, b: F, c: F) F {
    return if (has_fma) @mulAdd(F, a, b, c) else a * b + c;
}

/// f16 bits to f32, exact for every pattern (NaN payloads kept).
pub inline fn halfToFloat(comptime n: usize, bits: @Vector(n, u16)) @Vector(n, f32) {
    if (has_f16c) return @floatCast(@as(@Vector(n, f16), @bitCast(bits)));
    // Without F16C a cast is a call per element: place exponent and mantissa, then scale by 2^112 (exact).
    const U32 = @Vector(n, u32);
    const wide: U32 = bits;
    const magnitude = (wide & @as(U32, @splat(0x7fff))) << @splat(13);
    const scaled: U32 = @bitCast(@as(@Vector(n, f32), @bitCast(magnitude)) * @as(@Vector(n, f32), @splat(0x1p112)));
    const special = (wide & @as(U32, @splat(0x7c00))) == @as(U32, @splat(0x7c00));
    const finite_or_inf = @select(u32, special, magnitude | @as(U32, @splat(0x7f800000)), scaled);
    return @bitCast(finite_or_inf | ((wide & @as(U32, @splat(0x8000))) << @splat(16)));
}

const intrinsics = struct {
    extern fn @"llvm.x86.avx512.vpdpbusd.512"(@Vector(16, i32), @Vector(16, i32), @Vector(16, i32)) @Vector(16, i32);
    extern fn @"llvm.x86.avx512.vpdpbusd.256"(@Vector(8, i32), @Vector(8, i32), @Vector(8, i32)) @Vector(8, i32);
    extern fn @"llvm.x86.avx512.vpdpwssd.512"(@Vector(16, i32), @Vector(16, i32), @Vector(16, i32)) @Vector(16, i32);
    extern fn @"llvm.x86.avx512.vpdpwssd.256"(@Vector(8, i32), @Vector(8, i32), @Vector(8, i32)) @Vector(8, i32);
    extern fn @"llvm.x86.sse2.pmadd.wd"(@Vector(8, i16), @Vector(8, i16)) @Vector(4, i32);
    extern fn @"llvm.x86.avx2.pmadd.ub.sw"(@Vector(32, i8), @Vector(32, i8)) @Vector(16, i16);
    extern fn @"llvm.x86.avx2.pmadd.wd"(@Vector(16, i16), @Vector(16, i16)) @Vector(8, i32);
    extern fn @"llvm.x86.avx2.psign.b"(@Vector(32, i8), @Vector(32, i8)) @Vector(32, i8);
};

/// 8-bit codes on levels without u8*i8 dots that hold them: flipped to signed, so their zero point needs no correction.
const flips_8bit = level == .avx2;

/// What an accumulator must start from so that the dot counts codes relative to `zero`: start = this * sum of activations.
pub fn startFactor(comptime zero: i32, comptime code_max: u32) i32 {
    return if (flips_8bit and code_max > 127) 0 else -zero;
}

inline fn maddubs(w: U, a: @Vector(32, i8)) @Vector(16, i16) {
    return intrinsics.@"llvm.x86.avx2.pmadd.ub.sw"(@bitCast(w), a);
}

inline fn addPairs(acc: I, pairs: @Vector(16, i16)) I {
    return acc +% intrinsics.@"llvm.x86.avx2.pmadd.wd"(pairs, @splat(1));
}

/// LLVM reassociates plain i16 adds into spills; this keeps them where they are.
inline fn addWords(a: @Vector(16, i16), b: @Vector(16, i16)) @Vector(16, i16) {
    return asm ("vpaddw %[b], %[a], %[o]"
        : [o] "=x" (-> @Vector(16, i16)),
        : [a] "x" (a),
          [b] "x" (b),
    );
}

/// One step of four: adds w*a to each lane. `a` holds the same four activations in every lane.
inline fn step(acc: I, w: U, a: I) I {
    switch (level) {
        .avx512vnni => return intrinsics.@"llvm.x86.avx512.vpdpbusd.512"(acc, @bitCast(w), a),
        .avxvnni => return intrinsics.@"llvm.x86.avx512.vpdpbusd.256"(acc, @bitCast(w), a),
        .avx2 => { // 8-bit codes: |w| * (a with the sign of w) stays within i16, as 128 * 127 * 2 < 2^15
            const signed: @Vector(32, i8) = @bitCast(w ^ @as(U, @splat(0x80)));
            const magnitude: U = @bitCast(@abs(signed));
            return addPairs(acc, maddubs(magnitude, intrinsics.@"llvm.x86.avx2.psign.b"(@bitCast(a), signed)));
        },
        .portable => {
            const lanes: I = @bitCast(w);
            var sum = acc;
            inline for (0..4) |i| {
                const code = (lanes >> @splat(8 * i)) & @as(I, @splat(0xff));
                sum +%= code *% ((a << @splat(24 - 8 * i)) >> @splat(24));
            }
            return sum;
        },
    }
}

/// Dots of `mr` rows of activations with `nv` vectors of columns over `steps` groups of four along K.
/// `start` [mr] are the first values; `w.at(step, v)` gives U, `a.at(row, step)` the i32 that holds four activations.
/// `code_max` is the largest weight code: it decides how long i16 sums may run on AVX2.
pub inline fn tile(
    comptime code_max: u32,
    comptime steps: usize,
    comptime mr: usize,
    comptime nv: usize,
    start: [mr]i32,
    w: anytype,
    a: anytype,
) [mr][nv]I {
    @setEvalBranchQuota(20000);
    var acc: [mr][nv]I = undefined;
    inline for (0..mr) |m| {
        inline for (0..nv) |v| acc[m][v] = @splat(start[m]);
    }
    const run = 32767 / (code_max * 2 * 127);
    if (level == .avx2 and run >= 1) {
        // Sums of at most `run` products fit in i16; short runs keep their codes in registers instead of i16 sums.
        const chunk: usize = if (run >= steps) steps else 2;
        comptime var s: usize = 0;
        inline while (s < steps) : (s += chunk) {
            var words: [mr][nv]@Vector(16, i16) = undefined;
            inline for (s..s + chunk) |at| {
                var codes: [nv]U = undefined;
                inline for (0..nv) |v| codes[v] = w.at(at, v);
                inline for (0..mr) |m| {
                    const four: I = @splat(a.at(m, at));
                    inline for (0..nv) |v| {
                        const product = maddubs(codes[v], @bitCast(four));
                        words[m][v] = if (at == s) product else addWords(words[m][v], product);
                    }
                }
            }
            inline for (0..mr) |m| {
                inline for (0..nv) |v| acc[m][v] = addPairs(acc[m][v], words[m][v]);
            }
        }
        return acc;
    }
    inline for (0..steps) |s| {
        var codes: [nv]U = undefined;
        inline for (0..nv) |v| codes[v] = w.at(s, v);
        inline for (0..mr) |m| {
            const four: I = @splat(a.at(m, s));
            inline for (0..nv) |v| acc[m][v] = step(acc[m][v], codes[v], four);
        }
    }
    return acc;
}

/// Two steps of i16: adds w*a to each lane, exact while the sums fit. `a` holds the same two factors in every lane.
pub inline fn dotWords(acc: I, w: Words, a: Words) I {
    if (is_x86) return switch (level) {
        .avx512vnni => intrinsics.@"llvm.x86.avx512.vpdpwssd.512"(acc, @bitCast(w), @bitCast(a)),
        .avxvnni => intrinsics.@"llvm.x86.avx512.vpdpwssd.256"(acc, @bitCast(w), @bitCast(a)),
        .avx2 => acc +% intrinsics.@"llvm.x86.avx2.pmadd.wd"(w, a),
        .portable => acc +% intrinsics.@"llvm.x86.sse2.pmadd.wd"(w, a),
    };
    const weights: I = @bitCast(w);
    const factors: I = @bitCast(a);
    const low = ((weights << @splat(16)) >> @splat(16)) *% ((factors << @splat(16)) >> @splat(16));
    return acc +% low +% (weights >> @splat(16)) *% (factors >> @splat(16));
}

test "dotWords equals the scalar sum" {
    var random = std.Random.DefaultPrng.init(2);
    for (0..100) |round| {
        var w: [width * 2]i16 = undefined;
        var a: [2]i16 = undefined;
        for (&w) |*x| x.* = if (round == 0) -32767 else random.random().int(i16);
        for (&a) |*x| x.* = if (round == 0) 32767 else random.random().intRangeAtMost(i16, -32767, 32767);
        const got: [width]i32 = dotWords(@splat(5), w, @bitCast(@as(I, @splat(@bitCast(a)))));
        for (got, 0..) |lane, c| try std.testing.expectEqual(5 + @as(i32, w[c * 2]) * a[0] + @as(i32, w[c * 2 + 1]) * a[1], lane);
    }
}

test "tile equals the scalar sum at the extremes and for random codes" {
    @setEvalBranchQuota(100000);
    var random = std.Random.DefaultPrng.init(1);
    inline for (.{ 15, 31, 63, 255 }) |code_max| {
        inline for (.{ 4, 8 }) |steps| {
            for (0..50) |round| {
                var w: [steps][2][width * 4]u8 = undefined;
                var a: [3][steps][4]i8 = undefined;
                for (&w) |*x| for (x) |*y| for (y) |*z| {
                    z.* = if (round < 2) code_max else random.random().uintAtMost(u8, code_max);
                };
                for (&a) |*x| for (x) |*y| for (y) |*z| {
                    z.* = if (round == 0) 127 else if (round == 1) -127 else random.random().intRangeAtMost(i8, -127, 127);
                };
                const W = struct {
                    p: *const [steps][2][width * 4]u8,
                    inline fn at(self: @This(), s: usize, v: usize) U {
                        return self.p[s][v];
                    }
                };
                const A = struct {
                    p: *const [3][steps][4]i8,
                    inline fn at(self: @This(), m: usize, s: usize) i32 {
                        return @bitCast(self.p[m][s]);
                    }
                };
                var sums: [3]i32 = @splat(0);
                for (0..3) |m| for (a[m]) |y| for (y) |z| {
                    sums[m] += z;
                };
                const zero = 8;
                var start = sums;
                for (&start) |*s| s.* *= startFactor(if (code_max == 255) 128 else zero, code_max);
                const got = tile(code_max, steps, 3, 2, start, W{ .p = &w }, A{ .p = &a });
                for (0..3) |m| for (0..2) |v| {
                    const lanes: [width]i32 = got[m][v];
                    for (lanes, 0..) |lane, c| {
                        var want: i32 = 0;
                        for (0..steps) |s| for (0..4) |i| {
                            want += (@as(i32, w[s][v][c * 4 + i]) - if (code_max == 255) 128 else zero) * a[m][s][i];
                        };
                        try std.testing.expectEqual(want, lane);
                    }
                };
            }
        }
    }
}

test "halfToFloat equals the cast for every pattern" {
    for (0..65536) |i| {
        const bits: u16 = @intCast(i);
        const got: [4]u32 = @bitCast(halfToFloat(4, @splat(bits)));
        const want: f32 = @as(f16, @bitCast(bits));
        if (std.math.isNan(want)) {
            const f: f32 = @bitCast(got[0]);
            try std.testing.expect(std.math.isNan(f));
        } else try std.testing.expectEqual(@as(u32, @bitCast(want)), got[0]);
    }
}
