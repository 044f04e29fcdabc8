//! What a kernel sees of the runtime: its share of the work, shared scratch memory, a barrier and a failure flag.
//!
//! A kernel is called once on every thread that takes part, with the same command. It splits the work itself, by
//! `range` (fixed shares) or `take` (a shared counter of tasks), so that no result depends on the thread count.

const std = @import("std");
const abi = @import("abi");

pub const Kernel = *const fn (ctx: *Context, cmd: *const abi.Command) callconv(.c) void;
/// Scratch bytes that a kernel needs for a resolved command (for programs: at the largest token count).
pub const Workspace = *const fn (cmd: *const abi.Command, threads: u32) callconv(.c) u64;

/// State that the threads of one command share. The executor resets it between commands.
pub const Shared = struct {
    arrived: std.atomic.Value(u32) = .init(0),
    generation: std.atomic.Value(u32) = .init(0),
    next_task: std.atomic.Value(u32) = .init(0),
    /// Set by the first kernel that fails; the text is static.
    failure: std.atomic.Value(?[*:0]const u8) = .init(null),
};

pub const Context = struct {
    /// 0 … threads-1
    thread: u32,
    threads: u32,
    /// Shared by all threads of the command, at least what the kernel's `workspace` asked for, 64-byte aligned.
    scratch: []align(64) u8,
    shared: *Shared,

    /// Waits until every thread of the command has arrived. Writes before it are seen by all after it.
    pub fn barrier(self: *Context) void {
        if (self.threads == 1) return;
        const generation = self.shared.generation.load(.acquire);
        if (self.shared.arrived.fetchAdd(1, .acq_rel) + 1 == self.threads) {
            self.shared.arrived.store(0, .monotonic);
            self.shared.generation.store(generation +% 1, .release);
            return;
        }
        var spins: u32 = 0;
        while (self.shared.generation.load(.acquire) == generation) : (spins +%= 1) {
            if (spins & 1023 == 1023) std.Thread.yield() catch {} else std.atomic.spinLoopHint();
        }
    }

    /// The next task of a shared counter that starts at 0 for each command.
    pub fn take(self: *Context) usize {
        return self.shared.next_task.fetchAdd(1, .monotonic);
    }

    /// Restarts the counter of `take` for a further phase of the same command.
    pub fn restartTasks(self: *Context) void {
        self.barrier();
        if (self.thread == 0) self.shared.next_task.store(0, .monotonic);
        self.barrier();
    }

    pub const Range = struct { start: usize, end: usize };

    /// This thread's share of 0…n, in whole multiples of `grain`.
    pub fn range(self: *const Context, n: usize, grain: usize) Range {
        const units = (n + grain - 1) / grain;
        return .{
            .start = @min(n, units * self.thread / self.threads * grain),
            .end = @min(n, units * (self.thread + 1) / self.threads * grain),
        };
    }

    /// Marks the command as failed with a static text; the other threads go on to the end of it.
    pub fn fail(self: *Context, text: [*:0]const u8) void {
        _ = self.shared.failure.cmpxchgStrong(null, text, .release, .monotonic);
    }
};

/// One entry per op of ops.table, in its order.
pub const KernelTable = extern struct {
    kernels: [*]const Kernel,
    workspaces: [*]const Workspace,
    count: u64,
};

/// Runs one command on `threads` threads: for tests and micro-benchmarks of a single kernel.
pub fn runForTest(kernel: Kernel, cmd: *const abi.Command, threads: u32, scratch: []align(64) u8) !void {
    var shared: Shared = .{};
    const Runner = struct {
        fn go(k: Kernel, c: *const abi.Command, ctx: Context) void {
            var own = ctx;
            k(&own, c);
        }
    };
    var handles: [16]std.Thread = undefined;
    for (1..threads) |t| {
        const own: Context = .{ .thread = @intCast(t), .threads = threads, .scratch = scratch, .shared = &shared };
        handles[t] = try std.Thread.spawn(.{}, Runner.go, .{ kernel, cmd, own });
    }
    Runner.go(kernel, cmd, .{ .thread = 0, .threads = threads, .scratch = scratch, .shared = &shared });
    for (1..threads) |t| handles[t].join();
    if (shared.failure.load(.acquire) != null) return error.KernelFailed;
}
