//! `linear` on AMX tiles against sums in f64 of the same factors, and its promise about bits.

const std = @import("std");
const abi = @import("abi");
const activation = @import("activation.zig");
const context = @import("context");
const packed_weights = @import("packed.zig");
const quantize = @import("quantize.zig");
const linear_amx = @import("linear_amx.zig");
const testing = @import("linear_testing.zig");
const prepare = @import("amx_testing.zig").prepare;

fn run(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    linear_amx.run(ctx, cmd);
}

fn runSwiglu(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    linear_amx.swiglu.run(ctx, cmd);
}

fn workspaceSwiglu(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    return linear_amx.swiglu.scratchBytes(cmd, threads);
}

fn workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    return linear_amx.scratchBytes(cmd, threads);
}

/// To nearest even, denormals to zero: what both factors are rounded to.
fn toBf16(x: f32) f32 {
    if (std.math.isNan(x)) return x;
    const bits: u32 = @bitCast(x);
    if (bits & 0x7f800000 == 0) return 0;
    return @bitCast((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000);
}

const Case = struct { dtype: abi.Dtype, rows: usize, n: usize, k: usize, bias: bool };

const Problem = struct {
    case: Case,
    weights: testing.Weights,
    x: []align(64) u8,
    bias: []f32,

    fn init(gpa: std.mem.Allocator, case: Case, random: std.Random) !Problem {
        var self: Problem = .{
            .case = case,
            .weights = try testing.Weights.init(gpa, case.dtype, case.n, case.k, random, true),
            .x = try gpa.alignedAlloc(u8, .@"64", case.rows * abi.q8aRowBytes(case.k)),
            .bias = try gpa.alloc(f32, case.n),
        };
        try self.weights.pack(1);
        const values = try gpa.alloc(f32, case.rows * case.k);
        for (values) |*v| v.* = random.floatNorm(f32);
        for (self.bias) |*v| v.* = random.floatNorm(f32);
        var cmd: abi.Command = .{};
        cmd.inputs[0] = testing.describe(.f32, @intFromPtr(values.ptr), &.{ case.rows, case.k });
        cmd.outputs[0] = testing.describe(.q8a, @intFromPtr(self.x.ptr), &.{ case.rows, case.k });
        try testing.run(quantize.quantize_rows, null, &cmd, 1);
        return self;
    }

    /// Rows first … first+rows-1 of the product; rows of the output are n + 1 apart, and what lies between is checked.
    fn multiply(self: *const Problem, gpa: std.mem.Allocator, first: usize, rows: usize, threads: u32) ![]f32 {
        return self.multiplyBy(&self.weights, gpa, first, rows, threads);
    }

    /// `multiply` by other weights of the same shape.
    fn multiplyBy(self: *const Problem, weights: *const testing.Weights, gpa: std.mem.Allocator, first: usize, rows: usize, threads: u32) ![]f32 {
        const n = self.case.n;
        const out = try gpa.alloc(f32, rows * (n + 1));
        @memset(out, 12345);
        var cmd: abi.Command = .{ .input_count = 3, .output_count = 1 };
        const address = @intFromPtr(self.x.ptr) + first * abi.q8aRowBytes(self.case.k);
        cmd.inputs[0] = testing.describe(.q8a, address, &.{ rows, self.case.k });
        cmd.inputs[1] = weights.packed_desc;
        if (self.case.bias) cmd.inputs[2] = testing.describe(.f32, @intFromPtr(self.bias.ptr), &.{n});
        cmd.outputs[0] = testing.describe(.f32, @intFromPtr(out.ptr), &.{ rows, n });
        cmd.outputs[0].strides[0] = @intCast(n + 1);
        try std.testing.expect(linear_amx.takes(&cmd));
        try testing.run(run, workspace, &cmd, threads);
        for (0..rows) |r| try std.testing.expectEqual(@as(f32, 12345), out[r * (n + 1) + n]);
        return out;
    }

    /// Column `c` of the weights as the kernel rounds it.
    fn column(self: *const Problem, c: usize, out: []f32) void {
        const kind = packed_weights.kindOf(self.weights.packed_desc.dtype).?;
        const base = self.weights.packed_bytes.ptr + c / 16 * packed_weights.panelBytes(kind, self.case.k);
        switch (kind) {
            .f32, .f16, .bf16 => unreachable,
            inline else => |q| {
                const f = comptime packed_weights.form(q);
                const panel = packed_weights.Panel(q).init(base);
                for (out, 0..) |*value, i| {
                    const scale, const min, const codes = panel.columnGroup(i / 32, c % 16, i % 32 / f.group);
                    const zero: f32 = f.zero;
                    const code: f32 = @floatFromInt(codes[i % f.group] + f.zero);
                    const offset = if (f.has_min) @mulAdd(f32, -zero, scale, min) else -zero * scale;
                    value.* = toBf16(@mulAdd(f32, code, scale, offset));
                }
            },
        }
    }

    /// Every element within what rounding of f32 sums allows.
    fn check(self: *const Problem, gpa: std.mem.Allocator, out: []const f32) !void {
        const k = self.case.k;
        const w = try gpa.alloc(f32, k);
        // Roundings on the way of a product: 16 in its chain, one for both chains, one per step, and as many of the start.
        const roundings: f64 = @floatFromInt(18 + k / 32);
        for (0..self.case.n) |c| {
            self.column(c, w);
            for (0..self.case.rows) |r| {
                const x = quantize.Row.init(self.x.ptr + r * abi.q8aRowBytes(k), k);
                var sum: f64 = if (self.case.bias) self.bias[c] else 0;
                var magnitude: f64 = @abs(sum);
                for (w, 0..) |weight, i| {
                    const code: f32 = @floatFromInt(x.codes[i]);
                    const product = @as(f64, toBf16(code * x.scales[i / 32])) * weight;
                    sum += product;
                    magnitude += @abs(product);
                }
                const got = out[r * (self.case.n + 1) + c];
                if (@abs(got - sum) <= roundings * 0x1p-24 * magnitude + 1e-36) continue;
                std.debug.print("{t} n {d} k {d} at {d},{d}: {d}, not {d}\n", .{ self.case.dtype, self.case.n, k, r, c, got, sum });
                return error.Differs;
            }
        }
    }
};

test "linear on tiles is the product of the rounded factors, for every dtype and tail" {
    _ = prepare();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    var prng: std.Random.DefaultPrng = .init(21);
    const shapes = [_][3]usize{ .{ 64, 33, 96 }, .{ 81, 16, 288 }, .{ 65, 50, 256 }, .{ 96, 1, 544 } };
    for (@import("blocks.zig").all) |dtype| for (shapes, 0..) |shape, i| {
        _ = arena.reset(.retain_capacity);
        const block = abi.blockInfo(dtype).?.elements;
        const k = std.mem.alignForward(usize, shape[2], block);
        const case: Case = .{ .dtype = dtype, .rows = shape[0], .n = shape[1], .k = k, .bias = i % 2 == 0 };
        const problem = try Problem.init(arena.allocator(), case, prng.random());
        try problem.check(arena.allocator(), try problem.multiply(arena.allocator(), 0, case.rows, 2));
    };
}

test "a row's bits depend on nothing but the row, from rows_min rows on" {
    _ = prepare();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const gpa = arena.allocator();
    var prng: std.Random.DefaultPrng = .init(22);
    for ([_]Case{
        .{ .dtype = .q4_0, .rows = 161, .n = 70, .k = 1088, .bias = true },
        .{ .dtype = .q6_k, .rows = 161, .n = 32, .k = 512, .bias = false },
        .{ .dtype = .q8_0, .rows = 1090, .n = 145, .k = 64, .bias = false },
    }) |case| {
        const problem = try Problem.init(gpa, case, prng.random());
        const whole = try problem.multiply(gpa, 0, case.rows, 1);
        try problem.check(gpa, whole);
        for ([_]usize{ 64, 65, 79, 128, case.rows - 5 }) |rows| for ([_]u32{ 1, 2, 3 }) |threads| {
            const part = try problem.multiply(gpa, 5, rows, threads);
            const expected = whole[5 * (case.n + 1) ..][0..part.len];
            for (expected, part) |want, got| try testing.expectBits(want, got);
        };
    }
}

test "a block that is not finite shows in its row and no other" {
    _ = prepare();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const gpa = arena.allocator();
    var prng: std.Random.DefaultPrng = .init(23);
    const case: Case = .{ .dtype = .q4_0, .rows = 64, .n = 20, .k = 64, .bias = false };
    const problem = try Problem.init(gpa, case, prng.random());
    const scales: [*]f32 = @ptrCast(@alignCast(problem.x.ptr + 9 * abi.q8aRowBytes(case.k) + case.k));
    scales[1] = std.math.nan(f32);
    const out = try problem.multiply(gpa, 0, case.rows, 1);
    for (0..case.rows) |r| for (0..case.n) |c| {
        try std.testing.expectEqual(r == 9, std.math.isNan(out[r * (case.n + 1) + c]));
    };
}

test "scratch for some rows is enough for fewer: a program asks once, for its most tokens" {
    for ([_][2]u32{ .{ 1024, 1024 }, .{ 3072, 1024 }, .{ 100, 64 } }) |shape| for ([_]u32{ 1, 2, 3, 8 }) |threads| {
        var last: [2]u64 = @splat(0);
        var rows: usize = linear_amx.rows_min;
        while (rows < 5000) : (rows += if (rows < 1100) 1 else 61) {
            var cmd: abi.Command = .{ .input_count = 2, .output_count = 1 };
            cmd.inputs[0] = testing.describe(.q8a, 0, &.{ rows, shape[1] });
            cmd.inputs[1] = testing.describe(.q4_0, 0, &.{ shape[0], shape[1] });
            const bytes = [2]u64{ linear_amx.scratchBytes(&cmd, threads), linear_amx.swiglu.scratchBytes(&cmd, threads) };
            for (bytes, last) |now, before| try std.testing.expect(now >= before);
            last = bytes;
        }
    };
}

test "linear_swiglu on tiles is two linear, then swiglu, bit for bit" {
    _ = prepare();
    var arena: std.heap.ArenaAllocator = .init(std.testing.allocator);
    defer arena.deinit();
    const gpa = arena.allocator();
    var prng: std.Random.DefaultPrng = .init(24);
    for ([_]Case{
        .{ .dtype = .q4_0, .rows = 70, .n = 32, .k = 64, .bias = false },
        .{ .dtype = .q6_k, .rows = 65, .n = 416, .k = 512, .bias = false },
        .{ .dtype = .q8_0, .rows = 1060, .n = 96, .k = 672, .bias = false },
    }) |case| {
        _ = arena.reset(.retain_capacity);
        const gate = try Problem.init(gpa, case, prng.random());
        const up = try Problem.init(gpa, case, prng.random());
        // Blocks of the result that are quantised one by one: no numbers, zeros, and a scale that is subnormal.
        for ([_]f32{ std.math.nan(f32), 0, 1e-21 }, [_]usize{ 9, 12, 64 }) |scale, row| {
            const scales: [*]f32 = @ptrCast(@alignCast(gate.x.ptr + row * abi.q8aRowBytes(case.k) + case.k));
            for (scales[0 .. case.k / 32]) |*one| one.* = scale;
        }
        var two: abi.Command = .{ .input_count = 2, .output_count = 1 };
        const products = [_][]f32{ try gate.multiply(gpa, 0, case.rows, 1), try gate.multiplyBy(&up.weights, gpa, 0, case.rows, 1) };
        for (products, 0..) |product, i| {
            two.inputs[i] = testing.describe(.f32, @intFromPtr(product.ptr), &.{ case.rows, case.n });
            two.inputs[i].strides[0] = @intCast(case.n + 1);
        }
        for ([_]abi.Dtype{ .f32, .q8a }) |dtype| {
            const bytes = case.rows * if (dtype == .q8a) abi.q8aRowBytes(case.n) else case.n * 4;
            const want = try gpa.alignedAlloc(u8, .@"64", bytes);
            const got = try gpa.alignedAlloc(u8, .@"64", bytes);
            two.outputs[0] = testing.describe(dtype, @intFromPtr(want.ptr), &.{ case.rows, case.n });
            @memset(want, 0x55);
            try testing.run(activation.swiglu, null, &two, 1);
            for ([_]u32{ 1, 2, 3 }) |threads| {
                @memset(got, 0x55);
                var cmd: abi.Command = .{ .input_count = 3, .output_count = 1 };
                cmd.inputs[0] = testing.describe(.q8a, @intFromPtr(gate.x.ptr), &.{ case.rows, case.k });
                for ([_]*const Problem{ &gate, &up }, 1..) |problem, i| cmd.inputs[i] = problem.weights.packed_desc;
                cmd.outputs[0] = testing.describe(dtype, @intFromPtr(got.ptr), &.{ case.rows, case.n });
                try testing.run(runSwiglu, workspaceSwiglu, &cmd, threads);
                try std.testing.expectEqualSlices(u8, want, got);
                if (dtype == .f32) continue;
                const tiny = quantize.Row.init(want.ptr + 64 * abi.q8aRowBytes(case.n), case.n).scales[0];
                try std.testing.expect(tiny > 0 and !std.math.isNormal(tiny));
            }
        }
    }
}
