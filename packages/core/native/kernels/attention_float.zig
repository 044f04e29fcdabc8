//! The two products of attention over f32 and f16 pages: register tiles of gemm.zig over the dense rows, or for few rows
//! of queries the keys transposed in registers. Every element is one chain of multiply-adds in rising order.

const simd = @import("simd.zig");
const gemm = @import("gemm.zig");
const transposing = @import("transpose.zig");
const kv_page = @import("kv_page.zig");

const F = simd.F;
const lanes = simd.lanes;

pub const multiply = gemm.multiply;
pub const rows_max = gemm.rows_max;
pub const transpose = transposing.transpose;
pub const widenRow = transposing.widenRow;

/// Rows for which keys are transposed in registers instead of through scratch.
pub const direct_rows = if (simd.registers == 32) 8 else 4;

/// Scores of a few rows [rows][head_dim] to out[row][key], the keys transposed in registers. Meanwhile the lines of
/// `ahead` come nearer. The same chain over head_dim as `multiply`.
pub fn scoreDirect(
    comptime T: type,
    rows: usize,
    q: [*]const f32,
    keys: [*]const T,
    n: usize,
    range: kv_page.Range,
    out: [*]f32,
    stride: usize,
    ahead: [2]kv_page.Ahead,
) void {
    switch (rows) {
        inline 1...direct_rows => |count| scoreRows(T, count, q, keys, n, range, out, stride, ahead),
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
    start_ahead: [2]kv_page.Ahead,
) void {
    @setEvalBranchQuota(10_000);
    const block_bytes = @max(64, lanes * lanes * @sizeOf(T));
    var ahead = start_ahead;
    var j: usize = range.low / lanes * lanes;
    while (j < range.high) : (j += lanes) {
        var acc: [rows]F = @splat(simd.zero);
        var c: usize = 0;
        while (c + lanes <= n) : (c += lanes) {
            for (&ahead) |*a| a.fetch(block_bytes);
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
