//! Selection: argmax, topk, softmax_topk, take_rows.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const softmax = @import("softmax.zig");
const views = @import("views.zig");

const lanes = simd.lanes;
const Rows = views.Rows;

/// Index of the largest element, the lowest at a tie; NaN is smaller than every number. First the value, then its place.
fn argmaxRow(comptime dense: bool, x: views.Cursor(dense), n: usize) usize {
    var best: [4]simd.F = @splat(simd.splat(-simd.inf));
    var i: usize = 0;
    while (i + 4 * lanes <= n) : (i += 4 * lanes) {
        inline for (0..4) |k| best[k] = simd.maxSkipNan(best[k], x.load(i + k * lanes));
    }
    var largest = simd.maxLanes(simd.maxSkipNan(simd.maxSkipNan(best[0], best[1]), simd.maxSkipNan(best[2], best[3])));
    while (i < n) : (i += 1) largest = if (x.at(i).* > largest) x.at(i).* else largest;
    i = 0;
    while (i + lanes <= n) : (i += lanes) {
        if (@reduce(.Or, x.load(i) == simd.splat(largest))) break;
    }
    while (i < n) : (i += 1) if (x.at(i).* == largest) return i;
    return 0;
}

/// inputs: x [rows, n]; outputs: i32 [rows].
pub fn argmax(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: Rows = .init(&cmd.outputs[0], 0);
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        const index = if (x.stride == 1) argmaxRow(true, x.cursor(true, r), x.n) else argmaxRow(false, x.cursor(false, r), x.n);
        out.pointer(i32, r)[0] = @intCast(index);
    }
}

/// Whether `a` stands before `b` in descending order with NaN last.
inline fn before(a: f32, b: f32) bool {
    return a > b or (b != b and a == a);
}

const Top = struct {
    values: views.Cursor(false),
    indices: [*]i32,
    index_stride: isize,
    k: usize,

    fn index(t: Top, i: usize) *i32 {
        return @ptrFromInt(@intFromPtr(t.indices) +% @as(usize, @bitCast(@as(isize, @intCast(i)) * t.index_stride * 4)));
    }

    /// Puts an element into the first `filled` sorted ones; the last falls out when there are k already.
    fn insert(t: Top, filled: usize, value: f32, at: usize) void {
        var i = @min(filled, t.k - 1);
        while (i > 0 and before(value, t.values.at(i - 1).*)) : (i -= 1) {
            t.values.at(i).* = t.values.at(i - 1).*;
            t.index(i).* = t.index(i - 1).*;
        }
        t.values.at(i).* = value;
        t.index(i).* = @intCast(at);
    }

    /// Divides the values by their sum, taken from the largest down.
    fn normalize(t: Top) void {
        var sum: f32 = 0;
        for (0..t.k) |i| sum += t.values.at(i).*;
        for (0..t.k) |i| t.values.at(i).* /= sum;
    }

    fn run(t: Top, comptime dense: bool, x: views.Cursor(dense), n: usize) void {
        for (0..t.k) |i| t.insert(i, x.at(i).*, i);
        var i = t.k;
        while (i < n) {
            const least = t.values.at(t.k - 1).*;
            // Most vectors hold nothing above the least of the best.
            if (i + lanes <= n and least == least and !@reduce(.Or, x.load(i) > simd.splat(least))) {
                i += lanes;
                continue;
            }
            const end = @min(n, i + lanes);
            while (i < end) : (i += 1) {
                const value = x.at(i).*;
                if (before(value, t.values.at(t.k - 1).*)) t.insert(t.k, value, i);
            }
        }
    }
};

/// Values and indices of each row.
const TopRows = struct {
    values: Rows,
    indices: Rows,

    fn init(cmd: *const abi.Command) TopRows {
        return .{ .values = .init(&cmd.outputs[0], 1), .indices = .init(&cmd.outputs[1], 1) };
    }

    fn at(self: *const TopRows, r: usize) Top {
        return .{
            .values = self.values.cursor(false, r),
            .indices = self.indices.pointer(i32, r),
            .index_stride = @intCast(self.indices.stride),
            .k = self.values.n,
        };
    }
};

/// inputs: x [rows, n]; outputs: values f32 [rows, k], indices i32 [rows, k]; k <= n.
pub fn topk(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: TopRows = .init(cmd);
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        const top = out.at(r);
        if (x.stride == 1) top.run(true, x.cursor(true, r), x.n) else top.run(false, x.cursor(false, r), x.n);
    }
}

/// inputs: x [rows, n]; outputs: weights f32 [rows, k], indices i32 [rows, k]; ints: normalized; floats: scale. The softmax
/// of a row goes into a thread's own scratch, from which the k largest are taken.
pub fn softmax_topk(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: TopRows = .init(cmd);
    const row: [*]f32 = @ptrCast(@alignCast(ctx.scratch.ptr + ctx.thread * scratchRow(x.n)));
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        if (x.stride == 1) {
            softmax.softmaxRow(true, x.cursor(true, r), .{ .p = row, .stride = 1 }, x.n, x.n, cmd.floats[0]);
        } else softmax.softmaxRow(false, x.cursor(false, r), .{ .p = row, .stride = 1 }, x.n, x.n, cmd.floats[0]);
        const top = out.at(r);
        top.run(true, .{ .p = row, .stride = 1 }, x.n);
        if (cmd.ints[0] != 0) top.normalize();
    }
}

pub fn softmax_topk_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    return scratchRow(views.dim(&cmd.inputs[0], 1)) * threads;
}

fn scratchRow(n: usize) usize {
    return std.mem.alignForward(usize, n * 4, 64);
}

fn copyRow(comptime dense: bool, from: views.Cursor(dense), to: views.Cursor(dense), n: usize) void {
    if (dense) return @memcpy(to.p[0..n], from.p[0..n]);
    for (0..n) |i| to.at(i).* = from.at(i).*;
}

/// inputs: x [rows, n]; outputs: [count, n]; ints: start.
pub fn take_rows(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    var source = cmd.inputs[0];
    source.data = views.addressOf(&source, &.{@intCast(cmd.ints[0])});
    source.shape[0] = cmd.outputs[0].shape[0];
    const x: Rows = .init(&source, 1);
    const out: Rows = .init(&cmd.outputs[0], 1);
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        if (x.stride == 1 and out.stride == 1) {
            copyRow(true, x.cursor(true, r), out.cursor(true, r), x.n);
        } else {
            copyRow(false, x.cursor(false, r), out.cursor(false, r), x.n);
        }
    }
}

/// Scalar oracles.
pub const scalar = struct {
    pub fn argmax(x: []const f32) usize {
        var best: usize = 0;
        for (x, 0..) |v, i| if (before(v, x[best])) {
            best = i;
        };
        return best;
    }

    /// Selection without sorting: each time the best of those not yet taken.
    pub fn topk(x: []const f32, indices: []i32) void {
        for (indices, 0..) |*out, k| {
            var best: ?usize = null;
            for (x, 0..) |v, i| {
                const taken = std.mem.indexOfScalar(i32, indices[0..k], @intCast(i)) != null;
                if (!taken and (best == null or before(v, x[best.?]))) best = i;
            }
            out.* = @intCast(best.?);
        }
    }
};
