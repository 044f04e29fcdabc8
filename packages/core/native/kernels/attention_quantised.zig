//! The two products of attention over quantised pages (kv_page.zig): scores of keys, and sums of values.
//!
//! Both are integer dots, exact in any order, so that decode and prefill give the same bits with different tiles; only
//! the steps between them round, and those are the same for every row:
//!
//!     score  s[j] = q · reference; over blocks b, in order: s[j] = fma(f32(q codes · k codes), k scale * q scale, s[j])
//!     weight w[b][j] = round(p[j] * v scale[b][j] * 32767 / bound[b]), bound the largest |v scale| that the row sees
//!     value  acc = fma(acc, keep, f32(sum of w[b][j] * v code[j]) * (bound[b] / 32767 * gain))
//!
//! Queries are rotated as their keys are and quantised to int8 in blocks of 32, as llama.cpp does for these caches;
//! weights keep 15 bits, because a few large ones must not drown many small ones.

const std = @import("std");
const dot = @import("dot.zig");
const hadamard = @import("hadamard.zig");
const kv_page = @import("kv_page.zig");
const quantizeBlock = @import("quantize.zig").quantizeBlock;
const simd = @import("simd.zig");

const Page = kv_page.Page;
const Form = kv_page.Form;
const Range = kv_page.Range;
const Stream = @import("attention_stream.zig").Stream;
const lanes = simd.lanes;

/// Rows that a loop takes at once: `count` rows in as few and as equal parts as fit `max`.
fn part(count: usize, comptime max: usize) usize {
    const parts = (count + max - 1) / max;
    return (count + parts - 1) / parts;
}

// ---- queries and scores

/// Query rows in int8.
pub const Queries = struct {
    head_dim: usize,
    /// The rotated rows as they are [rows][head_dim].
    rows: [*]const f32,
    /// [rows][head_dim]
    codes: [*]i8,
    /// [rows][blocks]
    scales: [*]f32,
    /// What the integer sums start from, [rows][blocks].
    starts: [*]i32,

    /// Rotates row r, then quantises it.
    pub fn set(q: *const Queries, comptime form: Form, r: usize, x: [*]f32) void {
        const blocks = q.head_dim / 32;
        hadamard.rotate(x, q.head_dim);
        for (0..blocks) |b| {
            var sums: [2]i16 = undefined;
            const codes: *[32]i8 = @ptrCast(q.codes + r * q.head_dim + b * 32);
            q.scales[r * blocks + b] = quantizeBlock(@ptrCast(x + b * 32), codes, &sums);
            q.starts[r * blocks + b] = (@as(i32, sums[0]) + sums[1]) * comptime dot.Scheme.startFactor(.fours, zero(form), codeMax(form));
        }
    }
};

fn zero(comptime form: Form) i16 {
    return if (form == .q8_0) 128 else 8;
}

fn codeMax(comptime form: Form) u32 {
    return if (form == .q8_0) 255 else 15;
}

/// q · reference of a page for one row.
fn common(q: *const Queries, r: usize, reference: [*]align(2) const f16) f32 {
    var sum = simd.zero;
    var i: usize = 0;
    while (i < q.head_dim) : (i += lanes) sum = simd.fma(simd.load(q.rows + r * q.head_dim + i), simd.loadHalf(reference + i), sum);
    return simd.sumLanes(sum);
}

const score_rows = if (dot.level == .avx512vnni) 6 else 3;

/// Panels that a loop over `rows` rows takes side by side.
fn panelsFor(comptime rows: usize) usize {
    if (dot.level != .avx512vnni) return 1;
    return if (rows <= 2) 4 else 2;
}

/// Scores of rows first … first+count-1 for the panels around `range`, to out[row][key].
pub fn scores(
    comptime form: Form,
    page: Page,
    keys: [*]const u8,
    q: *const Queries,
    first: usize,
    count: usize,
    range: Range,
    out: [*]f32,
    stride: usize,
    stream: *Stream,
) void {
    const size = part(count, score_rows);
    var r: usize = 0;
    while (r < count) {
        const n = @min(size, count - r);
        inline for (1..score_rows + 1) |rows| if (n == rows) {
            scoreRows(form, rows, page, keys, q, first + r, range, out + r * stride, stride, stream);
        };
        r += n;
    }
}

fn scoreRows(
    comptime form: Form,
    comptime rows: usize,
    page: Page,
    keys: [*]const u8,
    q: *const Queries,
    first: usize,
    range: Range,
    out: [*]f32,
    stride: usize,
    stream: *Stream,
) void {
    var start_scores: [rows]f32 = undefined;
    for (&start_scores, first..) |*s, r| s.* = common(q, r, page.reference(keys));
    var panel = range.low / kv_page.panel;
    const end = (range.high + kv_page.panel - 1) / kv_page.panel;
    const many = comptime panelsFor(rows);
    while (panel + many <= end) : (panel += many) {
        scorePanels(form, rows, many, page, keys, q, first, panel, &start_scores, out, stride, stream);
    }
    if (many > 1) while (panel < end) : (panel += 1) scorePanels(form, rows, 1, page, keys, q, first, panel, &start_scores, out, stride, stream);
}

fn scorePanels(
    comptime form: Form,
    comptime rows: usize,
    comptime panels: usize,
    page: Page,
    keys: [*]const u8,
    q: *const Queries,
    first: usize,
    panel: usize,
    start_scores: *const [rows]f32,
    out: [*]f32,
    stride: usize,
    stream: *Stream,
) void {
    @setEvalBranchQuota(20_000);
    const vectors = panels * dot.per_panel;
    const block_bytes = kv_page.panel * comptime form.codeBytes();
    const blocks = page.blocks();
    const scales: [*]align(1) const u16 = @ptrCast(keys + page.scalesAt());
    var acc: [rows][vectors]dot.F = undefined;
    inline for (0..rows) |m| acc[m] = @splat(@splat(start_scores[m]));
    for (0..blocks) |b| {
        const codes: KeyCodes(form) = .{ .p = keys + (panel * blocks + b) * block_bytes, .panel_bytes = blocks * block_bytes };
        var pointers: QueryCodes(rows) = undefined;
        var start: [rows]i32 = undefined;
        inline for (0..rows) |m| {
            pointers.rows[m] = q.codes + (first + m) * q.head_dim + b * 32;
            start[m] = q.starts[(first + m) * blocks + b];
        }
        if (first == 0) stream.used(panels * block_bytes);
        const ints = dot.tile(.fours, codeMax(form), 8, rows, vectors, start, codes, pointers);
        inline for (0..vectors) |v| {
            const at = ((panel + v / dot.per_panel) * blocks + b) * kv_page.panel + v % dot.per_panel * dot.width;
            const scale = simd.halfToFloat(dot.width, scales[at..][0..dot.width].*);
            inline for (0..rows) |m| {
                const query_scale: dot.F = @splat(q.scales[(first + m) * blocks + b]);
                acc[m][v] = dot.fma(@floatFromInt(ints[m][v]), scale * query_scale, acc[m][v]);
            }
        }
    }
    inline for (0..rows) |m| inline for (0..vectors) |v| {
        const to = out + m * stride + panel * kv_page.panel + v * dot.width;
        to[0..dot.width].* = acc[m][v];
    };
}

fn KeyCodes(comptime form: Form) type {
    return struct {
        p: [*]const u8,
        panel_bytes: usize,

        pub inline fn at(self: @This(), comptime s: usize, comptime v: usize) dot.U {
            const line = v % dot.per_panel * dot.width * 4;
            const step = if (form == .q4_0) s % 4 else s;
            const p = self.p + v / dot.per_panel * self.panel_bytes + step * kv_page.panel * 4 + line;
            const bytes: dot.U = p[0 .. dot.width * 4].*;
            if (form == .q8_0) return bytes;
            return if (s < 4) bytes & @as(dot.U, @splat(15)) else bytes >> @splat(4);
        }
    };
}

fn QueryCodes(comptime rows: usize) type {
    return struct {
        rows: [rows][*]const i8,

        pub inline fn at(self: @This(), comptime m: usize, comptime s: usize) i32 {
            return @bitCast(self.rows[m][s * 4 ..][0..4].*);
        }
    };
}

// ---- weights and values

/// Most that a weight may be, in whole numbers.
const weight_max = 32767;

/// The scales of a page of values in f32, and the weights of some rows in i16.
pub const Weights = struct {
    page_size: usize,
    blocks: usize,
    /// Magnitudes of the scales, NaN included, [blocks][page_size].
    magnitudes: [*]f32,
    /// The scales; 0 where they are no number, [blocks][page_size].
    scales: [*]f32,
    /// Of a range of keys, the largest magnitude of each block.
    bounds: [*]f32,
    bounds_of: Range,
    /// [rows][blocks][page_size]
    codes: [*]i16,
    /// bound / 32767 * gain, [rows][blocks]
    factors: [*]f32,

    /// A range that no row has.
    pub const nothing: Range = .{ .low = 1, .high = 0 };

    /// Takes on a page whose first `live` keys are written.
    pub fn open(w: *Weights, page: Page, values: [*]const u8, live: usize) void {
        w.bounds_of = nothing;
        const scales: [*]align(1) const f16 = @ptrCast(values + page.scalesAt());
        for (0..w.blocks) |b| {
            var j: usize = 0;
            while (j < live) : (j += lanes) {
                const at = b * w.page_size + j;
                const x = Range.keep(.{ .low = 0, .high = live }, simd.loadHalf(@alignCast(scales + at)), j, 0);
                simd.store(w.magnitudes + at, @abs(x));
                simd.store(w.scales + at, @select(f32, x - x == simd.zero, x, simd.zero));
            }
        }
    }

    /// The weights of one row from its p [page_size], which is 0 for keys that it does not see; keys of `all` outside of
    /// its own range get the weight 0.
    pub fn set(w: *Weights, r: usize, p: [*]const f32, own: Range, all: Range, gain: f32) void {
        if (own.low != w.bounds_of.low or own.high != w.bounds_of.high) w.bound(own);
        const codes = w.codes + r * w.blocks * w.page_size;
        const magic = simd.splat(0x1.8p23); // its last bit is worth 1: the low half of a sum is the rounded number
        for (0..w.blocks) |b| {
            w.factors[r * w.blocks + b] = w.bounds[b] * (1.0 / @as(f32, weight_max)) * gain;
            const inverse = simd.splat(weight_max / w.bounds[b]);
            var j = all.low / lanes * lanes;
            while (j < all.high) : (j += lanes) {
                const at = b * w.page_size + j;
                var rounded: simd.F = magic;
                if (j + lanes > own.low and j < own.high) rounded = simd.fma(simd.load(p + j) * simd.load(w.scales + at), inverse, magic);
                codes[at..][0..lanes].* = @as(@Vector(lanes, i16), @truncate(@as(simd.I, @bitCast(rounded))));
            }
        }
    }

    fn bound(w: *Weights, own: Range) void {
        w.bounds_of = own;
        for (0..w.blocks) |b| {
            var best: simd.I = @splat(0);
            var j = own.low / lanes * lanes;
            while (j < own.high) : (j += lanes) {
                // Magnitudes compare as integers, and so NaN comes out on top.
                const x = own.keep(simd.load(w.magnitudes + b * w.page_size + j), j, 0);
                best = @max(best, @as(simd.I, @bitCast(x)));
            }
            w.bounds[b] = @bitCast(@reduce(.Max, best));
        }
    }
};

const value_rows = switch (dot.level) {
    .avx512vnni => 8,
    .avx2, .avxvnni => 6,
    .portable => 4,
};
/// Vectors that cover half a block.
const half_vectors = 16 / dot.width;

/// Merges the weighted values of rows first … first+count-1 of `w` into acc [row][stride]: acc * keep + sum * factor.
pub fn weigh(
    comptime form: Form,
    values: [*]const u8,
    w: *const Weights,
    count: usize,
    all: Range,
    keep: [*]const f32,
    acc: [*]f32,
    stride: usize,
    stream: *Stream,
) void {
    const size = part(count, value_rows);
    for (0..w.blocks) |b| {
        var r: usize = 0;
        while (r < count) {
            const n = @min(size, count - r);
            inline for (1..value_rows + 1) |rows| if (n == rows) inline for (0..half_vectors) |i| {
                sumRows(form, rows, i, values, w, b, r, all, keep + r, acc + r * stride, stride, stream);
            };
            r += n;
        }
    }
}

fn sumRows(
    comptime form: Form,
    comptime rows: usize,
    comptime i: usize,
    values: [*]const u8,
    w: *const Weights,
    b: usize,
    first: usize,
    all: Range,
    keep: [*]const f32,
    acc: [*]f32,
    stride: usize,
    stream: *Stream,
) void {
    const row_codes = w.blocks * w.page_size;
    const codes = w.codes + first * row_codes + b * w.page_size;
    const pair_bytes = 2 * comptime form.codeBytes();
    const block = values + b * w.page_size / 2 * pair_bytes;
    // Few rows leave the chains of adds too short to keep the multipliers busy: two of each.
    const chains = if (rows <= 2) 2 else 1;
    var ints: [chains][rows][2]dot.I = @splat(@splat(@splat(@splat(0))));
    var pair = all.low / 4 * 2;
    while (pair * 2 < all.high) : (pair += 2) {
        if (i == 0 and first == 0) stream.used(2 * pair_bytes);
        inline for (0..2) |k| {
            const v = valueCodes(form, i, block + (pair + k) * pair_bytes);
            inline for (0..rows) |m| {
                const two: dot.I = @splat(@bitCast(codes[m * row_codes + (pair + k) * 2 ..][0..2].*));
                inline for (0..2) |h| ints[k % chains][m][h] = dot.dotWords(ints[k % chains][m][h], v[h], @bitCast(two));
            }
        }
    }
    inline for (0..rows) |m| inline for (0..2) |h| {
        const sum = if (chains == 2) ints[0][m][h] +% ints[1][m][h] else ints[0][m][h];
        const to: *align(4) dot.F = @ptrCast(acc + m * stride + b * 32 + h * 16 + i * dot.width);
        const factor: dot.F = @splat(w.factors[(first + m) * w.blocks + b]);
        to.* = dot.fma(to.*, @as(dot.F, @splat(keep[m])), @as(dot.F, @floatFromInt(sum)) * factor);
    };
}

/// Codes of elements i*width … and 16 + i*width … for a pair of keys.
inline fn valueCodes(comptime form: Form, comptime i: usize, p: [*]const u8) [2]dot.Words {
    const n = dot.width * 2;
    const Bytes = @Vector(n, u8);
    if (form == .q8_0) {
        var out: [2]dot.Words = undefined;
        inline for (0..2) |h| out[h] = @as(@Vector(n, i8), @bitCast(@as(Bytes, p[h * 32 + i * n ..][0..n].*)));
        return out;
    }
    const both: @Vector(n, u16) = @as(Bytes, p[i * n ..][0..n].*);
    const low: dot.Words = @bitCast(both & @as(@Vector(n, u16), @splat(15)));
    const high: dot.Words = @bitCast(both >> @splat(4));
    const eight: dot.Words = @splat(8);
    return .{ low - eight, high - eight };
}
