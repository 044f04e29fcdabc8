//! Runs a list of resolved commands on the pool with one wake-up: the threads walk the list together.
//!
//! Between two commands stands a barrier, but for neighbours that both run on one thread. The last thread to arrive
//! closes the command: it looks for a failure, takes the time and resets what the threads share.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const os = @import("os.zig");
const OpId = @import("rules.zig").OpId;
const pool_zig = @import("pool.zig");

/// A command that is ready to run.
pub const Step = struct {
    command: *const abi.Command,
    kernel: context.Kernel,
    threads: u32 = 1,
    /// Whether a barrier follows. The end of the list needs none.
    barrier: bool = false,
};

/// Multiply-adds (or elements) that are worth a thread of their own.
const work_per_thread = 8192;

/// How many threads a command gets: as many as it says, fewer when there is too little to do. No result depends on it.
fn threadsFor(cmd: *const abi.Command, pool_threads: u32) u32 {
    const asked = if (cmd.threads == 0) pool_threads else @min(cmd.threads, pool_threads);
    if (asked == 1) return 1;
    return @max(1, @min(asked, std.math.lossyCast(u32, work(cmd) / work_per_thread)));
}

fn elements(desc: *const abi.TensorDesc) u64 {
    var count: u64 = 1;
    for (desc.shape[0..desc.rank]) |dim| count *|= @intCast(dim);
    return count;
}

/// A rough count of what a command does.
fn work(cmd: *const abi.Command) u64 {
    const op: OpId = @enumFromInt(cmd.op);
    const out = elements(&cmd.outputs[0]);
    return switch (op) {
        .linear, .matmul => out *| @as(u64, @intCast(cmd.inputs[0].shape[cmd.inputs[0].rank - 1])),
        .attention => out *| @as(u64, @intCast(@max(1, cmd.ints[0] +| cmd.inputs[0].shape[0]))) *| 2,
        .embedding, .take_rows, .kv_append => @max(out / 4, 1),
        else => @max(out, elements(&cmd.inputs[0])),
    };
}

/// Decides threads and barriers of every step; returns the most threads that any of them uses.
pub fn plan(steps: []Step, pool_threads: u32) u32 {
    var most: u32 = 1;
    for (steps) |*step| {
        step.threads = threadsFor(step.command, pool_threads);
        most = @max(most, step.threads);
    }
    for (steps, 0..) |*step, i| {
        step.barrier = i + 1 < steps.len and (step.threads > 1 or steps[i + 1].threads > 1);
    }
    return most;
}

/// What a run of a list ended with.
pub const Failure = struct { index: usize, text: [*:0]const u8 };

pub const Executor = struct {
    pool: *pool_zig.Pool,
    shared: context.Shared = .{},
    barrier: pool_zig.Barrier = .{},
    steps: []const Step = &.{},
    threads: u32 = 1,
    scratch: []align(64) u8 = &.{},
    /// The step that is running.
    index: usize = 0,
    /// One row per step when the time is taken.
    rows: ?[]abi.ProfileRow = null,
    last_ns: u64 = 0,

    /// Runs planned steps on `threads` threads; null when all went well.
    pub fn run(self: *Executor, steps: []const Step, threads: u32, scratch: []align(64) u8, rows: ?[]abi.ProfileRow) ?Failure {
        if (steps.len == 0) return null;
        self.steps = steps;
        self.threads = @min(threads, self.pool.threads);
        self.scratch = scratch;
        self.index = 0;
        self.rows = rows;
        if (rows != null) self.last_ns = os.nowNs();
        self.shared.next_task.store(0, .monotonic);
        self.shared.failure.store(null, .monotonic);
        self.pool.run(walk, self, self.threads);
        if (self.shared.failure.load(.acquire) == null and self.index < steps.len) _ = self.finish();
        const text = self.shared.failure.load(.acquire) orelse return null;
        return .{ .index = self.index, .text = text };
    }

    /// What each thread does.
    fn walk(state: *anyopaque, thread: u32) void {
        const self: *Executor = @ptrCast(@alignCast(state));
        var live = true;
        for (self.steps) |*step| {
            if (live and thread < step.threads) {
                var ctx: context.Context = .{ .thread = thread, .threads = step.threads, .scratch = self.scratch, .shared = &self.shared };
                step.kernel(&ctx, step.command);
            }
            if (step.barrier) {
                if (!self.barrier.arrive(self.threads, self.pool.spin, finishOpaque, self)) return;
            } else if (thread == 0 and step.threads == 1) {
                // The others are already waiting at the next barrier. A failure is passed on there.
                live = live and self.finish();
            }
        }
    }

    fn finishOpaque(state: *anyopaque) bool {
        const self: *Executor = @ptrCast(@alignCast(state));
        return self.finish();
    }

    /// Closes the running step; false when it failed.
    fn finish(self: *Executor) bool {
        if (self.shared.failure.load(.acquire) != null) return false;
        if (self.rows) |rows| {
            const now = os.nowNs();
            rows[self.index].calls += 1;
            rows[self.index].ns += now - self.last_ns;
            self.last_ns = now;
        }
        self.shared.next_task.store(0, .monotonic);
        self.index += 1;
        return true;
    }
};
