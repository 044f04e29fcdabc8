//! Packed weights: the `panel16` layouts that `linear` and `embedding` read. The same bytes at every ISA level.
//!
//! Weights [N, K] lie in panels of 16 rows of N ("columns", as they are columns of the output); N is padded with zeros.
//! Every panel starts 64-byte aligned and has `panelBytes` bytes:
//!
//! - f32, f16, bf16: [K][16] elements of the source type.
//! - quantised, K divides by 32: K/32 blocks, each its codes and its scales; in front of every 8 blocks a super record
//!   where the kind has one. So one stream of reading goes through a panel, and on into the next.
//!
//! A block's codes are 32 steps of K of 16 columns. They are unsigned (source code + zero) and lie in 8 k-steps of
//! 64 bytes where byte column*4 + i is element 4*step + i of K, which is what u8*i8 dots of four want. In nibble forms
//! the byte at 64*j + column*4 + i has k-step j in its low and k-step j+4 in its high nibble; planes add higher bits.
//!
//! | kind   | codes                                               | scales                   | super record  | zero |
//! | ------ | --------------------------------------------------- | ------------------------ | ------------- | ---- |
//! | q8_0   | 8 x 64 bytes                                        | 16 f16                   |               | 128  |
//! | q4_0   | 4 x 64 nibble pairs                                 | 16 f16                   |               | 8    |
//! | q5_0   | 4 x 64 nibble pairs, 64 bytes: bit s is of k-step s | 16 f16                   |               | 16   |
//! | q4_k   | 4 x 64 nibble pairs                                 | 16 u8 scale, 16 u8 min   | 16 f16 d, dmin | 0   |
//! | q6_k   | 4 x 64 nibble pairs, 2 x 64 bytes: bits 2r, 2r+1 of plane p are of k-step 4p + r | 2 x 16 i8 | 16 f16 d | 32 |
//! | q8_g16 | 8 x 64 bytes                                        | 2 x (16 f32 scale, 16 f32 min) |         | 128  |
//!
//! All dequantise to the very bits of the reference: f32(scale * (code - zero)) + min, where scale is f32(d * sc) and
//! min is -f32(dmin * m) for the K-quants. Bits per weight: 8.5, 4.5, 5.5, 4.625, 6.5625, 12.

const std = @import("std");
const abi = @import("abi");
const dot = @import("dot.zig");
const simd = @import("simd.zig");

pub const panel = 16;

pub const Kind = enum {
    f32,
    f16,
    bf16,
    q8_0,
    q4_0,
    q5_0,
    q4_k,
    q6_k,
    q8_g16,

    pub fn isFloat(kind: Kind) bool {
        return switch (kind) {
            .f32, .f16, .bf16 => true,
            else => false,
        };
    }
};

/// Sizes and constants of a quantised kind.
pub const Form = struct {
    code_bytes: usize,
    scale_bytes: usize,
    super_bytes: usize = 0,
    /// Elements of K that share a scale.
    group: usize = 32,
    zero: i16,
    code_max: u32,
    has_min: bool = false,

    pub fn groups(comptime f: Form) usize {
        return 32 / f.group;
    }

    pub fn blockBytes(comptime f: Form) usize {
        return f.code_bytes + f.scale_bytes;
    }

    /// Bytes from the start of a panel to block `b`.
    pub inline fn blockAt(comptime f: Form, b: usize) usize {
        return b * f.blockBytes() + (b / 8 + 1) * f.super_bytes;
    }

    /// Bytes from the start of a panel to the super record of block `b`.
    pub inline fn superAt(comptime f: Form, b: usize) usize {
        return b / 8 * (8 * f.blockBytes() + f.super_bytes);
    }
};

pub fn form(kind: Kind) Form {
    return switch (kind) {
        .q8_0 => .{ .code_bytes = 512, .scale_bytes = 32, .zero = 128, .code_max = 255 },
        .q4_0 => .{ .code_bytes = 256, .scale_bytes = 32, .zero = 8, .code_max = 15 },
        .q5_0 => .{ .code_bytes = 320, .scale_bytes = 32, .zero = 16, .code_max = 31 },
        .q4_k => .{ .code_bytes = 256, .scale_bytes = 32, .super_bytes = 64, .zero = 0, .code_max = 15, .has_min = true },
        .q6_k => .{ .code_bytes = 384, .scale_bytes = 32, .super_bytes = 32, .group = 16, .zero = 32, .code_max = 63 },
        .q8_g16 => .{ .code_bytes = 512, .scale_bytes = 256, .group = 16, .zero = 128, .code_max = 255, .has_min = true },
        .f32, .f16, .bf16 => unreachable,
    };
}

/// The kind of a packed tensor's dtype; null when the dtype has no packed form.
pub fn kindOf(dtype: u32) ?Kind {
    return switch (dtype) {
        @intFromEnum(abi.Dtype.f32) => .f32,
        @intFromEnum(abi.Dtype.f16) => .f16,
        @intFromEnum(abi.Dtype.bf16) => .bf16,
        @intFromEnum(abi.Dtype.q8_0) => .q8_0,
        @intFromEnum(abi.Dtype.q4_0) => .q4_0,
        @intFromEnum(abi.Dtype.q5_0) => .q5_0,
        @intFromEnum(abi.Dtype.q4_k) => .q4_k,
        @intFromEnum(abi.Dtype.q6_k) => .q6_k,
        @intFromEnum(abi.Dtype.q8_g16) => .q8_g16,
        else => null,
    };
}

/// Bytes of one panel; K divides by 32 (256 for the K-quants) unless the kind is a float.
pub fn panelBytes(kind: Kind, k: usize) usize {
    const bytes = switch (kind) {
        .f32 => k * panel * 4,
        .f16, .bf16 => k * panel * 2,
        inline else => |q| blk: {
            const f = comptime form(q);
            break :blk k / 32 * f.blockBytes() + k / 256 * f.super_bytes;
        },
    };
    return std.mem.alignForward(usize, bytes, 64);
}

/// Bytes that weights [n, k] of `dtype` take in panel16 layout, and their packed dtype; 0 when they can't be packed
/// (k not in whole blocks, or more than 2^48 bytes).
pub fn packedBytes(dtype: abi.Dtype, n: u64, k: u64, packed_dtype: *u32) u64 {
    const target = abi.packedDtype(dtype) orelse return 0;
    const source = abi.blockInfo(dtype).?;
    if (n == 0 or k == 0 or n > 1 << 40 or k > 1 << 32 or k % source.elements != 0) return 0;
    const one: u128 = panelBytes(kindOf(@intFromEnum(target)).?, @intCast(k));
    const all = one * ((n + panel - 1) / panel);
    if (all > 1 << 48) return 0;
    packed_dtype.* = @intFromEnum(target);
    return @intCast(all);
}

/// One quantised panel.
pub fn Panel(comptime kind: Kind) type {
    return struct {
        pub const f = form(kind);
        const groups = f.groups();
        base: [*]const u8,

        pub inline fn init(base: [*]const u8) @This() {
            return .{ .base = base };
        }

        pub inline fn block(self: @This(), b: usize) [*]const u8 {
            return self.base + f.blockAt(b);
        }

        /// The codes of vector `v` of columns in block `b`, one vector per k-step.
        pub inline fn blockCodes(self: @This(), b: usize, comptime v: usize) [8]dot.U {
            return unpackCodes(kind, self.block(b), v);
        }

        /// The same of a nibble form as they lie there: k-step j in the low nibbles of vector j, j + 4 in the high ones.
        pub inline fn blockPairs(self: @This(), b: usize, comptime v: usize) [4]dot.U {
            var pairs: [4]dot.U = undefined;
            inline for (&pairs, 0..) |*pair, j| pair.* = self.block(b)[j * 64 + v * dot.width * 4 ..][0 .. dot.width * 4].*;
            return pairs;
        }

        /// Scales and minima (already negated for K-quants: value = scale * code + min) of vector `v` of columns.
        pub inline fn blockScales(self: @This(), b: usize, comptime v: usize) Scales(groups) {
            const s = self.block(b) + f.code_bytes;
            const d = self.base + f.superAt(b);
            const at = v * dot.width;
            switch (kind) {
                .q8_0, .q4_0, .q5_0 => return .{ .scale = .{loadHalf(s + at * 2)} },
                .q4_k => return .{
                    .scale = .{loadHalf(d + at * 2) * loadInt(u8, s + at)},
                    .min = .{-(loadHalf(d + 32 + at * 2) * loadInt(u8, s + 16 + at))},
                },
                .q6_k => {
                    const super = loadHalf(d + at * 2);
                    return .{ .scale = .{ super * loadInt(i8, s + at), super * loadInt(i8, s + 16 + at) } };
                },
                .q8_g16 => return .{
                    .scale = .{ loadFloat(s + at * 4), loadFloat(s + 128 + at * 4) },
                    .min = .{ loadFloat(s + 64 + at * 4), loadFloat(s + 192 + at * 4) },
                },
                else => comptime unreachable,
            }
        }

        /// Block `b` as f32 [32][16]: the reference dequantisation.
        pub inline fn dequantize(self: @This(), b: usize, out: [*]f32) void {
            @setEvalBranchQuota(10000);
            inline for (0..dot.per_panel) |v| {
                const codes = self.blockCodes(b, v);
                const s = self.blockScales(b, v);
                inline for (0..8) |step| {
                    const lanes: dot.I = @bitCast(codes[step]);
                    inline for (0..4) |i| {
                        const g = step * 4 / f.group;
                        const code = ((lanes >> @splat(8 * i)) & @as(dot.I, @splat(0xff))) - @as(dot.I, @splat(f.zero));
                        const product = s.scale[g] * @as(dot.F, @floatFromInt(code));
                        const value = if (f.has_min) product + s.min[g] else product;
                        out[(step * 4 + i) * panel + v * dot.width ..][0..dot.width].* = value;
                    }
                }
            }
        }

        /// Block `b` of one column: the scalar oracle of `dequantize`, and what `embedding` reads.
        pub fn column(self: @This(), b: usize, c: usize, out: *[32]f32) void {
            for (0..groups) |g| {
                const scale, const min, const codes = self.columnGroup(b, c, g);
                for (out[g * f.group ..][0..f.group], codes) |*value, code| {
                    const product = scale * @as(f32, @floatFromInt(code));
                    value.* = if (f.has_min) product + min else product;
                }
            }
        }

        /// Scale, minimum and codes (zero point taken off) of group `g` of block `b` of one column.
        pub fn columnGroup(self: @This(), b: usize, c: usize, g: usize) struct { f32, f32, [f.group]i32 } {
            const record = self.block(b);
            var codes: [f.group]i32 = undefined;
            for (&codes, g * f.group..) |*code, i| {
                const step = i / 4;
                const at = c * 4 + i % 4;
                const unsigned: u32 = switch (kind) {
                    .q8_0, .q8_g16 => record[step * 64 + at],
                    else => blk: {
                        const low = (record[step % 4 * 64 + at] >> @intCast(step / 4 * 4)) & 15;
                        break :blk switch (kind) {
                            .q5_0 => low | (record[256 + at] >> @intCast(step) & 1) << 4,
                            .q6_k => low | (record[256 + step / 4 * 64 + at] >> @intCast(step % 4 * 2) & 3) << 4,
                            else => low,
                        };
                    },
                };
                code.* = @as(i32, @intCast(unsigned)) - f.zero;
            }
            const scale, const min = self.columnScale(b, c, g);
            return .{ scale, min, codes };
        }

        fn columnScale(self: @This(), b: usize, c: usize, g: usize) struct { f32, f32 } {
            const s = self.block(b) + f.code_bytes;
            const d = self.base + f.superAt(b);
            switch (kind) {
                .q8_0, .q4_0, .q5_0 => return .{ scalarHalf(s + c * 2), 0 },
                .q4_k => return .{
                    scalarHalf(d + c * 2) * @as(f32, @floatFromInt(s[c])),
                    -(scalarHalf(d + 32 + c * 2) * @as(f32, @floatFromInt(s[16 + c]))),
                },
                .q6_k => return .{ scalarHalf(d + c * 2) * @as(f32, @floatFromInt(@as(i8, @bitCast(s[g * 16 + c])))), 0 },
                .q8_g16 => return .{ scalarFloat(s + g * 128 + c * 4), scalarFloat(s + g * 128 + 64 + c * 4) },
                else => comptime unreachable,
            }
        }
    };
}

pub fn Scales(comptime groups: usize) type {
    return struct { scale: [groups]dot.F, min: [groups]dot.F = undefined };
}

inline fn loadHalf(p: [*]const u8) dot.F {
    return simd.halfToFloat(dot.width, @bitCast(p[0 .. dot.width * 2].*));
}

inline fn loadFloat(p: [*]const u8) dot.F {
    return @bitCast(p[0 .. dot.width * 4].*);
}

inline fn loadInt(comptime T: type, p: [*]const u8) dot.F {
    const small: @Vector(dot.width, T) = @bitCast(p[0..dot.width].*);
    return @floatFromInt(@as(dot.I, small));
}

fn scalarHalf(p: [*]const u8) f32 {
    return @as(f16, @bitCast(std.mem.readInt(u16, p[0..2], .little)));
}

fn scalarFloat(p: [*]const u8) f32 {
    return @bitCast(std.mem.readInt(u32, p[0..4], .little));
}

/// Moves `bits` wide field at bit `from` of each byte to bit 4, other bits 0.
inline fn plane(x: dot.U, comptime from: comptime_int, comptime mask: u8) dot.U {
    const moved = if (from <= 4) x << @splat(4 - from) else x >> @splat(from - 4);
    return moved & @as(dot.U, @splat(mask));
}

inline fn unpackCodes(comptime kind: Kind, record: [*]const u8, comptime v: usize) [8]dot.U {
    const bytes = dot.width * 4;
    const base = record + v * bytes;
    var out: [8]dot.U = undefined;
    switch (kind) {
        .q8_0, .q8_g16 => inline for (0..8) |s| {
            out[s] = base[s * 64 ..][0..bytes].*;
        },
        else => inline for (0..4) |j| {
            const pair: dot.U = base[j * 64 ..][0..bytes].*;
            out[j] = pair & @as(dot.U, @splat(15));
            out[j + 4] = pair >> @splat(4);
        },
    }
    if (kind == .q5_0) {
        const high: dot.U = base[256..][0..bytes].*;
        inline for (0..8) |s| out[s] |= plane(high, s, 0x10);
    }
    if (kind == .q6_k) {
        inline for (0..2) |p| {
            const high: dot.U = base[256 + p * 64 ..][0..bytes].*;
            inline for (0..4) |r| out[p * 4 + r] |= plane(high, 2 * r, 0x30);
        }
    }
    return out;
}

test "packedBytes refuses what it can't pack" {
    var dtype: u32 = 0;
    try std.testing.expectEqual(@as(u64, 0), packedBytes(.q4_0, 16, 33, &dtype));
    try std.testing.expectEqual(@as(u64, 0), packedBytes(.i32, 16, 32, &dtype));
    try std.testing.expectEqual(@as(u64, 0), packedBytes(.f32, 1 << 40, 1 << 32, &dtype));
    try std.testing.expectEqual(@as(u64, 2 * 320), packedBytes(.q4_0, 17, 32, &dtype));
    try std.testing.expectEqual(@as(u64, 3 * 64), packedBytes(.f32, 33, 1, &dtype));
}
