//! A persistent thread pool: the caller is thread 0, workers spin for a while and then sleep until there is a job.
//!
//! One job runs at a time (the device serialises). The start word carries generation and number of participants
//! together, so a worker that takes no part in a job never looks at it.

const std = @import("std");
const wait = @import("wait.zig");

/// A function that every participating thread calls once.
pub const Job = *const fn (state: *anyopaque, thread: u32) void;

pub const threads_max = 255;
pub const spin_default = 4000;

/// Kernels may keep tiles on the stack.
const stack_bytes = 4 << 20;
const quit = 0;

pub const Pool = struct {
    /// Threads including the caller; fewer than asked for when the system refused more.
    threads: u32,
    spin: u32,
    start: wait.Signal,
    done: Barrier,
    job: Job,
    state: *anyopaque,
    workers: []std.Thread,

    /// Starts `threads - 1` workers; goes on with fewer when the system has no more. The pool must not move.
    pub fn init(self: *Pool, gpa: std.mem.Allocator, threads: u32, spin: u32) !void {
        const wanted = std.math.clamp(threads, 1, threads_max);
        self.* = .{
            .threads = 1,
            .spin = if (spin == 0) spin_default else spin,
            .start = .{},
            .done = .{},
            .job = undefined,
            .state = undefined,
            .workers = try gpa.alloc(std.Thread, wanted - 1),
        };
        for (self.workers, 1..) |*worker, thread| {
            worker.* = std.Thread.spawn(.{ .stack_size = stack_bytes }, work, .{ self, @as(u32, @intCast(thread)) }) catch break;
            self.threads += 1;
        }
    }

    /// Ends the workers; no job may be running.
    pub fn deinit(self: *Pool, gpa: std.mem.Allocator) void {
        self.publish(quit);
        for (self.workers[0 .. self.threads - 1]) |worker| worker.join();
        gpa.free(self.workers);
    }

    /// Calls `job(state, thread)` on `threads` threads, the caller among them, and returns when all are done.
    pub fn run(self: *Pool, job: Job, state: *anyopaque, threads: u32) void {
        const count = @min(threads, self.threads);
        if (count <= 1) return job(state, 0);
        self.job = job;
        self.state = state;
        self.publish(count);
        job(state, 0);
        _ = self.done.arrive(count, self.spin, null, undefined);
    }

    fn publish(self: *Pool, participants: u32) void {
        const generation = self.start.load() >> 8;
        self.start.publish((generation +% 1) << 8 | participants);
    }

    fn work(self: *Pool, thread: u32) void {
        var seen: u32 = 0;
        while (true) {
            seen = self.start.waitChange(seen, self.spin);
            const participants = seen & 0xff;
            if (participants == quit) return;
            if (thread >= participants) continue;
            self.job(self.state, thread);
            _ = self.done.arrive(participants, self.spin, null, undefined);
        }
    }
};

/// What the last thread to arrive does while the others wait; false makes `arrive` return false on every thread.
pub const Completion = *const fn (state: *anyopaque) bool;

/// A barrier that can be used again and again by the same threads.
pub const Barrier = struct {
    arrived: std.atomic.Value(u32) align(64) = .init(0),
    /// Generation in the upper bits; bit 0 says whether the threads go on.
    generation: wait.Signal = .{},

    /// Waits for `threads` threads.
    pub fn arrive(self: *Barrier, threads: u32, spin: u32, completion: ?Completion, state: *anyopaque) bool {
        if (threads == 1) return if (completion) |complete| complete(state) else true;
        const generation = self.generation.load();
        if (self.arrived.fetchAdd(1, .acq_rel) + 1 < threads) return self.generation.waitChange(generation, spin) & 1 == 1;
        const go_on = if (completion) |complete| complete(state) else true;
        self.arrived.store(0, .monotonic);
        self.generation.publish((generation | 1) +% 1 | @intFromBool(go_on));
        return go_on;
    }
};

const Sum = struct {
    total: std.atomic.Value(u64) = .init(0),
    mask: std.atomic.Value(u64) = .init(0),
    fn add(state: *anyopaque, thread: u32) void {
        const self: *Sum = @ptrCast(@alignCast(state));
        _ = self.total.fetchAdd(thread + 1, .monotonic);
        _ = self.mask.fetchOr(@as(u64, 1) << @intCast(thread), .monotonic);
    }
};

test "every thread takes part in every job, for any thread count" {
    const gpa = std.testing.allocator;
    for ([_]u32{ 1, 2, 3, 8, 17 }) |threads| {
        var pool: Pool = undefined;
        try pool.init(gpa, threads, if (threads > 3) 50 else 0);
        defer pool.deinit(gpa);
        try std.testing.expectEqual(threads, pool.threads);
        const rounds: u64 = if (threads > 3) 2000 else 10_000;
        var sum: Sum = .{};
        for (0..rounds) |_| pool.run(Sum.add, &sum, threads);
        try std.testing.expectEqual(rounds * threads * (threads + 1) / 2, sum.total.load(.monotonic));
    }
}

test "jobs with fewer threads than the pool leave the others out" {
    const gpa = std.testing.allocator;
    var pool: Pool = undefined;
    try pool.init(gpa, 4, 100);
    defer pool.deinit(gpa);
    for (0..5000) |round| {
        const threads: u32 = @intCast(round % 4 + 1);
        var sum: Sum = .{};
        pool.run(Sum.add, &sum, threads);
        try std.testing.expectEqual((@as(u64, 1) << @intCast(threads)) - 1, sum.mask.load(.monotonic));
    }
}

test "workers that fell asleep wake up" {
    const gpa = std.testing.allocator;
    var pool: Pool = undefined;
    try pool.init(gpa, 3, 1);
    defer pool.deinit(gpa);
    var sum: Sum = .{};
    for (0..30) |_| {
        const begin = @import("os.zig").nowNs();
        while (@import("os.zig").nowNs() - begin < 2_000_000) try std.Thread.yield();
        pool.run(Sum.add, &sum, 3);
    }
    try std.testing.expectEqual(30 * 6, sum.total.load(.monotonic));
}

test "a barrier tells every thread to stop when its completion says so" {
    const gpa = std.testing.allocator;
    const State = struct {
        barrier: Barrier = .{},
        rounds: u32 = 0,
        done: std.atomic.Value(u32) = .init(0),
        fn complete(state: *anyopaque) bool {
            const self: *@This() = @ptrCast(@alignCast(state));
            self.rounds += 1;
            return self.rounds < 1000;
        }
        fn go(state: *anyopaque, _: u32) void {
            const self: *@This() = @ptrCast(@alignCast(state));
            while (self.barrier.arrive(3, 200, complete, state)) {}
            _ = self.done.fetchAdd(1, .monotonic);
        }
    };
    var pool: Pool = undefined;
    try pool.init(gpa, 3, 0);
    defer pool.deinit(gpa);
    var state: State = .{};
    pool.run(State.go, &state, 3);
    try std.testing.expectEqual(1000, state.rounds);
    try std.testing.expectEqual(3, state.done.load(.monotonic));
}
