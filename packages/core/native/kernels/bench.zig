//! Micro-benchmarks of the kernels: `zig build bench -- [words…]` runs the rows whose name contains one of the words.
//!
//! A figure is the best of many runs (one thread: CPU time of that thread, so that other work on the machine counts
//! little; more: wall time). New families: a file with `pub fn run(b: *Bench) !void`, named in `suites`.

const std = @import("std");
const abi = @import("abi");
const amx = @import("amx.zig");
const context = @import("context");
const options = @import("options");
const runtime = @import("runtime");
const tile_permission = @import("tile_permission.zig");

const suites = .{
    @import("bench_rows.zig"),
    @import("bench_attention.zig"),
    @import("bench_linear.zig"),
};

/// What one call does, for the unit of its figure.
pub const Work = union(enum) { bytes: usize, flops: usize };

/// Threads that run commands as a program does, and the time it takes.
pub const Team = struct {
    pool: runtime.Pool,
    executor: runtime.Executor,

    /// The team must not move.
    pub fn init(self: *Team) !void {
        try self.pool.init(std.heap.page_allocator, options.threads, 1_000_000);
        self.executor = .{ .pool = &self.pool };
    }

    pub fn threads(self: *const Team) u32 {
        return self.pool.threads;
    }

    /// Nanoseconds of running the steps, one after the other.
    pub fn time(self: *Team, steps: []const runtime.Step, scratch: []align(64) u8) !u64 {
        const clock: std.os.linux.clockid_t = if (self.pool.threads == 1) .THREAD_CPUTIME_ID else .MONOTONIC;
        const start = nanoseconds(clock);
        if (self.executor.run(steps, scratch, null) != null) return error.KernelFailed;
        return nanoseconds(clock) - start;
    }
};

/// Pages as the runtime maps weights.
pub fn hugePages(bytes: usize) ![]align(std.heap.page_size_min) u8 {
    const pages = try std.posix.mmap(null, bytes, .{ .READ = true, .WRITE = true }, .{ .TYPE = .PRIVATE, .ANONYMOUS = true }, -1, 0);
    std.posix.madvise(pages.ptr, pages.len, std.os.linux.MADV.HUGEPAGE) catch {};
    return pages;
}

pub const Bench = struct {
    gpa: std.mem.Allocator,
    team: *Team,
    words: []const []const u8,

    /// A dense tensor of the given dtype filled with normal numbers (zeros for integers); lives until the program ends.
    pub fn tensor(b: *Bench, comptime T: type, shape: []const usize) !abi.TensorDesc {
        var desc: abi.TensorDesc = .{ .rank = @intCast(shape.len) };
        desc.dtype = @intFromEnum(switch (T) {
            f32 => abi.Dtype.f32,
            f16 => abi.Dtype.f16,
            i32 => abi.Dtype.i32,
            else => @compileError("no such benchmark tensor"),
        });
        var total: usize = 1;
        for (0..shape.len) |i| {
            const axis = shape.len - 1 - i;
            desc.shape[axis] = @intCast(shape[axis]);
            desc.strides[axis] = @intCast(total);
            total *= shape[axis];
        }
        const memory = try b.gpa.alignedAlloc(T, .@"64", total);
        var random: std.Random.DefaultPrng = .init(total);
        for (memory) |*v| v.* = if (T == i32) 0 else @floatCast(random.random().floatNorm(f32));
        desc.data = @intFromPtr(memory.ptr);
        return desc;
    }

    pub fn wants(b: *const Bench, name: []const u8) bool {
        if (b.words.len == 0) return true;
        for (b.words) |w| if (std.mem.indexOf(u8, name, w) != null) return true;
        return false;
    }

    /// Measures one kernel and prints its row.
    pub fn row(
        b: *Bench,
        name: []const u8,
        work: Work,
        kernel: context.Kernel,
        workspace: ?context.Workspace,
        cmd: *const abi.Command,
    ) !void {
        if (!b.wants(name)) return;
        const threads = b.team.threads();
        const bytes: usize = if (workspace) |w| @intCast(w(cmd, threads)) else 0;
        const scratch = try b.gpa.alignedAlloc(u8, .@"64", bytes);
        @memset(scratch, 0);
        defer b.gpa.free(scratch);
        // Short kernels repeat, so that reading the clock does not count.
        const many: [64]runtime.Step = @splat(.{ .command = cmd, .kernel = kernel, .threads = threads });
        const first = try b.team.time(many[0..1], scratch);
        const repeats = std.math.clamp(50_000 / @max(1, first), 1, many.len);
        var best: u64 = first;
        const end = nanoseconds(.MONOTONIC) + 300_000_000;
        while (nanoseconds(.MONOTONIC) < end) best = @min(best, try b.team.time(many[0..repeats], scratch) / repeats);
        const rate = switch (work) {
            inline else => |n| @as(f64, @floatFromInt(n)) / @as(f64, @floatFromInt(@max(1, best))),
        };
        const unit = switch (work) {
            .bytes => "GB/s",
            .flops => "GFLOPS",
        };
        std.debug.print("{s:<48} {d:>12.2} us {d:>9.2} {s}\n", .{ name, @as(f64, @floatFromInt(best)) / 1000, rate, unit });
    }
};

pub fn nanoseconds(clock: std.os.linux.clockid_t) u64 {
    var t: std.os.linux.timespec = undefined;
    _ = std.os.linux.clock_gettime(clock, &t);
    return @as(u64, @intCast(t.sec)) * 1_000_000_000 + @as(u64, @intCast(t.nsec));
}

pub fn main(init: std.process.Init.Minimal) !void {
    const gpa = std.heap.page_allocator;
    var words: std.ArrayList([]const u8) = .empty;
    var args = std.process.Args.Iterator.init(init.args);
    _ = args.skip();
    while (args.next()) |word| try words.append(gpa, word);
    std.debug.print("level {s}, threads {d}\n", .{ options.level, options.threads });
    if (amx.available) if (tile_permission.refusal()) |reason| return std.debug.print("{s}\n", .{reason});
    var team: Team = undefined;
    try team.init();
    var b: Bench = .{ .gpa = gpa, .team = &team, .words = words.items };
    inline for (suites) |suite| try suite.run(&b);
}
