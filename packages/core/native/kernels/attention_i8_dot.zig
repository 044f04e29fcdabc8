//! The two products of attention over pages in int8 (attention_i8_page.zig) in register tiles of a few rows of queries.
//! attention_i8_weights.zig has what lies between them.

const std = @import("std");
const dot = @import("dot.zig");
const simd = @import("simd.zig");
const i8_page = @import("attention_i8_page.zig");
const float = @import("attention_i8_weights.zig");

const Rows = float.Rows;
const Shape = i8_page.Shape;
const F = simd.F;
const lanes = simd.lanes;

/// Rows of a register tile, and how many vectors it may have.
pub const rows_max = switch (dot.level) {
    .avx512vnni, .avxvnni => 6,
    .avx2 => 4,
    .portable => 2,
};
const steps = if (dot.level == .avx512vnni) .{ 4, 2, 1 } else .{ 2, 1 };

/// Rows whose results stay in the first cache from page to page.
pub fn rowsAtMost(head_dim: usize) usize {
    return std.math.clamp(6144 / head_dim, 24, 96);
}

/// Keys are unsigned: their start from `query_starts` makes up for it.
pub const key_zero = 128;

pub fn takes(_: Shape) bool {
    return true;
}

/// Floats of the place for scores.
pub fn scoreFloats(shape: Shape) usize {
    return rows_max * shape.keys;
}

/// What a thread does before and after products.
pub fn begin() void {}
pub fn end() void {}

/// Scores, weights, maxima and sums.
pub fn weigh(all: *const Rows) void {
    var r: usize = 0;
    while (r < all.count) : (r += rows_max) {
        const rows = all.part(r, rows_max);
        switch (rows.count) {
            inline 1...rows_max => |count| weighRows(count, &rows),
            else => unreachable,
        }
    }
}

fn weighRows(comptime count: usize, rows: *const Rows) void {
    @setEvalBranchQuota(10_000);
    const from, const to = rows.span(0, count);
    const hidden = from < rows.low[count - 1] or to > rows.high[0];
    var best: [count]F = @splat(simd.splat(-simd.inf));
    var peaks: [i8_page.pages_max][count]F = undefined;
    for (peaks[0..rows.shape.pages], 0..) |*some, page| {
        const first, const last = within(rows, page, from, to);
        some.* = @splat(simd.splat(-simd.inf));
        var j = first;
        while (j < last) {
            const step = stepOf((last - j) / lanes);
            inline for (steps) |vectors| if (vectors == step) score(count, vectors, rows, j, some);
            j += lanes * step;
        }
        inline for (0..count) |m| {
            if (hidden or rows.softcap != 0) some[m] = float.amend(rows, m, first, last);
            best[m] = simd.maxSkipNan(best[m], rows.whole(m, page, some[m]));
        }
    }
    inline for (0..count) |m| {
        const largest = simd.maxLanes(best[m]);
        rows.max[m] = if (largest == -simd.inf) 0 else largest;
        var total = simd.zero;
        for (peaks[0..rows.shape.pages], 0..) |*some, page| {
            var j, const last = within(rows, page, from, to);
            const most = rows.most(m, page, some[m]);
            while (j < last) : (j += lanes) {
                const weights: float.Weights = .of(rows, m, j, most, total);
                total = weights.sum;
                storeBytes(rows.weights + m * rows.shape.keys + j, weights.codes);
            }
        }
        rows.sum[m] = simd.sumLanes(total);
    }
}

/// Which of the keys from … to-1 are of a page.
fn within(rows: *const Rows, page: usize, from: usize, to: usize) [2]usize {
    const keys = rows.shape.pageKeys();
    const first = @max(from, page * keys);
    return .{ first, @max(first, @min(to, (page + 1) * keys)) };
}

/// The low byte of each lane. Assembly, because the compiler may take the truncation apart.
inline fn storeBytes(to: [*]u8, codes: simd.I) void {
    if (lanes == 16) {
        asm volatile ("vpmovdb %[codes], (%[to])"
            :
            : [codes] "v" (codes),
              [to] "r" (to),
            : .{ .memory = true });
    } else to[0..lanes].* = @as(@Vector(lanes, u8), @truncate(@as(@Vector(lanes, u32), @bitCast(codes))));
}

/// Vectors that are taken at once when so many are left.
fn stepOf(left: usize) usize {
    inline for (steps) |vectors| if (left >= vectors) return vectors;
    unreachable;
}

inline fn score(comptime count: usize, comptime vectors: usize, rows: *const Rows, j: usize, best: *[count]F) void {
    @setEvalBranchQuota(10_000);
    const s = rows.shape;
    var acc: [count][vectors]dot.I = undefined;
    inline for (0..count) |m| acc[m] = @splat(@splat(rows.query_starts[m]));
    var keys = rows.stretch.keys + j * 4;
    for (0..s.width / 4) |step| {
        var codes: [vectors]dot.U = undefined;
        inline for (0..vectors) |v| codes[v] = keys[v * lanes * 4 ..][0 .. lanes * 4].*;
        inline for (0..count) |m| {
            const four: dot.I = @splat(@bitCast(rows.queries[m * s.width + step * 4 ..][0..4].*));
            inline for (0..vectors) |v| acc[m][v] = dot.addProducts(.fours, acc[m][v], codes[v], four);
        }
        keys += s.keys * 4;
    }
    inline for (0..vectors) |v| inline for (0..count) |m| {
        best[m] = float.score(rows, m, j + v * lanes, acc[m][v], best[m]);
    };
}

/// Merges the weighted values: acc * keep + sum * gain, of the first stretch sum * gain.
pub fn merge(all: *const Rows) void {
    var r: usize = 0;
    while (r < all.count) : (r += rows_max) {
        const rows = all.part(r, rows_max);
        switch (rows.count) {
            inline 1...rows_max => |count| mergeRows(count, &rows),
            else => unreachable,
        }
    }
}

fn mergeRows(comptime count: usize, rows: *const Rows) void {
    @setEvalBranchQuota(10_000);
    var c: usize = 0;
    while (c < rows.shape.width) {
        const step = stepOf((rows.shape.width - c) / lanes);
        inline for (steps) |vectors| if (vectors == step) mergeVectors(count, vectors, rows, c);
        c += lanes * step;
    }
}

inline fn mergeVectors(comptime count: usize, comptime vectors: usize, rows: *const Rows, c: usize) void {
    const s = rows.shape;
    const from, const to = rows.span(0, count);
    var sums: [count][vectors]dot.I = @splat(@splat(@splat(0)));
    var values = rows.stretch.values + (from * s.width / 4 + c) * 4;
    for (from / 4..to / 4) |group| {
        var codes: [vectors]dot.I = undefined;
        inline for (0..vectors) |v| codes[v] = @bitCast(values[v * lanes * 4 ..][0 .. lanes * 4].*);
        inline for (0..count) |m| {
            const four: dot.U = @bitCast(@as(dot.I, @splat(@bitCast(rows.weights[m * s.keys + group * 4 ..][0..4].*))));
            inline for (0..vectors) |v| sums[m][v] = dot.addBytes(sums[m][v], four, codes[v]);
        }
        values += s.width * 4;
    }
    inline for (0..count) |m| {
        const row: float.Merge = .of(rows, m);
        inline for (0..vectors) |v| {
            const acc = rows.acc + m * s.width + c + v * lanes;
            if (rows.is_first) row.set(acc, sums[m][v]) else row.add(acc, sums[m][v]);
        }
    }
}
