//! How the operands of each op fit each other: the forms of the op table, the rules of single ops that a table can't say,
//! and what depends on the values of a run.

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

/// A form of the op table, ready to match.
const Pattern = struct {
    form: ops.Form,
    /// Strided dtypes, by id.
    strided: u128,
    /// Other layouts, by id.
    layouts: u8,
    /// Per named dim: its number among the names of the op.
    dims: [abi.max_rank]u8,
};

const names_max = 8;
const Patterns = struct { inputs: [abi.max_inputs]Pattern, outputs: [abi.max_outputs]Pattern };

const patterns: [ops.table.len]Patterns = blk: {
    @setEvalBranchQuota(1_000_000);
    var list: [ops.table.len]Patterns = undefined;
    for (ops.table, &list) |op, *entry| {
        var names: []const []const u8 = &.{};
        for (op.inputs, 0..) |operand, i| entry.inputs[i] = patternOf(ops.parse(operand.form), &names);
        for (op.outputs, 0..) |operand, i| entry.outputs[i] = patternOf(ops.parse(operand.form), &names);
        if (names.len > names_max) @compileError("too many names of dims: " ++ op.name);
    }
    break :blk list;
};

fn patternOf(comptime form: ops.Form, comptime names: *[]const []const u8) Pattern {
    var pattern: Pattern = .{ .form = form, .strided = 0, .layouts = 0, .dims = @splat(0) };
    for (form.dtypes.slice()) |class| {
        if (layoutOf(class)) |layout| {
            pattern.layouts |= 1 << @intFromEnum(layout);
        } else for (std.enums.values(abi.Dtype)) |dtype| {
            if (isOf(class, dtype)) pattern.strided |= 1 << @intFromEnum(dtype);
        }
    }
    for (form.dims.slice(), 0..) |dim, i| {
        pattern.dims[i] = for (names.*, 0..) |known, n| {
            if (std.mem.eql(u8, known, dim)) break n;
        } else names.len;
        if (pattern.dims[i] == names.len) names.* = names.* ++ .{dim};
    }
    return pattern;
}

/// The layout that a class names.
fn layoutOf(comptime class: []const u8) ?abi.Layout {
    if (std.mem.eql(u8, class, "packed")) return .panel16;
    if (std.mem.eql(u8, class, "keys")) return .kv_keys;
    return if (std.mem.eql(u8, class, "values")) .kv_values else null;
}

fn isOf(comptime class: []const u8, comptime dtype: abi.Dtype) bool {
    if (std.mem.eql(u8, class, "float")) return abi.isFloat(dtype);
    if (std.mem.eql(u8, class, "weights")) return abi.isFloat(dtype) or if (abi.blockInfo(dtype)) |info| info.elements > 1 else false;
    if (std.mem.eql(u8, class, "any")) return abi.blockInfo(dtype) != null;
    return dtype == @field(abi.Dtype, class);
}

/// What the names of an op's dims stand for, as its first operands say.
const Matcher = struct {
    c: Checker,
    bound: [names_max]?Bound = @splat(null),
    leading: ?Bound = null,

    /// A dim of an operand; for leading dims how many they are.
    const Bound = struct { name: []const u8, desc: *const Desc, axis: usize };

    fn operand(self: *Matcher, name: []const u8, desc: *const Desc, pattern: *const Pattern) Error!void {
        const c = self.c;
        const form = &pattern.form;
        const fits = if (desc.layout != 0) pattern.layouts >> @intCast(desc.layout) & 1 == 1 else pattern.strided >> @intCast(desc.dtype) & 1 == 1;
        if (!fits) return c.unsupported("{s} is {f}; it takes {s}", .{ name, show(desc), form.text });
        if (desc.layout == 0) try self.order(name, desc, form);
        if (form.free) return;
        const extra = std.math.sub(usize, desc.rank, form.dims.len) catch return self.misshapen(name, desc, form);
        if (form.leading) {
            if (self.leading) |first| {
                if (first.axis != extra or !sameDims(first.desc, desc, extra)) return self.differs(name, desc, form, first);
            } else self.leading = .{ .name = name, .desc = desc, .axis = extra };
        } else if (extra != 0) return self.misshapen(name, desc, form);
        for (pattern.dims[0..form.dims.len], extra..) |number, axis| {
            if (self.bound[number]) |first| {
                if (!sameDim(first.desc, first.axis, desc, axis)) return self.differs(name, desc, form, first);
            } else self.bound[number] = .{ .name = name, .desc = desc, .axis = axis };
        }
    }

    fn order(self: *Matcher, name: []const u8, desc: *const Desc, form: *const ops.Form) Error!void {
        const last = desc.rank - 1;
        switch (form.order) {
            .any => return,
            .rows => if (desc.shape[last] == 1 or desc.strides[last] == 1) return,
            .dense => {
                for (1..desc.rank) |axis| try self.c.fixed(name, desc, axis);
                if (desc.isDense()) return;
            },
        }
        const strides = desc.strides[0..desc.rank];
        return self.c.unsupported("{s} is {f} of strides {any}; it takes {s}", .{ name, show(desc), strides, form.text });
    }

    fn misshapen(self: *Matcher, name: []const u8, desc: *const Desc, form: *const ops.Form) Error {
        return self.c.fail("{s} is {f}, not {s}", .{ name, show(desc), form.text });
    }

    fn differs(self: *Matcher, name: []const u8, desc: *const Desc, form: *const ops.Form, first: Bound) Error {
        return self.c.fail("{s} is {f}, not {s} for {s} {f}", .{ name, show(desc), form.text, first.name, show(first.desc) });
    }
};

/// Checks that the well-formed operands of a command are as the op table says, then what it can't say.
pub fn check(c: Checker) Error!void {
    var matcher: Matcher = .{ .c = c };
    const own = &patterns[c.cmd.op - 1];
    for (c.op.inputs, 0..) |operand, i| {
        if (operand.optional and !c.cmd.given(i)) continue;
        try matcher.operand(operand.name, c.input(i), &own.inputs[i]);
    }
    for (c.op.outputs, 0..) |operand, i| try matcher.operand(operand.name, c.output(i), &own.outputs[i]);
    const op: OpId = @enumFromInt(c.cmd.op);
    try variant(c, op);
    switch (op) {
        .copy => try copy(c),
        .add, .mul => try broadcast(c),
        .argmax => try indexable(c),
        .topk, .softmax_topk => try topk(c),
        .take_rows => try takeRows(c),
        .rope => try rope(c, 1),
        .rmsnorm_rope => try rope(c, 2),
        .pack_weight => try packWeight(c),
        .linear => try linear(c),
        .linear_swiglu => try linearSwiglu(c),
        .attention => try attention(c),
        else => {},
    }
}

/// Kernels take the variant at its word.
fn variant(c: Checker, op: OpId) Error!void {
    const bits = c.cmd.variant;
    if (op == .linear or op == .linear_swiglu) {
        if (abi.LinearVariant.decode(bits) != null) return;
        return c.fail("the variant 0x{x} has a mode that does not exist; 0 leaves the choice to the level", .{bits});
    }
    if (bits != 0) return c.fail("the variant 0x{x} does not exist: this op has the variant 0 only", .{bits});
}

fn dtypeOf(desc: *const Desc) abi.Dtype {
    return @enumFromInt(desc.dtype);
}

fn sameDim(a: *const Desc, i: usize, b: *const Desc, j: usize) bool {
    return a.shape[i] == b.shape[j] and (a.symbolic_dims >> @intCast(i) & 1) == (b.symbolic_dims >> @intCast(j) & 1);
}

fn sameDims(a: *const Desc, b: *const Desc, count: usize) bool {
    for (0..count) |i| if (!sameDim(a, i, b, i)) return false;
    return true;
}

fn copy(c: Checker) Error!void {
    const x = c.input(0);
    const out = c.output(0);
    const from = dtypeOf(x);
    const to = dtypeOf(out);
    const elements = x.layout == 0 and abi.blockInfo(from).?.elements == 1;
    const known = if (elements) from == to or (abi.isFloat(from) and abi.isFloat(to)) else to == .f32;
    if (!known) return c.unsupported("no conversion from {f} to {f}", .{ show(x), show(out) });
}

fn broadcast(c: Checker) Error!void {
    const a = c.input(0);
    const b = c.input(1);
    var fits = b.rank <= a.rank;
    if (fits) for (0..b.rank) |i| {
        if (!sameDim(b, i, a, a.rank - b.rank + i)) fits = false;
    };
    if (!fits) return c.fail("b is {f}, neither {f} nor its trailing dims", .{ show(b), show(a) });
}

/// Indices of a row's elements are i32.
fn indexable(c: Checker) Error!void {
    const x = c.input(0);
    if (x.shape[1] > std.math.maxInt(i32)) return c.unsupported("x is {f}: rows are too long for i32 indices", .{show(x)});
}

fn topk(c: Checker) Error!void {
    const x = c.input(0);
    const values = c.output(0);
    try indexable(c);
    try c.fixed("x", x, 1);
    try c.fixed(c.op.outputs[0].name, values, 1);
    if (values.shape[1] > x.shape[1]) return c.fail("{s} are {f} for x {f}", .{ c.op.outputs[0].name, show(values), show(x) });
}

fn takeRows(c: Checker) Error!void {
    const x = c.input(0);
    const out = c.output(0);
    if (out.shape[0] > x.shape[0]) return c.fail("out is {f} for x {f}", .{ show(out), show(x) });
}

/// `at` is the input inv_freq.
fn rope(c: Checker, at: usize) Error!void {
    const x = c.input(0);
    const inv_freq = c.input(at);
    try c.fixed("x", x, 2);
    try c.fixed("inv_freq", inv_freq, 0);
    if (inv_freq.shape[0] * 2 > x.shape[2]) return c.fail("inv_freq is {f}: more pairs than x {f} has", .{ show(inv_freq), show(x) });
}

fn packWeight(c: Checker) Error!void {
    const out = c.output(0);
    if (abi.packedDtype(dtypeOf(c.input(0))) != dtypeOf(out)) return c.fail("out is {f} for w {f}", .{ show(out), show(c.input(0)) });
}

fn linear(c: Checker) Error!void {
    const x = c.input(0);
    const w = c.input(1);
    if (dtypeOf(x) == .q8a and abi.isFloat(dtypeOf(w))) {
        return c.unsupported("x is {f}: q8a rows need quantised weights, w is {f}", .{ show(x), show(w) });
    }
}

fn linearSwiglu(c: Checker) Error!void {
    const gate = c.input(1);
    const up = c.input(2);
    if (abi.isFloat(dtypeOf(gate))) return c.unsupported("gate is {f}: q8a rows need quantised weights", .{show(gate)});
    if (@mod(gate.shape[0], 32) != 0) return c.fail("gate is {f}: n must divide by 32", .{show(gate)});
    if (gate.dtype != up.dtype) return c.unsupported("up is {f} for gate {f}", .{ show(up), show(gate) });
}

fn attention(c: Checker) Error!void {
    const q = c.input(0);
    const keys = c.input(1);
    try c.fixed("q", q, 1);
    if (@mod(q.shape[1], keys.shape[1]) != 0) return c.fail("q is {f} for k_cache {f}: kv_heads must divide heads", .{ show(q), show(keys) });
    const out = c.output(0);
    const fits = if (dtypeOf(out) == .q8a)
        out.rank == 2 and sameDims(q, out, 1) and out.symbolic_dims >> 1 == 0 and
            out.shape[1] == q.shape[1] *| q.shape[2] and @mod(q.shape[2], 32) == 0
    else
        out.rank == 3 and sameDims(q, out, 3);
    if (!fits) return c.fail("out is {f} for q {f}", .{ show(out), show(q) });
    if (c.cmd.ints[1] < 0) return c.fail("the window {d} is negative", .{c.cmd.ints[1]});
    // The kernel's scratch depends on it.
    if (c.cmd.int_registers[2] != 0) return c.fail("int 2 can't come from register {d}", .{c.cmd.int_registers[2]});
    if (c.cmd.ints[2] != 0 and c.cmd.ints[2] != 1) return c.fail("i8 is {d}, must be 0 or 1", .{c.cmd.ints[2]});
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
