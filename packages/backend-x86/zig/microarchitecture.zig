//! Names of micro-architectures by what leaf 1 of cpuid says, for the rows of the kernel selector.
//!
//! Numbers: Intel SDM volume 2A (CPUID, figure 3-6) and volume 4, table 2-1; for AMD, arch/x86/kernel/cpu/amd.c of Linux.

const std = @import("std");

pub const Vendor = enum { intel, amd, other };

/// The vendor by the string of leaf 0.
pub fn vendorOf(text: *const [12]u8) Vendor {
    if (std.mem.eql(u8, text, "GenuineIntel")) return .intel;
    return if (std.mem.eql(u8, text, "AuthenticAMD")) .amd else .other;
}

const amx_servers = [_][]const u8{ "sapphire-rapids", "emerald-rapids", "granite-rapids" };

/// The name of a CPU with this signature (leaf 1, EAX); null for those without a name here. Hypervisors may give a signature
/// of another CPU, but can't give instructions that there are not: one of Intel's that `has_tiles` (AMX) is a server from
/// Sapphire Rapids on, whatever its signature says, and "amx-server" where that names none of them.
pub fn nameOf(vendor: Vendor, signature: u32, has_tiles: bool) ?[]const u8 {
    const name = nameOfSignature(vendor, signature);
    if (vendor != .intel or !has_tiles) return name;
    for (amx_servers) |server| if (name != null and std.mem.eql(u8, name.?, server)) return name;
    return "amx-server";
}

fn nameOfSignature(vendor: Vendor, signature: u32) ?[]const u8 {
    const base_family = signature >> 8 & 0xf;
    const family = if (base_family == 0xf) base_family + (signature >> 20 & 0xff) else base_family;
    const model = (signature >> 4 & 0xf) | (signature >> 12 & 0xf0);
    return switch (vendor) {
        .amd => amd(family, model),
        .intel => if (family == 6) intel(model, signature & 0xf) else null,
        .other => null,
    };
}

fn amd(family: u32, model: u32) ?[]const u8 {
    return switch (family) {
        0x17 => if (model < 0x30) "zen" else "zen2",
        0x19 => switch (model) {
            0x00...0x0f, 0x20...0x5f => "zen3",
            0x10...0x1f, 0x60...0xaf => "zen4",
            else => null,
        },
        0x1a => switch (model) {
            0x00...0x2f, 0x40...0x4f, 0x60...0x7f => "zen5",
            else => null,
        },
        else => null,
    };
}

fn intel(model: u32, stepping: u32) ?[]const u8 {
    return switch (model) {
        0x3c, 0x3f, 0x45, 0x46 => "haswell",
        0x3d, 0x47, 0x4f, 0x56 => "broadwell",
        0x4e, 0x5e, 0x8e, 0x9e, 0xa5, 0xa6 => "skylake",
        // One model for three servers, of which the later two have VNNI.
        0x55 => if (stepping <= 4) "skylake-x" else if (stepping <= 7) "cascade-lake" else "cooper-lake",
        0x7d, 0x7e => "ice-lake",
        0x6a, 0x6c => "ice-lake-x",
        0x8c, 0x8d => "tiger-lake",
        0xa7 => "rocket-lake",
        0x97, 0x9a => "alder-lake",
        0xb7, 0xba, 0xbf => "raptor-lake",
        0xbe => "alder-lake-n",
        0x8f => "sapphire-rapids",
        0xcf => "emerald-rapids",
        0xad, 0xae => "granite-rapids",
        0xaa, 0xac => "meteor-lake",
        0xb5, 0xc5, 0xc6 => "arrow-lake",
        0xbd => "lunar-lake",
        else => null,
    };
}

test "signatures of known CPUs" {
    for ([_]struct { Vendor, u32, ?[]const u8 }{
        .{ .amd, 0x00830f10, "zen2" }, // EPYC 7002
        .{ .amd, 0x00a00f11, "zen3" }, // EPYC 7003
        .{ .amd, 0x00a20f12, "zen3" }, // Ryzen 5000
        .{ .amd, 0x00a10f11, "zen4" }, // EPYC 9004
        .{ .amd, 0x00a60f12, "zen4" }, // Ryzen 7000
        .{ .amd, 0x00b00f21, "zen5" }, // EPYC 9005
        .{ .amd, 0x00b40f40, "zen5" }, // Ryzen 9000
        .{ .intel, 0x00050654, "skylake-x" },
        .{ .intel, 0x00050657, "cascade-lake" },
        .{ .intel, 0x000806f8, "sapphire-rapids" },
        .{ .intel, 0x000c06f2, "emerald-rapids" },
        .{ .intel, 0x00090672, "alder-lake" },
        .{ .intel, 0x000906a3, "alder-lake" },
        .{ .intel, 0x000306c3, "haswell" },
        .{ .intel, 0x00000f43, null },
        .{ .amd, 0x00c00f00, null },
        .{ .other, 0x00a10f11, null },
    }) |case| {
        const name = nameOf(case[0], case[1], false);
        if (case[2]) |wanted| try std.testing.expectEqualStrings(wanted, name.?) else try std.testing.expectEqual(null, name);
    }
    // With AMX only names of CPUs that have it are believed.
    for ([_]struct { Vendor, u32, ?[]const u8 }{
        .{ .intel, 0x000806f8, "sapphire-rapids" },
        .{ .intel, 0x000c06f2, "emerald-rapids" },
        .{ .intel, 0x000a06d1, "granite-rapids" },
        .{ .intel, 0x000a0671, "amx-server" }, // a virtual machine that says rocket-lake
        .{ .intel, 0x00000f43, "amx-server" },
        .{ .amd, 0x00a10f11, "zen4" },
        .{ .amd, 0x00c00f00, null },
    }) |case| {
        const name = nameOf(case[0], case[1], true);
        if (case[2]) |wanted| try std.testing.expectEqualStrings(wanted, name.?) else try std.testing.expectEqual(null, name);
    }
    try std.testing.expectEqual(Vendor.amd, vendorOf("AuthenticAMD"));
    try std.testing.expectEqual(Vendor.other, vendorOf("HygonGenuine"));
}
