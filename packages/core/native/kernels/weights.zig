//! Rows of a strided weight or activation table in any source dtype, read as raw bytes (mapped files align nothing).

const std = @import("std");
const abi = @import("abi");
const blocks = @import("blocks.zig");
const packed_weights = @import("packed.zig");

/// A [rows, k] view of a descriptor of rank 1 or 2 (leading dims of a higher rank are merged and must be contiguous).
pub const Rows = struct {
    base: [*]const u8,
    dtype: abi.Dtype,
    rows: usize,
    k: usize,
    /// Bytes from row to row and from element to element (blocks: from block to block).
    row_bytes: isize,
    item_bytes: isize,

    pub fn init(desc: *const abi.TensorDesc) Rows {
        const dtype: abi.Dtype = @enumFromInt(desc.dtype);
        const info = abi.blockInfo(dtype).?;
        const rank = desc.rank;
        var rows: usize = 1;
        for (desc.shape[0..rank -| 1]) |n| rows *= @intCast(n);
        const unit: isize = @intCast(info.bytes);
        // A single row may have any stride.
        const stride = if (rank > 1 and desc.shape[rank - 2] > 1) @divExact(desc.strides[rank - 2], @as(i64, info.elements)) else 0;
        const item = if (info.elements > 1) 1 else desc.strides[rank - 1];
        return .{
            .base = @ptrFromInt(desc.data),
            .dtype = dtype,
            .rows = rows,
            .k = @intCast(desc.shape[rank - 1]),
            .row_bytes = @as(isize, @intCast(stride)) * unit,
            .item_bytes = @as(isize, @intCast(item)) * unit,
        };
    }

    pub fn row(self: *const Rows, r: usize) [*]const u8 {
        return offset(self.base, @as(isize, @intCast(r)) * self.row_bytes);
    }

    pub fn isBlocks(self: *const Rows) bool {
        return blocks.isBlock(self.dtype);
    }

    /// Row `r` as f32; `out` has k values.
    pub fn decodeRow(self: *const Rows, r: usize, out: []f32) void {
        const base = self.row(r);
        if (self.isBlocks()) {
            const info = abi.blockInfo(self.dtype).?;
            for (0..self.k / info.elements) |b| blocks.decode(self.dtype, base + b * info.bytes, out.ptr + b * info.elements);
        } else for (out, 0..) |*value, i| {
            value.* = loadFloat(self.dtype, offset(base, @as(isize, @intCast(i)) * self.item_bytes));
        }
    }
};

/// Row `n` of packed weights [.., k] as f32, from element `from` on; in quantised kinds whole blocks of 32.
pub fn decodePacked(kind: packed_weights.Kind, base: [*]const u8, n: usize, k: usize, from: usize, out: []f32) void {
    const panel = base + n / packed_weights.panel * packed_weights.panelBytes(kind, k);
    const column = n % packed_weights.panel;
    switch (kind) {
        inline .f32, .f16, .bf16 => |float| {
            const dtype = @field(abi.Dtype, @tagName(float));
            const size = comptime abi.blockInfo(dtype).?.bytes;
            for (out, from..) |*value, i| value.* = loadFloat(dtype, panel + (i * packed_weights.panel + column) * size);
        },
        inline else => |quantised| {
            const p = packed_weights.Panel(quantised).init(panel);
            for (0..out.len / 32) |b| p.column(from / 32 + b, column, out[b * 32 ..][0..32]);
        },
    }
}

pub inline fn offset(base: [*]const u8, bytes: isize) [*]const u8 {
    return @ptrFromInt(@intFromPtr(base) +% @as(usize, @bitCast(bytes)));
}

/// One f32, f16 or bf16 as f32.
pub inline fn loadFloat(dtype: abi.Dtype, p: [*]const u8) f32 {
    return switch (dtype) {
        .f32 => @bitCast(std.mem.readInt(u32, p[0..4], .little)),
        .f16 => @as(f16, @bitCast(std.mem.readInt(u16, p[0..2], .little))),
        .bf16 => @bitCast(@as(u32, std.mem.readInt(u16, p[0..2], .little)) << 16),
        else => unreachable, // blocks are decoded apart, and nothing else is a weight
    };
}
