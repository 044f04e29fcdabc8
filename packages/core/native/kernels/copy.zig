//! Op `copy`: strided views between f32, f16 and bf16 (round to nearest even) or of one dtype as it is; block dtypes,
//! packed weights and quantised caches are dequantised.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const blocks = @import("blocks.zig");
const packed_weights = @import("packed.zig");
const weights = @import("weights.zig");
const Page = @import("kv_page.zig").Page;
const offset = weights.offset;

/// f32 to bf16, round to nearest even; a NaN stays a (quiet) NaN.
pub fn toBf16(value: f32) u16 {
    const bits: u32 = @bitCast(value);
    if (std.math.isNan(value)) return @intCast(bits >> 16 | 0x40);
    return @intCast((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/// Inputs: x, any view. Output: the same shape, strided. Threads share the rows (all but the last dim).
pub fn copy(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    const x = &cmd.inputs[0];
    const out = &cmd.outputs[0];
    const from = source(x);
    var rows: usize = 1;
    for (x.shape[0 .. x.rank - 1]) |n| rows *= @intCast(n);
    const k: usize = @intCast(x.shape[x.rank - 1]);
    const share = ctx.range(rows, 1);
    for (share.start..share.end) |r| copyRow(from, x, out, r, k);
}

const Source = union(enum) {
    /// The same dtype on both sides; the value is the element's size in bytes.
    raw: usize,
    float: abi.Dtype,
    block: abi.Dtype,
    packed_kind: packed_weights.Kind,
    cache: Page,
};

fn source(x: *const abi.TensorDesc) Source {
    if (x.layout > @intFromEnum(abi.Layout.panel16)) return .{ .cache = .init(x) };
    if (x.layout == @intFromEnum(abi.Layout.panel16)) return .{ .packed_kind = packed_weights.kindOf(x.dtype).? };
    const dtype: abi.Dtype = @enumFromInt(x.dtype);
    const info = abi.blockInfo(dtype).?;
    if (info.elements > 1) return .{ .block = dtype };
    return if (abi.isFloat(dtype)) .{ .float = dtype } else .{ .raw = info.bytes };
}

/// Elements from the start of a view to its row `r`.
fn rowStart(desc: *const abi.TensorDesc, r: usize) isize {
    var rest = r;
    var at: isize = 0;
    var dim = desc.rank - 1;
    while (dim > 0) {
        dim -= 1;
        const n: usize = @intCast(desc.shape[dim]);
        at += @as(isize, @intCast(rest % n)) * @as(isize, @intCast(desc.strides[dim]));
        rest /= n;
    }
    return at;
}

fn lastStride(desc: *const abi.TensorDesc) isize {
    return @intCast(desc.strides[desc.rank - 1]);
}

const chunk = abi.kv_head_dim_max;

fn copyRow(from: Source, x: *const abi.TensorDesc, out: *const abi.TensorDesc, r: usize, k: usize) void {
    const base: [*]const u8 = @ptrFromInt(x.data);
    const size: usize = switch (from) {
        .raw => |bytes| bytes,
        .float => |dtype| abi.blockInfo(dtype).?.bytes,
        .block, .packed_kind, .cache => {
            copyBlocks(from, x, out, r, k);
            return;
        },
    };
    const out_size: usize = abi.blockInfo(@enumFromInt(out.dtype)).?.bytes;
    const src = offset(base, rowStart(x, r) * @as(isize, @intCast(size)));
    const dst = @constCast(offset(@ptrFromInt(out.data), rowStart(out, r) * @as(isize, @intCast(out_size))));
    const src_step = lastStride(x) * @as(isize, @intCast(size));
    const dst_step = lastStride(out) * @as(isize, @intCast(out_size));
    if (x.dtype == out.dtype) {
        if (src_step == size and dst_step == size) {
            @memmove(dst[0 .. k * size], src[0 .. k * size]);
        } else for (0..k) |i| {
            const n: isize = @intCast(i);
            @memmove(@constCast(offset(dst, n * dst_step))[0..size], offset(src, n * src_step)[0..size]);
        }
        return;
    }
    switch (from.float) {
        inline .f32, .f16, .bf16 => |dtype| for (0..k) |i| {
            const n: isize = @intCast(i);
            store(out.dtype, @constCast(offset(dst, n * dst_step)), weights.loadFloat(dtype, offset(src, n * src_step)));
        },
        else => unreachable,
    }
}

fn copyBlocks(from: Source, x: *const abi.TensorDesc, out: *const abi.TensorDesc, r: usize, k: usize) void {
    const base: [*]const u8 = @ptrFromInt(x.data);
    const out_size: usize = abi.blockInfo(@enumFromInt(out.dtype)).?.bytes;
    const dst = offset(@ptrFromInt(out.data), rowStart(out, r) * @as(isize, @intCast(out_size)));
    const step = lastStride(out) * @as(isize, @intCast(out_size));
    var values: [chunk]f32 = undefined;
    var at: usize = 0;
    while (at < k) {
        const n: usize = switch (from) {
            .block => |dtype| blk: {
                const info = abi.blockInfo(dtype).?;
                const row = @divExact(rowStart(x, r), @as(isize, info.elements)) * @as(isize, info.bytes);
                blocks.decode(dtype, offset(base, row) + at / info.elements * info.bytes, &values);
                break :blk info.elements;
            },
            .packed_kind => |kind| blk: {
                const n = @min(32, k - at);
                weights.decodePacked(kind, base, r, k, at, values[0..n]);
                break :blk n;
            },
            .cache => |page| blk: {
                page.read(base + r / page.page_size * page.bytes(), r % page.page_size, &values);
                break :blk k;
            },
            else => unreachable,
        };
        for (values[0..n], at..) |value, i| store(out.dtype, @constCast(offset(dst, @as(isize, @intCast(i)) * step)), value);
        at += n;
    }
}

fn store(dtype: u32, p: [*]u8, value: f32) void {
    switch (dtype) {
        @intFromEnum(abi.Dtype.f32) => std.mem.writeInt(u32, p[0..4], @bitCast(value), .little),
        @intFromEnum(abi.Dtype.f16) => std.mem.writeInt(u16, p[0..2], @bitCast(@as(f16, @floatCast(value))), .little),
        @intFromEnum(abi.Dtype.bf16) => std.mem.writeInt(u16, p[0..2], toBf16(value), .little),
        else => unreachable, // checked before
    }
}

const testing = @import("linear_testing.zig");

test "copy of strided views of every plain dtype" {
    var src: [4 * 5 * 6 * 8]u8 align(8) = undefined;
    for (&src, 0..) |*b, i| b.* = @truncate(i * 37);
    for ([_]abi.Dtype{ .i8, .u8, .i16, .i32, .i64, .f64, .f32, .f16 }) |dtype| {
        const size = abi.blockInfo(dtype).?.bytes;
        for ([_]u32{ 1, 2, 3 }) |threads| {
            var out: [src.len]u8 align(8) = @splat(0);
            var cmd: abi.Command = .{ .input_count = 1, .output_count = 1 };
            cmd.inputs[0] = testing.describe(dtype, @intFromPtr(&src), &.{ 6, 4, 5 });
            cmd.inputs[0].strides = .{ 1, 30, 6, 0 }; // a permuted view of [4, 5, 6]
            cmd.outputs[0] = testing.describe(dtype, @intFromPtr(&out), &.{ 6, 4, 5 });
            try testing.run(copy, null, &cmd, threads);
            for (0..6) |i| for (0..4) |j| for (0..5) |l| {
                const got = out[((i * 4 + j) * 5 + l) * size ..][0..size];
                try std.testing.expectEqualSlices(u8, src[(i + 30 * j + 6 * l) * size ..][0..size], got);
            };
        }
    }
}

test "copy converts between floats and dequantises" {
    const gpa = std.testing.allocator;
    var prng = std.Random.DefaultPrng.init(31);
    const random = prng.random();
    const inf = std.math.inf(f32);
    const nan = std.math.nan(f32);
    const values = [_]f32{ 1.00390625, 1.01171875, -3.4e38, 65519.9, 65520, 1e-7, -0.0, inf, nan, 3.1415927, 5.9604645e-8, 1.0019531 };
    const want_bf16 = [_]u16{ 0x3f80, 0x3f82, 0xff80, 0x4780, 0x4780, 0x33d7, 0x8000, 0x7f80, 0x7fc0, 0x4049, 0x3380, 0x3f80 };
    const want_f16 = [_]u16{ 0x3c04, 0x3c0c, 0xfc00, 0x7bff, 0x7c00, 0x0002, 0x8000, 0x7c00, 0x7e00, 0x4248, 0x0001, 0x3c02 };
    var out: [values.len]u16 = undefined;
    var cmd: abi.Command = .{ .input_count = 1, .output_count = 1 };
    cmd.inputs[0] = testing.describe(.f32, @intFromPtr(&values), &.{values.len});
    inline for (.{ .{ abi.Dtype.bf16, want_bf16 }, .{ abi.Dtype.f16, want_f16 } }) |case| {
        cmd.outputs[0] = testing.describe(case[0], @intFromPtr(&out), &.{values.len});
        try testing.run(copy, null, &cmd, 1);
        try std.testing.expectEqualSlices(u16, &@as([values.len]u16, case[1]), &out);
    }
    for (testing.weight_dtypes) |dtype| {
        const k: usize = if (blocks.isBlock(dtype)) 512 else 37;
        var w = try testing.Weights.init(gpa, dtype, 19, k, random, true);
        defer w.deinit();
        try w.pack(1);
        var got: [19 * 512]f32 = undefined;
        var want: [512]f32 = undefined;
        for ([_]*const abi.TensorDesc{ &w.desc, &w.packed_desc }) |x| {
            cmd.inputs[0] = x.*;
            cmd.outputs[0] = testing.describe(.f32, @intFromPtr(&got), &.{ 19, k });
            try testing.run(copy, null, &cmd, 2);
            for (0..19) |r| {
                weights.Rows.init(&w.desc).decodeRow(r, want[0..k]);
                for (want[0..k], got[r * k ..][0..k]) |a, b| try testing.expectBits(a, b);
            }
        }
    }
}
