//! Tests of the function table over a platform of two made-up kernels: what any C program would see.

const std = @import("std");
const abi = @import("abi");
const ops = @import("ops");
const context = @import("context");
const library = @import("library.zig");

const expect = std.testing.expect;
const expectEqual = std.testing.expectEqual;

fn data(desc: *const abi.TensorDesc) [*]f32 {
    return @ptrFromInt(desc.data);
}

fn count(desc: *const abi.TensorDesc) usize {
    var product: usize = 1;
    for (desc.shape[0..desc.rank]) |dim| product *= @intCast(dim);
    return product;
}

fn add(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    const share = ctx.range(count(&cmd.outputs[0]), 16);
    const n = count(&cmd.inputs[1]);
    for (share.start..share.end) |i| data(&cmd.outputs[0])[i] = data(&cmd.inputs[0])[i] + data(&cmd.inputs[1])[i % n];
}

/// Writes what it was told instead of rows: the start in every element, through scratch shared by the threads.
fn takeRows(ctx: *context.Context, cmd: *const abi.Command) callconv(.c) void {
    const scratch: [*]f32 = @ptrCast(ctx.scratch.ptr);
    if (ctx.phase == 0) {
        scratch[ctx.thread] = @floatFromInt(cmd.ints[0]);
        return ctx.again();
    }
    while (true) {
        const i = ctx.take();
        if (i >= count(&cmd.outputs[0])) break;
        data(&cmd.outputs[0])[i] = scratch[i % ctx.threads];
    }
}

fn takeRowsWorkspace(_: *const abi.Command, threads: u32) callconv(.c) u64 {
    return threads * 4;
}

fn failing(ctx: *context.Context, _: *const abi.Command) callconv(.c) void {
    ctx.fail("this kernel always fails");
}

/// Threads of the last attention.
var attention_threads: std.atomic.Value(u32) = .init(0);

fn attention(ctx: *context.Context, _: *const abi.Command) callconv(.c) void {
    if (ctx.thread == 0) attention_threads.store(ctx.threads, .monotonic);
}

/// How far a `relu` is: 0 nobody began, 1 one is inside, 2 all may end.
var gate: std.atomic.Value(u32) = .init(0);

/// Stays inside until `gate` opens.
fn relu(ctx: *context.Context, _: *const abi.Command) callconv(.c) void {
    if (ctx.thread != 0) return;
    _ = gate.cmpxchgStrong(0, 1, .acq_rel, .acquire);
    while (gate.load(.acquire) != 2) std.atomic.spinLoopHint();
}

fn none(_: *const abi.Command, _: u32) callconv(.c) u64 {
    return 0;
}

fn op(name: []const u8) u32 {
    for (ops.table) |row| if (std.mem.eql(u8, row.name, name)) return row.id;
    unreachable;
}

const kernels: [ops.table.len]context.Kernel = blk: {
    var list: [ops.table.len]context.Kernel = @splat(&failing);
    list[1] = &add;
    list[28] = &takeRows;
    for (ops.table, &list) |row, *kernel| {
        if (std.mem.eql(u8, row.name, "attention")) kernel.* = &attention;
        if (std.mem.eql(u8, row.name, "relu")) kernel.* = &relu;
    }
    break :blk list;
};
const workspaces: [ops.table.len]context.Workspace = blk: {
    var list: [ops.table.len]context.Workspace = @splat(&none);
    list[28] = &takeRowsWorkspace;
    break :blk list;
};
const outlooks: [ops.table.len]?context.Outlook = @splat(null);

const kernel_table: context.KernelTable = .{ .kernels = &kernels, .workspaces = &workspaces, .outlooks = &outlooks, .count = ops.table.len };

fn getTable() callconv(.c) *const context.KernelTable {
    return &kernel_table;
}

const backend = library.Library(struct {
    pub const name = "test";
    pub const levels = [_]library.Level{ .{ .name = "low", .kernels = getTable }, .{ .name = "high", .kernels = getTable } };
    pub fn whyNot(level: []const u8) ?[]const u8 {
        return if (std.mem.eql(u8, level, "low")) null else "this CPU is too low";
    }
    pub fn cpuName(_: *[64]u8) []const u8 {
        return "a \"quoted\" CPU";
    }
    pub fn microarchitecture() ?[]const u8 {
        return "abacus";
    }
    pub fn threadsPerCore() u32 {
        return 1;
    }
    pub fn writeFeatures(json: *std.json.Stringify) !void {
        try json.write("one");
    }
    pub fn packedBytes(_: abi.Dtype, n: u64, _: u64, packed_dtype: *u32) u64 {
        packed_dtype.* = 7;
        return if (n % 2 == 0) n else 0;
    }
}).table;

fn open(threads: u32, level: []const u8) u64 {
    var options: abi.OpenOptions = .{ .threads = threads, .spin_us = 10 };
    @memcpy(options.level[0..level.len], level);
    return backend.open(&options);
}

/// The program's handle, 0 when it is refused.
fn compile(handle: u64, desc: *const abi.ProgramDesc) u64 {
    var program: u64 = 0;
    const status = backend.compile(handle, desc, &program);
    return if (status == 0) program else 0;
}

var text_buffer: [1024]u8 = undefined;

fn lastText(handle: u64) []const u8 {
    const length = backend.last_error(handle, @intFromPtr(&text_buffer), text_buffer.len);
    return text_buffer[0..@intCast(length)];
}

fn expectText(handle: u64, needle: []const u8) !void {
    const text = lastText(handle);
    if (std.mem.indexOf(u8, text, needle) == null) {
        std.debug.print("\"{s}\" does not contain \"{s}\"\n", .{ text, needle });
        return error.TestUnexpectedResult;
    }
}

fn tensor(address: u64, shape: []const i64) abi.TensorDesc {
    var desc: abi.TensorDesc = .{ .data = address, .rank = @intCast(shape.len) };
    var stride: i64 = 1;
    var i = shape.len;
    while (i > 0) {
        i -= 1;
        desc.shape[i] = shape[i];
        desc.strides[i] = stride;
        stride *= shape[i];
    }
    return desc;
}

fn addCommand(a: abi.TensorDesc, b: abi.TensorDesc, out: abi.TensorDesc) abi.Command {
    var cmd: abi.Command = .{ .op = op("add"), .input_count = 2, .output_count = 1 };
    cmd.inputs[0] = a;
    cmd.inputs[1] = b;
    cmd.outputs[0] = out;
    return cmd;
}

test "open says what is wrong with a level" {
    try expectEqual(0, open(1, "high"));
    try expectText(0, "level \"high\": this CPU is too low; possible here: low");
    try expectEqual(0, open(1, "odd"));
    try expectText(0, "level \"odd\": there is no such level; possible here: low");
    const handle = open(2, "low");
    try expect(handle != 0);
    backend.close(handle);
    try expectEqual(1, backend.submit(handle, 8, 1));
    try expectText(handle, "the backend was closed");
    try expectEqual(1, backend.submit(0x1234_5601, 8, 1));
    try expectText(0x1234_5601, "the backend is not open");
}

test "describe is JSON and says its length" {
    var buffer: [2048]u8 = undefined;
    const length = backend.describe(@intFromPtr(&buffer), buffer.len);
    try expectEqual(length, backend.describe(0, 0));
    const Missing = struct { high: []u8 };
    const Description = struct {
        available: bool,
        cpu: []u8,
        microarchitecture: []u8,
        level: []u8,
        levels: [][]u8,
        missing: Missing,
        cores: u32,
        memory_bytes: u64,
    };
    const text = buffer[0..@intCast(length)];
    const parsed = try std.json.parseFromSlice(Description, std.testing.allocator, text, .{ .ignore_unknown_fields = true });
    defer parsed.deinit();
    try expectEqual(1, parsed.value.levels.len);
    try std.testing.expectEqualStrings("low", parsed.value.level);
    try std.testing.expectEqualStrings("this CPU is too low", parsed.value.missing.high);
    try std.testing.expectEqualStrings("a \"quoted\" CPU", parsed.value.cpu);
    try std.testing.expectEqualStrings("abacus", parsed.value.microarchitecture);
}

test "submit runs, and says what does not fit" {
    const handle = open(2, "");
    defer backend.close(handle);
    const n = 40_000;
    const a = backend.alloc(handle, n * 4);
    const b = backend.alloc(handle, n * 4);
    for (data(&tensor(a, &.{n}))[0..n], 0..) |*value, i| value.* = @floatFromInt(i);
    @memset(data(&tensor(b, &.{n}))[0..n], 1);
    var cmd = addCommand(tensor(a, &.{ 4, n / 4 }), tensor(b, &.{n / 4}), tensor(b, &.{ 4, n / 4 }));
    try expectEqual(1, backend.supports(handle, &cmd));
    cmd.outputs[0] = tensor(a, &.{ 4, n / 4 });
    try expectEqual(0, backend.submit(handle, @intFromPtr(&cmd), 1));
    try expectEqual(@as(f32, n), data(&cmd.outputs[0])[n - 1]);
    var bad = cmd;
    bad.inputs[1] = tensor(b, &.{3});
    try expectEqual(1, backend.submit(handle, @intFromPtr(&bad), 1));
    try expectText(handle, "add: b is f32 [3], neither f32 [4, 10000] nor its trailing dims");
    bad = cmd;
    bad.inputs[0].dtype = @intFromEnum(abi.Dtype.q4_0);
    bad.inputs[0].shape[1] = 9984;
    bad.inputs[0].strides[0] = 9984;
    try expectEqual(2, backend.submit(handle, @intFromPtr(&bad), 1));
    try expectText(handle, "add: a is q4_0 [4, 9984]; it takes f32 [...]");
    bad = cmd;
    bad.op = 999;
    try expectEqual(0, backend.supports(handle, &bad));
    bad = cmd;
    bad.inputs[0].data += 2;
    try expectEqual(1, backend.submit(handle, @intFromPtr(&bad), 1));
    try expectText(handle, "not aligned to 4 bytes");
    bad = cmd;
    bad.inputs[0].shape[0] = -1;
    try expectEqual(1, backend.submit(handle, @intFromPtr(&bad), 1));
    bad = cmd;
    bad.input_count = 1;
    try expectEqual(1, backend.submit(handle, @intFromPtr(&bad), 1));
    try expectText(handle, "add: 1 inputs given, 2 to 2 are taken");
    bad = cmd;
    bad.op = op("silu");
    bad.input_count = 1;
    bad.outputs[0] = bad.inputs[0];
    try expectEqual(1, backend.submit(handle, @intFromPtr(&bad), 1));
    try expectText(handle, "silu on f32 [4, 10000]: this kernel always fails");
}

const registers_of = struct {
    fn make(tokens: i64, position: i64) abi.Registers {
        var registers: abi.Registers = .{};
        registers.values[1] = tokens;
        registers.values[2] = position;
        return registers;
    }
}.make;

const tokens_max = 600;
const width = 64;

/// out[tokens, width] = (x + x) + position through the arena; `fail_at` makes one command fail.
fn makeProgram(handle: u64, x: u64, out: u64, fail_at: ?usize) u64 {
    var commands: [4]abi.Command = undefined;
    var input = tensor(x, &.{ tokens_max, width });
    input.symbolic_dims = 1;
    var middle = input;
    middle.data = 0;
    middle.space = @intFromEnum(abi.Space.arena);
    var row = tensor(tokens_max * width * 4, &.{ 1, width });
    row.space = middle.space;
    var output = input;
    output.data = out;
    commands[0] = addCommand(input, input, middle);
    commands[1] = .{ .op = op("take_rows"), .input_count = 1, .output_count = 1 };
    commands[1].inputs[0] = middle;
    commands[1].outputs[0] = row;
    commands[1].int_registers[0] = @intFromEnum(abi.Register.last);
    var bias = row;
    bias.rank = 1;
    bias.shape[0] = width;
    bias.strides[0] = 1;
    commands[2] = addCommand(middle, bias, middle);
    commands[3] = addCommand(middle, bias, output);
    if (fail_at) |index| commands[index] = .{
        .op = op("silu"),
        .input_count = 1,
        .output_count = 1,
        .inputs = commands[index].inputs,
        .outputs = .{ commands[index].inputs[0], .{} },
    };
    return compile(handle, &.{
        .commands = @intFromPtr(&commands),
        .command_count = commands.len,
        .arena_bytes = (tokens_max + 1) * width * 4,
        .tokens_max = tokens_max,
    });
}

test "programs resolve tokens, registers and arena, for any thread count" {
    for ([_]u32{ 1, 2, 3, 8 }) |threads| {
        const handle = open(threads, "");
        defer backend.close(handle);
        const x = backend.alloc(handle, tokens_max * width * 4);
        const out = backend.alloc(handle, tokens_max * width * 4);
        const values = data(&tensor(x, &.{1}))[0 .. tokens_max * width];
        for (values, 0..) |*value, i| value.* = @floatFromInt(i % 1000);
        const program = makeProgram(handle, x, out, null);
        try expect(program != 0);
        for ([_]i64{ 1, 600, 3, 599, 128, 1, 600 }) |tokens| {
            const used: usize = @intCast(tokens * width);
            @memset(data(&tensor(out, &.{1}))[0 .. tokens_max * width], -1);
            try expectEqual(0, backend.run(handle, program, &registers_of(tokens, 0)));
            const last: f32 = @floatFromInt(tokens - 1);
            for (data(&tensor(out, &.{1}))[0..used], values[0..used]) |got, value| try expectEqual(2 * value + 2 * last, got);
            if (used < tokens_max * width) try expectEqual(-1, data(&tensor(out, &.{1}))[used]);
        }
        try expectEqual(1, backend.run(handle, program, &registers_of(601, 0)));
        try expectText(handle, "run: 601 tokens, the program takes 1 to 600");
        try expectEqual(1, backend.run(handle, program, &registers_of(0, 0)));
        try expectEqual(1, backend.run(handle, program + 1, &registers_of(1, 0)));
        backend.destroy(handle, program);
        try expectEqual(1, backend.run(handle, program, &registers_of(1, 0)));
        try expectText(handle, "there is no program 1");
    }
}

test "a failing command ends the run on every thread, wherever it stands" {
    const handle = open(3, "");
    defer backend.close(handle);
    const x = backend.alloc(handle, tokens_max * width * 4);
    for (0..4) |index| {
        const program = makeProgram(handle, x, x, index);
        for ([_]i64{ 1, 600, 2 }) |tokens| {
            try expectEqual(1, backend.run(handle, program, &registers_of(tokens, 0)));
            try expectText(handle, "this kernel always fails");
        }
        backend.destroy(handle, program);
    }
}

test "profiles count calls and time" {
    const handle = open(2, "");
    defer backend.close(handle);
    const x = backend.alloc(handle, tokens_max * width * 4);
    const program = makeProgram(handle, x, x, null);
    var rows: [4]abi.ProfileRow = undefined;
    try expectEqual(4, backend.profile(handle, program, 0, 0));
    for (0..5) |_| try expectEqual(0, backend.run(handle, program, &registers_of(600, 0)));
    for (0..2) |_| try expectEqual(0, backend.run(handle, program, &registers_of(1, 0)));
    try expectEqual(4, backend.profile(handle, program, @intFromPtr(&rows), 4));
    for (rows) |row| try expectEqual(7, row.calls);
    try expectEqual(op("take_rows"), rows[1].op);
    try expect(rows[0].ns > 0);
}

test "broken programs are refused" {
    const handle = open(1, "");
    defer backend.close(handle);
    const x = backend.alloc(handle, tokens_max * width * 4);
    var input = tensor(x, &.{ 10, width });
    input.symbolic_dims = 1;
    const cmd = addCommand(input, input, input);
    var desc: abi.ProgramDesc = .{ .commands = @intFromPtr(&cmd), .command_count = 1, .arena_bytes = 64, .tokens_max = 11 };
    try expectEqual(0, compile(handle, &desc));
    try expectText(handle, "command 0: add: a is f32 [tokens<=10, 64]: dim 0 can't hold 11 tokens");
    desc.tokens_max = 10;
    const program = compile(handle, &desc);
    try expect(program != 0);
    var far = cmd;
    far.outputs[0].space = 1;
    far.outputs[0].data = 0;
    desc.commands = @intFromPtr(&far);
    try expectEqual(0, compile(handle, &desc));
    try expectText(handle, "ends past the arena of 64 bytes");
    desc.command_count = std.math.maxInt(u64);
    try expectEqual(0, compile(handle, &desc));
    try expectText(handle, "are no program");
}

test "files, memory and packing report failures" {
    const handle = open(1, "");
    defer backend.close(handle);
    var file: abi.MappedFile = .{};
    try expectEqual(6, backend.map_file(handle, @intFromPtr("/no/such/file"), 0, 0, &file));
    try expectText(handle, "map_file: /no/such/file: no such file");
    try expectEqual(1, backend.unmap_file(handle, 4096, 4096));
    try expectEqual(0, backend.alloc(handle, 1 << 60));
    try expectText(handle, "do not fit this machine's");
    const block = backend.alloc(handle, 100);
    backend.free(handle, block);
    backend.free(handle, block);
    try expectText(handle, "is no block in use");
    var packed_dtype: u32 = 0;
    try expectEqual(4, backend.packed_bytes(handle, 0, 4, 1, &packed_dtype));
    try expectEqual(7, packed_dtype);
    try expectEqual(0, backend.packed_bytes(handle, 0, 3, 1, &packed_dtype));
    try expectText(handle, "pack_weight: f32 [3, 1] can't be packed");
    try expectEqual(0, backend.packed_bytes(handle, 12345, 4, 1, &packed_dtype));
}

test "several devices at once, from several threads" {
    const Worker = struct {
        fn go(failures: *std.atomic.Value(u32)) void {
            for (0..10) |_| {
                const handle = open(2, "");
                if (handle == 0) {
                    _ = failures.fetchAdd(1, .monotonic);
                    continue;
                }
                const x = backend.alloc(handle, tokens_max * width * 4);
                const program = makeProgram(handle, x, x, null);
                for (0..20) |_| {
                    if (backend.run(handle, program, &registers_of(600, 0)) != 0) _ = failures.fetchAdd(1, .monotonic);
                }
                backend.close(handle);
            }
        }
    };
    var failures: std.atomic.Value(u32) = .init(0);
    var threads: [4]std.Thread = undefined;
    for (&threads) |*thread| thread.* = try std.Thread.spawn(.{}, Worker.go, .{&failures});
    for (threads) |thread| thread.join();
    try expectEqual(0, failures.load(.monotonic));
}

test "attention gets threads as the context grows, and gives them back" {
    const handle = open(2, "");
    defer backend.close(handle);
    const memory = backend.alloc(handle, 3 * 256 * 4);
    const cache = backend.alloc(handle, 4096 * 64 * 4);
    var cmd: abi.Command = .{ .op = op("attention"), .input_count = 4, .output_count = 1 };
    cmd.inputs[0] = tensor(memory, &.{ 1, 4, 64 });
    cmd.inputs[0].symbolic_dims = 1;
    cmd.inputs[1] = tensor(cache, &.{ 64, 1, 64, 64 });
    cmd.inputs[2] = cmd.inputs[1];
    cmd.inputs[3] = tensor(memory + 256 * 4, &.{64});
    cmd.inputs[3].dtype = @intFromEnum(abi.Dtype.i32);
    cmd.outputs[0] = cmd.inputs[0];
    cmd.outputs[0].data = memory + 2 * 256 * 4;
    cmd.int_registers[0] = @intFromEnum(abi.Register.position);
    const program = compile(handle, &.{ .commands = @intFromPtr(&cmd), .command_count = 1, .arena_bytes = 0, .tokens_max = 1 });
    try expect(program != 0);
    for ([_]i64{ 0, 1, 4095, 0, 2000, 3 }, [_]u32{ 1, 1, 2, 1, 2, 1 }) |position, threads| {
        try expectEqual(0, backend.run(handle, program, &registers_of(1, position)));
        // A worker that another program kept waiting is left out for a while.
        for (0..5000) |_| {
            if (attention_threads.load(.monotonic) == threads) break;
            try std.testing.io.sleep(.fromMilliseconds(1), .awake);
            try expectEqual(0, backend.run(handle, program, &registers_of(1, position)));
        }
        try expectEqual(threads, attention_threads.load(.monotonic));
    }
    for (0..4096) |position| try expectEqual(0, backend.run(handle, program, &registers_of(1, @intCast(position))));
}

test "close lets the running call end and those that wait fail" {
    const Caller = struct {
        fn submit(handle: u64, cmd: *const abi.Command, out: *i32) void {
            out.* = backend.submit(handle, @intFromPtr(cmd), 1);
        }
        fn close(handle: u64) void {
            backend.close(handle);
        }
        fn pause() void {
            std.testing.io.sleep(.fromMilliseconds(20), .awake) catch {};
        }
    };
    for (0..3) |_| {
        gate.store(0, .release);
        const handle = open(2, "");
        var cmd: abi.Command = .{ .op = op("relu"), .input_count = 1, .output_count = 1 };
        cmd.inputs[0] = tensor(backend.alloc(handle, 64), &.{16});
        cmd.outputs[0] = cmd.inputs[0];
        var results: [4]i32 = @splat(-1);
        var threads: [5]std.Thread = undefined;
        threads[0] = try std.Thread.spawn(.{}, Caller.submit, .{ handle, &cmd, &results[0] });
        while (gate.load(.acquire) != 1) std.atomic.spinLoopHint();
        for (threads[1..4], results[1..]) |*thread, *result| thread.* = try std.Thread.spawn(.{}, Caller.submit, .{ handle, &cmd, result });
        Caller.pause(); // they wait for the lock now
        threads[4] = try std.Thread.spawn(.{}, Caller.close, .{handle});
        while (backend.alloc(handle, 64) != 0) Caller.pause();
        try expectText(handle, "the backend was closed");
        backend.close(handle); // harmless
        const other = open(1, "");
        try expect(other & 0xff != handle & 0xff);
        gate.store(2, .release);
        for (threads) |thread| thread.join();
        try std.testing.expectEqualSlices(i32, &.{ 0, 1, 1, 1 }, &results);
        try expectText(handle, "the backend was closed");
        backend.close(other);
    }
}
