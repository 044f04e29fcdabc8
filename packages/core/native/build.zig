//! Tests and micro-benchmarks of the CPU kernels, at every CPU level that this machine can run.
//!
//!     zig build test                      kernel tests at portable, avx2, avxvnni and avx512vnni
//!     zig build bench -- [name…]          micro-benchmarks whose name contains one of the words
//!     zig build bench -Dlevel=avx2        at one level; -Dthreads=2 for more threads
//!     zig build peaks                     what the machine can do at most, as JSON; -Dlevel, -Dthreads

const std = @import("std");

const Feature = std.Target.x86.Feature;
const Level = struct { name: []const u8, model: ?*const std.Target.Cpu.Model, needs: []const Feature = &.{}, add: []const Feature = &.{} };

/// The levels of packages/backend-x86/zig/build.zig.
const x86_levels = [_]Level{
    .{ .name = "portable", .model = &std.Target.x86.cpu.x86_64 },
    .{ .name = "avx2", .model = &std.Target.x86.cpu.x86_64_v3, .needs = &.{ .avx2, .fma, .f16c } },
    .{ .name = "avxvnni", .model = &std.Target.x86.cpu.x86_64_v3, .needs = &.{ .avx2, .fma, .f16c, .avxvnni }, .add = &.{.avxvnni} },
    .{
        .name = "avx512vnni",
        .model = &std.Target.x86.cpu.x86_64_v4,
        .needs = &.{ .avx512f, .avx512bw, .avx512vl, .avx512dq, .avx512vnni },
        .add = &.{.avx512vnni},
    },
};
const native_level = [_]Level{.{ .name = "native", .model = null }};

fn runsHere(b: *std.Build, level: Level) bool {
    for (level.needs) |feature| if (!std.Target.x86.featureSetHas(b.graph.host.result.cpu.features, feature)) return false;
    return true;
}

fn kernelModule(b: *std.Build, root: []const u8, level: Level, optimize: std.builtin.OptimizeMode) *std.Build.Module {
    var query: std.Target.Query = if (level.model) |m| .{ .cpu_model = .{ .explicit = m } } else .{};
    for (level.add) |feature| query.cpu_features_add.addFeature(@intFromEnum(feature));
    const target = b.resolveTargetQuery(query);
    const module = b.createModule(.{ .root_source_file = b.path(root), .target = target, .optimize = optimize, .link_libc = true });
    const abi = b.createModule(.{ .root_source_file = b.path("abi.zig") });
    const ops = b.createModule(.{ .root_source_file = b.path("ops.zig") });
    const context = b.createModule(.{ .root_source_file = b.path("runtime/context.zig") });
    context.addImport("abi", abi);
    module.addImport("abi", abi);
    module.addImport("ops", ops);
    module.addImport("context", context);
    return module;
}

pub fn build(b: *std.Build) void {
    const wanted = b.option([]const u8, "level", "only this CPU level");
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "for the tests (default ReleaseSafe)") orelse .ReleaseSafe;
    const threads = b.option(u32, "threads", "threads of the micro-benchmarks") orelse 1;
    const test_step = b.step("test", "Run the kernel tests");
    const bench_step = b.step("bench", "Run the micro-benchmarks");
    const x86 = b.graph.host.result.cpu.arch == .x86_64;
    const levels: []const Level = if (x86) &x86_levels else &native_level;
    var best: ?Level = null;
    for (levels) |level| {
        if (wanted) |w| if (!std.mem.eql(u8, w, level.name)) continue;
        if (!runsHere(b, level)) continue;
        best = level;
        const tested = kernelModule(b, "kernels/test.zig", level, optimize);
        const tests = b.addTest(.{ .name = level.name, .root_module = tested, .use_llvm = true });
        test_step.dependOn(&b.addRunArtifact(tests).step);
    }
    const options = b.addOptions();
    options.addOption(u32, "threads", threads);
    options.addOption([]const u8, "level", if (best) |l| l.name else "none");
    const module = kernelModule(b, "kernels/bench.zig", best orelse return, .ReleaseFast);
    module.addImport("options", options.createModule());
    const bench = b.addExecutable(.{ .name = "kernel-bench", .root_module = module, .use_llvm = true });
    const run = b.addRunArtifact(bench);
    if (b.args) |args| run.addArgs(args);
    bench_step.dependOn(&run.step);
    const peaks_module = kernelModule(b, "kernels/bench_peak_main.zig", best.?, .ReleaseFast);
    peaks_module.addImport("options", options.createModule());
    const peaks = b.addRunArtifact(b.addExecutable(.{ .name = "peaks", .root_module = peaks_module, .use_llvm = true }));
    peaks.stdio = .inherit;
    b.step("peaks", "Measure what the machine can do at most").dependOn(&peaks.step);
}
