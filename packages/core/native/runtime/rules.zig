//! How the operands of each op fit each other: dtypes and shapes, as ops.zig words them.

const std = @import("std");
const abi = @import("abi");
const ops = @import("ops");
const check_command = @import("check.zig");
const Checker = check_command.Checker;
const Error = check_command.Error;
const show = check_command.show;
const LastError = @import("errors.zig").LastError;
const Desc = abi.TensorDesc;

/// Op ids by name, for switches.
pub const OpId = blk: {
    var names: [ops.table.len][]const u8 = undefined;
    var values: [ops.table.len]u32 = undefined;
    for (ops.table, &names, &values) |op, *name, *value| {
        name.* = op.name;
        value.* = op.id;
    }
    break :blk @Enum(u32, .exhaustive, &names, &values);
};

/// Checks shapes and dtypes of a command whose operands are well formed.
pub fn check(c: Checker) Error!void {
    const op: OpId = @enumFromInt(c.cmd.op);
    switch (op) {
        .copy => try copy(c),
        .add, .mul => try broadcast(c),
        .mul_const, .silu, .gelu_tanh, .gelu_erf, .quick_gelu, .sigmoid, .relu, .relu2, .tanh, .softplus, .exp => try rowwise(c),
        .softcap, .l2norm, .softmax, .log_softmax => try rowwise(c),
        .causal_softmax => {
            try rowwise(c);
            if (c.input(0).rank < 2) return c.fail("x is {f}, not [..., queries, keys]", .{show(c.input(0))});
        },
        .swiglu, .geglu_tanh => {
            try rowwise(c);
            try like(c, "up", c.input(1), c.input(0));
        },
        .rmsnorm => {
            try rowwise(c);
            try vector(c, "weight", c.input(1), lastDim(c.input(0)));
        },
        .rmsnorm_residual => {
            try rowwise(c);
            try like(c, "residual", c.input(1), c.input(0));
            try like(c, "out", c.output(1), c.input(0));
            try vector(c, "weight", c.input(2), lastDim(c.input(0)));
        },
        .layernorm => {
            try rowwise(c);
            try vector(c, "weight", c.input(1), lastDim(c.input(0)));
            if (c.given(2)) try vector(c, "bias", c.input(2), lastDim(c.input(0)));
        },
        .cross_entropy => {
            try shaped(c, "x", c.input(0), .f32, 2);
            try column(c, "target", c.input(1), .i32);
            try column(c, "out", c.output(0), .f32);
        },
        .argmax => {
            try shaped(c, "x", c.input(0), .f32, 2);
            try column(c, "out", c.output(0), .i32);
        },
        .topk => try topk(c),
        .embedding => try embedding(c),
        .take_rows => try takeRows(c),
        .rope => try rope(c),
        .quantize_rows => try quantizeRows(c),
        .pack_weight => try packWeight(c),
        .linear => try linear(c),
        .matmul => try matmul(c),
        .kv_append => try kvAppend(c),
        .attention => try attention(c),
    }
}

fn lastDim(desc: *const Desc) i64 {
    return desc.shape[desc.rank - 1];
}

fn dtypeOf(desc: *const Desc) abi.Dtype {
    return @enumFromInt(desc.dtype);
}

fn isFloat(dtype: abi.Dtype) bool {
    return dtype == .f32 or dtype == .f16 or dtype == .bf16;
}

/// Weights as a file has them: floats or blocks.
fn isWeight(dtype: abi.Dtype) bool {
    return isFloat(dtype) or (if (abi.blockInfo(dtype)) |info| info.elements > 1 else false);
}

fn sameDim(a: *const Desc, i: usize, b: *const Desc, j: usize) bool {
    return a.shape[i] == b.shape[j] and (a.symbolic_dims >> @intCast(i) & 1) == (b.symbolic_dims >> @intCast(j) & 1);
}

fn sameShape(a: *const Desc, b: *const Desc) bool {
    if (a.rank != b.rank) return false;
    for (0..a.rank) |i| if (!sameDim(a, i, b, i)) return false;
    return true;
}

fn strided(c: Checker, name: []const u8, desc: *const Desc, dtype: abi.Dtype) Error!void {
    if (dtypeOf(desc) != dtype or desc.layout != 0) {
        return c.unsupported("{s} is {f}; only {s} works here", .{ name, show(desc), @tagName(dtype) });
    }
}

fn shaped(c: Checker, name: []const u8, desc: *const Desc, dtype: abi.Dtype, rank: u32) Error!void {
    try strided(c, name, desc, dtype);
    if (desc.rank != rank) return c.fail("{s} is {f}, not of rank {d}", .{ name, show(desc), rank });
}

fn like(c: Checker, name: []const u8, desc: *const Desc, other: *const Desc) Error!void {
    try strided(c, name, desc, dtypeOf(other));
    if (!sameShape(desc, other)) return c.fail("{s} is {f}, not {f}", .{ name, show(desc), show(other) });
}

/// f32 in, the same shape out.
fn rowwise(c: Checker) Error!void {
    try strided(c, c.op.inputs[0].name, c.input(0), .f32);
    try like(c, c.op.outputs[0].name, c.output(0), c.input(0));
}

fn vector(c: Checker, name: []const u8, desc: *const Desc, n: i64) Error!void {
    try shaped(c, name, desc, .f32, 1);
    if (desc.shape[0] != n) return c.fail("{s} is {f}, not [{d}]", .{ name, show(desc), n });
}

/// One value per row of input 0.
fn column(c: Checker, name: []const u8, desc: *const Desc, dtype: abi.Dtype) Error!void {
    try shaped(c, name, desc, dtype, 1);
    if (!sameDim(desc, 0, c.input(0), 0)) {
        return c.fail("{s} is {f}, one per row of {f} is needed", .{ name, show(desc), show(c.input(0)) });
    }
}

fn copy(c: Checker) Error!void {
    const x = c.input(0);
    const out = c.output(0);
    if (!sameShape(x, out)) return c.fail("out is {f}, x is {f}", .{ show(out), show(x) });
    const from = dtypeOf(x);
    const to = dtypeOf(out);
    const elements = x.layout == 0 and (if (abi.blockInfo(from)) |info| info.elements == 1 else false);
    const known = if (elements) from == to or (isFloat(from) and isFloat(to)) else to == .f32;
    if (!known or out.layout != 0) return c.unsupported("no conversion from {f} to {f}", .{ show(x), show(out) });
}

fn broadcast(c: Checker) Error!void {
    try rowwise(c);
    const a = c.input(0);
    const b = c.input(1);
    try strided(c, "b", b, .f32);
    var fits = b.rank <= a.rank;
    if (fits) for (0..b.rank) |i| {
        if (!sameDim(b, i, a, a.rank - b.rank + i)) fits = false;
    };
    if (!fits) return c.fail("b is {f}, neither {f} nor its trailing dims", .{ show(b), show(a) });
}

fn topk(c: Checker) Error!void {
    const x = c.input(0);
    const values = c.output(0);
    try shaped(c, "x", x, .f32, 2);
    try shaped(c, "values", values, .f32, 2);
    try shaped(c, "indices", c.output(1), .i32, 2);
    if (!sameDim(values, 0, x, 0) or values.shape[1] > x.shape[1] or !sameShape(values, c.output(1))) {
        return c.fail("values are {f} and indices {f} for x {f}", .{ show(values), show(c.output(1)), show(x) });
    }
}

fn embedding(c: Checker) Error!void {
    const table = c.input(1);
    const out = c.output(0);
    try shaped(c, "ids", c.input(0), .i32, 1);
    try shaped(c, "out", out, .f32, 2);
    if (table.rank != 2 or (table.layout == 0 and !isWeight(dtypeOf(table)))) {
        return c.unsupported("table is {f}, not weights [n, k]", .{show(table)});
    }
    if (!sameDim(out, 0, c.input(0), 0) or out.shape[1] != table.shape[1]) {
        return c.fail("out is {f} for ids {f} and table {f}", .{ show(out), show(c.input(0)), show(table) });
    }
}

fn takeRows(c: Checker) Error!void {
    const x = c.input(0);
    const out = c.output(0);
    try shaped(c, "x", x, .f32, 2);
    try shaped(c, "out", out, .f32, 2);
    if (out.shape[1] != x.shape[1] or out.shape[0] > x.shape[0]) return c.fail("out is {f} for x {f}", .{ show(out), show(x) });
}

fn rope(c: Checker) Error!void {
    const x = c.input(0);
    const inv_freq = c.input(1);
    try shaped(c, "x", x, .f32, 3);
    try like(c, "out", c.output(0), x);
    try shaped(c, "inv_freq", inv_freq, .f32, 1);
    if (inv_freq.shape[0] * 2 > x.shape[2]) return c.fail("inv_freq is {f}: more pairs than x {f} has", .{ show(inv_freq), show(x) });
    if (c.given(2)) try column(c, "positions", c.input(2), .i32);
}

fn quantizeRows(c: Checker) Error!void {
    const x = c.input(0);
    try shaped(c, "x", x, .f32, 2);
    if (@mod(x.shape[1], 32) != 0) return c.unsupported("x is {f}: rows of blocks of 32 are needed", .{show(x)});
    try shaped(c, "out", c.output(0), .q8a, 2);
    if (!sameShape(c.output(0), x)) return c.fail("out is {f} for x {f}", .{ show(c.output(0)), show(x) });
}

fn packWeight(c: Checker) Error!void {
    const w = c.input(0);
    const out = c.output(0);
    if (w.rank != 2 or w.layout != 0 or !isWeight(dtypeOf(w))) return c.unsupported("w is {f}, not weights [n, k]", .{show(w)});
    if (out.layout == 0 or !sameShape(out, w)) return c.fail("out is {f} for w {f}", .{ show(out), show(w) });
}

fn linear(c: Checker) Error!void {
    const x = c.input(0);
    const w = c.input(1);
    const out = c.output(0);
    if (dtypeOf(x) != .f32 and dtypeOf(x) != .q8a or x.layout != 0) return c.unsupported("x is {f}, not f32 or q8a", .{show(x)});
    if (x.rank != 2) return c.fail("x is {f}, not [rows, k]", .{show(x)});
    if (w.layout == 0 or w.rank != 2) return c.unsupported("w is {f}, not packed: pack_weight makes it so", .{show(w)});
    if (dtypeOf(x) == .q8a and isFloat(dtypeOf(w))) {
        return c.unsupported("x is {f}: q8a rows need quantised weights, w is {f}", .{ show(x), show(w) });
    }
    try shaped(c, "out", out, .f32, 2);
    if (x.shape[1] != w.shape[1] or out.shape[1] != w.shape[0] or !sameDim(out, 0, x, 0)) {
        return c.fail("out is {f} for x {f} and w {f}", .{ show(out), show(x), show(w) });
    }
    if (c.given(2)) try vector(c, "bias", c.input(2), w.shape[0]);
}

fn matmul(c: Checker) Error!void {
    const a = c.input(0);
    const b = c.input(1);
    const out = c.output(0);
    try strided(c, "a", a, .f32);
    try strided(c, "b", b, .f32);
    try strided(c, "out", out, .f32);
    var fits = a.rank >= 2 and a.rank == b.rank and a.rank == out.rank;
    if (fits) {
        const r = a.rank;
        for (0..r - 2) |i| fits = fits and sameDim(a, i, b, i) and sameDim(a, i, out, i);
        fits = fits and sameDim(a, r - 1, b, r - 2) and sameDim(a, r - 2, out, r - 2) and sameDim(b, r - 1, out, r - 1);
    }
    if (!fits) return c.fail("out is {f} for a {f} and b {f}", .{ show(out), show(a), show(b) });
}

fn cache(c: Checker, name: []const u8, desc: *const Desc) Error!void {
    if (desc.rank != 4 or desc.layout != 0 or (dtypeOf(desc) != .f32 and dtypeOf(desc) != .f16)) {
        return c.unsupported("{s} is {f}, not f32 or f16 [pages, kv_heads, page_size, head_dim]", .{ name, show(desc) });
    }
}

fn kvAppend(c: Checker) Error!void {
    const x = c.input(0);
    const out = c.output(0);
    try shaped(c, "x", x, .f32, 3);
    try shaped(c, "pages", c.input(1), .i32, 1);
    try cache(c, "cache", out);
    if (x.shape[1] != out.shape[1] or x.shape[2] != out.shape[3]) return c.fail("cache is {f} for x {f}", .{ show(out), show(x) });
}

fn attention(c: Checker) Error!void {
    const q = c.input(0);
    const keys = c.input(1);
    try shaped(c, "q", q, .f32, 3);
    try like(c, "out", c.output(0), q);
    try cache(c, "k_cache", keys);
    try like(c, "v_cache", c.input(2), keys);
    try shaped(c, "pages", c.input(3), .i32, 1);
    if (@mod(q.shape[1], keys.shape[1]) != 0 or q.shape[2] != keys.shape[3]) {
        return c.fail("q is {f} for k_cache {f}", .{ show(q), show(keys) });
    }
}

/// What depends on the values of a run: positions within the cache, rows within x. `last` gets the text of a failure.
pub fn checkValues(cmd: *const abi.Command, last: *LastError) Error!void {
    const op: OpId = @enumFromInt(cmd.op);
    switch (op) {
        .take_rows => if (cmd.ints[0] < 0 or cmd.ints[0] > cmd.inputs[0].shape[0] - cmd.outputs[0].shape[0]) {
            last.set("take_rows: {d} rows from row {d} on are not all in x {f}", .{
                cmd.outputs[0].shape[0], cmd.ints[0], show(&cmd.inputs[0]),
            });
            return error.Invalid;
        },
        .kv_append => try checkCapacity(cmd, &cmd.inputs[1], &cmd.outputs[0], last),
        .attention => try checkCapacity(cmd, &cmd.inputs[3], &cmd.inputs[1], last),
        else => {},
    }
}

/// Whether `checkValues` looks at this command at all.
pub fn hasValueCheck(cmd: *const abi.Command) bool {
    const op: OpId = @enumFromInt(cmd.op);
    return switch (op) {
        .take_rows, .kv_append, .attention => true,
        else => false,
    };
}

fn checkCapacity(cmd: *const abi.Command, pages: *const Desc, rows: *const Desc, last: *LastError) Error!void {
    const capacity = std.math.mul(i64, pages.shape[0], rows.shape[2]) catch std.math.maxInt(i64);
    const tokens = cmd.inputs[0].shape[0];
    if (cmd.ints[0] >= 0 and cmd.ints[0] <= capacity - tokens) return;
    last.set("{s}: {d} tokens at position {d} do not fit a cache of {d}", .{ ops.table[cmd.op - 1].name, tokens, cmd.ints[0], capacity });
    return error.Invalid;
}
