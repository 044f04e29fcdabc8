//! Checks a command before a kernel may trust it: that the op exists, that operands are there and well formed, lie
//! where they may, and fit each other (rules.zig). A failure leaves one line that names op, operand, dtype and shape.

const std = @import("std");
const abi = @import("abi");
const ops = @import("ops");
const rules = @import("rules.zig");
const LastError = @import("errors.zig").LastError;

pub const Error = error{ Invalid, Unsupported };

/// Where a command comes from, which decides where its operands may lie.
pub const Scope = union(enum) {
    /// `submit`: addresses and literals only.
    eager,
    /// `compile`: arena offsets, symbolic dims and registers too.
    program: struct { arena_bytes: u64, tokens_max: u64 },
    /// `supports`: dtypes and shapes alone matter.
    query,
};

const dim_max = 1 << 40;
const stride_max = 1 << 46;

/// The status of a failed check.
pub fn status(err: Error) abi.Status {
    return switch (err) {
        error.Invalid => .invalid,
        error.Unsupported => .unsupported,
    };
}

/// Checks one command; `last` gets the text of a failure.
pub fn command(cmd: *const abi.Command, scope: Scope, last: *LastError) Error!void {
    if (cmd.op == 0 or cmd.op > ops.table.len) {
        last.set("op {d} does not exist: this backend knows 1 to {d}", .{ cmd.op, ops.table.len });
        return error.Unsupported;
    }
    const checker: Checker = .{ .cmd = cmd, .op = &ops.table[cmd.op - 1], .last = last };
    try checker.counts();
    for (checker.op.inputs[0..cmd.input_count], cmd.inputs[0..cmd.input_count]) |arg, *desc| {
        if (desc.rank == 0 and arg.optional) continue;
        try checker.operand(arg.name, desc, scope);
    }
    for (checker.op.outputs, cmd.outputs[0..cmd.output_count]) |arg, *desc| try checker.operand(arg.name, desc, scope);
    for (cmd.int_registers, 0..) |register, i| {
        if (register == 0) continue;
        if (scope == .eager) return checker.fail("an eager command can't read register {d}", .{register});
        if (i >= checker.op.ints.len or register > @intFromEnum(abi.Register.context)) {
            return checker.fail("int {d} can't come from register {d}", .{ i, register });
        }
    }
    try rules.check(checker);
}

/// One command under check.
pub const Checker = struct {
    cmd: *const abi.Command,
    op: *const ops.Op,
    last: *LastError,

    pub fn input(self: Checker, index: usize) *const abi.TensorDesc {
        return &self.cmd.inputs[index];
    }

    pub fn output(self: Checker, index: usize) *const abi.TensorDesc {
        return &self.cmd.outputs[index];
    }

    /// Whether an optional input is given.
    pub fn given(self: Checker, index: usize) bool {
        return index < self.cmd.input_count and self.cmd.inputs[index].rank != 0;
    }

    pub fn fail(self: Checker, comptime format: []const u8, args: anytype) Error {
        self.last.set("{s}: " ++ format, .{self.op.name} ++ args);
        return error.Invalid;
    }

    pub fn unsupported(self: Checker, comptime format: []const u8, args: anytype) Error {
        self.last.set("{s}: " ++ format, .{self.op.name} ++ args);
        return error.Unsupported;
    }

    fn counts(self: Checker) Error!void {
        var required: u32 = 0;
        for (self.op.inputs, 1..) |arg, i| {
            if (!arg.optional) required = @intCast(i);
        }
        if (self.cmd.input_count < required or self.cmd.input_count > self.op.inputs.len) {
            return self.fail("{d} inputs given, {d} to {d} are taken", .{ self.cmd.input_count, required, self.op.inputs.len });
        }
        if (self.cmd.output_count != self.op.outputs.len) {
            return self.fail("{d} outputs given, {d} are made", .{ self.cmd.output_count, self.op.outputs.len });
        }
    }

    fn operand(self: Checker, name: []const u8, desc: *const abi.TensorDesc, scope: Scope) Error!void {
        const dtype = std.enums.fromInt(abi.Dtype, desc.dtype) orelse
            return self.fail("{s} has the unknown dtype {d}", .{ name, desc.dtype });
        if (desc.rank == 0 or desc.rank > abi.max_rank) {
            return self.fail("{s} has rank {d}, not 1 to {d}", .{ name, desc.rank, abi.max_rank });
        }
        if (desc.layout > @intFromEnum(abi.Layout.panel16)) return self.fail("{s} has the unknown layout {d}", .{ name, desc.layout });
        for (0..desc.rank) |i| {
            if (desc.shape[i] < 1 or desc.shape[i] > dim_max) return self.fail("{s} is {f}: dims are at least 1", .{ name, show(desc) });
            if (desc.strides[i] < 0 or desc.strides[i] > stride_max) return self.fail("{s} has the stride {d}", .{ name, desc.strides[i] });
        }
        const bytes = extentBytes(desc, dtype) orelse return self.fail("{s} is {f}: no such tensor can exist", .{ name, show(desc) });
        try self.symbols(name, desc, scope);
        try self.place(name, desc, dtype, bytes, scope);
    }

    fn symbols(self: Checker, name: []const u8, desc: *const abi.TensorDesc, scope: Scope) Error!void {
        if (desc.symbolic_dims == 0 or scope == .query) return;
        const program = switch (scope) {
            .program => |program| program,
            else => return self.fail("{s} has a symbolic dim outside of a program", .{name}),
        };
        for (0..32) |i| {
            if (desc.symbolic_dims >> @intCast(i) & 1 == 0) continue;
            if (i >= desc.rank or @as(u64, @intCast(desc.shape[i])) < program.tokens_max) {
                return self.fail("{s} is {f}: dim {d} can't hold {d} tokens", .{ name, show(desc), i, program.tokens_max });
            }
        }
    }

    fn place(self: Checker, name: []const u8, desc: *const abi.TensorDesc, dtype: abi.Dtype, bytes: u64, scope: Scope) Error!void {
        if (scope == .query) return;
        if (desc.space == @intFromEnum(abi.Space.arena)) {
            const program = switch (scope) {
                .program => |program| program,
                else => return self.fail("{s} lies in an arena outside of a program", .{name}),
            };
            if (desc.layout != 0) return self.fail("{s}: packed weights can't lie in the arena", .{name});
            if (desc.data > program.arena_bytes or bytes > program.arena_bytes - desc.data) {
                return self.fail("{s} {f} at {d} ends past the arena of {d} bytes", .{ name, show(desc), desc.data, program.arena_bytes });
            }
        } else if (desc.space != 0) {
            return self.fail("{s} lies in the unknown space {d}", .{ name, desc.space });
        } else if (desc.data == 0) {
            return self.fail("{s} has no address", .{name});
        }
        const alignment: u64 = if (desc.layout != 0 or dtype == .q8a) 64 else alignmentOf(dtype);
        if (desc.data % alignment != 0) return self.fail("{s} {f} is not aligned to {d} bytes", .{ name, show(desc), alignment });
    }
};

/// Bytes an address of elements divides by; blocks are read bytewise.
fn alignmentOf(dtype: abi.Dtype) u64 {
    const info = abi.blockInfo(dtype) orelse return 1;
    return if (info.elements == 1) info.bytes else 1;
}

/// Bytes from the first to past the last element; null when there can't be such a tensor. 0 for packed weights.
fn extentBytes(desc: *const abi.TensorDesc, dtype: abi.Dtype) ?u64 {
    if (desc.layout == @intFromEnum(abi.Layout.panel16)) return if (desc.rank == 2) 0 else null;
    const last = desc.shape[desc.rank - 1];
    if (dtype == .q8a) {
        if (@mod(last, 32) != 0) return null;
        var rows: i128 = 1;
        for (desc.shape[0 .. desc.rank - 1]) |dim| rows = std.math.mul(i128, rows, dim) catch return null;
        return std.math.cast(u64, rows * abi.q8aRowBytes(@intCast(last)));
    }
    const info = abi.blockInfo(dtype) orelse return null;
    var elements: i128 = 0;
    for (0..desc.rank - 1) |i| elements += @as(i128, desc.shape[i] - 1) * desc.strides[i];
    if (info.elements == 1) {
        elements += @as(i128, last - 1) * desc.strides[desc.rank - 1] + 1;
    } else {
        if (@mod(last, info.elements) != 0) return null;
        elements += last;
    }
    return std.math.cast(u64, @divFloor(elements, info.elements) * info.bytes);
}

/// Prints as `f32 [tokens<=16, 64]`.
pub fn show(desc: *const abi.TensorDesc) Shown {
    return .{ .desc = desc };
}

const Shown = struct {
    desc: *const abi.TensorDesc,

    pub fn format(self: Shown, writer: *std.Io.Writer) std.Io.Writer.Error!void {
        const desc = self.desc;
        if (desc.rank == 0) return writer.writeAll("absent");
        const dtype = std.enums.fromInt(abi.Dtype, desc.dtype);
        try writer.print("{s} [", .{if (dtype) |known| @tagName(known) else "unknown"});
        for (desc.shape[0..@min(desc.rank, abi.max_rank)], 0..) |dim, i| {
            const symbol = if (desc.symbolic_dims >> @intCast(i) & 1 == 1) "tokens<=" else "";
            try writer.print("{s}{s}{d}", .{ if (i > 0) ", " else "", symbol, dim });
        }
        try writer.writeAll(if (desc.layout == 0) "]" else "] packed");
    }
};
