//! The paged KV cache [physical pages, kv_heads, page_size, head_dim]: kv_append and the address of a head's page.
//! kv_page.zig has what lies inside a page.

const abi = @import("abi");
const Context = @import("context").Context;
const views = @import("views.zig");
const Page = @import("kv_page.zig").Page;

/// What fails where a page is not `mapped`.
pub const not_mapped = "a page is not in the cache";

/// A cache and its page table.
pub const Cache = struct {
    base: usize,
    page: Page,
    heads: usize,
    pages: []const i32,
    physical: usize,

    pub fn init(cache: *const abi.TensorDesc, pages: *const abi.TensorDesc) Cache {
        const table: [*]const i32 = @ptrFromInt(@as(usize, @intCast(pages.data)));
        return .{
            .base = @intCast(cache.data),
            .page = .init(cache),
            .heads = views.dim(cache, 1),
            .pages = table[0..views.dim(pages, 0)],
            .physical = views.dim(cache, 0),
        };
    }

    /// Whether the pages of keys first … end-1 are in the cache. That there are so many is checked before.
    pub fn mapped(self: *const Cache, first: usize, end: usize) bool {
        const size = self.page.page_size;
        for (self.pages[first / size .. (end - 1) / size + 1]) |p| {
            if (p < 0 or p >= self.physical) return false;
        }
        return true;
    }

    /// A head's part of a logical page.
    pub fn at(self: *const Cache, logical: usize, head: usize) [*]u8 {
        const index = @as(usize, @intCast(self.pages[logical])) * self.heads + head;
        return @ptrFromInt(self.base + index * self.page.bytes());
    }
};

/// A row per thread.
pub fn kv_append_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    return @as(u64, threads) * views.dim(&cmd.inputs[0], 2) * @sizeOf(f32);
}

/// inputs: x [tokens, kv_heads, head_dim], pages; outputs: cache; ints: position of token 0.
pub fn kv_append(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x = &cmd.inputs[0];
    const cache: Cache = .init(&cmd.outputs[0], &cmd.inputs[1]);
    const tokens = views.dim(x, 0);
    const n = cache.page.head_dim;
    const position: usize = @intCast(cmd.ints[0]);
    // The page before as well, where a reference is made from it.
    const first = if (cache.page.hasReference()) position -| 1 else position;
    if (!cache.mapped(first, position + tokens)) return ctx.fail(not_mapped);
    const scratch = @as([*]f32, @ptrCast(ctx.scratch.ptr)) + ctx.thread * n;
    // Quantised keys depend on the page before: one share takes all tokens of a head.
    const run = if (cache.page.hasReference()) tokens else 1;
    const share = ctx.range(tokens / run * cache.heads, views.rowGrain(n * run));
    for (share.start..share.end) |i| for (0..run) |t| {
        const token = i / cache.heads + t;
        const head = i % cache.heads;
        const from: views.Cursor(false) = .{ .p = @ptrFromInt(views.addressOf(x, &.{ token, head })), .stride = @intCast(x.strides[2]) };
        const dense = from.stride == 1 and cache.page.form.isFloat();
        if (!dense) from.read(scratch[0..n]);
        const page = (position + token) / cache.page.page_size;
        const before = if (page > 0 and cache.page.hasReference()) cache.at(page - 1, head) else null;
        const j = (position + token) % cache.page.page_size;
        cache.page.write(cache.at(page, head), j, if (dense) from.p else scratch, before);
    };
}
