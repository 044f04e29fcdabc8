//! Root of the kernel tests: `zig build test` runs it at several CPU levels.
test {
    _ = @import("simd_test.zig");
    _ = @import("elementwise_test.zig");
    _ = @import("norm_test.zig");
    _ = @import("softmax_test.zig");
    _ = @import("select_test.zig");
    _ = @import("rope_test.zig");
    _ = @import("hadamard.zig");
    _ = @import("kv_page.zig");
    _ = @import("attention_stream.zig");
    _ = @import("attention_test.zig");
    _ = @import("attention_view.zig");
    _ = @import("attention_i8_weights.zig");
    _ = @import("attention_i8_page.zig");
    _ = @import("attention_i8_test.zig");
    _ = @import("matmul_test.zig");
    _ = @import("linear_variant.zig");
    _ = @import("linear_test.zig");
    _ = @import("linear_swiglu_test.zig");
    _ = @import("embedding.zig");
    _ = @import("copy.zig");
}
