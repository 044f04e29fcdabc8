const std = @import("std");
const abi = @import("abi");
const attention = @import("attention.zig");
const hadamard = @import("hadamard.zig");
const kv = @import("kv_cache.zig");
const kv_page = @import("kv_page.zig");
const quantizeBlock = @import("quantize.zig").quantizeBlock;
const testing = @import("testing.zig");

const Form = kv_page.Form;
const Page = kv_page.Page;

const allocator = std.testing.allocator;

const Options = struct {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    page_size: usize,
    context: usize,
    keys: Form = .f32,
    values: Form = .f32,
    window: usize = 0,
    softcap: f32 = 0,
    layout: testing.Layout = .dense,

    fn with(o: Options, keys: Form, values: Form) Options {
        var out = o;
        out.keys = keys;
        out.values = values;
        return out;
    }
};

/// Keys or values in scattered pages, NaN behind the context.
const Store = struct {
    memory: []align(64) u8,
    desc: abi.TensorDesc,
    page: Page,

    fn init(form: Form, layout: abi.Layout, o: Options, physical: usize) !Store {
        const page: Page = .{ .form = form, .layout = if (form.isFloat()) .strided else layout, .page_size = o.page_size, .head_dim = o.head_dim };
        const memory = try allocator.alignedAlloc(u8, .@"64", physical * o.kv_heads * page.bytes());
        @memset(memory, 0xff);
        var desc = testing.dense(&.{ physical, o.kv_heads, o.page_size, o.head_dim });
        desc.data = @intFromPtr(memory.ptr);
        desc.dtype = @intFromEnum(form.dtype());
        desc.layout = @intFromEnum(page.layout);
        return .{ .memory = memory, .desc = desc, .page = page };
    }

    fn at(self: *const Store, physical: usize, head: usize) [*]u8 {
        const kv_heads: usize = @intCast(self.desc.shape[1]);
        return self.memory.ptr + (physical * kv_heads + head) * self.page.bytes();
    }
};

/// A cache and queries for every position.
const Case = struct {
    o: Options,
    q: testing.Tensor(f32),
    k: Store,
    v: Store,
    pages: testing.Tensor(i32),

    fn init(o: Options) !Case {
        const logical = (o.context + o.page_size - 1) / o.page_size + 1;
        const self: Case = .{
            .o = o,
            .q = try .init(&.{ o.context, o.heads, o.head_dim }, o.layout),
            .k = try .init(o.keys, .kv_keys, o, logical + 1),
            .v = try .init(o.values, .kv_values, o, logical + 1),
            .pages = try .init(&.{logical}, .dense),
        };
        for (0..logical) |i| self.pages.at(i).* = @intCast(logical - i);
        const values = try testing.normal(o.head_dim, self.q.count(), 1.5);
        defer allocator.free(values);
        self.q.write(values);
        var random: std.Random.DefaultPrng = .init(7);
        const row = try allocator.alloc(f32, o.head_dim);
        defer allocator.free(row);
        for (0..o.context) |j| for (0..o.kv_heads) |h| for ([_]*const Store{ &self.k, &self.v }) |store| {
            for (row) |*x| x.* = random.random().floatNorm(f32);
            self.put(store, j, h, row);
        };
        return self;
    }

    fn deinit(self: Case) void {
        self.q.deinit();
        allocator.free(self.k.memory);
        allocator.free(self.v.memory);
        self.pages.deinit();
    }

    fn put(self: *const Case, store: *const Store, j: usize, h: usize, row: []f32) void {
        const physical: usize = @intCast(self.pages.at(j / self.o.page_size).*);
        const before = if (j < self.o.page_size) null else store.at(@intCast(self.pages.at(j / self.o.page_size - 1).*), h);
        store.page.write(store.at(physical, h), j % self.o.page_size, row.ptr, before);
    }

    fn get(self: *const Case, store: *const Store, j: usize, h: usize, out: []f32) void {
        const physical: usize = @intCast(self.pages.at(j / self.o.page_size).*);
        store.page.read(store.at(physical, h), j % self.o.page_size, out.ptr);
    }

    /// Writes one element of a float cache.
    fn poke(self: *const Case, store: *const Store, j: usize, h: usize, i: usize, value: f32) !void {
        const row = try allocator.alloc(f32, self.o.head_dim);
        defer allocator.free(row);
        self.get(store, j, h, row);
        row[i] = value;
        self.put(store, j, h, row);
    }

    fn command(self: *const Case, first: usize, end: usize, out: *const testing.Tensor(f32)) abi.Command {
        const inputs = [_]abi.TensorDesc{ rowsOf(&self.q.desc, first, end), self.k.desc, self.v.desc, self.pages.desc };
        var cmd = testing.command(&inputs, &.{rowsOf(&out.desc, first, end)});
        cmd.ints[0] = @intCast(first);
        cmd.ints[1] = @intCast(self.o.window);
        cmd.floats[0] = self.scale();
        cmd.floats[1] = self.o.softcap;
        return cmd;
    }

    /// Attention of tokens first … end-1 as a chunk at position `first`.
    fn chunk(self: *const Case, first: usize, end: usize, threads: u32, out: *const testing.Tensor(f32)) !void {
        const cmd = self.command(first, end, out);
        try testing.run(attention.attention, attention.attention_workspace, &cmd, threads);
    }

    fn scale(self: *const Case) f32 {
        return 1 / @sqrt(@as(f32, @floatFromInt(self.o.head_dim)));
    }

    /// A query row times scale, rounded as the kernel does for quantised keys.
    fn query(self: *const Case, row: []f32) void {
        for (row) |*x| x.* *= self.scale();
        if (self.o.keys.isFloat()) return;
        hadamard.rotate(row.ptr, row.len);
        for (0..row.len / 32) |b| {
            var codes: [32]i8 = undefined;
            var sums: [2]i16 = undefined;
            const step = quantizeBlock(row[b * 32 ..][0..32], &codes, &sums);
            for (codes, row[b * 32 ..][0..32]) |code, *x| x.* = step * @as(f32, @floatFromInt(code));
        }
        hadamard.rotate(row.ptr, row.len);
    }

    /// Keys whose dot with the rounded query is the score of the kernel, in which references meet the query as it was.
    fn shift(self: *const Case, query_row: []const f32, row: []const f32, head: usize, keys: []const f32, out: []f32) !void {
        @memcpy(out, keys);
        if (self.o.keys.isFloat()) return;
        const n = row.len;
        const lost = try allocator.alloc(f32, n);
        defer allocator.free(lost);
        for (lost, query_row, row) |*d, x, rounded| d.* = x * self.scale() - rounded;
        hadamard.rotate(lost.ptr, n);
        var norm: f64 = 0;
        for (row) |x| norm += @as(f64, x) * x;
        for (0..self.o.context) |j| {
            const physical: usize = @intCast(self.pages.at(j / self.o.page_size).*);
            const reference = self.k.page.reference(self.k.at(physical, head));
            var more: f64 = 0;
            for (lost, reference[0..n]) |d, x| more += @as(f64, d) * x;
            for (row, out[j * n ..][0..n]) |x, *k| k.* += @floatCast(x * more / norm);
        }
    }

    fn check(self: *const Case, actual: []const f32) !void {
        const n = self.o.head_dim;
        const keys = try allocator.alloc(f32, self.o.context * n);
        defer allocator.free(keys);
        const shifted = try allocator.alloc(f32, self.o.context * n);
        defer allocator.free(shifted);
        const values = try allocator.alloc(f32, self.o.context * n);
        defer allocator.free(values);
        const row = try allocator.alloc(f32, n);
        defer allocator.free(row);
        const weights = try allocator.alloc(f64, self.o.context);
        defer allocator.free(weights);
        const expected = try allocator.alloc(f64, n);
        defer allocator.free(expected);
        const queries = try self.q.read();
        defer allocator.free(queries);
        // Weights of quantised values have 15 bits: up to 1 in 65535 of a value from each key.
        const absolute: f64 = if (!self.o.values.isFloat()) 5e-4 else if (self.o.keys.isFloat()) 3e-6 else 1e-5;
        for (0..self.o.heads) |h| {
            const head = h / (self.o.heads / self.o.kv_heads);
            for (0..self.o.context) |j| {
                self.get(&self.k, j, head, keys[j * n ..][0..n]);
                self.get(&self.v, j, head, values[j * n ..][0..n]);
            }
            for (0..self.o.context) |t| {
                const first = if (self.o.window > 0) (t + 1) -| self.o.window else 0;
                const query_row = queries[(t * self.o.heads + h) * n ..][0..n];
                @memcpy(row, query_row);
                self.query(row);
                try self.shift(query_row, row, head, keys, shifted);
                const seen = .{ shifted[first * n .. (t + 1) * n], values[first * n .. (t + 1) * n] };
                attention.attentionScalar(row, seen[0], seen[1], 1, self.o.softcap, weights, expected);
                try testing.expectClose(expected, actual[(t * self.o.heads + h) * n ..][0..n], 1e-6, absolute);
            }
        }
    }
};

fn rowsOf(desc: *const abi.TensorDesc, first: usize, end: usize) abi.TensorDesc {
    var d = desc.*;
    d.data += first * @as(u64, @intCast(d.strides[0])) * 4;
    d.shape[0] = @intCast(end - first);
    return d;
}

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
