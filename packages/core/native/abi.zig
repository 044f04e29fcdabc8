//! The native ABI between core and every backend: the one definition.
//!
//! `deno task abi` (tools/abi) generates `packages/core/src/native/abi.ts` and `packages/core/native/mllm.h`
//! from this file and from `ops.zig`; a test fails when they are stale.
//!
//! A backend library exports one symbol, `mllm_backend`, a function without arguments that returns a
//! `*const Backend`. Everything that crosses is a plain integer or pointer; there are no callbacks. Native code
//! owns every byte that a call may outlive. Functions that can fail return a `Status` (or 0 for a handle/address)
//! and leave one line of text for `last_error`.

const std = @import("std");

/// Raised when any struct, enum value or function below changes its meaning.
pub const version: u32 = 3;

pub const max_rank = 4;
pub const max_inputs = 6;
pub const max_outputs = 2;
pub const max_ints = 8;
pub const max_floats = 8;
pub const max_registers = 8;

/// Element types. Ids below 64 are GGML's (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md);
/// from 64 on they are ours and never appear in a file.
pub const Dtype = enum(u32) {
    f32 = 0,
    f16 = 1,
    q4_0 = 2,
    q4_1 = 3,
    q5_0 = 6,
    q5_1 = 7,
    q8_0 = 8,
    q2_k = 10,
    q3_k = 11,
    q4_k = 12,
    q5_k = 13,
    q6_k = 14,
    iq4_nl = 20,
    iq4_xs = 23,
    i8 = 24,
    i16 = 25,
    i32 = 26,
    i64 = 27,
    f64 = 28,
    bf16 = 30,
    tq1_0 = 34,
    tq2_0 = 35,
    mxfp4 = 39,
    u8 = 64,
    /// Generic packed weights: 8-bit codes, f32 scale and f32 minimum per 16 elements of K: value = scale*code + min.
    /// Block types without a packed form of their own are repacked to this one without loss. Packed layout only.
    q8_g16 = 65,
    /// Activations quantised per row in blocks of 32: see `q8aRowBytes` for the layout of a row.
    q8a = 66,
};

/// How the elements of a tensor lie in memory.
pub const Layout = enum(u32) {
    /// `strides` (in elements) say where each element is. Block dtypes: rows of whole blocks, last dim contiguous.
    strided = 0,
    /// Weights [N, K] of `linear`, packed by `pack_weight` in panels of 16 rows of N; see kernels/packed.zig.
    panel16 = 1,
    /// Keys of a quantised KV cache [pages, kv_heads, page_size, head_dim]; see kernels/kv_page.zig.
    kv_keys = 2,
    /// Values of a quantised KV cache of the same shape; see kernels/kv_page.zig.
    kv_values = 3,
};

/// What the `data` field of a descriptor means.
pub const Space = enum(u32) {
    /// An address in this process (weights, caches, program inputs and outputs).
    address = 0,
    /// A byte offset into the arena that `run` works in. Only inside a compiled program.
    arena = 1,
};

pub const Status = enum(i32) { ok = 0, invalid = 1, unsupported = 2, out_of_memory = 3, io = 4, internal = 5, not_found = 6 };

/// A strided view. The shape is row-major in PyTorch's order (slowest first), strides are in elements (for
/// block-quantised dtypes the strides count elements too and are multiples of the block).
pub const TensorDesc = extern struct {
    data: u64 = 0,
    space: u32 = 0,
    dtype: u32 = 0,
    layout: u32 = 0,
    rank: u32 = 0,
    shape: [max_rank]i64 = @splat(0),
    strides: [max_rank]i64 = @splat(0),
    /// In a program: bit i set means that dim i is the register `tokens`; `shape[i]` then holds its maximum.
    symbolic_dims: u32 = 0,
    reserved: u32 = 0,

    /// Whether the elements lie one after the other in row-major order.
    pub fn isDense(self: *const TensorDesc) bool {
        var expected: i64 = 1;
        var i: usize = self.rank;
        while (i > 0) {
            i -= 1;
            if (self.shape[i] != 1 and self.strides[i] != expected) return false;
            expected *= self.shape[i];
        }
        return true;
    }
};

/// Values that change between two runs of one program. `Command.int_registers[i]` names the register from which
/// `ints[i]` is loaded (0: literal); for eager commands everything is literal.
pub const Register = enum(u8) {
    literal = 0,
    /// Number of tokens in this run (the length of symbolic dims).
    tokens = 1,
    /// Position of the first of them in the sequence.
    position = 2,
    /// tokens - 1
    last = 3,
    /// position + tokens
    context = 4,
};

/// One op over descriptors; see ops.zig for what inputs, outputs, ints and floats each op takes.
/// An optional input that is absent has rank 0 and data 0.
pub const Command = extern struct {
    op: u32 = 0,
    /// Kernel variant chosen by the selector; 0 is the default of the backend's level. Never changes results beyond rounding.
    /// Of `linear` a LinearVariant; the other ops have one kernel each, and 0.
    variant: u32 = 0,
    /// Threads to use at most; 0 means all of the pool.
    threads: u32 = 0,
    input_count: u32 = 0,
    output_count: u32 = 0,
    reserved: u32 = 0,
    inputs: [max_inputs]TensorDesc = @splat(.{}),
    outputs: [max_outputs]TensorDesc = @splat(.{}),
    ints: [max_ints]i64 = @splat(0),
    int_registers: [max_ints]u8 = @splat(0),
    floats: [max_floats]f32 = @splat(0),

    /// Whether an optional input is there.
    pub fn given(self: *const Command, input: usize) bool {
        return input < self.input_count and self.inputs[input].rank != 0;
    }
};

/// Kernels of `linear`: `auto` takes GEMV for few rows of activations and GEMM for more.
pub const LinearMode = enum(u2) { auto = 0, gemv = 1, gemm = 2, _ };

/// The `variant` of a `linear` command, in bits from the lowest on. Everywhere 0 is the level's own choice, and nothing
/// changes a bit of the result.
pub const LinearVariant = packed struct(u32) {
    /// Which kernel: a LinearMode.
    mode: LinearMode = .auto,
    /// Rows up to which `auto` is GEMV.
    few_rows: u8 = 0,
    /// Rows of GEMM's register tile; where there is none of so many, the next smaller one.
    tile_rows: u6 = 0,
    /// Panels of 16 columns that a thread of a GEMV takes at a time.
    run: u12 = 0,
    /// How far ahead of its reads a GEMV asks for weights, in steps of 512 bytes (of more than 1 KiB: into the second cache,
    /// into the first 1 KiB ahead, and one row reads some panels side by side); 0 leaves that to the level.
    prefetch: u4 = 0,

    pub fn prefetchBytes(self: LinearVariant) usize {
        return @as(usize, self.prefetch) * 512;
    }

    /// The fields of a command's variant; null when it is none.
    pub fn decode(bits: u32) ?LinearVariant {
        const variant: LinearVariant = @bitCast(bits);
        const known = switch (variant.mode) {
            .auto, .gemv, .gemm => true,
            _ => false,
        };
        return if (known) variant else null;
    }
};

/// A recorded program: commands in order over one arena. `compile` copies all of it.
pub const ProgramDesc = extern struct {
    commands: u64,
    command_count: u64,
    arena_bytes: u64,
    /// Largest value of the register `tokens`.
    tokens_max: u64,
};

pub const Registers = extern struct {
    values: [max_registers]i64 = @splat(0),
};

pub const OpenOptions = extern struct {
    /// Threads including the caller, at most max_threads; 0 means one per physical core.
    threads: u32 = 0,
    /// Microseconds that a worker without work spins before it sleeps; 0 means the default.
    spin_us: u32 = 0,
    /// ISA level by name, NUL-terminated ("portable", "avx2", ...), empty for the best of this CPU.
    level: [32]u8 = @splat(0),
};

pub const MappedFile = extern struct { address: u64 = 0, bytes: u64 = 0 };

/// What one command cost, accumulated over runs of a program; `profile` fills one per command.
pub const ProfileRow = extern struct { op: u32 = 0, variant: u32 = 0, calls: u64 = 0, ns: u64 = 0 };

/// The function table of a backend. `handle` is what `open` returned.
pub const Backend = extern struct {
    abi_version: u32 = version,
    /// Size of this struct in bytes.
    size: u32 = @sizeOf(Backend),
    /// Writes JSON (UTF-8, no NUL) about the device: {"name","available","reason","cpu",
    /// "microarchitecture" (empty when it has no name),"level","levels":[…],"missing":{level:why not here},"features":[…],
    /// "cores","memory_bytes"}; returns the whole length, writes at most `capacity` bytes. Needs no handle.
    describe: *const fn (out: u64, capacity: u64) callconv(.c) u64,
    /// Returns a handle, or 0.
    open: *const fn (options: *const OpenOptions) callconv(.c) u64,
    close: *const fn (handle: u64) callconv(.c) void,
    /// Device memory, 64-byte aligned, not cleared; large blocks are committed when first touched. Returns 0 when there is none.
    alloc: *const fn (handle: u64, bytes: u64) callconv(.c) u64,
    /// Gives back a block of `alloc`, once: an address from elsewhere, or a second time, is the caller's error.
    free: *const fn (handle: u64, address: u64) callconv(.c) void,
    copy: *const fn (handle: u64, dst: u64, src: u64, bytes: u64) callconv(.c) i32,
    /// Maps `bytes` of a file from `offset` on (0: all that follow) read-only; the path is UTF-8 and NUL-terminated.
    map_file: *const fn (handle: u64, path: u64, offset: u64, bytes: u64, out: *MappedFile) callconv(.c) i32,
    unmap_file: *const fn (handle: u64, address: u64, bytes: u64) callconv(.c) i32,
    /// 1 when this op with these dtypes, layouts and shapes can run here, else 0 and the reason in last_error.
    supports: *const fn (handle: u64, command: *const Command) callconv(.c) i32,
    /// Bytes that `pack_weight` needs for weights [n, k] of `dtype` in panel16 layout; the packed dtype is written to
    /// `packed_dtype`. 0 when it can't pack them.
    packed_bytes: *const fn (handle: u64, dtype: u32, n: u64, k: u64, packed_dtype: *u32) callconv(.c) u64,
    /// Runs commands one after the other; returns when they are done.
    submit: *const fn (handle: u64, commands: u64, count: u64) callconv(.c) i32,
    /// Checks and copies a program; its handle is written to `compiled`.
    compile: *const fn (handle: u64, program: *const ProgramDesc, compiled: *u64) callconv(.c) i32,
    destroy: *const fn (handle: u64, program: u64) callconv(.c) void,
    run: *const fn (handle: u64, program: u64, registers: *const Registers) callconv(.c) i32,
    /// Writes one ProfileRow per command of the program (profiling is on from the first call); returns the row count.
    profile: *const fn (handle: u64, program: u64, rows: u64, capacity: u64) callconv(.c) u64,
    /// The text of the last failure on this handle (0: of open), UTF-8; returns its whole length.
    last_error: *const fn (handle: u64, out: u64, capacity: u64) callconv(.c) u64,
};

/// Bytes of one q8a row of `k` elements (k divides by 32): k i8 codes, k/32 f32 scales, k/16 i16 sums of codes,
/// padded to 64 bytes. value = scale[i/32] * code[i].
pub fn q8aRowBytes(k: usize) usize {
    return std.mem.alignForward(usize, k + k / 32 * 4 + k / 16 * 2, 64);
}

/// Most threads of a device.
pub const max_threads = 255;
/// Largest head_dim of a quantised cache.
pub const kv_head_dim_max = 1024;
/// Largest page_size of a quantised cache.
pub const kv_page_size_max = 512;

/// Tokens of a run from which on attention multiplies in int8, where a command allows it.
pub const attention_i8_tokens_min = 32;

/// Bytes behind the rows of each page and head of quantised keys: their reference, head_dim f16.
pub fn kvReferenceBytes(head_dim: usize) usize {
    return head_dim * 2;
}

pub const BlockInfo = struct { elements: u32, bytes: u32 };

/// Elements and bytes of one block; null for dtypes that have no strided form.
pub fn blockInfo(dtype: Dtype) ?BlockInfo {
    return switch (dtype) {
        .f32, .i32 => .{ .elements = 1, .bytes = 4 },
        .f16, .bf16, .i16 => .{ .elements = 1, .bytes = 2 },
        .i8, .u8 => .{ .elements = 1, .bytes = 1 },
        .i64, .f64 => .{ .elements = 1, .bytes = 8 },
        .q4_0, .iq4_nl => .{ .elements = 32, .bytes = 18 },
        .q4_1 => .{ .elements = 32, .bytes = 20 },
        .q5_0 => .{ .elements = 32, .bytes = 22 },
        .q5_1 => .{ .elements = 32, .bytes = 24 },
        .q8_0 => .{ .elements = 32, .bytes = 34 },
        .q2_k => .{ .elements = 256, .bytes = 84 },
        .q3_k => .{ .elements = 256, .bytes = 110 },
        .q4_k => .{ .elements = 256, .bytes = 144 },
        .q5_k => .{ .elements = 256, .bytes = 176 },
        .q6_k => .{ .elements = 256, .bytes = 210 },
        .iq4_xs => .{ .elements = 256, .bytes = 136 },
        .tq1_0 => .{ .elements = 256, .bytes = 54 },
        .tq2_0 => .{ .elements = 256, .bytes = 66 },
        .mxfp4 => .{ .elements = 32, .bytes = 17 },
        .q8_g16, .q8a => null,
    };
}

/// The dtype that weights of `dtype` have in panel16 layout; null when they can't be packed. Block types without a packed
/// form of their own become q8_g16, without loss.
pub fn packedDtype(dtype: Dtype) ?Dtype {
    return switch (dtype) {
        .f32, .f16, .bf16, .q8_0, .q4_0, .q5_0, .q4_k, .q6_k => dtype,
        .q4_1, .q5_1, .q2_k, .q3_k, .q5_k, .iq4_nl, .iq4_xs, .tq1_0, .tq2_0, .mxfp4 => .q8_g16,
        else => null,
    };
}

pub fn isFloat(dtype: Dtype) bool {
    return dtype == .f32 or dtype == .f16 or dtype == .bf16;
}

/// What K divides by in panel16 layout; null for dtypes that are never packed.
pub fn packedMultiple(dtype: Dtype) ?u32 {
    if (dtype == .q8_g16) return 32;
    return if (packedDtype(dtype) == dtype) blockInfo(dtype).?.elements else null;
}

comptime {
    // The generated bindings rely on these sizes.
    std.debug.assert(@sizeOf(TensorDesc) == 96);
    std.debug.assert(@sizeOf(Command) == 24 + 8 * 96 + 64 + 8 + 32);
    std.debug.assert(@sizeOf(Registers) == 64);
    std.debug.assert(@sizeOf(OpenOptions) == 40);
    std.debug.assert(@sizeOf(ProgramDesc) == 32);
    std.debug.assert(@sizeOf(ProfileRow) == 24);
    std.debug.assert(@sizeOf(Backend) == 8 + 16 * 8);
}
