//! The two products of attention over pages in int8 (attention_i8_page.zig) on AMX tiles: 16 rows of queries by 16 keys, or
//! by 16 elements of head_dim. Integer sums are exact, so the bits are those of attention_i8_dot.zig.
//!
//! Vectors of 512 bits are slow for 150 cycles and more behind an instruction of AMX: so all products of a page come
//! first, then all that is float.

const std = @import("std");
const amx = @import("amx.zig");
const simd = @import("simd.zig");
const i8_page = @import("attention_i8_page.zig");
const float = @import("attention_i8_weights.zig");

const Page = i8_page.Page;
const Rows = float.Rows;
const Shape = i8_page.Shape;
const F = simd.F;
const I = simd.I;
const Bytes = @Vector(amx.row_bytes, u8);
const lanes = simd.lanes;

pub const rows_max = amx.rows;

comptime {
    std.debug.assert(rows_max == lanes);
}

/// Rows that are brought from queries to results together.
pub const rows_together = 16;

/// Whether pages are whole tiles.
pub fn takes(shape: Shape) bool {
    return shape.width % amx.row_bytes == 0 and shape.keys % amx.row_bytes == 0;
}

/// Floats of the place for scores, and for sums of values.
pub fn scoreFloats(shape: Shape, rows: usize) usize {
    return @min(rows_together, std.mem.alignForward(usize, rows, rows_max)) * @max(shape.keys, shape.width);
}

pub fn begin() void {
    amx.configure(&amx.Config.full);
}

pub fn end() void {
    amx.release();
}

/// Scores, weights, maxima and sums of `count` rows.
pub fn weigh(page: Page, all: *const Rows, count: usize) void {
    const s = all.shape;
    var r: usize = 0;
    while (r < count) : (r += 2 * rows_max) {
        const from, const to = all.span(r, @min(count, r + 2 * rows_max));
        const product: Product = .{
            .steps = s.width / amx.row_bytes,
            .a = @ptrCast(all.queries + r * s.width),
            .a_row = s.width,
            .b = page.keys,
            .b_row = s.keys * 4,
            .out = @ptrCast(all.scores + r * s.keys),
            .out_row = s.keys * 4,
        };
        product.run(.su, r + rows_max < count, from, to);
    }
    r = 0;
    while (r < count) : (r += rows_max) {
        var rows = all.from(r);
        rows.scores += r * s.keys;
        weighRows(page, &rows, @min(rows_max, count - r));
    }
}

/// Rows of one tile, after their dots with the keys.
fn weighRows(page: Page, rows: *const Rows, count: usize) void {
    const keys = rows.shape.keys;
    var each: [rows_max]F = @splat(simd.splat(-simd.inf));
    for (each[0..count], 0..) |*best, m| {
        const from, const to = rows.span(m, m + 1);
        const start: I = @splat(rows.query_starts[m]);
        const dots: [*]const I = @ptrCast(@alignCast(rows.scores + m * keys));
        var b = simd.splat(-simd.inf);
        var j = from;
        while (j + 4 * lanes <= to) : (j += 4 * lanes) inline for (0..4) |v| {
            b = float.score(page, rows, m, j + v * lanes, dots[j / lanes + v] + start, b);
        };
        while (j < to) : (j += lanes) b = float.score(page, rows, m, j, dots[j / lanes] + start, b);
        const hidden = from < rows.low[m] or to > rows.high[m];
        best.* = if (hidden or rows.softcap != 0) float.amend(page, rows, m, from, to) else b;
    }
    const largest = across(simd.maxSkipNan, each);
    simd.store(rows.max, @select(f32, largest == simd.splat(-simd.inf), simd.zero, largest));
    for (each[0..count], 0..) |*total, m| {
        const from, const to = rows.span(m, m + 1);
        total.* = simd.zero;
        var j: usize = 0;
        while (j < keys) : (j += 4 * lanes) {
            var bytes: Bytes = @splat(0);
            inline for (0..4) |v| {
                const at = j + v * lanes;
                if (at >= from and at < to) {
                    const weights: float.Weights = .of(page, rows, m, at, total.*);
                    total.* = weights.sum;
                    bytes = withLowBytes(v, bytes, weights.codes);
                }
            }
            rows.weights[m * keys + j ..][0..64].* = bytes;
        }
    }
    simd.store(rows.sum, across(add, each));
}

/// Bytes with quarter v replaced by the low byte of each lane. Assembly, because the compiler takes shuffles of 64 bytes
/// apart.
inline fn withLowBytes(comptime v: usize, bytes: Bytes, codes: I) Bytes {
    const from = comptime blk: {
        var index: [64]u8 = @splat(0);
        for (0..lanes) |i| index[v * lanes + i] = 4 * i;
        break :blk @as(Bytes, index);
    };
    return asm ("vpermb %[codes], %[from], %[out] {%[mask]}"
        : [out] "=v" (-> Bytes),
        : [codes] "v" (codes),
          [from] "v" (from),
          [mask] "^Yk" (@as(u64, 0xffff) << (v * lanes)),
          [in] "0" (bytes),
    );
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

/// Merges the weighted values of `count` rows into acc [count][W]: acc * keep + sum * gain.
pub fn sum(page: Page, rows: *const Rows, count: usize, keep: [*]const f32, gain: [*]const f32, acc: [*]f32) void {
    const s = rows.shape;
    var r: usize = 0;
    while (r < count) : (r += 2 * rows_max) {
        const product: Product = .{
            .steps = s.keys / amx.row_bytes,
            .a = rows.weights + r * s.keys,
            .a_row = s.keys,
            .b = @ptrCast(page.values),
            .b_row = s.width * 4,
            .out = @ptrCast(rows.scores + r * s.width),
            .out_row = s.width * 4,
        };
        product.run(.us, r + rows_max < count, 0, s.width);
    }
    for (0..count) |m| {
        const merge: float.Merge = .of(keep[m], gain[m]);
        const sums: [*]const I = @ptrCast(@alignCast(rows.scores + m * s.width));
        var c: usize = 0;
        while (c < s.width) : (c += 4 * lanes) inline for (0..4) |v| {
            merge.add(acc + m * s.width + c + v * lanes, sums[c / lanes + v]);
        };
    }
}

/// One or two tiles of rows a, bytes, times columns of b, fours of bytes; distances in bytes.
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
    fn run(p: *const Product, comptime kind: amx.Bytes, two: bool, from: usize, to: usize) void {
        var c = from;
        while (c < to) : (c += 32) {
            const wide = c + 16 < to;
            if (two) {
                if (wide) p.block(kind, 2, 2, c) else p.block(kind, 2, 1, c);
            } else {
                if (wide) p.block(kind, 1, 2, c) else p.block(kind, 1, 1, c);
            }
        }
    }

    /// Tiles 0 to 3 are the sums, 4 and 5 rows of a, 6 and 7 columns of b.
    inline fn block(p: *const Product, comptime kind: amx.Bytes, comptime tm: usize, comptime tn: usize, column: usize) void {
        inline for (0..tm) |i| inline for (0..tn) |j| amx.clear(i * 2 + j);
        for (0..p.steps) |s| {
            inline for (0..tm) |i| amx.load(4 + i, p.a + i * 16 * p.a_row + s * amx.row_bytes, p.a_row);
            inline for (0..tn) |j| {
                amx.load(6 + j, p.b + (s * 16 * p.b_row) + (column + j * 16) * 4, p.b_row);
                inline for (0..tm) |i| amx.dotBytes(kind, i * 2 + j, 4 + i, 6 + j);
            }
        }
        inline for (0..tn) |j| inline for (0..tm) |i| {
            amx.store(i * 2 + j, p.out + i * 16 * p.out_row + (column + j * 16) * 4, p.out_row);
        };
    }
};
