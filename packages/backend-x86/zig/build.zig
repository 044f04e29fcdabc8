//! Builds libmllm_x86: the CPU runtime at the baseline, and an object of kernels per ISA level, in one library.
//!
//!   zig build                    the library for this machine's system, in zig-out/lib
//!   zig build -Dtarget=…         for another system
//!   zig build test               unit tests of the runtime, of the kernels (this CPU's features) and of the dispatcher
//!   zig build check-cross        compiles and links for every supported system, installs nothing

const std = @import("std");
const Target = std.Target;

const native = "../../core/native/";

/// One ISA level: the CPU features that its kernels are compiled with.
const Level = struct {
    name: []const u8,
    model: *const Target.Cpu.Model,
    add: []const Target.x86.Feature = &.{},
};

/// From the lowest to the highest. AVX-512 VNNI is named by features, not as znver4, to run from Cascade Lake on.
const x86_levels = [_]Level{
    .{ .name = "portable", .model = &Target.x86.cpu.x86_64 },
    .{ .name = "avx2", .model = &Target.x86.cpu.x86_64_v3 },
    .{ .name = "avxvnni", .model = &Target.x86.cpu.x86_64_v3, .add = &.{.avxvnni} },
    .{ .name = "avx512vnni", .model = &Target.x86.cpu.x86_64_v4, .add = &.{.avx512vnni} },
};

/// The oldest C library that Deno itself runs on.
const glibc: std.SemanticVersion = .{ .major = 2, .minor = 27, .patch = 0 };

pub fn build(b: *std.Build) void {
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "Debug, ReleaseSafe, ReleaseFast (default) or ReleaseSmall") orelse
        .ReleaseFast;
    const target = b.standardTargetOptions(.{});
    const lib = addLibrary(b, target.query, optimize);
    b.getInstallStep().dependOn(&b.addInstallArtifact(lib, .{ .dest_dir = .{ .override = .lib } }).step);
    addTests(b, optimize);
    const cross = b.step("check-cross", "Compile and link for every supported system");
    for (cross_targets) |triple| {
        const query = Target.Query.parse(.{ .arch_os_abi = triple }) catch unreachable;
        cross.dependOn(&addLibrary(b, query, optimize).step);
    }
}

const cross_targets = [_][]const u8{
    "x86_64-linux-gnu",
    "aarch64-linux-gnu",
    "x86_64-macos",
    "aarch64-macos",
    "x86_64-windows-gnu",
    "aarch64-windows-gnu",
};

/// The baseline CPU of the query's architecture, so that the library runs on any machine of it.
fn baseline(b: *std.Build, query: Target.Query) Target.Query {
    var base = query;
    const resolved = b.resolveTargetQuery(query).result;
    base.cpu_arch = resolved.cpu.arch;
    base.os_tag = resolved.os.tag;
    base.abi = resolved.abi;
    base.cpu_model = .baseline;
    if (resolved.os.tag == .linux and resolved.abi == .gnu) base.glibc_version = glibc;
    return base;
}

const Modules = struct { abi: *std.Build.Module, ops: *std.Build.Module, context: *std.Build.Module };

/// The shared definitions, for one target.
fn addDefinitions(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) Modules {
    const abi = createModule(b, native ++ "abi.zig", target, optimize);
    const ops = createModule(b, native ++ "ops.zig", target, optimize);
    const context = createModule(b, native ++ "runtime/context.zig", target, optimize);
    context.addImport("abi", abi);
    return .{ .abi = abi, .ops = ops, .context = context };
}

fn createModule(b: *std.Build, path: []const u8, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) *std.Build.Module {
    return b.createModule(.{
        .root_source_file = b.path(path),
        .target = target,
        .optimize = optimize,
        .link_libc = true,
        .pic = true,
        .strip = optimize != .Debug,
    });
}

fn addImports(module: *std.Build.Module, modules: Modules) void {
    module.addImport("abi", modules.abi);
    module.addImport("ops", modules.ops);
    module.addImport("context", modules.context);
}

/// The kernels for one target; kernel sources import "abi", "ops" and "context" by these names.
fn addKernels(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode, modules: Modules) *std.Build.Module {
    const kernels = createModule(b, native ++ "kernels/table.zig", target, optimize);
    addImports(kernels, modules);
    return kernels;
}

fn addRuntime(b: *std.Build, target: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode, modules: Modules) *std.Build.Module {
    const runtime = createModule(b, native ++ "runtime/runtime.zig", target, optimize);
    addImports(runtime, modules);
    return runtime;
}

fn addRoot(b: *std.Build, query: Target.Query, optimize: std.builtin.OptimizeMode) *std.Build.Module {
    const base = b.resolveTargetQuery(baseline(b, query));
    const modules = addDefinitions(b, base, optimize);
    const root = createModule(b, "root.zig", base, optimize);
    addImports(root, modules);
    root.addImport("kernels", addKernels(b, base, optimize, modules));
    root.addImport("runtime", addRuntime(b, base, optimize, modules));
    const portable: []const Level = &.{.{ .name = "portable", .model = base.result.cpu.model }};
    const levels: []const Level = if (base.result.cpu.arch == .x86_64) &x86_levels else portable;
    var names: [x86_levels.len][]const u8 = undefined;
    for (levels, 0..) |level, i| {
        names[i] = level.name;
        root.addObject(addLevel(b, base, optimize, level));
    }
    const options = b.addOptions();
    options.addOption([]const []const u8, "levels", names[0..levels.len]);
    root.addOptions("levels", options);
    return root;
}

fn addLevel(b: *std.Build, base: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode, level: Level) *std.Build.Step.Compile {
    var query = base.query;
    if (base.result.cpu.arch == .x86_64) {
        query.cpu_model = .{ .explicit = level.model };
        query.cpu_features_add = Target.x86.featureSet(level.add);
    }
    const target = b.resolveTargetQuery(query);
    const modules = addDefinitions(b, target, optimize);
    const module = createModule(b, "level.zig", target, optimize);
    addImports(module, modules);
    module.addImport("kernels", addKernels(b, target, optimize, modules));
    const options = b.addOptions();
    options.addOption([]const u8, "level", level.name);
    module.addOptions("level", options);
    return b.addObject(.{ .name = b.fmt("kernels_{s}", .{level.name}), .root_module = module, .use_llvm = true });
}

fn addLibrary(b: *std.Build, query: Target.Query, optimize: std.builtin.OptimizeMode) *std.Build.Step.Compile {
    return b.addLibrary(.{
        .name = "mllm_x86",
        .linkage = .dynamic,
        .root_module = addRoot(b, query, optimize),
        .use_llvm = true,
    });
}

fn addTests(b: *std.Build, optimize: std.builtin.OptimizeMode) void {
    const step = b.step("test", "Run the unit tests");
    const host = b.resolveTargetQuery(.{});
    const modules = addDefinitions(b, host, optimize);
    const runtime = addRuntime(b, host, optimize, modules);
    const kernels = addKernels(b, host, optimize, modules);
    const roots = [_]struct { name: []const u8, module: *std.Build.Module }{
        .{ .name = "test-runtime", .module = runtime },
        .{ .name = "test-kernels", .module = kernels },
        .{ .name = "test-root", .module = addRoot(b, .{}, optimize) },
    };
    for (roots) |root| {
        const compile = b.addTest(.{ .name = root.name, .root_module = root.module, .use_llvm = true });
        const run = b.addRunArtifact(compile);
        step.dependOn(&run.step);
        b.step(root.name, "Run these unit tests").dependOn(&run.step);
    }
}
