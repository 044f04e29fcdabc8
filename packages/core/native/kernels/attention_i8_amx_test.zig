//! Attention in int8 on AMX tiles has the bits of the same on vectors.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const cases = @import("attention_testing.zig");
const dots = @import("attention_i8_dot.zig");
const integer = @import("attention_i8.zig");
const kv_page = @import("kv_page.zig");
const prepare = @import("amx_testing.zig").prepare;
const testing = @import("testing.zig");
const tiles = @import("attention_i8_amx.zig");

const Form = kv_page.Form;
const Options = cases.Options;

const allocator = std.testing.allocator;

/// The kernel with one kind of products.
fn With(comptime Products: type) type {
    return struct {
        fn kernel(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
            integer.runWith(Products, ctx, cmd);
        }

        fn workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
            return integer.workspaceOf(Products, cmd, threads);
        }

        /// Tokens from `first` on.
        fn run(case: *const cases.Case, first: usize, threads: u32) ![]f32 {
            const o = case.o;
            const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, .dense);
            defer out.deinit();
            const cmd = case.command(first, o.context, &out);
            try std.testing.expect(integer.applies(&cmd));
            try testing.run(kernel, workspace, &cmd, threads);
            return out.read();
        }
    };
}

fn expectSame(case: *const cases.Case, first: usize, threads: u32) !void {
    const expected = try With(dots).run(case, first, threads);
    defer allocator.free(expected);
    const actual = try With(tiles).run(case, first, threads);
    defer allocator.free(actual);
    try testing.expectBits(expected, actual);
}

test "tiles give the bits of vectors: heads, groups, pages, windows and caches" {
    _ = prepare();
    for (std.enums.values(Form)) |form| for ([_]Options{
        .{ .heads = 14, .kv_heads = 2, .head_dim = 64, .page_size = 64, .context = 150 },
        .{ .heads = 2, .kv_heads = 1, .head_dim = 128, .page_size = 64, .context = 700 },
        .{ .heads = 3, .kv_heads = 3, .head_dim = 192, .page_size = 128, .context = 230 },
        .{ .heads = 1, .kv_heads = 1, .head_dim = 256, .page_size = 64, .context = 70 },
        .{ .heads = 4, .kv_heads = 2, .head_dim = 64, .page_size = 64, .context = 300, .window = 41, .softcap = 5 },
        .{ .heads = 40, .kv_heads = 1, .head_dim = 64, .page_size = 64, .context = 140, .window = 3 },
    }) |o| {
        var other = o.with(form, form);
        other.int8 = true;
        const case: cases.Case = try .init(other);
        defer case.deinit();
        try expectSame(&case, 0, 2);
        try expectSame(&case, o.context - 37, 1);
    };
}

test "tiles give the bits of vectors where rows are no numbers" {
    _ = prepare();
    var o: Options = .{ .heads = 2, .kv_heads = 1, .head_dim = 64, .page_size = 64, .context = 200 };
    o = o.with(.f16, .f16);
    o.int8 = true;
    const case: cases.Case = try .init(o);
    defer case.deinit();
    try case.poke(&case.k, 70, 0, 3, std.math.inf(f32));
    try case.poke(&case.v, 130, 0, 5, std.math.nan(f32));
    try expectSame(&case, 0, 1);
}

test "pages that are no whole tiles are not taken" {
    for ([_][2]usize{ .{ 64, 80 }, .{ 16, 64 }, .{ 48, 128 }, .{ 96, 64 } }) |shape| try std.testing.expect(!tiles.takes(.init(shape[0], shape[1])));
    for ([_][2]usize{ .{ 64, 64 }, .{ 64, 128 }, .{ 128, 256 }, .{ 60, 60 } }) |shape| try std.testing.expect(tiles.takes(.init(shape[0], shape[1])));
}
