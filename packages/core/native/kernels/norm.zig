//! Normalisations along the last dim: rmsnorm, rmsnorm_residual, layernorm, l2norm.
//!
//! Sums run in f32 over 4 x lanes partial sums in a fixed order; mean, root and quotient of a row are f64 scalars.

const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");

const F = simd.F;
const lanes = simd.lanes;
const Rows = views.Rows;

inline fn square(_: void, x: F) F {
    return x * x;
}

inline fn identity(_: void, x: F) F {
    return x;
}

inline fn centredSquare(mean: F, x: F) F {
    const d = x - mean;
    return d * d;
}

fn vector(desc: *const abi.TensorDesc) [*]const f32 {
    return @ptrFromInt(@as(usize, @intCast(desc.data)));
}

const Scaling = struct { weight: [*]const f32, eps: f32, offset: f32 };

/// out = x / rms(x) * (weight + offset), of one row; in place when x and out are the same row.
fn rmsnormRow(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), n: usize, s: Scaling) void {
    const sum: f64 = views.sumRow(x, n, 0, {}, square);
    const inverse = simd.splat(@floatCast(1 / @sqrt(sum / @as(f64, @floatFromInt(n)) + s.eps)));
    const offset = simd.splat(s.offset);
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) out.store(i, x.load(i) * inverse * (simd.load(s.weight + i) + offset));
    if (i < n) {
        const w = simd.loadPart(s.weight + i, n - i, 0) + offset;
        out.storePart(i, n - i, x.loadPart(i, n - i, 0) * inverse * w);
    }
}

/// inputs: x, weight; floats: eps, offset.
pub fn rmsnorm(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: Rows = .init(&cmd.outputs[0], 1);
    const scaling: Scaling = .{ .weight = vector(&cmd.inputs[1]), .eps = cmd.floats[0], .offset = cmd.floats[1] };
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        if (x.stride == 1 and out.stride == 1) {
            rmsnormRow(true, x.cursor(true, r), out.cursor(true, r), x.n, scaling);
        } else {
            rmsnormRow(false, x.cursor(false, r), out.cursor(false, r), x.n, scaling);
        }
    }
}

fn addRow(comptime dense: bool, x: views.Cursor(dense), y: views.Cursor(dense), sum: views.Cursor(dense), n: usize) void {
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) sum.store(i, x.load(i) + y.load(i));
    if (i < n) sum.storePart(i, n - i, x.loadPart(i, n - i, 0) + y.loadPart(i, n - i, 0));
}

/// inputs: x, residual, weight; outputs: sum, out; floats: eps, offset. Each row is added, then normalised while it is in L1.
pub fn rmsnorm_residual(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const rows = [4]Rows{ .init(&cmd.inputs[0], 1), .init(&cmd.inputs[1], 1), .init(&cmd.outputs[0], 1), .init(&cmd.outputs[1], 1) };
    var dense = true;
    for (rows) |r| dense = dense and r.stride == 1;
    const scaling: Scaling = .{ .weight = vector(&cmd.inputs[2]), .eps = cmd.floats[0], .offset = cmd.floats[1] };
    const n = rows[0].n;
    const share = ctx.range(rows[0].count, views.rowGrain(n));
    for (share.start..share.end) |r| {
        if (dense) {
            addRow(true, rows[0].cursor(true, r), rows[1].cursor(true, r), rows[2].cursor(true, r), n);
            rmsnormRow(true, rows[2].cursor(true, r), rows[3].cursor(true, r), n, scaling);
        } else {
            addRow(false, rows[0].cursor(false, r), rows[1].cursor(false, r), rows[2].cursor(false, r), n);
            rmsnormRow(false, rows[2].cursor(false, r), rows[3].cursor(false, r), n, scaling);
        }
    }
}

const Affine = struct { weight: [*]const f32, bias: ?[*]const f32, eps: f32 };

fn layernormRow(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), n: usize, a: Affine) void {
    const length: f64 = @floatFromInt(n);
    const mean: f32 = @floatCast(views.sumRow(x, n, 0, {}, identity) / length);
    const variance = views.sumRow(x, n, mean, simd.splat(mean), centredSquare) / length;
    const inverse = simd.splat(@floatCast(1 / @sqrt(variance + a.eps)));
    var i: usize = 0;
    while (i < n) {
        const part = @min(lanes, n - i);
        const whole = part == lanes;
        const v = if (whole) x.load(i) else x.loadPart(i, part, 0);
        const w = if (whole) simd.load(a.weight + i) else simd.loadPart(a.weight + i, part, 0);
        var y = (v - simd.splat(mean)) * inverse * w;
        if (a.bias) |bias| y += if (whole) simd.load(bias + i) else simd.loadPart(bias + i, part, 0);
        if (whole) out.store(i, y) else out.storePart(i, part, y);
        i += part;
    }
}

/// inputs: x, weight, bias (optional); floats: eps.
pub fn layernorm(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: Rows = .init(&cmd.outputs[0], 1);
    const affine: Affine = .{
        .weight = vector(&cmd.inputs[1]),
        .bias = if (cmd.given(2)) vector(&cmd.inputs[2]) else null,
        .eps = cmd.floats[0],
    };
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        if (x.stride == 1 and out.stride == 1) {
            layernormRow(true, x.cursor(true, r), out.cursor(true, r), x.n, affine);
        } else {
            layernormRow(false, x.cursor(false, r), out.cursor(false, r), x.n, affine);
        }
    }
}

fn l2normRow(comptime dense: bool, x: views.Cursor(dense), out: views.Cursor(dense), n: usize, eps: f32) void {
    const norm = @sqrt(@as(f64, views.sumRow(x, n, 0, {}, square)));
    // Not @max: a NaN norm has to stay NaN.
    const inverse = simd.splat(@floatCast(1 / if (norm < eps) eps else norm));
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) out.store(i, x.load(i) * inverse);
    if (i < n) out.storePart(i, n - i, x.loadPart(i, n - i, 0) * inverse);
}

/// inputs: x; floats: eps.
pub fn l2norm(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: Rows = .init(&cmd.outputs[0], 1);
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        if (x.stride == 1 and out.stride == 1) {
            l2normRow(true, x.cursor(true, r), out.cursor(true, r), x.n, cmd.floats[0]);
        } else {
            l2normRow(false, x.cursor(false, r), out.cursor(false, r), x.n, cmd.floats[0]);
        }
    }
}

/// Scalar oracles of one row in f64.
pub const scalar = struct {
    pub fn rmsnorm(x: []const f32, weight: []const f32, eps: f32, offset: f32, out: []f64) void {
        var sum: f64 = 0;
        for (x) |v| sum += @as(f64, v) * v;
        const rms = @sqrt(sum / @as(f64, @floatFromInt(x.len)) + eps);
        for (x, weight, out) |v, w, *y| y.* = @as(f64, v) / rms * (@as(f64, w) + offset);
    }

    pub fn layernorm(x: []const f32, weight: []const f32, bias: ?[]const f32, eps: f32, out: []f64) void {
        const n: f64 = @floatFromInt(x.len);
        var sum: f64 = 0;
        for (x) |v| sum += v;
        const mean = sum / n;
        var squares: f64 = 0;
        for (x) |v| squares += (v - mean) * (v - mean);
        const deviation = @sqrt(squares / n + eps);
        for (x, weight, out, 0..) |v, w, *y, i| y.* = (v - mean) / deviation * w + if (bias) |b| b[i] else 0;
    }

    pub fn l2norm(x: []const f32, eps: f32, out: []f64) void {
        var sum: f64 = 0;
        for (x) |v| sum += @as(f64, v) * v;
        for (x, out) |v, *y| y.* = v / if (@sqrt(sum) < eps) eps else @sqrt(sum);
    }
};
