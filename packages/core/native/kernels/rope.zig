//! Rotary position embedding (Su et al. 2021): half-split and interleaved pairs, partial rotation, any strides. Heads may
//! be normalised on the way (rmsnorm_rope), which is the norm of norm.zig over the row before it is turned.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const norm = @import("norm.zig");
const simd = @import("simd.zig");
const views = @import("views.zig");

const lanes = simd.lanes;

/// cos and sin of position * inv_freq in f64 (exact product, reduced by pi/2), rounded to f32 after the factor.
fn fillAngles(position: f64, inv_freq: [*]const f32, half: usize, scale: f64, cos: [*]f32, sin: [*]f32) void {
    const width = simd.lanes64;
    var i: usize = 0;
    while (i < half) : (i += width) {
        const part = @min(width, half - i);
        var frequency: [width]f64 = @splat(0);
        for (0..part) |k| frequency[k] = inv_freq[i + k];
        const turned = simd.sinCos(@as(simd.D, @splat(position)) * @as(simd.D, frequency));
        const factor: simd.D = @splat(scale);
        const c: [width]f64 = turned.cos * factor;
        const s: [width]f64 = turned.sin * factor;
        for (0..part) |k| {
            cos[i + k] = @floatCast(c[k]);
            sin[i + k] = @floatCast(s[k]);
        }
    }
}

/// (a, b) turned: (a cos - b sin, b cos + a sin), the same operations for vectors and scalars.
inline fn turn(a: anytype, b: @TypeOf(a), c: @TypeOf(a), s: @TypeOf(a)) [2]@TypeOf(a) {
    return .{ simd.fma(a, c, -(b * s)), simd.fma(b, c, a * s) };
}

/// cos and sin of one token's pairs.
const Angles = struct { cos: [*]const f32, sin: [*]const f32, half: usize, interleaved: bool };

/// What turns the tokens of a command.
const Rotation = struct {
    inv_freq: [*]const f32,
    half: usize,
    positions: ?views.Rows,
    /// Position of token 0, where there are no `positions`.
    first: i64,
    interleaved: bool,
    /// Attention factor.
    scale: f32,

    /// Inputs `at` and behind are inv_freq and positions; ints: position, interleaved.
    fn init(cmd: *const abi.Command, at: usize, scale: f32) Rotation {
        return .{
            .inv_freq = @ptrFromInt(@as(usize, @intCast(cmd.inputs[at].data))),
            .half = views.count(&cmd.inputs[at]),
            .positions = if (cmd.given(at + 1)) .init(&cmd.inputs[at + 1], 0) else null,
            .first = cmd.ints[0],
            .interleaved = cmd.ints[1] != 0,
            .scale = scale,
        };
    }

    /// Bytes of a `buffer` for so many pairs; each thread has one.
    fn bytes(half: usize) usize {
        return std.mem.alignForward(usize, 2 * half * @sizeOf(f32), 64);
    }

    /// Those of token t, which are good until `buffer` is used again.
    fn angles(self: *const Rotation, t: usize, buffer: [*]f32) Angles {
        const position: i64 = if (self.positions) |positions| positions.pointer(i32, t)[0] else self.first + @as(i64, @intCast(t));
        const sin = buffer + self.half;
        fillAngles(@floatFromInt(position), self.inv_freq, self.half, self.scale, buffer, sin);
        return .{ .cos = buffer, .sin = sin, .half = self.half, .interleaved = self.interleaved };
    }
};

fn turnHalves(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), t: Angles) void {
    var i: usize = 0;
    while (i + lanes <= t.half) : (i += lanes) {
        const y = turn(x.load(i), x.load(i + t.half), simd.load(t.cos + i), simd.load(t.sin + i));
        out.store(i, y[0]);
        out.store(i + t.half, y[1]);
    }
    while (i < t.half) : (i += 1) {
        const y = turn(x.at(i).*, x.at(i + t.half).*, t.cos[i], t.sin[i]);
        out.at(i).* = y[0];
        out.at(i + t.half).* = y[1];
    }
}

/// Masks that take two vectors apart into even and odd elements, and put them together again.
const even_odd = blk: {
    var masks: [4][lanes]i32 = undefined;
    for (0..lanes) |i| {
        masks[0][i] = if (i < lanes / 2) 2 * i else ~@as(i32, 2 * i - lanes);
        masks[1][i] = if (i < lanes / 2) 2 * i + 1 else ~@as(i32, 2 * i + 1 - lanes);
        masks[2][i] = if (i % 2 == 0) i / 2 else ~@as(i32, i / 2);
        masks[3][i] = if (i % 2 == 0) lanes / 2 + i / 2 else ~@as(i32, lanes / 2 + i / 2);
    }
    break :blk masks;
};

fn turnInterleaved(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), t: Angles) void {
    var i: usize = 0;
    while (i + lanes <= t.half) : (i += lanes) {
        const first = x.load(2 * i);
        const second = x.load(2 * i + lanes);
        const a = @shuffle(f32, first, second, even_odd[0]);
        const b = @shuffle(f32, first, second, even_odd[1]);
        const y = turn(a, b, simd.load(t.cos + i), simd.load(t.sin + i));
        out.store(2 * i, @shuffle(f32, y[0], y[1], even_odd[2]));
        out.store(2 * i + lanes, @shuffle(f32, y[0], y[1], even_odd[3]));
    }
    while (i < t.half) : (i += 1) {
        const y = turn(x.at(2 * i).*, x.at(2 * i + 1).*, t.cos[i], t.sin[i]);
        out.at(2 * i).* = y[0];
        out.at(2 * i + 1).* = y[1];
    }
}

fn turnRow(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), n: usize, t: Angles) void {
    if (t.interleaved) turnInterleaved(dense, x, out, t) else turnHalves(dense, x, out, t);
    if (x.p == out.p) return;
    for (2 * t.half..n) |i| out.at(i).* = x.at(i).*;
}

fn turnHead(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), n: usize, scaling: ?norm.Scaling, t: Angles) void {
    if (scaling) |s| {
        norm.rmsnormRow(x, out, n, s);
        turnRow(dense, out, out, n, t);
    } else turnRow(dense, x, out, n, t);
}

/// Each share computes the angles of its own tokens once, for all their heads.
fn turnTokens(ctx: *Context, cmd: *const abi.Command, rotation: *const Rotation, scaling: ?norm.Scaling) void {
    const x = &cmd.inputs[0];
    const out = &cmd.outputs[0];
    const heads = views.dim(x, 1);
    const n = views.dim(x, 2);
    const bytes = Rotation.bytes(rotation.half);
    std.debug.assert(ctx.scratch.len >= ctx.threads * bytes);
    const buffer: [*]f32 = @ptrCast(@alignCast(ctx.scratch.ptr + ctx.thread * bytes));
    const dense = (n == 1 or (x.strides[2] == 1 and out.strides[2] == 1));
    const share = ctx.range(views.dim(x, 0), views.rowGrain(heads * n));
    for (share.start..share.end) |t| {
        const angles = rotation.angles(t, buffer);
        for (0..heads) |h| {
            const from: [*]f32 = @ptrFromInt(views.addressOf(x, &.{ t, h }));
            const to: [*]f32 = @ptrFromInt(views.addressOf(out, &.{ t, h }));
            if (dense) {
                turnHead(true, .{ .p = from, .stride = 1 }, .{ .p = to, .stride = 1 }, n, scaling, angles);
            } else {
                const source: views.Cursor(false) = .{ .p = from, .stride = @intCast(x.strides[2]) };
                turnHead(false, source, .{ .p = to, .stride = @intCast(out.strides[2]) }, n, scaling, angles);
            }
        }
    }
}

pub fn rope_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    return threads * Rotation.bytes(views.count(&cmd.inputs[1]));
}

/// inputs: x [tokens, heads, head_dim], inv_freq, positions (optional); ints: position, interleaved; floats: scale.
pub fn rope(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    turnTokens(ctx, cmd, &.init(cmd, 1, cmd.floats[0]), null);
}

pub fn rmsnorm_rope_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    return threads * Rotation.bytes(views.count(&cmd.inputs[2]));
}

/// inputs: x [tokens, heads, head_dim], weight, inv_freq, positions (optional); ints: position, interleaved; floats: eps,
/// offset, scale.
pub fn rmsnorm_rope(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    turnTokens(ctx, cmd, &.init(cmd, 2, cmd.floats[2]), .init(cmd, 1));
}

/// Scalar oracle of one head.
pub fn ropeScalar(x: []const f32, inv_freq: []const f32, position: f64, interleaved: bool, scale: f32, out: []f64) void {
    const half = inv_freq.len;
    for (x, out) |v, *y| y.* = v;
    for (inv_freq, 0..) |frequency, i| {
        const angle = position * frequency;
        const first = if (interleaved) 2 * i else i;
        const second = if (interleaved) 2 * i + 1 else i + half;
        out[first] = (x[first] * @cos(angle) - x[second] * @sin(angle)) * scale;
        out[second] = (x[second] * @cos(angle) + x[first] * @sin(angle)) * scale;
    }
}
