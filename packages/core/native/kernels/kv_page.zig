//! One page of one kv head in the paged cache: the only place that says how its bytes lie.
//!
//! f32 and f16 (layout strided): rows, [page_size][head_dim].
//!
//! q8_0 and q4_0: each row is rotated (hadamard.zig), then quantised in blocks of 32 along head_dim as ggml's types of
//! these names are (value = scale * code, f16 scale). The codes lie as the integer dots of attention read them; B is
//! head_dim / 32, P is page_size, a multiple of 16 up to 512 (sums of i16 weights must fit
//! 32 bits):
//!
//!     kv_keys    dots along head_dim: a lane per key holds four steps of head_dim (dot.zig's `tile`)
//!       q8_0     codes [P/16][B][8 steps][16 keys][4] u8, code + 128
//!       q4_0     codes [P/16][B][4 steps][16 keys][4] u8, code + 8: step s in the low half, step s + 4 in the high one
//!                then scales [P/16][B][16 keys] f16, then the reference [head_dim] f16
//!     kv_values  dots along keys: a lane per element of head_dim holds two keys (dot.zig's `dotWords`)
//!       q8_0     codes [B][P/2][32][2 keys] i8
//!       q4_0     codes [B][P/2][16][2 keys] u8, code + 8: element i in the low half, element i + 16 in the high one
//!                then scales [B][P] f16
//!
//! Rotated keys are stored less the reference of their page: the mean of the page before, as stored, and the first key
//! itself in page 0. Keys have a large part in common (biases of Qwen2's projections, above all), which would take the
//! scale from what tells them apart (SageAttention, Zhang et al. 2024); attention adds q · reference to the scores. A
//! reference depends on earlier keys alone, so on no chunking. Elements that are no finite f16 count as 0 in it.
//!
//! A row of values has bytes of its own: threads may append neighbours. Keys of one head are appended in order. A block
//! with a NaN or an infinity gets the scale NaN.

const std = @import("std");
const abi = @import("abi");
const simd = @import("simd.zig");
const hadamard = @import("hadamard.zig");
const views = @import("views.zig");

const lanes = simd.lanes;

/// Keys of a panel of keys.
pub const panel = 16;

pub const Form = enum {
    f32,
    f16,
    q8_0,
    q4_0,

    pub fn isFloat(form: Form) bool {
        return form == .f32 or form == .f16;
    }

    pub fn dtype(form: Form) abi.Dtype {
        return switch (form) {
            inline else => |f| @field(abi.Dtype, @tagName(f)),
        };
    }

    /// Bytes of the codes of one block of 32.
    pub fn codeBytes(form: Form) usize {
        return switch (form) {
            .f32 => 128,
            .f16 => 64,
            .q8_0 => 32,
            .q4_0 => 16,
        };
    }
};

/// Keys from `low` to before `high` of a page.
pub const Range = struct {
    low: usize,
    high: usize,

    /// x in the lanes whose key j + lane lies in the range, else `other`.
    pub inline fn keep(range: Range, x: simd.F, j: usize, other: f32) simd.F {
        if (j >= range.low and j + lanes <= range.high) return x;
        const index = std.simd.iota(i32, lanes) + @as(simd.I, @splat(@intCast(j)));
        const below = @select(f32, index < @as(simd.I, @splat(@intCast(range.high))), x, simd.splat(other));
        return @select(f32, index >= @as(simd.I, @splat(@intCast(range.low))), below, simd.splat(other));
    }
};

/// One page of one head. `layout` tells keys from values where they are quantised.
pub const Page = struct {
    form: Form,
    layout: abi.Layout,
    page_size: usize,
    head_dim: usize,

    pub fn init(cache: *const abi.TensorDesc) Page {
        const form: Form = switch (@as(abi.Dtype, @enumFromInt(cache.dtype))) {
            inline .f32, .f16, .q8_0, .q4_0 => |dtype| @field(Form, @tagName(dtype)),
            else => unreachable,
        };
        const layout: abi.Layout = @enumFromInt(cache.layout);
        return .{ .form = form, .layout = layout, .page_size = views.dim(cache, 2), .head_dim = views.dim(cache, 3) };
    }

    pub fn blocks(p: Page) usize {
        return p.head_dim / 32;
    }

    /// Bytes of the page, scales included.
    pub fn bytes(p: Page) usize {
        return switch (p.form) {
            .f32 => p.page_size * p.head_dim * 4,
            .f16 => p.page_size * p.head_dim * 2,
            .q8_0, .q4_0 => p.referenceAt() + if (p.hasReference()) abi.kvReferenceBytes(p.head_dim) else 0,
        };
    }

    pub fn hasReference(p: Page) bool {
        return p.layout == .kv_keys and !p.form.isFloat();
    }

    /// Where the reference of quantised keys begins.
    fn referenceAt(p: Page) usize {
        return p.scalesAt() + p.page_size * p.blocks() * 2;
    }

    pub fn reference(p: Page, base: [*]const u8) [*]align(2) const f16 {
        return @ptrCast(@alignCast(base + p.referenceAt()));
    }

    /// Where the scales of a quantised page begin.
    pub fn scalesAt(p: Page) usize {
        return p.page_size * p.blocks() * p.form.codeBytes();
    }

    /// Scales and reference, which are read first; nothing in a float page.
    pub fn scaleBytes(p: Page, base: [*]const u8) []const u8 {
        return if (p.form.isFloat()) base[0..0] else base[p.scalesAt()..p.bytes()];
    }

    /// The other bytes of the keys of a range, in one piece: more where their codes have others in between.
    pub fn rowBytes(p: Page, base: [*]const u8, range: Range) []const u8 {
        const row = p.head_dim / 32 * p.form.codeBytes();
        if (p.form.isFloat()) {
            const bytes_of = p.bytes() / p.page_size;
            return base[range.low * bytes_of .. range.high * bytes_of];
        }
        if (p.layout == .kv_values) return base[0..p.scalesAt()];
        return base[range.low / panel * panel * row .. std.mem.alignForward(usize, range.high, panel) * row];
    }

    /// Index of the scale of key j, block b.
    fn scaleIndex(p: Page, j: usize, b: usize) usize {
        if (p.layout == .kv_values) return b * p.page_size + j;
        return (j / panel * p.blocks() + b) * panel + j % panel;
    }

    /// Writes row j; destroys `row` where the page is quantised. `before` is the page before of quantised keys, null for
    /// page 0.
    pub fn write(p: Page, base: [*]u8, j: usize, row: [*]f32, before: ?[*]const u8) void {
        switch (p.form) {
            .f32 => @memcpy(@as([*]f32, @ptrCast(@alignCast(base)))[j * p.head_dim ..][0..p.head_dim], row),
            .f16 => {
                const out = @as([*]f16, @ptrCast(@alignCast(base))) + j * p.head_dim;
                var i: usize = 0;
                while (i + lanes <= p.head_dim) : (i += lanes) simd.storeHalf(out + i, simd.load(row + i));
                while (i < p.head_dim) : (i += 1) out[i] = @floatCast(row[i]);
            },
            inline .q8_0, .q4_0 => |form| {
                hadamard.rotate(row, p.head_dim);
                if (p.hasReference()) {
                    if (j == 0) p.setReference(form, base, row, before);
                    const common = p.reference(base);
                    for (0..p.head_dim) |i| row[i] -= common[i];
                }
                const scales: [*]align(1) f16 = @ptrCast(base + p.scalesAt());
                for (0..p.blocks()) |b| {
                    var codes: [32]i8 = undefined;
                    scales[p.scaleIndex(j, b)] = quantise(form, row[b * 32 ..][0..32], &codes);
                    p.place(form, base, j, b, &codes);
                }
            },
        }
    }

    fn setReference(p: Page, comptime form: Form, base: [*]u8, row: [*]const f32, before: ?[*]const u8) void {
        const out: [*]align(2) f16 = @constCast(p.reference(base));
        for (0..p.blocks()) |b| {
            const mean: V = if (before) |other| p.meanOf(form, other, b) else row[b * 32 ..][0..32].*;
            for (out[b * 32 ..][0..32], @as([32]f32, mean)) |*y, x| {
                const rounded: f16 = @floatCast(x);
                y.* = if (std.math.isFinite(rounded)) rounded else 0;
            }
        }
    }

    /// Mean of block b of a page's keys: reference + (sum of scale * code in order) / P; keys without a finite scale count
    /// as the reference.
    fn meanOf(p: Page, comptime form: Form, base: [*]const u8, b: usize) V {
        const scales: [*]align(1) const f16 = @ptrCast(base + p.scalesAt());
        var sum: V = @splat(0);
        for (0..p.page_size) |j| {
            const scale = scales[p.scaleIndex(j, b)];
            if (!std.math.isFinite(scale)) continue;
            const block = base + (j / panel * p.blocks() + b) * panel * form.codeBytes() + j % panel * 4;
            var unsigned: [32]u8 = undefined;
            inline for (0..comptime form.codeBytes() / 4) |s| {
                const four: @Vector(4, u8) = block[s * panel * 4 ..][0..4].*;
                unsigned[s * 4 ..][0..4].* = if (form == .q4_0) four & @as(@Vector(4, u8), @splat(15)) else four;
                if (form == .q4_0) unsigned[16 + s * 4 ..][0..4].* = four >> @splat(4);
            }
            const codes: @Vector(32, i16) = @as(@Vector(32, u8), unsigned);
            const zero: @Vector(32, i16) = @splat(if (form == .q8_0) 128 else 8);
            sum += @as(V, @splat(scale)) * @as(V, @floatFromInt(codes - zero));
        }
        const common: @Vector(32, f16) = p.reference(base)[b * 32 ..][0..32].*;
        return @as(V, @floatCast(common)) + sum / @as(V, @splat(@floatFromInt(p.page_size)));
    }

    /// Stores the codes of one block.
    fn place(p: Page, comptime form: Form, base: [*]u8, j: usize, b: usize, codes: *const [32]i8) void {
        const zero: @Vector(32, u8) = @splat(if (form == .q8_0) 128 else 8);
        const unsigned: [32]u8 = @as(@Vector(32, u8), @bitCast(codes.*)) +% zero;
        if (p.layout == .kv_keys) {
            const out = base + (j / panel * p.blocks() + b) * panel * form.codeBytes();
            for (0..form.codeBytes() / 4) |s| {
                const low: [4]u8 = unsigned[s * 4 ..][0..4].*;
                const high: [4]u8 = if (form == .q4_0) unsigned[16 + s * 4 ..][0..4].* else @splat(0);
                for (0..4) |i| out[(s * panel + j % panel) * 4 + i] = low[i] | high[i] << 4;
            }
            return;
        }
        const out = base + (b * p.page_size / 2 + j / 2) * 2 * form.codeBytes() + j % 2;
        switch (form) {
            .q8_0 => for (codes, 0..) |code, i| {
                out[i * 2] = @bitCast(code);
            },
            .q4_0 => for (0..16) |i| {
                out[i * 2] = unsigned[i] | unsigned[i + 16] << 4;
            },
            else => unreachable,
        }
    }

    /// Row j as attention sees it, in f32: quantised rows are rotated back.
    pub fn read(p: Page, base: [*]const u8, j: usize, out: [*]f32) void {
        switch (p.form) {
            .f32 => @memcpy(out[0..p.head_dim], @as([*]const f32, @ptrCast(@alignCast(base)))[j * p.head_dim ..]),
            .f16 => for (out[0..p.head_dim], @as([*]const f16, @ptrCast(@alignCast(base)))[j * p.head_dim ..]) |*y, v| {
                y.* = v;
            },
            .q8_0, .q4_0 => {
                const scales: [*]align(1) const f16 = @ptrCast(base + p.scalesAt());
                for (0..p.head_dim) |i| {
                    out[i] = @as(f32, scales[p.scaleIndex(j, i / 32)]) * @as(f32, @floatFromInt(p.codeAt(base, j, i)));
                    if (p.hasReference()) out[i] += p.reference(base)[i];
                }
                hadamard.rotate(out, p.head_dim);
            },
        }
    }

    /// Code of element i of row j.
    fn codeAt(p: Page, base: [*]const u8, j: usize, i: usize) i32 {
        const b = i / 32;
        const e = i % 32;
        if (p.layout == .kv_keys) {
            const block = base + (j / panel * p.blocks() + b) * panel * p.form.codeBytes();
            const byte: i32 = block[(e % p.form.codeBytes() / 4 * panel + j % panel) * 4 + e % 4];
            if (p.form == .q8_0) return byte - 128;
            return (if (e < 16) byte & 15 else byte >> 4) - 8;
        }
        const pair = base + (b * p.page_size / 2 + j / 2) * 2 * p.form.codeBytes() + j % 2;
        const byte = pair[e % p.form.codeBytes() * 2];
        if (p.form == .q8_0) return @as(i8, @bitCast(byte));
        return @as(i32, if (e < 16) byte & 15 else byte >> 4) - 8;
    }
};

const V = @Vector(32, f32);

/// Codes of a block and its scale: max|x| / 127 for q8_0; the element of largest magnitude / -8 for q4_0, the positive
/// one when two are largest. Codes are rounded to nearest even against the scale as it is stored.
fn quantise(comptime form: Form, x: *const [32]f32, codes: *[32]i8) f16 {
    const v: V = x.*;
    const magnitudes = @as(@Vector(32, u32), @bitCast(v)) & @as(@Vector(32, u32), @splat(0x7fffffff));
    const largest = @reduce(.Max, magnitudes);
    codes.* = @splat(0);
    if (largest >= 0x7f800000) return std.math.nan(f16);
    const magnitude: f32 = @bitCast(largest);
    const scale: f16 = switch (form) {
        .q8_0 => @floatCast(magnitude / 127),
        .q4_0 => @floatCast(if (@reduce(.Or, v == @as(V, @splat(magnitude)))) magnitude / -8 else magnitude / 8),
        else => unreachable,
    };
    if (scale == 0) return 0;
    const low: V = @splat(if (form == .q8_0) -127 else -8);
    const high: V = @splat(if (form == .q8_0) 127 else 7);
    const magic: V = @splat(0x1.8p23); // its last bit is worth 1
    const rounded = @max(@min(v / @as(V, @splat(scale)), high), low) + magic;
    codes.* = @as([32]i8, @bitCast(@as(@Vector(32, i8), @truncate(@as(@Vector(32, i32), @bitCast(rounded))))));
    return scale;
}

/// Scalar oracle of one element.
fn oracle(form: Form, x: []const f32, i: usize) f64 {
    var largest: f32 = 0;
    for (x) |v| if (@abs(v) > @abs(largest) or (@abs(v) == @abs(largest) and v > 0)) {
        largest = v;
    };
    const scale: f16 = @floatCast(if (form == .q8_0) @abs(largest) / 127 else largest / -8);
    if (scale == 0) return 0;
    const low: f32, const high: f32 = if (form == .q8_0) .{ -127, 127 } else .{ -8, 7 };
    const y = std.math.clamp(x[i] / @as(f32, scale), low, high);
    const below = @floor(y);
    const up = y - below > 0.5 or (y - below == 0.5 and @mod(below, 2) != 0);
    return @as(f64, scale) * @as(f64, if (up) below + 1 else below);
}

/// Two pages of the same rows, the second behind the first.
const Pair = struct {
    p: Page,
    x: []f32,
    first: []u8,
    second: []u8,

    fn init(p: Page) !Pair {
        const gpa = std.testing.allocator;
        const pair: Pair = .{
            .p = p,
            .x = try gpa.alloc(f32, p.page_size * p.head_dim),
            .first = try gpa.alloc(u8, p.bytes()),
            .second = try gpa.alloc(u8, p.bytes()),
        };
        var random: std.Random.DefaultPrng = .init(9);
        for (pair.x, 0..) |*v, i| v.* = random.random().floatNorm(f32) * @as(f32, if (i % 50 == 0) 30 else 1);
        // In a mixed order, so that a row that spills shows.
        for ([_][]u8{ pair.first, pair.second }, [_]?[*]u8{ null, pair.first.ptr }) |page, before| for (0..p.page_size) |k| {
            const j = k * 7 % p.page_size;
            var copy: [128]f32 = undefined;
            @memcpy(copy[0..p.head_dim], pair.row(j));
            p.write(page.ptr, j, &copy, before);
        };
        return pair;
    }

    fn deinit(pair: Pair) void {
        std.testing.allocator.free(pair.x);
        std.testing.allocator.free(pair.first);
        std.testing.allocator.free(pair.second);
    }

    fn row(pair: *const Pair, j: usize) []f32 {
        return pair.x[j * pair.p.head_dim ..][0..pair.p.head_dim];
    }

    /// Rows of a page, rotated, against the oracle.
    fn check(pair: *const Pair, page: []const u8) !void {
        for (0..pair.p.page_size) |j| {
            var want = rotated(pair.row(j));
            if (pair.p.hasReference()) for (want[0..pair.p.head_dim], pair.p.reference(page.ptr)) |*y, r| {
                y.* -= r;
            };
            const got = pair.stored(page, j);
            for (0..pair.p.head_dim) |i| {
                const common: f64 = if (pair.p.hasReference()) pair.p.reference(page.ptr)[i] else 0;
                const value = oracle(pair.p.form, want[i / 32 * 32 ..][0..32], i % 32) + common;
                try std.testing.expectApproxEqAbs(value, got[i], 1e-4);
            }
        }
    }

    fn stored(pair: *const Pair, page: []const u8, j: usize) [128]f32 {
        var out: [128]f32 = undefined;
        pair.p.read(page.ptr, j, &out);
        return rotated(out[0..pair.p.head_dim]);
    }
};

test "a row that is written reads as its oracle, and touches no other" {
    for ([_]Form{ .q8_0, .q4_0 }) |form| for ([_]abi.Layout{ .kv_keys, .kv_values }) |layout| {
        for ([_]usize{ 32, 96, 128 }) |head_dim| for ([_]usize{ 16, 48 }) |page_size| {
            const p: Page = .{ .form = form, .layout = layout, .page_size = page_size, .head_dim = head_dim };
            const pair: Pair = try .init(p);
            defer pair.deinit();
            const reference_bytes = if (layout == .kv_keys) head_dim * 2 else 0;
            try std.testing.expectEqual(page_size * head_dim / 32 * (form.codeBytes() + 2) + reference_bytes, p.bytes());
            try pair.check(pair.first);
            try pair.check(pair.second);
        };
    };
}

test "the reference of keys is the first key, then the mean of the page before" {
    for ([_]Form{ .q8_0, .q4_0 }) |form| {
        const p: Page = .{ .form = form, .layout = .kv_keys, .page_size = 16, .head_dim = 96 };
        const pair: Pair = try .init(p);
        defer pair.deinit();
        const key = rotated(pair.row(0));
        for (p.reference(pair.first.ptr)[0..96], key[0..96]) |r, x| try std.testing.expectEqual(@as(f16, @floatCast(x)), r);
        for (p.reference(pair.second.ptr)[0..96], 0..) |r, i| {
            var mean: f64 = 0;
            for (0..16) |j| mean += pair.stored(pair.first, j)[i] / 16;
            try std.testing.expectApproxEqAbs(mean, r, 2e-3 * @max(1, @abs(mean)));
        }
        // A key that is no number makes neither this reference nor the next one NaN.
        var bad: [96]f32 = @splat(std.math.nan(f32));
        p.write(pair.first.ptr, 0, &bad, null);
        for (p.reference(pair.first.ptr)[0..96]) |r| try std.testing.expectEqual(@as(f16, 0), r);
        bad = @splat(1);
        p.write(pair.second.ptr, 0, &bad, pair.first.ptr);
        for (p.reference(pair.second.ptr)[0..96]) |r| try std.testing.expect(std.math.isFinite(r));
    }
}

fn rotated(x: []const f32) [128]f32 {
    var out: [128]f32 = @splat(0);
    @memcpy(out[0..x.len], x);
    hadamard.rotate(&out, x.len);
    return out;
}

test "blocks of zeros, of tiny numbers, of ties, with NaN and infinity" {
    inline for (.{ Form.q8_0, Form.q4_0 }) |form| {
        var codes: [32]i8 = undefined;
        var x: [32]f32 = @splat(0);
        try std.testing.expectEqual(@as(f16, 0), quantise(form, &x, &codes));
        x = @splat(1e-12); // a scale below every f16
        try std.testing.expectEqual(@as(f16, 0), quantise(form, &x, &codes));
        for (&x, 0..) |*v, i| v.* = @as(f32, @floatFromInt(i)) - 16 + 0.5;
        x[3] = if (form == .q8_0) -127 else -8;
        if (form == .q4_0) for (&x) |*v| {
            v.* /= 4;
        };
        const scale = quantise(form, &x, &codes);
        for (codes, 0..) |code, i| try std.testing.expectEqual(oracle(form, &x, i), @as(f64, scale) * @as(f64, @floatFromInt(code)));
        x[7] = std.math.nan(f32);
        try std.testing.expect(std.math.isNan(quantise(form, &x, &codes)));
        x[7] = -std.math.inf(f32);
        try std.testing.expect(std.math.isNan(quantise(form, &x, &codes)));
    }
}
