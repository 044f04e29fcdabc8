//! The root of a level's object: exports the kernels, compiled with the level's CPU features, under the level's name.

const context = @import("context");
const kernels = @import("kernels");
const options = @import("level");

fn table() callconv(.c) *const context.KernelTable {
    return &kernels.table;
}

comptime {
    @export(&table, .{ .name = "mllm_kernels_" ++ options.name, .visibility = .hidden });
}
