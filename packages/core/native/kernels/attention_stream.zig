//! What attention of few rows reads next: it takes as long as keys and values take to come from memory, so they are asked
//! for some time before, without a pause between pages and tasks.

const std = @import("std");
const builtin = @import("builtin");
const context = @import("context");
const kv = @import("kv_cache.zig");
const Page = @import("kv_page.zig").Page;
const Range = @import("kv_page.zig").Range;

/// Bytes between what is used and what is asked for: some panels of keys, whose rows are read side by side.
const distance = 8 << 10;

/// A thread's tasks, and its walk through their keys and values in the order in which they are used.
pub const Stream = struct {
    ctx: *context.Context,
    k: kv.Cache,
    v: kv.Cache,
    /// Tasks: `parts` of each head, of `part_pages` pages (counted from page 0) each.
    tasks: usize,
    parts: usize = 1,
    part_pages: usize = 1 << 32,
    /// Keys that are seen, from … to before.
    first: usize,
    end: usize,
    /// Whether there is a walk; else tasks alone.
    walks: bool,
    task: usize = 0,
    /// The next one, taken at the last page of this one: not at its only one, which would hold two before others begin.
    early: ?usize = null,
    /// Keys and values of this page and of the next one; nothing behind.
    regions: [5][]const u8 = @splat(&.{}),
    /// The region at hand, and what is left of it.
    index: usize = 0,
    at: [*]const u8 = undefined,
    bytes: usize = 0,
    /// In tests, how often each line of memory from the base of k on was asked for.
    asked: if (builtin.is_test) []u8 else void = if (builtin.is_test) &.{} else {},

    /// The task that this thread does now; null when none is left.
    pub fn begin(s: *Stream) ?usize {
        s.task = s.early orelse s.ctx.take();
        s.early = null;
        return if (s.task < s.tasks) s.task else null;
    }

    pub fn headOf(s: *const Stream, task: usize) usize {
        return task / s.parts;
    }

    /// The pages of a task, from … to before.
    pub fn pagesOf(s: *const Stream, task: usize) [2]usize {
        const size = s.k.page.page_size;
        const part = s.first / size / s.part_pages + task % s.parts;
        return .{ @max(s.first / size, part * s.part_pages), @min((s.end - 1) / size + 1, (part + 1) * s.part_pages) };
    }

    /// A page of the task begins: finds out what follows it, and gets ahead.
    pub fn open(s: *Stream, page: usize) void {
        if (!s.walks) return;
        const is_first = s.regions[2].len == 0;
        s.regions[0..2].* = s.enter(s.headOf(s.task), page, is_first);
        s.regions[2..4].* = @splat(&.{});
        const from, const to = s.pagesOf(s.task);
        if (page + 1 < to) {
            s.regions[2..4].* = s.enter(s.headOf(s.task), page + 1, true);
        } else if (page > from) {
            s.early = s.ctx.take();
            if (s.early.? < s.tasks) s.regions[2..4].* = s.enter(s.headOf(s.early.?), s.pagesOf(s.early.?)[0], true);
        }
        if (is_first or s.index < 2) s.turn(0) else if (s.index == 4) s.turn(2) else s.index -= 2;
        var lead = s.regions[s.index].len - s.bytes;
        for (s.regions[0..s.index]) |region| lead += region.len;
        while (lead < distance and s.index < 4) : (lead += 64) s.used(64);
    }

    /// Keys and values of a page; asks for its scales, which are read first, when they are `new`.
    fn enter(s: *const Stream, head: usize, page: usize, new: bool) [2][]const u8 {
        const size = s.k.page.page_size;
        const range: Range = .{ .low = s.first -| page * size, .high = @min(size, s.end - page * size) };
        var regions: [2][]const u8 = undefined;
        for (&regions, [_]*const kv.Cache{ &s.k, &s.v }) |*region, cache| {
            const base = cache.at(page, head);
            region.* = cache.page.rowBytes(base, range);
            if (new) for (0..(cache.page.scaleBytes(base).len + 63) / 64) |i| s.near(cache.page.scaleBytes(base).ptr + i * 64);
        }
        return regions;
    }

    inline fn turn(s: *Stream, index: usize) void {
        s.index = index;
        s.at = s.regions[index].ptr;
        s.bytes = s.regions[index].len;
    }

    /// Asks for what comes next, now that `n` bytes more have been used for the first time. (No calls: loops over this keep their registers.)
    pub inline fn used(s: *Stream, comptime n: usize) void {
        if (s.bytes >= n) {
            inline for (0..(n + 63) / 64) |i| s.near(s.at + i * 64);
            s.at += n;
            s.bytes -= n;
        } else if (s.index < 4) {
            for (0..(s.bytes + 63) / 64) |i| s.near(s.at + i * 64);
            s.turn(s.index + 1);
        }
    }

    inline fn near(s: *const Stream, p: [*]const u8) void {
        if (builtin.is_test) {
            const line = (@intFromPtr(p) -% s.k.base) / 64;
            if (line < s.asked.len) s.asked[line] += 1;
        }
        @prefetch(p, .{ .locality = 2 });
    }
};

test "every task is begun once, what a page is followed by is opened next, and every byte is asked for once, before its use" {
    var table: [40]i32 = undefined;
    for (&table, 0..) |*p, i| p.* = @intCast(i);
    for ([_]Page{
        .{ .form = .f16, .layout = .strided, .page_size = 16, .head_dim = 64 },
        .{ .form = .f32, .layout = .strided, .page_size = 16, .head_dim = 256 },
        .{ .form = .q8_0, .layout = .kv_keys, .page_size = 16, .head_dim = 64 },
    }) |page| for ([_]bool{ false, true }) |split| for ([_]usize{ 1, 17, 300 }) |end| {
        const half = table.len * 3 * page.bytes();
        const memory = try std.testing.allocator.alignedAlloc(u8, .@"64", 2 * half);
        defer std.testing.allocator.free(memory);
        const asked = try std.testing.allocator.alloc(u8, memory.len / 64);
        defer std.testing.allocator.free(asked);
        @memset(asked, 0);
        const k: kv.Cache = .{ .base = @intFromPtr(memory.ptr), .page = page, .heads = 3, .pages = &table, .physical = table.len };
        var v = k;
        v.base += half;
        var shared: context.Shared = .{};
        var ctx: context.Context = .{ .thread = 0, .threads = 2, .scratch = &.{}, .shared = &shared };
        const first = end -| 290;
        var one: Stream = .{ .ctx = &ctx, .k = k, .v = v, .tasks = 3, .first = first, .end = end, .walks = true, .asked = asked };
        if (split) {
            one.part_pages = 8;
            one.parts = (end - 1) / 128 + 1 - first / 128;
            one.tasks *= one.parts;
        }
        var streams = [_]Stream{ one, one };
        var pages: [3][40]u8 = @splat(@splat(0));
        var ended: [2]bool = @splat(false);
        var turn: usize = 0;
        while (!ended[0] or !ended[1]) : (turn += 1) {
            const s = &streams[turn % 2];
            const task = s.begin() orelse {
                ended[turn % 2] = true;
                continue;
            };
            const from, const to = s.pagesOf(task);
            for (from..to) |number| {
                const next = s.regions[2..4].*;
                s.open(number);
                if (number == from) try std.testing.expectEqual(null, s.early);
                if (next[0].len > 0) for (next, s.regions[0..2]) |a, b| try std.testing.expectEqual(a.ptr, b.ptr);
                try std.testing.expect(@intFromPtr(s.regions[0].ptr) - @intFromPtr(k.at(number, s.headOf(task))) < page.bytes());
                for (s.regions[0..2].*) |region| for (0..region.len / 64) |i| {
                    try std.testing.expectEqual(1, asked[(@intFromPtr(region.ptr) - k.base) / 64 + i]);
                    s.used(64);
                };
                pages[s.headOf(task)][number] += 1;
            }
        }
        var bytes: usize = 0;
        for (pages, 0..) |seen, head| for (seen, 0..) |count, number| {
            try std.testing.expectEqual(@intFromBool(number >= first / 16 and number <= (end - 1) / 16), count);
            if (count > 0) for (one.enter(head, number, false)) |region| {
                bytes += region.len + page.scaleBytes(k.at(number, head)).len;
            };
        };
        var lines: usize = 0;
        for (asked) |count| lines += count;
        try std.testing.expectEqual(bytes, lines * 64);
    };
}
