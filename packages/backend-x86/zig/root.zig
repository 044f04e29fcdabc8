//! libmllm_x86: picks an ISA level by cpuid and exports the table of functions.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const kernels = @import("kernels");
const runtime = @import("runtime");
const options = @import("levels");
const tile_permission = @import("tile_permission");
const cpuid = @import("cpuid.zig");

/// In the variant for tests: makes the instructions of AMX work on a CPU without them.
const emulate = @extern(*const fn () callconv(.c) void, .{ .name = "mllm_emulate_amx" });

/// What the runtime asks about this machine.
const platform = struct {
    pub const name = "x86";

    pub const levels: [options.names.len]runtime.Level = blk: {
        var list: [options.names.len]runtime.Level = undefined;
        for (options.names, &list) |level, *entry| entry.* = .{
            .name = level,
            .kernels = @extern(*const fn () callconv(.c) *const context.KernelTable, .{ .name = "mllm_kernels_" ++ level }),
        };
        break :blk list;
    };

    /// Why a level can't run here, in one sentence; null when it can.
    pub fn whyNot(level_name: []const u8) ?[]const u8 {
        const level = std.meta.stringToEnum(cpuid.Level, level_name).?; // `levels` has no other names
        const real = cpuid.detect();
        if (detect().whyNot(level)) |reason| return reason;
        return if (level == .amx and real.amx_bf16) tile_permission.refusal() else null;
    }

    pub fn cpuName(buffer: *[64]u8) []const u8 {
        return cpuid.brand(buffer[0..48]);
    }

    pub fn microarchitecture() ?[]const u8 {
        return cpuid.microarchitecture();
    }

    pub fn threadsPerCore() u32 {
        return cpuid.threadsPerCore();
    }

    pub fn writeFeatures(json: *std.json.Stringify) !void {
        const features = detect();
        inline for (@typeInfo(cpuid.Features).@"struct".fields) |field| {
            if (@field(features, field.name)) try json.write(field.name);
        }
    }

    pub fn packedBytes(dtype: abi.Dtype, n: u64, k: u64, packed_dtype: *u32) u64 {
        return kernels.packed_weights.packedBytes(dtype, n, k, packed_dtype);
    }
};

/// What the CPU has, and in the variant for tests what is emulated.
fn detect() cpuid.Features {
    var features = cpuid.detect();
    if (options.emulates_amx and !features.amx_bf16) {
        emulate();
        inline for (.{ "tiles", "amx_int8", "amx_bf16" }) |name| @field(features, name) = true;
    }
    return features;
}

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
