//! Lets tests of AMX kernels run anywhere with AVX-512: on the tiles of this CPU, else on emulated ones.

const std = @import("std");
const tile_permission = @import("tile_permission.zig");
const emulator = @import("amx_emulator.zig");

/// Makes the instructions usable in this process; whether they are emulated.
pub fn prepare() bool {
    if (tile_permission.refusal() == null) return false;
    emulator.install();
    return true;
}
