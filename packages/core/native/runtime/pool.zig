//! A persistent thread pool that does not depend on its workers: a job is cut into shares, the caller takes the first and
//! goes on taking what nobody has begun, workers help themselves to the others when they get to it.
//!
//! The caller waits only for shares that a worker has begun. A worker that comes late finds none left. One that loses
//! its processor inside a share holds the caller up; when that cost more than the help was worth, fewer workers are
//! asked for some time (see `turnout`), so that beside busy programs the pool is as fast as the threads that really run.
//! One job runs at a time (the device serialises). Threads that find no share meanwhile ask for the memory that the next one
//! begins with (ahead.zig).

const std = @import("std");
const abi = @import("abi");
const ahead_zig = @import("ahead.zig");
const os = @import("os.zig");
const place = @import("place.zig");
const wait = @import("wait.zig");
const Atomic = std.atomic.Value;

/// A function that is called once for every share of a job.
pub const Job = *const fn (state: *anyopaque, share: u32) void;

/// Kernels may keep tiles on the stack.
const stack_bytes = 4 << 20;

/// A worker without work spins for so long before it sleeps.
pub const spin_us_default = 200;
/// Waking a thread costs some microseconds: sleepers are not called more often than this.
const call_ns = 1_000_000;
/// The caller waits for so long before it asks whether those it waits for are running at all.
const patience_ns = 100_000;
/// Between two looks at the clock of a thread.
const look_ns = 50_000;
/// After a wait that was too long, the pool does with fewer threads for so many times the wait.
const rest_factor = 8;

const Worker = struct {
    /// Whether the worker may be inside a share.
    inside: Atomic(bool) align(64) = .init(false),
    clock: os.ThreadClock = .{},
    place: place.Place = .{},
    /// The clock when the caller last looked.
    seen_ns: u64 = 0,
    ahead: ahead_zig.Ahead = .{},
    thread: std.Thread = undefined,
};

/// The shares of a job that nobody has taken, in one word, so that taking one is one step that cannot mix up two jobs.
const Shares = packed struct(u64) {
    /// A bit for each of the first shares. Thread n takes share n where it finds it, as what that begins with may be in its
    /// caches.
    first: u32 = 0,
    /// Those behind are taken in order: from `next` on, before `end`.
    next: u16 = 0,
    end: u16 = 0,

    const quit: Shares = .{ .next = 0xffff, .end = 0xffff };
    const first_max = @bitSizeOf(u32);

    /// Shares 1 … count-1: the caller has taken the first.
    fn of(count: u32) Shares {
        const first = @min(count, first_max);
        return .{ .first = @intCast((@as(u64, 1) << @intCast(first)) - 2), .next = @intCast(first), .end = @intCast(count) };
    }

    fn isOpen(self: Shares) bool {
        return self.first != 0 or self.next < self.end;
    }

    /// The share that a thread takes of open ones, its own if it can, and what it leaves.
    fn without(self: Shares, own: u32) struct { u32, Shares } {
        var left = self;
        if (self.first == 0) {
            left.next += 1;
            return .{ self.next, left };
        }
        const is_own = own < first_max and self.first >> @intCast(own) & 1 != 0;
        const share: u5 = @intCast(if (is_own) own else @ctz(self.first));
        left.first &= ~(@as(u32, 1) << share);
        return .{ share, left };
    }
};

pub const Pool = struct {
    /// Threads including the caller; fewer than asked for when the system refused more.
    threads: u32,
    spin_ns: u64,
    workers: []Worker,
    /// When sleepers and those who rest may be called again.
    call_at_ns: u64 = 0,
    job: Job align(64) = undefined,
    state: *anyopaque = undefined,
    shares: Atomic(Shares) = .init(.{}),
    /// Threads that take part at present; workers from this number on sleep.
    invited: Atomic(u32),
    /// What the job after this one begins with.
    announced: ahead_zig.Announcement = .{},
    /// The caller's.
    ahead: ahead_zig.Ahead = .{},
    /// Shares that workers have done.
    done: wait.Counter = .{},
    /// Grows when sleepers shall look for work.
    calls: wait.Counter = .{},

    /// Starts `threads - 1` workers; goes on with fewer when the system has no more. The pool must not move.
    pub fn init(self: *Pool, gpa: std.mem.Allocator, threads: u32, spin_us: u32) !void {
        const wanted = std.math.clamp(threads, 1, abi.max_threads);
        self.* = .{
            .threads = wanted,
            .spin_ns = @as(u64, if (spin_us == 0) spin_us_default else spin_us) * 1000,
            .workers = try gpa.alloc(Worker, wanted - 1),
            .invited = .init(wanted),
        };
        for (self.workers, 1..) |*worker, number| {
            worker.* = .{};
            worker.thread = std.Thread.spawn(.{ .stack_size = stack_bytes }, work, .{ self, worker, @as(u32, @intCast(number)) }) catch {
                self.threads = @intCast(number);
                self.invited.store(self.threads, .release);
                break;
            };
        }
    }

    /// Ends the workers; no job may be running.
    pub fn deinit(self: *Pool, gpa: std.mem.Allocator) void {
        self.shares.store(.quit, .release);
        self.calls.add();
        for (self.workers[0 .. self.threads - 1]) |*worker| worker.thread.join();
        gpa.free(self.workers);
    }

    /// Some jobs follow, from the calling thread: workers that spin on its processor go to another one. A program's runs come
    /// from several threads, and one that has just woken often finds itself where a worker spins, while the thread that
    /// sent it has gone to sleep and left its own processor idle.
    pub fn begin(self: *Pool) void {
        const here = place.current() orelse return;
        for (self.workers[0 .. self.threads - 1]) |*worker| {
            if (worker.place.isAt(here)) worker.place.moveOff(here);
        }
    }

    /// Wakes those who sleep, on other processors than the caller's: at this moment these may all be busy with what is about
    /// to end.
    fn call(self: *Pool) void {
        if (place.current()) |here| for (self.workers[0 .. self.threads - 1]) |*worker| {
            if (worker.place.isAsleep()) worker.place.moveOff(here);
        };
        self.calls.add();
    }

    /// How many shares to cut a job into for at most `wanted` threads: fewer while threads rest because they held the
    /// others up. Calls sleepers when it is time to.
    pub fn turnout(self: *Pool, wanted: u32) u32 {
        const most = @min(wanted, self.threads);
        if (most <= 1) return 1;
        if (self.calls.sleepers.load(.acquire) != 0) {
            const now = os.nowNs();
            if (now >= self.call_at_ns) {
                self.invited.store(self.threads, .release);
                self.call_at_ns = now + call_ns;
                self.call();
            }
        }
        return self.expected(most);
    }

    /// What `turnout` says as long as nobody is called.
    pub fn expected(self: *const Pool, wanted: u32) u32 {
        return @min(wanted, self.threads, self.invited.load(.monotonic));
    }

    /// Calls `job(state, share)` for each of the shares, on the caller and whoever helps, and returns when all are done.
    pub fn run(self: *Pool, job: Job, state: *anyopaque, count: u32) void {
        std.debug.assert(count <= self.threads);
        if (count <= 1) return job(state, 0);
        const begin_ns = os.nowNs();
        self.job = job;
        self.state = state;
        const before = self.done.load();
        self.shares.store(.of(count), .release);
        job(state, 0);
        var own: u32 = 1;
        while (self.take(0)) |share| : (own += 1) job(state, share);
        self.waitFor(before +% (count - own), begin_ns);
    }

    /// Takes a share of the running job for thread `number`. What the job consists of holds still until that share is done.
    fn take(self: *Pool, number: u32) ?u32 {
        var shares = self.shares.load(.monotonic);
        while (shares.isOpen()) {
            const share, const left = shares.without(number);
            shares = self.shares.cmpxchgWeak(shares, left, .acquire, .monotonic) orelse return share;
        }
        return null;
    }

    fn waitFor(self: *Pool, done: u32, begin_ns: u64) void {
        if (self.done.load() == done) return;
        const from_ns = os.nowNs();
        if (self.spinUntil(done, from_ns + patience_ns)) return;
        var away = self.lookForAbsent();
        while (away == 0) {
            if (self.spinUntil(done, os.nowNs() + look_ns)) return;
            away = self.lookForAbsent();
        }
        // Asleep we leave our processor to whom we wait for.
        while (true) {
            const now = self.done.load();
            if (now == done) break;
            self.done.waitBeyond(now);
        }
        self.rest(away, from_ns - begin_ns, os.nowNs() - from_ns);
    }

    /// After a wait for `away` threads that lost their processors: does without so many for a while, if the wait was longer
    /// than the caller was busy, for alone it would have needed about that long.
    fn rest(self: *Pool, away: u32, busy_ns: u64, waited_ns: u64) void {
        if (waited_ns < busy_ns) return;
        self.invited.store(@max(1, self.invited.load(.monotonic) -| away), .monotonic);
        self.call_at_ns = os.nowNs() + rest_factor * waited_ns;
    }

    fn spinUntil(self: *Pool, done: u32, end_ns: u64) bool {
        while (true) {
            for (0..32) |_| {
                if (self.done.load() == done) return true;
                if (!self.ahead.ask(&self.announced, 0)) std.atomic.spinLoopHint();
            }
            if (os.nowNs() >= end_ns) return false;
        }
    }

    /// Counts the workers inside a share that have not run since the last look.
    fn lookForAbsent(self: *Pool) u32 {
        var away: u32 = 0;
        for (self.workers[0 .. self.threads - 1]) |*worker| {
            if (!worker.inside.load(.acquire)) continue;
            const ran_ns = worker.clock.read();
            if (ran_ns == worker.seen_ns) away += 1;
            worker.seen_ns = ran_ns;
        }
        return away;
    }

    fn work(self: *Pool, worker: *Worker, number: u32) void {
        worker.clock = .own();
        worker.place.init();
        while (true) {
            const called = self.calls.load();
            const shares = self.spinForWork(worker, number);
            if (shares == Shares.quit) return;
            if (!shares.isOpen()) {
                worker.place.leave();
                self.calls.waitBeyond(called);
                continue;
            }
            worker.inside.store(true, .release);
            if (self.take(number)) |share| {
                self.job(self.state, share);
                worker.inside.store(false, .release);
                self.done.add();
            } else worker.inside.store(false, .release);
        }
    }

    /// Watches until there are shares to take or the pool ends; else returns closed shares when it is time to sleep.
    fn spinForWork(self: *Pool, worker: *Worker, number: u32) Shares {
        var end_ns: u64 = 0;
        while (true) {
            worker.place.arrive();
            for (0..32) |_| {
                const shares = self.shares.load(.acquire);
                if (shares == Shares.quit) return shares;
                if (number >= self.invited.load(.monotonic)) return .{};
                if (shares.isOpen()) return shares;
                if (!worker.ahead.ask(&self.announced, number)) std.atomic.spinLoopHint();
            }
            const now_ns = os.nowNs();
            if (end_ns == 0) end_ns = now_ns + self.spin_ns;
            if (now_ns >= end_ns) return .{};
        }
    }
};

const Sum = struct {
    total: Atomic(u64) = .init(0),
    mask: Atomic(u64) = .init(0),
    fn add(state: *anyopaque, share: u32) void {
        const self: *Sum = @ptrCast(@alignCast(state));
        _ = self.total.fetchAdd(share + 1, .monotonic);
        _ = self.mask.fetchOr(@as(u64, 1) << @intCast(share), .monotonic);
    }
};

test "every share of every job is done once, for any thread count, with more threads than processors too" {
    const gpa = std.testing.allocator;
    for ([_]u32{ 1, 2, 3, 8, 17, 61 }) |threads| for ([_]u32{ 0, 1 }) |spin_us| {
        var pool: Pool = undefined;
        try pool.init(gpa, threads, spin_us);
        defer pool.deinit(gpa);
        try std.testing.expectEqual(threads, pool.threads);
        for (0..3000) |round| {
            const count: u32 = @intCast(1 + round % threads);
            var sum: Sum = .{};
            pool.run(Sum.add, &sum, count);
            try std.testing.expectEqual(count * (count + 1) / 2, sum.total.load(.monotonic));
            try std.testing.expectEqual((@as(u64, 1) << @intCast(count)) - 1, sum.mask.load(.monotonic));
        }
    };
}

test "a thread takes its own share while it is left, then others, each once" {
    for ([_]u32{ 2, 3, 31, 32, 33, 61 }) |count| for ([_]u32{ 0, 1, 2, 31, 32, 60 }) |number| {
        var shares: Shares = .of(count);
        var seen: u64 = 1;
        for (1..count) |turn| {
            try std.testing.expect(shares.isOpen());
            const share, shares = shares.without(number);
            if (turn == 1 and number > 0 and number < @min(count, Shares.first_max)) try std.testing.expectEqual(number, share);
            seen |= @as(u64, 1) << @intCast(share);
        }
        try std.testing.expect(!shares.isOpen());
        try std.testing.expectEqual((@as(u64, 1) << @intCast(count)) - 1, seen);
    };
}

test "workers that fell asleep are called" {
    const gpa = std.testing.allocator;
    const State = struct {
        caller: std.Thread.Id,
        helped: Atomic(bool) = .init(false),
        fn go(state: *anyopaque, _: u32) void {
            const self: *@This() = @ptrCast(@alignCast(state));
            if (std.Thread.getCurrentId() != self.caller) self.helped.store(true, .release);
        }
    };
    var pool: Pool = undefined;
    try pool.init(gpa, 3, 1);
    defer pool.deinit(gpa);
    for (0..20) |_| {
        while (pool.calls.sleepers.load(.acquire) < 2) try std.Thread.yield();
        var state: State = .{ .caller = std.Thread.getCurrentId() };
        while (!state.helped.load(.acquire)) pool.run(State.go, &state, @max(2, pool.turnout(3)));
    }
}

/// Two shares: the worker's waits until the gate is open, the caller's until the worker has begun.
const Gate = struct {
    pool: *Pool,
    caller: std.Thread.Id,
    begun: Atomic(bool) = .init(false),
    open: Atomic(bool) = .init(false),
    ended: Atomic(u32) = .init(0),

    fn go(state: *anyopaque, _: u32) void {
        const self: *Gate = @ptrCast(@alignCast(state));
        if (std.Thread.getCurrentId() == self.caller) {
            while (!self.begun.load(.acquire)) {
                self.pool.calls.add(); // it may have gone to sleep
                std.Thread.yield() catch {};
            }
        } else {
            self.begun.store(true, .release);
            // Asleep, as if another program had the processor.
            while (!self.open.load(.acquire)) std.testing.io.sleep(.fromMilliseconds(1), .awake) catch {};
        }
        _ = self.ended.fetchAdd(1, .release);
    }

    fn openLater(self: *Gate) void {
        std.testing.io.sleep(.fromMilliseconds(20), .awake) catch {};
        self.open.store(true, .release);
    }
};

test "a job waits for the share of an absent worker" {
    const gpa = std.testing.allocator;
    var pool: Pool = undefined;
    try pool.init(gpa, 2, 0);
    defer pool.deinit(gpa);
    for (0..5) |_| {
        pool.invited.store(2, .release); // whatever the last round did
        var gate: Gate = .{ .pool = &pool, .caller = std.Thread.getCurrentId() };
        const opener = try std.Thread.spawn(.{}, Gate.openLater, .{&gate});
        pool.run(Gate.go, &gate, 2);
        opener.join();
        try std.testing.expectEqual(2, gate.ended.load(.acquire));
    }
}

test "threads that held the others up longer than they helped rest" {
    const gpa = std.testing.allocator;
    var pool: Pool = undefined;
    try pool.init(gpa, 5, 0);
    defer pool.deinit(gpa);
    pool.rest(2, 3_000_000, 2_999_999);
    try std.testing.expectEqual(5, pool.turnout(9));
    pool.rest(2, 0, std.time.ns_per_hour);
    try std.testing.expectEqual(3, pool.turnout(9));
    pool.rest(9, 0, std.time.ns_per_hour);
    try std.testing.expectEqual(1, pool.turnout(9));
    pool.call_at_ns = 0; // the rest is over
    while (pool.turnout(9) < 5) try std.Thread.yield(); // until those who rest are asleep and can be called
}

test "a worker that comes late finds nothing to do" {
    const gpa = std.testing.allocator;
    var pool: Pool = undefined;
    try pool.init(gpa, 2, 1);
    defer pool.deinit(gpa);
    for (0..20) |_| {
        while (pool.calls.sleepers.load(.acquire) == 0) try std.Thread.yield();
        var sum: Sum = .{};
        pool.run(Sum.add, &sum, 2); // nobody was called: the caller does both
        try std.testing.expectEqual(3, sum.total.load(.monotonic));
        pool.calls.add(); // and now the worker wakes
    }
}

test "a pool ends in whatever state its workers are" {
    const gpa = std.testing.allocator;
    for (0..200) |round| {
        var pool: Pool = undefined;
        try pool.init(gpa, @intCast(1 + round % 9), @intCast(round % 3));
        var sum: Sum = .{};
        if (round % 2 == 1) pool.run(Sum.add, &sum, pool.turnout(9));
        pool.deinit(gpa);
    }
}
