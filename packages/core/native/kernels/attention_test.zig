const std = @import("std");
const abi = @import("abi");
const attention = @import("attention.zig");
const testing = @import("testing.zig");

const allocator = std.testing.allocator;

const Options = struct {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    page_size: usize,
    context: usize,
    window: usize = 0,
    softcap: f32 = 0,
    layout: testing.Layout = .dense,
};

/// A cache whose pages are scattered and NaN behind the context, and queries for every position.
fn Case(comptime T: type) type {
    return struct {
        const Self = @This();
        o: Options,
        q: testing.Tensor(f32),
        k: testing.Tensor(T),
        v: testing.Tensor(T),
        pages: testing.Tensor(i32),

        fn init(o: Options) !Self {
            const logical = (o.context + o.page_size - 1) / o.page_size + 1;
            const self: Self = .{
                .o = o,
                .q = try .init(&.{ o.context, o.heads, o.head_dim }, o.layout),
                .k = try .init(&.{ logical + 1, o.kv_heads, o.page_size, o.head_dim }, .dense),
                .v = try .init(&.{ logical + 1, o.kv_heads, o.page_size, o.head_dim }, .dense),
                .pages = try .init(&.{logical}, .dense),
            };
            for (0..logical) |i| self.pages.at(i).* = @intCast(logical - i);
            const values = try testing.normal(o.head_dim, self.q.count(), 1.5);
            defer allocator.free(values);
            self.q.write(values);
            var random: std.Random.DefaultPrng = .init(7);
            for (0..o.context) |j| for (0..o.kv_heads) |h| for (0..o.head_dim) |i| {
                self.k.at(self.index(j, h, i)).* = @floatCast(random.random().floatNorm(f32));
                self.v.at(self.index(j, h, i)).* = @floatCast(random.random().floatNorm(f32));
            };
            return self;
        }

        fn deinit(self: Self) void {
            self.q.deinit();
            self.k.deinit();
            self.v.deinit();
            self.pages.deinit();
        }

        fn index(self: *const Self, j: usize, h: usize, i: usize) usize {
            const page: usize = @intCast(self.pages.at(j / self.o.page_size).*);
            return ((page * self.o.kv_heads + h) * self.o.page_size + j % self.o.page_size) * self.o.head_dim + i;
        }

        /// Attention of tokens first … end-1 as a chunk at position `first`.
        fn chunk(self: *const Self, first: usize, end: usize, threads: u32, out: *const testing.Tensor(f32)) !void {
            const inputs = [_]abi.TensorDesc{ rowsOf(&self.q.desc, first, end), self.k.desc, self.v.desc, self.pages.desc };
            var cmd = testing.command(&inputs, &.{rowsOf(&out.desc, first, end)});
            cmd.ints[0] = @intCast(first);
            cmd.ints[1] = @intCast(self.o.window);
            cmd.floats[0] = self.scale();
            cmd.floats[1] = self.o.softcap;
            try testing.run(attention.attention, attention.attention_workspace, &cmd, threads);
        }

        fn scale(self: *const Self) f32 {
            return 1 / @sqrt(@as(f32, @floatFromInt(self.o.head_dim)));
        }

        fn check(self: *const Self, actual: []const f32) !void {
            const n = self.o.head_dim;
            const keys = try allocator.alloc(f32, self.o.context * n);
            defer allocator.free(keys);
            const values = try allocator.alloc(f32, self.o.context * n);
            defer allocator.free(values);
            const weights = try allocator.alloc(f64, self.o.context);
            defer allocator.free(weights);
            const expected = try allocator.alloc(f64, n);
            defer allocator.free(expected);
            const query = try self.q.read();
            defer allocator.free(query);
            for (0..self.o.context) |t| for (0..self.o.heads) |h| {
                const head = h / (self.o.heads / self.o.kv_heads);
                const first = if (self.o.window > 0) (t + 1) -| self.o.window else 0;
                for (first..t + 1) |j| for (0..n) |i| {
                    keys[(j - first) * n + i] = @floatCast(self.k.at(self.index(j, head, i)).*);
                    values[(j - first) * n + i] = @floatCast(self.v.at(self.index(j, head, i)).*);
                };
                const length = (t + 1 - first) * n;
                const row = (t * self.o.heads + h) * n;
                const visible = .{ keys[0..length], values[0..length] };
                attention.attentionScalar(query[row..][0..n], visible[0], visible[1], self.scale(), self.o.softcap, weights, expected);
                try testing.expectClose(expected, actual[row..][0..n], 1e-6, 3e-6);
            };
        }
    };
}

fn rowsOf(desc: *const abi.TensorDesc, first: usize, end: usize) abi.TensorDesc {
    var d = desc.*;
    d.data += first * @as(u64, @intCast(d.strides[0])) * 4;
    d.shape[0] = @intCast(end - first);
    return d;
}

/// Whole prompt against the oracle; then chunks, single tokens and threads must give the same bits.
fn exercise(comptime T: type, o: Options) !void {
    const case: Case(T) = try .init(o);
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

test "attention equals its oracle and its bits depend on neither chunks nor threads" {
    inline for (.{ f32, f16 }) |T| {
        try exercise(T, .{ .heads = 4, .kv_heads = 2, .head_dim = 16, .page_size = 16, .context = 65 });
        try exercise(T, .{ .heads = 3, .kv_heads = 1, .head_dim = 8, .page_size = 64, .context = 33 });
        try exercise(T, .{ .heads = 2, .kv_heads = 2, .head_dim = 64, .page_size = 64, .context = 150, .layout = .narrowed });
        try exercise(T, .{ .heads = 14, .kv_heads = 2, .head_dim = 32, .page_size = 16, .context = 129 });
        try exercise(T, .{ .heads = 2, .kv_heads = 1, .head_dim = 128, .page_size = 64, .context = 600 });
        try exercise(T, .{ .heads = 2, .kv_heads = 1, .head_dim = 19, .page_size = 5, .context = 60, .layout = .misaligned });
        try exercise(T, .{ .heads = 2, .kv_heads = 2, .head_dim = 96, .page_size = 8, .context = 100, .layout = .transposed });
        try exercise(T, .{ .heads = 1, .kv_heads = 1, .head_dim = 256, .page_size = 32, .context = 70 });
    }
}

test "attention with sliding window and softcap" {
    inline for (.{ f32, f16 }) |T| for ([_]usize{ 1, 5, 17, 64, 100 }) |window| {
        try exercise(T, .{ .heads = 4, .kv_heads = 2, .head_dim = 16, .page_size = 16, .context = 140, .window = window });
        try exercise(T, .{ .heads = 2, .kv_heads = 2, .head_dim = 40, .page_size = 7, .context = 70, .window = window, .softcap = 5 });
    };
}

test "NaN of a later key or of another query reaches no row that can't see it" {
    const o: Options = .{ .heads = 2, .kv_heads = 1, .head_dim = 24, .page_size = 8, .context = 40 };
    const case: Case(f32) = try .init(o);
    defer case.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ o.context, o.heads, o.head_dim }, .dense);
    defer out.deinit();
    try case.chunk(0, o.context, 1, &out);
    const clean = try out.read();
    defer allocator.free(clean);
    case.v.at(case.index(21, 0, 3)).* = std.math.nan(f32);
    case.k.at(case.index(30, 0, 0)).* = std.math.inf(f32);
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

test "keys of -inf weigh nothing; a row without any gives zeros" {
    const o: Options = .{ .heads = 1, .kv_heads = 1, .head_dim = 8, .page_size = 4, .context = 10 };
    const case: Case(f32) = try .init(o);
    defer case.deinit();
    const ones: [8]f32 = @splat(1);
    for (0..o.context) |t| for (0..8) |i| {
        case.q.at(t * 8 + i).* = ones[i];
    };
    for (0..5) |j| {
        case.k.at(case.index(j, 0, 0)).* = -std.math.inf(f32);
    }
    const out: testing.Tensor(f32) = try .init(&.{ o.context, 1, 8 }, .dense);
    defer out.deinit();
    try case.chunk(0, o.context, 3, &out);
    const actual = try out.read();
    defer allocator.free(actual);
    for (actual[0 .. 5 * 8]) |v| try std.testing.expectEqual(@as(f32, 0), v);
    for (0..8) |i| try std.testing.expectApproxEqAbs(case.v.at(case.index(5, 0, i)).*, actual[5 * 8 + i], 1e-6);
}

test "a page that is not in the cache fails the command" {
    const o: Options = .{ .heads = 2, .kv_heads = 2, .head_dim = 8, .page_size = 4, .context = 8 };
    const case: Case(f32) = try .init(o);
    defer case.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ 8, 2, 8 }, .dense);
    defer out.deinit();
    var cmd = testing.command(&.{ case.q.desc, case.k.desc, case.v.desc, case.pages.desc }, &.{out.desc});
    cmd.floats[0] = 1;
    for ([_]i32{ -1, std.math.maxInt(i32), @intCast(case.k.desc.shape[0]) }) |page| {
        case.pages.at(1).* = page;
        try std.testing.expectError(error.KernelFailed, testing.run(attention.attention, attention.attention_workspace, &cmd, 2));
    }
}
