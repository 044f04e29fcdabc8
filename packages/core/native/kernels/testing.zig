//! What the kernel tests share: tensors in awkward layouts, random and special values, runs on several thread counts.

const std = @import("std");
const builtin = @import("builtin");
const abi = @import("abi");
const context = @import("context");

pub const allocator = std.testing.allocator;
/// Row lengths around every vector and unroll boundary.
pub const tails = [_]usize{ 1, 3, 7, 17, 33, 65, 129, 300 };
pub const thread_counts = [_]u32{ 1, 2, 3, 5 };

pub const Layout = enum { dense, misaligned, narrowed, transposed };
pub const layouts = [_]Layout{ .dense, .misaligned, .narrowed, .transposed };

/// A tensor that owns its memory. All tests work with f32, i32 and f16 elements.
pub fn Tensor(comptime T: type) type {
    return struct {
        const Self = @This();
        memory: []align(64) T,
        desc: abi.TensorDesc,

        /// Memory is filled with NaN (or 0x7f7f7f7f), so that reading outside of the view shows.
        pub fn init(shape: []const usize, layout: Layout) !Self {
            var desc: abi.TensorDesc = .{ .rank = @intCast(shape.len), .dtype = @intFromEnum(dtypeOf(T)) };
            var total: usize = 1;
            var axis = shape.len;
            const order = if (layout == .transposed and shape.len > 1) shape.len - 1 else shape.len;
            if (order < shape.len) {
                // The second to last dim is the dense one.
                total = place(&desc, shape, shape.len - 2, total, layout);
                total = place(&desc, shape, shape.len - 1, total, layout);
                axis -= 2;
            }
            while (axis > 0) {
                axis -= 1;
                total = place(&desc, shape, axis, total, layout);
            }
            const memory = try allocator.alignedAlloc(T, .@"64", total + 1);
            @memset(memory, if (T == i32) 0x7f7f7f7f else std.math.nan(T));
            desc.data = @intFromPtr(memory.ptr) + @as(usize, if (layout == .misaligned) @sizeOf(T) else 0);
            return .{ .memory = memory, .desc = desc };
        }

        fn place(desc: *abi.TensorDesc, shape: []const usize, axis: usize, total: usize, layout: Layout) usize {
            desc.shape[axis] = @intCast(shape[axis]);
            desc.strides[axis] = @intCast(total);
            return total * shape[axis] + @as(usize, if (layout == .narrowed and axis + 1 == shape.len) 5 else 0);
        }

        pub fn deinit(self: Self) void {
            allocator.free(self.memory);
        }

        pub fn count(self: *const Self) usize {
            var n: usize = 1;
            for (0..self.desc.rank) |d| n *= @intCast(self.desc.shape[d]);
            return n;
        }

        pub fn at(self: *const Self, index: usize) *T {
            var rest = index;
            var offset: usize = 0;
            var d: usize = self.desc.rank;
            while (d > 0) {
                d -= 1;
                const length: usize = @intCast(self.desc.shape[d]);
                offset += rest % length * @as(usize, @intCast(self.desc.strides[d]));
                rest /= length;
            }
            return @ptrFromInt(@as(usize, @intCast(self.desc.data)) + offset * @sizeOf(T));
        }

        pub fn write(self: *const Self, values: []const T) void {
            for (values, 0..) |v, i| self.at(i).* = v;
        }

        /// The elements in row-major order; the caller frees them.
        pub fn read(self: *const Self) ![]T {
            const values = try allocator.alloc(T, self.count());
            for (values, 0..) |*v, i| v.* = self.at(i).*;
            return values;
        }
    };
}

fn dtypeOf(comptime T: type) abi.Dtype {
    return switch (T) {
        f32 => .f32,
        f16 => .f16,
        i32 => .i32,
        else => @compileError("no such test tensor"),
    };
}

pub fn normal(seed: u64, n: usize, deviation: f32) ![]f32 {
    var random: std.Random.DefaultPrng = .init(seed);
    const values = try allocator.alloc(f32, n);
    for (values) |*v| v.* = random.random().floatNorm(f32) * deviation;
    return values;
}

/// A contiguous descriptor.
pub fn describe(dtype: abi.Dtype, address: usize, shape: []const usize) abi.TensorDesc {
    var desc = dense(shape);
    desc.dtype = @intFromEnum(dtype);
    desc.data = address;
    return desc;
}

/// Shape and row-major strides; the caller gives dtype and data.
pub fn dense(shape: []const usize) abi.TensorDesc {
    var desc: abi.TensorDesc = .{ .rank = @intCast(shape.len) };
    var total: usize = 1;
    for (0..shape.len) |i| {
        const axis = shape.len - 1 - i;
        desc.shape[axis] = @intCast(shape[axis]);
        desc.strides[axis] = @intCast(total);
        total *= shape[axis];
    }
    return desc;
}

pub fn command(inputs: []const abi.TensorDesc, outputs: []const abi.TensorDesc) abi.Command {
    var cmd: abi.Command = .{ .input_count = @intCast(inputs.len), .output_count = @intCast(outputs.len) };
    for (inputs, 0..) |d, i| cmd.inputs[i] = d;
    for (outputs, 0..) |d, i| cmd.outputs[i] = d;
    return cmd;
}

/// Runs a command with exactly the scratch it asks for; in benchmarks too.
pub fn run(kernel: context.Kernel, workspace: ?context.Workspace, cmd: *const abi.Command, threads: u32) !void {
    const bytes: usize = if (workspace) |w| @intCast(w(cmd, threads)) else 0;
    // Programs ask for scratch once, and may run with fewer threads than that.
    if (workspace) |w| for (1..threads) |t| if (w(cmd, @intCast(t)) > bytes) return error.FewerThreadsNeedMoreScratch;
    const gpa = if (builtin.is_test) allocator else std.heap.page_allocator;
    const scratch = try gpa.alignedAlloc(u8, .@"64", bytes);
    defer gpa.free(scratch);
    @memset(scratch, 0xff);
    try context.runForTest(kernel, cmd, threads, scratch);
}

pub fn expectBits(expected: []const f32, actual: []const f32) !void {
    for (expected, actual, 0..) |e, a, i| {
        if (@as(u32, @bitCast(e)) == @as(u32, @bitCast(a)) or (e != e and a != a)) continue;
        std.debug.print("element {d}: {d} is not {d} bit for bit\n", .{ i, a, e });
        return error.BitsDiffer;
    }
}

/// |actual - expected| <= relative * |expected| + absolute; NaN and infinities must be equal.
pub fn expectClose(expected: []const f64, actual: []const f32, relative: f64, absolute: f64) !void {
    for (expected, actual, 0..) |e, a, i| {
        if (e != e and a != a) continue;
        const rounded: f32 = @floatCast(e);
        if (rounded == a) continue;
        if (@abs(a - e) <= relative * @abs(e) + absolute and a - a == 0) continue;
        std.debug.print("element {d}: {e} should be {e} (relative {e}, absolute {e})\n", .{ i, a, e, relative, absolute });
        return error.TooFar;
    }
}

/// Units in the last place of f32 between a value and the exact one; denormals count in steps of the least denormal.
pub fn ulps(actual: f32, exact: f64) f64 {
    const rounded: f32 = @floatCast(exact);
    if (rounded == actual or (rounded != rounded and actual != actual)) return 0;
    const magnitude = @abs(rounded);
    if (magnitude == std.math.inf(f32)) return if (actual == std.math.floatMax(f32)) 1 else std.math.inf(f64);
    const unit = @max(0x1p-149, std.math.ldexp(@as(f64, 1), std.math.ilogb(@max(magnitude, 0x1p-126)) - 23));
    return @abs(@as(f64, actual) - exact) / unit;
}
