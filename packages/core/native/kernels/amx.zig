//! AMX, one inline function per instruction (Intel SDM volume 1 chapter 18, volume 2): eight tiles of up to 16 rows of
//! up to 64 bytes.
//!
//! No clobber says that an instruction writes a tile, so nothing but the caller may use tiles between `configure` and
//! `release`; the compiler does not by itself. A process asks the system first (backend-x86/zig/tile_permission.zig).

const std = @import("std");
const builtin = @import("builtin");

/// Whether this compilation may use these instructions.
pub const available = builtin.cpu.arch == .x86_64 and builtin.cpu.has(.x86, .amx_tile) and builtin.cpu.has(.x86, .amx_bf16) and
    builtin.cpu.has(.x86, .amx_int8);

/// Rows of a tile, and bytes of a row.
pub const rows = 16;
pub const row_bytes = 64;
pub const tile_bytes = rows * row_bytes;

/// The operand of ldtilecfg: palette 1, the shape of each tile.
pub const Config = extern struct {
    palette: u8 = 1,
    start_row: u8 = 0,
    reserved: [14]u8 = @splat(0),
    row_bytes: [16]u16,
    rows: [16]u8,

    /// All eight tiles as large as they can be.
    pub const full: Config align(64) = .{
        .row_bytes = [_]u16{row_bytes} ** 8 ++ [_]u16{0} ** 8,
        .rows = [_]u8{rows} ** 8 ++ [_]u8{0} ** 8,
    };
};

comptime {
    std.debug.assert(@sizeOf(Config) == 64);
}

fn text(comptime format: []const u8, comptime tiles: anytype) []const u8 {
    return std.fmt.comptimePrint(format, tiles);
}

/// Sets the shapes of the tiles of this thread and clears them. About 360 cycles with `release`.
pub inline fn configure(config: *align(64) const Config) void {
    asm volatile ("ldtilecfg (%[p])"
        :
        : [p] "r" (config),
        : .{ .memory = true });
}

/// Gives the tiles back: they are no longer part of this thread's state.
pub inline fn release() void {
    asm volatile ("tilerelease");
}

pub inline fn clear(comptime tile: u3) void {
    asm volatile (text("tilezero %%tmm{d}", .{tile}));
}

/// Rows `stride` bytes apart; 0 fills the tile with one row.
pub inline fn load(comptime tile: u3, from: [*]const u8, stride: usize) void {
    loadBy("tileloadd", tile, from, stride);
}

/// The same with the hint that the rows are better left in the second cache, and the first one to others.
pub inline fn loadPast(comptime tile: u3, from: [*]const u8, stride: usize) void {
    loadBy("tileloaddt1", tile, from, stride);
}

inline fn loadBy(comptime instruction: []const u8, comptime tile: u3, from: [*]const u8, stride: usize) void {
    asm volatile (text(instruction ++ " (%[p],%[s],1), %%tmm{d}", .{tile})
        :
        : [p] "r" (from),
          [s] "r" (stride),
        : .{ .memory = true });
}

pub inline fn store(comptime tile: u3, to: [*]u8, stride: usize) void {
    asm volatile (text("tilestored %%tmm{d}, (%[p],%[s],1)", .{tile})
        :
        : [p] "r" (to),
          [s] "r" (stride),
        : .{ .memory = true });
}

/// sums [m][n] f32 += a [m][k] * b [k][n], k in pairs of bf16: b is [k/2][n][2].
pub inline fn dotBf16(comptime sums: u3, comptime a: u3, comptime b: u3) void {
    asm volatile (text("tdpbf16ps %%tmm{d}, %%tmm{d}, %%tmm{d}", .{ b, a, sums }));
}

/// What the bytes of a and of b are: signed or unsigned.
pub const Bytes = enum { ss, su, us };

/// sums [m][n] i32 += a [m][k] * b [k][n], k in fours of bytes: b is [k/4][n][4]. Sums are exact, or wrap.
pub inline fn dotBytes(comptime kind: Bytes, comptime sums: u3, comptime a: u3, comptime b: u3) void {
    asm volatile (text("tdpb" ++ @tagName(kind) ++ "d %%tmm{d}, %%tmm{d}, %%tmm{d}", .{ b, a, sums }));
}
