//! Read-only file mappings: weights are mapped, not read. Pages come in when they are touched.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi");
const windows = std.os.windows;

pub const Failure = enum {
    not_found,
    denied,
    not_a_file,
    empty,
    no_memory,
    failed,

    /// What to say after "file: ".
    pub fn text(self: Failure) []const u8 {
        return switch (self) {
            .not_found => "no such file",
            .denied => "permission denied",
            .not_a_file => "not a regular file",
            .empty => "the file is empty",
            .no_memory => "not enough address space to map it",
            .failed => "the operating system can't map it",
        };
    }
};

pub const Result = union(enum) { ok: abi.MappedFile, failure: Failure };

/// Maps a file given by a UTF-8 path.
pub fn map(path: [*:0]const u8) Result {
    return if (builtin.os.tag == .windows) mapWindows(path) else mapPosix(path);
}

/// Ends a mapping.
pub fn unmap(file: abi.MappedFile) void {
    if (builtin.os.tag == .windows) {
        _ = kernel32.UnmapViewOfFile(@ptrFromInt(file.address));
    } else {
        const pages: [*]align(std.heap.page_size_min) const u8 = @ptrFromInt(file.address);
        std.posix.munmap(pages[0..@intCast(file.bytes)]);
    }
}

fn mapPosix(path: [*:0]const u8) Result {
    const fd = std.c.open(path, .{ .ACCMODE = .RDONLY, .CLOEXEC = true, .NONBLOCK = true });
    if (fd < 0) return .{ .failure = switch (std.posix.errno(fd)) {
        .NOENT, .NOTDIR => .not_found,
        .ACCES, .PERM => .denied,
        else => .failed,
    } };
    defer _ = std.c.close(fd);
    if (isDirectory(fd)) return .{ .failure = .not_a_file };
    const end = std.c.lseek(fd, 0, std.c.SEEK.END);
    if (end < 0) return .{ .failure = .not_a_file };
    if (end == 0) return .{ .failure = .empty };
    const bytes = std.math.cast(usize, end) orelse return .{ .failure = .no_memory };
    const pages = std.posix.mmap(null, bytes, .{ .READ = true }, .{ .TYPE = .SHARED }, fd, 0) catch |err| return .{
        .failure = switch (err) {
            error.OutOfMemory => .no_memory,
            error.AccessDenied, error.PermissionDenied => .denied,
            else => .not_a_file,
        },
    };
    return .{ .ok = .{ .address = @intFromPtr(pages.ptr), .bytes = bytes } };
}

/// A directory opens for reading, but a read of it fails.
fn isDirectory(fd: std.c.fd_t) bool {
    var byte: [1]u8 = undefined;
    const count = std.c.read(fd, &byte, 1);
    return count < 0 and std.posix.errno(count) == .ISDIR;
}

const kernel32 = struct {
    extern "kernel32" fn CreateFileW(
        path: [*:0]const u16,
        access: u32,
        share: u32,
        security: ?*anyopaque,
        disposition: u32,
        flags: u32,
        template: ?*anyopaque,
    ) callconv(.winapi) usize;
    extern "kernel32" fn GetFileSizeEx(file: usize, out: *i64) callconv(.winapi) i32;
    extern "kernel32" fn CreateFileMappingW(
        file: usize,
        security: ?*anyopaque,
        protect: u32,
        high: u32,
        low: u32,
        name: ?[*:0]const u16,
    ) callconv(.winapi) usize;
    extern "kernel32" fn MapViewOfFile(mapping: usize, access: u32, high: u32, low: u32, bytes: usize) callconv(.winapi) ?*anyopaque;
    extern "kernel32" fn UnmapViewOfFile(address: *const anyopaque) callconv(.winapi) i32;
    extern "kernel32" fn CloseHandle(handle: usize) callconv(.winapi) i32;
    extern "kernel32" fn GetLastError() callconv(.winapi) u32;
};

fn lastFailure() Failure {
    return switch (kernel32.GetLastError()) {
        2, 3 => .not_found,
        5 => .denied,
        8, 14 => .no_memory,
        else => .failed,
    };
}

fn mapWindows(path: [*:0]const u8) Result {
    var wide: [32768]u16 = undefined;
    const utf8 = std.mem.span(path);
    if (utf8.len >= wide.len) return .{ .failure = .not_found };
    const length = std.unicode.wtf8ToWtf16Le(&wide, utf8) catch return .{ .failure = .not_found };
    wide[length] = 0;
    const generic_read = 0x8000_0000;
    const share_read_delete = 0x1 | 0x4;
    const open_existing = 3;
    const random_access = 0x1000_0000;
    const file = kernel32.CreateFileW(wide[0..length :0], generic_read, share_read_delete, null, open_existing, random_access, null);
    if (file == std.math.maxInt(usize)) return .{ .failure = lastFailure() };
    defer _ = kernel32.CloseHandle(file);
    var bytes: i64 = 0;
    if (kernel32.GetFileSizeEx(file, &bytes) == 0) return .{ .failure = .not_a_file };
    if (bytes == 0) return .{ .failure = .empty };
    const read_only = 2;
    const mapping = kernel32.CreateFileMappingW(file, null, read_only, 0, 0, null);
    if (mapping == 0) return .{ .failure = lastFailure() };
    defer _ = kernel32.CloseHandle(mapping); // the view keeps it
    const map_read = 4;
    const view = kernel32.MapViewOfFile(mapping, map_read, 0, 0, 0) orelse return .{ .failure = lastFailure() };
    return .{ .ok = .{ .address = @intFromPtr(view), .bytes = @intCast(bytes) } };
}

test "maps a file, refuses what is none" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    const io = std.testing.io;
    try tmp.dir.writeFile(io, .{ .sub_path = "data", .data = "hello" });
    try tmp.dir.writeFile(io, .{ .sub_path = "empty", .data = "" });
    const file = (try mapIn(&tmp, "/data")).ok;
    defer unmap(file);
    try std.testing.expectEqual(5, file.bytes);
    try std.testing.expectEqualStrings("hello", @as([*]const u8, @ptrFromInt(file.address))[0..5]);
    try std.testing.expectEqual(.empty, (try mapIn(&tmp, "/empty")).failure);
    try std.testing.expectEqual(.not_found, (try mapIn(&tmp, "/none")).failure);
    try std.testing.expectEqual(.not_a_file, (try mapIn(&tmp, "")).failure);
}

fn mapIn(tmp: *const std.testing.TmpDir, name: []const u8) !Result {
    var buffer: [256]u8 = undefined;
    return map(try std.fmt.bufPrintZ(&buffer, ".zig-cache/tmp/{s}{s}", .{ tmp.sub_path, name }));
}
