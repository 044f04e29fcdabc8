const std = @import("std");
const abi = @import("abi");
const attention = @import("attention.zig");
const kv = @import("kv_cache.zig");
const kv_page = @import("kv_page.zig");
const cases = @import("attention_testing.zig");
const testing = @import("testing.zig");
const tiles = @import("attention_tile.zig");

const Case = cases.Case;
const Form = kv_page.Form;
const Options = cases.Options;
const Store = cases.Store;
const rowsOf = cases.rowsOf;

const allocator = std.testing.allocator;

/// Whole prompt against the oracle; then chunks, single tokens and threads must give the same bits.
fn exercise(o: Options) !void {
    const case: Case = try .init(o);
    defer case.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, o.layout);
    defer out.deinit();
    try case.chunk(0, o.context, 1, &out);
    const whole = try out.read();
    defer allocator.free(whole);
    try case.check(whole);
    for ([_]usize{ 1, 3, 7, 64 }) |step| for (testing.thread_counts) |threads| {
        if (step > o.context or (step == 1 and threads == 2)) continue;
        @memset(out.memory, 0);
        // Chunks from the middle on are enough when they are short.
        var first: usize = if (step < 7 and o.context > 100) o.context - 9 else 0;
        const begin = first;
        while (first < o.context) : (first += step) try case.chunk(first, @min(o.context, first + step), threads, &out);
        const actual = try out.read();
        defer allocator.free(actual);
        const from = begin * o.heads * o.head_dim;
        try testing.expectBits(whole[from..], actual[from..]);
    };
}

const float_pairs = [_][2]Form{ .{ .f32, .f32 }, .{ .f16, .f16 }, .{ .f16, .f32 } };
const quantised_pairs = [_][2]Form{ .{ .q8_0, .q8_0 }, .{ .q4_0, .q4_0 }, .{ .q8_0, .q4_0 }, .{ .q4_0, .f16 }, .{ .f32, .q8_0 } };

test "attention equals its oracle and its bits depend on neither chunks nor threads" {
    for (float_pairs) |pair| for ([_]Options{
        .{ .heads = 4, .kv_heads = 2, .head_dim = 16, .page_size = 16, .context = 65 },
        .{ .heads = 3, .kv_heads = 1, .head_dim = 8, .page_size = 64, .context = 33 },
        .{ .heads = 2, .kv_heads = 2, .head_dim = 64, .page_size = 64, .context = 150, .layout = .narrowed },
        .{ .heads = 14, .kv_heads = 2, .head_dim = 32, .page_size = 16, .context = 129 },
        .{ .heads = 2, .kv_heads = 1, .head_dim = 128, .page_size = 64, .context = 600 },
        .{ .heads = 2, .kv_heads = 1, .head_dim = 19, .page_size = 5, .context = 60, .layout = .misaligned },
        .{ .heads = 2, .kv_heads = 2, .head_dim = 96, .page_size = 8, .context = 100, .layout = .transposed },
        .{ .heads = 1, .kv_heads = 1, .head_dim = 256, .page_size = 32, .context = 70 },
    }) |o| try exercise(o.with(pair[0], pair[1]));
}

test "attention over quantised pages likewise" {
    for (quantised_pairs) |pair| for ([_]Options{
        .{ .heads = 4, .kv_heads = 2, .head_dim = 32, .page_size = 16, .context = 65 },
        .{ .heads = 14, .kv_heads = 2, .head_dim = 64, .page_size = 64, .context = 150, .layout = .narrowed },
        .{ .heads = 2, .kv_heads = 1, .head_dim = 128, .page_size = 64, .context = 600 },
        .{ .heads = 5, .kv_heads = 1, .head_dim = 96, .page_size = 48, .context = 100, .layout = .misaligned },
        .{ .heads = 3, .kv_heads = 3, .head_dim = 64, .page_size = 112, .context = 230, .layout = .transposed },
        .{ .heads = 1, .kv_heads = 1, .head_dim = 256, .page_size = 32, .context = 70 },
    }) |o| try exercise(o.with(pair[0], pair[1]));
}

test "attention with sliding window and softcap" {
    for (float_pairs) |pair| for ([_]usize{ 1, 5, 17, 64, 100 }) |window| {
        const small: Options = .{ .heads = 4, .kv_heads = 2, .head_dim = 16, .page_size = 16, .context = 140, .window = window };
        try exercise(small.with(pair[0], pair[1]));
        const capped: Options = .{ .heads = 2, .kv_heads = 2, .head_dim = 40, .page_size = 7, .context = 70, .window = window, .softcap = 5 };
        try exercise(capped.with(pair[0], pair[1]));
    };
    for (quantised_pairs) |pair| for ([_]usize{ 1, 17, 100 }) |window| {
        const o: Options = .{ .heads = 4, .kv_heads = 2, .head_dim = 64, .page_size = 32, .context = 140, .window = window, .softcap = 5 };
        try exercise(o.with(pair[0], pair[1]));
    };
}

test "NaN of a later key or of another query reaches no row that can't see it" {
    const o: Options = .{ .heads = 2, .kv_heads = 1, .head_dim = 24, .page_size = 8, .context = 40 };
    const case: Case = try .init(o);
    defer case.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, .dense);
    defer out.deinit();
    try case.chunk(0, o.context, 1, &out);
    const clean = try out.read();
    defer allocator.free(clean);
    try case.poke(&case.v, 21, 0, 3, std.math.nan(f32));
    try case.poke(&case.k, 30, 0, 0, std.math.inf(f32));
    try case.chunk(0, o.context, 2, &out);
    const row = o.heads * o.head_dim;
    const dirty = try out.read();
    defer allocator.free(dirty);
    try testing.expectBits(clean[0 .. 21 * row], dirty[0 .. 21 * row]);
    for (21..o.context) |t| for (0..o.heads) |h| {
        try std.testing.expect(std.math.isNan(dirty[t * row + h * o.head_dim + 3]));
    };
    try testing.expectBits(clean[21 * row ..][0..3], dirty[21 * row ..][0..3]);
}

test "NaN in a quantised row makes NaN of every row that sees it and of no other" {
    for ([_]bool{ false, true }) |in_values| for ([_]u32{ 1, 2 }) |threads| {
        var o: Options = .{ .heads = 2, .kv_heads = 1, .head_dim = 32, .page_size = 16, .context = 40, .window = 12 };
        o = o.with(.q8_0, .q4_0);
        const case: Case = try .init(o);
        defer case.deinit();
        const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, .dense);
        defer out.deinit();
        try case.chunk(0, o.context, 1, &out);
        const clean = try out.read();
        defer allocator.free(clean);
        var bad: [32]f32 = @splat(1);
        bad[9] = std.math.nan(f32);
        case.put(if (in_values) &case.v else &case.k, 21, 0, &bad);
        try case.chunk(0, o.context, threads, &out);
        const dirty = try out.read();
        defer allocator.free(dirty);
        const row = o.heads * o.head_dim;
        for (dirty, clean, 0..) |y, x, i| {
            if (i / row < 21 or i / row >= 21 + 12) try testing.expectBits(&.{x}, &.{y}) else try std.testing.expect(std.math.isNan(y));
        }
    };
}

test "keys of -inf weigh nothing; a row without any gives zeros" {
    const o: Options = .{ .heads = 1, .kv_heads = 1, .head_dim = 8, .page_size = 4, .context = 10 };
    const case: Case = try .init(o);
    defer case.deinit();
    for (0..o.context * 8) |i| case.q.at(i).* = 1;
    for (0..5) |j| try case.poke(&case.k, j, 0, 0, -std.math.inf(f32));
    const out: testing.Tensor(f32) = try .init(&.{ o.context, 1, 8 }, .dense);
    defer out.deinit();
    try case.chunk(0, o.context, 3, &out);
    const actual = try out.read();
    defer allocator.free(actual);
    for (actual[0 .. 5 * 8]) |v| try std.testing.expectEqual(@as(f32, 0), v);
    var row: [8]f32 = undefined;
    case.get(&case.v, 5, 0, &row);
    for (row, actual[5 * 8 ..][0..8]) |x, y| try std.testing.expectApproxEqAbs(x, y, 1e-6);
}

test "a page that is not in the cache fails the command" {
    const o: Options = .{ .heads = 2, .kv_heads = 2, .head_dim = 8, .page_size = 4, .context = 8 };
    const case: Case = try .init(o);
    defer case.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ 8, 2, 8 }, .dense);
    defer out.deinit();
    const cmd = case.command(0, 8, &out);
    for ([_]i32{ -1, std.math.maxInt(i32), @intCast(case.k.desc.shape[0]) }) |page| {
        case.pages.at(1).* = page;
        try std.testing.expectError(error.KernelFailed, testing.run(attention.attention, attention.attention_workspace, &cmd, 2));
    }
}

test "kv_append writes quantised rows as a page does, on any number of threads" {
    for ([_]Form{ .q8_0, .q4_0 }) |form| for ([_]abi.Layout{ .kv_keys, .kv_values }) |layout| {
        const o: Options = .{ .heads = 2, .kv_heads = 2, .head_dim = 64, .page_size = 16, .context = 40, .layout = .transposed };
        const case: Case = try .init(o);
        defer case.deinit();
        const rows = try case.q.read();
        defer allocator.free(rows);
        const want: Store = try .init(form, layout, o, 5);
        defer allocator.free(want.memory);
        const got: Store = try .init(form, layout, o, 5);
        defer allocator.free(got.memory);
        const cmd = testing.command(&.{ rowsOf(&case.q.desc, 0, 37), case.pages.desc }, &.{got.desc});
        for (testing.thread_counts) |threads| {
            @memset(got.memory, 0xff);
            try testing.run(kv.kv_append, kv.kv_append_workspace, &cmd, threads);
            @memset(want.memory, 0xff);
            for (0..37) |t| for (0..2) |h| {
                var row: [64]f32 = rows[(t * 2 + h) * 64 ..][0..64].*;
                case.put(&want, t, h, &row);
            };
            try std.testing.expectEqualSlices(u8, want.memory, got.memory);
        }
    };
}

test "every byte of keys and values counts once as used, for any number of rows" {
    const reach = try allocator.alloc(u8, 1 << 20);
    defer allocator.free(reach);
    for (float_pairs ++ quantised_pairs) |pair| for (1..tiles.direct_rows + 1) |rows| {
        const o: Options = .{ .heads = rows, .kv_heads = 1, .head_dim = 64, .page_size = 64, .context = 128 };
        const case: Case = try .init(o.with(pair[0], pair[1]));
        defer case.deinit();
        const cmd = case.command(127, 128, &case.q);
        const plan: tiles.Plan = .init(&cmd);
        const scratch = try allocator.alignedAlloc(f32, .@"64", plan.threadFloats());
        defer allocator.free(scratch);
        var tile: tiles.Tile = .init(plan, scratch.ptr);
        tile.k = .init(&cmd.inputs[1], &cmd.inputs[3]);
        tile.v = .init(&cmd.inputs[2], &cmd.inputs[3]);
        tile.view = .of(&cmd);
        tile.softcap = 0;
        // One region, which all that counts goes through.
        tile.stream = .{ .ctx = undefined, .k = tile.k, .v = tile.v, .tasks = 1, .first = 0, .end = 128, .walks = false };
        tile.stream.at = reach.ptr;
        tile.stream.bytes = reach.len;
        tile.begin(&cmd.inputs[0], 0, 1, 0, 127, case.scale());
        tile.runSpan(0, tile.partial);
        var bytes: usize = 0;
        for ([_]*const kv.Cache{ &tile.k, &tile.v }) |cache| for (0..2) |page| {
            bytes += cache.page.rowBytes(cache.at(page, 0), .{ .low = 0, .high = 64 }).len;
        };
        try std.testing.expectEqual(bytes, reach.len - tile.stream.bytes);
    };
}
