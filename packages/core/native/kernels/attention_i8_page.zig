//! Pages of the KV cache in int8, as attention of many queries reads them (attention_i8.zig). They are made in scratch,
//! once per page and run, from pages of any type (kv_page.zig).
//!
//! They lie in stretches: neighbours of up to 128 keys together, whose weights share their steps and whose weighted values
//! are summed in integers. Rows are rotated (hadamard.zig); K are the keys of a stretch in whole panels of 16, W is head_dim
//! in multiples of 16:
//!
//!     keys    less the reference of their page; a scale per key
//!             codes [W/4 steps][K keys][4], signed or as code + 128: dots along head_dim, a lane per key
//!     values  a scale per key, max|v| / 127, which is 2^log of the log that is kept
//!             codes [K/4][W][4 keys] i8: dots along keys, a lane per element of head_dim
//!
//! The reference of float keys is made as that of quantised ones: the mean of the page before, of page 0 its first key.
//! Quantised keys have theirs; their codes are only rescaled, from a scale per 32 elements to that of the whole row. All
//! of this depends on a key and the page before alone, so neither on the run's length nor on the keys behind.
//!
//! A row with a NaN or an infinity has a scale (a log) that is NaN. Keys that are not written yet have scale 0.

const std = @import("std");
const dot = @import("dot.zig");
const hadamard = @import("hadamard.zig");
const kv = @import("kv_cache.zig");
const kv_page = @import("kv_page.zig");
const simd = @import("simd.zig");
const transposing = @import("transpose.zig");

const F = simd.F;
const I = simd.I;
const lanes = simd.lanes;
const Form = kv_page.Form;

/// Its last bit is worth 1: the low byte of a sum is the rounded number.
const magic = simd.splat(0x1.8p23);
pub const log2e = 1.44269504088896341;
/// Most keys of a stretch, and of a page: weights below half a step count in the divisor alone.
pub const keys_max = 128;
/// Keys and elements come in whole vectors of every level.
const lanes_most = 16;
/// Most pages of a stretch.
pub const pages_max = keys_max / lanes_most;
/// Least scale of a value, for rows of zeros.
const scale_min = 0x1p-100;

pub const Shape = struct {
    page_size: usize,
    head_dim: usize,
    /// Pages of a stretch.
    pages: usize,
    /// K
    keys: usize,
    /// W
    width: usize,

    pub fn init(page_size: usize, head_dim: usize) Shape {
        const up = std.mem.alignForward;
        const pages = if (page_size % lanes_most == 0) @max(1, keys_max / page_size) else 1;
        return .{
            .page_size = page_size,
            .head_dim = head_dim,
            .pages = pages,
            .keys = up(usize, pages * page_size, lanes_most),
            .width = up(usize, head_dim, lanes_most),
        };
    }

    /// Keys from the first of a page to the first of the next.
    pub fn pageKeys(s: Shape) usize {
        return if (s.pages == 1) s.keys else s.page_size;
    }

    /// Floats that a stretch takes.
    pub fn floats(s: Shape) usize {
        return 3 * s.keys + s.keys * s.width / 2;
    }
};

pub const Stretch = struct {
    /// [K]
    key_scales: [*]f32,
    /// Logs (of base 2) of the values' scales, and 1 / scale (1 where that is NaN), [K].
    value_logs: [*]f32,
    value_inverses: [*]f32,
    keys: [*]u8,
    values: [*]i8,

    pub fn at(s: Shape, arrays: [*]f32) Stretch {
        return .{
            .key_scales = arrays,
            .value_logs = arrays + s.keys,
            .value_inverses = arrays + 2 * s.keys,
            .keys = @ptrCast(arrays + 3 * s.keys),
            .values = @ptrCast(arrays + 3 * s.keys + s.keys * s.width / 4),
        };
    }

    /// The same from key j on.
    fn from(stretch: Stretch, s: Shape, j: usize) Stretch {
        return .{
            .key_scales = stretch.key_scales + j,
            .value_logs = stretch.value_logs + j,
            .value_inverses = stretch.value_inverses + j,
            .keys = stretch.keys + j * 4,
            .values = stretch.values + j * s.width,
        };
    }
};

/// Makes pages; one per thread.
pub const Maker = struct {
    shape: Shape,
    k: kv.Cache,
    v: kv.Cache,
    /// What a key's code of 0 is in memory, as the products take it: 0 (signed) or 128.
    key_zero: u8,
    /// Scratch: `lanes` rows of W, or as many columns.
    rows: [*]f32,

    /// Floats of `rows`.
    pub fn rowFloats(s: Shape) usize {
        return lanes * s.width;
    }

    /// Asks for what a page will be made of: hardware does not see from one page to the next.
    pub fn ask(m: *const Maker, page: usize, head: usize) void {
        inline for (.{ m.k, m.v }) |cache| {
            const line = 64;
            const from = cache.at(page, head);
            for (0..cache.page.bytes() / line) |i| @prefetch(from + i * line, .{ .locality = 2 });
        }
    }

    /// Makes a head's part of a page, of which the first `live` keys are written, and its reference [W].
    pub fn make(m: *const Maker, stretch: Stretch, reference: [*]f32, page: usize, head: usize, live: usize) void {
        const to = stretch.from(m.shape, page % m.shape.pages * m.shape.page_size);
        switch (m.k.page.form) {
            .f32 => m.floatKeys(f32, to, reference, page, head, live),
            .f16 => m.floatKeys(f16, to, reference, page, head, live),
            inline else => |form| m.codedKeys(form, to, reference, m.k.at(page, head), live),
        }
        const values = m.v.at(page, head);
        switch (m.v.page.form) {
            .f32 => m.floatValues(f32, to, @ptrCast(@alignCast(values)), live),
            .f16 => m.floatValues(f16, to, @ptrCast(@alignCast(values)), live),
            inline else => |form| m.codedValues(form, to, values, live),
        }
    }

    /// Brings four signed codes to `key_zero`.
    inline fn flip(m: *const Maker) I {
        return @splat(@bitCast(@as(u32, m.key_zero) * 0x01010101));
    }

    fn row(m: *const Maker, i: usize) [*]f32 {
        return m.rows + i * m.shape.width;
    }

    // ---- float caches

    fn floatKeys(m: *const Maker, comptime T: type, to: Stretch, reference: [*]f32, page: usize, head: usize, live: usize) void {
        const s = m.shape;
        const n = s.head_dim;
        const keys: [*]const T = @ptrCast(@alignCast(m.k.at(page, head)));
        if (page == 0) {
            m.mean(T, keys, 1, reference);
        } else m.mean(T, @ptrCast(@alignCast(m.k.at(page - 1, head))), s.page_size, reference);
        var first: usize = 0;
        while (first < s.pageKeys()) : (first += lanes) {
            const x = m.rows;
            transposing.transpose(T, keys + first * n, @min(lanes, live -| first), n, x, lanes);
            for (0..n) |c| simd.store(x + c * lanes, written(simd.load(x + c * lanes) - simd.splat(reference[c]), first, live));
            simd.setAll(x + n * lanes, (s.width - n) * lanes, 0);
            hadamard.rotateColumns(x, n);
            const columns: Columns = .of(x, s.width);
            simd.store(to.key_scales + first, columns.scales);
            for (0..s.width / 4) |step| {
                const codes: [*]i32 = @ptrCast(@alignCast(to.keys));
                codes[step * s.keys + first ..][0..lanes].* = columns.codes(step) ^ m.flip();
            }
        }
        hadamard.rotate(reference, n);
    }

    /// Mean of the first rows of a page; elements that are no number count as 0.
    fn mean(m: *const Maker, comptime T: type, from: [*]const T, count: usize, to: [*]f32) void {
        const s = m.shape;
        const factor = simd.splat(1 / @as(f32, @floatFromInt(count)));
        var c: usize = 0;
        while (c < s.width) : (c += lanes) {
            var sum = simd.zero;
            const part = s.head_dim - @min(s.head_dim, c);
            for (0..count) |j| {
                const x = from + j * s.head_dim + c;
                sum += if (part >= lanes) simd.loadAs(T, x) else simd.loadPartAs(T, x, part, 0);
            }
            sum *= factor;
            simd.store(to + c, @select(f32, sum - sum == simd.zero, sum, simd.zero));
        }
    }

    fn floatValues(m: *const Maker, comptime T: type, to: Stretch, values: [*]const T, live: usize) void {
        const s = m.shape;
        const n = s.head_dim;
        var first: usize = 0;
        while (first < s.pageKeys()) : (first += lanes) {
            var most: [lanes]f32 = @splat(0);
            for (0..lanes) |i| {
                const x = m.row(i);
                if (first + i >= live) {
                    @memset(x[0..s.width], 0);
                    continue;
                }
                transposing.widenRow(T, values + (first + i) * n, n, x, s.width);
                hadamard.rotate(x, n);
                most[i] = magnitude(x, s.width);
            }
            const inverses: [lanes]f32 = setScales(to, first, most);
            for (0..lanes / 4) |g| {
                const codes: [*]i32 = @ptrCast(@alignCast(to.values + (first / 4 + g) * s.width * 4));
                var c: usize = 0;
                while (c < s.width) : (c += lanes) {
                    var four: I = @splat(0);
                    inline for (0..4) |i| {
                        const x = simd.load(m.row(g * 4 + i) + c);
                        four |= byte(simd.fma(x, simd.splat(inverses[g * 4 + i]), magic), i);
                    }
                    codes[c..][0..lanes].* = four;
                }
            }
        }
    }

    // ---- quantised caches

    fn codedKeys(m: *const Maker, comptime form: Form, to: Stretch, reference: [*]f32, base: [*]const u8, live: usize) void {
        const s = m.shape;
        const blocks = s.head_dim / 32;
        const page = m.k.page;
        const scales: [*]align(1) const u16 = @ptrCast(base + page.scalesAt());
        const common = page.reference(base);
        var i: usize = 0;
        while (i < s.width) : (i += lanes) simd.store(reference + i, simd.loadHalf(common + i));
        var first: usize = 0;
        while (first < s.pageKeys()) : (first += lanes) {
            const at = first / 16 * blocks * 16 + first % 16;
            var most: I = @splat(0);
            for (0..blocks) |b| most = @max(most, bits(@abs(written(simd.halfToFloat(lanes, scales[at + b * 16 ..][0..lanes].*), first, live))));
            const biggest = @as(F, @bitCast(most)) * simd.splat(top(form));
            simd.store(to.key_scales + first, biggest * simd.splat(1.0 / 127.0));
            const inverse = @select(f32, biggest == simd.zero, simd.zero, simd.splat(127) / biggest);
            for (0..blocks) |b| {
                const factor = simd.halfToFloat(lanes, scales[at + b * 16 ..][0..lanes].*) * inverse;
                const panel = base + (first / 16 * blocks + b) * 16 * comptime form.codeBytes();
                for (0..8) |step| {
                    const line = if (form == .q4_0) step % 4 else step;
                    const U = @Vector(lanes, u32);
                    var word: U = @bitCast(panel[(line * 16 + first % 16) * 4 ..][0 .. lanes * 4].*);
                    if (form == .q4_0 and step >= 4) word >>= @splat(4);
                    var four: I = @splat(0);
                    inline for (0..4) |k| {
                        const code: I = @bitCast(word >> @splat(8 * k) & @as(U, @splat(codeMask(form))));
                        const x: F = @floatFromInt(code - @as(I, @splat(codeZero(form))));
                        four |= byte(simd.fma(x, factor, magic), k);
                    }
                    const out: [*]i32 = @ptrCast(@alignCast(to.keys));
                    out[(b * 8 + step) * s.keys + first ..][0..lanes].* = four ^ m.flip();
                }
            }
        }
    }

    fn codedValues(m: *const Maker, comptime form: Form, to: Stretch, base: [*]const u8, live: usize) void {
        const s = m.shape;
        const blocks = s.head_dim / 32;
        const scales: [*]align(1) const u16 = @ptrCast(base + m.v.page.scalesAt());
        var first: usize = 0;
        while (first < s.pageKeys()) : (first += lanes) {
            var most: I = @splat(0);
            for (0..blocks) |b| {
                const x = written(simd.halfToFloat(lanes, scales[b * s.page_size + first ..][0..lanes].*), first, live);
                simd.store(m.rows + b * lanes, x);
                most = @max(most, bits(@abs(x)));
            }
            const inverse: F = setScales(to, first, @as(F, @bitCast(most)) * simd.splat(top(form)));
            for (0..blocks) |b| {
                const factors: [lanes]f32 = simd.load(m.rows + b * lanes) * inverse;
                for (0..lanes / 4) |g| m.rescale(form, to, base, first / 4 + g, b, factors[g * 4 ..][0..4]);
            }
        }
    }

    /// Codes of four keys and one block of values.
    fn rescale(m: *const Maker, comptime form: Form, to: Stretch, base: [*]const u8, group: usize, b: usize, factors: *const [4]f32) void {
        const s = m.shape;
        const pair_bytes = 2 * comptime form.codeBytes();
        const pairs = base + (b * s.page_size / 2 + group * 2) * pair_bytes;
        const out: [*]i32 = @ptrCast(@alignCast(to.values + (group * s.width + b * 32) * 4));
        const U = @Vector(lanes, u32);
        const H = @Vector(lanes, u16);
        const per_half = if (form == .q4_0) 16 else 32; // elements until codes begin anew in the high half
        inline for (0..32 / lanes) |c| {
            const at = c * lanes % per_half * 2;
            const one: H = @bitCast(pairs[at..][0 .. lanes * 2].*);
            const two: H = @bitCast(pairs[pair_bytes + at ..][0 .. lanes * 2].*);
            var word = @as(U, one) | @as(U, two) << @splat(16);
            if (c * lanes >= per_half) word >>= @splat(4);
            var four: I = @splat(0);
            inline for (0..4) |k| {
                const code: I = if (form == .q4_0)
                    @as(I, @bitCast(word >> @splat(8 * k) & @as(U, @splat(15)))) - @as(I, @splat(8))
                else
                    @as(I, @bitCast(word << @splat(24 - 8 * k))) >> @splat(24);
                four |= byte(simd.fma(@as(F, @floatFromInt(code)), simd.splat(factors[k]), magic), k);
            }
            out[c * lanes ..][0..lanes].* = four;
        }
    }
};

fn top(comptime form: Form) f32 {
    return if (form == .q4_0) 8 else 127;
}

fn codeZero(comptime form: Form) i32 {
    return if (form == .q4_0) 8 else 128;
}

fn codeMask(comptime form: Form) u32 {
    return if (form == .q4_0) 15 else 255;
}

inline fn bits(x: F) I {
    return @bitCast(x);
}

/// The low byte of a rounded number as byte k of its lane.
inline fn byte(rounded: F, comptime k: comptime_int) I {
    return (bits(rounded) & @as(I, @splat(0xff))) << @splat(8 * k);
}

/// x for keys below `live`, else 0.
inline fn written(x: F, first: usize, live: usize) F {
    return kv_page.Range.keep(.{ .low = 0, .high = live }, x, first, 0);
}

/// Largest magnitude of a row; NaN or infinity when it has one.
fn magnitude(x: [*]const f32, width: usize) f32 {
    var most: I = @splat(0);
    var c: usize = 0;
    // As integers NaN comes out on top.
    while (c < width) : (c += lanes) most = @max(most, bits(@abs(simd.load(x + c))));
    return @bitCast(@reduce(.Max, most));
}

/// `lanes` rows of W in columns [W][lanes], as codes.
pub const Columns = struct {
    x: [*]const f32,
    /// max|x| / 127 of each row, NaN where an element is no number.
    scales: F,
    inverses: F,

    pub fn of(x: [*]const f32, width: usize) Columns {
        var largest: I = @splat(0);
        // As integers NaN comes out on top.
        for (0..width) |c| largest = @max(largest, bits(@abs(simd.load(x + c * lanes))));
        const most: F = @bitCast(largest);
        const number = most - most == simd.zero;
        const unknown = simd.splat(std.math.nan(f32));
        const inverses = @select(f32, number, simd.splat(127) / most, simd.zero);
        return .{
            .x = x,
            .scales = @select(f32, number, most / simd.splat(127), unknown),
            .inverses = @select(f32, most == simd.zero, simd.zero, inverses),
        };
    }

    /// Four codes of each row.
    pub inline fn codes(columns: Columns, step: usize) I {
        var four: I = @splat(0);
        inline for (0..4) |i| four |= byte(simd.fma(simd.load(columns.x + (step * 4 + i) * lanes), columns.inverses, magic), i);
        return four;
    }
};

/// Sets logs and inverses of `lanes` values by their largest magnitudes; returns what makes codes of elements.
fn setScales(to: Stretch, first: usize, most: F) F {
    const scale = most * simd.splat(1.0 / 127.0);
    const log = logarithm(@select(f32, scale < simd.splat(scale_min), simd.splat(scale_min), scale));
    const known = log - log == simd.zero;
    const inverse = simd.splat(1) / simd.exp(log);
    simd.store(to.value_logs + first, log * simd.splat(log2e));
    simd.store(to.value_inverses + first, @select(f32, known, inverse, simd.splat(1)));
    return @select(f32, known, inverse, simd.zero);
}

/// ln(x) of positive x that is no denormal, to some units of 1e-6; NaN for NaN and infinity.
inline fn logarithm(x: F) F {
    // Bits of a float count its log in a line per octave; two steps of Newton make the rest.
    const line: F = @floatFromInt(bits(x) - @as(I, @splat(0x3f800000)));
    var y = line * simd.splat(0x1p-23 * 0.693147180559945) + simd.splat(0.03);
    inline for (0..2) |_| y = y - simd.splat(1) + x * simd.exp(-y);
    return @select(f32, x - x == simd.zero, y, simd.splat(std.math.nan(f32)));
}

test "logarithm" {
    var x: f32 = 0x1p-100;
    while (x < 1e30) : (x *= 1.37) {
        const y: [lanes]f32 = logarithm(simd.splat(x));
        try std.testing.expectApproxEqAbs(@log(@as(f64, x)), y[0], 2e-5);
    }
    const bad: [lanes]f32 = logarithm(simd.splat(simd.inf));
    try std.testing.expect(std.math.isNan(bad[0]));
}
