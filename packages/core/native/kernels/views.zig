//! Typed access to strided tensors: rows (the last dim) of any leading dims, and vector loads and stores along a row.

const std = @import("std");
const abi = @import("abi");
const simd = @import("simd.zig");

const F = simd.F;
const lanes = simd.lanes;

/// Bytes of one element of a non-block dtype; 0 for others.
fn elementBytes(dtype: u32) usize {
    const known = std.enums.fromInt(abi.Dtype, dtype) orelse return 0;
    const info = abi.blockInfo(known) orelse return 0;
    return if (info.elements == 1) info.bytes else 0;
}

pub fn sameShape(a: *const abi.TensorDesc, b: *const abi.TensorDesc) bool {
    if (a.rank != b.rank) return false;
    for (0..a.rank) |d| if (a.shape[d] != b.shape[d]) return false;
    return true;
}

pub fn dim(desc: *const abi.TensorDesc, axis: usize) usize {
    return @intCast(desc.shape[axis]);
}

/// Number of elements.
pub fn count(desc: *const abi.TensorDesc) usize {
    var n: usize = 1;
    for (0..desc.rank) |d| n *= dim(desc, d);
    return n;
}

/// The address of element (i0, i1, …) of the leading `index.len` dims.
pub fn addressOf(desc: *const abi.TensorDesc, index: []const usize) usize {
    var offset: i64 = 0;
    for (index, 0..) |i, d| offset += @as(i64, @intCast(i)) * desc.strides[d];
    return move(@intCast(desc.data), offset * @as(i64, @intCast(elementBytes(desc.dtype))));
}

fn move(base: usize, bytes: i64) usize {
    return base +% @as(usize, @bitCast(@as(isize, @intCast(bytes))));
}

/// A tensor as rows: the last `inner` (0 or 1) dim is a row, the others number the rows.
pub const Rows = struct {
    base: usize,
    /// Number of rows.
    count: usize,
    /// Elements of a row and their distance in elements.
    n: usize,
    stride: i64,
    /// Leading dims, those that can be merged already merged; strides in bytes.
    dims: usize,
    shape: [abi.max_rank]usize,
    strides: [abi.max_rank]i64,

    fn one(desc: *const abi.TensorDesc, n: usize) Rows {
        const base: usize = @intCast(desc.data);
        return .{ .base = base, .count = 1, .n = n, .stride = 1, .dims = 0, .shape = undefined, .strides = undefined };
    }

    pub fn init(desc: *const abi.TensorDesc, inner: usize) Rows {
        const bytes: i64 = @intCast(elementBytes(desc.dtype));
        var rows: Rows = .one(desc, 1);
        const leading = desc.rank -| inner;
        if (inner == 1 and desc.rank > 0) {
            rows.n = dim(desc, leading);
            rows.stride = if (rows.n == 1) 1 else desc.strides[leading];
        }
        for (0..leading) |d| {
            const length = dim(desc, d);
            rows.count *= length;
            if (length == 1) continue;
            const stride = desc.strides[d] * bytes;
            if (rows.dims > 0 and rows.strides[rows.dims - 1] == stride * desc.shape[d]) {
                rows.shape[rows.dims - 1] *= length;
                rows.strides[rows.dims - 1] = stride;
            } else {
                rows.shape[rows.dims] = length;
                rows.strides[rows.dims] = stride;
                rows.dims += 1;
            }
        }
        return rows;
    }

    pub fn address(self: *const Rows, row: usize) usize {
        if (self.dims == 0) return self.base;
        var rest = row;
        var at = self.base;
        var d = self.dims;
        while (d > 1) {
            d -= 1;
            at = move(at, @as(i64, @intCast(rest % self.shape[d])) * self.strides[d]);
            rest /= self.shape[d];
        }
        return move(at, @as(i64, @intCast(rest)) * self.strides[0]);
    }

    /// The row's elements for vector access.
    pub fn cursor(self: *const Rows, comptime dense: bool, row: usize) Cursor(dense) {
        return .{ .p = @ptrFromInt(self.address(row)), .stride = @intCast(self.stride) };
    }

    pub fn pointer(self: *const Rows, comptime T: type, row: usize) [*]T {
        return @ptrFromInt(self.address(row));
    }
};

/// f32 elements of one row. Dense rows load vectors, others gather; both give the same values, so kernels over a cursor
/// give the same bits for any strides.
pub fn Cursor(comptime dense: bool) type {
    return struct {
        const Self = @This();
        p: [*]f32,
        stride: isize,

        pub inline fn at(c: Self, i: usize) *f32 {
            if (dense) return &c.p[i];
            return @ptrFromInt(@intFromPtr(c.p) +% @as(usize, @bitCast(@as(isize, @intCast(i)) * c.stride * 4)));
        }

        pub inline fn load(c: Self, i: usize) F {
            if (dense) return simd.load(c.p + i);
            return c.loadPart(i, lanes, 0);
        }

        /// Copies the first elements of the row.
        pub fn read(c: Self, out: []f32) void {
            if (dense or c.stride == 1) return @memcpy(out, c.p);
            for (out, 0..) |*y, i| y.* = c.at(i).*;
        }

        /// Elements i … i+n-1, the lanes above are `fill`.
        pub inline fn loadPart(c: Self, i: usize, n: usize, fill: f32) F {
            if (dense) return simd.loadPart(c.p + i, n, fill);
            var buffer: [lanes]f32 = @splat(fill);
            for (0..n) |k| buffer[k] = c.at(i + k).*;
            return buffer;
        }

        pub inline fn store(c: Self, i: usize, v: F) void {
            if (dense) return simd.store(c.p + i, v);
            c.storePart(i, lanes, v);
        }

        pub inline fn storePart(c: Self, i: usize, n: usize, v: F) void {
            if (dense) return simd.storePart(c.p + i, n, v);
            const buffer: [lanes]f32 = v;
            for (0..n) |k| c.at(i + k).* = buffer[k];
        }
    };
}

/// Sum of f(state, x) over a row: four accumulators, their order fixed by `n` alone. `fill` is an element that adds 0.
pub inline fn sumRow(row: anytype, n: usize, fill: f32, state: anytype, comptime f: fn (@TypeOf(state), F) callconv(.@"inline") F) f32 {
    var acc: [4]F = @splat(simd.zero);
    var i: usize = 0;
    while (i + 4 * lanes <= n) : (i += 4 * lanes) {
        inline for (0..4) |k| acc[k] += f(state, row.load(i + k * lanes));
    }
    while (i + lanes <= n) : (i += lanes) acc[0] += f(state, row.load(i));
    if (i < n) acc[1] += f(state, row.loadPart(i, n - i, fill));
    return simd.sumLanes((acc[0] + acc[1]) + (acc[2] + acc[3]));
}

/// Rows that a thread should take at least, so that small work stays on one thread.
pub fn rowGrain(n: usize) usize {
    return @max(1, 2048 / @max(1, n));
}
