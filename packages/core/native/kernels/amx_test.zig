//! Root of the tests of level amx, and tests of the instructions themselves, emulated or not.

const std = @import("std");
const amx = @import("amx.zig");
const prepare = @import("amx_testing.zig").prepare;

test {
    _ = @import("amx_kernels.zig");
    _ = @import("attention_i8_amx_test.zig");
    _ = @import("linear_amx_plan.zig");
    _ = @import("linear_amx_test.zig");
    _ = @import("tile_permission.zig");
}

const Tile = [amx.rows][amx.row_bytes]u8;

fn configure(shapes: [3][2]u8) void {
    var config: amx.Config align(64) = .{ .row_bytes = @splat(0), .rows = @splat(0) };
    for (shapes, 0..) |shape, tile| {
        config.rows[tile] = shape[0];
        config.row_bytes[tile] = shape[1];
    }
    amx.configure(&config);
}

/// The sums that tdpbf16ps gives by the SDM: both chains of fused multiply-adds, then their sum onto c.
fn model(c: f32, pairs: usize, a: []const u16, b: *const [16][16][2]u16, n: usize) f32 {
    var chains: [2]f32 = @splat(0);
    for (0..pairs) |k| for (&chains, 0..) |*chain, i| {
        chain.* = flush(@mulAdd(f32, widen(a[2 * k + i]), widen(b[k][n][i]), chain.*));
    };
    return flush(flush(c) + flush(chains[0] + chains[1]));
}

fn widen(bits: u16) f32 {
    return flush(@bitCast(@as(u32, bits) << 16));
}

fn flush(x: f32) f32 {
    return if (std.math.isNormal(x) or !std.math.isFinite(x)) x else std.math.copysign(@as(f32, 0), x);
}

fn same(a: f32, b: f32) bool {
    return (std.math.isNan(a) and std.math.isNan(b)) or @as(u32, @bitCast(a)) == @as(u32, @bitCast(b));
}

/// Products of every shape; `value` makes the elements.
fn checkDots(comptime value: fn (std.Random) u16) !void {
    var prng: std.Random.DefaultPrng = .init(3);
    const random = prng.random();
    for (0..200) |_| {
        const m = random.intRangeAtMost(u8, 1, 16);
        const pairs = random.intRangeAtMost(u8, 1, 16);
        const n = random.intRangeAtMost(u8, 1, 16);
        var a: [16][32]u16 align(64) = undefined;
        var b: [16][16][2]u16 align(64) = undefined;
        var c: [16][16]f32 align(64) = undefined;
        for (&a) |*row| for (row) |*x| {
            x.* = value(random);
        };
        for (&b) |*row| for (row) |*two| for (two) |*x| {
            x.* = value(random);
        };
        for (&c) |*row| for (row) |*x| {
            x.* = @bitCast(@as(u32, value(random)) << 16);
        };
        var out: [16][16]f32 align(64) = @splat(@splat(7));
        configure(.{ .{ m, n * 4 }, .{ m, pairs * 4 }, .{ pairs, n * 4 } });
        defer amx.release();
        amx.load(0, @ptrCast(&c), 64);
        amx.load(1, @ptrCast(&a), 64);
        amx.load(2, @ptrCast(&b), 64);
        amx.dotBf16(0, 1, 2);
        amx.store(0, @ptrCast(&out), 64);
        for (0..16) |i| for (0..16) |j| {
            const want: f32 = if (i < m and j < n) model(c[i][j], pairs, &a[i], &b, j) else 7;
            if (!same(want, out[i][j])) {
                std.debug.print("{d}x{d}x{d} at {d},{d}: {x} not {x}\n", .{ m, 2 * pairs, n, i, j, out[i][j], want });
                return error.Differs;
            }
        };
    }
}

test "tdpbf16ps adds exactly where sums are whole numbers" {
    _ = prepare();
    try checkDots(struct {
        fn value(random: std.Random) u16 {
            const x: f32 = @floatFromInt(random.intRangeAtMost(i8, -100, 100));
            return @intCast(@as(u32, @bitCast(x)) >> 16);
        }
    }.value);
}

test "the emulated tdpbf16ps rounds as the SDM says, denormals and NaN too" {
    if (!prepare()) return error.SkipZigTest;
    try checkDots(struct {
        fn value(random: std.Random) u16 {
            return switch (random.uintLessThan(u8, 40)) {
                0 => random.uintLessThan(u16, 0x80), // denormal
                1 => 0x7f80, // infinity
                2 => 0x7fc1,
                3 => 0x0080 + random.uintLessThan(u16, 0x100), // products that are denormal
                else => @intCast(@as(u32, @bitCast(random.floatNorm(f32))) >> 16),
            };
        }
    }.value);
}

test "tdpbssd, tdpbsud and tdpbusd are sums of products of bytes, which wrap" {
    _ = prepare();
    var prng: std.Random.DefaultPrng = .init(5);
    const random = prng.random();
    for (0..50) |_| {
        const m = random.intRangeAtMost(u8, 1, 16);
        const fours = random.intRangeAtMost(u8, 1, 16);
        const n = random.intRangeAtMost(u8, 1, 16);
        var a: Tile align(64) = undefined;
        var b: [16][16][4]u8 align(64) = undefined;
        var c: [16][16]i32 align(64) = undefined;
        random.bytes(std.mem.asBytes(&a));
        random.bytes(std.mem.asBytes(&b));
        random.bytes(std.mem.asBytes(&c));
        configure(.{ .{ m, n * 4 }, .{ m, fours * 4 }, .{ fours, n * 4 } });
        defer amx.release();
        amx.load(1, @ptrCast(&a), 64);
        amx.load(2, @ptrCast(&b), 64);
        inline for (.{ amx.Bytes.ss, amx.Bytes.su, amx.Bytes.us }, .{ i8, i8, u8 }, .{ i8, u8, i8 }) |kind, A, B| {
            var out: [16][16]i32 align(64) = undefined;
            amx.load(0, @ptrCast(&c), 64);
            amx.dotBytes(kind, 0, 1, 2);
            amx.store(0, @ptrCast(&out), 64);
            for (0..m) |i| for (0..n) |j| {
                var want = c[i][j];
                for (0..fours) |k| for (0..4) |l| {
                    want +%= @as(i32, @as(A, @bitCast(a[i][k * 4 + l]))) * @as(B, @bitCast(b[k][j][l]));
                };
                try std.testing.expectEqual(want, out[i][j]);
            };
        }
    }
}

test "loads and stores move whole tiles, at any stride, and zero the rest" {
    _ = prepare();
    var source: [16 * 100]u8 = undefined;
    for (&source, 0..) |*x, i| x.* = @truncate(i * 7 + i / 256);
    var target: [16 * 100]u8 = undefined;
    for ([_]usize{ 0, 64, 100 }) |stride| for ([_][2]u8{ .{ 16, 64 }, .{ 3, 20 }, .{ 1, 4 } }) |shape| {
        configure(.{ shape, .{ 16, 64 }, .{ 16, 64 } });
        defer amx.release();
        inline for (.{ amx.load, amx.loadPast }) |load| {
            @memset(&target, 0xee);
            amx.clear(0);
            load(0, &source, stride);
            amx.store(0, &target, 100);
            for (0..16) |r| for (0..100) |c| {
                const moved = r < shape[0] and c < shape[1];
                try std.testing.expectEqual(if (moved) source[r * stride + c] else @as(u8, 0xee), target[r * 100 + c]);
            };
        }
        amx.clear(0);
        amx.store(0, &target, 100);
        for (0..16) |r| for (0..100) |c| {
            const moved = r < shape[0] and c < shape[1];
            try std.testing.expectEqual(@as(u8, if (moved) 0 else 0xee), target[r * 100 + c]);
        };
    };
}

test "every addressing form" {
    _ = prepare();
    var memory: [4096]u8 align(64) = undefined;
    for (&memory, 0..) |*x, i| x.* = @truncate(i ^ i >> 8);
    var out: Tile align(64) = undefined;
    amx.configure(&amx.Config.full);
    defer amx.release();
    const middle: [*]u8 = memory[1024..];
    inline for (.{
        .{ "rax", "rcx", "0x40(%%rax,%%rcx,1)", 0x40, 1 },
        .{ "r12", "r13", "-0x40(%%r12,%%r13,1)", -0x40, 1 },
        .{ "r13", "r12", "0x200(%%r13,%%r12,2)", 0x200, 2 },
        .{ "rdi", "rcx", "-0x3c0(%%rdi,%%rcx,1)", -0x3c0, 1 },
        .{ "r8", "r15", "(%%r8,%%r15,1)", 0, 1 },
    }) |form| {
        asm volatile ("movq %[p], %%" ++ form[0] ++ "\n movq %[s], %%" ++ form[1] ++ "\n tileloadd " ++ form[2] ++ ", %%tmm3"
            :
            : [p] "r" (middle),
              [s] "r" (@as(usize, 72)),
            : .{ .memory = true, .rax = true, .rcx = true, .rdi = true, .r8 = true, .r12 = true, .r13 = true, .r15 = true });
        amx.store(3, @ptrCast(&out), 64);
        for (0..16) |r| {
            const at: usize = @intCast(1024 + form[3] + @as(isize, @intCast(r * 72 * form[4])));
            try std.testing.expectEqualSlices(u8, memory[at..][0..64], &out[r]);
        }
    }
}

test "the configuration reads back, and is gone after release" {
    _ = prepare();
    var config: amx.Config align(64) = .{ .row_bytes = @splat(0), .rows = @splat(0) };
    config.row_bytes[5] = 12;
    config.rows[5] = 3;
    var back: amx.Config align(64) = undefined;
    amx.configure(&config);
    asm volatile ("sttilecfg (%[p])"
        :
        : [p] "r" (&back),
        : .{ .memory = true });
    try std.testing.expectEqual(config, back);
    amx.release();
    asm volatile ("sttilecfg (%[p])"
        :
        : [p] "r" (&back),
        : .{ .memory = true });
    try std.testing.expectEqual(0, back.palette);
}

test "each thread has tiles of its own" {
    _ = prepare();
    const Worker = struct {
        fn go(fill: u8, ok: *bool) void {
            const source: Tile align(64) = @splat(@splat(fill));
            var out: Tile align(64) = undefined;
            amx.configure(&amx.Config.full);
            defer amx.release();
            amx.load(6, @ptrCast(&source), 64);
            for (0..100) |_| std.Thread.yield() catch {};
            amx.store(6, @ptrCast(&out), 64);
            ok.* = std.mem.allEqual(u8, @as(*const [1024]u8, @ptrCast(&out)), fill);
        }
    };
    var ok: [3]bool = @splat(false);
    var threads: [3]std.Thread = undefined;
    for (&threads, &ok, 1..) |*thread, *one, i| thread.* = try std.Thread.spawn(.{}, Worker.go, .{ @as(u8, @intCast(i)), one });
    for (threads) |thread| thread.join();
    try std.testing.expectEqual([3]bool{ true, true, true }, ok);
}
