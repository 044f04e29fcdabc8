//! Op `pack_weight`: strided weights [n, k] into the panels of packed.zig.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const blocks = @import("blocks.zig");
const packed_weights = @import("packed.zig");
const Rows = @import("weights.zig").Rows;
const offset = @import("weights.zig").offset;

const Kind = packed_weights.Kind;
const panel = packed_weights.panel;

/// Inputs: w [n, k] strided f32, f16, bf16 or blocks. Output: panel16 [n, k]. Threads share the panels.
pub fn pack_weight(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    const desc = &cmd.inputs[0];
    const w = Rows.init(desc);
    const out: [*]u8 = @ptrFromInt(cmd.outputs[0].data);
    const share = ctx.range((w.rows + panel - 1) / panel, 1);
    const kind = packed_weights.kindOf(cmd.outputs[0].dtype).?;
    const bytes = packed_weights.panelBytes(kind, w.k);
    for (share.start..share.end) |p| packPanel(&w, kind, p, (out + p * bytes)[0..bytes]);
}

fn packPanel(w: *const Rows, kind: Kind, p: usize, out: []u8) void {
    const columns = @min(panel, w.rows - p * panel);
    switch (kind) {
        .f32 => packFloats(u32, w, p, columns, out),
        .f16, .bf16 => packFloats(u16, w, p, columns, out),
        inline else => |k| packBlocks(k, w, p, columns, out),
    }
}

/// All columns of 8 blocks before the next 8: what is written stays in the first-level cache.
fn packBlocks(comptime kind: Kind, w: *const Rows, p: usize, columns: usize, out: []u8) void {
    // Missing columns, and the padding of a panel.
    if (columns < panel) @memset(out, 0) else @memset(out[out.len - 64 ..], 0);
    const count = w.k / 32;
    var first: usize = 0;
    while (first < count) : (first += 8) {
        const end = @min(first + 8, count);
        for (0..columns) |c| {
            const row = w.row(p * panel + c);
            switch (kind) {
                .q4_0, .q5_0 => packNibbles(kind, row, first, end, c, out.ptr),
                .q8_0 => packBytes(row, first, end, c, out.ptr),
                .q4_k => packQ4K(row, first / 8, c, out.ptr),
                .q6_k => packQ6K(row, first / 8, c, out.ptr),
                .q8_g16 => packGroups(w.dtype, row, first, end, c, out.ptr),
                else => comptime unreachable,
            }
        }
    }
}

fn packFloats(comptime T: type, w: *const Rows, p: usize, columns: usize, out: []u8) void {
    const values: [*]T = @ptrCast(@alignCast(out.ptr));
    var rows: [panel][*]const u8 = undefined;
    for (0..columns) |c| rows[c] = w.row(p * panel + c);
    for (0..w.k) |i| {
        const at = @as(isize, @intCast(i)) * w.item_bytes;
        for (0..columns) |c| values[i * panel + c] = std.mem.readInt(T, offset(rows[c], at)[0..@sizeOf(T)], .little);
        for (columns..panel) |c| values[i * panel + c] = 0;
    }
    @memset(out[w.k * panel * @sizeOf(T) ..], 0);
}

inline fn load32(p: [*]const u8) u32 {
    return std.mem.readInt(u32, p[0..4], .little);
}

inline fn store32(p: [*]u8, value: u32) void {
    std.mem.writeInt(u32, p[0..4], value, .little);
}

/// q4_0 and q5_0: the source's nibble pairs (elements i and 16 + i) are the packed pairs (k-steps j and j + 4).
fn packNibbles(comptime kind: Kind, row: [*]const u8, first: usize, end: usize, c: usize, out: [*]u8) void {
    const f = comptime packed_weights.form(kind);
    const header = if (kind == .q5_0) 6 else 2;
    for (first..end) |b| {
        const block = row + b * (header + 16);
        const codes = out + f.blockAt(b) + c * 4;
        @memcpy((out + f.blockAt(b) + f.code_bytes + c * 2)[0..2], block[0..2]);
        for (0..4) |j| store32(codes + j * 64, load32(block + header + j * 4));
        if (kind == .q5_0) {
            const high = load32(block + 2);
            for (0..4) |i| {
                var bits: u8 = 0;
                for (0..8) |s| bits |= @as(u8, @intCast((high >> @intCast(4 * s + i)) & 1)) << @intCast(s);
                codes[256 + i] = bits;
            }
        }
    }
}

fn packBytes(row: [*]const u8, first: usize, end: usize, c: usize, out: [*]u8) void {
    const f = comptime packed_weights.form(.q8_0);
    for (first..end) |b| {
        const block = row + b * 34;
        @memcpy((out + f.blockAt(b) + f.code_bytes + c * 2)[0..2], block[0..2]);
        for (0..8) |s| store32(out + f.blockAt(b) + s * 64 + c * 4, load32(block + 2 + s * 4) ^ 0x80808080);
    }
}

/// A source chunk of 32 bytes holds sub-block 2n in its low and 2n + 1 in its high nibbles.
fn packQ4K(row: [*]const u8, super: usize, c: usize, out: [*]u8) void {
    const f = comptime packed_weights.form(.q4_k);
    const block = row + super * 144;
    const super_record = out + f.superAt(super * 8) + c * 2;
    @memcpy(super_record[0..2], block[0..2]);
    @memcpy((super_record + 32)[0..2], block[2..4]);
    for (0..8) |sub| {
        const target = out + f.blockAt(super * 8 + sub);
        target[f.code_bytes + c], target[f.code_bytes + 16 + c] = blocks.scaleMin(block + 4, sub);
        const shift: u5 = @intCast(sub % 2 * 4);
        for (0..4) |j| {
            const chunk = block + 16 + sub / 2 * 32 + j * 4;
            const low = (load32(chunk) >> shift) & 0x0f0f0f0f;
            const high = (load32(chunk + 16) >> shift) & 0x0f0f0f0f;
            store32(target + j * 64 + c * 4, low | high << 4);
        }
    }
}

fn packQ6K(row: [*]const u8, super: usize, c: usize, out: [*]u8) void {
    const f = comptime packed_weights.form(.q6_k);
    const block = row + super * 210;
    @memcpy((out + f.superAt(super * 8) + c * 2)[0..2], block[208..210]);
    for (0..8) |sub| {
        const target = out + f.blockAt(super * 8 + sub);
        target[f.code_bytes + c] = block[192 + sub * 2];
        target[f.code_bytes + 16 + c] = block[192 + sub * 2 + 1];
        const codes = target + c * 4;
        const nibbles = block + sub / 4 * 64 + sub % 2 * 32;
        const shift: u5 = @intCast(sub % 4 / 2 * 4);
        const planes = block + 128 + sub / 4 * 32;
        const plane_shift: u5 = @intCast(sub % 4 * 2);
        for (0..4) |j| {
            const low = (load32(nibbles + j * 4) >> shift) & 0x0f0f0f0f;
            const high = (load32(nibbles + 16 + j * 4) >> shift) & 0x0f0f0f0f;
            store32(codes + j * 64, low | high << 4);
        }
        for (0..2) |p| {
            var bits: u32 = 0;
            for (0..4) |r| bits |= ((load32(planes + p * 16 + r * 4) >> plane_shift) & 0x03030303) << @intCast(2 * r);
            store32(codes + 256 + p * 64, bits);
        }
    }
}

fn packGroups(dtype: abi.Dtype, row: [*]const u8, first: usize, end: usize, c: usize, out: [*]u8) void {
    const f = comptime packed_weights.form(.q8_g16);
    const info = abi.blockInfo(dtype).?;
    var block: blocks.Affine = undefined;
    for (first * 32 / info.elements..end * 32 / info.elements) |source| {
        blocks.affine(dtype, row + source * info.bytes, &block);
        for (0..info.elements / 32) |sub| {
            const target = out + f.blockAt(source * (info.elements / 32) + sub);
            for (0..2) |g| {
                const record = target + f.code_bytes + g * 128 + c * 4;
                store32(record, @bitCast(block.scale[sub * 2 + g]));
                store32(record + 64, @bitCast(block.min[sub * 2 + g]));
            }
            for (0..8) |s| {
                const four: u32 = @bitCast(block.codes[sub * 32 + s * 4 ..][0..4].*);
                store32(target + s * 64 + c * 4, four ^ 0x80808080);
            }
        }
    }
}

const testing = @import("linear_testing.zig");

test "packed weights dequantise to the bits of the decoders" {
    const gpa = std.testing.allocator;
    var random = std.Random.DefaultPrng.init(3);
    for ([_]usize{ 1, 3, 15, 16, 17, 33 }) |n| {
        for (testing.weight_dtypes) |dtype| {
            for ([_]u32{ 1, 2, 3 }) |threads| {
                const k: usize = switch (abi.blockInfo(dtype).?.elements) {
                    1 => 37,
                    32 => 13 * 32,
                    else => 512,
                };
                var w = try testing.Weights.init(gpa, dtype, n, k, random.random(), true);
                defer w.deinit();
                try w.pack(threads);
                const kind = packed_weights.kindOf(w.packed_desc.dtype).?;
                var want: [512]f32 = undefined;
                const rows = Rows.init(&w.desc);
                for (0..n) |r| {
                    rows.decodeRow(r, want[0..k]);
                    const base = w.packed_bytes.ptr + r / 16 * packed_weights.panelBytes(kind, k);
                    switch (kind) {
                        .f32, .f16, .bf16 => for (0..k) |i| {
                            const size = abi.blockInfo(dtype).?.bytes;
                            const got = @import("weights.zig").loadFloat(dtype, base + (i * 16 + r % 16) * size);
                            try testing.expectBits(want[i], got);
                        },
                        inline else => |q| for (0..k / 32) |b| {
                            const p = packed_weights.Panel(q).init(base);
                            var column: [32]f32 = undefined;
                            p.column(b, r % 16, &column);
                            var all: [32 * 16]f32 = undefined;
                            p.dequantize(b, &all);
                            for (0..32) |i| {
                                try testing.expectBits(want[b * 32 + i], column[i]);
                                try testing.expectBits(want[b * 32 + i], all[i * 16 + r % 16]);
                            }
                        },
                    }
                }
            }
        }
    }
}
