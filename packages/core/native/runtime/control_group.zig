//! What the control group of this process, and every one that holds it, allows (Linux, Documentation/admin-guide/
//! cgroup-v2.rst and cgroup-v1/): memory, and processors by their time.

const std = @import("std");
const os = @import("os.zig");

pub const Limits = struct {
    memory_bytes: ?u64 = null,
    /// Rounded up to whole ones.
    processors: ?u64 = null,

    fn lower(self: *Limits, memory: ?u64, processors: ?u64) void {
        if (memory) |m| self.memory_bytes = @min(m, self.memory_bytes orelse m);
        if (processors) |p| self.processors = @min(p, self.processors orelse p);
    }
};

/// Limits of version 2 from the own group up to the root as this process sees it; of version 1 those of a container's root.
pub fn limits() Limits {
    var found: Limits = .{};
    var groups: [4096]u8 = undefined;
    var path = ownPath(os.readFile("/proc/self/cgroup", &groups) orelse "") orelse "/";
    while (true) {
        var memory: [64]u8 = undefined;
        var time: [64]u8 = undefined;
        found.lower(os.firstNumber(read(path, "memory.max", &memory)), processorsOf(read(path, "cpu.max", &time)));
        if (path.len <= 1) break;
        path = path[0 .. std.mem.lastIndexOfScalar(u8, path, '/') orelse 0];
    }
    var buffer: [64]u8 = undefined;
    found.lower(os.firstNumber(os.readFile("/sys/fs/cgroup/memory/memory.limit_in_bytes", &buffer) orelse ""), null);
    const quota = os.readFile("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", &buffer) orelse "-1";
    if (quota.len > 0 and quota[0] != '-') {
        const wanted = os.firstNumber(quota);
        const period = os.firstNumber(os.readFile("/sys/fs/cgroup/cpu/cpu.cfs_period_us", &buffer) orelse "");
        if (wanted != null and period != null) found.lower(null, wholeProcessors(wanted.?, period.?));
    }
    return found;
}

fn read(path: []const u8, name: []const u8, buffer: []u8) []const u8 {
    var full: [4200]u8 = undefined;
    const file = std.fmt.bufPrintZ(&full, "/sys/fs/cgroup{s}/{s}", .{ if (path.len > 1) path else "", name }) catch return "";
    return os.readFile(file, buffer) orelse "";
}

/// The path of version 2 in /proc/self/cgroup: the line "0::/…".
fn ownPath(groups: []const u8) ?[]const u8 {
    var lines = std.mem.splitScalar(u8, groups, '\n');
    while (lines.next()) |line| if (std.mem.startsWith(u8, line, "0::/")) return line[3..];
    return null;
}

/// Of "quota period" in microseconds; null for "max period".
fn processorsOf(time: []const u8) ?u64 {
    var words = std.mem.tokenizeAny(u8, time, " \n");
    const quota = os.firstNumber(words.next() orelse return null) orelse return null;
    return wholeProcessors(quota, os.firstNumber(words.next() orelse return null) orelse return null);
}

fn wholeProcessors(quota: u64, period: u64) ?u64 {
    if (period == 0) return null;
    return @max(1, std.math.divCeil(u64, quota, period) catch return null);
}

test "lines of the system are read" {
    try std.testing.expectEqualStrings("/user.slice/a", ownPath("9:name=systemd:/\n0::/user.slice/a\n").?);
    try std.testing.expectEqual(null, ownPath("4:memory:/x\n"));
    try std.testing.expectEqual(2, processorsOf("150000 100000\n").?);
    try std.testing.expectEqual(1, processorsOf("5000 100000\n").?);
    try std.testing.expectEqual(null, processorsOf("max 100000\n"));
    try std.testing.expectEqual(null, processorsOf(""));
}

test "a lower limit counts" {
    var all: Limits = .{};
    all.lower(null, 4);
    all.lower(100, null);
    all.lower(200, 2);
    try std.testing.expectEqual(100, all.memory_bytes.?);
    try std.testing.expectEqual(2, all.processors.?);
    if (limits().memory_bytes) |bytes| try std.testing.expect(bytes > 0);
}
