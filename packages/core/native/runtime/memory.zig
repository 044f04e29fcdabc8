//! Memory of a device: 64-byte aligned blocks with a header in front.
//!
//! Small blocks are cut from chunks and kept in a free list per size class; medium ones are pages of their own, kept too
//! up to a bound; large ones (weights, caches) are mapped and unmapped. So an eager op costs no system call for its
//! result once the sizes have been seen. Whatever is still in use at `deinit` goes with the device.

const std = @import("std");
const os = @import("os.zig");
const wait = @import("wait.zig");

const header_bytes = 64;
const chunk_bytes = 1 << 20;
/// Blocks of at least this size (header included) have pages of their own.
const medium_min = 64 << 10;
const medium_max = 64 << 20;
/// Medium blocks beyond this are unmapped at once.
const cached_bytes_max = 128 << 20;

const live_magic: u32 = 0x6d6c6c6d;
const free_magic: u32 = 0x66726565;
const large_class = class_count;

const Header = struct {
    magic: u32,
    class: u32,
    /// Size of the block, header included.
    bytes: u64,
    /// Free list, or the list of live blocks with pages of their own.
    next: ?*Header,
    previous: ?*Header,
};

const Chunk = struct { next: ?*Chunk };

comptime {
    std.debug.assert(@sizeOf(Header) <= header_bytes);
    std.debug.assert(classBytes(class_count - 1) == medium_max);
    std.debug.assert(classOf(medium_max) == class_count - 1);
    for (0..class_count) |class| std.debug.assert(classBytes(class) % 64 == 0 and classOf(classBytes(class)) == class);
}

/// 128, 192, then four classes per doubling from 256 on.
const class_count = 2 + 18 * 4 + 1;

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

pub const Memory = struct {
    lock: wait.Lock = .{},
    free_lists: [class_count]?*Header = @splat(null),
    chunks: ?*Chunk = null,
    chunk_used: usize = chunk_bytes,
    /// Live blocks with pages of their own.
    mapped: ?*Header = null,
    cached_bytes: u64 = 0,

    /// 64-byte aligned, not cleared; null when the system has none.
    pub fn alloc(self: *Memory, bytes: u64) ?[*]align(64) u8 {
        if (bytes > std.math.maxInt(u48)) return null;
        self.lock.acquire();
        defer self.lock.release();
        const need = bytes + header_bytes;
        const found = if (need > medium_max) self.map(large_class, need) else self.take(classOf(need));
        const header = found orelse return null;
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
        header.magic = free_magic;
        if (header.bytes >= medium_min) {
            self.unlink(header);
            if (header.class == large_class or self.cached_bytes + header.bytes > cached_bytes_max) {
                os.unmapPages(@ptrCast(@alignCast(header)), header.bytes);
                return true;
            }
            self.cached_bytes += header.bytes;
        }
        header.next = self.free_lists[header.class];
        self.free_lists[header.class] = header;
        return true;
    }

    /// Gives everything back to the system.
    pub fn deinit(self: *Memory) void {
        unmapList(self.mapped);
        for (self.free_lists, 0..) |list, class| if (classBytes(class) >= medium_min) unmapList(list);
        var chunk = self.chunks;
        while (chunk) |current| {
            chunk = current.next;
            os.unmapPages(@ptrCast(@alignCast(current)), chunk_bytes);
        }
        self.* = .{};
    }

    fn unmapList(list: ?*Header) void {
        var header = list;
        while (header) |current| {
            header = current.next;
            os.unmapPages(@ptrCast(@alignCast(current)), current.bytes);
        }
    }

    /// A block of a class: one that was freed, or a new one.
    fn take(self: *Memory, class: usize) ?*Header {
        const size = classBytes(class);
        const first = self.free_lists[class] orelse return if (size >= medium_min) self.map(class, size) else self.cut(class, size);
        self.free_lists[class] = first.next;
        if (first.bytes >= medium_min) {
            self.cached_bytes -= first.bytes;
            self.link(first);
        }
        first.magic = live_magic;
        return first;
    }

    fn map(self: *Memory, class: usize, bytes: u64) ?*Header {
        const rounded = std.mem.alignForward(u64, bytes, std.heap.page_size_max);
        const header: *Header = @ptrCast(@alignCast(os.mapPages(rounded) orelse return null));
        header.* = .{ .magic = live_magic, .class = @intCast(class), .bytes = rounded, .next = null, .previous = null };
        self.link(header);
        return header;
    }

    fn cut(self: *Memory, class: usize, bytes: u64) ?*Header {
        if (self.chunk_used + bytes > chunk_bytes) {
            const chunk: *Chunk = @ptrCast(@alignCast(os.mapPages(chunk_bytes) orelse return null));
            chunk.next = self.chunks;
            self.chunks = chunk;
            self.chunk_used = 64;
        }
        const base: [*]u8 = @ptrCast(self.chunks.?);
        const header: *Header = @ptrCast(@alignCast(base + self.chunk_used));
        self.chunk_used += bytes;
        header.* = .{ .magic = live_magic, .class = @intCast(class), .bytes = bytes, .next = null, .previous = null };
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
    const large = memory.alloc(1 << 30).?;
    large[1 << 29] = 1;
    try std.testing.expect(memory.free(@intFromPtr(large)));
    try std.testing.expectEqual(0, memory.cached_bytes);
    try std.testing.expectEqual(null, memory.alloc(std.math.maxInt(u64) - 10));
}

test "classes waste at most a quarter" {
    var bytes: u64 = 256;
    while (bytes < medium_max) : (bytes += bytes / 7 + 1) {
        const size = classBytes(classOf(bytes));
        try std.testing.expect(size >= bytes and size <= bytes + bytes / 4 + 64);
    }
}
