//! The paged KV cache [physical pages, kv_heads, page_size, head_dim]: kv_append and the address of a head's page.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");

const lanes = simd.lanes;

/// A checked cache and page table.
pub const Cache = struct {
    base: usize,
    half: bool,
    heads: usize,
    page_size: usize,
    head_dim: usize,
    pages: []const i32,
    physical: usize,

    /// Null when the descriptors are no cache of f32 or f16 in contiguous pages with a page table of i32.
    pub fn init(cache: *const abi.TensorDesc, pages: *const abi.TensorDesc) ?Cache {
        const half = views.isDtype(cache, .f16);
        if (!half and !views.isDtype(cache, .f32)) return null;
        if (cache.rank != 4 or !views.isContiguous(cache) or !views.isDtype(pages, .i32)) return null;
        if (pages.rank != 1 or !views.isContiguous(pages) or views.dim(cache, 2) == 0) return null;
        const table: [*]const i32 = @ptrFromInt(@as(usize, @intCast(pages.data)));
        return .{
            .base = @intCast(cache.data),
            .half = half,
            .heads = views.dim(cache, 1),
            .page_size = views.dim(cache, 2),
            .head_dim = views.dim(cache, 3),
            .pages = table[0..views.dim(pages, 0)],
            .physical = views.dim(cache, 0),
        };
    }

    /// Whether the logical pages of keys first … end-1 exist and are mapped.
    pub fn covers(self: *const Cache, first: usize, end: usize) bool {
        if (end <= first) return true;
        if ((end - 1) / self.page_size >= self.pages.len) return false;
        for (self.pages[first / self.page_size .. (end - 1) / self.page_size + 1]) |p| {
            if (p < 0 or p >= self.physical) return false;
        }
        return true;
    }

    /// Address of row 0 of a head in a logical page.
    pub fn page(self: *const Cache, logical: usize, head: usize) usize {
        const index = @as(usize, @intCast(self.pages[logical])) * self.heads + head;
        return self.base + index * self.page_size * self.head_dim * @as(usize, if (self.half) 2 else 4);
    }
};

fn appendRow(x: views.Cursor(false), n: usize, to: usize, half: bool) void {
    if (!half) {
        const out: [*]f32 = @ptrFromInt(to);
        if (x.stride == 1) return @memcpy(out[0..n], x.p[0..n]);
        for (0..n) |i| out[i] = x.at(i).*;
        return;
    }
    const out: [*]f16 = @ptrFromInt(to);
    var i: usize = 0;
    if (x.stride == 1) {
        while (i + lanes <= n) : (i += lanes) simd.storeHalf(out + i, simd.load(x.p + i));
    }
    while (i < n) : (i += 1) out[i] = @floatCast(x.at(i).*);
}

/// inputs: x [tokens, kv_heads, head_dim], pages; outputs: cache; ints: position of token 0.
pub fn kv_append(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x = &cmd.inputs[0];
    const cache = Cache.init(&cmd.outputs[0], &cmd.inputs[1]) orelse
        return ctx.fail("kv_append takes a contiguous f32 or f16 cache [pages, kv_heads, page_size, head_dim] and i32 pages");
    if (!views.allF32(ctx, cmd.inputs[0..1])) return;
    const shaped = x.rank == 3 and views.dim(x, 1) == cache.heads and views.dim(x, 2) == cache.head_dim;
    if (!shaped) return ctx.fail("kv_append takes x [tokens, kv_heads, head_dim] like the cache");
    const tokens = views.dim(x, 0);
    if (cmd.ints[0] < 0) return ctx.fail("kv_append: the position is negative");
    const position: usize = @intCast(cmd.ints[0]);
    if (!cache.covers(position, position + tokens)) return ctx.fail("kv_append: the position lies outside the mapped pages of the cache");
    const share = ctx.range(tokens, views.rowGrain(cache.heads * cache.head_dim));
    for (share.start..share.end) |t| {
        const at = position + t;
        for (0..cache.heads) |h| {
            const row = (at % cache.page_size) * cache.head_dim * @as(usize, if (cache.half) 2 else 4);
            const from: views.Cursor(false) = .{ .p = @ptrFromInt(views.addressOf(x, &.{ t, h })), .stride = @intCast(x.strides[2]) };
            appendRow(from, cache.head_dim, cache.page(at / cache.page_size, h) + row, cache.half);
        }
    }
}
