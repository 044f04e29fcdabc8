//! The CPU runtime: everything of a backend but its kernels. Knows no ISA.

pub const Library = @import("library.zig").Library;
pub const Level = @import("library.zig").Level;
pub const Executor = @import("executor.zig").Executor;
pub const Pool = @import("pool.zig").Pool;
pub const Step = @import("executor.zig").Step;
pub const os = @import("os.zig");

test {
    _ = @import("ahead.zig");
    _ = @import("check.zig");
    _ = @import("check_test.zig");
    _ = @import("control_group.zig");
    _ = @import("device.zig");
    _ = @import("errors.zig");
    _ = @import("executor.zig");
    _ = @import("file_map.zig");
    _ = @import("library.zig");
    _ = @import("memory.zig");
    _ = @import("os.zig");
    _ = @import("place.zig");
    _ = @import("pool.zig");
    _ = @import("program.zig");
    _ = @import("rules.zig");
    _ = @import("wait.zig");
    _ = @import("workspace.zig");
    _ = @import("library_test.zig");
}
