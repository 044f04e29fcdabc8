//! Element-wise kernels: the generic row walk for one or two inputs, and add, mul, mul_const.

const abi = @import("abi");
const Context = @import("context").Context;
const quantize = @import("quantize.zig");
const simd = @import("simd.zig");
const views = @import("views.zig");

const F = simd.F;
const lanes = simd.lanes;

/// Applies `op.eval(x)` (one input) or `op.eval(a, b)` (two) to each element. The second input may have the shape of the
/// trailing dims of the first. Each element's bits depend on its own inputs only, so any split over threads is fine.
pub fn map(ctx: *Context, cmd: *const abi.Command, comptime inputs: usize, op: anytype) void {
    if (inputs == 2 and quantize.isWanted(&cmd.outputs[0])) return mapQuantized(ctx, cmd, op);
    const descs = [3]*const abi.TensorDesc{ &cmd.inputs[0], if (inputs == 2) &cmd.inputs[1] else &cmd.inputs[0], &cmd.outputs[0] };
    const flat = views.sameShape(descs[0], descs[1]) and
        descs[0].isDense() and descs[1].isDense() and descs[2].isDense();
    if (flat) {
        const share = ctx.range(views.count(descs[2]), 4096);
        var at: [3]views.Cursor(true) = undefined;
        for (&at, descs) |*c, d| c.* = .{ .p = @ptrFromInt(@as(usize, @intCast(d.data)) + share.start * 4), .stride = 1 };
        return mapRow(true, inputs, op, at[0], at[1], at[2], share.end - share.start);
    }
    const rows = [3]views.Rows{ .init(descs[0], 1), .init(descs[1], 1), .init(descs[2], 1) };
    const dense = rows[0].stride == 1 and rows[1].stride == 1 and rows[2].stride == 1;
    const share = ctx.range(rows[2].count, views.rowGrain(rows[2].n));
    for (share.start..share.end) |r| {
        const second = r % rows[1].count;
        if (dense) {
            mapRow(true, inputs, op, rows[0].cursor(true, r), rows[1].cursor(true, second), rows[2].cursor(true, r), rows[2].n);
        } else {
            mapRow(false, inputs, op, rows[0].cursor(false, r), rows[1].cursor(false, second), rows[2].cursor(false, r), rows[2].n);
        }
    }
}

/// `map` of two inputs of one shape [rows, n] whose results are quantised, 32 at a time.
fn mapQuantized(ctx: *Context, cmd: *const abi.Command, op: anytype) void {
    const a: views.Rows = .init(&cmd.inputs[0], 1);
    const b: views.Rows = .init(&cmd.inputs[1], 1);
    const dense = a.stride == 1 and b.stride == 1;
    const blocks = a.n / 32;
    const share = ctx.range(a.count * blocks, 64);
    for (share.start..share.end) |i| {
        const r = i / blocks;
        const out: quantize.Writer = .row(&cmd.outputs[0], r, a.n);
        if (dense) {
            mapBlock(op, a.cursor(true, r), b.cursor(true, r), out, i % blocks);
        } else mapBlock(op, a.cursor(false, r), b.cursor(false, r), out, i % blocks);
    }
}

inline fn mapBlock(op: anytype, a: anytype, b: @TypeOf(a), out: quantize.Writer, block: usize) void {
    var values: [32]f32 = undefined;
    inline for (0..32 / lanes) |v| {
        const i = block * 32 + v * lanes;
        simd.store(values[v * lanes ..].ptr, op.eval(a.load(i), b.load(i)));
    }
    out.block(block, &values);
}

fn mapRow(
    comptime dense: bool,
    comptime inputs: usize,
    op: anytype,
    a: views.Cursor(dense),
    b: views.Cursor(dense),
    out: views.Cursor(dense),
    n: usize,
) void {
    var i: usize = 0;
    while (i + 2 * lanes <= n) : (i += 2 * lanes) {
        const first = apply(inputs, op, a.load(i), if (inputs == 2) b.load(i) else undefined);
        const second = apply(inputs, op, a.load(i + lanes), if (inputs == 2) b.load(i + lanes) else undefined);
        out.store(i, first);
        out.store(i + lanes, second);
    }
    while (i < n) {
        const length = @min(lanes, n - i);
        const x = a.loadPart(i, length, 0);
        out.storePart(i, length, apply(inputs, op, x, if (inputs == 2) b.loadPart(i, length, 0) else undefined));
        i += length;
    }
}

inline fn apply(comptime inputs: usize, op: anytype, a: F, b: F) F {
    return if (inputs == 2) op.eval(a, b) else op.eval(a);
}

/// a + b as `add` and `rmsnorm_residual` compute it.
pub const Add = struct {
    pub inline fn eval(_: Add, a: F, b: F) F {
        return a + b;
    }
};

const Mul = struct {
    pub inline fn eval(_: Mul, a: F, b: F) F {
        return a * b;
    }
};

const Scale = struct {
    value: f32,
    pub inline fn eval(self: Scale, x: F) F {
        return x * simd.splat(self.value);
    }
};

/// out = a + b; b may have the trailing dims of a.
pub fn add(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    map(ctx, cmd, 2, Add{});
}

/// out = a * b; b may have the trailing dims of a.
pub fn mul(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    map(ctx, cmd, 2, Mul{});
}

/// out = x * floats[0].
pub fn mul_const(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    map(ctx, cmd, 1, Scale{ .value = cmd.floats[0] });
}

/// Scalar oracle of the binary ops over contiguous operands; `b` repeats along the leading dims.
pub fn binaryScalar(comptime f: fn (f64, f64) f64, a: []const f32, b: []const f32, out: []f64) void {
    for (a, out, 0..) |x, *y, i| y.* = f(x, b[i % b.len]);
}
