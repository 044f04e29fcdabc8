//! An opened backend: threads, memory, mapped files, programs, and the text of the last failure.
//!
//! Calls on one device are serialised by its lock, so a Worker or an asynchronous run may share it.

const std = @import("std");
const abi = @import("abi");
const ops = @import("ops");
const context = @import("context");
const check = @import("check.zig");
const rules = @import("rules.zig");
const wait = @import("wait.zig");
const file_map = @import("file_map.zig");
const Executor = @import("executor.zig").Executor;
const Step = @import("executor.zig").Step;
const plan = @import("executor.zig").plan;
const LastError = @import("errors.zig").LastError;
const Memory = @import("memory.zig").Memory;
const Pool = @import("pool.zig").Pool;
const Program = @import("program.zig").Program;
const Workspace = @import("workspace.zig").Workspace;

const gpa = std.heap.c_allocator;

/// Commands of one `submit`.
const submit_max = 1 << 20;

pub const Device = struct {
    lock: wait.Lock = .{},
    /// Set once `close` has begun: whoever gets the lock from then on leaves it again.
    closing: std.atomic.Value(bool) = .init(false),
    errors: LastError = .{},
    table: *const context.KernelTable,
    memory_limit: u64,
    pool: Pool = undefined,
    executor: Executor = undefined,
    memory: Memory = .{},
    files: std.ArrayList(file_map.Mapping) = .empty,
    programs: std.ArrayList(?*Program) = .empty,
    steps: std.ArrayList(Step) = .empty,
    /// Shared by all programs: runs are one after the other.
    arena: Workspace = .{},
    scratch: Workspace = .{},

    /// The device must not move.
    pub fn init(self: *Device, table: *const context.KernelTable, threads: u32, spin_us: u32, memory_limit: u64) !void {
        self.* = .{ .table = table, .memory_limit = memory_limit };
        try self.pool.init(gpa, threads, spin_us);
        self.executor = .{ .pool = &self.pool };
    }

    /// Ends the threads and gives back all memory, files and programs, those still in use too. Nobody may be inside.
    pub fn deinit(self: *Device) void {
        self.pool.deinit(gpa);
        for (self.programs.items) |program| if (program) |live| live.destroy();
        for (self.files.items) |mapping| file_map.unmap(mapping);
        self.programs.deinit(gpa);
        self.files.deinit(gpa);
        self.steps.deinit(gpa);
        self.arena.deinit();
        self.scratch.deinit();
        self.memory.deinit();
    }

    /// Takes the lock; false, and a text, when the device was closed meanwhile.
    fn acquire(self: *Device) bool {
        self.lock.acquire();
        if (!self.closing.load(.acquire)) return true;
        self.lock.release();
        self.errors.set(LastError.closed, .{});
        return false;
    }

    pub fn alloc(self: *Device, bytes: u64) u64 {
        if (self.memory_limit > 0 and bytes > self.memory_limit) {
            self.errors.set("alloc: {d} MiB do not fit this machine's {d} MiB", .{ bytes >> 20, self.memory_limit >> 20 });
            return 0;
        }
        const block = self.memory.alloc(bytes) orelse {
            self.errors.set("alloc: the system has no {d} bytes left", .{bytes});
            return 0;
        };
        return @intFromPtr(block);
    }

    pub fn free(self: *Device, address: u64) void {
        if (address != 0 and !self.memory.free(address)) self.errors.set("free: {x} is no block in use", .{address});
    }

    pub fn mapFile(self: *Device, path: [*:0]const u8, range: file_map.Range, out: *abi.MappedFile) abi.Status {
        if (!self.acquire()) return .invalid;
        defer self.lock.release();
        switch (file_map.map(path, range)) {
            .ok => |mapping| {
                self.files.append(gpa, mapping) catch {
                    file_map.unmap(mapping);
                    return self.outOfMemory();
                };
                out.* = mapping.file;
                return .ok;
            },
            .failure => |failure| {
                self.errors.set("map_file: {s}: {s}", .{ path, failure.text() });
                return switch (failure) {
                    .no_memory => .out_of_memory,
                    .not_found => .not_found,
                    else => .io,
                };
            },
        }
    }

    pub fn unmapFile(self: *Device, address: u64, bytes: u64) abi.Status {
        if (!self.acquire()) return .invalid;
        defer self.lock.release();
        for (self.files.items, 0..) |mapping, i| {
            if (mapping.file.address != address or mapping.file.bytes != bytes) continue;
            file_map.unmap(mapping);
            _ = self.files.swapRemove(i);
            return .ok;
        }
        self.errors.set("unmap_file: no file is mapped there", .{});
        return .invalid;
    }

    pub fn supports(self: *Device, cmd: *const abi.Command) bool {
        if (!self.acquire()) return false;
        defer self.lock.release();
        check.command(cmd, .query, &self.errors) catch return false;
        return true;
    }

    pub fn submit(self: *Device, commands: []const abi.Command) abi.Status {
        if (!self.acquire()) return .invalid;
        defer self.lock.release();
        if (commands.len > submit_max) {
            self.errors.set("submit: {d} commands are more than {d}", .{ commands.len, submit_max });
            return .invalid;
        }
        self.steps.resize(gpa, commands.len) catch return self.outOfMemory();
        var scratch_bytes: u64 = 0;
        for (commands, self.steps.items) |*cmd, *step| {
            check.command(cmd, .eager, &self.errors) catch |err| return check.status(err);
            rules.checkValues(cmd, &self.errors) catch |err| return check.status(err);
            step.* = .{ .command = cmd, .kernel = self.table.kernels[cmd.op - 1] };
            scratch_bytes = @max(scratch_bytes, self.table.workspaces[cmd.op - 1](cmd, self.pool.threads));
        }
        if (!self.grow(&self.scratch, scratch_bytes)) return self.outOfMemory();
        self.scratch.prepare(scratch_bytes);
        plan(self.steps.items, self.pool.threads);
        return self.execute(self.steps.items, null);
    }

    /// `number` becomes the program's, from 1.
    pub fn compile(self: *Device, desc: *const abi.ProgramDesc, number: *u64) abi.Status {
        if (!self.acquire()) return .invalid;
        defer self.lock.release();
        const program = Program.create(gpa, desc, self.table, self.pool.threads, &self.errors) catch |err| return switch (err) {
            error.OutOfMemory => self.outOfMemory(),
            else => |refused| check.status(refused),
        };
        if (!self.grow(&self.scratch, program.scratch_bytes) or !self.grow(&self.arena, program.arena_bytes)) {
            self.errors.set("compile: an arena of {d} MiB and {d} MiB of scratch do not fit", .{
                program.arena_bytes >> 20, program.scratch_bytes >> 20,
            });
            program.destroy();
            return .out_of_memory;
        }
        number.* = self.keep(program) catch {
            program.destroy();
            return self.outOfMemory();
        };
        self.memory.trim(); // who has programs has loaded most weights
        return .ok;
    }

    fn keep(self: *Device, program: *Program) !u64 {
        for (self.programs.items, 1..) |*slot, number| {
            if (slot.* != null) continue;
            slot.* = program;
            return number;
        }
        try self.programs.append(gpa, program);
        return self.programs.items.len;
    }

    fn find(self: *Device, number: u64) ?*Program {
        if (number >= 1 and number <= self.programs.items.len) {
            if (self.programs.items[@intCast(number - 1)]) |program| return program;
        }
        self.errors.set("there is no program {d}", .{number});
        return null;
    }

    pub fn destroy(self: *Device, number: u64) void {
        if (!self.acquire()) return;
        defer self.lock.release();
        const program = self.find(number) orelse return;
        program.destroy();
        self.programs.items[@intCast(number - 1)] = null;
    }

    pub fn run(self: *Device, number: u64, registers: *const abi.Registers) abi.Status {
        if (!self.acquire()) return .invalid;
        defer self.lock.release();
        const program = self.find(number) orelse return .invalid;
        program.resolve(registers, @intFromPtr(self.arena.bytes.ptr), self.pool.threads, &self.errors) catch |err| return check.status(err);
        self.arena.prepare(program.share(program.arena_bytes));
        self.scratch.prepare(program.share(program.scratch_bytes));
        return self.execute(program.steps, if (program.profiling) program.rows else null);
    }

    fn execute(self: *Device, steps: []const Step, rows: ?[]abi.ProfileRow) abi.Status {
        const failure = self.executor.run(steps, self.scratch.bytes, rows) orelse return .ok;
        const cmd = steps[failure.index].command;
        self.errors.set("{s} on {f}: {s}", .{ ops.table[cmd.op - 1].name, check.show(&cmd.inputs[0]), failure.text });
        return .invalid;
    }

    /// Copies up to `capacity` rows; profiling begins with the first call. Returns the program's row count.
    pub fn profile(self: *Device, number: u64, out: u64, capacity: u64) u64 {
        if (!self.acquire()) return 0;
        defer self.lock.release();
        const program = self.find(number) orelse return 0;
        program.profiling = true;
        const count: usize = @intCast(@min(capacity, program.rows.len));
        if (count > 0 and out != 0) @memcpy(@as([*]align(1) abi.ProfileRow, @ptrFromInt(out)), program.rows[0..count]);
        return program.rows.len;
    }

    fn grow(self: *Device, workspace: *Workspace, bytes: u64) bool {
        return (self.memory_limit == 0 or bytes <= self.memory_limit) and workspace.grow(bytes);
    }

    fn outOfMemory(self: *Device) abi.Status {
        self.errors.set("the system has no memory left", .{});
        return .out_of_memory;
    }
};
