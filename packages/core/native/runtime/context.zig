//! What a kernel sees of the runtime: its share of the work, shared scratch memory, phases and a failure flag.
//!
//! A command is cut into shares. A kernel is called once for each of them, with the same command; which thread of the
//! pool takes a share, and whether two shares run at the same time, is left open. A kernel splits its work itself, by
//! `range` (fixed parts), `take` (a shared counter of tasks) or a queue of its own in scratch, so that no result depends
//! on the number of shares. It cannot rely on another share, which may not have begun or may have lost its processor; it can only
//! ask to be called again when all have ended (`again`).

const std = @import("std");
const abi = @import("abi");

pub const Kernel = *const fn (ctx: *Context, cmd: *const abi.Command) callconv(.c) void;
/// Scratch bytes that a kernel needs for a resolved command (for programs: at the largest token count) on as many threads or
/// fewer.
pub const Workspace = *const fn (cmd: *const abi.Command, threads: u32) callconv(.c) u64;

/// What the shares of a command begin with, for threads that have time before it runs (runtime/ahead.zig); none where that is
/// not known. `threads` as in Context.
pub const Outlook = *const fn (cmd: *const abi.Command, threads: u32) callconv(.c) Stretch;

/// Memory that a command's shares begin with: each of them reads streams side by side, which follow each other.
pub const Stretch = extern struct {
    /// Where that of share 0 begins; 0 for none.
    base: usize = 0,
    shares: usize = 0,
    /// From one share to the next.
    share_bytes: usize = 0,
    streams: usize = 0,
    stream_bytes: usize = 0,

    pub const streams_max = 4;
};

/// Phases of one command.
pub const phases_max = 16;

/// State that the shares of one command have in common. The executor resets it between phases.
pub const Shared = struct {
    next_task: std.atomic.Value(u32) align(64) = .init(0),
    has_more: std.atomic.Value(bool) = .init(false),
    /// Set by the first share that fails; the text is static.
    failure: std.atomic.Value(?[*:0]const u8) = .init(null),
};

pub const Context = struct {
    /// Which share this is: 0 … threads-1. No two shares with the same number run at once.
    thread: u32,
    /// How many shares there are, in all phases of a command the same.
    threads: u32,
    /// How often all shares have run before.
    phase: u32 = 0,
    /// Of all shares together, at least what the kernel's `workspace` asked for, 64-byte aligned; phases find it as the
    /// one before left it.
    scratch: []align(64) u8,
    shared: *Shared,

    /// Has the kernel called for every share once more, in the next `phase`, when all of this phase have returned. What
    /// they wrote is seen then. All shares must ask, or none.
    pub fn again(self: *Context) void {
        self.shared.has_more.store(true, .monotonic);
    }

    /// The next task of a shared counter that starts at 0 in each phase.
    pub fn take(self: *Context) usize {
        return self.shared.next_task.fetchAdd(1, .monotonic);
    }

    pub const Range = struct { start: usize, end: usize };

    /// This share's part of 0…n, in whole multiples of `grain`.
    pub fn range(self: *const Context, n: usize, grain: usize) Range {
        const units = (n + grain - 1) / grain;
        return .{
            .start = @min(n, units * self.thread / self.threads * grain),
            .end = @min(n, units * (self.thread + 1) / self.threads * grain),
        };
    }

    /// Marks the command as failed with a static text; the other shares go on to their end, no phase follows.
    pub fn fail(self: *Context, text: [*:0]const u8) void {
        _ = self.shared.failure.cmpxchgStrong(null, text, .release, .monotonic);
    }
};

/// One entry per op of ops.table, in its order.
pub const KernelTable = extern struct {
    kernels: [*]const Kernel,
    workspaces: [*]const Workspace,
    /// Null for ops without one.
    outlooks: [*]const ?Outlook,
    count: u64,
};

/// Runs one command as `threads` shares, each on a thread of its own: for tests and micro-benchmarks of a single kernel.
pub fn runForTest(kernel: Kernel, cmd: *const abi.Command, threads: u32, scratch: []align(64) u8) !void {
    const Runner = struct {
        fn go(k: Kernel, c: *const abi.Command, ctx: Context) void {
            var own = ctx;
            k(&own, c);
        }
    };
    for (0..phases_max) |phase| {
        var shared: Shared = .{};
        var ctx: Context = .{ .thread = 0, .threads = threads, .phase = @intCast(phase), .scratch = scratch, .shared = &shared };
        var handles: [16]std.Thread = undefined;
        for (handles[1..threads], 1..) |*handle, thread| {
            ctx.thread = @intCast(thread);
            handle.* = try std.Thread.spawn(.{}, Runner.go, .{ kernel, cmd, ctx });
        }
        ctx.thread = 0;
        Runner.go(kernel, cmd, ctx);
        for (handles[1..threads]) |handle| handle.join();
        if (shared.failure.load(.acquire) != null) return error.KernelFailed;
        if (!shared.has_more.load(.acquire)) return;
    }
    return error.TooManyPhases;
}
