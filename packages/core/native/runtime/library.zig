//! The functions of a CPU backend's table, over a platform that says which levels there are and which can run here.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const errors = @import("errors.zig");
const os = @import("os.zig");
const wait = @import("wait.zig");
const Device = @import("device.zig").Device;
const LastError = errors.LastError;

/// An ISA level of a library.
pub const Level = struct {
    name: []const u8,
    kernels: *const fn () callconv(.c) *const context.KernelTable,
};

/// Devices open at once in a process.
const devices_max = 64;

/// A place for a device. It is free again when the device is gone and nobody is inside any more.
const Slot = struct {
    /// 0 while nothing is here, `closing` from the beginning to the end of `close`; else generation << 8 | slot + 1.
    handle: std.atomic.Value(u64) = .init(0),
    /// Calls that may be using the device.
    callers: std.atomic.Value(u32) = .init(0),
    device: Device = undefined,

    /// No handle: those have a generation.
    const closing = 1;

    /// Counts a caller in; false when the handle is not of the device that is open here.
    fn enter(self: *Slot, handle: u64) bool {
        // All sequentially consistent: either `close` sees this caller, or this caller the closing.
        _ = self.callers.fetchAdd(1, .seq_cst);
        if (self.handle.load(.seq_cst) == handle) return true;
        self.leave();
        return false;
    }

    fn leave(self: *Slot) void {
        _ = self.callers.fetchSub(1, .seq_cst);
        if (self.handle.load(.seq_cst) == closing) wait.wakeAll(&self.callers);
    }

    /// Lets the call that is running end and those that wait for it fail, then takes the device down.
    fn close(self: *Slot, handle: u64) bool {
        if (self.handle.cmpxchgStrong(handle, closing, .seq_cst, .seq_cst) != null) return false;
        self.device.closing.store(true, .release);
        while (true) {
            const callers = self.callers.load(.seq_cst);
            if (callers == 0) break;
            wait.sleep(&self.callers, callers);
        }
        self.device.deinit();
        self.handle.store(0, .seq_cst);
        return true;
    }
};

/// Builds the table of functions. `platform` gives `name`, `levels` (lowest first), `whyNot(level) ?[]const u8`,
/// `cpuName(buffer) []const u8`, `microarchitecture() ?[]const u8`, `threadsPerCore() u32`, `writeFeatures(json) !void` and
/// `packedBytes(dtype, n, k, *packed_dtype) u64`.
pub fn Library(comptime platform: type) type {
    return struct {
        var lock: wait.Lock = .{};
        var slots: [devices_max]Slot = @splat(.{});
        var generation: std.atomic.Value(u64) = .init(0);

        pub const table: abi.Backend = .{
            .describe = describe,
            .open = open,
            .close = close,
            .alloc = alloc,
            .free = free,
            .copy = copy,
            .map_file = mapFile,
            .unmap_file = unmapFile,
            .supports = supports,
            .packed_bytes = packedBytes,
            .submit = submit,
            .compile = compile,
            .destroy = destroy,
            .run = run,
            .profile = profile,
            .last_error = lastError,
        };

        /// The slot of a handle, which the caller must leave; null, and a text for handle 0, when it is not open.
        fn enter(handle: u64) ?*Slot {
            if (slotOf(handle)) |slot| if (slot.enter(handle)) return slot;
            notOpen(handle);
            return null;
        }

        fn slotOf(handle: u64) ?*Slot {
            const index = (handle & 0xff) -% 1;
            return if (handle >> 8 != 0 and index < devices_max) &slots[@intCast(index)] else null;
        }

        fn notOpen(handle: u64) void {
            if (slotOf(handle) != null and handle >> 8 <= generation.load(.acquire)) return errors.global.set(LastError.closed, .{});
            errors.global.set("the backend is not open", .{});
        }

        fn status(result: abi.Status) i32 {
            return @intFromEnum(result);
        }

        fn best() usize {
            var index = platform.levels.len - 1;
            while (index > 0 and platform.whyNot(platform.levels[index].name) != null) index -= 1;
            return index;
        }

        fn describe(out: u64, capacity: u64) callconv(.c) u64 {
            var buffer: [4096]u8 = undefined;
            var writer: std.Io.Writer = .fixed(&buffer);
            var json: std.json.Stringify = .{ .writer = &writer };
            writeDescription(&json) catch return 0;
            return errors.copyText(writer.buffered(), out, capacity);
        }

        fn writeDescription(json: *std.json.Stringify) !void {
            var cpu: [64]u8 = undefined;
            try json.beginObject();
            try json.objectField("name");
            try json.write(platform.name);
            try json.objectField("available");
            try json.write(true);
            try json.objectField("reason");
            try json.write("");
            try json.objectField("cpu");
            try json.write(platform.cpuName(&cpu));
            try json.objectField("microarchitecture");
            try json.write(platform.microarchitecture() orelse "");
            try json.objectField("level");
            try json.write(platform.levels[best()].name);
            try json.objectField("levels");
            try json.beginArray();
            for (platform.levels) |level| if (platform.whyNot(level.name) == null) try json.write(level.name);
            try json.endArray();
            try json.objectField("missing");
            try json.beginObject();
            for (platform.levels) |level| if (platform.whyNot(level.name)) |reason| {
                try json.objectField(level.name);
                try json.write(reason);
            };
            try json.endObject();
            try json.objectField("features");
            try json.beginArray();
            try platform.writeFeatures(json);
            try json.endArray();
            try json.objectField("cores");
            try json.write(os.physicalCores(platform.threadsPerCore()));
            try json.objectField("memory_bytes");
            try json.write(os.memoryBytes());
            try json.endObject();
        }

        /// The level of a name, the best one for an empty name; null and a text when it can't be.
        fn findLevel(name: []const u8) ?*const Level {
            if (name.len == 0) return &platform.levels[best()];
            var problem: []const u8 = "there is no such level";
            for (&platform.levels) |*level| if (std.mem.eql(u8, level.name, name)) {
                problem = platform.whyNot(name) orelse return level;
            };
            var buffer: [256]u8 = undefined;
            var writer: std.Io.Writer = .fixed(&buffer);
            for (platform.levels) |level| {
                if (platform.whyNot(level.name) == null) writer.print("{s}{s}", .{ if (writer.end > 0) ", " else "", level.name }) catch break;
            }
            errors.global.set("open: level \"{s}\": {s}; possible here: {s}", .{ name, problem, writer.buffered() });
            return null;
        }

        fn open(options: *const abi.OpenOptions) callconv(.c) u64 {
            const level = findLevel(std.mem.sliceTo(&options.level, 0)) orelse return 0;
            os.pinLibrary(@ptrCast(&slots));
            lock.acquire();
            defer lock.release();
            for (&slots, 1..) |*slot, number| {
                if (slot.handle.load(.acquire) != 0) continue;
                const threads = if (options.threads == 0) os.physicalCores(platform.threadsPerCore()) else options.threads;
                slot.device.init(level.kernels(), threads, options.spin_us, os.memoryBytes()) catch {
                    errors.global.set("open: the system has no memory left", .{});
                    return 0;
                };
                const handle = (generation.fetchAdd(1, .acq_rel) + 1) << 8 | number;
                slot.handle.store(handle, .seq_cst);
                return handle;
            }
            errors.global.set("open: {d} backends are open already; close one", .{devices_max});
            return 0;
        }

        fn close(handle: u64) callconv(.c) void {
            if (slotOf(handle)) |slot| if (slot.close(handle)) return;
            notOpen(handle);
        }

        fn alloc(handle: u64, bytes: u64) callconv(.c) u64 {
            const slot = enter(handle) orelse return 0;
            defer slot.leave();
            return slot.device.alloc(bytes);
        }

        fn free(handle: u64, address: u64) callconv(.c) void {
            const slot = enter(handle) orelse return;
            defer slot.leave();
            slot.device.free(address);
        }

        fn copy(handle: u64, dst: u64, src: u64, bytes: u64) callconv(.c) i32 {
            const slot = enter(handle) orelse return status(.invalid);
            defer slot.leave();
            const device = &slot.device;
            if (bytes == 0) return status(.ok);
            if (dst == 0 or src == 0) {
                device.errors.set("copy: an address is 0", .{});
                return status(.invalid);
            }
            const to: [*]u8 = @ptrFromInt(dst);
            const from: [*]const u8 = @ptrFromInt(src);
            @memmove(to[0..@intCast(bytes)], from[0..@intCast(bytes)]);
            return status(.ok);
        }

        fn mapFile(handle: u64, path: u64, offset: u64, bytes: u64, out: *abi.MappedFile) callconv(.c) i32 {
            const slot = enter(handle) orelse return status(.invalid);
            defer slot.leave();
            const device = &slot.device;
            if (path == 0) return status(.invalid);
            return status(device.mapFile(@ptrFromInt(path), .{ .offset = offset, .bytes = bytes }, out));
        }

        fn unmapFile(handle: u64, address: u64, bytes: u64) callconv(.c) i32 {
            const slot = enter(handle) orelse return status(.invalid);
            defer slot.leave();
            return status(slot.device.unmapFile(address, bytes));
        }

        fn supports(handle: u64, command: *const abi.Command) callconv(.c) i32 {
            const slot = enter(handle) orelse return 0;
            defer slot.leave();
            return @intFromBool(slot.device.supports(command));
        }

        fn packedBytes(handle: u64, dtype: u32, n: u64, k: u64, packed_dtype: *u32) callconv(.c) u64 {
            const slot = enter(handle) orelse return 0;
            defer slot.leave();
            const device = &slot.device;
            const known = std.enums.fromInt(abi.Dtype, dtype);
            const sane = n >= 1 and k >= 1 and n <= 1 << 32 and k <= 1 << 32;
            const bytes = if (known != null and sane) platform.packedBytes(known.?, n, k, packed_dtype) else 0;
            if (bytes == 0) {
                const name = if (known) |one| @tagName(one) else "an unknown dtype";
                device.errors.set("pack_weight: {s} [{d}, {d}] can't be packed", .{ name, n, k });
            }
            return bytes;
        }

        fn submit(handle: u64, commands: u64, count: u64) callconv(.c) i32 {
            const slot = enter(handle) orelse return status(.invalid);
            defer slot.leave();
            const device = &slot.device;
            if (count == 0) return status(.ok);
            if (commands == 0 or commands % 8 != 0) {
                device.errors.set("submit: {x} is no address of commands", .{commands});
                return status(.invalid);
            }
            return status(device.submit(@as([*]const abi.Command, @ptrFromInt(commands))[0..@intCast(count)]));
        }

        fn compile(handle: u64, program: *const abi.ProgramDesc, compiled: *u64) callconv(.c) i32 {
            const slot = enter(handle) orelse return status(.invalid);
            defer slot.leave();
            const device = &slot.device;
            if (program.command_count > 0 and (program.commands == 0 or program.commands % 8 != 0)) {
                device.errors.set("compile: {x} is no address of commands", .{program.commands});
                return status(.invalid);
            }
            return status(device.compile(program, compiled));
        }

        fn destroy(handle: u64, program: u64) callconv(.c) void {
            const slot = enter(handle) orelse return;
            defer slot.leave();
            slot.device.destroy(program);
        }

        fn run(handle: u64, program: u64, registers: *const abi.Registers) callconv(.c) i32 {
            const slot = enter(handle) orelse return status(.invalid);
            defer slot.leave();
            return status(slot.device.run(program, registers));
        }

        fn profile(handle: u64, program: u64, rows: u64, capacity: u64) callconv(.c) u64 {
            const slot = enter(handle) orelse return 0;
            defer slot.leave();
            return slot.device.profile(program, rows, capacity);
        }

        fn lastError(handle: u64, out: u64, capacity: u64) callconv(.c) u64 {
            if (handle != 0) if (enter(handle)) |slot| {
                defer slot.leave();
                return slot.device.errors.copyTo(out, capacity);
            };
            return errors.global.copyTo(out, capacity);
        }
    };
}
