//! Op `embedding`: rows of a table as f32, from strided tables (floats or blocks) and from packed weights.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const packed_weights = @import("packed.zig");
const weights = @import("weights.zig");
const offset = weights.offset;

/// Inputs: ids i32 [tokens], table [n, k]. Output: f32 [tokens, k], contiguous rows. Threads share the tokens.
pub fn embedding(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    const ids = &cmd.inputs[0];
    const table = &cmd.inputs[1];
    const out = &cmd.outputs[0];
    const tokens: usize = @intCast(ids.shape[0]);
    const id_stride: isize = @intCast(ids.strides[0]);
    const out_stride: isize = @intCast(out.strides[0]);
    const k: usize = @intCast(table.shape[1]);
    const is_packed = table.layout == @intFromEnum(abi.Layout.panel16);
    const share = ctx.range(tokens, 1);
    for (share.start..share.end) |t| {
        const i: isize = @intCast(t);
        const id = std.mem.readInt(i32, offset(@ptrFromInt(ids.data), i * id_stride * 4)[0..4], .little);
        if (id < 0 or id >= table.shape[0]) return ctx.fail("an id is outside of the table");
        const row: [*]f32 = @ptrCast(@alignCast(@constCast(offset(@ptrFromInt(out.data), i * out_stride * 4))));
        if (is_packed) {
            weights.decodePacked(packed_weights.kindOf(table.dtype).?, @ptrFromInt(table.data), @intCast(id), k, 0, row[0..k]);
        } else {
            const rows = weights.Rows.init(table);
            rows.decodeRow(@intCast(id), row[0..k]);
        }
    }
}

const testing = @import("linear_testing.zig");

test "embedding reads strided and packed tables alike and refuses ids outside" {
    const gpa = std.testing.allocator;
    var prng = std.Random.DefaultPrng.init(21);
    for (testing.weight_dtypes) |dtype| {
        const k: usize = if (@import("blocks.zig").isBlock(dtype)) 512 else 37;
        const n = 35;
        var w = try testing.Weights.init(gpa, dtype, n, k, prng.random(), true);
        defer w.deinit();
        try w.pack(2);
        const ids = [_]i32{ 34, 0, 16, 16, 7 };
        var out: [ids.len * 512]f32 = undefined;
        var want: [512]f32 = undefined;
        for ([_]*const abi.TensorDesc{ &w.desc, &w.packed_desc }) |table| for ([_]u32{ 1, 2, 3 }) |threads| {
            var cmd: abi.Command = .{ .input_count = 2, .output_count = 1 };
            cmd.inputs[0] = testing.describe(.i32, @intFromPtr(&ids), &.{ids.len});
            cmd.inputs[1] = table.*;
            cmd.outputs[0] = testing.describe(.f32, @intFromPtr(&out), &.{ ids.len, k });
            try testing.run(embedding, null, &cmd, threads);
            for (ids, 0..) |id, t| {
                weights.Rows.init(&w.desc).decodeRow(@intCast(id), want[0..k]);
                for (want[0..k], out[t * k ..][0..k]) |a, b| try testing.expectBits(a, b);
            }
            for ([_]i32{ -1, n, std.math.maxInt(i32), std.math.minInt(i32) }) |bad| {
                const wrong = [_]i32{ 1, bad };
                cmd.inputs[0] = testing.describe(.i32, @intFromPtr(&wrong), &.{2});
                cmd.outputs[0] = testing.describe(.f32, @intFromPtr(&out), &.{ 2, k });
                try std.testing.expectError(error.KernelFailed, testing.run(embedding, null, &cmd, threads));
            }
        };
    }
}
