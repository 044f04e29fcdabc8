const std = @import("std");
const simd = @import("simd.zig");
const testing = @import("testing.zig");
const scalar = @import("activation.zig").scalar;
const transposing = @import("transpose.zig");

const F = simd.F;

/// Largest error in ulps over a dense sweep of low … high.
fn worst(comptime f: fn (F) callconv(.@"inline") F, oracle: *const fn (f64) f64, low: f32, high: f32) f64 {
    var result: f64 = 0;
    const steps = 40_000;
    var i: usize = 0;
    while (i < steps) : (i += simd.lanes) {
        var x: [simd.lanes]f32 = undefined;
        for (&x, 0..) |*v, k| {
            const u = @as(f32, @floatFromInt(i + k)) / steps;
            v.* = low + (high - low) * u;
        }
        const y: [simd.lanes]f32 = f(x);
        for (x, y) |v, w| result = @max(result, testing.ulps(w, oracle(v)));
    }
    return result;
}

fn normalCdfScalar(x: f64) f64 {
    return scalar.gelu_erf(x) / x;
}

const Bound = struct { name: []const u8, ulps: f64, limit: f64 };

test "elementary functions are accurate to a few units in the last place" {
    const bounds = [_]Bound{
        .{ .name = "exp", .ulps = worst(simd.exp, scalar.exp, -87, 88.7), .limit = 1.5 },
        .{ .name = "exp to denormals", .ulps = worst(simd.exp, scalar.exp, -103.9, -87), .limit = 1.5 },
        .{ .name = "exp near 0", .ulps = worst(simd.exp, scalar.exp, -0.5, 0.5), .limit = 1.5 },
        .{ .name = "expFalling near 0", .ulps = worst(simd.expFalling, scalar.exp, -1, 0), .limit = 3 },
        .{ .name = "expFalling", .ulps = worst(simd.expFalling, scalar.exp, -87, 0), .limit = 25 },
        .{ .name = "sigmoid", .ulps = worst(simd.sigmoid, scalar.sigmoid, -87, 30), .limit = 3 },
        .{ .name = "tanh", .ulps = worst(simd.tanh, scalar.tanh, -10, 10), .limit = 2.5 },
        .{ .name = "tanh near 0", .ulps = worst(simd.tanh, scalar.tanh, -0.7, 0.7), .limit = 2.5 },
        .{ .name = "erf", .ulps = worst(simd.erf, scalar.erf, -4, 4), .limit = 2 },
        .{ .name = "normalCdf", .ulps = worst(simd.normalCdf, normalCdfScalar, -1.2, 5), .limit = 6 },
        .{ .name = "softplus", .ulps = worst(simd.softplus, scalar.softplus, -80, 80), .limit = 3 },
    };
    for (bounds) |b| {
        errdefer std.debug.print("{s}: {d} ulps\n", .{ b.name, b.ulps });
        try std.testing.expect(b.ulps <= b.limit);
    }
}

fn one(comptime f: fn (F) callconv(.@"inline") F, x: f32) f32 {
    return f(simd.splat(x))[0];
}

test "elementary functions keep infinities, NaN and denormals" {
    const inf = std.math.inf(f32);
    const nan = std.math.nan(f32);
    inline for (.{ simd.exp, simd.expFalling, simd.sigmoid, simd.tanh, simd.erf, simd.normalCdf, simd.softplus }) |f| {
        try std.testing.expect(std.math.isNan(one(f, nan)));
    }
    try std.testing.expectEqual(@as(f32, 0), one(simd.exp, -inf));
    try std.testing.expectEqual(inf, one(simd.exp, inf));
    try std.testing.expectEqual(inf, one(simd.exp, 88.8));
    try std.testing.expectEqual(@as(f32, 1), one(simd.exp, 0));
    try std.testing.expectEqual(@as(f32, 1), one(simd.exp, 0x1p-149));
    try std.testing.expect(one(simd.exp, -100) > 0);
    try std.testing.expectEqual(@as(f32, 0), one(simd.expFalling, -inf));
    try std.testing.expectEqual(@as(f32, 0), one(simd.expFalling, -87.1));
    try std.testing.expectEqual(@as(f32, 1), one(simd.expFalling, -0.0));
    try std.testing.expect(std.math.isNan(one(simd.expFalling, @bitCast(@as(u32, 0xffffffff)))));
    try std.testing.expectEqual(@as(f32, 0), one(simd.sigmoid, -inf));
    try std.testing.expectEqual(@as(f32, 1), one(simd.sigmoid, inf));
    try std.testing.expectEqual(@as(f32, -1), one(simd.tanh, -inf));
    try std.testing.expectEqual(@as(f32, 0x1p-149), one(simd.tanh, 0x1p-149));
    try std.testing.expectEqual(@as(f32, 1), one(simd.erf, inf));
    try std.testing.expectEqual(@as(f32, 0), one(simd.normalCdf, -inf));
    try std.testing.expectEqual(inf, one(simd.softplus, inf));
    try std.testing.expectEqual(@as(f32, 0), one(simd.softplus, -inf));
}

test "sinCos is accurate over all positions" {
    var random: std.Random.DefaultPrng = .init(1);
    for (0..20_000) |i| {
        const x = random.random().float(f64) * @as(f64, if (i % 2 == 0) 10 else 1_000_000) * @as(f64, if (i % 3 == 0) -1 else 1);
        const y = simd.sinCos(@splat(x));
        try std.testing.expectApproxEqAbs(@sin(x), y.sin[0], 1e-12);
        try std.testing.expectApproxEqAbs(@cos(x), y.cos[0], 1e-12);
    }
}

test "f16 converts exactly" {
    for (0..65536 / simd.lanes) |block| {
        var bits: [simd.lanes]u16 = undefined;
        for (&bits, 0..) |*b, i| b.* = @intCast(block * simd.lanes + i);
        const halves: [simd.lanes]f16 = @bitCast(bits);
        const wide: [simd.lanes]f32 = simd.loadHalf(&halves);
        for (halves, wide) |h, w| {
            const expected: f32 = @floatCast(h);
            try testing.expectBits(&.{expected}, &.{w});
        }
    }
}

test "transpose" {
    const rows = 37;
    const columns = 21;
    var from: [rows * columns]f32 = undefined;
    for (&from, 0..) |*v, i| v.* = @floatFromInt(i);
    const width = simd.roundUp(rows);
    var to: [columns * (rows + simd.lanes)]f32 = undefined;
    transposing.transpose(f32, &from, rows, columns, &to, width);
    for (0..columns) |c| for (0..width) |r| {
        try std.testing.expectEqual(if (r < rows) from[r * columns + c] else 0, to[c * width + r]);
    };
}
