//! One line of text about the last failure, per device; for `open`, which has no device, per thread.

const std = @import("std");
const wait = @import("wait.zig");

/// Bytes of the longest text.
pub const text_max = 1024;

/// Has a lock of its own, not the device's: an allocation may fail, and its text be read, while a run holds that one.
pub const LastError = struct {
    lock: wait.Lock = .{},
    buffer: [text_max]u8 = undefined,
    length: usize = 0,

    /// What calls on a handle say from the beginning of its `close` on.
    pub const closed = "the backend was closed";

    /// Writes a text; one that is too long is cut.
    pub fn set(self: *LastError, comptime format: []const u8, args: anytype) void {
        var buffer: [text_max]u8 = undefined;
        var writer: std.Io.Writer = .fixed(&buffer);
        writer.print(format, args) catch {};
        self.lock.acquire();
        defer self.lock.release();
        @memcpy(self.buffer[0..writer.end], writer.buffered());
        self.length = writer.end;
    }

    /// A copy of the text, in `buffer`.
    pub fn text(self: *LastError, buffer: *[text_max]u8) []const u8 {
        return buffer[0..@intCast(self.copyTo(@intFromPtr(buffer), text_max))];
    }

    /// Copies at most `capacity` bytes to `out`; returns the whole length.
    pub fn copyTo(self: *LastError, out: u64, capacity: u64) u64 {
        self.lock.acquire();
        defer self.lock.release();
        return copyText(self.buffer[0..self.length], out, capacity);
    }
};

/// Copies at most `capacity` bytes of a text to the address `out`; returns its whole length.
pub fn copyText(text: []const u8, out: u64, capacity: u64) u64 {
    const count: usize = @intCast(@min(text.len, capacity));
    if (count > 0 and out != 0) @memcpy(@as([*]u8, @ptrFromInt(out))[0..count], text[0..count]);
    return text.len;
}

/// For calls without a device.
pub threadlocal var global: LastError = .{};

test "texts are cut, lengths are whole" {
    var last: LastError = .{};
    var copy: [text_max]u8 = undefined;
    last.set("{s} {d}", .{ "number", 7 });
    try std.testing.expectEqualStrings("number 7", last.text(&copy));
    var out: [4]u8 = undefined;
    try std.testing.expectEqual(8, last.copyTo(@intFromPtr(&out), out.len));
    try std.testing.expectEqualStrings("numb", &out);
    try std.testing.expectEqual(8, last.copyTo(0, 0));
    last.set("{s}", .{"x" ** 3000});
    try std.testing.expectEqual(text_max, last.text(&copy).len);
}

test "texts are whole while several threads write" {
    const State = struct {
        var last: LastError = .{};
        fn go(letter: u8) void {
            const long: [900]u8 = @splat(letter);
            for (0..5000) |i| last.set("{s}", .{long[0 .. 1 + i * 7 % long.len]});
        }
    };
    State.last.set("a", .{});
    var threads: [2]std.Thread = undefined;
    for (&threads, "ab") |*thread, letter| thread.* = try std.Thread.spawn(.{}, State.go, .{letter});
    defer for (threads) |thread| thread.join();
    var copy: [text_max]u8 = undefined;
    for (0..5000) |_| {
        const text = State.last.text(&copy);
        try std.testing.expectEqual(text.len, std.mem.count(u8, text, text[0..1]));
    }
}
