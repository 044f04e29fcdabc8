//! Scalar decoders of the GGUF block types, each the definition of its format here.
//!
//! Every supported type is affine per 16 elements: value = f32(scale * code) + min, and in this form it equals the
//! reference dequantisation (ggml-quants.c, gguf-py quants.py) bit for bit: the reference rounds `d * sc` and
//! `dmin * m` to f32 (exact, they have few bits), rounds the product with the code, and adds or subtracts once.
//! Types without a minimum use -0.0, which leaves every value (also -0.0) as it is.
//! All decoders accept any bytes: there are no table indices wider than their tables and no lengths in the data.

const std = @import("std");
const abi = @import("abi");

/// One block as codes, and a scale and minimum per 16 elements.
pub const Affine = struct {
    codes: [256]i8,
    scale: [16]f32,
    min: [16]f32,

    pub fn value(self: *const Affine, i: usize) f32 {
        const code: f32 = @floatFromInt(self.codes[i]);
        return self.scale[i / 16] * code + self.min[i / 16];
    }
};

const no_min: f32 = -0.0;

pub fn isBlock(dtype: abi.Dtype) bool {
    const info = abi.blockInfo(dtype) orelse return false;
    return info.elements > 1;
}

/// Reads one little-endian f16.
pub fn half(bytes: [*]const u8) f32 {
    return @as(f16, @bitCast(std.mem.readInt(u16, bytes[0..2], .little)));
}

const Bytes = [*]const u8;

/// 32 elements, the same scale and minimum for all: element i in the low nibble of byte i, element 16 + i in the high.
fn fill32(out: *Affine, d: f32, min: f32) void {
    out.scale[0..2].* = @splat(d);
    out.min[0..2].* = @splat(min);
}

fn nibbles32(out: *Affine, qs: Bytes, high: u32, zero: i16) void {
    for (0..32) |i| {
        const low: i16 = if (i < 16) qs[i] & 15 else qs[i - 16] >> 4;
        const bit: i16 = @intCast((high >> @intCast(i)) & 1);
        out.codes[i] = @intCast((low | bit << 4) - zero);
    }
}

fn table32(out: *Affine, qs: Bytes, values: *const [16]i8) void {
    for (0..16) |i| {
        out.codes[i] = values[qs[i] & 15];
        out.codes[i + 16] = values[qs[i] >> 4];
    }
}

fn q8_0(b: Bytes, out: *Affine) void {
    fill32(out, half(b), no_min);
    for (0..32) |i| out.codes[i] = @bitCast(b[2 + i]);
}

fn q2_k(b: Bytes, out: *Affine) void {
    const d = half(b + 80);
    const dmin = half(b + 82);
    for (0..16) |g| {
        const sc: f32 = @floatFromInt(b[g] & 15);
        const m: f32 = @floatFromInt(b[g] >> 4);
        out.scale[g] = d * sc;
        out.min[g] = -(dmin * m);
    }
    for (0..256) |i| {
        const byte = b[16 + i / 128 * 32 + i % 32];
        out.codes[i] = @intCast((byte >> @intCast(i % 128 / 32 * 2)) & 3);
    }
}

fn q3_k(b: Bytes, out: *Affine) void {
    const d = half(b + 108);
    const packed_scales = b + 96;
    for (0..16) |g| {
        const low: i16 = (packed_scales[g % 8] >> @intCast(g / 8 * 4)) & 15;
        const high: i16 = (packed_scales[8 + g % 4] >> @intCast(g / 4 * 2)) & 3;
        const sc: f32 = @floatFromInt((low | high << 4) - 32);
        out.scale[g] = d * sc;
        out.min[g] = no_min;
    }
    for (0..256) |i| {
        const low: i8 = @intCast((b[32 + i / 128 * 32 + i % 32] >> @intCast(i % 128 / 32 * 2)) & 3);
        const bit = (b[i % 32] >> @intCast(i / 32)) & 1; // a set bit means no offset
        out.codes[i] = if (bit == 1) low else low - 4;
    }
}

/// The 6-bit scale and minimum of sub-block `j` (0..7) of q4_k and q5_k.
pub fn scaleMin(s: Bytes, j: usize) struct { u8, u8 } {
    if (j < 4) return .{ s[j] & 63, s[j + 4] & 63 };
    return .{ (s[j + 4] & 15) | (s[j - 4] >> 2 & 0x30), (s[j + 4] >> 4) | (s[j] >> 2 & 0x30) };
}

fn kScales(b: Bytes, out: *Affine) void {
    const d = half(b);
    const dmin = half(b + 2);
    for (0..8) |j| {
        const sc, const m = scaleMin(b + 4, j);
        out.scale[2 * j ..][0..2].* = @splat(d * @as(f32, @floatFromInt(sc)));
        out.min[2 * j ..][0..2].* = @splat(-(dmin * @as(f32, @floatFromInt(m))));
    }
}

fn q4_k(b: Bytes, out: *Affine) void {
    kScales(b, out);
    for (0..256) |i| out.codes[i] = @intCast((b[16 + i / 64 * 32 + i % 32] >> @intCast(i / 32 % 2 * 4)) & 15);
}

fn q5_k(b: Bytes, out: *Affine) void {
    kScales(b, out);
    for (0..256) |i| {
        const low = (b[48 + i / 64 * 32 + i % 32] >> @intCast(i / 32 % 2 * 4)) & 15;
        const high = (b[16 + i % 32] >> @intCast(i / 32)) & 1;
        out.codes[i] = @intCast(low | high << 4);
    }
}

fn q6_k(b: Bytes, out: *Affine) void {
    const d = half(b + 208);
    for (0..16) |g| {
        const sc: f32 = @floatFromInt(@as(i8, @bitCast(b[192 + g])));
        out.scale[g] = d * sc;
        out.min[g] = no_min;
    }
    for (0..256) |i| {
        const low: i8 = @intCast((b[i / 128 * 64 + i % 64] >> @intCast(i % 128 / 64 * 4)) & 15);
        const high: i8 = @intCast((b[128 + i / 128 * 32 + i % 32] >> @intCast(i % 128 / 32 * 2)) & 3);
        out.codes[i] = (low | high << 4) - 32;
    }
}

const iq4_values = [16]i8{ -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113 };
/// E2M1 doubled; the scale is halved instead.
const mxfp4_values = [16]i8{ 0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12 };

fn iq4_xs(b: Bytes, out: *Affine) void {
    const d = half(b);
    const high = std.mem.readInt(u16, b[2..4], .little);
    for (0..8) |j| {
        const low_bits: i16 = (b[4 + j / 2] >> @intCast(j % 2 * 4)) & 15;
        const high_bits: i16 = @intCast((high >> @intCast(2 * j)) & 3);
        const sc: f32 = @floatFromInt((low_bits | high_bits << 4) - 32);
        out.scale[2 * j ..][0..2].* = @splat(d * sc);
        out.min[2 * j ..][0..2].* = @splat(no_min);
        for (0..16) |i| {
            const byte = b[8 + j * 16 + i];
            out.codes[j * 32 + i] = iq4_values[byte & 15];
            out.codes[j * 32 + 16 + i] = iq4_values[byte >> 4];
        }
    }
}

/// Ternary digits in base 3, most significant first, scaled to a byte: digit n of byte q is (q * 3^n mod 256) * 3 / 256.
fn tq1_0(b: Bytes, out: *Affine) void {
    const powers = [5]u8{ 1, 3, 9, 27, 81 };
    const d = half(b + 52);
    out.scale = @splat(d);
    out.min = @splat(no_min);
    for (0..256) |i| {
        const byte, const power = if (i < 160)
            .{ b[i % 32], powers[i / 32] }
        else if (i < 240)
            .{ b[32 + (i - 160) % 16], powers[(i - 160) / 16] }
        else
            .{ b[48 + (i - 240) % 4], powers[(i - 240) / 4] };
        const digit: i8 = @intCast((@as(u16, byte *% power) * 3) >> 8);
        out.codes[i] = digit - 1;
    }
}

fn tq2_0(b: Bytes, out: *Affine) void {
    out.scale = @splat(half(b + 64));
    out.min = @splat(no_min);
    for (0..256) |i| {
        const digit: i8 = @intCast((b[i / 128 * 32 + i % 32] >> @intCast(i % 128 / 32 * 2)) & 3);
        out.codes[i] = digit - 1;
    }
}

fn mxfp4(b: Bytes, out: *Affine) void {
    const e: u32 = b[0];
    const bits = if (e < 2) @as(u32, 0x00200000) << @intCast(e) else (e - 1) << 23; // 2^(e - 128)
    fill32(out, @bitCast(bits), no_min);
    table32(out, b + 1, &mxfp4_values);
}

/// Decodes one block of a block dtype into codes, scales and minima; only the first elements/16 entries are written.
pub fn affine(dtype: abi.Dtype, b: [*]const u8, out: *Affine) void {
    switch (dtype) {
        .q4_0 => {
            fill32(out, half(b), no_min);
            nibbles32(out, b + 2, 0, 8);
        },
        .q4_1 => {
            fill32(out, half(b), half(b + 2));
            nibbles32(out, b + 4, 0, 0);
        },
        .q5_0 => {
            fill32(out, half(b), no_min);
            nibbles32(out, b + 6, std.mem.readInt(u32, b[2..6], .little), 16);
        },
        .q5_1 => {
            fill32(out, half(b), half(b + 2));
            nibbles32(out, b + 8, std.mem.readInt(u32, b[4..8], .little), 0);
        },
        .q8_0 => q8_0(b, out),
        .q2_k => q2_k(b, out),
        .q3_k => q3_k(b, out),
        .q4_k => q4_k(b, out),
        .q5_k => q5_k(b, out),
        .q6_k => q6_k(b, out),
        .iq4_nl => {
            fill32(out, half(b), no_min);
            table32(out, b + 2, &iq4_values);
        },
        .iq4_xs => iq4_xs(b, out),
        .tq1_0 => tq1_0(b, out),
        .tq2_0 => tq2_0(b, out),
        .mxfp4 => mxfp4(b, out),
        else => unreachable, // callers ask isBlock first
    }
}

/// Dequantises one block into `out` (as many values as the block has elements).
pub fn decode(dtype: abi.Dtype, b: [*]const u8, out: [*]f32) void {
    var block: Affine = undefined;
    affine(dtype, b, &block);
    for (0..abi.blockInfo(dtype).?.elements) |i| out[i] = block.value(i);
}

/// Block types, for tests.
pub const all = [_]abi.Dtype{
    .q4_0, .q4_1, .q5_0,   .q5_1,   .q8_0,  .q2_k,  .q3_k,  .q4_k,
    .q5_k, .q6_k, .iq4_nl, .iq4_xs, .tq1_0, .tq2_0, .mxfp4,
};

test "any bytes decode" {
    var random = std.Random.DefaultPrng.init(7);
    for (all) |dtype| {
        for (0..200) |_| {
            var bytes: [256]u8 = undefined;
            random.random().bytes(&bytes);
            var out: [256]f32 = undefined;
            decode(dtype, &bytes, &out);
        }
    }
}

test "known blocks" {
    var out: [256]f32 = undefined;
    var b: [256]u8 = @splat(0);
    b[1] = 0x3c; // d = 1
    b[2] = 0xf3;
    decode(.q4_0, &b, &out);
    try std.testing.expectEqual(@as(f32, -5), out[0]);
    try std.testing.expectEqual(@as(f32, 7), out[16]);
    b[2] = 0x80;
    decode(.q8_0, &b, &out);
    try std.testing.expectEqual(@as(f32, -128), out[0]);
    b[0] = 128; // 2^0 doubled table halves it: code 2 is 1.0
    b[1] = 0x02;
    decode(.mxfp4, &b, &out);
    try std.testing.expectEqual(@as(f32, 2), out[0]);
}
