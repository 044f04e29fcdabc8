//! Leave to use the AMX tiles: Linux gives it to a process that asks (Documentation/arch/x86/xstate.rst).

const std = @import("std");
const builtin = @import("builtin");
const linux = std.os.linux;

const request_permission = 0x1023; // ARCH_REQ_XCOMP_PERM
const tile_data = 18; // XFEATURE_XTILEDATA

/// Null when the tiles may be used, else why not in one sentence. The first call asks for the whole process, with all
/// its threads, of now and later; the answer stays.
pub fn refusal() ?[]const u8 {
    if (builtin.os.tag != .linux or builtin.cpu.arch != .x86_64) return "AMX is used on Linux only";
    const unknown = std.math.maxInt(u32);
    const State = struct {
        var answer: std.atomic.Value(u32) = .init(unknown);
    };
    var answer = State.answer.load(.acquire);
    if (answer == unknown) {
        answer = @intFromEnum(linux.errno(linux.syscall2(.arch_prctl, request_permission, tile_data)));
        State.answer.store(answer, .release);
    }
    return sentence(@enumFromInt(answer));
}

fn sentence(answer: linux.E) ?[]const u8 {
    return switch (answer) {
        .SUCCESS => null,
        .NOSPC => "AMX was refused by the system: a thread has a signal stack that is too small for the tiles (ENOSPC)",
        .INVAL, .OPNOTSUPP => "AMX was refused by the system: it needs Linux 5.16 or later with AMX switched on (EINVAL)",
        .PERM, .ACCES => "AMX was refused by the system: this process may not ask for it (EPERM)",
        else => "AMX was refused by the system: arch_prctl failed",
    };
}

test "answers are the same each time, and a refusal names its reason" {
    try std.testing.expectEqual(refusal() == null, refusal() == null);
    try std.testing.expectEqual(null, sentence(.SUCCESS));
    try std.testing.expect(std.mem.endsWith(u8, sentence(.NOSPC).?, "(ENOSPC)"));
    try std.testing.expect(std.mem.startsWith(u8, sentence(.AGAIN).?, "AMX was refused by the system: "));
}
