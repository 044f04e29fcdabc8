const std = @import("std");
const abi = @import("abi");
const attention = @import("attention.zig");
const cases = @import("attention_testing.zig");
const dot = @import("dot.zig");
const hadamard = @import("hadamard.zig");
const i8_page = @import("attention_i8_page.zig");
const integer = @import("attention_i8.zig");
const kv_page = @import("kv_page.zig");
const testing = @import("testing.zig");

const Case = cases.Case;
const Form = kv_page.Form;
const Options = cases.Options;

const allocator = std.testing.allocator;

/// Runs a case as chunks of the given lengths, the last one repeated.
fn inChunks(case: *const Case, lengths: []const usize, threads: u32, out: *const testing.Tensor(f32)) !void {
    var first: usize = 0;
    var i: usize = 0;
    while (first < case.o.context) : (i += 1) {
        const rest = case.o.context - first;
        var n = @min(rest, lengths[@min(i, lengths.len - 1)]);
        if (rest - n < abi.attention_i8_tokens_min) n = rest; // no chunk is too short for int8
        try case.chunk(first, first + n, threads, out);
        first += n;
    }
}

/// The root of the mean square error, by that of the result itself, against f64 attention over what the cache holds.
fn relativeError(case: *const Case, actual: []const f32) !f64 {
    const o = case.o;
    const n = o.head_dim;
    const keys = try allocator.alloc(f32, o.context * n);
    defer allocator.free(keys);
    const values = try allocator.alloc(f32, o.context * n);
    defer allocator.free(values);
    const weights = try allocator.alloc(f64, o.context);
    defer allocator.free(weights);
    const expected = try allocator.alloc(f64, n);
    defer allocator.free(expected);
    const queries = try case.q.read();
    defer allocator.free(queries);
    var square: f64 = 0;
    var lost: f64 = 0;
    for (0..o.heads) |h| {
        const head = h / (o.heads / o.kv_heads);
        for (0..o.context) |j| {
            case.get(&case.k, j, head, keys[j * n ..][0..n]);
            case.get(&case.v, j, head, values[j * n ..][0..n]);
        }
        for (0..o.context) |t| {
            const first = if (o.window > 0) (t + 1) -| o.window else 0;
            const at = (t * o.heads + h) * n;
            const seen = .{ keys[first * n .. (t + 1) * n], values[first * n .. (t + 1) * n] };
            attention.attentionScalar(queries[at..][0..n], seen[0], seen[1], case.scale(), o.softcap, weights, expected);
            for (expected, actual[at..][0..n]) |e, a| {
                square += e * e;
                lost += (e - a) * (e - a);
            }
        }
    }
    return @sqrt(lost / square);
}

/// The whole prompt in int8; chunks and threads must give the same bits. Returns its error.
fn exercise(case: *const Case) !f64 {
    const o = case.o;
    const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, o.layout);
    defer out.deinit();
    try case.chunk(0, o.context, 1, &out);
    const whole = try out.read();
    defer allocator.free(whole);
    for ([_][]const usize{ &.{ 32, 33 }, &.{ 45, 32, 100 }, &.{64} }, [_]u32{ 2, 5, 3 }) |lengths, threads| {
        @memset(out.memory, 0);
        try inChunks(case, lengths, threads, &out);
        const actual = try out.read();
        defer allocator.free(actual);
        try testing.expectBits(whole, actual);
    }
    return relativeError(case, whole);
}

const every = [_]Form{ .f32, .f16, .q8_0, .q4_0 };
/// Relative error of int8 attention over normal numbers; AVX2's weights have half as many steps.
const bound: f64 = if (dot.byte_max == 255) 0.018 else 0.022;

test "int8 attention is near the oracle for caches of every type; its bits depend neither on chunks nor on threads" {
    for (every) |form| for ([_]Options{
        .{ .heads = 14, .kv_heads = 2, .head_dim = 64, .page_size = 64, .context = 150, .layout = .narrowed },
        .{ .heads = 2, .kv_heads = 1, .head_dim = 128, .page_size = 64, .context = 600 },
        .{ .heads = 5, .kv_heads = 1, .head_dim = 96, .page_size = 48, .context = 100, .layout = .misaligned },
        .{ .heads = 3, .kv_heads = 3, .head_dim = 64, .page_size = 112, .context = 230, .layout = .transposed },
        .{ .heads = 1, .kv_heads = 1, .head_dim = 256, .page_size = 32, .context = 70 },
        .{ .heads = 4, .kv_heads = 2, .head_dim = 64, .page_size = 32, .context = 140, .window = 41, .softcap = 5 },
        .{ .heads = 2, .kv_heads = 2, .head_dim = 32, .page_size = 16, .context = 140, .window = 3 },
        .{ .heads = 8, .kv_heads = 8, .head_dim = 32, .page_size = 64, .context = 100 }, // whole heads, with three threads not all
    }) |o| {
        var other = o.with(form, if (form == .q4_0) .f16 else form);
        other.int8 = true;
        const case: Case = try .init(other);
        defer case.deinit();
        const lost = try exercise(&case);
        try std.testing.expect(lost < bound and lost > 1e-4);
    };
}

test "scratch of int8 attention is enough for fewer threads" {
    for (1..17) |kv_heads| {
        const case: Case = try .init(.{ .heads = kv_heads, .kv_heads = kv_heads, .head_dim = 32, .page_size = 16, .context = 2048, .int8 = true });
        defer case.deinit();
        const out: testing.Tensor(f32) = try .init(&.{ case.o.context, kv_heads, case.o.head_dim }, case.o.layout);
        defer out.deinit();
        const cmd = case.command(0, 64, &out);
        try std.testing.expect(integer.applies(&cmd));
        for (1..9) |threads| for (1..threads) |fewer| {
            try std.testing.expect(integer.workspace(&cmd, @intCast(fewer)) <= integer.workspace(&cmd, @intCast(threads)));
        };
    }
}

test "int8 attention of heads and pages that are no whole vectors" {
    for ([_]Options{
        .{ .heads = 2, .kv_heads = 1, .head_dim = 19, .page_size = 5, .context = 70, .layout = .misaligned },
        .{ .heads = 64, .kv_heads = 1, .head_dim = 40, .page_size = 7, .context = 70, .window = 20 },
        .{ .heads = 2, .kv_heads = 2, .head_dim = 80, .page_size = 20, .context = 90 },
    }) |o| {
        var other = o.with(.f16, .f32);
        other.int8 = true;
        const case: Case = try .init(other);
        defer case.deinit();
        try std.testing.expect(try exercise(&case) < bound);
    }
}

test "int8 attention keeps its accuracy with outliers" {
    for (every) |form| {
        var o: Options = .{ .heads = 4, .kv_heads = 2, .head_dim = 64, .page_size = 64, .context = 300 };
        o = o.with(form, if (form == .q4_0) .q8_0 else form);
        o.int8 = true;
        const case: Case = try .init(o);
        defer case.deinit();
        var random: std.Random.DefaultPrng = .init(11);
        var row: [64]f32 = undefined;
        for (0..o.context) |j| for (0..o.kv_heads) |h| {
            // A large part that all keys share, a few large channels, and a first token unlike all others.
            for (&row, 0..) |*x, i| {
                x.* = random.random().floatNorm(f32) * @as(f32, if (i % 29 == 3) 4 else 0.7);
                if (i % 13 == 5) x.* += 25;
            }
            if (j == 0) row[7] = 40;
            case.put(&case.k, j, h, &row);
            for (&row, 0..) |*x, i| {
                x.* = random.random().floatNorm(f32) * @as(f32, if (i % 31 == 4) 15 else 1);
                if (j % 40 == 0) x.* *= 0.01;
            }
            case.put(&case.v, j, h, &row);
        };
        const lost = try exercise(&case);
        try std.testing.expect(lost < 2 * bound);
    }
}

test "a flat row over many pages loses nothing in the sum" {
    var o: Options = .{ .heads = 1, .kv_heads = 1, .head_dim = 64, .page_size = 64, .context = 2000 };
    o = o.with(.f16, .f16);
    o.int8 = true;
    const case: Case = try .init(o);
    defer case.deinit();
    for (0..case.q.count()) |i| case.q.at(i).* = 0;
    for (0..o.context) |j| {
        var row: [64]f32 = @splat(3);
        row[j % 64] = 3.5;
        case.put(&case.v, j, 0, &row);
    }
    const out: testing.Tensor(f32) = try .init(&.{ o.context, 1, 64 }, .dense);
    defer out.deinit();
    try case.chunk(1900, 2000, 2, &out);
    for (1900 * 64..2000 * 64) |i| try std.testing.expectApproxEqAbs(3 + 0.5 / 64.0, out.at(i).*, 0.02);
}

test "the largest keys keep their weight, however large the scores" {
    var o: Options = .{ .heads = 1, .kv_heads = 1, .head_dim = 64, .page_size = 16, .context = 80 };
    o = o.with(.f32, .f32);
    o.int8 = true;
    const case: Case = try .init(o);
    defer case.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ o.context, 1, 64 }, .dense);
    defer out.deinit();
    for ([_]f32{ 20, 61.7, 173.3, 400 }) |size| {
        for (0..case.q.count()) |i| case.q.at(i).* = size;
        for (0..o.context) |j| {
            // The others are measured from the first key, far away from it.
            var key: [64]f32 = @splat(if (j == 0) -size else size);
            case.put(&case.k, j, 0, &key);
            var value: [64]f32 = @splat(3);
            case.put(&case.v, j, 0, &value);
        }
        try case.chunk(0, o.context, 2, &out);
        for (0..out.count()) |i| try std.testing.expectApproxEqAbs(3, out.at(i).*, 0.05);
    }
}

test "runs too short for int8, and pages too large, are those in float" {
    var o: Options = .{ .heads = 4, .kv_heads = 2, .head_dim = 64, .page_size = 16, .context = 70 };
    o = o.with(.f16, .q8_0);
    const case: Case = try .init(o);
    defer case.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, .dense);
    defer out.deinit();
    var results: [2][]f32 = undefined;
    for (&results, [_]bool{ false, true }) |*result, int8| {
        var other = case;
        other.o.int8 = int8;
        try other.chunk(0, 31, 1, &out);
        try other.chunk(31, 62, 2, &out);
        try other.chunk(62, 70, 2, &out);
        result.* = try out.read();
    }
    try expectSame(results);
    o.page_size = 144;
    const large: Case = try .init(o);
    defer large.deinit();
    for (&results, [_]bool{ false, true }) |*result, int8| {
        var other = large;
        other.o.int8 = int8;
        try other.chunk(0, 70, 2, &out);
        result.* = try out.read();
    }
    try expectSame(results);
}

fn expectSame(results: [2][]f32) !void {
    defer for (results) |result| allocator.free(result);
    try testing.expectBits(results[0], results[1]);
}

test "NaN makes NaN of every row in int8 that sees it and of no other" {
    for ([_]Form{ .f16, .q8_0 }) |form| for ([_]bool{ false, true }) |in_values| {
        var o: Options = .{ .heads = 2, .kv_heads = 1, .head_dim = 32, .page_size = 16, .context = 80, .window = 22 };
        o = o.with(form, form);
        o.int8 = true;
        const case: Case = try .init(o);
        defer case.deinit();
        const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, .dense);
        defer out.deinit();
        try case.chunk(0, o.context, 1, &out);
        const clean = try out.read();
        defer allocator.free(clean);
        var bad: [32]f32 = @splat(1);
        bad[9] = if (in_values) std.math.nan(f32) else std.math.inf(f32);
        case.put(if (in_values) &case.v else &case.k, 41, 0, &bad);
        try case.chunk(0, o.context, 2, &out);
        const dirty = try out.read();
        defer allocator.free(dirty);
        const row = o.heads * o.head_dim;
        for (dirty, clean, 0..) |y, x, i| {
            const token = i / row;
            // Behind the page, its reference may differ.
            if (token < 41) try testing.expectBits(&.{x}, &.{y});
            if (token >= 41 and token < 41 + 22) try std.testing.expect(std.math.isNan(y));
            if (token >= 41 + 22) try std.testing.expectApproxEqAbs(x, y, 0.2);
        }
    };
}

test "rows of zeros, and keys of which none is seen" {
    var o: Options = .{ .heads = 2, .kv_heads = 1, .head_dim = 32, .page_size = 16, .context = 64 };
    o = o.with(.f16, .f32);
    o.int8 = true;
    const case: Case = try .init(o);
    defer case.deinit();
    var zeros: [32]f32 = @splat(0);
    for (0..o.context) |j| case.put(&case.v, j, 0, &zeros);
    for (0..o.context) |j| if (j % 3 == 0) case.put(&case.k, j, 0, &zeros);
    var ones: [32]f32 = @splat(1);
    case.put(&case.v, 0, 0, &ones);
    const out: testing.Tensor(f32) = try .init(&.{ o.context, 2, 32 }, .dense);
    defer out.deinit();
    try case.chunk(0, o.context, 2, &out);
    const actual = try out.read();
    defer allocator.free(actual);
    // The first row sees one key alone; all others have weights below one.
    for (actual[0..64]) |y| try std.testing.expectApproxEqAbs(1, y, 5e-3);
    for (actual[64..]) |y| try std.testing.expect(y > -1e-6 and y < 1);
    try std.testing.expect(try relativeError(&case, actual) < 0.05);
}

test "a page in int8 is its rows, to half a step" {
    for (every) |form| for ([_]usize{ 32, 96, 128 }) |head_dim| for ([_]usize{ 16, 48 }) |page_size| {
        var o: Options = .{ .heads = 1, .kv_heads = 1, .head_dim = head_dim, .page_size = page_size, .context = 2 * page_size - 3 };
        o = o.with(form, form);
        const case: Case = try .init(o);
        defer case.deinit();
        const shape: i8_page.Shape = .init(page_size, head_dim);
        const memory = try allocator.alignedAlloc(f32, .@"64", shape.floats() + shape.width + i8_page.Maker.rowFloats(shape));
        defer allocator.free(memory);
        @memset(memory, std.math.nan(f32));
        const reference = memory.ptr + shape.floats();
        const scratch = reference + shape.width;
        const maker: i8_page.Maker = .{
            .shape = shape,
            .k = .init(&case.k.desc, &case.pages.desc),
            .v = .init(&case.v.desc, &case.pages.desc),
            .key_zero = 128,
            .rows = scratch,
        };
        const stretch: i8_page.Stretch = .at(shape, memory.ptr);
        const first = 1 % shape.pages * page_size;
        const live = page_size - 3;
        maker.make(stretch, reference, 1, 0, live);
        for (0..page_size) |j| {
            if (j >= live) {
                try std.testing.expectEqual(0, stretch.key_scales[first + j]);
                continue;
            }
            var key: [128]f32 = undefined;
            case.get(&case.k, page_size + j, 0, key[0..head_dim]);
            hadamard.rotate(&key, head_dim);
            var value: [128]f32 = undefined;
            case.get(&case.v, page_size + j, 0, value[0..head_dim]);
            hadamard.rotate(&value, head_dim);
            const step = @exp2(stretch.value_logs[first + j]);
            try std.testing.expectApproxEqRel(1 / step, stretch.value_inverses[first + j], 1e-5);
            for (0..head_dim) |i| {
                const code: i32 = stretch.keys[(i / 4 * shape.keys + first + j) * 4 + i % 4];
                const got = stretch.key_scales[first + j] * @as(f32, @floatFromInt(code - 128)) + reference[i];
                try std.testing.expectApproxEqAbs(key[i], got, stretch.key_scales[first + j] * 0.501 + 1e-5);
                const value_code: f32 = @floatFromInt(stretch.values[((first + j) / 4 * shape.width + i) * 4 + j % 4]);
                try std.testing.expectApproxEqAbs(value[i], step * value_code, step * 0.501 + 1e-5);
            }
        }
    };
}
