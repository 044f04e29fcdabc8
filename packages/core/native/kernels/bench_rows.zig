//! Rows of the memory-bound kernels; bytes count each input once and each output once.

const std = @import("std");
const testing = @import("testing.zig");
const Bench = @import("bench.zig").Bench;
const activation = @import("activation.zig");
const elementwise = @import("elementwise.zig");
const norm = @import("norm.zig");
const softmax = @import("softmax.zig");
const select = @import("select.zig");
const rope = @import("rope.zig");
const kv = @import("kv_cache.zig");

pub fn run(b: *Bench) !void {
    for ([_]usize{ 1, 512 }) |rows| {
        const x = try b.tensor(f32, &.{ rows, 3072 });
        const y = try b.tensor(f32, &.{ rows, 3072 });
        const out = try b.tensor(f32, &.{ rows, 3072 });
        const weight = try b.tensor(f32, &.{3072});
        const bytes = rows * 3072 * 4;
        var one = testing.command(&.{ x, weight }, &.{out});
        one.floats = .{ 1, 1, 0, 0, 0, 0, 0, 0 };
        inline for (.{
            .{ "rmsnorm", norm.rmsnorm },            .{ "layernorm", norm.layernorm },        .{ "l2norm", norm.l2norm },
            .{ "softmax", softmax.softmax },         .{ "log_softmax", softmax.log_softmax }, .{ "silu", activation.silu },
            .{ "gelu_tanh", activation.gelu_tanh },  .{ "gelu_erf", activation.gelu_erf },    .{ "tanh", activation.tanh },
            .{ "softplus", activation.softplus },    .{ "exp", activation.exp },              .{ "relu", activation.relu },
            .{ "mul_const", elementwise.mul_const },
        }) |entry| try b.row(try title(b, entry[0], rows, 3072), .{ .bytes = 2 * bytes }, entry[1], null, &one);
        const two = testing.command(&.{ x, y }, &.{out});
        inline for (.{ .{ "add", elementwise.add }, .{ "mul", elementwise.mul }, .{ "swiglu", activation.swiglu } }) |entry| {
            try b.row(try title(b, entry[0], rows, 3072), .{ .bytes = 3 * bytes }, entry[1], null, &two);
        }
        const residual = testing.command(&.{ x, y, weight }, &.{ y, out });
        try b.row(try title(b, "rmsnorm_residual", rows, 3072), .{ .bytes = 4 * bytes }, norm.rmsnorm_residual, null, &residual);
        try rotary(b, rows);
    }
    const logits = try b.tensor(f32, &.{ 1, 151_936 });
    const index = try b.tensor(i32, &.{1});
    const values = try b.tensor(f32, &.{ 1, 40 });
    const indices = try b.tensor(i32, &.{ 1, 40 });
    const bytes = 151_936 * 4;
    try b.row("argmax [1, 151936]", .{ .bytes = bytes }, select.argmax, null, &testing.command(&.{logits}, &.{index}));
    try b.row("topk 40 [1, 151936]", .{ .bytes = bytes }, select.topk, null, &testing.command(&.{logits}, &.{ values, indices }));
    const loss = try b.tensor(f32, &.{1});
    const entropy = testing.command(&.{ logits, index }, &.{loss});
    try b.row("cross_entropy [1, 151936]", .{ .bytes = bytes }, softmax.cross_entropy, null, &entropy);
}

fn title(b: *Bench, name: []const u8, rows: usize, n: usize) ![]const u8 {
    return std.fmt.allocPrint(b.gpa, "{s} [{d}, {d}]", .{ name, rows, n });
}

/// rope over 16 heads of 128, alone and with their norm, and kv_append of 8 heads of 128.
fn rotary(b: *Bench, tokens: usize) !void {
    const q = try b.tensor(f32, &.{ tokens, 16, 128 });
    const frequencies = try b.tensor(f32, &.{64});
    var cmd = testing.command(&.{ q, frequencies }, &.{q});
    cmd.ints[0] = 1000;
    cmd.floats[0] = 1;
    const bytes = 2 * tokens * 16 * 128 * 4;
    try b.row(try title(b, "rope 16 heads", tokens, 128), .{ .bytes = bytes }, rope.rope, rope.rope_workspace, &cmd);
    const weight = try b.tensor(f32, &.{128});
    var normed = testing.command(&.{ q, weight, frequencies }, &.{q});
    normed.ints[0] = 1000;
    normed.floats[2] = 1;
    const name = try title(b, "rmsnorm_rope 16 heads", tokens, 128);
    try b.row(name, .{ .bytes = bytes }, rope.rmsnorm_rope, rope.rmsnorm_rope_workspace, &normed);
    const k = try b.tensor(f32, &.{ tokens, 8, 128 });
    const pages = try b.tensor(i32, &.{8});
    for (@as([*]i32, @ptrFromInt(@as(usize, @intCast(pages.data))))[0..8], 0..) |*p, i| p.* = @intCast(i);
    const cache = try b.tensor(f16, &.{ 8, 8, 64, 128 });
    const append = testing.command(&.{ k, pages }, &.{cache});
    try b.row(try title(b, "kv_append f16 8 heads", tokens, 128), .{ .bytes = tokens * 8 * 128 * 6 }, kv.kv_append, kv.kv_append_workspace, &append);
}
