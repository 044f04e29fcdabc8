//! The root of an object with kernels for some ops only: its level has those of the level below for all others.

const std = @import("std");
const abi = @import("abi");
const context = @import("context");
const ops = @import("ops");
const linear_amx = @import("linear_amx");
const options = @import("level");

const below = @extern(*const fn () callconv(.c) *const context.KernelTable, .{ .name = "mllm_kernels_" ++ options.over });

const linear_index = for (ops.table, 0..) |op, i| {
    if (std.mem.eql(u8, op.name, "linear")) break i;
} else unreachable;

var kernels: [ops.table.len]context.Kernel = undefined;
var workspaces: [ops.table.len]context.Workspace = undefined;
var all: context.KernelTable = .{ .kernels = &kernels, .workspaces = &workspaces, .count = ops.table.len };

/// Fills the table with the same values each time, so others may be reading it.
fn table() callconv(.c) *const context.KernelTable {
    for (&kernels, &workspaces, below().kernels, below().workspaces, 0..) |*kernel, *workspace, k, w, i| {
        kernel.* = if (i == linear_index) linear else k;
        workspace.* = if (i == linear_index) linearWorkspace else w;
    }
    return &all;
}

fn linear(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    if (linear_amx.takes(cmd)) linear_amx.run(ctx, cmd) else below().kernels[linear_index](ctx, cmd);
}

/// Enough for both: a program asks once, at its largest token count.
fn linearWorkspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    const scratch = below().workspaces[linear_index](cmd, threads);
    return if (linear_amx.takes(cmd)) @max(scratch, linear_amx.scratchBytes(cmd, threads)) else scratch;
}

comptime {
    @export(&table, .{ .name = "mllm_kernels_" ++ options.name, .visibility = .hidden });
}
