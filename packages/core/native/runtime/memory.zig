//! Memory of a device: 64-byte aligned blocks with a header in front.
//!
//! Small blocks are cut from chunks, medium ones (most weights) from regions of 2 MiB pages, which save a fifth of the time
//! of reading weights and which a block of its own pages would be too small for. Freed, both wait in a list per size class;
//! of medium ones beyond a bound only the address space waits (and, on Windows, its commit charge). Large ones (caches, the
//! largest weights) are mapped and unmapped. So an eager op costs no system call for its result once the sizes have been
//! seen. Whatever is still in use at `deinit` goes with the device.

const std = @import("std");
const os = @import("os.zig");
const wait = @import("wait.zig");

const header_bytes = 64;
const chunk_bytes = 1 << 20;
/// Blocks of at least this size (header included) are cut from regions,
const medium_min = 64 << 10;
/// and above this one have pages of their own.
const medium_max = 16 << 20;
const region_bytes = 64 << 20;
/// Regions get their pages in such steps, which two threads share. At most so much waits for blocks to come: where a block
/// begins the next region, the last one gives back what it has left.
const region_step = 8 << 20;
/// Freed medium blocks beyond this give their pages back at once.
const cached_bytes_max = 128 << 20;
/// Freed blocks of a class that are looked at for one that is large enough.
const fits_max = 32;

const live_magic: u32 = 0x6d6c6c6d;
const free_magic: u32 = 0x66726565;
const large_class = class_count;

const Header = struct {
    magic: u32,
    /// Of small blocks; medium ones belong to the class that their size reaches.
    class: u32,
    /// Size of the block, header included.
    bytes: u64,
    /// Free list, or the list of live large blocks.
    next: ?*Header = null,
    previous: ?*Header = null,
    /// Of a freed medium block, whether it counts as cached.
    has_pages: bool = false,
};

/// What blocks are cut from, one after the other.
const Chunk = struct {
    next: ?*Chunk,

    /// A list of chunks of one size.
    const List = struct {
        bytes: usize,
        /// Pages come in so many bytes at a time, where that is not 0.
        step: usize = 0,
        first: ?*Chunk = null,
        used: usize = 0,
        /// Bytes of the first chunk that have pages.
        ready: usize = 0,

        fn cut(self: *List, bytes: usize) ?*Header {
            if (self.first == null or self.used + bytes > self.bytes) {
                const chunk: *Chunk = @ptrCast(@alignCast(os.mapPages(self.bytes) orelse return null));
                if (self.first) |last| if (self.ready > self.used) os.dropPages(@as([*]u8, @ptrCast(last)) + self.used, self.ready - self.used);
                chunk.next = self.first;
                self.first = chunk;
                self.used = 64;
                self.ready = 64;
            }
            const base: [*]u8 = @ptrCast(self.first.?);
            const end = self.used + bytes;
            if (self.step > 0 and end > self.ready) {
                const ready = @min(self.bytes, std.mem.alignForward(usize, end, self.step));
                os.populate(base[self.ready..ready]);
                self.ready = ready;
            }
            defer self.used = end;
            return @ptrCast(@alignCast(base + self.used));
        }

        /// Gives back the huge pages that wait for blocks to come.
        fn trim(self: *List) void {
            const base = @intFromPtr(self.first orelse return);
            const end = std.mem.alignForward(usize, base + self.used, os.huge_page_bytes) - base;
            if (end >= self.ready) return;
            os.dropPages(@as([*]u8, @ptrFromInt(base)) + end, self.ready - end);
            self.ready = end;
        }

        fn deinit(self: *List) void {
            while (self.first) |chunk| {
                self.first = chunk.next;
                os.unmapPages(@ptrCast(@alignCast(chunk)), self.bytes);
            }
        }
    };
};

comptime {
    std.debug.assert(@sizeOf(Header) <= header_bytes);
    std.debug.assert(classBytes(class_count - 1) == medium_max);
    std.debug.assert(classOf(medium_max) == class_count - 1);
    for (0..class_count) |class| std.debug.assert(classBytes(class) % 64 == 0 and classOf(classBytes(class)) == class);
}

/// 128, 192, then four classes per doubling from 256 on.
const class_count = 2 + 16 * 4 + 1;
/// The largest block of the classes below medium_min.
const small_max = classBytes(classOf(medium_min) - 1);

fn classBytes(class: usize) u64 {
    if (class < 2) return 128 + 64 * @as(u64, class);
    const i = class - 2;
    return (4 + @as(u64, i % 4)) << @intCast(6 + i / 4);
}

/// The smallest class that holds `bytes` (at most medium_max).
fn classOf(bytes: u64) usize {
    if (bytes <= 192) return if (bytes <= 128) 0 else 1;
    if (bytes <= 256) return 2;
    const last = bytes - 1;
    const shift: u6 = @intCast(63 - @clz(last) - 2);
    // last lies in [4, 8) << shift
    return 2 + (@as(usize, shift) - 6) * 4 + @as(usize, @intCast(last >> shift)) - 4 + 1;
}

/// The largest class that a block of `bytes` (medium_min to medium_max) can serve.
fn classReached(bytes: u64) usize {
    const class = classOf(bytes);
    return if (classBytes(class) > bytes) class - 1 else class;
}

pub const Memory = struct {
    lock: wait.Lock = .{},
    free_lists: [class_count]?*Header = @splat(null),
    chunks: Chunk.List = .{ .bytes = chunk_bytes },
    regions: Chunk.List = .{ .bytes = region_bytes, .step = region_step },
    /// Live large blocks.
    mapped: ?*Header = null,
    cached_bytes: u64 = 0,

    /// 64-byte aligned, not cleared; null when the system has none.
    pub fn alloc(self: *Memory, bytes: u64) ?[*]align(64) u8 {
        if (bytes > std.math.maxInt(u48)) return null;
        self.lock.acquire();
        defer self.lock.release();
        const need = std.mem.alignForward(u64, bytes + header_bytes, 64);
        const found = if (need > medium_max)
            self.map(need)
        else if (need > small_max)
            self.takeMedium(@max(need, medium_min))
        else
            self.takeSmall(classOf(need));
        const header = found orelse return null;
        header.magic = live_magic;
        return @alignCast(@as([*]u8, @ptrCast(header)) + header_bytes);
    }

    /// Gives back a block of `alloc`; false for a small one that is not in use any more (a large one has lost its pages
    /// by then, and must not be asked for).
    pub fn free(self: *Memory, address: u64) bool {
        if (address < header_bytes or address % 64 != 0) return false;
        self.lock.acquire();
        defer self.lock.release();
        const header: *Header = @ptrFromInt(address - header_bytes);
        if (header.magic != live_magic) return false;
        if (header.class == large_class) {
            self.unlink(header);
            os.unmapPages(@ptrCast(@alignCast(header)), header.bytes);
            return true;
        }
        header.magic = free_magic;
        if (header.bytes >= medium_min) {
            header.has_pages = self.cached_bytes + header.bytes <= cached_bytes_max;
            if (header.has_pages) self.cached_bytes += header.bytes else {
                const block: [*]u8 = @ptrCast(header);
                os.dropPages(block + header_bytes, header.bytes - header_bytes);
            }
        }
        header.next = self.free_lists[header.class];
        self.free_lists[header.class] = header;
        return true;
    }

    /// Gives back the pages that wait for more weights: there are none to come for now.
    pub fn trim(self: *Memory) void {
        self.lock.acquire();
        defer self.lock.release();
        self.regions.trim();
    }

    /// Gives everything back to the system.
    pub fn deinit(self: *Memory) void {
        while (self.mapped) |header| {
            self.mapped = header.next;
            os.unmapPages(@ptrCast(@alignCast(header)), header.bytes);
        }
        self.chunks.deinit();
        self.regions.deinit();
        self.* = .{};
    }

    /// A block of a class: one that was freed, or a new one.
    fn takeSmall(self: *Memory, class: usize) ?*Header {
        if (self.free_lists[class]) |first| {
            self.free_lists[class] = first.next;
            return first;
        }
        const header = self.chunks.cut(classBytes(class)) orelse return null;
        header.* = .{ .magic = live_magic, .class = @intCast(class), .bytes = classBytes(class) };
        return header;
    }

    /// A block of at least `bytes`: one that was freed, or a new one of just that size, so that blocks that stay waste nothing.
    fn takeMedium(self: *Memory, bytes: u64) ?*Header {
        const class = classReached(bytes);
        for ([_]usize{ class, class + 1 }) |list| {
            if (list >= class_count) break;
            const place = bestFit(&self.free_lists[list], bytes) orelse continue;
            const header = place.*.?;
            place.* = header.next;
            if (header.has_pages) self.cached_bytes -= header.bytes;
            return header;
        }
        const header = self.regions.cut(bytes) orelse return self.map(bytes); // where a region is more than the system grants
        header.* = .{ .magic = live_magic, .class = @intCast(class), .bytes = bytes };
        return header;
    }

    /// Where in the list the smallest block of at least `bytes` hangs, one with pages first.
    fn bestFit(list: *?*Header, bytes: u64) ?*?*Header {
        var best: ?*?*Header = null;
        var place = list;
        for (0..fits_max) |_| {
            const header = place.* orelse break;
            if (header.bytes >= bytes) {
                const other = if (best) |one| one.*.? else null;
                const better = other == null or header.bytes < other.?.bytes or
                    (header.bytes == other.?.bytes and header.has_pages and !other.?.has_pages);
                if (better) best = place;
            }
            place = &header.next;
        }
        return best;
    }

    fn map(self: *Memory, bytes: u64) ?*Header {
        const rounded = std.mem.alignForward(u64, bytes, std.heap.page_size_max);
        const header: *Header = @ptrCast(@alignCast(os.mapPages(rounded) orelse return null));
        header.* = .{ .magic = live_magic, .class = large_class, .bytes = rounded };
        self.link(header);
        return header;
    }

    fn link(self: *Memory, header: *Header) void {
        header.previous = null;
        header.next = self.mapped;
        if (self.mapped) |first| first.previous = header;
        self.mapped = header;
    }

    fn unlink(self: *Memory, header: *Header) void {
        if (header.previous) |previous| previous.next = header.next else self.mapped = header.next;
        if (header.next) |next| next.previous = header.previous;
    }
};

test "blocks are aligned, distinct and reused" {
    var memory: Memory = .{};
    defer memory.deinit();
    var blocks: [200][*]align(64) u8 = undefined;
    for (&blocks, 0..) |*block, i| {
        block.* = memory.alloc(i * 37) orelse return error.OutOfMemory;
        @memset(block.*[0 .. i * 37], @intCast(i));
    }
    for (blocks, 0..) |block, i| for (block[0 .. i * 37]) |byte| try std.testing.expectEqual(i, byte);
    const address = @intFromPtr(blocks[7]);
    try std.testing.expect(memory.free(address));
    try std.testing.expect(!memory.free(address));
    try std.testing.expect(!memory.free(address + 1));
    try std.testing.expectEqual(address, @intFromPtr(memory.alloc(7 * 37).?));
    for (blocks) |block| try std.testing.expect(memory.free(@intFromPtr(block)));
}

test "medium blocks are kept, large ones are not" {
    var memory: Memory = .{};
    defer memory.deinit();
    const medium = memory.alloc(3 << 20).?;
    medium[(3 << 20) - 1] = 1;
    try std.testing.expect(memory.free(@intFromPtr(medium)));
    try std.testing.expect(memory.cached_bytes >= 3 << 20);
    try std.testing.expectEqual(medium, memory.alloc(3 << 20).?);
    try std.testing.expectEqual(0, memory.cached_bytes);
    try std.testing.expectEqual(region_step, memory.regions.ready);
    _ = memory.alloc(6 << 20).?;
    try std.testing.expectEqual(2 * region_step, memory.regions.ready);
    const large = memory.alloc(medium_max).?;
    large[medium_max - 1] = 1;
    try std.testing.expect(memory.free(@intFromPtr(large)));
    try std.testing.expectEqual(0, memory.cached_bytes);
    try std.testing.expectEqual(null, memory.alloc(std.math.maxInt(u64) - 10));
}

test "medium blocks have the very size, and freed ones serve what fits" {
    var memory: Memory = .{};
    defer memory.deinit();
    const small_gap = small_max - header_bytes + 1;
    const sizes = [_]u64{ medium_min, 60_000, small_gap, 589_824, 600_000, 1_769_472, 5 << 20, medium_max - header_bytes, 600_000 };
    var blocks: [sizes.len * 9][*]align(64) u8 = undefined; // more than a region
    for (&blocks, 0..) |*block, i| {
        block.* = memory.alloc(sizes[i % sizes.len]).?;
        @memset(block.*[0..sizes[i % sizes.len]], @intCast(i));
    }
    for (blocks, 0..) |block, i| for (block[0..sizes[i % sizes.len]]) |byte| try std.testing.expectEqual(@as(u8, @intCast(i)), byte);
    const used = memory.regions.used;
    for (0..3) |_| {
        for (blocks) |block| try std.testing.expect(memory.free(@intFromPtr(block)));
        try std.testing.expect(memory.cached_bytes <= cached_bytes_max);
        for (&blocks, 0..) |*block, i| {
            block.* = memory.alloc(sizes[i % sizes.len]).?;
            @memset(block.*[0..sizes[i % sizes.len]], @intCast(i));
        }
        for (blocks, 0..) |block, i| try std.testing.expectEqual(@as(u8, @intCast(i)), block[sizes[i % sizes.len] - 1]);
        try std.testing.expectEqual(0, memory.cached_bytes);
    }
    try std.testing.expectEqual(used, memory.regions.used);
}

test "beyond the bound, freed blocks keep no pages" {
    if (@import("builtin").os.tag != .linux) return error.SkipZigTest;
    var memory: Memory = .{};
    defer memory.deinit();
    var blocks: [10][*]align(64) u8 = undefined;
    for (&blocks) |*block| {
        block.* = memory.alloc(15 << 20).?;
        block.*[7 << 20] = 1;
    }
    for (blocks) |block| try std.testing.expect(memory.free(@intFromPtr(block)));
    for (0..10) |i| try std.testing.expectEqual(@intFromBool(i < 8), memory.alloc(15 << 20).?[7 << 20]);
}

test "a region that is left keeps no pages behind its blocks" {
    if (@import("builtin").os.tag != .linux) return error.SkipZigTest;
    var memory: Memory = .{};
    defer memory.deinit();
    const block = memory.alloc(2 << 20).?;
    for (0..4) |_| _ = memory.alloc(15 << 20).?;
    const last: [*]u8 = @ptrCast(memory.regions.first.?);
    const used = memory.regions.used;
    try std.testing.expectEqual(region_bytes, memory.regions.ready);
    @memset(last[used..region_bytes], 1);
    block[(2 << 20) - 1] = 1;
    last[used - 1] = 1;
    _ = memory.alloc(15 << 20).?;
    try std.testing.expect(@as([*]u8, @ptrCast(memory.regions.first.?)) != last);
    const page = std.heap.page_size_max;
    for (std.mem.alignForward(usize, used, page)..region_bytes) |i| try std.testing.expectEqual(0, last[i]);
    try std.testing.expectEqual(1, block[(2 << 20) - 1]);
    try std.testing.expectEqual(1, last[used - 1]);
}

test "trimmed, a region keeps no huge page that no block lies in" {
    if (@import("builtin").os.tag != .linux) return error.SkipZigTest;
    var memory: Memory = .{};
    defer memory.deinit();
    memory.trim(); // nothing is there
    const block = memory.alloc(3 << 20).?;
    const region: [*]u8 = @ptrCast(memory.regions.first.?);
    @memset(region[memory.regions.used..region_step], 1);
    block[(3 << 20) - 1] = 1;
    memory.trim();
    const end = memory.regions.ready;
    try std.testing.expect(end >= memory.regions.used and end <= memory.regions.used + os.huge_page_bytes);
    for (end..region_step) |i| try std.testing.expectEqual(0, region[i]);
    try std.testing.expectEqual(1, block[(3 << 20) - 1]);
    const next = memory.alloc(6 << 20).?;
    try std.testing.expect(memory.regions.ready >= memory.regions.used);
    @memset(next[0 .. 6 << 20], 1);
}

test "classes waste at most a quarter" {
    var bytes: u64 = 256;
    while (bytes < medium_max) : (bytes += bytes / 7 + 1) {
        const size = classBytes(classOf(bytes));
        try std.testing.expect(size >= bytes and size <= bytes + bytes / 4 + 64);
    }
}
