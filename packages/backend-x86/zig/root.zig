//! libmllm_x86: picks an ISA level by cpuid and exports the table of functions.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const kernels = @import("kernels");
const runtime = @import("runtime");
const options = @import("levels");
const cpuid = @import("cpuid.zig");

/// What the runtime asks about this machine.
const platform = struct {
    pub const name = "x86";

    pub const levels: [options.levels.len]runtime.Level = blk: {
        var list: [options.levels.len]runtime.Level = undefined;
        for (options.levels, &list) |level, *entry| entry.* = .{
            .name = level,
            .kernels = @extern(*const fn () callconv(.c) *const context.KernelTable, .{ .name = "mllm_kernels_" ++ level }),
        };
        break :blk list;
    };

    pub fn isSupported(level: []const u8) bool {
        return cpuid.detect().has(level);
    }

    pub fn cpuName(buffer: *[64]u8) []const u8 {
        return cpuid.brand(buffer[0..48]);
    }

    pub fn threadsPerCore() u32 {
        return cpuid.threadsPerCore();
    }

    pub fn writeFeatures(json: *std.json.Stringify) !void {
        const features = cpuid.detect();
        inline for (@typeInfo(cpuid.Features).@"struct".fields) |field| {
            if (@field(features, field.name)) try json.write(field.name);
        }
    }

    pub fn packedBytes(dtype: abi.Dtype, n: u64, k: u64, packed_dtype: *u32) u64 {
        return kernels.packed_weights.packedBytes(dtype, n, k, packed_dtype);
    }
};

const Library = runtime.Library(platform);

/// The one symbol of the library.
export fn mllm_backend() callconv(.c) *const abi.Backend {
    return &Library.table;
}

test {
    _ = cpuid;
}

test "every level has a kernel for every op" {
    for (platform.levels) |level| try std.testing.expectEqual(@import("ops").table.len, level.kernels().count);
}
