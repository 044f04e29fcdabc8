//! Sleeping until a 32-bit word changes: futex on Linux, ulock on macOS, WaitOnAddress on Windows; and what is made of
//! it: `Counter`, which only grows, and `Lock`.

const std = @import("std");
const builtin = @import("builtin");
const Atomic = std.atomic.Value;

/// Sleeps while `word` holds `expected`. May return early.
pub fn sleep(word: *const Atomic(u32), expected: u32) void {
    switch (builtin.os.tag) {
        .linux => _ = std.os.linux.futex_4arg(word, .{ .cmd = .WAIT, .private = true }, expected, null),
        .macos => _ = std.c.__ulock_wait(.{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true }, word, expected, 0),
        .windows => _ = std.os.windows.ntdll.RtlWaitOnAddress(word, &expected, @sizeOf(u32), null),
        else => @compileError("no wait-on-address for this system"),
    }
}

/// Wakes all that sleep on `word`.
pub fn wakeAll(word: *const Atomic(u32)) void {
    switch (builtin.os.tag) {
        .linux => _ = std.os.linux.futex_3arg(word, .{ .cmd = .WAKE, .private = true }, std.math.maxInt(i32)),
        .macos => _ = std.c.__ulock_wake(.{ .op = .COMPARE_AND_WAIT, .NO_ERRNO = true, .WAKE_ALL = true }, word, 0),
        .windows => std.os.windows.ntdll.RtlWakeAddressAll(word),
        else => @compileError("no wait-on-address for this system"),
    }
}

/// A number that grows and wraps, and can be slept on. Growing costs a system call only while somebody sleeps.
pub const Counter = struct {
    value: Atomic(u32) align(64) = .init(0),
    sleepers: Atomic(u32) = .init(0),

    /// Writes before the additions that made this value are seen after it.
    pub fn load(self: *const Counter) u32 {
        return self.value.load(.acquire);
    }

    pub fn add(self: *Counter) void {
        // All sequentially consistent, as in `waitBeyond`: either this sees the sleeper, or the sleeper the new value.
        _ = self.value.fetchAdd(1, .seq_cst);
        if (self.sleepers.load(.seq_cst) != 0) wakeAll(&self.value);
    }

    /// Sleeps until the value is no longer `old`.
    pub fn waitBeyond(self: *Counter, old: u32) void {
        _ = self.sleepers.fetchAdd(1, .seq_cst);
        defer _ = self.sleepers.fetchSub(1, .monotonic);
        while (self.value.load(.seq_cst) == old) sleep(&self.value, old);
    }
};

/// A lock for short sections: spins, then sleeps.
pub const Lock = struct {
    /// 0 free, 1 held, 2 held and somebody sleeps.
    state: Atomic(u32) = .init(0),

    pub fn acquire(self: *Lock) void {
        if (self.state.cmpxchgStrong(0, 1, .acquire, .monotonic) == null) return;
        for (0..200) |_| {
            std.atomic.spinLoopHint();
            if (self.state.load(.monotonic) == 0 and self.state.cmpxchgStrong(0, 1, .acquire, .monotonic) == null) return;
        }
        while (self.state.swap(2, .acquire) != 0) sleep(&self.state, 2);
    }

    pub fn release(self: *Lock) void {
        if (self.state.swap(0, .release) == 2) wakeAll(&self.state);
    }
};

test "lock under contention" {
    const State = struct {
        var lock: Lock = .{};
        var count: u64 = 0;
        fn go() void {
            for (0..20_000) |_| {
                lock.acquire();
                defer lock.release();
                count += 1;
            }
        }
    };
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{}, State.go, .{});
    for (threads) |thread| thread.join();
    try std.testing.expectEqual(80_000, State.count);
}

test "counters wake sleepers" {
    const State = struct {
        var ping: Counter = .{};
        var pong: Counter = .{};
        fn go(rounds: u32) void {
            for (0..rounds) |i| {
                ping.waitBeyond(@intCast(i));
                pong.add();
            }
        }
    };
    const rounds = 2000;
    const thread = try std.Thread.spawn(.{}, State.go, .{rounds});
    for (0..rounds) |i| {
        State.ping.add();
        State.pong.waitBeyond(@intCast(i));
    }
    thread.join();
    try std.testing.expectEqual(rounds, State.pong.load());
}
