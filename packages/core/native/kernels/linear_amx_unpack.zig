//! Weights, and pairs of floats, as the bf16 that AMX tiles multiply.

const dot = @import("dot.zig");
const packed_weights = @import("packed.zig");

const F = dot.F;
const U = dot.U;
const Kind = packed_weights.Kind;

/// The weights of a panel in a block of steps as tiles of bf16: row = two elements of K, in it column by column.
pub fn unpackPanel(comptime kind: Kind, base: [*]const u8, first: usize, steps: usize, out: [*]align(64) u8, tile_stride: usize) void {
    @setEvalBranchQuota(20_000);
    const f = comptime packed_weights.form(kind);
    const panel = packed_weights.Panel(kind).init(base);
    for (0..steps) |s| {
        const tile: [*]align(64) U = @ptrCast(@alignCast(out + s * tile_stride));
        const codes = panel.blockCodes(first + s, 0);
        const scales = panel.blockScales(first + s, 0);
        inline for (0..comptime f.groups()) |g| {
            const zero: F = @splat(-(codeBase(kind) + @as(comptime_int, f.zero)));
            const offset = if (f.has_min) @mulAdd(F, zero, scales.scale[g], scales.min[g]) else zero * scales.scale[g];
            const scale = [2]F{ inPairs(scales.scale[g], 0), inPairs(scales.scale[g], 8) };
            const offsets = [2]F{ inPairs(offset, 0), inPairs(offset, 8) };
            inline for (g * f.group / 4..(g + 1) * f.group / 4) |four| inline for (0..2) |pair| {
                var halves: [2]F = undefined;
                inline for (0..2) |h| halves[h] = @mulAdd(F, pickCodes(kind, codes[four], pair, h * 8), scale[h], offsets[h]);
                tile[four * 2 + pair] = roundPairs(halves[1], halves[0]);
            };
        }
    }
}

/// What `pickCodes` adds to a code. Scales have at most 19 bits, so that the product of a scale with this and the zero is
/// exact, and what comes out is as if it were 0. A sum with a minimum would be rounded.
fn codeBase(comptime kind: Kind) comptime_int {
    return switch (kind) {
        .q4_0, .q5_0, .q6_k => 0x80,
        .q8_0 => 0x8000,
        else => 0,
    };
}

/// Columns from `first` on, each twice.
inline fn inPairs(x: F, comptime first: comptime_int) F {
    const order = comptime blk: {
        var lanes: [16]i32 = undefined;
        for (&lanes, 0..) |*lane, i| lane.* = first + i / 2;
        break :blk lanes;
    };
    return @shuffle(f32, x, undefined, order);
}

/// Codes 2 * pair and 2 * pair + 1 of each of eight columns from `first` on, of four codes a column; plus `codeBase`.
/// Assembly, because the compiler takes a shuffle of 64 bytes apart.
inline fn pickCodes(comptime kind: Kind, codes: U, comptime pair: comptime_int, comptime first: comptime_int) F {
    // In a float of 2^(7 + 8n) a byte of the mantissa counts ones: put there, a code needs no conversion.
    const base: f32 = comptime codeBase(kind);
    const byte = comptime if (base == 0) 0 else if (base == 0x80) 2 else 1;
    const from = comptime blk: {
        var bytes: [64]u8 = @splat(0);
        for (0..16) |i| bytes[i * 4 + byte] = (first + i / 2) * 4 + 2 * pair + i % 2;
        break :blk @as(U, bytes);
    };
    const lanes = asm ("vpermb %[codes], %[from], %[out] {%[mask]}"
        : [out] "=v" (-> U),
        : [codes] "v" (codes),
          [from] "v" (from),
          [mask] "^Yk" (@as(u64, 0x1111_1111_1111_1111 << byte)),
          [_] "0" (@as(U, @bitCast(@as(F, @splat(base))))),
    );
    return if (base == 0) @floatFromInt(@as(dot.I, @bitCast(lanes))) else @bitCast(lanes);
}

/// 32 bf16, those of `low` first; to nearest even, denormals to zero.
pub inline fn roundPairs(high: F, low: F) U {
    return asm ("vcvtne2ps2bf16 %[low], %[high], %[out]"
        : [out] "=v" (-> U),
        : [high] "v" (high),
          [low] "v" (low),
    );
}
