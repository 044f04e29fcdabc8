//! What this CPU can do, by cpuid and xgetbv (Intel SDM volume 2A, CPUID; volume 1, chapter 13 for the saved state).

const std = @import("std");
const builtin = @import("builtin");
const micro = @import("microarchitecture.zig");

const is_x86 = builtin.cpu.arch == .x86_64;

/// The levels by name, as packages/core/native/build.zig lists them.
pub const Level = enum { portable, avx2, avxvnni, avx512vnni, amx };

/// What the levels need, and what `doctor` prints.
pub const Features = struct {
    sse42: bool = false,
    avx: bool = false,
    avx2: bool = false,
    fma: bool = false,
    f16c: bool = false,
    /// BMI1, BMI2, LZCNT and MOVBE: the rest of x86-64-v3.
    v3_integer: bool = false,
    avxvnni: bool = false,
    /// F, CD, BW, DQ and VL: x86-64-v4.
    avx512: bool = false,
    avx512vnni: bool = false,
    avx512bf16: bool = false,
    avx512vbmi: bool = false,
    avx512vbmi2: bool = false,
    /// The system saves the tiles, which AMX counts for nothing without.
    tiles: bool = false,
    amx_int8: bool = false,
    amx_bf16: bool = false,

    /// Why kernels compiled for a level can't run on this CPU; null when they can.
    pub fn whyNot(self: Features, level: Level) ?[]const u8 {
        if (level == .portable) return null;
        if (!self.avx2) return "this CPU lacks AVX2";
        if (!(self.fma and self.f16c and self.v3_integer)) return "this CPU lacks FMA, F16C, BMI or MOVBE";
        switch (level) {
            .portable, .avx2 => {},
            .avxvnni => if (!self.avxvnni) return "this CPU lacks AVX-VNNI",
            .avx512vnni, .amx => {
                if (!self.avx512) return "this CPU lacks AVX-512 F, CD, BW, DQ and VL";
                if (!self.avx512vnni) return "this CPU lacks AVX-512 VNNI";
            },
        }
        if (level != .amx) return null;
        if (!(self.avx512bf16 and self.avx512vbmi and self.avx512vbmi2)) return "this CPU lacks AVX-512 BF16, VBMI and VBMI2";
        return if (self.tiles and self.amx_int8 and self.amx_bf16) null else "this CPU lacks AMX";
    }
};

const Registers = struct { a: u32 = 0, b: u32 = 0, c: u32 = 0, d: u32 = 0 };

fn cpuid(leaf: u32, sub: u32) Registers {
    if (!is_x86) return .{};
    var a: u32 = undefined;
    var b: u32 = undefined;
    var c: u32 = undefined;
    var d: u32 = undefined;
    asm volatile ("cpuid"
        : [_] "={eax}" (a),
          [_] "={ebx}" (b),
          [_] "={ecx}" (c),
          [_] "={edx}" (d),
        : [_] "{eax}" (leaf),
          [_] "{ecx}" (sub),
    );
    return .{ .a = a, .b = b, .c = c, .d = d };
}

/// Which register state the system saves (XCR0).
fn xgetbv() u32 {
    if (!is_x86) return 0;
    return asm volatile ("xgetbv"
        : [_] "={eax}" (-> u32),
        : [_] "{ecx}" (@as(u32, 0)),
        : .{ .edx = true });
}

fn bit(value: u32, comptime index: u5) bool {
    return value >> index & 1 == 1;
}

/// A feature counts only when the system saves the registers it needs (ymm, zmm and opmasks, tiles).
pub fn detect() Features {
    const highest = cpuid(0, 0).a;
    if (highest < 1) return .{};
    const basic = cpuid(1, 0);
    var features: Features = .{ .sse42 = bit(basic.c, 20) };
    if (!bit(basic.c, 27)) return features; // OSXSAVE
    const state = xgetbv();
    const ymm = state & 0x6 == 0x6;
    const zmm = state & 0xe6 == 0xe6;
    const extended = if (highest >= 7) cpuid(7, 0) else Registers{};
    const extended1 = if (highest >= 7 and extended.a >= 1) cpuid(7, 1) else Registers{};
    const amd = cpuid(0x8000_0001, 0);
    features.avx = ymm and bit(basic.c, 28);
    features.avx2 = features.avx and bit(extended.b, 5);
    features.fma = features.avx and bit(basic.c, 12);
    features.f16c = features.avx and bit(basic.c, 29);
    features.v3_integer = bit(extended.b, 3) and bit(extended.b, 8) and bit(amd.c, 5) and bit(basic.c, 22);
    features.avxvnni = features.avx2 and bit(extended1.a, 4);
    features.avx512 = zmm and bit(extended.b, 16) and bit(extended.b, 17) and bit(extended.b, 28) and
        bit(extended.b, 30) and bit(extended.b, 31);
    features.avx512vnni = features.avx512 and bit(extended.c, 11);
    features.avx512bf16 = features.avx512 and bit(extended1.a, 5);
    features.avx512vbmi = features.avx512 and bit(extended.c, 1);
    features.avx512vbmi2 = features.avx512 and bit(extended.c, 6);
    features.tiles = state & 0x60000 == 0x60000 and bit(extended.d, 24);
    features.amx_int8 = features.tiles and bit(extended.d, 25);
    features.amx_bf16 = features.tiles and bit(extended.d, 22);
    return features;
}

/// The brand string ("AMD EPYC …"), without surrounding blanks; the architecture's name elsewhere.
pub fn brand(buffer: *[48]u8) []const u8 {
    if (!is_x86 or cpuid(0x8000_0000, 0).a < 0x8000_0004) return @tagName(builtin.cpu.arch);
    for (0..3) |i| {
        const part = cpuid(0x8000_0002 + @as(u32, @intCast(i)), 0);
        inline for (.{ part.a, part.b, part.c, part.d }, 0..) |value, j| {
            std.mem.writeInt(u32, buffer[i * 16 + j * 4 ..][0..4], value, .little);
        }
    }
    return std.mem.trim(u8, std.mem.sliceTo(buffer, 0), " ");
}

/// The micro-architecture ("zen4", "skylake-x"); null when it has no name here.
pub fn microarchitecture() ?[]const u8 {
    const first = cpuid(0, 0);
    if (first.a < 1) return null;
    const vendor: [12]u8 = @bitCast([3]u32{ first.b, first.d, first.c });
    const has_tiles = first.a >= 7 and bit(cpuid(7, 0).d, 24);
    return micro.nameOf(micro.vendorOf(&vendor), cpuid(1, 0).a, has_tiles);
}

/// Hardware threads per core (leaf 0xB), 1 when the CPU does not say.
pub fn threadsPerCore() u32 {
    if (cpuid(0, 0).a < 0xb) return 1;
    const level = cpuid(0xb, 0);
    const is_smt = level.c >> 8 & 0xff == 1;
    return if (is_smt) @max(1, level.b & 0xffff) else 1;
}

test {
    _ = micro;
}

test "detected features are consistent" {
    const features = detect();
    try std.testing.expectEqual(null, features.whyNot(.portable));
    for ([_]Level{ .avx512vnni, .avxvnni, .amx }) |level| {
        if (features.whyNot(level) == null) try std.testing.expectEqual(null, features.whyNot(.avx2));
    }
    if (features.whyNot(.amx) == null) try std.testing.expectEqual(null, features.whyNot(.avx512vnni));
    try std.testing.expectEqualStrings("this CPU lacks AVX2", (Features{}).whyNot(.amx).?);
    var buffer: [48]u8 = undefined;
    try std.testing.expect(brand(&buffer).len > 0);
    try std.testing.expect(threadsPerCore() >= 1);
}
