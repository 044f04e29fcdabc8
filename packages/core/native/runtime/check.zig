//! The boundary: every command passes here before a kernel sees it, and no kernel checks its operands again.
//!
//! The op exists; operands are there, well formed, within their memory, as the op table words them and fitting each other
//! (rules.zig); outputs overlap nothing but what the op may do in place; ints are in range. `submit` checks with the very
//! shapes, `compile` with symbolic dims at their maximum: what holds there holds for fewer tokens, since strides stay and
//! no rule but those of `rules.checkValues` (which `run` repeats) depends on a symbolic length. A failure leaves one line
//! that names op, operand, dtype and shape. Left to kernels is what data says while they run: token, target and page ids.

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
/// Keeps every product of sizes that kernels and their workspaces make within 64 bits.
const elements_max = 1 << 44;
const bytes_max = 1 << 56;
/// Largest magnitude of an int, whether literal or from a register.
pub const int_max = 1 << 40;

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
    var inputs: [abi.max_inputs]Extent = @splat(.{});
    for (checker.op.inputs[0..cmd.input_count], cmd.inputs[0..cmd.input_count], inputs[0..cmd.input_count]) |arg, *desc, *extent| {
        if (desc.rank == 0 and desc.data == 0 and arg.optional) continue;
        extent.* = try checker.operand(arg.name, desc, scope);
    }
    var outputs: [abi.max_outputs]Extent = @splat(.{});
    for (checker.op.outputs, cmd.outputs[0..cmd.output_count], outputs[0..cmd.output_count]) |arg, *desc, *extent| {
        extent.* = try checker.operand(arg.name, desc, scope);
        for (desc.shape[0..desc.rank], desc.strides[0..desc.rank]) |dim, stride| {
            if (dim > 1 and stride == 0 and desc.layout == 0) return checker.fail("{s} {f} has the stride 0", .{ arg.name, show(desc) });
        }
    }
    try checker.intsInRange(scope);
    try rules.check(checker);
    if (scope != .query) try checker.overlaps(&inputs, &outputs);
}

/// Whether two commands that have passed `command` may run at the same time: neither writes what the other one touches.
pub fn independent(a: *const abi.Command, b: *const abi.Command) bool {
    return !touches(a, b) and !touches(b, a);
}

/// Whether a command writes what another one reads or writes.
fn touches(writer: *const abi.Command, other: *const abi.Command) bool {
    for (writer.outputs[0..writer.output_count]) |*out| {
        const written = extentOf(out);
        for (other.inputs[0..other.input_count]) |*desc| if (written.meets(extentOf(desc))) return true;
        for (other.outputs[0..other.output_count]) |*desc| if (written.meets(extentOf(desc))) return true;
    }
    return false;
}

/// Of an operand that was checked.
fn extentOf(desc: *const abi.TensorDesc) Extent {
    if (desc.rank == 0) return .{};
    return .{ .space = desc.space, .start = desc.data, .end = desc.data + extentBytes(desc, @enumFromInt(desc.dtype)).? };
}

/// The bytes of an operand that is there; packed weights count one, as their size is their backend's own.
const Extent = struct {
    space: u32 = 0,
    start: u64 = 0,
    end: u64 = 0,

    fn meets(self: Extent, other: Extent) bool {
        return self.space == other.space and self.start < other.end and other.start < self.end;
    }
};

/// Whether two views are the same elements in the same order.
fn identical(a: *const abi.TensorDesc, b: *const abi.TensorDesc) bool {
    if (a.data != b.data or a.dtype != b.dtype or a.layout != b.layout or a.rank != b.rank) return false;
    if (a.symbolic_dims != b.symbolic_dims) return false;
    for (0..a.rank) |i| {
        if (a.shape[i] != b.shape[i] or (a.strides[i] != b.strides[i] and a.shape[i] != 1)) return false;
    }
    return true;
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

    pub fn fail(self: Checker, comptime format: []const u8, args: anytype) Error {
        self.last.set("{s}: " ++ format, .{self.op.name} ++ args);
        return error.Invalid;
    }

    pub fn unsupported(self: Checker, comptime format: []const u8, args: anytype) Error {
        self.last.set("{s}: " ++ format, .{self.op.name} ++ args);
        return error.Unsupported;
    }

    /// Refuses a symbolic length where a rule that holds for the largest one need not hold for others.
    pub fn fixed(self: Checker, name: []const u8, desc: *const abi.TensorDesc, axis: usize) Error!void {
        if (desc.symbolic_dims >> @intCast(axis) & 1 == 0) return;
        return self.unsupported("{s} is {f}: dim {d} can't be the number of tokens", .{ name, show(desc), axis });
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

    fn intsInRange(self: Checker, scope: Scope) Error!void {
        for (self.cmd.int_registers, self.cmd.ints, 0..) |register, value, i| {
            if (register == 0) {
                if (value >= -int_max and value <= int_max) continue;
                return self.fail("int {d} is {d}, out of range", .{ i, value });
            }
            if (scope == .eager) return self.fail("an eager command can't read register {d}", .{register});
            if (i >= self.op.ints.len or register > @intFromEnum(abi.Register.context)) {
                return self.fail("int {d} can't come from register {d}", .{ i, register });
            }
        }
    }

    /// Refuses outputs that share bytes with an input, but for what the op may do in place, or with each other.
    fn overlaps(self: Checker, inputs: []const Extent, outputs: []const Extent) Error!void {
        for (self.op.outputs, outputs[0..self.op.outputs.len], 0..) |out, extent, o| {
            for (self.op.inputs, inputs[0..self.op.inputs.len], 0..) |in, other, i| {
                if (!extent.meets(other)) continue;
                const allowed = o == 0 and std.mem.indexOfScalar(u32, self.op.in_place, @intCast(i)) != null;
                if (allowed and identical(self.output(o), self.input(i))) continue;
                return self.fail("{s} {f} overlaps {s} {f}", .{ out.name, show(self.output(o)), in.name, show(self.input(i)) });
            }
        }
        if (outputs[0].meets(outputs[1])) return self.fail("the outputs overlap", .{});
    }

    fn operand(self: Checker, name: []const u8, desc: *const abi.TensorDesc, scope: Scope) Error!Extent {
        const dtype = std.enums.fromInt(abi.Dtype, desc.dtype) orelse
            return self.fail("{s} has the unknown dtype {d}", .{ name, desc.dtype });
        if (desc.rank == 0 or desc.rank > abi.max_rank) {
            return self.fail("{s} has rank {d}, not 1 to {d}", .{ name, desc.rank, abi.max_rank });
        }
        if (desc.layout > @intFromEnum(abi.Layout.kv_values)) return self.fail("{s} has the unknown layout {d}", .{ name, desc.layout });
        for (0..desc.rank) |i| {
            if (desc.shape[i] < 1 or desc.shape[i] > dim_max) return self.fail("{s} is {f}: dims are at least 1", .{ name, show(desc) });
            if (desc.strides[i] < 0 or desc.strides[i] > stride_max) return self.fail("{s} has the stride {d}", .{ name, desc.strides[i] });
        }
        if (desc.layout > @intFromEnum(abi.Layout.panel16)) try self.pages(name, desc, dtype);
        const bytes = extentBytes(desc, dtype) orelse return self.fail("{s} is {f}: no such tensor can exist", .{ name, show(desc) });
        try self.symbols(name, desc, dtype, scope);
        try self.place(name, desc, dtype, bytes, scope);
        return .{ .space = desc.space, .start = desc.data, .end = desc.data +| bytes };
    }

    /// Pages of a quantised cache, as kernels/kv_page.zig lays them out.
    fn pages(self: Checker, name: []const u8, desc: *const abi.TensorDesc, dtype: abi.Dtype) Error!void {
        if (desc.rank != 4 or !desc.isDense()) {
            return self.fail("{s} is {f}, not dense [pages, kv_heads, page_size, head_dim]", .{ name, show(desc) });
        }
        if (dtype != .q8_0 and dtype != .q4_0) return self.unsupported("{s} is {f}: caches are q8_0 or q4_0", .{ name, show(desc) });
        if (@mod(desc.shape[3], 32) != 0 or desc.shape[3] > abi.kv_head_dim_max) {
            return self.unsupported("{s} is {f}: head_dim must be a multiple of 32 up to {d}; an f16 cache takes any", .{
                name, show(desc), abi.kv_head_dim_max,
            });
        }
        if (@mod(desc.shape[2], 16) != 0 or desc.shape[2] > abi.kv_page_size_max) {
            return self.unsupported("{s} is {f}: page_size must be a multiple of 16 up to {d}", .{ name, show(desc), abi.kv_page_size_max });
        }
    }

    fn symbols(self: Checker, name: []const u8, desc: *const abi.TensorDesc, dtype: abi.Dtype, scope: Scope) Error!void {
        if (desc.symbolic_dims == 0) return;
        if (desc.layout != 0) return self.unsupported("{s} is {f}: only strided tensors have a symbolic dim", .{ name, show(desc) });
        const elements = if (abi.blockInfo(dtype)) |info| info.elements else 32;
        if (elements > 1) try self.fixed(name, desc, desc.rank - 1);
        if (scope == .query) return;
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
            if (desc.layout != 0) return self.fail("{s} is {f}: only strided tensors can lie in the arena", .{ name, show(desc) });
            if (desc.data > program.arena_bytes or bytes > program.arena_bytes - desc.data) {
                return self.fail("{s} {f} at {d} ends past the arena of {d} bytes", .{ name, show(desc), desc.data, program.arena_bytes });
            }
        } else if (desc.space != 0) {
            return self.fail("{s} lies in the unknown space {d}", .{ name, desc.space });
        } else if (desc.data == 0) {
            return self.fail("{s} has no address", .{name});
        }
        if (bytes > std.math.maxInt(u64) - desc.data) return self.fail("{s} {f} ends past the last address", .{ name, show(desc) });
        // Caches: codes are read bytewise, references as f16.
        const is_cache = desc.layout == @intFromEnum(abi.Layout.kv_keys) or desc.layout == @intFromEnum(abi.Layout.kv_values);
        const alignment: u64 = if (is_cache) @alignOf(f16) else if (desc.layout != 0 or dtype == .q8a) 64 else alignmentOf(dtype);
        if (desc.data % alignment != 0) return self.fail("{s} {f} is not aligned to {d} bytes", .{ name, show(desc), alignment });
    }
};

/// Bytes an address of elements divides by; blocks are read bytewise.
fn alignmentOf(dtype: abi.Dtype) u64 {
    const info = abi.blockInfo(dtype) orelse return 1;
    return if (info.elements == 1) info.bytes else 1;
}

/// Bytes from the first to past the last element, 1 for packed weights; null when there can't be such a tensor.
fn extentBytes(desc: *const abi.TensorDesc, dtype: abi.Dtype) ?u64 {
    const last = desc.rank - 1;
    var count: u64 = 1;
    for (desc.shape[0..desc.rank]) |dim| count *|= @intCast(dim);
    if (count > elements_max) return null;
    if (desc.layout == @intFromEnum(abi.Layout.panel16)) {
        const multiple = abi.packedMultiple(dtype) orelse return null;
        return if (desc.rank == 2 and @mod(desc.shape[1], multiple) == 0) 1 else null;
    }
    if (dtype == .q8a) {
        const whole = @mod(desc.shape[last], 32) == 0 and desc.isDense();
        return if (whole) count / @as(u64, @intCast(desc.shape[last])) * abi.q8aRowBytes(@intCast(desc.shape[last])) else null;
    }
    const info = abi.blockInfo(dtype) orelse return null;
    const keys = desc.layout == @intFromEnum(abi.Layout.kv_keys);
    const references = if (keys) count / @as(u64, @intCast(desc.shape[2] * desc.shape[3])) * abi.kvReferenceBytes(@intCast(desc.shape[3])) else 0;
    if (info.elements > 1) {
        if (@mod(desc.shape[last], info.elements) != 0 or desc.strides[last] != 1) return null;
        for (desc.shape[0..last], desc.strides[0..last]) |dim, stride| if (dim > 1 and @mod(stride, info.elements) != 0) return null;
    }
    var elements: i128 = 1;
    for (desc.shape[0..desc.rank], desc.strides[0..desc.rank]) |dim, stride| elements += @as(i128, dim - 1) * stride;
    const bytes = @divFloor(elements, info.elements) * info.bytes + references;
    return if (bytes <= bytes_max) @intCast(bytes) else null;
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
        try writer.writeAll(switch (desc.layout) {
            0 => "]",
            1 => "] packed",
            2 => "] keys",
            3 => "] values",
            else => "] of an unknown layout",
        });
    }
};
