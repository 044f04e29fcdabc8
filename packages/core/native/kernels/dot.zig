//! Vector shapes and the integer-dot primitives of each ISA level, chosen at compile time from `builtin.cpu`.
//!
//! Everything here multiplies unsigned weight codes (u8) by signed activation codes (i8, never -128) and adds groups
//! of four neighbours along K into one i32 lane: lane = column, four bytes of a lane = four steps of K. All levels and
//! schemes give the same integers, so the float arithmetic after them is the same too. aarch64 has the same shape with 4
//! lanes (`sdot`, by-element broadcast): codes below 128 are valid as i8, 8-bit codes are flipped as on AVX2.

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

/// Vector registers: with 16, a tile's float sums wait in memory while the integer sums of a block are taken.
pub const registers = if (level == .avx512vnni or cpu.arch == .aarch64) 32 else 16;

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

/// How a tile gets its integer sums.
pub const Scheme = enum {
    /// Lanes of four u8 codes times four i8, starts of i32. 8-bit codes are flipped to signed on AVX2: no start then.
    fours,
    /// AVX2: the same products, but summed in i16 for a whole group. A start is two i16 that take the zero point off; on
    /// the way sums may wrap around, at the end they fit.
    words,
    /// AVX2: lanes of two i16 codes, zero point taken off, times two i16: the fastest for 8-bit codes, as their sums of u8
    /// times i8 overflow i16. A step of four makes two: elements 0 and 2, then 1 and 3.
    pairs,

    /// The scheme for rows enough to bring everything into its form first.
    pub fn ofMany(comptime code_max: u32) Scheme {
        if (level != .avx2) return .fours;
        return if (code_max > 127) .pairs else .words;
    }

    /// Steps along K that `n` elements make.
    pub fn steps(comptime scheme: Scheme, comptime n: usize) usize {
        return if (scheme == .pairs) n / 2 else n / 4;
    }

    /// Sums start from this times the sum of activation codes, so that they count codes relative to `zero`.
    pub fn startFactor(comptime scheme: Scheme, comptime zero: i16, comptime code_max: u32) i16 {
        return if (scheme == .pairs or (level == .avx2 and code_max > 127)) 0 else -zero;
    }

    /// The start for the activation codes of a group.
    pub inline fn start(comptime scheme: Scheme, comptime factor: i16, codes: anytype) i32 {
        const n = @typeInfo(@TypeOf(codes)).vector.len;
        const fours: [n / 4]@Vector(4, i16) = @bitCast(@as(@Vector(n, i16), codes));
        var sum = fours[0];
        for (fours[1..]) |four| sum += four;
        if (scheme == .words) return @bitCast(@Vector(2, i16){ factor * (sum[0] + sum[1]), factor * (sum[2] + sum[3]) });
        return @as(i32, factor) * @reduce(.Add, sum);
    }

    /// 32 activation codes, step by step.
    pub inline fn activations(comptime scheme: Scheme, codes: @Vector(32, i8)) [scheme.steps(32)]i32 {
        if (scheme != .pairs) return @bitCast(codes);
        const both: @Vector(16, i16) = @bitCast(codes);
        const even: @Vector(8, i32) = @bitCast((both << @splat(8)) >> @splat(8));
        const odd: @Vector(8, i32) = @bitCast(both >> @splat(8));
        return std.simd.interlace(.{ even, odd });
    }

    /// The weight codes of a step of four, step by step.
    pub inline fn weights(comptime scheme: Scheme, comptime zero: i16, codes: U) [scheme.steps(4)]U {
        if (scheme != .pairs) return .{codes};
        const V = @Vector(width * 2, i16);
        const both: @Vector(width * 2, u16) = @bitCast(codes);
        const even: V = @bitCast(both & @as(@TypeOf(both), @splat(0xff)));
        const odd: V = @bitCast(both >> @splat(8));
        return .{ @bitCast(even - @as(V, @splat(zero))), @bitCast(odd - @as(V, @splat(zero))) };
    }
};

inline fn maddubs(w: U, a: I) Words {
    return intrinsics.@"llvm.x86.avx2.pmadd.ub.sw"(@bitCast(w), @bitCast(a));
}

inline fn maddwd(a: Words, b: Words) I {
    return intrinsics.@"llvm.x86.avx2.pmadd.wd"(a, b);
}

/// LLVM reassociates plain adds of Words or I into spills; this keeps them where they are.
inline fn addInPlace(a: anytype, b: @TypeOf(a)) @TypeOf(a) {
    return asm ((if (@TypeOf(a) == Words) "vpaddw" else "vpaddd") ++ " %[b], %[a], %[o]"
        : [o] "=x" (-> @TypeOf(a)),
        : [a] "x" (a),
          [b] "x" (b),
    );
}

/// One step: adds w*a to each lane. `a` holds the same activations in every lane.
pub inline fn addProducts(comptime scheme: Scheme, acc: I, w: U, a: I) I {
    if (scheme == .pairs) return dotWords(acc, @bitCast(w), @bitCast(a));
    switch (level) {
        .avx512vnni => return intrinsics.@"llvm.x86.avx512.vpdpbusd.512"(acc, @bitCast(w), a),
        .avxvnni => return intrinsics.@"llvm.x86.avx512.vpdpbusd.256"(acc, @bitCast(w), a),
        .avx2 => { // 8-bit codes: |w| * (a with the sign of w) stays within i16, as 128 * 127 * 2 < 2^15
            const signed: @Vector(32, i8) = @bitCast(w ^ @as(U, @splat(0x80)));
            const turned = intrinsics.@"llvm.x86.avx2.psign.b"(@bitCast(a), signed);
            return acc +% maddwd(maddubs(@bitCast(@abs(signed)), @bitCast(turned)), @splat(1));
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

/// Largest u8 factor of `addBytes`.
pub const byte_max = if (level == .avx2) 127 else 255;

/// Adds u*s of four bytes to each lane, nothing flipped, for u up to `byte_max`: AVX2 sums pairs in i16.
pub inline fn addBytes(acc: I, u: U, s: I) I {
    if (level == .avx2) return addInPlace(acc, maddwd(maddubs(u, s), @splat(1)));
    return addProducts(.fours, acc, u, s);
}

/// Dots of `mr` rows of activations with `nv` vectors of columns over `steps` steps along K.
/// `start` [mr] are the first values, or {}; `w.at(step, v)` gives U, `a.at(row, step)` the i32 that holds the
/// activations of a step. `code_max` is the largest weight code.
pub inline fn tile(
    comptime scheme: Scheme,
    comptime code_max: u32,
    comptime steps: usize,
    comptime mr: usize,
    comptime nv: usize,
    start: anytype,
    w: anytype,
    a: anytype,
) [mr][nv]I {
    @setEvalBranchQuota(20000);
    // Sums of so many products surely fit in i16; short runs keep their codes in registers instead of i16 sums.
    const run = 32767 / (code_max * 2 * 127);
    const chunk = if (scheme == .words or run >= steps) steps else @min(run, 2);
    if (level == .avx2 and scheme != .pairs and chunk > 0) return tileOfWords(scheme, chunk, steps, mr, nv, start, w, a);
    var acc: [mr][nv]I = undefined;
    inline for (0..mr) |m| {
        inline for (0..nv) |v| acc[m][v] = @splat(if (@TypeOf(start) == void) 0 else start[m]);
    }
    inline for (0..steps) |s| {
        var codes: [nv]U = undefined;
        inline for (0..nv) |v| codes[v] = w.at(s, v);
        inline for (0..mr) |m| {
            const four: I = @splat(a.at(m, s));
            inline for (0..nv) |v| acc[m][v] = addProducts(scheme, acc[m][v], codes[v], four);
        }
    }
    return acc;
}

/// Whether `tileOfNibbles` is there.
pub const has_wide_codes = level == .avx512vnni or level == .avxvnni;

/// The dots of one row with codes in nibbles: pair s has step s in its low and step s + 4 in its high ones. These are
/// multiplied where they lie, and their sum is divided by 16 in the end: without a shift per pair, and in two chains.
pub inline fn tileOfNibbles(start: anytype, pairs: [4]U, a: anytype) I {
    var low: I = @splat(if (@TypeOf(start) == void) 0 else start[0]);
    var high: I = @splat(0);
    inline for (pairs, 0..) |pair, s| {
        low = addProducts(.fours, low, pair & @as(U, @splat(0x0f)), @splat(a.at(0, s)));
        high = addProducts(.fours, high, pair & @as(U, @splat(0xf0)), @splat(a.at(0, s + 4)));
    }
    return low +% (high >> @splat(4));
}

test "tileOfNibbles equals the scalar sum" {
    if (!has_wide_codes) return;
    const A = struct {
        codes: [32]i8,
        pub inline fn at(self: *const @This(), comptime _: usize, comptime s: usize) i32 {
            return @bitCast(self.codes[s * 4 ..][0..4].*);
        }
    };
    var random = std.Random.DefaultPrng.init(3);
    for (0..100) |round| {
        var pairs: [4][width * 4]u8 = undefined;
        var a: A = undefined;
        for (&pairs) |*pair| for (pair) |*x| {
            x.* = if (round < 2) 0xff else random.random().int(u8);
        };
        for (&a.codes) |*x| x.* = if (round == 0) 127 else if (round == 1) -127 else random.random().intRangeAtMost(i8, -127, 127);
        const got: [width]i32 = tileOfNibbles([1]i32{-7}, @bitCast(pairs), &a);
        for (got, 0..) |lane, c| {
            var want: i32 = -7;
            for (0..32) |k| want += @as(i32, pairs[k / 4 % 4][c * 4 + k % 4] >> @intCast(k / 16 * 4) & 15) * a.codes[k];
            try std.testing.expectEqual(want, lane);
        }
    }
}

/// Two steps of i16: adds w*a to each lane, exact while the sums fit. `a` holds the same two factors in every lane.
pub inline fn dotWords(acc: I, w: Words, a: Words) I {
    if (is_x86) return switch (level) {
        .avx512vnni => intrinsics.@"llvm.x86.avx512.vpdpwssd.512"(acc, @bitCast(w), @bitCast(a)),
        .avxvnni => intrinsics.@"llvm.x86.avx512.vpdpwssd.256"(acc, @bitCast(w), @bitCast(a)),
        .avx2 => addInPlace(acc, maddwd(w, a)),
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

/// AVX2: sums i16 for `chunk` steps, then in i32.
inline fn tileOfWords(
    comptime scheme: Scheme,
    comptime chunk: usize,
    comptime steps: usize,
    comptime mr: usize,
    comptime nv: usize,
    start: anytype,
    w: anytype,
    a: anytype,
) [mr][nv]I {
    const has_start = @TypeOf(start) != void;
    var acc: [mr][nv]I = undefined;
    comptime var s: usize = 0;
    inline while (s < steps) : (s += chunk) {
        var words: [mr][nv]Words = undefined;
        inline for (s..s + chunk) |at| {
            var codes: [nv]U = undefined;
            inline for (0..nv) |v| codes[v] = w.at(at, v);
            inline for (0..mr) |m| {
                const four: I = @splat(a.at(m, at));
                inline for (0..nv) |v| {
                    const product = maddubs(codes[v], four);
                    if (at > s) {
                        words[m][v] = addInPlace(words[m][v], product);
                    } else if (has_start and scheme == .words) {
                        words[m][v] = addInPlace(@as(Words, @bitCast(@as(I, @splat(start[m])))), product);
                    } else words[m][v] = product;
                }
            }
        }
        inline for (0..mr) |m| inline for (0..nv) |v| {
            const sum = maddwd(words[m][v], @splat(1));
            acc[m][v] = if (s > 0) acc[m][v] +% sum else if (has_start and scheme == .fours) sum +% @as(I, @splat(start[m])) else sum;
        };
    }
    return acc;
}

/// A code's zero point and largest value, and the elements that share a scale, of every kind of weights.
const test_codes = [_][3]comptime_int{ .{ 8, 15, 32 }, .{ 0, 15, 32 }, .{ 16, 31, 32 }, .{ 32, 63, 16 }, .{ 128, 255, 32 }, .{ 128, 255, 16 } };

test "tile equals the scalar sum at the extremes and for random codes" {
    @setEvalBranchQuota(100000);
    inline for (test_codes) |c| {
        try checkTile(.fours, c[0], c[1], c[2]);
        if (comptime Scheme.ofMany(c[1]) != .fours) try checkTile(Scheme.ofMany(c[1]), c[0], c[1], c[2]);
    }
}

fn checkTile(comptime scheme: Scheme, comptime zero: i16, comptime code_max: u32, comptime group: usize) !void {
    const W = struct {
        steps: [scheme.steps(group)][2]U,
        inline fn at(self: *const @This(), comptime s: usize, comptime v: usize) U {
            return self.steps[s][v];
        }
    };
    const A = struct {
        steps: [3][scheme.steps(32)]i32,
        inline fn at(self: *const @This(), comptime m: usize, comptime s: usize) i32 {
            return self.steps[m][s];
        }
    };
    var prng = std.Random.DefaultPrng.init(1);
    const random = prng.random();
    for (0..100) |round| {
        var codes: [2][group / 4]U = undefined;
        var a: [3][32]i8 = @splat(@splat(0));
        const w_fixed: ?u8 = if (round < 2) code_max else if (round < 4) 0 else null;
        const a_fixed: ?i8 = if (round >= 4) null else if (round % 2 == 0) 127 else -127;
        for (&codes) |*steps| for (steps) |*s| for (@as(*[width * 4]u8, @ptrCast(s))) |*x| {
            x.* = w_fixed orelse random.uintAtMost(u8, code_max);
        };
        for (&a) |*row| for (row[0..group]) |*x| {
            x.* = a_fixed orelse random.intRangeAtMost(i8, -127, 127);
        };
        var w: W = undefined;
        for (codes, 0..) |steps, v| inline for (steps, 0..) |step, s| {
            inline for (scheme.weights(zero, step), 0..) |lanes, i| w.steps[s * scheme.steps(4) + i][v] = lanes;
        };
        var rows: A = undefined;
        var starts: [3]i32 = undefined;
        for (a, &rows.steps, &starts) |row, *steps, *start| {
            steps.* = scheme.activations(row);
            start.* = scheme.start(scheme.startFactor(zero, code_max), @as(@Vector(group, i8), row[0..group].*));
        }
        const got = tile(scheme, code_max, scheme.steps(group), 3, 2, starts, &w, &rows);
        for (got, a) |vectors, row| for (vectors, codes) |lanes, steps| for (@as([width]i32, lanes), 0..) |lane, column| {
            var want: i32 = 0;
            for (0..group) |k| want += (@as(i32, @as([width * 4]u8, steps[k / 4])[column * 4 + k % 4]) - zero) * row[k];
            try std.testing.expectEqual(want, lane);
        };
    }
}
