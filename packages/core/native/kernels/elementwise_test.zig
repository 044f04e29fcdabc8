const std = @import("std");
const context = @import("context");
const elementwise = @import("elementwise.zig");
const activation = @import("activation.zig");
const testing = @import("testing.zig");

const allocator = std.testing.allocator;
const special = [_]f32{ 0, -0.0, std.math.inf(f32), std.math.nan(f32), 1e30, 0x1p-149, -100, 88.9 };

const UnaryCase = struct { kernel: context.Kernel, oracle: *const fn (f64) f64, absolute: f64 };

fn unaryCase(kernel: context.Kernel, oracle: *const fn (f64) f64, absolute: f64) UnaryCase {
    return .{ .kernel = kernel, .oracle = oracle, .absolute = absolute };
}

const unary_cases = [_]UnaryCase{
    unaryCase(activation.silu, activation.scalar.silu, 2e-43),
    unaryCase(activation.gelu_tanh, activation.scalar.gelu_tanh, 2e-7),
    unaryCase(activation.gelu_erf, activation.scalar.gelu_erf, 2e-7),
    unaryCase(activation.quick_gelu, activation.scalar.quick_gelu, 2e-43),
    unaryCase(activation.sigmoid, activation.scalar.sigmoid, 1e-44),
    unaryCase(activation.relu, activation.scalar.relu, 0),
    unaryCase(activation.relu2, activation.scalar.relu2, 1e-45),
    unaryCase(activation.tanh, activation.scalar.tanh, 0),
    unaryCase(activation.softplus, activation.scalar.softplus, 1e-44),
    unaryCase(activation.exp, activation.scalar.exp, 1e-45),
};

test "activations equal their oracles for every tail, layout and thread count" {
    for (unary_cases) |case| for (testing.tails) |n| for (testing.layouts) |layout| {
        const values = try testing.normal(n, 5 * n, 4);
        defer allocator.free(values);
        for (special, 0..) |v, i| values[i * 7 % values.len] = v;
        const x: testing.Tensor(f32) = try .init(&.{ 5, n }, layout);
        defer x.deinit();
        const out: testing.Tensor(f32) = try .init(&.{ 5, n }, layout);
        defer out.deinit();
        x.write(values);
        const cmd = testing.command(&.{x.desc}, &.{out.desc});
        const expected = try allocator.alloc(f64, values.len);
        defer allocator.free(expected);
        for (values, expected) |v, *e| e.* = case.oracle(v);
        for (testing.thread_counts) |threads| {
            try testing.run(case.kernel, null, &cmd, threads);
            const actual = try out.read();
            defer allocator.free(actual);
            // x times a function near 1e-6 relative; far tails of exp lose a little through the rounding of their argument.
            try testing.expectClose(expected, actual, 3e-6, case.absolute);
        }
        const apart = try out.read();
        defer allocator.free(apart);
        const in_place = testing.command(&.{x.desc}, &.{x.desc});
        try testing.run(case.kernel, null, &in_place, 3);
        const same = try x.read();
        defer allocator.free(same);
        try testing.expectBits(apart, same);
    };
}

fn addScalar(a: f64, b: f64) f64 {
    return a + b;
}

fn mulScalar(a: f64, b: f64) f64 {
    return a * b;
}

test "add and mul broadcast trailing dims and work in place" {
    for (testing.tails) |n| for (testing.layouts) |layout| for ([_]usize{ 1, 2, 3 }) |rank| {
        const shape = [_]usize{ 3, 4, n };
        const a: testing.Tensor(f32) = try .init(&shape, layout);
        defer a.deinit();
        const b: testing.Tensor(f32) = try .init(shape[3 - rank ..], layout);
        defer b.deinit();
        const out: testing.Tensor(f32) = try .init(&shape, .dense);
        defer out.deinit();
        const left = try testing.normal(n, a.count(), 1);
        defer allocator.free(left);
        const right = try testing.normal(n + 1, b.count(), 1);
        defer allocator.free(right);
        left[0] = std.math.nan(f32);
        a.write(left);
        b.write(right);
        const expected = try allocator.alloc(f64, left.len);
        defer allocator.free(expected);
        for (testing.thread_counts) |threads| {
            const cmd = testing.command(&.{ a.desc, b.desc }, &.{out.desc});
            elementwise.binaryScalar(addScalar, left, right, expected);
            try testing.run(elementwise.add, null, &cmd, threads);
            const sum = try out.read();
            defer allocator.free(sum);
            try testing.expectClose(expected, sum, 6e-8, 0);
            elementwise.binaryScalar(mulScalar, left, right, expected);
            try testing.run(elementwise.mul, null, &cmd, threads);
            const product = try out.read();
            defer allocator.free(product);
            try testing.expectClose(expected, product, 6e-8, 0);
        }
        const in_place = testing.command(&.{ a.desc, b.desc }, &.{a.desc});
        try testing.run(elementwise.mul, null, &in_place, 2);
        const same = try a.read();
        defer allocator.free(same);
        try testing.expectClose(expected, same, 6e-8, 0);
    };
}

test "swiglu is silu then mul, geglu_tanh is gelu_tanh then mul, bit for bit" {
    const pairs = [_][2]context.Kernel{ .{ activation.swiglu, activation.silu }, .{ activation.geglu_tanh, activation.gelu_tanh } };
    for (pairs) |pair| for (testing.tails) |n| for (testing.layouts) |layout| {
        const gate: testing.Tensor(f32) = try .init(&.{ 3, n }, layout);
        defer gate.deinit();
        const up: testing.Tensor(f32) = try .init(&.{ 3, n }, .dense);
        defer up.deinit();
        const first: testing.Tensor(f32) = try .init(&.{ 3, n }, .dense);
        defer first.deinit();
        const second: testing.Tensor(f32) = try .init(&.{ 3, n }, .misaligned);
        defer second.deinit();
        const values = try testing.normal(n, 6 * n, 3);
        defer allocator.free(values);
        gate.write(values[0 .. 3 * n]);
        up.write(values[3 * n ..]);
        const separate = testing.command(&.{gate.desc}, &.{first.desc});
        try testing.run(pair[1], null, &separate, 2);
        const product = testing.command(&.{ first.desc, up.desc }, &.{first.desc});
        try testing.run(elementwise.mul, null, &product, 1);
        const fused = testing.command(&.{ gate.desc, up.desc }, &.{second.desc});
        try testing.run(pair[0], null, &fused, 3);
        const a = try first.read();
        defer allocator.free(a);
        const b = try second.read();
        defer allocator.free(b);
        try testing.expectBits(a, b);
    };
}

test "mul_const and softcap take their float" {
    const x: testing.Tensor(f32) = try .init(&.{ 2, 19 }, .narrowed);
    defer x.deinit();
    const out: testing.Tensor(f32) = try .init(&.{ 2, 19 }, .dense);
    defer out.deinit();
    const values = try testing.normal(1, 38, 60);
    defer allocator.free(values);
    x.write(values);
    var cmd = testing.command(&.{x.desc}, &.{out.desc});
    cmd.floats[0] = 30;
    for ([_]bool{ false, true }) |cap| {
        try testing.run(if (cap) activation.softcap else elementwise.mul_const, null, &cmd, 2);
        for (values, 0..) |v, i| {
            const expected: f64 = if (cap) 30 * std.math.tanh(@as(f64, v) / 30) else @as(f64, v) * 30;
            try testing.expectClose(&.{expected}, &.{out.at(i).*}, 3e-7, 0);
        }
    }
}
