//! On which processor a thread runs, and moving one away from there. Only Linux tells and moves; elsewhere nothing happens.

const std = @import("std");
const builtin = @import("builtin");
const Atomic = std.atomic.Value;
const linux = std.os.linux;
const is_linux = builtin.os.tag == .linux;

/// No processor.
const none = std.math.maxInt(u32);

extern "c" fn sched_getcpu() c_int;

/// The processor that the calling thread runs on at this moment; null where the system does not tell.
pub fn current() ?u32 {
    if (!is_linux) return null;
    const number = sched_getcpu();
    return if (number < 0) null else @intCast(number);
}

/// Where a thread is, by its own word, and what others took from it.
///
/// A thread that is ready to run but queued behind another one may stay there for some milliseconds while a processor is
/// idle: the system looks seldom. Whoever sits in its way can have it moved at once, by taking a processor from the set
/// that it may use; the thread takes that back when it runs. What it takes back is the set of that moment: processors that
/// come to the process later do not reach a thread that was ever moved.
pub const Place = struct {
    /// The thread's number; 0 until it has begun.
    id: Atomic(i32) = .init(0),
    processor: Atomic(u32) = .init(none),
    state: Atomic(State) = .init(.free),
    /// What the thread may use beside what was taken; belongs to whoever is in `moving` or `returning`, or read in `moved`.
    allowed: if (is_linux) linux.cpu_set_t else void = undefined,

    const State = enum(u8) { free, moving, moved, returning };

    /// Of the calling thread.
    pub fn init(self: *Place) void {
        if (is_linux) self.id.store(linux.gettid(), .release);
    }

    /// The thread runs: it says where, and takes back what was taken.
    pub fn arrive(self: *Place) void {
        if (!is_linux) return;
        const here = current() orelse none;
        if (self.processor.load(.monotonic) != here) self.processor.store(here, .release);
        if (self.state.load(.monotonic) != .moved) return;
        if (self.state.cmpxchgStrong(.moved, .returning, .acquire, .monotonic) != null) return;
        const given_back = if (linux.sched_setaffinity(0, &self.allowed)) |_| true else |_| false;
        self.state.store(if (given_back) .free else .moved, .release); // else once more when it arrives next
    }

    /// The thread goes to sleep.
    pub fn leave(self: *Place) void {
        if (is_linux) self.processor.store(none, .release);
    }

    pub fn isAt(self: *const Place, processor: u32) bool {
        return self.processor.load(.acquire) == processor;
    }

    pub fn isAsleep(self: *const Place) bool {
        return self.isAt(none);
    }

    /// For another thread, which runs on `processor`: has this one run, now or when it wakes, on any other that it may use.
    pub fn moveOff(self: *Place, processor: u32) void {
        if (!is_linux) return;
        const id = self.id.load(.acquire);
        if (id == 0) return;
        const before = self.state.load(.acquire);
        if (before == .moving or before == .returning) return; // it is running, then
        if (self.state.cmpxchgStrong(before, .moving, .acquire, .monotonic) != null) return;
        var taken = before == .moved;
        if (!taken) {
            const status = linux.sched_getaffinity(id, @sizeOf(linux.cpu_set_t), &self.allowed);
            if (linux.errno(status) != .SUCCESS) self.allowed = @splat(0);
        }
        var others = self.allowed;
        const bits = @bitSizeOf(usize);
        if (processor / bits < others.len) others[processor / bits] &= ~(@as(usize, 1) << @intCast(processor % bits));
        if (std.mem.indexOfNone(usize, &others, &.{0}) != null) {
            if (linux.sched_setaffinity(id, &others)) |_| taken = true else |_| {}
        }
        self.state.store(if (taken) .moved else .free, .release);
    }
};

test "a thread that is moved runs elsewhere, with all that it may use" {
    if (!is_linux) return;
    const Other = struct {
        var place: Place = .{};
        var may_end: Atomic(bool) = .init(false);
        fn go() void {
            place.init();
            while (!may_end.load(.acquire)) place.arrive();
            place.leave();
        }
        fn mask() !linux.cpu_set_t {
            var set: linux.cpu_set_t = undefined;
            try std.testing.expectEqual(.SUCCESS, linux.errno(linux.sched_getaffinity(place.id.load(.acquire), @sizeOf(linux.cpu_set_t), &set)));
            return set;
        }
    };
    const place = &Other.place;
    place.moveOff(0); // not begun: nobody is moved, not the caller either
    const thread = try std.Thread.spawn(.{}, Other.go, .{});
    while (place.isAsleep()) std.Thread.yield() catch {};
    const all = try Other.mask();
    const may_move = if (linux.sched_setaffinity(0, &all)) |_| linux.CPU_COUNT(all) > 1 else |_| false; // a sandbox may refuse
    for (0..50) |_| {
        const at = place.processor.load(.acquire);
        // The system may take it back at once: it is sent until it is seen elsewhere.
        while (place.isAt(at) and may_move) place.moveOff(at);
        while (place.state.load(.acquire) != .free) std.Thread.yield() catch {};
        try std.testing.expectEqual(all, try Other.mask());
    }
    Other.may_end.store(true, .release);
    thread.join();
    try std.testing.expect(place.isAsleep());
}
