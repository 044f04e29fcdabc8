//! The ops of which level amx has kernels of its own, for the commands that they take.

/// Those of at least `rows_min` rows in q8a.
pub const linear = @import("linear_amx.zig");
pub const linear_swiglu = linear.swiglu;

/// Those in int8.
pub const attention = struct {
    const integer = @import("attention_i8.zig");

    pub const takes = integer.applies;
    pub const run = integer.run;
    pub const scratchBytes = integer.workspace;
};
