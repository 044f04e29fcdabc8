//! Memory that runs share, the arena of programs and the scratch of kernels: as large as the largest program needs for its
//! most tokens, and nothing in it outlives a run.
//!
//! A run of few tokens touches a little of every part, so it has the system's small pages, as they are touched. With the
//! first run that fills a huge page's worth, huge ones take their place: pages of 4 KiB would take it time.

const std = @import("std");
const os = @import("os.zig");

pub const Workspace = struct {
    bytes: []align(64) u8 = &.{},
    has_huge_pages: bool = false,

    /// Makes it at least this large; its contents go. False when the system has no memory.
    pub fn grow(self: *Workspace, bytes: u64) bool {
        if (bytes <= self.bytes.len) return true;
        if (bytes > std.math.maxInt(u48)) return false;
        // Linux lays whole huge pages at boundaries of such, and nothing else.
        const unit: u64 = if (bytes >= os.huge_page_bytes) os.huge_page_bytes else std.heap.page_size_max;
        const rounded: usize = @intCast(std.mem.alignForward(u64, bytes, unit));
        const pages = os.mapSmallPages(rounded) orelse return false;
        self.deinit();
        self.bytes = @alignCast(pages[0..rounded]);
        return true;
    }

    /// Before a run that touches about so many of its bytes. The contents may go.
    pub fn prepare(self: *Workspace, touched_bytes: u64) void {
        if (self.has_huge_pages or touched_bytes < os.huge_page_bytes) return;
        os.dropPages(self.bytes.ptr, self.bytes.len);
        os.preferHugePages(@alignCast(self.bytes));
        self.has_huge_pages = true;
    }

    /// Gives the memory back to the system.
    pub fn deinit(self: *Workspace) void {
        if (self.bytes.len > 0) os.unmapPages(@alignCast(self.bytes.ptr), self.bytes.len);
        self.* = .{};
    }
};

test "grows, and can be written before and after its pages change" {
    var workspace: Workspace = .{};
    defer workspace.deinit();
    try std.testing.expect(workspace.grow(100));
    @memset(workspace.bytes[0..100], 1);
    try std.testing.expect(workspace.grow(5 << 20));
    const base = workspace.bytes.ptr;
    try std.testing.expect(workspace.grow(100)); // it is large enough
    try std.testing.expectEqual(base, workspace.bytes.ptr);
    @memset(workspace.bytes, 2);
    workspace.prepare(os.huge_page_bytes - 1);
    try std.testing.expect(!workspace.has_huge_pages);
    try std.testing.expectEqual(2, workspace.bytes[1 << 20]);
    workspace.prepare(os.huge_page_bytes);
    try std.testing.expect(workspace.has_huge_pages);
    if (@import("builtin").os.tag == .linux) try std.testing.expectEqual(0, workspace.bytes[1 << 20]); // a new page
    @memset(workspace.bytes, 2);
    workspace.prepare(os.huge_page_bytes);
    try std.testing.expectEqual(2, workspace.bytes[1 << 20]);
    @memset(workspace.bytes, 3);
    try std.testing.expect(!workspace.grow(std.math.maxInt(u64)));
    try std.testing.expectEqual(3, workspace.bytes[(5 << 20) - 1]);
}
