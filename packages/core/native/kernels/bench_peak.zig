//! What the machine can do at this level, of all threads together: the fastest integer dots and multiply-adds from
//! registers, and reads from memory. Kernels are held against these.
//!
//! `zig build peaks -Dthreads=2` prints them as JSON; `linear`'s micro-benchmarks call `measure`.

const std = @import("std");
const amx = @import("amx.zig");
const dot = @import("dot.zig");
const os = @import("runtime").os;
const tile_permission = @import("tile_permission.zig");

/// Giga-operations per second (a multiply and an add are two) and GB/s; 0 where a level has no such instruction.
pub const Peaks = struct { int8: f64, f32: f64, read: f64, tiles_bf16: f64, tiles_int8: f64 };

/// Turns of a loop in one run: about 10 ms.
const turns = 2_000_000;
const runs = 7;
const threads_max = 256;

/// Twelve independent chains, and the operations of one turn.
const Loop = struct { body: []const u8, operations: usize };

const int8_loop: ?Loop = switch (dot.level) {
    .avx512vnni => .{ .body = chains("vpdpbusd %%zmm14, %%zmm15, %%zmmN\n"), .operations = 12 * 128 },
    .avxvnni => .{ .body = chains("{vex} vpdpbusd %%ymm14, %%ymm15, %%ymmN\n"), .operations = 12 * 64 },
    // Sums of 16 bits: what a kernel may do between two widenings.
    .avx2 => .{ .body = chains("vpmaddubsw %%ymm14, %%ymm15, %%ymm13\nvpaddw %%ymm13, %%ymmN, %%ymmN\n"), .operations = 12 * 64 },
    .portable => null,
};

const float_loop: ?Loop = switch (dot.level) {
    .avx512vnni => .{ .body = chains("vfmadd231ps %%zmm14, %%zmm15, %%zmmN\n"), .operations = 12 * 32 },
    .avx2, .avxvnni => .{ .body = chains("vfmadd231ps %%ymm14, %%ymm15, %%ymmN\n"), .operations = 12 * 16 },
    .portable => null,
};

/// The text once per register 0…11 in place of N.
fn chains(comptime text: []const u8) []const u8 {
    @setEvalBranchQuota(100_000);
    comptime var all: []const u8 = "";
    inline for (0..12) |i| {
        const name = std.fmt.comptimePrint("mm{d}", .{i});
        var buffer: [std.mem.replacementSize(u8, text, "mmN", name)]u8 = undefined;
        _ = std.mem.replace(u8, text, "mmN", name, &buffer);
        const one = buffer;
        all = all ++ one;
    }
    return all;
}

fn spin(comptime loop: Loop) void {
    _ = asm volatile ("vzeroall\n1:\n" ++ loop.body ++ "dec %[n]\njnz 1b"
        : [n] "=r" (-> usize),
        : [_] "0" (@as(usize, turns)),
        : .{
          .zmm0 = true,
          .zmm1 = true,
          .zmm2 = true,
          .zmm3 = true,
          .zmm4 = true,
          .zmm5 = true,
          .zmm6 = true,
          .zmm7 = true,
          .zmm8 = true,
          .zmm9 = true,
          .zmm10 = true,
          .zmm11 = true,
          .zmm12 = true,
          .zmm13 = true,
          .zmm14 = true,
          .zmm15 = true,
        });
}

/// The best of a few runs on `threads` threads, at most 256.
pub fn measure(threads: usize) !Peaks {
    return .{
        .int8 = if (int8_loop) |loop| try rate(threads, loop) else 0,
        .f32 = if (float_loop) |loop| try rate(threads, loop) else 0,
        .read = try readRate(threads),
        .tiles_bf16 = try tileRate(threads, .bf16),
        .tiles_int8 = try tileRate(threads, .int8),
    };
}

const Tiles = enum { bf16, int8 };

/// Products of AMX tiles; 0 where they can't be used.
fn tileRate(threads: usize, comptime tiles: Tiles) !f64 {
    if (!amx.available or tile_permission.refusal() != null) return 0;
    var best: u64 = std.math.maxInt(u64);
    for (0..runs) |_| best = @min(best, try time(threads, void, {}, TileLoop(tiles).go));
    const operations: usize = amx.rows * 16 * (if (tiles == .bf16) 32 else 64) * 2;
    return perNanosecond(turns / 8 * 4 * operations * threads, best);
}

/// Four independent sums, of random numbers.
fn TileLoop(comptime tiles: Tiles) type {
    return struct {
        fn go(_: void, thread: usize) void {
            var factors: [2][amx.rows][amx.row_bytes / 2]u16 align(64) = undefined;
            var prng: std.Random.DefaultPrng = .init(thread);
            for (&factors) |*tile| for (tile) |*row| for (row) |*x| {
                const bits = prng.random().int(u16);
                x.* = if (tiles == .bf16) bits & 0x80ff | 0x3f00 else bits; // bf16: of the order of 1
            };
            amx.configure(&amx.Config.full);
            defer amx.release();
            inline for (0..4) |i| amx.clear(i);
            inline for (0..2) |i| amx.load(4 + i, @ptrCast(&factors[i]), amx.row_bytes);
            for (0..turns / 8) |_| inline for (0..4) |i| {
                if (tiles == .bf16) amx.dotBf16(i, 4, 5) else amx.dotBytes(.us, i, 4, 5);
            };
        }
    };
}

fn rate(threads: usize, comptime loop: Loop) !f64 {
    const Job = struct {
        fn go(_: void, _: usize) void {
            spin(loop);
        }
    };
    var best: u64 = std.math.maxInt(u64);
    for (0..runs) |_| best = @min(best, try time(threads, void, {}, Job.go));
    return perNanosecond(turns * loop.operations * threads, best);
}

fn perNanosecond(count: usize, ns: u64) f64 {
    return @as(f64, @floatFromInt(count)) / @as(f64, @floatFromInt(ns));
}

/// Nanoseconds from the moment that all threads are ready until all are done.
fn time(threads: usize, comptime T: type, state: T, comptime job: fn (T, usize) void) !u64 {
    const Start = struct {
        waiting: std.atomic.Value(usize) = .init(0),
        go: std.atomic.Value(bool) = .init(false),

        fn run(start: *@This(), data: T, thread: usize) void {
            _ = start.waiting.fetchAdd(1, .release);
            while (!start.go.load(.acquire)) std.atomic.spinLoopHint();
            job(data, thread);
        }
    };
    var start: Start = .{};
    var others: [threads_max - 1]std.Thread = undefined;
    if (threads == 0 or threads > threads_max) return error.ThreadCount;
    for (others[0 .. threads - 1], 1..) |*other, i| other.* = try std.Thread.spawn(.{}, Start.run, .{ &start, state, i });
    while (start.waiting.load(.acquire) < threads - 1) std.atomic.spinLoopHint();
    const before = os.nowNs();
    start.go.store(true, .release);
    job(state, 0);
    for (others[0 .. threads - 1]) |other| other.join();
    return os.nowNs() - before;
}

/// Bytes that no cache holds: some times what the last one of a server does, where all weights may lie.
fn readBytes() usize {
    var buffer: [32]u8 = undefined;
    const last = os.readFile("/sys/devices/system/cpu/cpu0/cache/index3/size", &buffer) orelse ""; // "32768K"
    return @max(512 << 20, 3 * 1024 * (os.firstNumber(last) orelse 0));
}

const Line = @Vector(16, u32);

const Reading = struct { lines: []align(64) const Line, ahead: usize, threads: usize, sink: *std.atomic.Value(u32) };

fn readRate(threads: usize) !f64 {
    const count = readBytes();
    const pages = os.mapPages(count) orelse return error.OutOfMemory; // as weights have them
    defer os.unmapPages(pages, count);
    const bytes = pages[0..count];
    @memset(bytes, 1);
    var sink: std.atomic.Value(u32) = .init(0);
    var best: u64 = std.math.maxInt(u64);
    for ([_]usize{ 0, 1024, 2048, 4096 }) |ahead| {
        const lines = std.mem.bytesAsSlice(Line, @as([]align(64) u8, @alignCast(bytes)));
        const reading: Reading = .{ .lines = lines, .ahead = ahead, .threads = threads, .sink = &sink };
        inline for (.{ 1, 4 }) |streams| {
            for (0..runs) |_| best = @min(best, try time(threads, Reading, reading, Share(streams).read));
        }
    }
    return perNanosecond(count, best);
}

/// A thread's share, in some parts side by side: some CPUs follow several streams better than one.
fn Share(comptime streams: usize) type {
    return struct {
        fn read(reading: Reading, thread: usize) void {
            const step = 8 / streams;
            const part = reading.lines.len / reading.threads / streams;
            const lines = reading.lines.ptr + thread * streams * part;
            var sums: [8]Line = @splat(@splat(0));
            for (0..part / step) |i| {
                inline for (0..streams) |s| inline for (0..step) |j| {
                    const line = lines + s * part + i * step + j;
                    if (reading.ahead > 0) @prefetch(@as([*]const u8, @ptrCast(line)) + reading.ahead, .{});
                    sums[s * step + j] |= line[0];
                };
            }
            var all = sums[0];
            for (sums) |sum| all |= sum;
            _ = reading.sink.fetchAdd(@reduce(.Or, all), .monotonic);
        }
    };
}
