//! What the boundary refuses: commands are made from the forms of the op table, then broken one way at a time.

const std = @import("std");
const abi = @import("abi");
const ops = @import("ops");
const check = @import("check.zig");
const rules = @import("rules.zig");
const errors = @import("errors.zig");
const LastError = errors.LastError;

const Desc = abi.TensorDesc;

/// Lengths of the named dims: the same name, the same length; they keep every rule of every op.
fn lengthOf(dim: []const u8) i64 {
    const lengths = .{
        .{ "n", 256 },   .{ "k", 256 },        .{ "rows", 6 },      .{ "tokens", 6 },        .{ "heads", 8 },
        .{ "pages", 9 }, .{ "kv_heads", 2 },   .{ "head_dim", 64 }, .{ "logical_pages", 5 }, .{ "pairs", 32 },
        .{ "m", 3 },     .{ "page_size", 16 }, .{ "queries", 6 },   .{ "keys", 10 },         .{ "count", 2 },
    };
    inline for (lengths) |pair| if (std.mem.eql(u8, pair[0], dim)) return pair[1];
    std.debug.panic("no length for {s}", .{dim});
}

/// The dtypes of a form, classes taken apart.
fn dtypesOf(form: ops.Form, buffer: *[64]abi.Dtype) []abi.Dtype {
    var count: usize = 0;
    for (form.dtypes.slice()) |class| for (std.enums.values(abi.Dtype)) |dtype| {
        const strided = abi.blockInfo(dtype) != null;
        const is_float = abi.isFloat(dtype);
        const member = if (std.mem.eql(u8, class, "any"))
            strided
        else if (std.mem.eql(u8, class, "float"))
            is_float
        else if (std.mem.eql(u8, class, "weights"))
            is_float or (strided and abi.blockInfo(dtype).?.elements > 1)
        else if (std.mem.eql(u8, class, "packed"))
            abi.packedMultiple(dtype) != null
        else
            std.mem.eql(u8, class, @tagName(dtype));
        if (!member) continue;
        buffer[count] = dtype;
        count += 1;
    };
    return buffer[0..count];
}

const q8a = @intFromEnum(abi.Dtype.q8a);

fn isPacked(form: ops.Form) bool {
    return std.mem.eql(u8, form.dtypes.buffer[0], "packed");
}

/// A dense operand; every one has a range of addresses of its own.
fn operandOf(form: ops.Form, address: u64) Desc {
    var buffer: [64]abi.Dtype = undefined;
    const dtypes = dtypesOf(form, &buffer);
    var desc: Desc = .{ .data = address, .dtype = @intFromEnum(dtypes[0]) };
    if (form.leading or form.free) append(&desc, 7);
    if (form.dims.len == 0) append(&desc, 256);
    for (form.dims.slice()) |dim| append(&desc, lengthOf(dim));
    if (isPacked(form)) desc.layout = @intFromEnum(abi.Layout.panel16);
    restride(&desc);
    return desc;
}

fn append(desc: *Desc, length: i64) void {
    desc.shape[desc.rank] = length;
    desc.rank += 1;
}

fn restride(desc: *Desc) void {
    var stride: i64 = 1;
    var i = desc.rank;
    while (i > 0) {
        i -= 1;
        desc.strides[i] = stride;
        stride *= desc.shape[i];
    }
}

fn commandOf(op: ops.Op) abi.Command {
    var cmd: abi.Command = .{ .op = op.id, .input_count = @intCast(op.inputs.len), .output_count = @intCast(op.outputs.len) };
    for (op.inputs, 0..) |operand, i| cmd.inputs[i] = operandOf(ops.parse(operand.form), (i + 1) << 32);
    for (op.outputs, 0..) |operand, i| cmd.outputs[i] = operandOf(ops.parse(operand.form), (i + 100) << 32);
    // A form can't say that this one is like q.
    if (std.mem.eql(u8, op.name, "attention")) cmd.outputs[0] = with(cmd.inputs[0], .{ .data = cmd.outputs[0].data });
    // The one op whose packed weights can't be floats.
    if (std.mem.eql(u8, op.name, "linear_swiglu")) for (cmd.inputs[1..3]) |*weights| {
        weights.dtype = @intFromEnum(abi.Dtype.q8_0);
    };
    return cmd;
}

fn byName(name: []const u8) abi.Command {
    for (ops.table) |op| if (std.mem.eql(u8, op.name, name)) return commandOf(op);
    unreachable;
}

fn run(cmd: *const abi.Command, scope: check.Scope, last: *LastError) check.Error!void {
    try check.command(cmd, scope, last);
    if (scope == .eager) try rules.checkValues(cmd, last);
}

fn expectTaken(cmd: *const abi.Command, scope: check.Scope) !void {
    var last: LastError = .{};
    run(cmd, scope, &last) catch |err| {
        var text: [errors.text_max]u8 = undefined;
        std.debug.print("refused: {s}\n", .{last.text(&text)});
        return err;
    };
}

fn expectRefused(cmd: *const abi.Command, scope: check.Scope, needle: []const u8) !void {
    var last: LastError = .{};
    run(cmd, scope, &last) catch {
        var buffer: [errors.text_max]u8 = undefined;
        const text = last.text(&buffer);
        if (std.mem.indexOf(u8, text, needle) != null) return;
        std.debug.print("\"{s}\" does not contain \"{s}\"\n", .{ text, needle });
        return error.OtherText;
    };
    std.debug.print("{s} was taken, not refused for \"{s}\"\n", .{ ops.table[cmd.op - 1].name, needle });
    return error.Taken;
}

const program: check.Scope = .{ .program = .{ .arena_bytes = 1 << 20, .tokens_max = 6 } };

test "every op takes what its forms say, and runs in place where the table says so" {
    for (ops.table) |op| {
        const cmd = commandOf(op);
        try expectTaken(&cmd, .eager);
        try expectTaken(&cmd, .query);
        for (op.in_place) |index| {
            var same = cmd;
            same.outputs[0] = same.inputs[index];
            try expectTaken(&same, .eager);
        }
    }
}

test "an operand of another dtype, layout, rank or length than its form is refused, in every op" {
    for (ops.table) |op| {
        const sound = commandOf(op);
        for (0..op.inputs.len + op.outputs.len) |at| {
            const is_output = at >= op.inputs.len;
            const index = if (is_output) at - op.inputs.len else at;
            const operand = if (is_output) op.outputs[index] else op.inputs[index];
            const form = ops.parse(operand.form);
            var cmd = sound;
            const desc = if (is_output) &cmd.outputs[index] else &cmd.inputs[index];
            const original = desc.*;
            var buffer: [64]abi.Dtype = undefined;
            const dtypes = dtypesOf(form, &buffer);
            for (std.enums.values(abi.Dtype)) |dtype| {
                if (std.mem.indexOfScalar(abi.Dtype, dtypes, dtype) != null) continue;
                desc.dtype = @intFromEnum(dtype);
                try expectRefused(&cmd, .eager, operand.name);
                try expectRefused(&cmd, .query, operand.name);
            }
            desc.* = original;
            if (!isPacked(form)) {
                desc.layout = @intFromEnum(abi.Layout.panel16);
                if (form.dtypes.len < 2) try expectRefused(&cmd, .eager, operand.name);
            } else {
                desc.layout = 0;
                if (form.dtypes.len < 2) try expectRefused(&cmd, .eager, operand.name);
            }
            desc.* = original;
            for ([_]u32{ 0, 5, 99 }) |rank| {
                desc.rank = rank;
                try expectRefused(&cmd, .eager, operand.name);
            }
            desc.* = original;
            // Every named dim of the op has the length 256, 6, … once and for all, so one that differs is wrong somewhere;
            // those that stand alone may differ.
            for (form.dims.slice(), desc.rank - form.dims.len..) |dim, axis| {
                if (mentions(op, dim) < 2) continue;
                desc.shape[axis] += 256;
                restride(desc);
                try expectRefused(&cmd, .eager, op.name);
                desc.* = original;
            }
            if (form.leading) {
                desc.shape[0] += 256;
                restride(desc);
                try expectRefused(&cmd, .eager, op.name);
                desc.* = original;
            }
        }
    }
}

/// How many operands of an op name this dim.
fn mentions(op: ops.Op, dim: []const u8) usize {
    var count: usize = 0;
    for ([_][]const ops.Operand{ op.inputs, op.outputs }) |list| for (list) |operand| {
        for (ops.parse(operand.form).dims.slice()) |other| count += @intFromBool(std.mem.eql(u8, dim, other));
    };
    return count;
}

test "strides other than the order of a form are refused" {
    for (ops.table) |op| {
        for (0..op.inputs.len + op.outputs.len) |at| {
            const is_output = at >= op.inputs.len;
            const index = if (is_output) at - op.inputs.len else at;
            const operand = if (is_output) op.outputs[index] else op.inputs[index];
            const form = ops.parse(operand.form);
            if (isPacked(form)) continue;
            var cmd = commandOf(op);
            const desc = if (is_output) &cmd.outputs[index] else &cmd.inputs[index];
            const own = desc.dtype == q8a;
            // Twice as far apart: still no overlap, so only the order can be wrong.
            for (desc.strides[0..desc.rank]) |*stride| stride.* *= 2;
            if (form.order == .any and !own) try expectTaken(&cmd, .eager) else try expectRefused(&cmd, .eager, operand.name);
            for (desc.strides[0..desc.rank]) |*stride| stride.* = @divExact(stride.*, 2);
            if (desc.rank < 2) continue;
            for (desc.strides[0 .. desc.rank - 1]) |*stride| stride.* *= 2;
            const rows = form.order != .dense and !own;
            if (rows) try expectTaken(&cmd, .eager) else try expectRefused(&cmd, .eager, operand.name);
        }
    }
}

/// A struct with some fields changed.
fn with(base: anytype, changes: anytype) @TypeOf(base) {
    var changed = base;
    inline for (std.meta.fields(@TypeOf(changes))) |field| @field(changed, field.name) = @field(changes, field.name);
    return changed;
}

test "malformed commands are refused" {
    const sound = byName("silu"); // x and out f32 [7, 256]
    const top = std.math.maxInt(i64);
    for ([_]struct { abi.Command, []const u8 }{
        .{ with(sound, .{ .op = 0 }), "op 0 does not exist" },
        .{ with(sound, .{ .op = std.math.maxInt(u32) }), "does not exist" },
        .{ with(sound, .{ .input_count = 0 }), "0 inputs given, 1 to 1 are taken" },
        .{ with(sound, .{ .input_count = 7 }), "7 inputs given" },
        .{ with(sound, .{ .output_count = 0 }), "0 outputs given, 1 are made" },
        .{ with(sound, .{ .output_count = 3 }), "3 outputs given" },
        .{ with(sound, .{ .int_registers = .{ 1, 0, 0, 0, 0, 0, 0, 0 } }), "can't read register 1" },
        .{ with(sound, .{ .ints = .{ 0, 0, 0, 0, 0, 0, 0, std.math.minInt(i64) } }), "int 7 is -9223372036854775808, out of range" },
    }) |case| try expectRefused(&case[0], .eager, case[1]);
    const x = sound.inputs[0];
    for ([_]struct { Desc, []const u8 }{
        .{ with(x, .{ .rank = 0 }), "rank 0" },
        .{ with(x, .{ .rank = 5 }), "rank 5" },
        .{ with(x, .{ .dtype = std.math.maxInt(u32) }), "unknown dtype" },
        .{ with(x, .{ .layout = 4 }), "unknown layout" },
        .{ with(x, .{ .space = 2 }), "unknown space" },
        .{ with(x, .{ .space = 1 }), "arena outside of a program" },
        .{ with(x, .{ .symbolic_dims = 1 }), "symbolic dim outside of a program" },
        .{ with(x, .{ .data = 0 }), "no address" },
        .{ with(x, .{ .data = x.data + 2 }), "not aligned to 4 bytes" },
        .{ with(x, .{ .data = std.math.maxInt(u64) - 7 }), "past the last address" },
        .{ with(x, .{ .shape = .{ 0, 256, 0, 0 } }), "dims are at least 1" },
        .{ with(x, .{ .shape = .{ -7, 256, 0, 0 } }), "dims are at least 1" },
        .{ with(x, .{ .shape = .{ top, 256, 0, 0 } }), "dims are at least 1" },
        .{ with(x, .{ .strides = .{ 256, -1, 0, 0 } }), "has the stride -1" },
        .{ with(x, .{ .strides = .{ top, 1, 0, 0 } }), "has the stride 9223372036854775807" },
        .{ with(x, .{ .shape = .{ 1 << 40, 1 << 5, 0, 0 }, .strides = .{ 0, 0, 0, 0 } }), "no such tensor can exist" },
        .{ with(x, .{ .shape = .{ 1 << 20, 256, 0, 0 }, .strides = .{ 1 << 46, 1, 0, 0 } }), "no such tensor can exist" },
    }) |case| {
        var cmd = sound;
        cmd.inputs[0] = case[0];
        try expectRefused(&cmd, .eager, case[1]);
        cmd = sound;
        cmd.outputs[0] = case[0];
        try expectRefused(&cmd, .eager, case[1]);
    }
}

test "outputs overlap nothing but what the op does in place" {
    for (ops.table) |op| {
        const sound = commandOf(op);
        for (op.inputs, 0..) |in, i| for (op.outputs, 0..) |out, o| {
            var cmd = sound;
            cmd.outputs[o].data = cmd.inputs[i].data;
            const whole = o == 0 and std.mem.indexOfScalar(u32, op.in_place, @intCast(i)) != null;
            if (!whole) try expectRefused(&cmd, .eager, "overlaps");
            if (!isPacked(ops.parse(in.form)) and !isPacked(ops.parse(out.form))) {
                cmd.outputs[o].data = sound.inputs[i].data + @as(u64, if (cmd.outputs[o].dtype == q8a) 64 else 4);
                try expectRefused(&cmd, .eager, "overlaps");
            }
        };
        if (op.outputs.len < 2) continue;
        var cmd = sound;
        cmd.outputs[1].data = cmd.outputs[0].data + 64;
        try expectRefused(&cmd, .eager, "the outputs overlap");
    }
}

test "the rules of single ops" {
    const Case = struct { abi.Command, []const u8 };
    const of = byName;
    const i32s = @intFromEnum(abi.Dtype.i32);
    var copy = of("copy");
    copy.inputs[0].dtype = i32s;
    var broadcast = of("add");
    broadcast.inputs[1].shape[1] = 1;
    var longer = of("mul");
    longer.inputs[1] = with(longer.inputs[1], .{ .rank = 3, .shape = .{ 1, 7, 256, 0 }, .strides = .{ 1792, 256, 1, 0 } });
    var topk = of("topk");
    for (&topk.outputs) |*desc| {
        desc.shape[1] = 257;
        restride(desc);
    }
    var take_rows = of("take_rows");
    take_rows.ints[0] = 5;
    var before = of("take_rows");
    before.ints[0] = -1;
    var more = of("take_rows");
    more.outputs[0].shape[0] = 7;
    var rope = of("rope");
    rope.inputs[1].shape[0] = 33;
    var normed = of("rmsnorm_rope");
    normed.inputs[2].shape[0] = 33;
    var quantised = of("linear");
    quantised.inputs[0].dtype = q8a;
    var floating = of("linear_swiglu");
    for (floating.inputs[1..3]) |*weights| weights.dtype = @intFromEnum(abi.Dtype.f16);
    var unlike = of("linear_swiglu");
    unlike.inputs[2].dtype = @intFromEnum(abi.Dtype.q4_0);
    var odd = of("linear_swiglu");
    for ([_]*Desc{ &odd.inputs[1], &odd.inputs[2] }) |desc| desc.shape[0] = 240;
    odd.outputs[0].shape[1] = 240;
    restride(&odd.outputs[0]);
    var packed_as = of("pack_weight");
    packed_as.outputs[0].dtype = @intFromEnum(abi.Dtype.f16);
    var whole = of("quantize_rows");
    for ([_]*Desc{ &whole.inputs[0], &whole.outputs[0] }) |desc| {
        desc.shape[1] = 250;
        restride(desc);
    }
    var blocks = of("embedding");
    blocks.inputs[1] = with(blocks.inputs[1], .{ .dtype = @intFromEnum(abi.Dtype.q4_0), .strides = .{ 250, 1, 0, 0 } });
    var apart = of("embedding");
    apart.inputs[1] = with(apart.inputs[1], .{ .dtype = @intFromEnum(abi.Dtype.q4_0), .strides = .{ 512, 2, 0, 0 } });
    var heads = of("attention");
    for ([_]*Desc{ &heads.inputs[0], &heads.outputs[0] }) |desc| {
        desc.shape[1] = 5;
        restride(desc);
    }
    var unlike_q = of("attention");
    unlike_q.outputs[0].shape[0] = 5;
    var codes = of("attention");
    codes.outputs[0] = with(codes.outputs[0], .{ .dtype = q8a, .rank = 2, .shape = .{ 6, 512, 0, 0 }, .strides = .{ 512, 1, 0, 0 } });
    try expectTaken(&codes, .eager);
    var split = codes;
    split.outputs[0] = with(of("attention").outputs[0], .{ .dtype = q8a });
    var narrow = codes;
    for (narrow.inputs[0..3]) |*desc| {
        desc.shape[desc.rank - 1] = 16;
        restride(desc);
    }
    narrow.outputs[0].shape[1] = 128;
    restride(&narrow.outputs[0]);
    var mixed = of("attention");
    mixed.inputs[2].dtype = @intFromEnum(abi.Dtype.i32);
    var window = of("attention");
    window.ints[1] = -1;
    var way = of("attention");
    way.ints[2] = 2;
    var negative = of("attention");
    negative.ints[0] = -1;
    var full = of("attention");
    full.ints[0] = 5 * 16 - 5;
    var past = of("kv_append");
    past.ints[0] = 5 * 16 - 5;
    for ([_]Case{
        .{ copy, "no conversion" },
        .{ broadcast, "neither f32 [7, 256] nor its trailing dims" },
        .{ longer, "nor its trailing dims" },
        .{ topk, "values are f32 [6, 257] for x f32 [6, 256]" },
        .{ take_rows, "2 rows from row 5 on are not all in x f32 [6, 256]" },
        .{ before, "2 rows from row -1 on" },
        .{ more, "out is f32 [7, 256] for x f32 [6, 256]" },
        .{ rope, "more pairs than" },
        .{ normed, "more pairs than" },
        .{ quantised, "q8a rows need quantised weights" },
        .{ floating, "gate is f16 [256, 256] packed: q8a rows need quantised weights" },
        .{ unlike, "up is q4_0 [256, 256] packed for gate q8_0 [256, 256] packed" },
        .{ odd, "n must divide by 32" },
        .{ packed_as, "out is f16 [256, 256] packed for w f32 [256, 256]" },
        .{ whole, "no such tensor can exist" },
        .{ blocks, "no such tensor can exist" },
        .{ apart, "no such tensor can exist" },
        .{ heads, "kv_heads must divide heads" },
        .{ unlike_q, "out is f32 [5, 8, 64] for q f32 [6, 8, 64]" },
        .{ split, "out is q8a [6, 8, 64] for q f32 [6, 8, 64]" },
        .{ narrow, "out is q8a [6, 128] for q f32 [6, 8, 16]" },
        .{ mixed, "v_cache is i32" },
        .{ window, "the window -1 is negative" },
        .{ way, "i8 is 2, must be 0 or 1" },
        .{ negative, "6 tokens at position -1 do not fit a cache of 80" },
        .{ full, "6 tokens at position 75 do not fit a cache of 80" },
        .{ past, "6 tokens at position 75 do not fit a cache of 80" },
    }) |case| try expectRefused(&case[0], .eager, case[1]);
    full.ints[0] -= 1;
    try expectTaken(&full, .eager);
}

/// The same command with one dim of an input and of its output symbolic.
fn symbolic(name: []const u8, inputs: []const struct { usize, u5 }, outputs: []const struct { usize, u5 }) abi.Command {
    var cmd = byName(name);
    for (inputs) |at| cmd.inputs[at[0]].symbolic_dims |= @as(u32, 1) << at[1];
    for (outputs) |at| cmd.outputs[at[0]].symbolic_dims |= @as(u32, 1) << at[1];
    return cmd;
}

test "in programs: a symbolic length only where every length up to the largest keeps the rules" {
    try expectTaken(&symbolic("rmsnorm", &.{.{ 0, 0 }}, &.{.{ 0, 0 }}), program);
    try expectTaken(&symbolic("attention", &.{.{ 0, 0 }}, &.{.{ 0, 0 }}), program);
    try expectTaken(&symbolic("matmul", &.{ .{ 0, 2 }, .{ 1, 1 } }, &.{}), program);
    for ([_]struct { abi.Command, []const u8 }{
        .{ symbolic("rmsnorm", &.{.{ 0, 0 }}, &.{}), "out is f32 [7, 256], not f32|q8a [..., n] for x f32 [tokens<=7, 256]" },
        .{ symbolic("matmul", &.{.{ 0, 2 }}, &.{}), "b is f32" },
        .{ symbolic("rmsnorm", &.{.{ 1, 0 }}, &.{}), "weight is f32 [tokens<=256]" },
        .{ symbolic("topk", &.{.{ 0, 1 }}, &.{}), "dim 1 can't be the number of tokens" },
        .{ symbolic("topk", &.{}, &.{ .{ 0, 1 }, .{ 1, 1 } }), "dim 1 can't be the number of tokens" },
        .{ symbolic("rope", &.{.{ 0, 2 }}, &.{.{ 0, 2 }}), "dim 2 can't be the number of tokens" },
        .{ symbolic("rope", &.{.{ 1, 0 }}, &.{}), "dim 0 can't be the number of tokens" },
        .{ symbolic("quantize_rows", &.{.{ 0, 1 }}, &.{.{ 0, 1 }}), "dim 1 can't be the number of tokens" },
        .{ symbolic("attention", &.{.{ 0, 1 }}, &.{.{ 0, 1 }}), "dim 1 can't be the number of tokens" },
        .{ symbolic("attention", &.{.{ 1, 2 }}, &.{}), "dim 2 can't be the number of tokens" },
        .{ symbolic("linear", &.{.{ 1, 0 }}, &.{.{ 0, 1 }}), "only strided tensors have a symbolic dim" },
        .{ symbolic("rmsnorm", &.{.{ 0, 2 }}, &.{.{ 0, 2 }}), "dim 2 can't hold 6 tokens" },
    }) |case| {
        try expectRefused(&case[0], program, case[1]);
    }
    var short = symbolic("silu", &.{.{ 0, 0 }}, &.{.{ 0, 0 }});
    for ([_]*Desc{ &short.inputs[0], &short.outputs[0] }) |desc| desc.shape[0] = 5;
    try expectRefused(&short, program, "dim 0 can't hold 6 tokens");
    var arena = byName("silu");
    for ([_]*Desc{ &arena.inputs[0], &arena.outputs[0] }, 0..) |desc, i| desc.* = with(desc.*, .{ .space = 1, .data = i * 7 * 1024 });
    try expectTaken(&arena, program);
    arena.outputs[0].data -= 64;
    try expectRefused(&arena, program, "out f32 [7, 256] overlaps x f32 [7, 256]");
    arena.outputs[0].data = (1 << 20) - 64;
    try expectRefused(&arena, program, "ends past the arena");
    var register = byName("attention");
    register.int_registers[0] = @intFromEnum(abi.Register.position);
    try expectTaken(&register, program);
    register.int_registers[0] = 5;
    try expectRefused(&register, program, "int 0 can't come from register 5");
    register.int_registers = .{ 2, 0, 1, 0, 0, 0, 0, 0 };
    try expectRefused(&register, program, "int 2 can't come from register 1");
}

test "only variants that exist are taken" {
    for (ops.table) |op| {
        var cmd = commandOf(op);
        const is_linear = std.mem.startsWith(u8, op.name, "linear");
        for ([_]u32{ 1, 2, @bitCast(abi.LinearVariant{ .few_rows = 255, .tile_rows = 63, .run = 4095, .prefetch = 15 }) }) |bits| {
            cmd.variant = bits;
            if (is_linear) try expectTaken(&cmd, .eager) else try expectRefused(&cmd, .eager, "this op has the variant 0 only");
        }
        for ([_]u32{ 3, 3 | 1 << 28, std.math.maxInt(u32) }) |bits| {
            cmd.variant = bits;
            for ([_]check.Scope{ .eager, .query, program }) |scope| try expectRefused(&cmd, scope, "the variant 0x");
        }
    }
}

test "an optional input is absent as a whole, or checked" {
    var cmd = byName("layernorm");
    cmd.inputs[2] = .{};
    try expectTaken(&cmd, .eager);
    cmd.input_count = 2;
    try expectTaken(&cmd, .eager);
    cmd.input_count = 3;
    cmd.inputs[2].data = 64;
    try expectRefused(&cmd, .eager, "bias has rank 0");
}

const CacheKind = struct { dtype: abi.Dtype, layout: abi.Layout };
const cache_kinds = [_]CacheKind{
    .{ .dtype = .f32, .layout = .strided },    .{ .dtype = .f16, .layout = .strided },
    .{ .dtype = .q8_0, .layout = .kv_keys },   .{ .dtype = .q4_0, .layout = .kv_keys },
    .{ .dtype = .q8_0, .layout = .kv_values }, .{ .dtype = .q4_0, .layout = .kv_values },
};

fn setKind(desc: *Desc, kind: CacheKind) void {
    desc.dtype = @intFromEnum(kind.dtype);
    desc.layout = @intFromEnum(kind.layout);
}

test "attention takes keys and values of any types, each in its own layout" {
    for (cache_kinds) |keys| for (cache_kinds) |values| {
        var cmd = byName("attention");
        setKind(&cmd.inputs[1], keys);
        setKind(&cmd.inputs[2], values);
        const name = if (keys.layout == .kv_values) "k_cache" else if (values.layout == .kv_keys) "v_cache" else {
            try expectTaken(&cmd, .eager);
            try expectTaken(&cmd, .query);
            continue;
        };
        try expectRefused(&cmd, .eager, name);
    };
    for (cache_kinds) |kind| {
        var append_rows = byName("kv_append");
        setKind(&append_rows.outputs[0], kind);
        try expectTaken(&append_rows, .eager);
        var copy = byName("copy");
        copy.inputs[0] = append_rows.outputs[0];
        copy.outputs[0] = append_rows.outputs[0];
        copy.outputs[0].data = 1 << 50;
        setKind(&copy.outputs[0], cache_kinds[0]);
        try expectTaken(&copy, .eager);
    }
}

test "quantised caches that can't be are refused, with what to do" {
    const Change = struct { axis: usize, length: i64, needle: []const u8 };
    for (cache_kinds[2..]) |kind| {
        for ([_]Change{
            .{ .axis = 3, .length = 80, .needle = "head_dim must be a multiple of 32 up to 1024; an f16 cache takes any" },
            .{ .axis = 3, .length = 2048, .needle = "head_dim must be a multiple of 32 up to 1024" },
            .{ .axis = 2, .length = 24, .needle = "page_size must be a multiple of 16 up to 512" },
            .{ .axis = 2, .length = 528, .needle = "page_size must be a multiple of 16 up to 512" },
            .{ .axis = 0, .length = 1 << 39, .needle = "no such tensor can exist" },
        }) |change| {
            var cmd = byName("kv_append");
            setKind(&cmd.outputs[0], kind);
            cmd.outputs[0].shape[change.axis] = change.length;
            restride(&cmd.outputs[0]);
            try expectRefused(&cmd, .eager, change.needle);
        }
        var cmd = byName("kv_append");
        setKind(&cmd.outputs[0], kind);
        const sound = cmd.outputs[0];
        cmd.outputs[0].strides[0] *= 2;
        try expectRefused(&cmd, .eager, "not dense [pages, kv_heads, page_size, head_dim]");
        cmd.outputs[0] = sound;
        cmd.outputs[0].dtype = @intFromEnum(abi.Dtype.q5_0);
        try expectRefused(&cmd, .eager, "caches are q8_0 or q4_0");
        cmd.outputs[0] = sound;
        cmd.outputs[0].layout = 0;
        try expectRefused(&cmd, .eager, "it takes f32|f16|keys|values");
        cmd.outputs[0] = sound;
        cmd.outputs[0].layout = 4;
        try expectRefused(&cmd, .eager, "the unknown layout 4");
        cmd.outputs[0] = sound;
        cmd.outputs[0].data += 1;
        try expectRefused(&cmd, .eager, "not aligned to 2 bytes");
        cmd.outputs[0] = with(sound, .{ .space = 1, .data = 0 });
        try expectRefused(&cmd, program, "only strided tensors can lie in the arena");
    }
    // A page of keys is longer than its rows: by the reference, which may not reach into another operand.
    var cmd = byName("kv_append");
    setKind(&cmd.outputs[0], cache_kinds[2]);
    cmd.inputs[1].data = cmd.outputs[0].data + 9 * 2 * 16 * 64 / 32 * 34;
    try expectRefused(&cmd, .eager, "cache q8_0 [9, 2, 16, 64] keys overlaps pages");
    cmd.inputs[1].data += 9 * 2 * 64 * 2;
    try expectTaken(&cmd, .eager);
}

test "commands are independent when neither writes what the other one touches" {
    const place = struct {
        fn of(cmd: *abi.Command, x: Desc, out: Desc) void {
            cmd.inputs[0].data = x.data;
            cmd.inputs[0].space = x.space;
            cmd.outputs[0].data = out.data;
            cmd.outputs[0].space = out.space;
        }
    };
    const bytes = 7 * 256 * 4; // of each operand
    const arena = @intFromEnum(abi.Space.arena);
    var a = byName("silu");
    var b = byName("silu");
    const Case = struct { x: u64, out: u64, independent: bool };
    place.of(&a, .{ .data = 1 << 20 }, .{ .data = 2 << 20 });
    for ([_]Case{
        .{ .x = 3 << 20, .out = 4 << 20, .independent = true },
        .{ .x = 1 << 20, .out = 4 << 20, .independent = true }, // both read
        .{ .x = 2 << 20, .out = 4 << 20, .independent = false }, // reads what a writes
        .{ .x = 3 << 20, .out = 1 << 20, .independent = false }, // writes what a reads
        .{ .x = 3 << 20, .out = 2 << 20, .independent = false }, // both write
        .{ .x = (2 << 20) + bytes - 4, .out = 4 << 20, .independent = false }, // one element
        .{ .x = (2 << 20) + bytes, .out = (2 << 20) - bytes, .independent = true }, // next to each other
    }) |case| for ([_]u32{ 0, arena }) |space| {
        place.of(&a, .{ .data = 1 << 20, .space = space }, .{ .data = 2 << 20, .space = space });
        place.of(&b, .{ .data = case.x, .space = space }, .{ .data = case.out, .space = space });
        try std.testing.expectEqual(case.independent, check.independent(&a, &b));
        try std.testing.expectEqual(case.independent, check.independent(&b, &a));
        // An offset in the arena is no address.
        place.of(&b, .{ .data = case.x, .space = arena - space }, .{ .data = case.out, .space = arena - space });
        try std.testing.expect(check.independent(&a, &b));
    };
}
