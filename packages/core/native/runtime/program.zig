//! A compiled program: a deep copy of its commands, and the places in them that change from run to run.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const check = @import("check.zig");
const rules = @import("rules.zig");
const executor = @import("executor.zig");
const errors = @import("errors.zig");
const LastError = errors.LastError;

pub const commands_max = 1 << 20;

pub const Error = check.Error || error{OutOfMemory};

/// A number that is a register.
const Patch = struct { target: *i64, register: u8 };
/// An address that is an offset into the arena.
const ArenaPatch = struct { target: *u64, offset: u64 };

pub const Program = struct {
    memory: std.heap.ArenaAllocator,
    commands: []abi.Command,
    steps: []executor.Step,
    rows: []abi.ProfileRow,
    profiling: bool = false,
    patches: std.ArrayList(Patch) = .empty,
    arena_patches: std.ArrayList(ArenaPatch) = .empty,
    /// Indices of the commands that checkValues looks at.
    value_checks: std.ArrayList(u32) = .empty,
    arena_bytes: u64,
    tokens_max: u64,
    /// The most scratch that any command needs.
    scratch_bytes: u64 = 0,
    /// Where the arena was when its addresses were last resolved.
    arena_base: u64 = 0,
    /// What the last plan was made for.
    planned_tokens: i64 = 0,
    planned_magnitude: u7 = 0,

    /// Checks and copies; `last` gets the text of a failure.
    pub fn create(
        gpa: std.mem.Allocator,
        desc: *const abi.ProgramDesc,
        table: *const context.KernelTable,
        threads: u32,
        last: *LastError,
    ) Error!*Program {
        if (desc.command_count > commands_max or desc.tokens_max == 0 or desc.tokens_max > 1 << 31 or desc.arena_bytes > 1 << 46) {
            last.set("compile: {d} commands, {d} tokens and an arena of {d} bytes are no program", .{
                desc.command_count, desc.tokens_max, desc.arena_bytes,
            });
            return error.Invalid;
        }
        const self = try gpa.create(Program);
        errdefer gpa.destroy(self);
        var memory: std.heap.ArenaAllocator = .init(gpa);
        errdefer memory.deinit();
        const count: usize = @intCast(desc.command_count);
        const source: []const abi.Command = if (count == 0) &.{} else @as([*]const abi.Command, @ptrFromInt(desc.commands))[0..count];
        self.* = .{
            .memory = undefined,
            .commands = try memory.allocator().dupe(abi.Command, source),
            .steps = try memory.allocator().alloc(executor.Step, count),
            .rows = try memory.allocator().alloc(abi.ProfileRow, count),
            .arena_bytes = desc.arena_bytes,
            .tokens_max = desc.tokens_max,
        };
        for (self.commands, self.steps, self.rows, 0..) |*cmd, *step, *row, i| {
            var why: LastError = .{};
            check.command(cmd, .{ .program = .{ .arena_bytes = desc.arena_bytes, .tokens_max = desc.tokens_max } }, &why) catch |err| {
                var text: [errors.text_max]u8 = undefined;
                last.set("command {d}: {s}", .{ i, why.text(&text) });
                return err;
            };
            step.* = .{
                .command = cmd,
                .kernel = table.kernels[cmd.op - 1],
                .workspace = table.workspaces[cmd.op - 1],
                .outlook = table.outlooks[cmd.op - 1],
            };
            while (step.independent < @min(i, executor.together_max - 1)) : (step.independent += 1) {
                if (!check.independent(cmd, &self.commands[i - 1 - step.independent])) break;
            }
            row.* = .{ .op = cmd.op, .variant = cmd.variant };
            self.scratch_bytes = @max(self.scratch_bytes, largestWorkspace(cmd, table, desc.tokens_max, threads));
        }
        for (self.commands, 0..) |*cmd, i| try self.collect(memory.allocator(), cmd, @intCast(i));
        self.memory = memory;
        return self;
    }

    pub fn destroy(self: *Program) void {
        const gpa = self.memory.child_allocator;
        self.memory.deinit();
        gpa.destroy(self);
    }

    /// About how much this run takes of what the program needs for its most tokens.
    pub fn share(self: *const Program, bytes: u64) u64 {
        return @intCast(@as(u128, bytes) * @as(u64, @intCast(self.planned_tokens)) / self.tokens_max);
    }

    fn collect(self: *Program, gpa: std.mem.Allocator, cmd: *abi.Command, index: u32) !void {
        for (cmd.inputs[0..cmd.input_count]) |*desc| try self.collectDesc(gpa, desc);
        for (cmd.outputs[0..cmd.output_count]) |*desc| try self.collectDesc(gpa, desc);
        for (&cmd.ints, cmd.int_registers) |*value, register| {
            if (register != 0) try self.patches.append(gpa, .{ .target = value, .register = register });
        }
        if (rules.hasValueCheck(cmd)) try self.value_checks.append(gpa, index);
    }

    fn collectDesc(self: *Program, gpa: std.mem.Allocator, desc: *abi.TensorDesc) !void {
        if (desc.rank == 0) return;
        if (desc.space == @intFromEnum(abi.Space.arena)) {
            try self.arena_patches.append(gpa, .{ .target = &desc.data, .offset = desc.data });
            desc.space = @intFromEnum(abi.Space.address);
        }
        for (0..desc.rank) |i| {
            if (desc.symbolic_dims >> @intCast(i) & 1 == 0) continue;
            try self.patches.append(gpa, .{ .target = &desc.shape[i], .register = @intFromEnum(abi.Register.tokens) });
        }
        desc.symbolic_dims = 0;
    }

    /// Makes the commands those of this run. No allocation; `last` gets the text of a failure.
    pub fn resolve(self: *Program, registers: *const abi.Registers, arena_base: u64, pool_threads: u32, last: *LastError) check.Error!void {
        var values = registers.values;
        const tokens = values[@intFromEnum(abi.Register.tokens)];
        const position = values[@intFromEnum(abi.Register.position)];
        if (tokens < 1 or tokens > self.tokens_max) {
            last.set("run: {d} tokens, the program takes 1 to {d}", .{ tokens, self.tokens_max });
            return error.Invalid;
        }
        if (position < 0 or position > check.int_max) {
            last.set("run: the position {d} is out of range", .{position});
            return error.Invalid;
        }
        values[@intFromEnum(abi.Register.last)] = tokens - 1;
        values[@intFromEnum(abi.Register.context)] = position + tokens;
        for (self.patches.items) |patch| patch.target.* = values[patch.register];
        if (arena_base != self.arena_base) {
            for (self.arena_patches.items) |patch| patch.target.* = arena_base + patch.offset;
            self.arena_base = arena_base;
        }
        for (self.value_checks.items) |index| try rules.checkValues(&self.commands[index], last);
        // Attention's work grows with the context: a plan holds until that has doubled, so few runs make one.
        const magnitude: u7 = 64 - @as(u7, @clz(position + tokens));
        if (tokens != self.planned_tokens or magnitude != self.planned_magnitude) {
            executor.plan(self.steps, pool_threads);
            self.planned_tokens = tokens;
            self.planned_magnitude = magnitude;
        }
    }
};

/// What a command needs at the largest token count, with the cache as full as it can be.
fn largestWorkspace(cmd: *const abi.Command, table: *const context.KernelTable, tokens_max: u64, threads: u32) u64 {
    var largest = cmd.*;
    const tokens: i64 = @intCast(tokens_max);
    const op: rules.OpId = @enumFromInt(cmd.op);
    const capacity = switch (op) {
        .attention => cmd.inputs[3].shape[0] *| cmd.inputs[1].shape[2],
        .kv_append => cmd.inputs[1].shape[0] *| cmd.outputs[0].shape[2],
        else => tokens,
    };
    for (&largest.ints, cmd.int_registers) |*value, register| {
        switch (@as(abi.Register, @enumFromInt(register))) {
            .literal => {},
            .tokens => value.* = tokens,
            .position => value.* = @max(0, capacity - tokens),
            .last => value.* = tokens - 1,
            .context => value.* = @max(capacity, tokens),
        }
    }
    return table.workspaces[cmd.op - 1](&largest, threads);
}
