//! Softmax and what is built on it, along the last dim: softmax, causal_softmax, log_softmax, cross_entropy.
//!
//! A row of -inf gives zeros (softmax) and NaN (log_softmax); a NaN anywhere among the visible elements gives a row of NaN.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");

const F = simd.F;
const lanes = simd.lanes;
const Rows = views.Rows;

/// Largest scale * x of a row, NaN skipped; 0 when there is none above -inf, so that subtracting it is harmless.
inline fn shiftOf(row: anytype, n: usize, scale: F) f32 {
    var best: [4]F = @splat(simd.splat(-simd.inf));
    var i: usize = 0;
    while (i + 4 * lanes <= n) : (i += 4 * lanes) {
        inline for (0..4) |k| best[k] = simd.maxSkipNan(best[k], row.load(i + k * lanes) * scale);
    }
    while (i + lanes <= n) : (i += lanes) best[0] = simd.maxSkipNan(best[0], row.load(i) * scale);
    if (i < n) {
        // The lanes above the row repeat its last element, so that the sign of `scale` does not matter.
        const last = row.loadPart(n - 1, 1, 0)[0];
        best[1] = simd.maxSkipNan(best[1], row.loadPart(i, n - i, last) * scale);
    }
    const largest = simd.maxLanes(simd.maxSkipNan(simd.maxSkipNan(best[0], best[1]), simd.maxSkipNan(best[2], best[3])));
    return if (largest == -simd.inf) 0 else largest;
}

const Exponent = struct { scale: F, shift: F };

inline fn exponential(e: Exponent, x: F) F {
    return simd.exp(x * e.scale - e.shift);
}

/// Stores exp(scale * x - shift) into out and returns the sum.
inline fn storeExponentials(row: anytype, out: @TypeOf(row), n: usize, e: Exponent) f32 {
    var acc: [2]F = @splat(simd.zero);
    var i: usize = 0;
    while (i + 2 * lanes <= n) : (i += 2 * lanes) {
        inline for (0..2) |k| {
            const y = exponential(e, row.load(i + k * lanes));
            out.store(i + k * lanes, y);
            acc[k] += y;
        }
    }
    while (i < n) {
        const part = @min(lanes, n - i);
        const y = exponential(e, row.loadPart(i, part, 0));
        out.storePart(i, part, y);
        // Read back: what lies above the row must not be added.
        acc[0] += out.loadPart(i, part, 0);
        i += part;
    }
    return simd.sumLanes(acc[0] + acc[1]);
}

/// The softmax of the first `visible` elements of a row, zeros behind.
pub fn softmaxRow(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), n: usize, visible: usize, scale: f32) void {
    if (visible > 0) {
        const shift = shiftOf(x, visible, simd.splat(scale));
        const sum = storeExponentials(x, out, visible, .{ .scale = simd.splat(scale), .shift = simd.splat(shift) });
        const inverse = simd.splat(if (sum == 0) 0 else 1 / sum);
        var i: usize = 0;
        while (i + lanes <= visible) : (i += lanes) out.store(i, out.load(i) * inverse);
        if (i < visible) out.storePart(i, visible - i, out.loadPart(i, visible - i, 0) * inverse);
    }
    for (visible..n) |i| out.at(i).* = 0;
}

/// `offset` null: all elements are visible, else element j of query i when j <= i + offset.
fn run(ctx: *Context, cmd: *const abi.Command, offset: ?i64, scale: f32) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: Rows = .init(&cmd.outputs[0], 1);
    const queries: usize = if (cmd.inputs[0].rank > 1) views.dim(&cmd.inputs[0], cmd.inputs[0].rank - 2) else 1;
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        var visible = x.n;
        if (offset) |o| {
            const limit = @as(i64, @intCast(r % queries)) +| o +| 1;
            visible = @intCast(std.math.clamp(limit, 0, @as(i64, @intCast(x.n))));
        }
        if (x.stride == 1 and out.stride == 1) {
            softmaxRow(true, x.cursor(true, r), out.cursor(true, r), x.n, visible, scale);
        } else {
            softmaxRow(false, x.cursor(false, r), out.cursor(false, r), x.n, visible, scale);
        }
    }
}

/// inputs: x; floats: scale.
pub fn softmax(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    run(ctx, cmd, null, cmd.floats[0]);
}

/// inputs: x [..., queries, keys]; ints: offset; floats: scale.
pub fn causal_softmax(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    run(ctx, cmd, cmd.ints[0], cmd.floats[0]);
}

const LogSum = struct { shift: f32, log: f32 };

/// logsumexp(x) of a row as shift and log of the shifted sum: subtracting them one by one loses less.
fn logSum(comptime dense: bool, x: views.Cursor(dense), n: usize) LogSum {
    const shift = shiftOf(x, n, simd.splat(1));
    const e: Exponent = .{ .scale = simd.splat(1), .shift = simd.splat(shift) };
    const sum = views.sumRow(x, n, -simd.inf, e, exponential);
    return .{ .shift = shift, .log = @floatCast(@log(@as(f64, sum))) };
}

fn logSoftmaxRow(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), n: usize) void {
    const l = logSum(dense, x, n);
    const shift = simd.splat(l.shift);
    const log = simd.splat(l.log);
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) out.store(i, x.load(i) - shift - log);
    if (i < n) out.storePart(i, n - i, x.loadPart(i, n - i, 0) - shift - log);
}

/// inputs: x.
pub fn log_softmax(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: Rows = .init(&cmd.outputs[0], 1);
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        if (x.stride == 1 and out.stride == 1) {
            logSoftmaxRow(true, x.cursor(true, r), out.cursor(true, r), x.n);
        } else {
            logSoftmaxRow(false, x.cursor(false, r), out.cursor(false, r), x.n);
        }
    }
}

/// inputs: x [rows, n], target i32 [rows]; outputs: out f32 [rows]. A target outside 0…n-1 fails the command.
pub fn cross_entropy(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const target: Rows = .init(&cmd.inputs[1], 0);
    const out: Rows = .init(&cmd.outputs[0], 0);
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        const id = target.pointer(i32, r)[0];
        if (id < 0 or id >= x.n) return ctx.fail("a target is outside the row");
        const l = if (x.stride == 1) logSum(true, x.cursor(true, r), x.n) else logSum(false, x.cursor(false, r), x.n);
        out.pointer(f32, r)[0] = l.shift + l.log - x.cursor(false, r).at(@intCast(id)).*;
    }
}

/// Scalar oracles of one row in f64.
pub const scalar = struct {
    /// Also of causal rows: pass the visible elements.
    pub fn softmax(x: []const f32, scale: f32, out: []f64) void {
        var largest = -std.math.inf(f64);
        for (x) |v| largest = @max(largest, @as(f64, v) * scale);
        var sum: f64 = 0;
        for (x, out) |v, *y| {
            y.* = if (largest == -std.math.inf(f64) and v == v) 0 else @exp(@as(f64, v) * scale - largest);
            sum += y.*;
        }
        for (out) |*y| y.* = if (sum == 0) 0 else y.* / sum;
    }

    pub fn logSumExp(x: []const f32) f64 {
        var largest = -std.math.inf(f64);
        for (x) |v| largest = @max(largest, v);
        var sum: f64 = 0;
        for (x) |v| sum += @exp(v - largest);
        return largest + @log(sum);
    }
};
