//! Normalisations along the last dim: rmsnorm, rmsnorm_residual, layernorm, l2norm.
//!
//! Sums run in f32 over 4 x lanes partial sums in a fixed order; mean, root and quotient of a row are f64 scalars.

const abi = @import("abi");
const Context = @import("context").Context;
const quantize = @import("quantize.zig");
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

pub const Scaling = struct {
    weight: [*]const f32,
    eps: f32,
    offset: f32,

    /// `input` is the weight; floats: eps, offset.
    pub fn init(cmd: *const abi.Command, input: usize) Scaling {
        return .{ .weight = vector(&cmd.inputs[input]), .eps = cmd.floats[0], .offset = cmd.floats[1] };
    }
};

/// 1 / rms(x) of a row.
inline fn inverseRms(x: anytype, n: usize, eps: f32) F {
    const sum: f64 = views.sumRow(x, n, 0, {}, square);
    return simd.splat(@floatCast(1 / @sqrt(sum / @as(f64, @floatFromInt(n)) + eps)));
}

/// x / rms(x) * (weight + offset), of one row; in place when x and out are the same row.
pub fn rmsnormRow(x: anytype, out: @TypeOf(x), n: usize, s: Scaling) void {
    const inverse = inverseRms(x, n, s.eps);
    const offset = simd.splat(s.offset);
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) out.store(i, x.load(i) * inverse * (simd.load(s.weight + i) + offset));
    if (i < n) {
        const w = simd.loadPart(s.weight + i, n - i, 0) + offset;
        out.storePart(i, n - i, x.loadPart(i, n - i, 0) * inverse * w);
    }
}

/// The same values, quantised: 32 at a time, so that the row is never written as f32.
fn rmsnormQuantized(x: anytype, out: quantize.Writer, n: usize, s: Scaling) void {
    const inverse = inverseRms(x, n, s.eps);
    const offset = simd.splat(s.offset);
    for (0..n / 32) |b| {
        var values: [32]f32 = undefined;
        inline for (0..32 / lanes) |v| {
            const i = b * 32 + v * lanes;
            simd.store(values[v * lanes ..].ptr, x.load(i) * inverse * (simd.load(s.weight + i) + offset));
        }
        out.block(b, &values);
    }
}

/// The norms of rows, in the dtype of the output.
const NormRows = struct {
    desc: *const abi.TensorDesc,
    rows: Rows,
    scaling: Scaling,

    fn init(cmd: *const abi.Command, output: usize, weight: usize) NormRows {
        const desc = &cmd.outputs[output];
        return .{ .desc = desc, .rows = .init(desc, 1), .scaling = .init(cmd, weight) };
    }

    fn quantized(self: *const NormRows) bool {
        return quantize.isWanted(self.desc);
    }

    /// Whether rows can be written as vectors.
    fn dense(self: *const NormRows) bool {
        return self.quantized() or self.rows.stride == 1;
    }

    fn put(self: *const NormRows, comptime is_dense: bool, r: usize, x: views.Cursor(is_dense), n: usize) void {
        if (self.quantized()) return rmsnormQuantized(x, .row(self.desc, r, n), n, self.scaling);
        rmsnormRow(x, self.rows.cursor(is_dense, r), n, self.scaling);
    }
};

/// inputs: x, weight; output: f32 or q8a; floats: eps, offset.
pub fn rmsnorm(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const x: Rows = .init(&cmd.inputs[0], 1);
    const out: NormRows = .init(cmd, 0, 1);
    const share = ctx.range(x.count, views.rowGrain(x.n));
    for (share.start..share.end) |r| {
        if (x.stride == 1 and out.dense()) out.put(true, r, x.cursor(true, r), x.n) else out.put(false, r, x.cursor(false, r), x.n);
    }
}

fn addRow(comptime dense: bool, x: views.Cursor(dense), y: views.Cursor(dense), sum: views.Cursor(dense), n: usize) void {
    var i: usize = 0;
    while (i + lanes <= n) : (i += lanes) sum.store(i, x.load(i) + y.load(i));
    if (i < n) sum.storePart(i, n - i, x.loadPart(i, n - i, 0) + y.loadPart(i, n - i, 0));
}

/// inputs: x, residual, weight; outputs: sum f32, out f32 or q8a; floats: eps, offset. Each row is added, then normalised
/// while it is in L1.
pub fn rmsnorm_residual(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const rows = [3]Rows{ .init(&cmd.inputs[0], 1), .init(&cmd.inputs[1], 1), .init(&cmd.outputs[0], 1) };
    const out: NormRows = .init(cmd, 1, 2);
    var dense = out.dense();
    for (rows) |r| dense = dense and r.stride == 1;
    const n = rows[0].n;
    const share = ctx.range(rows[0].count, views.rowGrain(n));
    for (share.start..share.end) |r| {
        if (dense) {
            addRow(true, rows[0].cursor(true, r), rows[1].cursor(true, r), rows[2].cursor(true, r), n);
            out.put(true, r, rows[2].cursor(true, r), n);
        } else {
            addRow(false, rows[0].cursor(false, r), rows[1].cursor(false, r), rows[2].cursor(false, r), n);
            out.put(false, r, rows[2].cursor(false, r), n);
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
