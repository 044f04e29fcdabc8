//! The f32 register tile that matmul and attention share: C[m][n] (+)= A[m][k] B[k][n] over dense panels.
//!
//! Each element of C is one chain of (fused) multiply-adds over k in rising order, starting from 0 or from C. Its bits
//! therefore depend neither on the tile it falls into nor on how m, n or k are blocked.

const simd = @import("simd.zig");

const F = simd.F;
const lanes = simd.lanes;

pub const Start = enum { zero, c };

/// Rows of C in the largest tile of several vectors.
pub const rows_max = 6;

/// Of a tile one vector wide: as many sums as hide a multiply-add's latency.
const narrow_rows = 12;

/// Largest tile width in vectors for a tile of `rows`: accumulators, one row of B and a broadcast fit the registers.
pub fn widthMax(comptime rows: usize) usize {
    if (simd.registers == 32) return if (rows > 2) 4 else 8;
    return if (rows > 2) 2 else if (rows == 2) 4 else 8;
}

noinline fn tile(
    comptime T: type,
    comptime rows: usize,
    comptime width: usize,
    comptime start: Start,
    k: usize,
    a: [*]const f32,
    lda: usize,
    b: [*]const T,
    ldb: usize,
    c: [*]f32,
    ldc: usize,
) void {
    var acc: [rows][width]F = undefined;
    inline for (0..rows) |r| inline for (0..width) |v| {
        acc[r][v] = if (start == .zero) simd.zero else simd.load(c + r * ldc + v * lanes);
    };
    var from = b;
    for (0..k) |i| {
        var row: [width]F = undefined;
        inline for (0..width) |v| row[v] = simd.loadAs(T, from + v * lanes);
        inline for (0..rows) |r| {
            const x = simd.splat(a[r * lda + i]);
            inline for (0..width) |v| acc[r][v] = simd.fma(x, row[v], acc[r][v]);
        }
        from += ldb;
    }
    inline for (0..rows) |r| inline for (0..width) |v| simd.store(c + r * ldc + v * lanes, acc[r][v]);
}

fn strip(
    comptime T: type,
    comptime rows: usize,
    comptime start: Start,
    vectors: usize,
    k: usize,
    a: [*]const f32,
    lda: usize,
    b: [*]const T,
    ldb: usize,
    c: [*]f32,
    ldc: usize,
) void {
    var v: usize = 0;
    inline for ([_]usize{ 8, 4, 2, 1 }) |width| {
        if (width <= comptime widthMax(rows)) {
            while (v + width <= vectors) : (v += width) tile(T, rows, width, start, k, a, lda, b + v * lanes, ldb, c + v * lanes, ldc);
        }
    }
}

/// m rows, n a multiple of `simd.lanes`; strides in elements. B may be f16.
pub fn multiply(
    comptime T: type,
    comptime start: Start,
    m: usize,
    n: usize,
    k: usize,
    a: [*]const f32,
    lda: usize,
    b: [*]const T,
    ldb: usize,
    c: [*]f32,
    ldc: usize,
) void {
    const vectors = n / lanes;
    var r: usize = 0;
    if (vectors == 1) while (r + narrow_rows <= m) : (r += narrow_rows) {
        tile(T, narrow_rows, 1, start, k, a + r * lda, lda, b, ldb, c + r * ldc, ldc);
    };
    inline for ([_]usize{ rows_max, 4, 2, 1 }) |rows| {
        while (r + rows <= m) : (r += rows) strip(T, rows, start, vectors, k, a + r * lda, lda, b, ldb, c + r * ldc, ldc);
    }
}
