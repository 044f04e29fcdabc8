//! What the runtime needs of the operating system: pages, a clock, the machine's size, and staying loaded.

const std = @import("std");
const builtin = @import("builtin");
const control_group = @import("control_group.zig");
const windows = std.os.windows;
const os = builtin.os.tag;

const kernel32 = struct {
    extern "kernel32" fn VirtualAlloc(address: ?*anyopaque, bytes: usize, kind: u32, protect: u32) callconv(.winapi) ?*anyopaque;
    extern "kernel32" fn VirtualFree(address: *anyopaque, bytes: usize, kind: u32) callconv(.winapi) i32;
    extern "kernel32" fn QueryPerformanceCounter(out: *i64) callconv(.winapi) i32;
    extern "kernel32" fn QueryPerformanceFrequency(out: *i64) callconv(.winapi) i32;
    extern "kernel32" fn GetPhysicallyInstalledSystemMemory(kibibytes: *u64) callconv(.winapi) i32;
    extern "kernel32" fn GetModuleHandleExW(flags: u32, address: *const anyopaque, out: *?*anyopaque) callconv(.winapi) i32;
};

/// The larger pages that Linux has for memory of processes, on x86 and (with pages of 4 KiB) on arm64.
pub const huge_page_bytes = 2 << 20;

/// Address space of at least `bytes`, zeroed, committed page by page when first touched: in huge pages where that is worth it.
pub fn mapPages(bytes: usize) ?[*]align(std.heap.page_size_min) u8 {
    const pages = mapSmallPages(bytes) orelse return null;
    if (bytes >= 2 * huge_page_bytes) preferHugePages(pages[0..bytes]);
    return pages;
}

/// As `mapPages`, in the pages that the system gives unasked.
pub fn mapSmallPages(bytes: usize) ?[*]align(std.heap.page_size_min) u8 {
    if (os == .windows) {
        const commit_reserve = 0x3000;
        const read_write = 4;
        return @ptrCast(@alignCast(kernel32.VirtualAlloc(null, bytes, commit_reserve, read_write)));
    }
    const pages = std.posix.mmap(null, bytes, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0) catch
        return null;
    return pages.ptr;
}

/// Pages that are touched from now on may be huge, which saves a fifth of the time of reading weights; a refusal changes
/// nothing else.
pub fn preferHugePages(pages: []align(std.heap.page_size_min) u8) void {
    if (os == .linux) std.posix.madvise(pages.ptr, pages.len, std.os.linux.MADV.HUGEPAGE) catch {};
}

/// More than `touch` needs: systems refuse stacks that hold less than all thread-local variables of the process.
const touch_stack_bytes = 1 << 20;

/// Brings in pages of `mapPages` that were never touched, half of them on a thread of its own: the system clears them, and
/// on a virtual machine the host may have to find them, which takes up to two seconds for a gigabyte.
pub fn populate(pages: []u8) void {
    const middle = middleOf(@intFromPtr(pages.ptr), pages.len);
    const helper = if (middle > 0) std.Thread.spawn(.{ .stack_size = touch_stack_bytes }, touch, .{pages[middle..]}) catch null else null;
    touch(pages[0..middle]);
    if (helper) |thread| thread.join() else touch(pages[middle..]);
}

/// Where the 2 MiB page begins that is nearest to the middle of these bytes, counted from their start; 0 where none does.
fn middleOf(start: usize, bytes: usize) usize {
    const boundary = std.mem.alignBackward(usize, start + bytes / 2 + huge_page_bytes / 2, huge_page_bytes);
    return if (boundary > start and boundary < start + bytes) boundary - start else 0;
}

fn touch(pages: []u8) void {
    var at: usize = 0;
    while (at < pages.len) : (at += std.heap.page_size_min) @as(*volatile u8, &pages[at]).* = 0;
}

/// Gives back what `mapPages` gave.
pub fn unmapPages(pages: [*]align(std.heap.page_size_min) u8, bytes: usize) void {
    if (os == .windows) {
        const release = 0x8000;
        _ = kernel32.VirtualFree(pages, 0, release);
    } else {
        std.posix.munmap(pages[0..bytes]);
    }
}

/// Gives back the memory of the whole pages among these bytes, on Windows and macOS once the system wants it; they stay
/// usable, with whatever contents.
pub fn dropPages(start: [*]u8, bytes: usize) void {
    const from = std.mem.alignForward(usize, @intFromPtr(start), std.heap.page_size_max);
    const end = std.mem.alignBackward(usize, @intFromPtr(start) + bytes, std.heap.page_size_max);
    if (from >= end) return;
    const pages: [*]align(std.heap.page_size_min) u8 = @ptrFromInt(from);
    switch (os) {
        .windows => {
            const reset = 0x80000;
            const read_write = 4;
            _ = kernel32.VirtualAlloc(pages, end - from, reset, read_write);
        },
        .macos => std.posix.madvise(pages, end - from, std.c.MADV.FREE) catch {},
        else => std.posix.madvise(pages, end - from, std.posix.MADV.DONTNEED) catch {},
    }
}

/// Nanoseconds of a clock that only goes forward.
pub fn nowNs() u64 {
    if (os == .windows) {
        var count: i64 = 0;
        var frequency: i64 = 1;
        _ = kernel32.QueryPerformanceCounter(&count);
        _ = kernel32.QueryPerformanceFrequency(&frequency);
        return @intCast(@divFloor(@as(i128, count) * std.time.ns_per_s, @max(frequency, 1)));
    }
    var time: std.c.timespec = undefined;
    _ = std.c.clock_gettime(.MONOTONIC, &time);
    return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
}

/// A thread's processor time, which other threads can read.
pub const ThreadClock = struct {
    id: u32 = 0,

    /// The clock of the calling thread.
    pub fn own() ThreadClock {
        if (os != .linux) return .{};
        // pthread_getcpuclockid(3): the complement of the thread's number over the bits "one thread" and "scheduler".
        const thread: u32 = @intCast(std.os.linux.gettid());
        return .{ .id = ~thread << 3 | 4 | 2 };
    }

    /// Nanoseconds that the thread has run; always 0 on systems that do not tell.
    pub fn read(self: ThreadClock) u64 {
        if (os != .linux) return 0;
        var time: std.os.linux.timespec = undefined;
        if (std.os.linux.clock_gettime(@enumFromInt(self.id), &time) != 0) return 0;
        return @as(u64, @intCast(time.sec)) * std.time.ns_per_s + @as(u64, @intCast(time.nsec));
    }
};

/// Bytes of physical memory, at most what the control group allows; 0 when the system does not say.
pub fn memoryBytes() u64 {
    switch (os) {
        .linux => {
            var buffer: [4096]u8 = undefined;
            const text = readFile("/proc/meminfo", &buffer) orelse return 0;
            const at = std.mem.indexOf(u8, text, "MemTotal:") orelse return 0;
            const total = (firstNumber(text[at..]) orelse return 0) << 10;
            return @min(total, control_group.limits().memory_bytes orelse total);
        },
        .macos => return sysctl("hw.memsize") orelse 0,
        .windows => {
            var kibibytes: u64 = 0;
            return if (kernel32.GetPhysicallyInstalledSystemMemory(&kibibytes) != 0) kibibytes << 10 else 0;
        },
        else => return 0,
    }
}

/// Physical cores that this process may use, at most as many as the control group gives it the time of; `threads_per_core`
/// counts where the system only knows hardware threads.
pub fn physicalCores(threads_per_core: u32) u32 {
    const granted = if (os == .linux) control_group.limits().processors orelse 1024 else 1024;
    const logical: u32 = @intCast(@min(std.Thread.getCpuCount() catch 1, granted, 1024));
    const cores = switch (os) {
        .linux => linuxCores(),
        .macos => @as(u32, @intCast(@min(sysctl("hw.physicalcpu") orelse 0, 1024))),
        else => 0,
    };
    return @max(1, if (cores > 0) @min(cores, logical) else logical / @max(threads_per_core, 1));
}

/// Counts the processors of our affinity mask that are the first of their core.
fn linuxCores() u32 {
    const set = std.posix.sched_getaffinity(0) catch return 0;
    var cores: u32 = 0;
    for (0..@bitSizeOf(@TypeOf(set))) |cpu| {
        if (!isSet(&set, cpu)) continue;
        var path: [96]u8 = undefined;
        const name = std.fmt.bufPrintZ(&path, "/sys/devices/system/cpu/cpu{d}/topology/thread_siblings_list", .{cpu}) catch return 0;
        var buffer: [256]u8 = undefined;
        const first = firstNumber(readFile(name, &buffer) orelse return 0) orelse return 0;
        if (first == cpu or first >= @bitSizeOf(@TypeOf(set)) or !isSet(&set, first)) cores += 1;
    }
    return cores;
}

fn isSet(set: *const std.os.linux.cpu_set_t, cpu: u64) bool {
    const words: []const usize = set;
    return words[cpu / @bitSizeOf(usize)] >> @intCast(cpu % @bitSizeOf(usize)) & 1 == 1;
}

/// The first decimal number of a text.
pub fn firstNumber(text: []const u8) ?u64 {
    const start = std.mem.indexOfAny(u8, text, "0123456789") orelse return null;
    const rest = text[start..];
    return std.fmt.parseInt(u64, rest[0 .. std.mem.indexOfNone(u8, rest, "0123456789") orelse rest.len], 10) catch null;
}

/// What a small file holds; null when it can't be read.
pub fn readFile(path: [*:0]const u8, buffer: []u8) ?[]const u8 {
    const fd = std.c.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true });
    if (fd < 0) return null;
    defer _ = std.c.close(fd);
    const count = std.c.read(fd, buffer.ptr, buffer.len);
    return if (count < 0) null else buffer[0..@intCast(count)];
}

fn sysctl(name: [*:0]const u8) ?u64 {
    var value: u64 = 0;
    var bytes: usize = @sizeOf(u64);
    return if (std.c.sysctlbyname(name, &value, &bytes, null, 0) == 0) value else null;
}

const DlInfo = extern struct { file: ?[*:0]const u8, base: ?*anyopaque, symbol: ?[*:0]const u8, address: ?*anyopaque };
extern "c" fn dladdr(address: *const anyopaque, info: *DlInfo) c_int;
extern "c" fn dlopen(path: ?[*:0]const u8, flags: c_int) ?*anyopaque;

/// Keeps the library that holds `address` mapped for the life of the process: parked threads live in its text, and
/// Deno unmaps libraries at close and at exit.
pub fn pinLibrary(address: *const anyopaque) void {
    if (os == .windows) {
        const from_address_pin = 0x4 | 0x1;
        var module: ?*anyopaque = null;
        _ = kernel32.GetModuleHandleExW(from_address_pin, address, &module);
        return;
    }
    const lazy_noload_nodelete: c_int = if (os == .macos) 0x1 | 0x10 | 0x80 else 0x1 | 0x4 | 0x1000;
    var info: DlInfo = undefined;
    if (dladdr(address, &info) != 0) _ = dlopen(info.file, lazy_noload_nodelete);
}

test "the machine has a size" {
    try std.testing.expect(memoryBytes() > 64 << 20);
    try std.testing.expect(physicalCores(1) >= 1);
    const before = nowNs();
    try std.testing.expect(nowNs() >= before);
    try std.testing.expectEqual(17, firstNumber("MemTotal:  17 kB\n2").?);
    try std.testing.expectEqual(null, firstNumber("max\n"));
}

test "a thread's clock runs while the thread does" {
    const Other = struct {
        var clock: ThreadClock = .{};
        var is_up: std.atomic.Value(bool) = .init(false);
        var may_end: std.atomic.Value(bool) = .init(false);
        fn go() void {
            clock = .own();
            is_up.store(true, .release);
            while (!may_end.load(.acquire)) std.atomic.spinLoopHint();
        }
    };
    const thread = try std.Thread.spawn(.{}, Other.go, .{});
    defer thread.join();
    defer Other.may_end.store(true, .release);
    while (!Other.is_up.load(.acquire)) std.Thread.yield() catch {};
    const before = Other.clock.read();
    if (os == .linux) {
        while (Other.clock.read() == before) std.Thread.yield() catch {};
    } else try std.testing.expectEqual(0, before);
}

test "pages are zeroed and lazy" {
    const bytes = 1 << 36; // far more than is committed
    const pages = mapPages(bytes) orelse return; // a strict overcommit policy may refuse
    defer unmapPages(pages, bytes);
    try std.testing.expectEqual(0, pages[bytes - 1]);
    pages[bytes / 2] = 1;
}

test "two threads share pages at the boundary of 2 MiB nearest to the middle" {
    const mib = 1 << 20;
    try std.testing.expectEqual(4 * mib - 64, middleOf(64 * mib + 64, 8 * mib - 64));
    try std.testing.expectEqual(4 * mib, middleOf(64 * mib, 8 * mib));
    try std.testing.expectEqual(3 * mib, middleOf(65 * mib, 7 * mib));
    try std.testing.expectEqual(mib, middleOf(65 * mib, 2 * mib));
    try std.testing.expectEqual(0, middleOf(64 * mib, mib));
    try std.testing.expectEqual(0, middleOf(64 * mib + 64, 2 * mib - 64));
}
