//! The ISA levels of x86-64, and tests and micro-benchmarks of the CPU kernels at every one that this machine can run.
//!
//!     zig build test                      kernel tests at all levels; amx emulated on a CPU without it
//!     zig build bench -- [name…]          micro-benchmarks whose name contains one of the words
//!     zig build bench -Dlevel=avx2        at one level; -Dthreads=2 for more threads
//!     zig build peaks                     what the machine can do at most, as JSON; -Dlevel, -Dthreads

const std = @import("std");
const Target = std.Target;
const Feature = Target.x86.Feature;

/// One ISA level: the CPU features that its kernels are compiled with.
pub const Level = struct {
    name: []const u8,
    /// Null for whatever this machine has.
    model: ?*const Target.Cpu.Model,
    add: []const Feature = &.{},
    /// What a machine must have to run its tests.
    needs: []const Feature = &.{},
    /// The level whose kernels it takes over where it has none of its own.
    over: ?[]const u8 = null,

    /// Names this level's CPU in a target query.
    pub fn apply(level: Level, query: *Target.Query) void {
        query.cpu_model = if (level.model) |model| .{ .explicit = model } else .determined_by_arch_os;
        query.cpu_features_add = Target.x86.featureSet(level.add);
    }
};

const avx2: []const Feature = &.{ .avx2, .fma, .f16c };
const avx512: []const Feature = &.{ .avx512f, .avx512bw, .avx512vl, .avx512dq, .avx512vnni };
/// What all CPUs with AMX have beside it.
const amx_base: []const Feature = &.{ .avx512vnni, .avx512bf16, .avx512vbmi, .avx512vbmi2 };

/// From the lowest to the highest. AVX-512 VNNI is named by features, not as znver4, to run from Cascade Lake on.
pub const x86_levels = [_]Level{
    .{ .name = "portable", .model = &Target.x86.cpu.x86_64 },
    .{ .name = "avx2", .model = &Target.x86.cpu.x86_64_v3, .needs = avx2 },
    .{ .name = "avxvnni", .model = &Target.x86.cpu.x86_64_v3, .needs = avx2 ++ .{.avxvnni}, .add = &.{.avxvnni} },
    .{ .name = "avx512vnni", .model = &Target.x86.cpu.x86_64_v4, .needs = avx512, .add = &.{.avx512vnni} },
    .{
        .name = "amx",
        .model = &Target.x86.cpu.x86_64_v4,
        .needs = avx512 ++ amx_base,
        .add = amx_base ++ .{ .amx_tile, .amx_int8, .amx_bf16 },
        .over = "avx512vnni",
    },
};
const native_level = [_]Level{.{ .name = "native", .model = null }};

fn runsHere(b: *std.Build, level: Level) bool {
    for (level.needs) |feature| if (!Target.x86.featureSetHas(b.graph.host.result.cpu.features, feature)) return false;
    return level.over == null or b.graph.host.result.os.tag == .linux;
}

fn kernelModule(b: *std.Build, root: []const u8, level: Level, optimize: std.builtin.OptimizeMode) *std.Build.Module {
    var query: Target.Query = .{};
    level.apply(&query);
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
        if (wanted != null or level.over == null) best = level;
        const root = if (level.over == null) "kernels/test.zig" else "kernels/amx_test.zig";
        const tests = b.addTest(.{ .name = level.name, .root_module = kernelModule(b, root, level, optimize), .use_llvm = true });
        test_step.dependOn(&b.addRunArtifact(tests).step);
    }
    const options = b.addOptions();
    options.addOption(u32, "threads", threads);
    options.addOption([]const u8, "level", if (best) |l| l.name else "none");
    const module = kernelModule(b, "kernels/bench.zig", best orelse return, .ReleaseFast);
    module.addImport("options", options.createModule());
    addRuntime(b, module);
    const bench = b.addExecutable(.{ .name = "kernel-bench", .root_module = module, .use_llvm = true });
    b.installArtifact(bench);
    const run = b.addRunArtifact(bench);
    if (b.args) |args| run.addArgs(args);
    bench_step.dependOn(&run.step);
    const peaks_module = kernelModule(b, "kernels/bench_peak_main.zig", best.?, .ReleaseFast);
    peaks_module.addImport("options", options.createModule());
    addRuntime(b, peaks_module);
    const peaks = b.addRunArtifact(b.addExecutable(.{ .name = "peaks", .root_module = peaks_module, .use_llvm = true }));
    peaks.stdio = .inherit;
    b.step("peaks", "Measure what the machine can do at most").dependOn(&peaks.step);
}

/// The runtime, with the other modules that the kernels have.
fn addRuntime(b: *std.Build, kernels: *std.Build.Module) void {
    const runtime = b.createModule(.{ .root_source_file = b.path("runtime/runtime.zig"), .link_libc = true });
    for ([_][]const u8{ "abi", "ops", "context" }) |name| runtime.addImport(name, kernels.import_table.get(name).?);
    kernels.addImport("runtime", runtime);
}
