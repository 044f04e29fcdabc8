//! Runs a list of resolved commands, one after the other: the calling thread walks the list, the pool's workers help with
//! the shares of each command.

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
};

/// Multiply-adds, and elements of the other ops, that are worth a thread of their own: some microseconds. Giving out a
/// command's shares, and fetching what another core wrote, costs about one.
const macs_per_thread = 1 << 17;
const elements_per_thread = 1 << 13;

/// How many threads a command gets: as many as it says, fewer when there is too little to do. No result depends on it.
fn threadsFor(cmd: *const abi.Command, pool_threads: u32) u32 {
    const asked = if (cmd.threads == 0) pool_threads else @min(cmd.threads, pool_threads);
    if (asked == 1) return 1;
    return @max(1, @min(asked, std.math.lossyCast(u32, worthThreads(cmd))));
}

fn elements(desc: *const abi.TensorDesc) u64 {
    var count: u64 = 1;
    for (desc.shape[0..desc.rank]) |dim| count *|= @intCast(dim);
    return count;
}

/// How many threads a command could keep busy, by a rough count of what it does.
fn worthThreads(cmd: *const abi.Command) u64 {
    const op: OpId = @enumFromInt(cmd.op);
    const out = elements(&cmd.outputs[0]);
    return switch (op) {
        .linear, .matmul => out *| @as(u64, @intCast(cmd.inputs[0].shape[cmd.inputs[0].rank - 1])) / macs_per_thread,
        .attention => out *| @as(u64, @intCast(@max(1, cmd.ints[0] +| cmd.inputs[0].shape[0]))) *| 2 / macs_per_thread,
        .embedding, .take_rows, .kv_append => out / 4 / elements_per_thread,
        else => @max(out, elements(&cmd.inputs[0])) / elements_per_thread,
    };
}

/// Decides how many threads each step is worth.
pub fn plan(steps: []Step, pool_threads: u32) void {
    for (steps) |*step| step.threads = threadsFor(step.command, pool_threads);
}

/// What a run of a list ended with.
pub const Failure = struct { index: usize, text: [*:0]const u8 };

pub const Executor = struct {
    pool: *pool_zig.Pool,
    shared: context.Shared = .{},
    scratch: []align(64) u8 = &.{},

    /// Runs planned steps; null when all went well. `rows`, one per step, get the time that each took.
    pub fn run(self: *Executor, steps: []const Step, scratch: []align(64) u8, rows: ?[]abi.ProfileRow) ?Failure {
        self.scratch = scratch;
        var last_ns = if (rows != null) os.nowNs() else 0;
        for (steps, 0..) |*step, index| {
            if (self.runStep(step)) |text| return .{ .index = index, .text = text };
            if (rows) |all| {
                const now = os.nowNs();
                all[index].calls += 1;
                all[index].ns += now - last_ns;
                last_ns = now;
            }
        }
        return null;
    }

    /// The text of a failure, or null.
    fn runStep(self: *Executor, step: *const Step) ?[*:0]const u8 {
        var call: Call = .{ .executor = self, .step = step, .threads = self.pool.turnout(step.threads) };
        self.shared.failure.store(null, .monotonic);
        for (0..context.phases_max) |phase| {
            call.phase = @intCast(phase);
            self.shared.next_task.store(0, .monotonic);
            self.shared.has_more.store(false, .monotonic);
            self.pool.run(Call.runShare, &call, call.threads);
            if (self.shared.failure.load(.monotonic)) |text| return text;
            if (!self.shared.has_more.load(.monotonic)) return null;
        }
        return "the kernel has too many phases";
    }
};

/// One phase of a step as a job of the pool.
const Call = struct {
    executor: *Executor,
    step: *const Step,
    threads: u32,
    phase: u32 = 0,

    fn runShare(state: *anyopaque, share: u32) void {
        const self: *const Call = @ptrCast(@alignCast(state));
        var ctx: context.Context = .{
            .thread = share,
            .threads = self.threads,
            .phase = self.phase,
            .scratch = self.executor.scratch,
            .shared = &self.executor.shared,
        };
        self.step.kernel(&ctx, self.step.command);
    }
};
