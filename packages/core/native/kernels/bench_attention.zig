//! Rows of the compute-bound kernels: attention (decode by the bytes of keys and values read, prefill by operations) and matmul.

const std = @import("std");
const testing = @import("testing.zig");
const Bench = @import("bench.zig").Bench;
const attention = @import("attention.zig");
const matmul = @import("matmul.zig");

const Shape = struct { heads: usize, kv_heads: usize, head_dim: usize };
const page_size = 64;

pub fn run(b: *Bench) !void {
    const shapes = [_]Shape{
        .{ .heads = 16, .kv_heads = 8, .head_dim = 128 },
        .{ .heads = 14, .kv_heads = 2, .head_dim = 64 },
        .{ .heads = 8, .kv_heads = 8, .head_dim = 64 },
    };
    for (shapes) |s| inline for (.{ f32, f16 }) |T| {
        for ([_]usize{ 512, 4096, 16_384 }) |length| try cached(b, T, s, length - 1, 1);
        try cached(b, T, s, 0, 512);
        try cached(b, T, s, 3584, 512);
    };
    for ([_][3]usize{ .{ 512, 512, 64 }, .{ 512, 64, 512 }, .{ 512, 512, 512 }, .{ 1, 512, 128 } }) |s| {
        const a = try b.tensor(f32, &.{ 4, s[0], s[2] });
        const c = try b.tensor(f32, &.{ 4, s[2], s[1] });
        const out = try b.tensor(f32, &.{ 4, s[0], s[1] });
        const cmd = testing.command(&.{ a, c }, &.{out});
        const name = try std.fmt.allocPrint(b.gpa, "matmul 4 x [{d}, {d}, {d}]", .{ s[0], s[1], s[2] });
        try b.row(name, .{ .flops = 4 * 2 * s[0] * s[1] * s[2] }, matmul.matmul, matmul.matmul_workspace, &cmd);
    }
}

fn cached(b: *Bench, comptime T: type, s: Shape, position: usize, tokens: usize) !void {
    const format = "attention {s} {s} {d}/{d}x{d} at {d}";
    const phase = if (tokens == 1) "decode" else "prefill";
    const name = try std.fmt.allocPrint(b.gpa, format, .{ phase, @typeName(T), s.heads, s.kv_heads, s.head_dim, position });
    if (!b.wants(name)) return;
    const count = (position + tokens + page_size - 1) / page_size;
    const k = try b.tensor(T, &.{ count, s.kv_heads, page_size, s.head_dim });
    const v = try b.tensor(T, &.{ count, s.kv_heads, page_size, s.head_dim });
    const pages = try b.tensor(i32, &.{count});
    for (@as([*]i32, @ptrFromInt(@as(usize, @intCast(pages.data))))[0..count], 0..) |*p, i| p.* = @intCast(i);
    const q = try b.tensor(f32, &.{ tokens, s.heads, s.head_dim });
    const out = try b.tensor(f32, &.{ tokens, s.heads, s.head_dim });
    var cmd = testing.command(&.{ q, k, v, pages }, &.{out});
    cmd.ints[0] = @intCast(position);
    cmd.floats[0] = 0.1;
    const bytes = 2 * (position + 1) * s.kv_heads * s.head_dim * @sizeOf(T);
    // Visible keys of all tokens, two products of 2 * head_dim operations each.
    const flops = (tokens * position + tokens * (tokens + 1) / 2) * s.heads * s.head_dim * 4;
    const Work = @import("bench.zig").Work;
    const work: Work = if (tokens == 1) .{ .bytes = bytes } else .{ .flops = flops };
    try b.row(name, work, attention.attention, attention.attention_workspace, &cmd);
}
