//! What both ways of attention (attention_tile.zig, attention_i8.zig) have in common: which keys the query rows of a tile
//! see, and the running results of flash-style attention.

const std = @import("std");
const abi = @import("abi");
const simd = @import("simd.zig");
const views = @import("views.zig");
const hadamard = @import("hadamard.zig");
const quantize = @import("quantize.zig");

const lanes = simd.lanes;

/// Floats in whole cache lines, which are whole vectors at every level.
pub fn padded(n: usize) usize {
    return std.mem.alignForward(usize, n, 16);
}

/// Floats of arrays that `place` places.
pub fn floatsOf(parts: []const usize) usize {
    var total: usize = 0;
    for (parts) |part| total += padded(part);
    return total;
}

/// Points the fields `names` of a tile to arrays of so many floats, one after the other; returns what lies behind them.
pub fn place(tile: anytype, comptime names: anytype, parts: [names.len]usize, memory: [*]f32) [*]f32 {
    var at = memory;
    inline for (names, parts) |name, part| {
        @field(tile, name) = @ptrCast(at);
        at += padded(part);
    }
    return at;
}

/// The query rows of one kv head for some tokens: row r is token r / group, query head r % group of the group.
pub const View = struct {
    head: usize,
    group: usize,
    head_dim: usize,
    /// Position of the first token, and how many there are.
    position: usize,
    tokens: usize,
    /// Sliding window; 0 for none.
    window: usize,
    page_size: usize,

    /// All tokens of a command, and the first head.
    pub fn of(cmd: *const abi.Command) View {
        const q = &cmd.inputs[0];
        const cache = &cmd.inputs[1];
        return .{
            .head = 0,
            .group = views.dim(q, 1) / views.dim(cache, 1),
            .head_dim = views.dim(q, 2),
            .position = @intCast(cmd.ints[0]),
            .tokens = views.dim(q, 0),
            .window = @intCast(cmd.ints[1]),
            .page_size = views.dim(cache, 2),
        };
    }

    pub fn rows(v: *const View) usize {
        return v.tokens * v.group;
    }

    /// The first key that the token at `position` sees.
    pub fn firstKey(v: *const View, position: usize) usize {
        return if (v.window > 0) (position + 1) -| v.window else 0;
    }

    pub fn firstPage(v: *const View) usize {
        return v.firstKey(v.position) / v.page_size;
    }

    pub fn lastPage(v: *const View) usize {
        return (v.position + v.tokens - 1) / v.page_size;
    }

    /// Which of `count` keys from `base` on every row sees, relative to `base`. Both bounds rise with the row.
    pub fn look(v: *const View, base: usize, count: usize, low: [*]u32, high: [*]u32) void {
        var r: usize = 0;
        if (v.position + 1 >= base + count and v.firstKey(v.position + v.tokens - 1) <= base) {
            while (r < v.rows()) : (r += lanes) {
                low[r..][0..lanes].* = @splat(0);
                high[r..][0..lanes].* = @splat(@intCast(count));
            }
            return;
        }
        for (v.position..v.position + v.tokens) |last| {
            const end = @min(count, last + 1 -| base);
            for (0..v.group) |_| {
                low[r] = @intCast(@min(end, v.firstKey(last) -| base));
                high[r] = @intCast(end);
                r += 1;
            }
        }
    }

    /// The token of the tile, and the query head, of row r.
    fn placeOf(v: *const View, r: usize) [2]usize {
        const token = r / v.group;
        return .{ token, v.head * v.group + r - token * v.group };
    }

    /// Where row r of q or of the output, f32, lies; `first` is the tile's first token. Asks for the row of a token that
    /// comes soon: no hardware sees rows of tokens coming, which lie far apart.
    fn rowOf(v: *const View, desc: *const abi.TensorDesc, first: usize, r: usize) views.Cursor(false) {
        const token, const head = v.placeOf(r);
        const apart = desc.strides[0] * @sizeOf(f32);
        const offset = @as(i64, @intCast(first + token)) * apart + @as(i64, @intCast(head)) * desc.strides[1] * @sizeOf(f32);
        const address: usize = @intCast(@as(i64, @intCast(desc.data)) + offset);
        const soon = 2;
        if (token + soon < v.tokens) {
            const line = 64;
            const next: usize = @intCast(@as(i64, @intCast(address)) + soon * apart);
            for (0..views.dim(desc, 2) * @sizeOf(f32) / line) |i| @prefetch(@as([*]const u8, @ptrFromInt(next + i * line)), .{});
        }
        return .{ .p = @ptrFromInt(address), .stride = @intCast(desc.strides[2]) };
    }

    /// Copies the row of q [tokens, heads, head_dim] times `scale`; `first` is the tile's first token.
    pub fn readQuery(v: *const View, q: *const abi.TensorDesc, first: usize, r: usize, scale: f32, to: []f32) void {
        const x = v.rowOf(q, first, r);
        var i: usize = 0;
        if (x.stride == 1) while (i + lanes <= to.len) : (i += lanes) simd.store(to.ptr + i, simd.load(x.p + i) * simd.splat(scale));
        while (i < to.len) : (i += 1) to[i] = x.at(i).* * scale;
    }

    /// Writes acc / sum of all rows, rotated back where values were rotated; zeros where nothing was seen.
    pub fn finish(v: *const View, s: State, width: usize, rotated: bool, out: *const abi.TensorDesc, first: usize) void {
        const quantised = quantize.isWanted(out);
        // Few rows at a time, which the first cache holds.
        var start: usize = 0;
        while (start < v.rows()) : (start += some) {
            const end = @min(v.rows(), start + some);
            if (rotated) for (start..end) |r| hadamard.rotate(s.acc + r * width, v.head_dim);
            if (quantised) v.quantizeRows(s, width, out, first, start, end - start) else {
                for (start..end) |r| v.storeRow(s.acc + r * width, s.inverse(r), out, first, r);
            }
        }
    }

    /// Rows that `finish` takes at a time.
    const some = 16;

    fn storeRow(v: *const View, acc: [*]const f32, inverse: f32, out: *const abi.TensorDesc, first: usize, r: usize) void {
        const y = v.rowOf(out, first, r);
        var i: usize = 0;
        if (y.stride == 1) while (i + lanes <= v.head_dim) : (i += lanes) simd.store(y.p + i, simd.load(acc + i) * simd.splat(inverse));
        while (i < v.head_dim) : (i += 1) y.at(i).* = acc[i] * inverse;
    }

    /// The same values of rows r … r+count-1 as a head's blocks of an output q8a [tokens, heads * head_dim].
    fn quantizeRows(v: *const View, s: State, width: usize, out: *const abi.TensorDesc, first: usize, r: usize, count: usize) void {
        const blocks = v.head_dim / 32;
        var writers: [some]quantize.Writer = undefined;
        var inverses: [some]f32 = undefined;
        for (writers[0..count], inverses[0..count], r..) |*writer, *inverse, row| {
            inverse.* = s.inverse(row);
            const token, const head = v.placeOf(row);
            writer.* = quantize.Writer.row(out, first + token, views.dim(out, 1)).from(head * blocks);
        }
        for (0..blocks) |b| {
            var values: [some][32]f32 align(64) = undefined;
            for (values[0..count], inverses[0..count], r..) |*value, inverse, row| {
                const acc = s.acc + row * width + b * 32;
                inline for (0..32 / lanes) |i| simd.store(value[i * lanes ..].ptr, simd.load(acc + i * lanes) * simd.splat(inverse));
            }
            quantize.blockOfRows(writers[0..count], b, @ptrCast(&values));
        }
    }
};

/// Running result of some rows: out = acc / sum, all relative to exp(max).
pub const State = struct {
    max: [*]f32,
    sum: [*]f32,
    acc: [*]f32,

    /// Floats of a result: per row its maximum, its sum and the weighted values.
    pub fn floats(rows: usize, width: usize) usize {
        return padded(rows) * 2 + padded(rows * width);
    }

    pub fn at(p: [*]f32, rows: usize) State {
        return .{ .max = p, .sum = p + padded(rows), .acc = p + 2 * padded(rows) };
    }

    /// What makes the result of row r of its weighted values: 0 where nothing was seen.
    fn inverse(s: State, r: usize) f32 {
        return if (s.sum[r] == 0) 0 else 1 / s.sum[r];
    }

    pub fn reset(s: State, rows: usize, width: usize) void {
        s.resetSums(rows);
        simd.setAll(s.acc, padded(rows * width), 0);
    }

    /// All but the weighted values, for those who do not add to the first of them.
    pub fn resetSums(s: State, rows: usize) void {
        simd.setAll(s.max, padded(rows), -simd.inf);
        simd.setAll(s.sum, padded(rows), 0);
    }

    /// Merges maxima and sums of rows first … end-1, and leaves the factors for the weighted values in keep and gain. Rows
    /// to which nothing is added keep what they have.
    pub fn absorb(s: State, max: [*]const f32, sum: [*]const f32, first: usize, end: usize, keep: [*]f32, gain: [*]f32) void {
        var r = first;
        while (r < end) : (r += lanes) {
            const own = simd.load(s.max + r);
            const other = simd.load(max + r);
            const added = simd.load(sum + r);
            const e = simd.exp(-@abs(other - own));
            const newer = other > own;
            const empty = added == simd.zero;
            const kept = @select(f32, empty, simd.splat(1), @select(f32, newer, e, simd.splat(1)));
            const gained = @select(f32, empty, simd.zero, @select(f32, newer, simd.splat(1), e));
            const own_sum = simd.load(s.sum + r);
            simd.store(keep + r, kept);
            simd.store(gain + r, gained);
            simd.store(s.max + r, @select(f32, empty, own, @select(f32, newer, other, own)));
            simd.store(s.sum + r, @select(f32, empty, own_sum, own_sum * kept + added * gained));
        }
    }
};

test "look tells which keys each row sees" {
    const count = 32;
    const sizes = [_][2]usize{ .{ 1, 1 }, .{ 7, 3 }, .{ 16, 1 }, .{ 16, 3 } };
    for ([_]usize{ 0, 1, 5, 40, 200 }) |window| for (sizes) |size| for ([_]usize{ 0, 30, 31, 94, 100, 127 }) |position| {
        const tokens, const group = size;
        const v: View = .{
            .head = 0,
            .group = group,
            .head_dim = 64,
            .position = position,
            .tokens = tokens,
            .window = window,
            .page_size = 16,
        };
        for ([_]usize{ 0, 64, 96 }) |base| {
            var low: [48]u32 = undefined;
            var high: [48]u32 = undefined;
            v.look(base, count, &low, &high);
            for (0..v.rows()) |r| for (0..count) |j| {
                const last = position + r / group;
                const seen = base + j <= last and (window == 0 or base + j + window > last);
                try std.testing.expectEqual(seen, j >= low[r] and j < high[r]);
            };
        }
    };
}
