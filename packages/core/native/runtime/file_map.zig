//! Read-only mappings of files or of ranges of them: weights are mapped, not read. Pages come in when they are touched,
//! and count as this process's until the mapping ends: so a few weights are mapped at a time, while they are packed.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi");
const windows = std.os.windows;

pub const Failure = enum {
    not_found,
    denied,
    not_a_file,
    empty,
    too_short,
    no_memory,
    failed,

    /// What to say after "file: ".
    pub fn text(self: Failure) []const u8 {
        return switch (self) {
            .not_found => "no such file",
            .denied => "permission denied",
            .not_a_file => "not a regular file",
            .empty => "the file is empty",
            .too_short => "the file ends before that range does (is it being written?)",
            .no_memory => "not enough address space to map it",
            .failed => "the operating system can't map it",
        };
    }
};

/// Part of a file; 0 bytes stand for all from `offset` on.
pub const Range = struct {
    offset: u64 = 0,
    bytes: u64 = 0,

    const Within = union(enum) { ok: usize, failure: Failure };

    /// Its bytes in a file of so many.
    fn within(self: Range, file_bytes: u64) Within {
        if (file_bytes == 0) return .{ .failure = .empty };
        if (self.offset >= file_bytes or self.bytes > file_bytes - self.offset) return .{ .failure = .too_short };
        const bytes = if (self.bytes == 0) file_bytes - self.offset else self.bytes;
        return if (std.math.cast(usize, bytes + self.skip())) |_| .{ .ok = @intCast(bytes) } else .{ .failure = .no_memory };
    }

    /// Bytes by which a mapping starts earlier, as it must at a multiple of the system's grain.
    fn skip(self: Range) u64 {
        return self.offset % grain;
    }
};

/// Mappings start at multiples of this: Windows' allocation granularity, and a multiple of any page size.
const grain = 64 << 10;

/// A mapped range: `file` is what was asked for, `skip` bytes in front of it are mapped too.
pub const Mapping = struct { file: abi.MappedFile, skip: usize };

pub const Result = union(enum) { ok: Mapping, failure: Failure };

/// Maps a range of a file given by a UTF-8 path.
pub fn map(path: [*:0]const u8, range: Range) Result {
    return if (builtin.os.tag == .windows) mapWindows(path, range) else mapPosix(path, range);
}

/// Ends a mapping.
pub fn unmap(mapping: Mapping) void {
    const base = mapping.file.address - mapping.skip;
    if (builtin.os.tag == .windows) {
        _ = kernel32.UnmapViewOfFile(@ptrFromInt(base));
    } else {
        const pages: [*]align(std.heap.page_size_min) const u8 = @ptrFromInt(base);
        std.posix.munmap(pages[0 .. mapping.skip + @as(usize, @intCast(mapping.file.bytes))]);
    }
}

fn mappingAt(base: usize, bytes: usize, range: Range) Result {
    const skip: usize = @intCast(range.skip());
    return .{ .ok = .{ .file = .{ .address = base + skip, .bytes = bytes }, .skip = skip } };
}

fn mapPosix(path: [*:0]const u8, range: Range) Result {
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
    const bytes = switch (range.within(@intCast(end))) {
        .ok => |bytes| bytes,
        .failure => |failure| return .{ .failure = failure },
    };
    const skip: usize = @intCast(range.skip());
    const pages = std.posix.mmap(null, skip + bytes, .{ .READ = true }, .{ .TYPE = .SHARED }, fd, range.offset - skip) catch |err| return .{
        .failure = switch (err) {
            error.OutOfMemory => .no_memory,
            error.AccessDenied, error.PermissionDenied => .denied,
            else => .not_a_file,
        },
    };
    return mappingAt(@intFromPtr(pages.ptr), bytes, range);
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
    extern "kernel32" fn GetFileAttributesW(path: [*:0]const u16) callconv(.winapi) u32;
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

/// Why `path` did not open. A directory does not without a flag for it: "access denied".
fn openFailure(path: [*:0]const u16) Failure {
    const failure = lastFailure();
    if (failure != .denied) return failure;
    const no_attributes = std.math.maxInt(u32);
    const directory = 0x10;
    const attributes = kernel32.GetFileAttributesW(path);
    return if (attributes != no_attributes and attributes & directory != 0) .not_a_file else .denied;
}

fn mapWindows(path: [*:0]const u8, range: Range) Result {
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
    if (file == std.math.maxInt(usize)) return .{ .failure = openFailure(wide[0..length :0]) };
    defer _ = kernel32.CloseHandle(file);
    var end: i64 = 0;
    if (kernel32.GetFileSizeEx(file, &end) == 0) return .{ .failure = .not_a_file };
    const bytes = switch (range.within(@intCast(end))) {
        .ok => |bytes| bytes,
        .failure => |failure| return .{ .failure = failure },
    };
    const read_only = 2;
    const mapping = kernel32.CreateFileMappingW(file, null, read_only, 0, 0, null);
    if (mapping == 0) return .{ .failure = lastFailure() };
    defer _ = kernel32.CloseHandle(mapping); // the view keeps it
    const map_read = 4;
    const start = range.offset - range.skip();
    const view_bytes = bytes + @as(usize, @intCast(range.skip()));
    const view = kernel32.MapViewOfFile(mapping, map_read, @intCast(start >> 32), @truncate(start), view_bytes) orelse
        return .{ .failure = lastFailure() };
    return mappingAt(@intFromPtr(view), bytes, range);
}

test "maps a file, refuses what is none" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    const io = std.testing.io;
    try tmp.dir.writeFile(io, .{ .sub_path = "data", .data = "hello" });
    try tmp.dir.writeFile(io, .{ .sub_path = "empty", .data = "" });
    const whole = (try mapIn(&tmp, "/data", .{})).ok;
    defer unmap(whole);
    try std.testing.expectEqualStrings("hello", bytesOf(whole));
    try std.testing.expectEqual(.empty, (try mapIn(&tmp, "/empty", .{})).failure);
    try std.testing.expectEqual(.not_found, (try mapIn(&tmp, "/none", .{})).failure);
    try std.testing.expectEqual(.not_a_file, (try mapIn(&tmp, "", .{})).failure);
}

test "maps ranges of a file, refuses those beyond its end" {
    var tmp = std.testing.tmpDir(.{});
    defer tmp.cleanup();
    var data: [3 * grain + 7]u8 = undefined;
    for (&data, 0..) |*byte, i| byte.* = @truncate(i * 31 >> 3);
    try tmp.dir.writeFile(std.testing.io, .{ .sub_path = "data", .data = &data });
    for ([_]usize{ 0, 1, grain - 1, grain, 2 * grain + 5, data.len - 1 }) |offset| {
        for ([_]usize{ 0, 1, 6, grain, data.len }) |bytes| {
            const result = try mapIn(&tmp, "/data", .{ .offset = offset, .bytes = bytes });
            if (offset + bytes > data.len) {
                try std.testing.expectEqual(.too_short, result.failure);
                continue;
            }
            defer unmap(result.ok);
            try std.testing.expectEqualSlices(u8, data[offset..][0..if (bytes == 0) data.len - offset else bytes], bytesOf(result.ok));
        }
    }
    const beyond = [_]Range{ .{ .offset = data.len }, .{ .offset = std.math.maxInt(u64) }, .{ .offset = 1, .bytes = std.math.maxInt(u64) } };
    for (beyond) |range| try std.testing.expectEqual(.too_short, (try mapIn(&tmp, "/data", range)).failure);
}

fn bytesOf(mapping: Mapping) []const u8 {
    return @as([*]const u8, @ptrFromInt(mapping.file.address))[0..@intCast(mapping.file.bytes)];
}

fn mapIn(tmp: *const std.testing.TmpDir, name: []const u8, range: Range) !Result {
    var buffer: [256]u8 = undefined;
    return map(try std.fmt.bufPrintZ(&buffer, ".zig-cache/tmp/{s}{s}", .{ tmp.sub_path, name }), range);
}
