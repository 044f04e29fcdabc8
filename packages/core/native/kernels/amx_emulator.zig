//! The AMX instructions in software, for tests on CPUs without them: a handler of SIGILL that decodes the instruction
//! which trapped, does what Intel's SDM says (volume 2, "Operation" of each) to tiles kept per thread, and steps over it.
//!
//! Linux on x86-64 only, and only in tests: `install` is in the emulated variant of the library and in the kernels'
//! unit tests. An instruction that is not AMX, or that a CPU would refuse (shapes that do not fit, no configuration),
//! goes to the handler that was there before, and so ends the process as it would without us.

const std = @import("std");
const builtin = @import("builtin");
const amx = @import("amx.zig");

const posix = std.posix;
const tile_count = 8;

/// What a thread's tiles hold. Palette 0 is the initial state: nothing is configured.
const Tiles = struct {
    config: amx.Config = initial,
    data: [tile_count][amx.rows][amx.row_bytes]u8 align(64) = @splat(@splat(@splat(0))),

    const initial: amx.Config = .{ .palette = 0, .row_bytes = @splat(0), .rows = @splat(0) };

    fn rowsOf(self: *const Tiles, tile: usize) usize {
        return self.config.rows[tile];
    }

    fn bytesOf(self: *const Tiles, tile: usize) usize {
        return self.config.row_bytes[tile];
    }
};

threadlocal var tiles: Tiles = .{};

/// Where ucontext_t has rip and the general registers (asm/ucontext.h, asm/sigcontext.h).
const Saved = extern struct {
    flags: u64,
    link: u64,
    stack: [3]u64,
    /// r8 … r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip
    registers: [17]u64,

    const rip = 16;
    /// Index in `registers` by the number that instructions use: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 …
    const by_number = [16]u8{ 13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7 };

    fn get(self: *const Saved, number: usize) u64 {
        return self.registers[by_number[number]];
    }
};

var previous: posix.Sigaction = undefined;
var installed: std.atomic.Value(bool) = .init(false);

/// Handles SIGILL from now on, in all threads of the process.
pub fn install() void {
    if (installed.swap(true, .acq_rel)) return;
    const action: posix.Sigaction = .{
        .handler = .{ .sigaction = handle },
        .mask = posix.sigemptyset(),
        .flags = posix.SA.SIGINFO | posix.SA.NODEFER,
    };
    posix.sigaction(.ILL, null, &previous);
    posix.sigaction(.ILL, &action, null);
}

fn handle(signal: posix.SIG, info: *const posix.siginfo_t, context: ?*anyopaque) callconv(.c) void {
    const saved: *Saved = @ptrCast(@alignCast(context.?));
    if (decode(saved)) |instruction| if (execute(instruction)) {
        saved.registers[Saved.rip] += instruction.length;
        return;
    };
    if (previous.flags & posix.SA.SIGINFO != 0) {
        if (previous.handler.sigaction) |chained| return chained(signal, info, context);
    }
    // Back to what it was; the instruction traps again and ends the process.
    posix.sigaction(.ILL, &previous, null);
}

// ---- decoding (SDM volume 2, 2.3: VEX prefixes)

const Prefix = enum(u2) { none = 0, x66 = 1, xf3 = 2, xf2 = 3 };

const Instruction = struct {
    opcode: u8,
    prefix: Prefix,
    /// Tile operands: ModRM.reg, ModRM.rm, VEX.vvvv.
    reg: u3,
    rm: u3,
    vvvv: u4,
    /// Of a memory operand; null when ModRM.rm is a tile.
    address: ?u64,
    /// The index register shifted by the scale: the stride of tile loads and stores.
    stride: u64,
    length: u64,
};

/// All AMX instructions have a three-byte VEX prefix with map 0F38, W 0 and L 0, and tiles 0 to 7.
fn decode(saved: *const Saved) ?Instruction {
    const rip = saved.registers[Saved.rip];
    const code: [*]const u8 = @ptrFromInt(rip);
    if (code[0] != 0xc4 or code[1] & 0x1f != 2 or code[2] & 0x84 != 0) return null;
    const modrm = code[4];
    if (code[1] & 0x80 == 0) return null; // VEX.R: a tile above 7
    var result: Instruction = .{
        .opcode = code[3],
        .prefix = @enumFromInt(code[2] & 3),
        .reg = @intCast(modrm >> 3 & 7),
        .rm = @intCast(modrm & 7),
        .vvvv = @intCast(~code[2] >> 3 & 15),
        .address = null,
        .stride = 0,
        .length = 5,
    };
    if (modrm >> 6 == 3) return if (code[1] & 0x20 == 0) null else result;
    const b: u8 = if (code[1] & 0x20 == 0) 8 else 0;
    const x: u8 = if (code[1] & 0x40 == 0) 8 else 0;
    var base: u64 = 0;
    var displacement_bytes: usize = ([_]usize{ 0, 1, 4 })[modrm >> 6];
    if (modrm & 7 == 4) {
        const sib = code[5];
        result.length += 1;
        const index = (sib >> 3 & 7) + x;
        if (index != 4) result.stride = saved.get(index) << @intCast(sib >> 6);
        if (sib & 7 == 5 and modrm >> 6 == 0) displacement_bytes = 4 else base = saved.get((sib & 7) + b);
    } else if (modrm & 7 == 5 and modrm >> 6 == 0) {
        displacement_bytes = 4;
        base = rip + result.length + 4;
    } else base = saved.get((modrm & 7) + b);
    const displacement: i64 = switch (displacement_bytes) {
        0 => 0,
        1 => @as(i8, @bitCast(code[result.length])),
        else => std.mem.readInt(i32, code[result.length..][0..4], .little),
    };
    result.length += displacement_bytes;
    result.address = base +% @as(u64, @bitCast(displacement));
    return result;
}

// ---- execution

/// Whether the CPU would have executed it.
fn execute(i: Instruction) bool {
    const tiled = tiles.config.palette == 1;
    switch (i.opcode) {
        0x49 => {
            if (i.vvvv != 0) return false;
            // ldtilecfg and sttilecfg use the index as part of the address.
            if (i.address) |address| return switch (i.prefix) {
                .none => i.reg == 0 and configure(@ptrFromInt(address +% i.stride)),
                .x66 => i.reg == 0 and storeConfig(@ptrFromInt(address +% i.stride)),
                else => false,
            };
            if (i.prefix == .none and i.reg == 0 and i.rm == 0) {
                tiles = .{};
                return true;
            }
            if (i.prefix != .xf2 or i.rm != 0 or !tiled) return false;
            tiles.data[i.reg] = @splat(@splat(0));
            return true;
        },
        0x4b => {
            const address = i.address orelse return false;
            if (i.vvvv != 0 or !tiled or i.prefix == .none) return false;
            if (i.prefix == .xf3) storeTile(i.reg, address, i.stride) else loadTile(i.reg, address, i.stride);
            return true;
        },
        0x5c, 0x5e => {
            if (i.address != null or i.vvvv > 7 or !tiled) return false;
            const b: u3 = @intCast(i.vvvv);
            if (!fit(i.reg, i.rm, b)) return false;
            if (i.opcode == 0x5c) {
                if (i.prefix != .xf3) return false;
                dotBf16(i.reg, i.rm, b);
            } else switch (i.prefix) {
                .none => dotInt(u8, u8, i.reg, i.rm, b),
                .x66 => dotInt(u8, i8, i.reg, i.rm, b),
                .xf3 => dotInt(i8, u8, i.reg, i.rm, b),
                .xf2 => dotInt(i8, i8, i.reg, i.rm, b),
            }
            return true;
        },
        else => return false,
    }
}

fn configure(from: *align(1) const amx.Config) bool {
    const config = from.*;
    if (config.palette == 0) {
        tiles = .{};
        return true;
    }
    if (config.palette != 1 or config.start_row >= amx.rows) return false;
    for (config.row_bytes, config.rows, 0..) |bytes, rows, tile| {
        if (bytes > amx.row_bytes or rows > amx.rows or (bytes == 0) != (rows == 0)) return false;
        if (tile >= tile_count and rows != 0) return false;
    }
    if (!std.mem.allEqual(u8, &config.reserved, 0)) return false;
    tiles = .{ .config = config };
    return true;
}

fn storeConfig(to: *align(1) amx.Config) bool {
    to.* = tiles.config;
    return true;
}

fn loadTile(tile: u3, address: u64, stride: u64) void {
    tiles.data[tile] = @splat(@splat(0));
    for (0..tiles.rowsOf(tile)) |r| {
        const from: [*]const u8 = @ptrFromInt(address +% r *% stride);
        @memcpy(tiles.data[tile][r][0..tiles.bytesOf(tile)], from);
    }
}

fn storeTile(tile: u3, address: u64, stride: u64) void {
    for (0..tiles.rowsOf(tile)) |r| {
        const to: [*]u8 = @ptrFromInt(address +% r *% stride);
        @memcpy(to, tiles.data[tile][r][0..tiles.bytesOf(tile)]);
    }
}

/// Whether the shapes of c [m][n], a [m][k] and b [k][n] fit, in groups of four bytes, and the tiles differ.
fn fit(c: u3, a: u3, b: u3) bool {
    if (c == a or c == b or a == b) return false;
    for ([_]u3{ c, a, b }) |tile| if (tiles.rowsOf(tile) == 0 or tiles.bytesOf(tile) % 4 != 0) return false;
    return tiles.rowsOf(c) == tiles.rowsOf(a) and tiles.bytesOf(c) == tiles.bytesOf(b) and
        tiles.bytesOf(a) == tiles.rowsOf(b) * 4;
}

const F = @Vector(16, f32);
const U = @Vector(16, u32);
const Words = [amx.rows][16]u32;

fn wordsOf(tile: u3) *Words {
    return @ptrCast(@alignCast(&tiles.data[tile]));
}

/// tdpbf16ps: per row the even and the odd products of all pairs are summed apart, each by fused multiply-adds in order;
/// both sums are added, and that is added to c. Denormals count as zero, before and after each step.
fn dotBf16(c: u3, a: u3, b: u3) void {
    const saved_mode = setRounding(0x9fc0); // nearest even, all masked, denormals are zeros, flush to zero
    defer _ = setRounding(saved_mode);
    const columns = tiles.bytesOf(c) / 4;
    const high: U = @splat(0xffff0000);
    for (0..tiles.rowsOf(c)) |m| {
        var even: F = @splat(0);
        var odd: F = @splat(0);
        for (0..tiles.bytesOf(a) / 4) |k| {
            const pair = wordsOf(a)[m][k];
            const row: U = wordsOf(b)[k];
            even = fused(@bitCast(pair << 16), @bitCast(row << @splat(16)), even);
            odd = fused(@bitCast(pair & 0xffff0000), @bitCast(row & high), odd);
        }
        const sums: [16]u32 = @bitCast(@as(F, @bitCast(wordsOf(c)[m])) + (even + odd));
        @memcpy(wordsOf(c)[m][0..columns], sums[0..columns]);
    }
}

/// As assembly, so that no compiler moves it out of the mode that `setRounding` made.
inline fn fused(a: f32, b: F, sum: F) F {
    return asm volatile ("vfmadd231ps %[b], %[a], %[sum]"
        : [sum] "=v" (-> F),
        : [a] "v" (@as(F, @splat(a))),
          [b] "v" (b),
          [in] "0" (sum),
    );
}

/// Sets MXCSR and returns what it was.
fn setRounding(mode: u32) u32 {
    var before: u32 = undefined;
    asm volatile (
        \\stmxcsr (%[before])
        \\ldmxcsr (%[mode])
        :
        : [before] "r" (&before),
          [mode] "r" (&mode),
        : .{ .memory = true });
    return before;
}

/// tdpbssd and its kin: dots of four bytes, sums wrap.
fn dotInt(comptime A: type, comptime B: type, c: u3, a: u3, b: u3) void {
    const columns = tiles.bytesOf(c) / 4;
    for (0..tiles.rowsOf(c)) |m| for (0..columns) |n| {
        var sum: i32 = @bitCast(wordsOf(c)[m][n]);
        for (0..tiles.bytesOf(a) / 4) |k| {
            const x: [4]A = @bitCast(wordsOf(a)[m][k]);
            const y: [4]B = @bitCast(wordsOf(b)[k][n]);
            for (x, y) |p, q| sum +%= @as(i32, p) * q;
        }
        wordsOf(c)[m][n] = @bitCast(sum);
    };
}
