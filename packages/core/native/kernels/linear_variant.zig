//! What the selector asks of `linear` (abi.LinearVariant), and what a level makes of it.

const std = @import("std");
const abi = @import("abi");

/// The variant of a command that passed the boundary.
pub fn of(cmd: *const abi.Command) abi.LinearVariant {
    return abi.LinearVariant.decode(cmd.variant).?;
}

/// Whether so many rows go through GEMM. `few` rows are the level's own bound of GEMV.
pub fn isGemm(variant: abi.LinearVariant, rows: usize, few: usize) bool {
    return switch (variant.mode) {
        .gemv => false,
        .gemm => true,
        else => rows > if (variant.few_rows == 0) few else variant.few_rows,
    };
}

/// The register tile to use, of those compiled (`sizes`, in rows, rising): `own` when nothing is asked, else the largest
/// that is not above what is asked, or the smallest.
pub fn tileRows(variant: abi.LinearVariant, comptime sizes: []const usize, own: usize) usize {
    if (variant.tile_rows == 0) return own;
    var best = sizes[0];
    for (sizes) |size| if (size <= variant.tile_rows) {
        best = size;
    };
    return best;
}

test "fields that are 0 leave the choice to the level" {
    try std.testing.expect(!isGemm(.{}, 8, 8) and isGemm(.{}, 9, 8));
    try std.testing.expect(isGemm(.{ .few_rows = 2 }, 3, 8) and !isGemm(.{ .few_rows = 200 }, 200, 8));
    try std.testing.expect(isGemm(.{ .mode = .gemm }, 1, 8) and !isGemm(.{ .mode = .gemv, .few_rows = 2 }, 1000, 8));
    const sizes = [_]usize{ 4, 6, 12 };
    for ([_][2]u6{ .{ 0, 6 }, .{ 1, 4 }, .{ 4, 4 }, .{ 5, 4 }, .{ 11, 6 }, .{ 63, 12 } }) |pair| {
        try std.testing.expectEqual(@as(usize, pair[1]), tileRows(.{ .tile_rows = pair[0] }, &sizes, 6));
    }
}

test "bits of a variant" {
    try std.testing.expectEqual(abi.LinearVariant{}, abi.LinearVariant.decode(0).?);
    const full: abi.LinearVariant = .{ .mode = .gemm, .few_rows = 3, .tile_rows = 5, .run = 7, .prefetch = 9 };
    try std.testing.expectEqual(@as(u32, 2 | 3 << 2 | 5 << 10 | 7 << 16 | 9 << 28), @as(u32, @bitCast(full)));
    try std.testing.expectEqual(full, abi.LinearVariant.decode(@bitCast(full)).?);
    for ([_]u32{ 3, 3 | 1 << 28 }) |bits| try std.testing.expectEqual(null, abi.LinearVariant.decode(bits));
}
