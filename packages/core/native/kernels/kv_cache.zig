//! The paged KV cache [physical pages, kv_heads, page_size, head_dim]: kv_append and the address of a head's page.

const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");

const lanes = simd.lanes;

/// A cache and its page table.
pub const Cache = struct {
    base: usize,
    half: bool,
    heads: usize,
    page_size: usize,
    head_dim: usize,
    pages: []const i32,
    physical: usize,

    pub fn init(cache: *const abi.TensorDesc, pages: *const abi.TensorDesc) Cache {
        const table: [*]const i32 = @ptrFromInt(@as(usize, @intCast(pages.data)));
        return .{
            .base = @intCast(cache.data),
            .half = cache.dtype == @intFromEnum(abi.Dtype.f16),
            .heads = views.dim(cache, 1),
            .page_size = views.dim(cache, 2),
            .head_dim = views.dim(cache, 3),
            .pages = table[0..views.dim(pages, 0)],
            .physical = views.dim(cache, 0),
        };
    }

    /// Whether the pages of keys first … end-1 are in the cache. That there are so many is checked before.
    pub fn mapped(self: *const Cache, first: usize, end: usize) bool {
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
    const cache: Cache = .init(&cmd.outputs[0], &cmd.inputs[1]);
    const tokens = views.dim(x, 0);
    const position: usize = @intCast(cmd.ints[0]);
    if (!cache.mapped(position, position + tokens)) return ctx.fail("kv_append: a page is not in the cache");
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
