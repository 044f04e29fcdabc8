//! Threads without work ask for what the next product reads: while a norm or a rotary embedding runs on one thread, and
//! while threads wait for each other at the end of a job, memory would stand still. Asking changes no result, and an
//! address that is none does no harm.

const std = @import("std");
const Stretch = @import("context").Stretch;
const Atomic = std.atomic.Value;

/// What is asked for has to stay in a thread's second cache until it is read: half of the smaller ones in use.
const bytes_max = 256 << 10;

const fields = @typeInfo(Stretch).@"struct".fields;

comptime {
    std.debug.assert(std.mem.eql(u8, fields[0].name, "base"));
}

/// The stretch that comes next, which one thread says and all others may look at meanwhile. Its words are stored one by one,
/// the base last: who reads two stretches at once has an old base, and asks for something else until it sees the new one.
pub const Announcement = struct {
    words: [fields.len]Atomic(usize) align(64) = @splat(.init(0)),

    pub fn set(self: *Announcement, stretch: Stretch) void {
        inline for (fields[1..], self.words[1..]) |field, *word| word.store(@field(stretch, field.name), .monotonic);
        self.words[0].store(stretch.base, .release);
    }

    pub fn get(self: *const Announcement) Stretch {
        var stretch: Stretch = .{ .base = self.words[0].load(.acquire) };
        inline for (fields[1..], self.words[1..]) |field, *word| @field(stretch, field.name) = word.load(.monotonic);
        return stretch;
    }
};

/// How far a thread has come in asking for its part of a stretch.
pub const Ahead = struct {
    /// Where the stretch lies.
    base: usize = 0,
    /// The next line of the first stream.
    at: usize = 0,
    stride: usize = 0,
    streams: usize = 0,
    /// Lines of each stream that are left.
    lines: usize = 0,

    /// Asks for a line of every stream of share `share`; false when there is none left, or no such share.
    pub inline fn ask(self: *Ahead, announced: *const Announcement, share: u32) bool {
        if (announced.words[0].load(.monotonic) != self.base) self.* = .init(announced.get(), share);
        if (self.lines == 0) return false;
        var line = self.at;
        for (0..self.streams) |_| {
            @prefetch(@as([*]const u8, @ptrFromInt(line)), .{ .locality = 2 });
            line +%= self.stride;
        }
        self.at +%= 64;
        self.lines -= 1;
        return true;
    }

    fn init(stretch: Stretch, share: u32) Ahead {
        const streams = std.math.clamp(stretch.streams, 1, Stretch.streams_max);
        return .{
            .base = stretch.base,
            .at = stretch.base +% share *% stretch.share_bytes,
            .stride = stretch.stream_bytes,
            .streams = streams,
            .lines = if (stretch.base == 0 or share >= stretch.shares) 0 else @min(stretch.stream_bytes, bytes_max / streams) / 64,
        };
    }
};

test "a share asks for its own streams, not for more than its cache holds, and anew for another stretch" {
    var announced: Announcement = .{};
    var ahead: Ahead = .{};
    try std.testing.expect(!ahead.ask(&announced, 1));
    announced.set(.{ .base = 1 << 20, .shares = 2, .share_bytes = 4096, .streams = 4, .stream_bytes = 1024 });
    for (0..1024 / 64) |i| {
        try std.testing.expect(ahead.ask(&announced, 1));
        try std.testing.expectEqual((1 << 20) + 4096 + (i + 1) * 64, ahead.at);
    }
    try std.testing.expect(!ahead.ask(&announced, 1));
    var other: Ahead = .{};
    try std.testing.expect(!other.ask(&announced, 2)); // there are two
    announced.set(.{ .base = 2 << 20, .shares = 2, .share_bytes = 64 << 20, .streams = 2, .stream_bytes = 32 << 20 });
    var lines: usize = 0;
    while (ahead.ask(&announced, 0)) lines += ahead.streams;
    try std.testing.expectEqual(bytes_max / 64, lines);
    announced.set(.{});
    try std.testing.expect(!ahead.ask(&announced, 0));
}
