//! The two products of attention over pages in int8 (attention_i8_page.zig) in register tiles of a few rows of queries.
//! attention_i8_weights.zig has what lies between them.

const std = @import("std");
const dot = @import("dot.zig");
const simd = @import("simd.zig");
const i8_page = @import("attention_i8_page.zig");
const float = @import("attention_i8_weights.zig");

const Page = i8_page.Page;
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

/// Rows that are brought from queries to results together.
pub const rows_together = std.math.maxInt(usize);

pub fn takes(_: Shape) bool {
    return true;
}

/// Floats of the place for scores.
pub fn scoreFloats(shape: Shape, _: usize) usize {
    return rows_max * shape.keys;
}

/// What a thread does before and after products.
pub fn begin() void {}
pub fn end() void {}

/// Scores, weights, maxima and sums of `count` rows.
pub fn weigh(page: Page, all: *const Rows, count: usize) void {
    var r: usize = 0;
    while (r < count) : (r += rows_max) {
        const rows = all.from(r);
        switch (@min(rows_max, count - r)) {
            inline 1...rows_max => |some| weighRows(some, page, &rows),
            else => unreachable,
        }
    }
}

fn weighRows(comptime count: usize, page: Page, rows: *const Rows) void {
    @setEvalBranchQuota(10_000);
    const from, const to = rows.span(0, count);
    const hidden = from < rows.low[count - 1] or to > rows.high[0];
    var best: [count]F = @splat(simd.splat(-simd.inf));
    var j = from;
    while (j < to) {
        const step = stepOf((to - j) / lanes);
        inline for (steps) |vectors| if (vectors == step) score(count, vectors, page, rows, j, &best);
        j += lanes * step;
    }
    inline for (0..count) |m| {
        if (hidden or rows.softcap != 0) best[m] = float.amend(page, rows, m, from, to);
        const largest = simd.maxLanes(best[m]);
        rows.max[m] = if (largest == -simd.inf) 0 else largest;
        var total = simd.zero;
        j = from;
        while (j < to) : (j += lanes) {
            const weights: float.Weights = .of(page, rows, m, j, total);
            total = weights.sum;
            storeBytes(rows.weights + m * rows.shape.keys + j, weights.codes);
        }
        rows.sum[m] = simd.sumLanes(total);
    }
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

inline fn score(comptime count: usize, comptime vectors: usize, page: Page, rows: *const Rows, j: usize, best: *[count]F) void {
    @setEvalBranchQuota(10_000);
    const s = rows.shape;
    var acc: [count][vectors]dot.I = undefined;
    inline for (0..count) |m| acc[m] = @splat(@splat(rows.query_starts[m]));
    var keys = page.keys + j * 4;
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
        best[m] = float.score(page, rows, m, j + v * lanes, acc[m][v], best[m]);
    };
}

/// Merges the weighted values of `count` rows into acc [count][W]: acc * keep + sum * gain.
pub fn sum(page: Page, all: *const Rows, count: usize, keep: [*]const f32, gain: [*]const f32, acc: [*]f32) void {
    var r: usize = 0;
    while (r < count) : (r += rows_max) {
        const rows = all.from(r);
        switch (@min(rows_max, count - r)) {
            inline 1...rows_max => |some| sumRows(some, page, &rows, keep + r, gain + r, acc + r * rows.shape.width),
            else => unreachable,
        }
    }
}

fn sumRows(comptime count: usize, page: Page, rows: *const Rows, keep: [*]const f32, gain: [*]const f32, acc: [*]f32) void {
    @setEvalBranchQuota(10_000);
    const from, const to = rows.span(0, count);
    var c: usize = 0;
    while (c < rows.shape.width) {
        const step = stepOf((rows.shape.width - c) / lanes);
        inline for (steps) |vectors| if (vectors == step) {
            sumVectors(count, vectors, page, rows, from / 4, to / 4, c, keep, gain, acc + c);
        };
        c += lanes * step;
    }
}

inline fn sumVectors(
    comptime count: usize,
    comptime vectors: usize,
    page: Page,
    rows: *const Rows,
    from: usize,
    to: usize,
    c: usize,
    keep: [*]const f32,
    gain: [*]const f32,
    acc: [*]f32,
) void {
    const s = rows.shape;
    var sums: [count][vectors]dot.I = @splat(@splat(@splat(0)));
    var values = page.values + (from * s.width + c) * 4;
    for (from..to) |group| {
        var codes: [vectors]dot.I = undefined;
        inline for (0..vectors) |v| codes[v] = @bitCast(values[v * lanes * 4 ..][0 .. lanes * 4].*);
        inline for (0..count) |m| {
            const four: dot.U = @bitCast(@as(dot.I, @splat(@bitCast(rows.weights[m * s.keys + group * 4 ..][0..4].*))));
            inline for (0..vectors) |v| sums[m][v] = dot.addBytes(sums[m][v], four, codes[v]);
        }
        values += s.width * 4;
    }
    inline for (0..count) |m| {
        const merge: float.Merge = .of(keep[m], gain[m]);
        inline for (0..vectors) |v| merge.add(acc + m * s.width + v * lanes, sums[m][v]);
    }
}
