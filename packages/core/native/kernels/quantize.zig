//! Op `quantize_rows`: f32 rows to q8a (abi.q8aRowBytes has the layout).
//!
//! scale = max|x| / 127 and code = round to nearest even (x * (1 / scale)) per 32 elements, as ggml's q8_0 but with an f32
//! scale, and x / scale where that is subnormal. A block with a NaN or an infinity gets the scale NaN, so it stays visible
//! in every product. Sums of 16 codes stand beside: they carry zero points and minima of the weights.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi");
const context = @import("context");
const simd = @import("simd.zig");
const transpose = @import("transpose.zig");
const Rows = @import("weights.zig").Rows;

/// The three arrays of one q8a row.
pub const Row = struct {
    codes: [*]const i8,
    scales: [*]align(4) const f32,
    sums: [*]align(2) const i16,

    pub inline fn init(base: [*]const u8, k: usize) Row {
        return .{
            .codes = @ptrCast(base),
            .scales = @ptrCast(@alignCast(base + k)),
            .sums = @ptrCast(@alignCast(base + k + k / 32 * 4)),
        };
    }
};

/// Whether an output wants q8a rows instead of f32.
pub fn isWanted(out: *const abi.TensorDesc) bool {
    return out.dtype == @intFromEnum(abi.Dtype.q8a);
}

/// Where a row of k elements is quantised to, block by block: what fused ops write instead of f32.
pub const Writer = struct {
    codes: [*]i8,
    scales: [*]align(4) f32,
    sums: [*]align(2) i16,

    pub inline fn init(base: [*]u8, k: usize) Writer {
        return .{
            .codes = @ptrCast(base),
            .scales = @ptrCast(@alignCast(base + k)),
            .sums = @ptrCast(@alignCast(base + k + k / 32 * 4)),
        };
    }

    /// Row `r` of an output [rows, k].
    pub inline fn row(out: *const abi.TensorDesc, r: usize, k: usize) Writer {
        return .init(@ptrFromInt(out.data + r * abi.q8aRowBytes(k)), k);
    }

    /// Of the elements from block b on.
    pub inline fn from(self: Writer, b: usize) Writer {
        return .{ .codes = self.codes + b * 32, .scales = self.scales + b, .sums = self.sums + b * 2 };
    }

    /// Quantises elements 32b … 32b+31.
    pub inline fn block(self: Writer, b: usize, values: *align(4) const [32]f32) void {
        self.scales[b] = quantizeBlock(values, @ptrCast(self.codes + b * 32), self.sums[b * 2 ..][0..2]);
    }
};

/// Inputs: x f32 [rows, k]. Output: q8a [rows, k]. Threads share the blocks of all rows.
pub fn quantize_rows(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    const desc = &cmd.inputs[0];
    const x = Rows.init(desc);
    const blocks = x.k / 32;
    const share = ctx.range(x.rows * blocks, 64);
    for (share.start..share.end) |i| {
        const b = i % blocks;
        const values: *align(4) const [32]f32 = @ptrCast(@alignCast(x.row(i / blocks) + b * 128));
        Writer.row(&cmd.outputs[0], i / blocks, x.k).block(b, values);
    }
}

const V = @Vector(16, f32);
const I = @Vector(16, i32);
const U = @Vector(16, u32);

/// Codes, their sums per 16, and the scale of one block.
pub fn quantizeBlock(x: *align(4) const [32]f32, codes: *[32]i8, sums: *[2]i16) f32 {
    const halves = [2]V{ x[0..16].*, x[16..32].* };
    const largest = @reduce(.Max, magnitudesOf(halves));
    const scale = @as(f32, @bitCast(largest)) / 127;
    if (largest >= 0x7f800000 or scale < std.math.floatMin(f32)) return quantizeOddBlock(halves, scale, codes, sums);
    writeEven(halves, 1 / scale, codes, sums);
    return scale;
}

/// The larger magnitudes of both halves. They compare as integers, and so NaN and infinity come out on top.
inline fn magnitudesOf(halves: [2]V) U {
    const magnitude: U = @splat(0x7fffffff);
    return @max(@as(U, @bitCast(halves[0])) & magnitude, @as(U, @bitCast(halves[1])) & magnitude);
}

/// Codes and sums of a block whose scale is a normal number, by 1 / scale.
inline fn writeEven(halves: [2]V, inverse: f32, codes: *[32]i8, sums: *[2]i16) void {
    inline for (halves, 0..) |half, h| write(round(half * @as(V, @splat(inverse))), codes[h * 16 ..][0..16], &sums[h]);
}

/// Quantises block b of up to sixteen rows: the bits of `Writer.block`. With AVX-512 all scales come out of one division, where
/// there are several.
pub fn blockOfRows(rows: []const Writer, b: usize, values: *align(64) const [16][2]V) void {
    std.debug.assert(rows.len <= 16);
    if (!simd.avx512.available or rows.len <= 4) {
        for (rows, values[0..rows.len]) |row, *halves| row.block(b, @ptrCast(halves));
    } else blocksAtOnce(rows, b, values);
}

fn blocksAtOnce(rows: []const Writer, b: usize, values: *align(64) const [16][2]V) void {
    var magnitudes: [16]V = undefined; // of idle rows whatever is there: no loop of unknown length
    for (&magnitudes, values) |*larger, halves| larger.* = @bitCast(magnitudesOf(halves));
    const largest = transpose.largestOfRows(&magnitudes);
    const scales = largest / @as(V, @splat(127));
    const is_large = @as(U, @bitCast(largest)) >= @as(U, @splat(0x7f800000));
    const is_small = scales < @as(V, @splat(std.math.floatMin(f32)));
    const odd = @as(u16, @bitCast(is_large)) | @as(u16, @bitCast(is_small));
    const scale: [16]f32 = scales;
    const inverse: [16]f32 = @as(V, @splat(1)) / scales;
    for (rows, values[0..rows.len], 0..) |row, *halves, i| {
        if (odd >> @intCast(i) & 1 != 0) {
            row.block(b, @ptrCast(halves));
        } else {
            row.scales[b] = scale[i];
            writeEven(halves.*, inverse[i], @ptrCast(row.codes + b * 32), row.sums[b * 2 ..][0..2]);
        }
    }
}

/// Blocks with a NaN or an infinity, zeros, and those whose scale is subnormal: its inverse would be no number.
noinline fn quantizeOddBlock(halves: [2]V, scale: f32, codes: *[32]i8, sums: *[2]i16) f32 {
    const known = scale > 0 and scale < std.math.inf(f32);
    // The scale may be rounded so far down that codes beyond 127 would come out.
    const limit: V = @splat(127);
    inline for (halves, 0..) |half, h| {
        const code = if (known) @max(@min(half / @as(V, @splat(scale)), limit), -limit) else @as(V, @splat(0));
        write(round(code), codes[h * 16 ..][0..16], &sums[h]);
    }
    return if (scale < std.math.inf(f32)) scale else std.math.nan(f32);
}

inline fn write(rounded: I, codes: *[16]i8, sum: *i16) void {
    const bytes: @Vector(16, i8) = @truncate(rounded);
    codes.* = bytes;
    sum.* = sumOf(bytes);
}

extern fn @"llvm.x86.sse2.psad.bw"(@Vector(16, u8), @Vector(16, u8)) @Vector(2, u64);

inline fn sumOf(codes: @Vector(16, i8)) i16 {
    if (builtin.cpu.arch != .x86_64) return @reduce(.Add, @as(@Vector(16, i16), codes));
    const flipped = @as(@Vector(16, u8), @bitCast(codes)) ^ @as(@Vector(16, u8), @splat(0x80)); // code + 128
    const eights: @Vector(8, i16) = @bitCast(@"llvm.x86.sse2.psad.bw"(flipped, @splat(0)));
    return eights[0] + eights[4] - 16 * 128;
}

/// Round to nearest even, of small numbers.
inline fn round(x: V) I {
    const magic: V = @splat(0x1.8p23); // its last bit is worth 1
    return @as(I, @bitCast(x + magic)) - @as(I, @bitCast(magic));
}

/// Scalar oracle.
fn oracle(x: []const f32, codes: []i8) f32 {
    var largest: f32 = 0;
    for (x) |v| {
        if (!std.math.isFinite(v)) {
            @memset(codes, 0);
            return std.math.nan(f32);
        }
        largest = @max(largest, @abs(v));
    }
    const scale = largest / 127;
    for (x, codes) |v, *c| {
        if (scale == 0) {
            c.* = 0;
            continue;
        }
        const ratio = if (scale < std.math.floatMin(f32)) v / scale else v * (1 / scale);
        const y: f64 = std.math.clamp(ratio, -127, 127);
        const below = @floor(y);
        const up = y - below > 0.5 or (y - below == 0.5 and @mod(below, 2) != 0);
        c.* = @intFromFloat(if (up) below + 1 else below);
    }
    return scale;
}

test "quantize_rows equals the oracle" {
    const testing = @import("linear_testing.zig");
    const gpa = std.testing.allocator;
    var prng = std.Random.DefaultPrng.init(5);
    const random = prng.random();
    for ([_]usize{ 1, 2, 3, 9 }) |rows| for ([_]usize{ 32, 64, 96, 1024 }) |k| for ([_]u32{ 1, 2, 3 }) |threads| {
        const x = try gpa.alloc(f32, rows * (k + 3));
        defer gpa.free(x);
        for (x) |*v| v.* = random.floatNorm(f32);
        for (0..k / 32) |b| switch (random.uintLessThan(u8, 6)) {
            0 => @memset(x[b * 32 ..][0..32], 0),
            1 => x[b * 32 + 5] = std.math.nan(f32),
            2 => x[b * 32 + 6] = -std.math.inf(f32),
            3 => for (x[b * 32 ..][0..32]) |*v| {
                v.* = @bitCast(random.uintLessThan(u32, 400)); // subnormal
            },
            4 => for (x[b * 32 ..][0..32], 0..) |*v, i| {
                v.* = if (i == 0) 127 else @as(f32, @floatFromInt(random.intRangeAtMost(i8, -100, 100))) + 0.5; // ties
            },
            else => {},
        };
        const bytes = abi.q8aRowBytes(k);
        const out = try gpa.alignedAlloc(u8, .@"64", rows * bytes);
        defer gpa.free(out);
        var cmd: abi.Command = .{ .input_count = 1, .output_count = 1 };
        cmd.inputs[0] = testing.describe(.f32, @intFromPtr(x.ptr), &.{ rows, k });
        cmd.inputs[0].strides[0] = @intCast(k + 3);
        cmd.outputs[0] = testing.describe(.q8a, @intFromPtr(out.ptr), &.{ rows, k });
        try testing.run(quantize_rows, null, &cmd, threads);
        for (0..rows) |r| {
            const row = Row.init(out.ptr + r * bytes, k);
            for (0..k / 32) |b| {
                var codes: [32]i8 = undefined;
                const scale = oracle(x[r * (k + 3) + b * 32 ..][0..32], &codes);
                try testing.expectBits(scale, row.scales[b]);
                try std.testing.expectEqualSlices(i8, &codes, row.codes[b * 32 ..][0..32]);
                for (0..2) |h| {
                    var sum: i16 = 0;
                    for (codes[h * 16 ..][0..16]) |c| sum += c;
                    try std.testing.expectEqual(sum, row.sums[b * 2 + h]);
                }
            }
        }
    };
}

test "blockOfRows gives the bits of its blocks one by one" {
    const k = 64;
    var prng = std.Random.DefaultPrng.init(6);
    const random = prng.random();
    for (0..17) |count| for (0..40) |_| {
        var values: [16][32]f32 align(64) = @splat(@splat(std.math.nan(f32)));
        for (values[0..count]) |*row| {
            const size: f32 = switch (random.uintLessThan(u8, 6)) {
                0 => 0,
                1 => 1e-40, // the scale is subnormal
                2 => 1e30,
                else => 1,
            };
            for (row) |*x| x.* = random.floatNorm(f32) * size;
            if (random.uintLessThan(u8, 6) == 0) row[random.uintLessThan(u8, 32)] = std.math.inf(f32);
            if (random.uintLessThan(u8, 6) == 0) row[random.uintLessThan(u8, 32)] = std.math.nan(f32);
            if (random.uintLessThan(u8, 6) == 0) for (row, 0..) |*x, i| {
                x.* = @as(f32, @floatFromInt(i)) + 0.5; // ties, with 127 as the largest
                row[31] = 127;
            };
        }
        var memory: [2][16][abi.q8aRowBytes(k)]u8 align(64) = @splat(@splat(@splat(0x55)));
        var rows: [16]Writer = undefined;
        for (&rows, &memory[0]) |*row, *base| row.* = Writer.init(base, k).from(1);
        blockOfRows(rows[0..count], 0, @ptrCast(&values));
        for (values[0..count], memory[1][0..count]) |*row, *base| Writer.init(base, k).block(1, row);
        try std.testing.expectEqualSlices(u8, std.mem.asBytes(&memory[1]), std.mem.asBytes(&memory[0]));
    };
}
