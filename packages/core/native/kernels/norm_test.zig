const std = @import("std");
const elementwise = @import("elementwise.zig");
const norm = @import("norm.zig");
const testing = @import("testing.zig");

const allocator = std.testing.allocator;
const rows = 5;

const Case = struct {
    n: usize,
    values: []f32,
    weights: []f32,
    x: testing.Tensor(f32),
    weight: testing.Tensor(f32),
    bias: testing.Tensor(f32),
    out: testing.Tensor(f32),

    fn init(n: usize, layout: testing.Layout) !Case {
        const case: Case = .{
            .n = n,
            .values = try testing.normal(n, rows * n, 3),
            .weights = try testing.normal(n + 1, 2 * n, 1),
            .x = try .init(&.{ rows, n }, layout),
            .weight = try .init(&.{n}, .misaligned),
            .bias = try .init(&.{n}, .dense),
            .out = try .init(&.{ rows, n }, .dense),
        };
        case.values[case.values.len - 1] = std.math.nan(f32);
        case.x.write(case.values);
        case.weight.write(case.weights[0..n]);
        case.bias.write(case.weights[n..]);
        return case;
    }

    fn deinit(self: Case) void {
        allocator.free(self.values);
        allocator.free(self.weights);
        self.x.deinit();
        self.weight.deinit();
        self.bias.deinit();
        self.out.deinit();
    }

    fn oracle(self: *const Case, op: enum { rmsnorm, layernorm, l2norm }, expected: []f64) void {
        for (0..rows) |r| {
            const x = self.values[r * self.n ..][0..self.n];
            const y = expected[r * self.n ..][0..self.n];
            switch (op) {
                .rmsnorm => norm.scalar.rmsnorm(x, self.weights[0..self.n], 1e-6, 1, y),
                .layernorm => norm.scalar.layernorm(x, self.weights[0..self.n], self.weights[self.n..], 1e-6, y),
                .l2norm => norm.scalar.l2norm(x, 1e-6, y),
            }
        }
    }
};

test "norms equal their oracles; bits depend on neither threads, layout nor place" {
    for (testing.tails) |n| for (testing.layouts) |layout| {
        const case: Case = try .init(n, layout);
        defer case.deinit();
        const expected = try allocator.alloc(f64, rows * n);
        defer allocator.free(expected);
        const first = try allocator.alloc(f32, rows * n);
        defer allocator.free(first);
        inline for (.{ .rmsnorm, .layernorm, .l2norm }) |op| {
            const x = case.x;
            case.x.write(case.values);
            var cmd = testing.command(&.{ x.desc, case.weight.desc, case.bias.desc }, &.{case.out.desc});
            cmd.floats[0] = 1e-6;
            cmd.floats[1] = 1;
            case.oracle(op, expected);
            for (testing.thread_counts) |threads| {
                try testing.run(@field(norm, @tagName(op)), null, &cmd, threads);
                const actual = try case.out.read();
                defer allocator.free(actual);
                if (threads == 1) @memcpy(first, actual);
                try testing.expectBits(first, actual);
                try testing.expectClose(expected, actual, 1e-6, 2e-6);
            }
            cmd.outputs[0] = x.desc;
            try testing.run(@field(norm, @tagName(op)), null, &cmd, 2);
            const in_place = try x.read();
            defer allocator.free(in_place);
            try testing.expectBits(first, in_place);
        }
    };
}

test "rmsnorm_residual is add then rmsnorm bit for bit, in place too" {
    for (testing.tails) |n| for (testing.layouts) |layout| {
        const case: Case = try .init(n, layout);
        defer case.deinit();
        const residual: testing.Tensor(f32) = try .init(&.{ rows, n }, layout);
        defer residual.deinit();
        const more = try testing.normal(n + 9, rows * n, 2);
        defer allocator.free(more);
        residual.write(more);
        const sum: testing.Tensor(f32) = try .init(&.{ rows, n }, .dense);
        defer sum.deinit();
        const other: testing.Tensor(f32) = try .init(&.{ rows, n }, .narrowed);
        defer other.deinit();
        const added = testing.command(&.{ case.x.desc, residual.desc }, &.{sum.desc});
        try testing.run(elementwise.add, null, &added, 1);
        var normed = testing.command(&.{ sum.desc, case.weight.desc }, &.{case.out.desc});
        normed.floats[0] = 1e-5;
        try testing.run(norm.rmsnorm, null, &normed, 1);
        var fused = testing.command(&.{ case.x.desc, residual.desc, case.weight.desc }, &.{ residual.desc, other.desc });
        fused.floats[0] = 1e-5;
        try testing.run(norm.rmsnorm_residual, null, &fused, 3);
        inline for (.{ .{ sum, residual }, .{ case.out, other } }) |pair| {
            const a = try pair[0].read();
            defer allocator.free(a);
            const b = try pair[1].read();
            defer allocator.free(b);
            try testing.expectBits(a, b);
        }
    };
}

test "a zero row stays zero, a missing bias adds nothing" {
    const x: testing.Tensor(f32) = try .init(&.{ 1, 7 }, .dense);
    defer x.deinit();
    x.write(&@as([7]f32, @splat(0)));
    const weight: testing.Tensor(f32) = try .init(&.{7}, .dense);
    defer weight.deinit();
    weight.write(&@as([7]f32, @splat(2)));
    var cmd = testing.command(&.{ x.desc, weight.desc }, &.{x.desc});
    cmd.input_count = 3;
    cmd.inputs[2] = .{};
    cmd.floats[0] = 1e-6;
    inline for (.{ norm.rmsnorm, norm.layernorm, norm.l2norm }) |kernel| {
        try testing.run(kernel, null, &cmd, 1);
        const out = try x.read();
        defer allocator.free(out);
        try testing.expectBits(&@as([7]f32, @splat(0)), out);
    }
}
