//! Caches and queries for the tests of attention, and its oracle over what a cache has stored.

const std = @import("std");
const abi = @import("abi");
const attention = @import("attention.zig");
const hadamard = @import("hadamard.zig");
const kv_page = @import("kv_page.zig");
const quantizeBlock = @import("quantize.zig").quantizeBlock;
const testing = @import("testing.zig");

const Form = kv_page.Form;
const Page = kv_page.Page;

const allocator = std.testing.allocator;

pub const Options = struct {
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
    int8: bool = false,

    pub fn with(o: Options, keys: Form, values: Form) Options {
        var out = o;
        out.keys = keys;
        out.values = values;
        return out;
    }
};

/// Keys or values in scattered pages, NaN behind the context.
pub const Store = struct {
    memory: []align(64) u8,
    desc: abi.TensorDesc,
    page: Page,

    pub fn init(form: Form, layout: abi.Layout, o: Options, physical: usize) !Store {
        const page: Page = .{ .form = form, .layout = if (form.isFloat()) .strided else layout, .page_size = o.page_size, .head_dim = o.head_dim };
        const memory = try allocator.alignedAlloc(u8, .@"64", physical * o.kv_heads * page.bytes());
        @memset(memory, 0xff);
        var desc = testing.dense(&.{ physical, o.kv_heads, o.page_size, o.head_dim });
        desc.data = @intFromPtr(memory.ptr);
        desc.dtype = @intFromEnum(form.dtype());
        desc.layout = @intFromEnum(page.layout);
        return .{ .memory = memory, .desc = desc, .page = page };
    }

    pub fn at(self: *const Store, physical: usize, head: usize) [*]u8 {
        const kv_heads: usize = @intCast(self.desc.shape[1]);
        return self.memory.ptr + (physical * kv_heads + head) * self.page.bytes();
    }
};

/// A cache and queries for every position.
pub const Case = struct {
    o: Options,
    q: testing.Tensor(f32),
    k: Store,
    v: Store,
    pages: testing.Tensor(i32),

    pub fn init(o: Options) !Case {
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

    pub fn deinit(self: Case) void {
        self.q.deinit();
        allocator.free(self.k.memory);
        allocator.free(self.v.memory);
        self.pages.deinit();
    }

    pub fn put(self: *const Case, store: *const Store, j: usize, h: usize, row: []f32) void {
        const physical: usize = @intCast(self.pages.at(j / self.o.page_size).*);
        const before = if (j < self.o.page_size) null else store.at(@intCast(self.pages.at(j / self.o.page_size - 1).*), h);
        store.page.write(store.at(physical, h), j % self.o.page_size, row.ptr, before);
    }

    pub fn get(self: *const Case, store: *const Store, j: usize, h: usize, out: []f32) void {
        const physical: usize = @intCast(self.pages.at(j / self.o.page_size).*);
        store.page.read(store.at(physical, h), j % self.o.page_size, out.ptr);
    }

    /// Writes one element of a float cache.
    pub fn poke(self: *const Case, store: *const Store, j: usize, h: usize, i: usize, value: f32) !void {
        const row = try allocator.alloc(f32, self.o.head_dim);
        defer allocator.free(row);
        self.get(store, j, h, row);
        row[i] = value;
        self.put(store, j, h, row);
    }

    pub fn command(self: *const Case, first: usize, end: usize, out: *const testing.Tensor(f32)) abi.Command {
        const inputs = [_]abi.TensorDesc{ rowsOf(&self.q.desc, first, end), self.k.desc, self.v.desc, self.pages.desc };
        var cmd = testing.command(&inputs, &.{rowsOf(&out.desc, first, end)});
        cmd.ints[0] = @intCast(first);
        cmd.ints[1] = @intCast(self.o.window);
        cmd.ints[2] = @intFromBool(self.o.int8);
        cmd.floats[0] = self.scale();
        cmd.floats[1] = self.o.softcap;
        return cmd;
    }

    /// Attention of tokens first … end-1 as a chunk at position `first`.
    pub fn chunk(self: *const Case, first: usize, end: usize, threads: u32, out: *const testing.Tensor(f32)) !void {
        const cmd = self.command(first, end, out);
        try testing.run(attention.attention, attention.attention_workspace, &cmd, threads);
    }

    pub fn scale(self: *const Case) f32 {
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

    pub fn check(self: *const Case, actual: []const f32) !void {
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

pub fn rowsOf(desc: *const abi.TensorDesc, first: usize, end: usize) abi.TensorDesc {
    var d = desc.*;
    d.data += first * @as(u64, @intCast(d.strides[0])) * 4;
    d.shape[0] = @intCast(end - first);
    return d;
}
