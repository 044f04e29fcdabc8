//! Batched f32 matmul of strided operands.
//!
//! Work is cut into tasks of `block_m` rows times one panel of `block_n` columns of one matrix. A task packs `block_k`
//! rows of its panel of B (and of A when its rows are not dense) and keeps C in scratch until k is done.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");
const gemm = @import("gemm.zig");

const block_m = 96;
const block_n = 64;
const block_k = 128;
const floats_per_thread = block_k * block_n + block_m * block_k + block_m * block_n;

pub fn matmul_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    _ = cmd;
    return @as(u64, threads) * floats_per_thread * @sizeOf(f32);
}

/// One matrix of a batch; strides in elements.
const Matrix = struct {
    p: [*]f32,
    row: isize,
    column: isize,

    fn at(self: Matrix, i: usize, j: usize) *f32 {
        const offset = @as(isize, @intCast(i)) * self.row + @as(isize, @intCast(j)) * self.column;
        return @ptrFromInt(@intFromPtr(self.p) +% @as(usize, @bitCast(offset * 4)));
    }

    fn sub(self: Matrix, i: usize, j: usize) Matrix {
        return .{ .p = @ptrCast(self.at(i, j)), .row = self.row, .column = self.column };
    }

    /// Copies a block to rows of `width` floats, zero from column n on.
    fn pack(self: Matrix, m: usize, n: usize, to: [*]f32, width: usize) void {
        for (0..m) |i| {
            const row = to + i * width;
            if (self.column == 1) {
                const from: [*]const f32 = @ptrCast(self.at(i, 0));
                @memcpy(row[0..n], from[0..n]);
            }
            @memset(row[n..width], 0);
        }
        if (self.column == 1) return;
        // Along the columns of the source, which are likely the dense side.
        for (0..n) |j| for (0..m) |i| {
            to[i * width + j] = self.at(i, j).*;
        };
    }

    fn unpack(self: Matrix, m: usize, n: usize, from: [*]const f32, width: usize) void {
        for (0..m) |i| {
            const row = from + i * width;
            if (self.column == 1) {
                const to: [*]f32 = @ptrCast(self.at(i, 0));
                @memcpy(to[0..n], row[0..n]);
            } else for (0..n) |j| {
                self.at(i, j).* = row[j];
            }
        }
    }
};

fn matrixOf(desc: *const abi.TensorDesc, batch: usize) Matrix {
    const rank = desc.rank;
    var leading = desc.*;
    leading.rank = rank - 2;
    const rows: views.Rows = .init(&leading, 0);
    return .{ .p = @ptrFromInt(rows.address(batch)), .row = @intCast(desc.strides[rank - 2]), .column = @intCast(desc.strides[rank - 1]) };
}

fn runTask(a: Matrix, b: Matrix, out: Matrix, m: usize, n: usize, k: usize, scratch: [*]f32) void {
    const packed_b = scratch;
    const packed_a = packed_b + block_k * block_n;
    const c = packed_a + block_m * block_k;
    const width = simd.roundUp(n);
    if (k == 0) @memset(c[0 .. m * width], 0);
    var done: usize = 0;
    while (done < k) {
        const depth = @min(block_k, k - done);
        b.sub(done, 0).pack(depth, n, packed_b, width);
        const part = a.sub(0, done);
        const dense = a.column == 1 and a.row >= 0;
        if (!dense) part.pack(m, depth, packed_a, depth);
        const rows: [*]const f32 = if (dense) part.p else packed_a;
        const lda: usize = if (dense) @intCast(a.row) else depth;
        if (done == 0) {
            gemm.multiply(f32, .zero, m, width, depth, rows, lda, packed_b, width, c, width);
        } else {
            gemm.multiply(f32, .c, m, width, depth, rows, lda, packed_b, width, c, width);
        }
        done += depth;
    }
    out.unpack(m, n, c, width);
}

/// inputs: a [..., m, k], b [..., k, n] with equal leading dims; outputs: [..., m, n].
pub fn matmul(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    const a = &cmd.inputs[0];
    const b = &cmd.inputs[1];
    const out = &cmd.outputs[0];
    const rank = a.rank;
    std.debug.assert(ctx.scratch.len >= matmul_workspace(cmd, ctx.threads));
    const m = views.dim(a, rank - 2);
    const k = views.dim(a, rank - 1);
    const n = views.dim(out, rank - 1);
    var batches: usize = 1;
    for (0..rank - 2) |d| batches *= views.dim(a, d);
    const tasks_m = (m + block_m - 1) / block_m;
    const tasks_n = (n + block_n - 1) / block_n;
    const scratch = @as([*]f32, @ptrCast(ctx.scratch.ptr)) + ctx.thread * floats_per_thread;
    while (true) {
        const task = ctx.take();
        if (task >= batches * tasks_m * tasks_n) return;
        const column = task % tasks_n * block_n;
        const row = task / tasks_n % tasks_m * block_m;
        const batch = task / tasks_n / tasks_m;
        const target = matrixOf(out, batch).sub(row, column);
        const left = matrixOf(a, batch).sub(row, 0);
        runTask(left, matrixOf(b, batch).sub(0, column), target, @min(block_m, m - row), @min(block_n, n - column), k, scratch);
    }
}

/// Scalar oracle of contiguous matrices, f64 sums.
pub fn matmulScalar(m: usize, n: usize, k: usize, a: []const f32, b: []const f32, out: []f64) void {
    for (0..m) |i| for (0..n) |j| {
        var sum: f64 = 0;
        for (0..k) |l| sum += @as(f64, a[i * k + l]) * b[l * n + j];
        out[i * n + j] = sum;
    };
}
