//! The two products of attention over pages in int8 (attention_i8_page.zig) on AMX tiles: 16 rows of queries by 16 keys, or
//! by 16 elements of head_dim. Integer sums are exact, so the bits are those of attention_i8_dot.zig.
//!
//! Vectors of 512 bits are slow for 150 cycles and more behind an instruction of AMX: so all products of 16 rows with the
//! keys of a stretch come first, then all that is float.

const std = @import("std");
const amx = @import("amx.zig");
const simd = @import("simd.zig");
const i8_page = @import("attention_i8_page.zig");
const float = @import("attention_i8_weights.zig");

const Rows = float.Rows;
const Shape = i8_page.Shape;
const F = simd.F;
const I = simd.I;
const U = @Vector(lanes, u32);
const Bytes = @Vector(amx.row_bytes, u8);
const lanes = simd.lanes;

pub const rows_max = amx.rows;

comptime {
    std.debug.assert(rows_max == lanes);
}

/// Rows that pass over a stretch one after the other: the more, the less often stretches come from the third cache.
pub fn rowsAtMost(_: usize) usize {
    return 128;
}

/// Keys are signed.
pub const key_zero = 0;

/// Whether pages are whole blocks.
pub fn takes(shape: Shape) bool {
    return shape.width % amx.row_bytes == 0 and shape.pageKeys() % block == 0;
}

/// Floats of the place for scores, and then for sums.
pub fn scoreFloats(shape: Shape) usize {
    return rows_max * @max(shape.keys, shape.width);
}

pub fn begin() void {
    amx.configure(&amx.Config.full);
}

pub fn end() void {
    amx.release();
}

/// Scores, weights, maxima and sums.
pub fn weigh(all: *const Rows) void {
    var r: usize = 0;
    while (r < all.count) : (r += rows_max) {
        weighRows(&all.part(r, rows_max));
    }
}

fn weighRows(rows: *const Rows) void {
    const s = rows.shape;
    const from, const to = rows.span(0, rows.count);
    if (from >= to) {
        simd.store(rows.max, simd.zero);
        simd.store(rows.sum, simd.zero);
        return;
    }
    const product: Product = .{
        .steps = s.width / amx.row_bytes,
        .a = @ptrCast(rows.queries),
        .a_row = s.width,
        .b = rows.stretch.keys,
        .b_row = s.keys * 4,
        .out = @ptrCast(rows.scores),
        .out_row = s.keys * 4,
    };
    product.run(.ss, from, to);
    const page_keys = s.pageKeys();
    var peaks: [pages_max][rows_max]F = undefined;
    const first = from / block * block;
    var j = first;
    while (j < to) : (j += block) {
        const is_first = j == first or j % page_keys == 0;
        const some = &peaks[j / page_keys];
        if (allSee(rows, j)) scoreBlock(rows, j, is_first, some) else scorePart(rows, j, is_first, some);
    }
    var largest = simd.splat(-simd.inf);
    for (first / page_keys..(to - 1) / page_keys + 1) |page| {
        for (peaks[page][rows.count..]) |*idle| idle.* = simd.zero;
        largest = simd.maxSkipNan(largest, rows.wholeOf(page, across(simd.maxSkipNan, peaks[page])));
    }
    simd.store(rows.max, @select(f32, largest == simd.splat(-simd.inf), simd.zero, largest));
    var each: [rows_max]F = undefined;
    for (each[rows.count..]) |*idle| idle.* = simd.zero;
    j = first;
    while (j < to) : (j += block) {
        const some = &peaks[j / page_keys];
        if (allSee(rows, j)) weighBlock(rows, j, j == first, some, &each) else weighPart(rows, j, j == first, some, &each);
    }
    simd.store(rows.sum, across(add, each));
}

/// Whether all rows see all keys of a block, as in most of long prompts.
fn allSee(rows: *const Rows, j: usize) bool {
    return rows.softcap == 0 and rows.low[rows.count - 1] <= j and rows.high[0] >= j + block;
}

/// Keys whose scales stay in registers from row to row, and a step of the product of weights and values.
const block = amx.row_bytes;
/// Of a stretch.
const pages_max = i8_page.keys_max / block;

/// Scores of a block of keys that all rows see, and the largest of each lane in their page so far. No row that is passed
/// starts out filled: the compiler makes a call of memset of that.
fn scoreBlock(rows: *const Rows, j: usize, is_first: bool, peaks: *[rows_max]F) void {
    var scales: [4]F = undefined;
    var logs: [4]F = undefined;
    inline for (0..4) |v| {
        scales[v] = simd.load(rows.stretch.key_scales + j + v * lanes);
        logs[v] = simd.load(rows.logs + j + v * lanes);
    }
    // Copied, because stores of floats might change what `rows` points at.
    const query_scales = rows.query_scales;
    const keys = rows.shape.keys;
    var at = rows.scores + j;
    for (peaks[0..rows.count], query_scales) |*peak, query_scale| {
        var largest = if (is_first) simd.splat(-simd.inf) else peak.*;
        inline for (0..4) |v| {
            const dots: I = @bitCast(simd.load(at + v * lanes));
            const x = float.scoreOf(dots, scales[v] * simd.splat(query_scale), logs[v]);
            simd.store(at + v * lanes, x);
            largest = simd.maxSkipNan(largest, x);
        }
        peak.* = largest;
        at += keys;
    }
}

/// The same of the keys of a block that each row sees.
fn scorePart(rows: *const Rows, j: usize, is_first: bool, peaks: *[rows_max]F) void {
    for (peaks[0..rows.count], 0..) |*peak, m| {
        const from, const to = rows.within(m, j, j + block);
        const dots: [*]const I = @ptrCast(@alignCast(rows.scores + m * rows.shape.keys));
        var largest = simd.splat(-simd.inf);
        var at = from;
        while (at < to) : (at += lanes) largest = float.score(rows, m, at, dots[at / lanes], largest);
        const hidden = from < rows.low[m] or to > rows.high[m];
        if (hidden or rows.softcap != 0) largest = float.amend(rows, m, from, to);
        peak.* = if (is_first) largest else simd.maxSkipNan(peak.*, largest);
    }
}

/// Weights of a block of keys, as bytes, and their sums so far.
fn weighBlock(rows: *const Rows, j: usize, is_first: bool, peaks: *const [rows_max]F, each: *[rows_max]F) void {
    var inverses: [4]F = undefined;
    inline for (0..4) |v| inverses[v] = simd.load(rows.stretch.value_inverses + j + v * lanes);
    const max = rows.max;
    const commons = rows.commonsOf(j / rows.shape.pageKeys());
    const keys = rows.shape.keys;
    var at = rows.scores + j;
    var to = rows.weights + j;
    for (each[0..rows.count], peaks[0..rows.count], max, commons) |*total, peak, largest, common| {
        const most = float.bound(largest - common, peak);
        var codes: [4]I = undefined;
        var sum = if (is_first) simd.zero else total.*;
        inline for (0..4) |v| {
            const weights: float.Weights = .make(simd.load(at + v * lanes) - most, inverses[v], sum);
            codes[v] = weights.codes;
            sum = weights.sum;
        }
        total.* = sum;
        storeLowBytes(to, codes);
        at += keys;
        to += keys;
    }
}

/// The same of the keys of a block that each row sees; zeros for the others.
fn weighPart(rows: *const Rows, j: usize, is_first: bool, peaks: *const [rows_max]F, each: *[rows_max]F) void {
    for (each[0..rows.count], peaks[0..rows.count], 0..) |*total, peak, m| {
        const from, const to = rows.within(m, j, j + block);
        const most = rows.most(m, j / rows.shape.pageKeys(), peak);
        var sum = if (is_first) simd.zero else total.*;
        var codes: [4]I = @splat(@splat(0));
        inline for (0..4) |v| {
            const at = j + v * lanes;
            if (at >= from and at < to) {
                const weights: float.Weights = .of(rows, m, at, most, sum);
                sum = weights.sum;
                codes[v] = weights.codes;
            }
        }
        total.* = sum;
        storeLowBytes(rows.weights + m * rows.shape.keys + j, codes);
    }
}

/// Stores the low bytes of all lanes in order.
inline fn storeLowBytes(to: [*]u8, codes: [4]I) void {
    // Byte v of lane i is lane i of codes[v]. Each step is one funnel shift, for which the level has VBMI2.
    var bytes = codes[0] << @splat(24);
    inline for (codes[1..]) |next| bytes = @as(I, @bitCast(@as(U, @bitCast(bytes)) >> @splat(8))) | next << @splat(24);
    const from = comptime blk: {
        var index: Bytes = undefined;
        for (0..4) |v| for (0..lanes) |i| {
            index[v * lanes + i] = 4 * i + v;
        };
        break :blk index;
    };
    // Assembly, because the compiler takes shuffles of 64 bytes apart.
    const ordered = asm ("vpermb %[bytes], %[from], %[out]"
        : [out] "=v" (-> F),
        : [bytes] "v" (bytes),
          [from] "v" (from),
    );
    simd.store(@ptrCast(@alignCast(to)), ordered);
}

fn add(a: F, b: F) F {
    return a + b;
}

/// Lane r is the lanes of v[r] joined as a balanced tree, in the order of `simd.sumLanes` and `maxLanes`.
inline fn across(comptime join: anytype, v: [lanes]F) F {
    @setEvalBranchQuota(10_000);
    var level = v;
    comptime var count = lanes;
    inline while (count > 1) : (count /= 2) {
        const half = comptime count / 2; // lanes that a row has left behind this step
        inline for (0..half) |i| level[i] = join(
            @shuffle(f32, level[2 * i], level[2 * i + 1], parts(half, 0)),
            @shuffle(f32, level[2 * i], level[2 * i + 1], parts(half, half)),
        );
    }
    return level[0];
}

/// Of two vectors of rows with 2 * half lanes each, the `half` lanes from `first` on of every row.
fn parts(half: usize, first: usize) [lanes]i32 {
    var mask: [lanes]i32 = undefined;
    for (&mask, 0..) |*lane, i| {
        const from = i / half * 2 * half + first + i % half;
        lane.* = if (from < lanes) @intCast(from) else ~@as(i32, @intCast(from - lanes));
    }
    return mask;
}

/// Merges the weighted values: acc * keep + sum * gain, of the first stretch sum * gain.
pub fn merge(all: *const Rows) void {
    var r: usize = 0;
    while (r < all.count) : (r += rows_max) {
        mergeRows(&all.part(r, rows_max));
    }
}

fn mergeRows(rows: *const Rows) void {
    const s = rows.shape;
    const from, const to = rows.span(0, rows.count);
    if (from >= to) return if (rows.is_first) simd.setAll(rows.acc, rows.count * s.width, 0);
    const first = from / block * block;
    const product: Product = .{
        .steps = (to - first + block - 1) / block,
        .a = rows.weights + first,
        .a_row = s.keys,
        .b = @ptrCast(rows.stretch.values + first * s.width),
        .b_row = s.width * 4,
        .out = @ptrCast(rows.scores),
        .out_row = s.width * 4,
    };
    product.run(.us, 0, s.width);
    if (rows.is_first) mergeSums(rows, float.Merge.set) else mergeSums(rows, float.Merge.add);
}

fn mergeSums(rows: *const Rows, comptime into: anytype) void {
    const width = rows.shape.width;
    const sums = rows.scores;
    const acc = rows.acc;
    for (0..rows.count) |m| {
        const row: float.Merge = .of(rows, m);
        const at = m * width;
        var c = at;
        while (c < at + width) : (c += 4 * lanes) inline for (0..4) |v| {
            into(row, acc + c + v * lanes, @bitCast(simd.load(sums + c + v * lanes)));
        };
    }
}

/// A tile of rows a, bytes, times columns of b, fours of bytes; distances in bytes.
const Product = struct {
    /// Of 64 bytes along a row of a.
    steps: usize,
    a: [*]const u8,
    a_row: usize,
    b: [*]const u8,
    b_row: usize,
    out: [*]u8,
    out_row: usize,

    /// Columns from … to-1.
    fn run(p: *const Product, comptime kind: amx.Bytes, from: usize, to: usize) void {
        @setEvalBranchQuota(400_000); // texts of instructions
        var c = from;
        inline for (.{ 8, 4, 1 }) |tiles| {
            while (c + tiles * 16 <= to) : (c += tiles * 16) switch (p.steps) {
                inline 1, 2 => |steps| p.rolling(kind, steps, tiles, c),
                else => inline for (0..(tiles + 3) / 4) |i| p.block(kind, @min(4, tiles), c + i * 64),
            };
        }
    }

    /// Tiles of columns in turn; the rows of a stay in tiles 4 and 5, the sums are in 0 to 3. A tile's steps, and where it is
    /// stored, lie apart, so that others are at work between them.
    inline fn rolling(p: *const Product, comptime kind: amx.Bytes, comptime steps: usize, comptime tiles: usize, column: usize) void {
        const behind = 2;
        inline for (0..steps) |s| p.loadRows(4 + s, s);
        inline for (0..tiles + behind) |i| {
            inline for (0..steps) |s| if (i >= s and i - s < tiles) {
                const c = i - s;
                if (s == 0) amx.clear(c % 4);
                p.loadColumns(6 + (i + s) % 2, s, column + c * 16);
                amx.dotBytes(kind, c % 4, 4 + s, 6 + (i + s) % 2);
            };
            if (i >= behind) p.keep((i - behind) % 4, column + (i - behind) * 16);
        }
    }

    /// Up to four tiles of columns, step by step: 0 to 3 are their sums, 4 the rows of a.
    inline fn block(p: *const Product, comptime kind: amx.Bytes, comptime tiles: usize, column: usize) void {
        inline for (0..tiles) |j| amx.clear(j);
        for (0..p.steps) |s| {
            p.loadRows(4, s);
            inline for (0..tiles) |j| {
                p.loadColumns(6 + j % 2, s, column + j * 16);
                amx.dotBytes(kind, j, 4, 6 + j % 2);
            }
        }
        inline for (0..tiles) |j| p.keep(j, column + j * 16);
    }

    inline fn loadRows(p: *const Product, comptime tile: u3, s: usize) void {
        amx.load(tile, p.a + s * amx.row_bytes, p.a_row);
    }

    inline fn loadColumns(p: *const Product, comptime tile: u3, s: usize, column: usize) void {
        amx.load(tile, p.b + s * 16 * p.b_row + column * 4, p.b_row);
    }

    inline fn keep(p: *const Product, comptime tile: u3, column: usize) void {
        amx.store(tile, p.out + column * 4, p.out_row);
    }
};
