//! Builds libmllm_x86: the CPU runtime at the baseline, and an object of kernels per ISA level, in one library.
//!
//!   zig build                    the library for this machine's system, in zig-out/lib
//!   zig build -Dtarget=…         for another system
//!   zig build test               unit tests of the runtime, of the kernels (this CPU's features) and of the dispatcher
//!   zig build emulated           a variant for tests that has level amx on any CPU with AVX-512, in software
//!   zig build check-cross        compiles and links for every supported system, installs nothing

const std = @import("std");
const mllm_native = @import("mllm_native");
const Target = std.Target;
const Level = mllm_native.Level;

const native = "../../core/native/";

/// The oldest C library that Deno itself runs on.
const glibc: std.SemanticVersion = .{ .major = 2, .minor = 27, .patch = 0 };

pub fn build(b: *std.Build) void {
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "Debug, ReleaseSafe, ReleaseFast (default) or ReleaseSmall") orelse
        .ReleaseFast;
    const target = b.standardTargetOptions(.{});
    addInstall(b, b.getInstallStep(), addLibrary(b, target.query, optimize, .real));
    const host = b.graph.host.result;
    if (host.cpu.arch == .x86_64 and host.os.tag == .linux) {
        const step = b.step("emulated", "Build the variant with emulated AMX, for tests");
        addInstall(b, step, addLibrary(b, .{}, optimize, .emulated));
    }
    addTests(b, optimize);
    const cross = b.step("check-cross", "Compile and link for every supported system");
    for (cross_targets) |triple| {
        const query = Target.Query.parse(.{ .arch_os_abi = triple }) catch unreachable;
        cross.dependOn(&addLibrary(b, query, optimize, .real).step);
    }
}

fn addInstall(b: *std.Build, step: *std.Build.Step, lib: *std.Build.Step.Compile) void {
    step.dependOn(&b.addInstallArtifact(lib, .{ .dest_dir = .{ .override = .lib } }).step);
}

/// Whether AMX is what the CPU has, or done in software where it has none.
const Amx = enum { real, emulated };

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

fn addRoot(b: *std.Build, query: Target.Query, optimize: std.builtin.OptimizeMode, amx: Amx) *std.Build.Module {
    const base = b.resolveTargetQuery(baseline(b, query));
    const modules = addDefinitions(b, base, optimize);
    const root = createModule(b, "root.zig", base, optimize);
    addImports(root, modules);
    root.addImport("kernels", addKernels(b, base, optimize, modules));
    root.addImport("runtime", addRuntime(b, base, optimize, modules));
    root.addImport("tile_permission", createModule(b, native ++ "kernels/tile_permission.zig", base, optimize));
    const portable: []const Level = &.{.{ .name = "portable", .model = base.result.cpu.model }};
    const is_x86 = base.result.cpu.arch == .x86_64;
    const levels: []const Level = if (is_x86) &mllm_native.x86_levels else portable;
    var names: [mllm_native.x86_levels.len][]const u8 = undefined;
    for (levels, 0..) |level, i| {
        names[i] = level.name;
        root.addObject(addLevel(b, base, optimize, level));
    }
    const options = b.addOptions();
    options.addOption([]const []const u8, "names", names[0..levels.len]);
    options.addOption(bool, "emulates_amx", amx == .emulated);
    root.addOptions("levels", options);
    if (amx == .emulated) root.addObject(addEmulator(b, base, optimize));
    return root;
}

fn addLevel(b: *std.Build, base: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode, level: Level) *std.Build.Step.Compile {
    var query = base.query;
    if (base.result.cpu.arch == .x86_64) level.apply(&query);
    const target = b.resolveTargetQuery(query);
    const modules = addDefinitions(b, target, optimize);
    const module = createModule(b, if (level.over == null) "level.zig" else "level_over.zig", target, optimize);
    addImports(module, modules);
    if (level.over == null) {
        module.addImport("kernels", addKernels(b, target, optimize, modules));
    } else {
        const kernels = createModule(b, native ++ "kernels/amx_kernels.zig", target, optimize);
        addImports(kernels, modules);
        module.addImport("amx_kernels", kernels);
    }
    const options = b.addOptions();
    options.addOption([]const u8, "name", level.name);
    options.addOption([]const u8, "over", level.over orelse "");
    module.addOptions("level", options);
    return b.addObject(.{ .name = b.fmt("kernels_{s}", .{level.name}), .root_module = module, .use_llvm = true });
}

/// An object of its own, as it needs the vectors of the level that it serves.
fn addEmulator(b: *std.Build, base: std.Build.ResolvedTarget, optimize: std.builtin.OptimizeMode) *std.Build.Step.Compile {
    var query = base.query;
    mllm_native.x86_levels[mllm_native.x86_levels.len - 1].apply(&query);
    const target = b.resolveTargetQuery(query);
    const module = createModule(b, "emulator.zig", target, optimize);
    module.addImport("amx_emulator", createModule(b, native ++ "kernels/amx_emulator.zig", target, optimize));
    return b.addObject(.{ .name = "amx_emulator", .root_module = module, .use_llvm = true });
}

fn addLibrary(b: *std.Build, query: Target.Query, optimize: std.builtin.OptimizeMode, amx: Amx) *std.Build.Step.Compile {
    return b.addLibrary(.{
        .name = if (amx == .real) "mllm_x86" else "mllm_x86_emulated",
        .linkage = .dynamic,
        .root_module = addRoot(b, query, optimize, amx),
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
        .{ .name = "test-root", .module = addRoot(b, .{}, optimize, .real) },
    };
    for (roots) |root| {
        const compile = b.addTest(.{ .name = root.name, .root_module = root.module, .use_llvm = true });
        const run = b.addRunArtifact(compile);
        step.dependOn(&run.step);
        b.step(root.name, "Run these unit tests").dependOn(&run.step);
    }
}
