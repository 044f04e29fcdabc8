//! What the tests and benchmarks of the linear kernels have beyond `testing.zig`: random weights of every dtype, packed.

const std = @import("std");
const abi = @import("abi");
const packed_weights = @import("packed.zig");
const blocks = @import("blocks.zig");
const testing = @import("testing.zig");

pub const weight_dtypes = [_]abi.Dtype{ .f32, .f16, .bf16 } ++ blocks.all;

pub const describe = testing.describe;
pub const run = testing.run;

pub fn expectBits(want: f32, got: f32) !void {
    try testing.expectBits(&.{want}, &.{got});
}

pub const Weights = struct {
    gpa: std.mem.Allocator,
    bytes: []align(64) u8,
    packed_bytes: []align(64) u8,
    desc: abi.TensorDesc,
    packed_desc: abi.TensorDesc,

    /// Random weights; `odd` also makes subnormal and zero scales, else values are of the order of 1/16.
    pub fn init(gpa: std.mem.Allocator, dtype: abi.Dtype, n: usize, k: usize, random: std.Random, odd: bool) !Weights {
        const info = abi.blockInfo(dtype).?;
        const bytes = try gpa.alignedAlloc(u8, .@"64", n * k / info.elements * info.bytes);
        random.bytes(bytes);
        for (0..n * k / info.elements) |b| tame(dtype, bytes[b * info.bytes ..][0..info.bytes], random, odd);
        var packed_dtype: u32 = 0;
        const size = packed_weights.packedBytes(dtype, n, k, &packed_dtype);
        const packed_bytes = try gpa.alignedAlloc(u8, .@"64", @intCast(size));
        var packed_desc = describe(@enumFromInt(packed_dtype), @intFromPtr(packed_bytes.ptr), &.{ n, k });
        packed_desc.layout = @intFromEnum(abi.Layout.panel16);
        return .{
            .gpa = gpa,
            .bytes = bytes,
            .packed_bytes = packed_bytes,
            .desc = describe(dtype, @intFromPtr(bytes.ptr), &.{ n, k }),
            .packed_desc = packed_desc,
        };
    }

    pub fn deinit(self: *Weights) void {
        self.gpa.free(self.bytes);
        self.gpa.free(self.packed_bytes);
    }

    pub fn pack(self: *Weights, threads: u32) !void {
        var cmd: abi.Command = .{ .input_count = 1, .output_count = 1 };
        cmd.inputs[0] = self.desc;
        cmd.outputs[0] = self.packed_desc;
        try run(@import("pack.zig").pack_weight, null, &cmd, threads);
    }
};

/// Puts sensible scales into a block of random bytes.
fn tame(dtype: abi.Dtype, block: []u8, random: std.Random, odd: bool) void {
    const half_at: []const usize = switch (dtype) {
        .q4_0, .q5_0, .q8_0, .iq4_nl, .iq4_xs => &.{0},
        .q4_1, .q5_1, .q4_k, .q5_k => &.{ 0, 2 },
        .q2_k => &.{ 80, 82 },
        .q3_k => &.{108},
        .q6_k => &.{208},
        .tq1_0 => &.{52},
        .tq2_0 => &.{64},
        else => &.{},
    };
    const k_quant: f32 = if (block.len > 64) 1.0 / 64.0 else 1;
    for (half_at) |at| {
        const value: f16 = @floatCast((random.float(f32) - 0.5) / 64 * k_quant);
        const bits: u16 = if (odd and random.uintLessThan(u8, 4) == 0) random.uintAtMost(u16, 0x3ff) else @bitCast(value);
        std.mem.writeInt(u16, block[at..][0..2], bits, .little);
    }
    const float = random.float(f32) - 0.5;
    switch (dtype) {
        .f32 => std.mem.writeInt(u32, block[0..4], @bitCast(float), .little),
        .f16 => std.mem.writeInt(u16, block[0..2], @bitCast(@as(f16, @floatCast(float))), .little),
        .bf16 => std.mem.writeInt(u16, block[0..2], @intCast(@as(u32, @bitCast(float)) >> 16), .little),
        .mxfp4 => block[0] = if (odd) random.uintAtMost(u8, 130) else 120,
        else => {},
    }
}
