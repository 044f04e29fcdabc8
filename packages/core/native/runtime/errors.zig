//! One line of text about the last failure, per device; for `open`, which has no device, per thread.

const std = @import("std");

pub const LastError = struct {
    buffer: [1024]u8 = undefined,
    length: usize = 0,

    /// Writes a text; one that is too long is cut.
    pub fn set(self: *LastError, comptime format: []const u8, args: anytype) void {
        var writer: std.Io.Writer = .fixed(&self.buffer);
        writer.print(format, args) catch {};
        self.length = writer.end;
    }

    pub fn text(self: *const LastError) []const u8 {
        return self.buffer[0..self.length];
    }

    /// Copies at most `capacity` bytes to `out`; returns the whole length.
    pub fn copyTo(self: *const LastError, out: u64, capacity: u64) u64 {
        return copyText(self.text(), out, capacity);
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
    last.set("{s} {d}", .{ "number", 7 });
    try std.testing.expectEqualStrings("number 7", last.text());
    var out: [4]u8 = undefined;
    try std.testing.expectEqual(8, last.copyTo(@intFromPtr(&out), out.len));
    try std.testing.expectEqualStrings("numb", &out);
    try std.testing.expectEqual(8, last.copyTo(0, 0));
    last.set("{s}", .{"x" ** 3000});
    try std.testing.expectEqual(1024, last.text().len);
}
