//! Rows of the compute-bound kernels: attention (decode by the bytes of keys and values read, prefill by operations) and matmul.

const std = @import("std");
const abi = @import("abi");
const testing = @import("testing.zig");
const Bench = @import("bench.zig").Bench;
const attention = @import("attention.zig");
const kv_page = @import("kv_page.zig");
const matmul = @import("matmul.zig");

const Shape = struct { heads: usize, kv_heads: usize, head_dim: usize };
const page_size = 64;

const Form = kv_page.Form;

pub fn run(b: *Bench) !void {
    const shapes = [_]Shape{
        .{ .heads = 16, .kv_heads = 8, .head_dim = 128 },
        .{ .heads = 14, .kv_heads = 2, .head_dim = 64 },
        .{ .heads = 8, .kv_heads = 8, .head_dim = 64 },
    };
    for (shapes) |s| for (std.enums.values(Form)) |form| {
        for ([_]usize{ 512, 4096, 16_384 }) |length| try cached(b, form, s, length - 1, 1, 0);
        for ([_]i64{ 0, 1 }) |int8| {
            try cached(b, form, s, 0, 512, int8);
            try cached(b, form, s, 3584, 512, int8);
        }
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

/// A cache of `count` pages in order, filled with normal numbers.
fn filled(b: *Bench, form: Form, layout: abi.Layout, s: Shape, count: usize) !abi.TensorDesc {
    const page: kv_page.Page = .{ .form = form, .layout = if (form.isFloat()) .strided else layout, .page_size = page_size, .head_dim = s.head_dim };
    const memory = try b.gpa.alignedAlloc(u8, .@"64", count * s.kv_heads * page.bytes());
    var random: std.Random.DefaultPrng = .init(count);
    var row: [256]f32 = undefined;
    for (0..count * s.kv_heads * page_size) |i| {
        for (row[0..s.head_dim]) |*x| x.* = random.random().floatNorm(f32);
        page.write(memory.ptr + i / page_size * page.bytes(), i % page_size, &row, null);
    }
    var desc = testing.dense(&.{ count, s.kv_heads, page_size, s.head_dim });
    desc.data = @intFromPtr(memory.ptr);
    desc.dtype = @intFromEnum(form.dtype());
    desc.layout = @intFromEnum(page.layout);
    return desc;
}

fn cached(b: *Bench, form: Form, s: Shape, position: usize, tokens: usize, int8: i64) !void {
    const format = "attention {s} {s} {d}/{d}x{d} at {d}";
    const phase = if (tokens == 1) "decode" else if (int8 == 1) "prefill i8" else "prefill";
    const name = try std.fmt.allocPrint(b.gpa, format, .{ phase, @tagName(form), s.heads, s.kv_heads, s.head_dim, position });
    if (!b.wants(name)) return;
    const count = (position + tokens + page_size - 1) / page_size;
    const k = try filled(b, form, .kv_keys, s, count);
    const v = try filled(b, form, .kv_values, s, count);
    const pages = try b.tensor(i32, &.{count});
    for (@as([*]i32, @ptrFromInt(@as(usize, @intCast(pages.data))))[0..count], 0..) |*p, i| p.* = @intCast(i);
    const q = try b.tensor(f32, &.{ tokens, s.heads, s.head_dim });
    const out = try b.tensor(f32, &.{ tokens, s.heads, s.head_dim });
    var cmd = testing.command(&.{ q, k, v, pages }, &.{out});
    cmd.ints[0] = @intCast(position);
    cmd.ints[2] = int8;
    cmd.floats[0] = 0.1;
    const page = kv_page.Page.init(&k);
    const bytes = 2 * (position + 1) * s.kv_heads * page.bytes() / page_size;
    // Visible keys of all tokens, two products of 2 * head_dim operations each.
    const flops = (tokens * position + tokens * (tokens + 1) / 2) * s.heads * s.head_dim * 4;
    const Work = @import("bench.zig").Work;
    const work: Work = if (tokens == 1) .{ .bytes = bytes } else .{ .flops = flops };
    try b.row(name, work, attention.attention, attention.attention_workspace, &cmd);
}
