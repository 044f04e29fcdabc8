//! The root of an object with kernels for some ops only: its level has those of the level below for all others.

const abi = @import("abi");
const context = @import("context");
const ops = @import("ops");
const amx_kernels = @import("amx_kernels");
const options = @import("level");

const below = @extern(*const fn () callconv(.c) *const context.KernelTable, .{ .name = "mllm_kernels_" ++ options.over });

var kernels: [ops.table.len]context.Kernel = undefined;
var workspaces: [ops.table.len]context.Workspace = undefined;
var outlooks: [ops.table.len]?context.Outlook = undefined;
var all: context.KernelTable = .{ .kernels = &kernels, .workspaces = &workspaces, .outlooks = &outlooks, .count = ops.table.len };

/// Fills the table with the same values each time, so others may be reading it.
fn table() callconv(.c) *const context.KernelTable {
    inline for (ops.table, 0..) |op, i| {
        const own = @hasDecl(amx_kernels, op.name);
        kernels[i] = if (own) Over(i).kernel else below().kernels[i];
        outlooks[i] = below().outlooks[i];
        workspaces[i] = if (own) Over(i).workspace else below().workspaces[i];
    }
    return &all;
}

/// The kernel of an op that has its own for some commands.
fn Over(comptime i: usize) type {
    const own = @field(amx_kernels, ops.table[i].name);
    return struct {
        fn kernel(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
            if (own.takes(cmd)) own.run(ctx, cmd) else below().kernels[i](ctx, cmd);
        }

        /// Enough for both: a program asks once, at its largest token count.
        fn workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
            const scratch = below().workspaces[i](cmd, threads);
            return if (own.takes(cmd)) @max(scratch, own.scratchBytes(cmd, threads)) else scratch;
        }
    };
}

comptime {
    @export(&table, .{ .name = "mllm_kernels_" ++ options.name, .visibility = .hidden });
}
