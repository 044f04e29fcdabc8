//! The two products of attention over f32 and f16 pages: register tiles of gemm.zig over the dense rows, or for few rows
//! of queries the keys transposed in registers. Every element is one chain of multiply-adds in rising order.

const simd = @import("simd.zig");
const gemm = @import("gemm.zig");
const transposing = @import("transpose.zig");
const kv_page = @import("kv_page.zig");
const Stream = @import("attention_stream.zig").Stream;

const F = simd.F;
const lanes = simd.lanes;

pub const multiply = gemm.multiply;
pub const rows_max = gemm.rows_max;
pub const transpose = transposing.transpose;
pub const widenRow = transposing.widenRow;

/// Rows for which keys are transposed in registers instead of through scratch.
pub const direct_rows = if (simd.registers == 32) 8 else 4;

/// Scores of a few rows [rows][head_dim] to out[row][key], the keys transposed in registers. The same chain over head_dim
/// as `multiply`.
pub fn scoreDirect(
    comptime T: type,
    rows: usize,
    q: [*]const f32,
    keys: [*]const T,
    n: usize,
    range: kv_page.Range,
    out: [*]f32,
    stride: usize,
    stream: *Stream,
) void {
    switch (rows) {
        inline 1...direct_rows => |count| scoreRows(T, count, q, keys, n, range, out, stride, stream),
        else => unreachable,
    }
}

fn scoreRows(
    comptime T: type,
    comptime rows: usize,
    q: [*]const f32,
    keys: [*]const T,
    n: usize,
    range: kv_page.Range,
    out: [*]f32,
    stride: usize,
    stream: *Stream,
) void {
    @setEvalBranchQuota(10_000);
    var j: usize = range.low / lanes * lanes;
    while (j < range.high) : (j += lanes) {
        var acc: [rows]F = @splat(simd.zero);
        var c: usize = 0;
        while (c + lanes <= n) : (c += lanes) {
            stream.used(lanes * lanes * @sizeOf(T));
            const block = transposing.loadBlock(T, keys + j * n + c, n, range.high - j);
            inline for (0..lanes) |i| inline for (0..rows) |r| {
                acc[r] = simd.fma(simd.splat(q[r * n + c + i]), block[i], acc[r]);
            };
        }
        while (c < n) : (c += 1) {
            var column: [lanes]f32 = @splat(0);
            for (0..@min(lanes, range.high - j)) |i| column[i] = transposing.widen(T, keys[(j + i) * n + c]);
            inline for (0..rows) |r| acc[r] = simd.fma(simd.splat(q[r * n + c]), @as(F, column), acc[r]);
        }
        inline for (0..rows) |r| simd.store(out + r * stride + j, acc[r]);
    }
}

/// Sums of `keys` values [keys][n], n whole vectors, weighted by a few rows [rows][stride], to out [rows][n]: `multiply`
/// with a stream.
pub fn sumDirect(
    comptime T: type,
    rows: usize,
    weights: [*]const f32,
    stride: usize,
    keys: usize,
    values: [*]const T,
    n: usize,
    out: [*]f32,
    stream: *Stream,
) void {
    switch (rows) {
        inline 1...direct_rows => |count| {
            var c: usize = 0;
            inline for (.{ 8, 4, 2, 1 }) |vectors| if (vectors <= comptime gemm.widthMax(count)) {
                while (c + vectors * lanes <= n) : (c += vectors * lanes) {
                    sumColumns(T, count, vectors, weights, stride, keys, values + c, n, out + c, stream);
                }
            };
        },
        else => unreachable,
    }
}

fn sumColumns(
    comptime T: type,
    comptime rows: usize,
    comptime vectors: usize,
    weights: [*]const f32,
    stride: usize,
    keys: usize,
    values: [*]const T,
    n: usize,
    out: [*]f32,
    stream: *Stream,
) void {
    var acc: [rows][vectors]F = @splat(@splat(simd.zero));
    for (0..keys) |j| {
        stream.used(vectors * lanes * @sizeOf(T));
        inline for (0..vectors) |v| {
            const x = simd.loadAs(T, values + j * n + v * lanes);
            inline for (0..rows) |r| acc[r][v] = simd.fma(simd.splat(weights[r * stride + j]), x, acc[r][v]);
        }
    }
    inline for (0..rows) |r| inline for (0..vectors) |v| simd.store(out + r * n + v * lanes, acc[r][v]);
}
