//! Runs a list of resolved commands in order: the calling thread walks the list, the pool's workers help with the shares
//! of each command, or of a few that do not depend on each other.

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
    workspace: ?context.Workspace = null,
    outlook: ?context.Outlook = null,
    /// The next step that has an outlook.
    follower: ?*const Step = null,
    threads: u32 = 1,
    /// How many steps just before this one it does not depend on.
    independent: u32 = 0,
    /// How many steps from this one on run as one job: a thread that is done with one goes on with the next. Counts only in
    /// the first step of a job.
    together: u32 = 1,
};

/// Steps of one job.
pub const together_max = 8;

/// Multiply-adds that are worth a thread of their own: some microseconds. Giving out a command's shares, and fetching what
/// another core wrote, costs about one.
const work_per_thread = 1 << 17;
/// Multiply-adds that take as long as an element of the other ops.
const element_work = 1 << 4;

/// How many threads a job gets: as many as its commands say, fewer when there is too little to do. No result depends on it.
fn threadsFor(steps: []const Step, pool_threads: u32) u32 {
    var asked: u32 = 1;
    var worth: u64 = 0;
    for (steps) |*step| {
        asked = @max(asked, if (step.command.threads == 0) pool_threads else @min(step.command.threads, pool_threads));
        worth +|= work(step.command);
    }
    return @max(1, @min(asked, std.math.lossyCast(u32, worth / work_per_thread)));
}

fn elements(desc: *const abi.TensorDesc) u64 {
    var count: u64 = 1;
    for (desc.shape[0..desc.rank]) |dim| count *|= @intCast(dim);
    return count;
}

/// A rough count of what a command does, in multiply-adds.
fn work(cmd: *const abi.Command) u64 {
    const op: OpId = @enumFromInt(cmd.op);
    const out = elements(&cmd.outputs[0]);
    return switch (op) {
        .linear, .matmul => out *| @as(u64, @intCast(cmd.inputs[0].shape[cmd.inputs[0].rank - 1])),
        .linear_swiglu => out *| 2 *| @as(u64, @intCast(cmd.inputs[0].shape[1])),
        .attention => out *| @as(u64, @intCast(@max(1, cmd.ints[0] +| cmd.inputs[0].shape[0]))) *| 2,
        .embedding, .take_rows => out / 4 *| element_work,
        .kv_append => elements(&cmd.inputs[0]) / 4 *| element_work, // of the cache only so much is written
        else => @max(out, elements(&cmd.inputs[0])) *| element_work,
    };
}

/// Decides which steps run together, how many threads each job is worth, and what threads without work look out for.
pub fn plan(steps: []Step, pool_threads: u32) void {
    var at: usize = 0;
    while (at < steps.len) : (at += steps[at].together) {
        const first = &steps[at];
        first.together = 1;
        if (isBrief(first, pool_threads)) for (steps[at + 1 ..]) |*next| {
            if (first.together == together_max or next.independent < first.together or !isBrief(next, pool_threads)) break;
            first.together += 1;
        };
        const job = steps[at..][0..first.together];
        const threads = threadsFor(job, pool_threads);
        for (job) |*step| step.threads = threads;
    }
    var follower: ?*const Step = null;
    var left = steps.len;
    while (left > 0) : (left -= 1) {
        const step = &steps[left - 1];
        step.follower = follower;
        if (step.outlook != null) follower = step;
    }
}

/// Whether a step is worth running with others: a product of few rows, which has one phase and needs no scratch memory.
fn isBrief(step: *const Step, pool_threads: u32) bool {
    const workspace = step.workspace orelse return false;
    const op: OpId = @enumFromInt(step.command.op);
    return op == .linear and workspace(step.command, pool_threads) == 0;
}

/// What a run of a list ended with.
pub const Failure = struct { index: usize, text: [*:0]const u8 };

pub const Executor = struct {
    pool: *pool_zig.Pool,
    shared: [together_max]context.Shared = @splat(.{}),
    scratch: []align(64) u8 = &.{},
    /// The step whose outlook was announced last in this run.
    follower: ?*const Step = null,

    /// Runs planned steps; null when all went well. `rows`, one per step, get the time that each took: then no steps run
    /// together.
    pub fn run(self: *Executor, steps: []const Step, scratch: []align(64) u8, rows: ?[]abi.ProfileRow) ?Failure {
        self.scratch = scratch;
        self.follower = null;
        self.pool.begin();
        var last_ns = if (rows != null) os.nowNs() else 0;
        var at: usize = 0;
        while (at < steps.len) {
            const together = if (rows == null) steps[at].together else 1;
            if (self.runJob(steps[at..][0..together])) |failure| {
                return .{ .index = at + failure.index, .text = failure.text };
            }
            if (rows) |all| {
                const now = os.nowNs();
                all[at].calls += 1;
                all[at].ns += now - last_ns;
                last_ns = now;
            }
            at += together;
        }
        return null;
    }

    /// Runs one step, or some that depend on none of each other and have one phase.
    fn runJob(self: *Executor, steps: []const Step) ?Failure {
        var call: Call = .{ .executor = self, .steps = steps, .threads = self.pool.turnout(steps[0].threads) };
        self.announce(steps[steps.len - 1].follower);
        const shared = self.shared[0..steps.len];
        for (shared) |*one| one.failure.store(null, .monotonic);
        for (0..context.phases_max) |phase| {
            call.phase = @intCast(phase);
            for (shared) |*one| {
                one.next_task.store(0, .monotonic);
                one.has_more.store(false, .monotonic);
            }
            self.pool.run(Call.runShare, &call, call.threads);
            var has_more = false;
            for (shared, 0..) |*one, index| {
                if (one.failure.load(.monotonic)) |text| return .{ .index = index, .text = text };
                has_more = has_more or one.has_more.load(.monotonic);
            }
            if (!has_more) return null;
            std.debug.assert(steps.len == 1);
        }
        return .{ .index = 0, .text = "the kernel has too many phases" };
    }

    /// Has threads that run out of work during a job ask for what `follower` begins with.
    fn announce(self: *Executor, follower: ?*const Step) void {
        if (follower == self.follower) return;
        self.follower = follower;
        self.pool.announced.set(if (follower) |step| step.outlook.?(step.command, self.pool.expected(step.threads)) else .{});
    }
};

/// One phase of a step, or the only one of some, as a job of the pool.
const Call = struct {
    executor: *Executor,
    steps: []const Step,
    threads: u32,
    phase: u32 = 0,

    fn runShare(state: *anyopaque, share: u32) void {
        const self: *const Call = @ptrCast(@alignCast(state));
        for (self.steps, self.executor.shared[0..self.steps.len]) |*step, *shared| {
            var ctx: context.Context = .{
                .thread = share,
                .threads = self.threads,
                .phase = self.phase,
                .scratch = self.executor.scratch,
                .shared = shared,
            };
            step.kernel(&ctx, step.command);
        }
    }
};

/// A product whose kernel counts its tasks and fails where the bias says so.
const Fake = struct {
    done: std.atomic.Value(u32) = .init(0),
    fails: bool = false,

    fn step(self: *Fake, cmd: *abi.Command, n: i64, independent: u32) Step {
        cmd.* = .{ .op = @intFromEnum(OpId.linear), .input_count = 2, .output_count = 1 };
        cmd.inputs[0] = .{ .rank = 2, .shape = .{ 1, 1 << 10, 0, 0 } };
        cmd.inputs[1].data = @intFromPtr(self);
        cmd.outputs[0] = .{ .rank = 2, .shape = .{ 1, n, 0, 0 } };
        return .{ .command = cmd, .kernel = kernel, .workspace = noWorkspace, .independent = independent };
    }

    fn kernel(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
        const self: *Fake = @ptrFromInt(cmd.inputs[1].data);
        while (ctx.take() < 100) _ = self.done.fetchAdd(1, .monotonic);
        if (self.fails) ctx.fail("refused");
    }

    /// As if the bias were the weights.
    fn outlook(cmd: *const abi.Command, _: u32) callconv(.c) context.Stretch {
        return .{ .base = cmd.inputs[1].data };
    }

    fn noWorkspace(_: *const abi.Command, _: u32) callconv(.c) u64 {
        return 0;
    }

    fn someWorkspace(_: *const abi.Command, _: u32) callconv(.c) u64 {
        return 64;
    }
};

test "products that depend on none of each other are one job, and share the work it is worth" {
    const gpa = std.testing.allocator;
    var fakes: [6]Fake = @splat(.{});
    var commands: [6]abi.Command = undefined;
    var steps: [6]Step = undefined;
    // 64 columns are worth half a thread; the fourth depends on the third, the sixth needs scratch memory.
    for (&steps, &fakes, &commands, [_]u32{ 0, 1, 2, 0, 1, 5 }) |*step, *fake, *cmd, independent| step.* = fake.step(cmd, 64, independent);
    steps[5].workspace = Fake.someWorkspace;
    plan(&steps, 4);
    try std.testing.expectEqualSlices(u32, &.{ 3, 2, 1 }, &.{ steps[0].together, steps[3].together, steps[5].together });
    try std.testing.expectEqualSlices(u32, &.{ 1, 1, 1 }, &.{ steps[0].threads, steps[3].threads, steps[5].threads });
    for (&commands) |*cmd| cmd.outputs[0].shape[1] = 128;
    plan(&steps, 4);
    try std.testing.expectEqualSlices(u32, &.{ 3, 2, 1 }, &.{ steps[0].threads, steps[3].threads, steps[5].threads });
    commands[4].threads = 1;
    commands[3].threads = 1;
    plan(&steps, 4);
    try std.testing.expectEqual(1, steps[3].threads);

    var pool: pool_zig.Pool = undefined;
    try pool.init(gpa, 3, 0);
    defer pool.deinit(gpa);
    var executor: Executor = .{ .pool = &pool };
    var rows: [6]abi.ProfileRow = @splat(.{});
    steps[3].outlook = Fake.outlook;
    plan(&steps, 4);
    for (steps, 0..) |step, i| try std.testing.expectEqual(if (i < 3) &steps[3] else null, step.follower);
    executor.announce(steps[0].follower);
    try std.testing.expectEqual(@intFromPtr(&fakes[3]), pool.announced.get().base);
    for ([_]?[]abi.ProfileRow{ null, &rows }) |profile| {
        for (&fakes) |*fake| fake.done.store(0, .monotonic);
        try std.testing.expectEqual(null, executor.run(&steps, &.{}, profile));
        for (&fakes) |*fake| try std.testing.expectEqual(100, fake.done.load(.monotonic));
    }
    try std.testing.expectEqual(0, pool.announced.get().base); // nothing follows the last one
    for (rows) |row| try std.testing.expectEqual(1, row.calls);
    fakes[4].fails = true;
    try std.testing.expectEqual(4, executor.run(&steps, &.{}, null).?.index);
    try std.testing.expectEqual(4, executor.run(&steps, &.{}, &rows).?.index);
}
