//! Collects one kernel per op of the table from the files of this folder; compiled once per ISA level.
//!
//! An op `name` is the `pub fn name(ctx, cmd) callconv(.c) void` (context.Kernel) of exactly one file, and optionally
//! `pub fn name_workspace(cmd, threads) callconv(.c) u64` (context.Workspace) and
//! `pub fn name_outlook(cmd, threads) callconv(.c) context.Stretch` (context.Outlook) beside it. A missing or doubled
//! kernel is a compile error, so an op can't be added without one.

const std = @import("std");
const abi = @import("abi");
const ops = @import("ops");
const context = @import("context");

/// Packed weight layouts; `packedBytes` in it serves Backend.packed_bytes.
pub const packed_weights = @import("packed.zig");

const files = .{
    @import("activation.zig"),
    @import("attention.zig"),
    @import("copy.zig"),
    @import("elementwise.zig"),
    @import("embedding.zig"),
    @import("kv_cache.zig"),
    @import("linear.zig"),
    @import("linear_swiglu.zig"),
    @import("matmul.zig"),
    @import("norm.zig"),
    @import("pack.zig"),
    @import("quantize.zig"),
    @import("rope.zig"),
    @import("select.zig"),
    @import("softmax.zig"),
};

fn isKernel(comptime file: type, comptime name: []const u8) bool {
    return @hasDecl(file, name) and @TypeOf(&@field(file, name)) == context.Kernel;
}

fn find(comptime name: []const u8) type {
    var found: ?type = null;
    for (files) |file| {
        if (!isKernel(file, name)) continue;
        if (found != null) @compileError("two kernels for op " ++ name);
        found = file;
    }
    return found orelse @compileError("no file of kernels/ has the kernel of op " ++ name);
}

fn noWorkspace(_: *const abi.Command, _: u32) callconv(.c) u64 {
    return 0;
}

const kernels: [ops.table.len]context.Kernel = blk: {
    @setEvalBranchQuota(100_000);
    var list: [ops.table.len]context.Kernel = undefined;
    for (ops.table, &list) |op, *kernel| kernel.* = &@field(find(op.name), op.name);
    break :blk list;
};

const workspaces: [ops.table.len]context.Workspace = blk: {
    @setEvalBranchQuota(100_000);
    var list: [ops.table.len]context.Workspace = undefined;
    for (ops.table, &list) |op, *workspace| {
        const file = find(op.name);
        const name = op.name ++ "_workspace";
        workspace.* = if (@hasDecl(file, name)) &@field(file, name) else &noWorkspace;
    }
    break :blk list;
};

const outlooks: [ops.table.len]?context.Outlook = blk: {
    @setEvalBranchQuota(100_000);
    var list: [ops.table.len]?context.Outlook = undefined;
    for (ops.table, &list) |op, *outlook| {
        const file = find(op.name);
        const name = op.name ++ "_outlook";
        outlook.* = if (@hasDecl(file, name)) &@field(file, name) else null;
    }
    break :blk list;
};

/// The kernels of this compilation's ISA level, in the order of ops.table.
pub const table: context.KernelTable = .{ .kernels = &kernels, .workspaces = &workspaces, .outlooks = &outlooks, .count = ops.table.len };

test {
    inline for (files) |file| _ = file;
    _ = packed_weights;
    std.testing.refAllDecls(@This());
}
