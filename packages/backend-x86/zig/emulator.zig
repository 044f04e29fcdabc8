//! The root of the emulator's object, in the variant of the library that is for tests.

const amx_emulator = @import("amx_emulator");

export fn mllm_emulate_amx() callconv(.c) void {
    amx_emulator.install();
}
