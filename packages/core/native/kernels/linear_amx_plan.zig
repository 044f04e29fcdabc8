//! How linear_amx.zig cuts a product into tasks, and which thread takes which.

const std = @import("std");
const amx = @import("amx.zig");
const packed_weights = @import("packed.zig");

/// Elements of K in a row of a tile of activations: one block of q8a.
pub const step_k = 32;
/// Steps before the sums go to scratch: as many as leave the weights of two panels, 32 KiB, in the first cache.
pub const block_steps = 16;
/// Most rows, and columns, that a thread's sums are kept for: 512 KiB.
const task_rows_max = 512;
const task_columns_max = 256;
/// Rows of its own that are worth a thread's unpacking the weights for itself.
const own_rows_min = 256;

/// A group is some pairs of panels, a part is a run of pairs of row tiles, a task is a group of a part.
pub const Plan = struct {
    /// Blocks of 32 along K.
    steps: usize,
    row_tiles: usize,
    /// Of all products.
    panels: usize,
    group_pairs: usize,
    task_row_pairs: usize,
    parts: usize,
    /// The most parts of products with at most these rows.
    parts_most: usize,
    /// The largest `task_row_pairs` of products with at most these rows: 512 rows in one part have more than 513 in two.
    task_row_pairs_most: usize,

    pub fn init(rows: usize, n: usize, k: usize, products: usize, threads: usize) Plan {
        const row_tiles = divCeil(rows, amx.rows);
        const panels = divCeil(n, packed_weights.panel) * products;
        const pairs = divCeil(panels, 2);
        // A thread that reads rows which it made into tiles itself finds them in its own cache.
        const own_parts = std.math.clamp(rows / own_rows_min, 1, threads);
        // Every group of a part reads its activations, so groups are as wide as leaves two for each thread.
        const group_pairs = widest(pairs * own_parts / (2 * threads), products);
        // Where columns are too few rows are shared out anyhow; every part unpacks the weights again.
        const spare = if (threads == 1) 1 else divCeil(2 * threads, divCeil(pairs, widest(pairs / (2 * threads), products)));
        const parts_most = @max(spare, own_parts, divCeil(rows, task_rows_max));
        const row_pairs = divCeil(row_tiles, 2);
        const task_row_pairs = divCeil(row_pairs, parts_most);
        return .{
            .steps = k / step_k,
            .row_tiles = row_tiles,
            .panels = panels,
            .group_pairs = group_pairs,
            .task_row_pairs = task_row_pairs,
            .parts = divCeil(row_pairs, task_row_pairs), // all of them have rows
            .parts_most = parts_most,
            .task_row_pairs_most = @min(divCeil(row_pairs, spare), task_rows_max / (2 * amx.rows)),
        };
    }

    fn widest(pairs: usize, products: usize) usize {
        return std.math.clamp(pairs / products * products, products, task_columns_max / 32);
    }

    pub fn groups(self: Plan) usize {
        return divCeil(divCeil(self.panels, 2), self.group_pairs);
    }

    /// Activations as tiles: [blocks of steps][pairs of row tiles][steps][tiles of the pair].
    pub fn rowsBytes(self: Plan) usize {
        return self.row_tiles * self.steps * amx.tile_bytes;
    }

    /// The tile of step s and row tile t; the last pair may have one tile only.
    pub fn rowTile(self: Plan, s: usize, t: usize) usize {
        const block = s / block_steps * block_steps;
        const steps = @min(block_steps, self.steps - block);
        const pair_tiles: usize = @min(2, self.row_tiles - t / 2 * 2);
        return (block * self.row_tiles + t / 2 * 2 * steps + (s - block) * pair_tiles + t % 2) * amx.tile_bytes;
    }

    /// Of each thread: weights of a pair of panels as tiles [steps][panels of the pair], the first sums of a group
    /// [panels][16] f32, and the sums of a task [pairs of panels][pairs of row tiles][2][2] tiles.
    pub fn threadBytes(self: Plan, task_row_pairs: usize) usize {
        return weights_bytes + self.startBytes() + self.group_pairs * task_row_pairs * 4 * amx.tile_bytes;
    }

    pub const weights_bytes = block_steps * 2 * amx.tile_bytes;

    pub fn startBytes(self: Plan) usize {
        return self.group_pairs * 2 * amx.row_bytes;
    }
};

/// Hands out the groups of each part, one after the other. A thread begins with the part whose rows it made into tiles,
/// and then helps the others.
pub const Queue = struct {
    /// One for each part, each in a line of the cache of its own.
    counters: [*]align(64) u8,
    plan: *const Plan,
    part: usize,
    finished: usize = 0,

    pub const Task = struct { group: usize, part: usize };

    pub fn bytes(plan: Plan) usize {
        return plan.parts_most * 64;
    }

    pub fn clear(counters: [*]align(64) u8, plan: *const Plan) void {
        @memset(counters[0..bytes(plan.*)], 0);
    }

    pub fn init(counters: [*]align(64) u8, plan: *const Plan, thread: usize, threads: usize) Queue {
        return .{ .counters = counters, .plan = plan, .part = thread * plan.parts / threads };
    }

    pub fn next(self: *Queue) ?Task {
        while (self.finished < self.plan.parts) {
            const counter: *u32 = @ptrCast(@alignCast(self.counters + self.part * 64));
            const group = @atomicRmw(u32, counter, .Add, 1, .monotonic);
            if (group < self.plan.groups()) return .{ .group = group, .part = self.part };
            self.finished += 1;
            self.part = (self.part + 1) % self.plan.parts;
        }
        return null;
    }
};

test "every group of every part is taken once, by whichever threads there are" {
    const gpa = std.testing.allocator;
    const sizes = [_][2]usize{ .{ 17, 1 }, .{ 1024, 1 }, .{ 1024, 2 } };
    for ([_]usize{ 1, 2, 3, 8 }) |threads| for ([_]usize{ 64, 300, 512, 1090 }) |rows| for (sizes) |size| {
        const n, const products = size;
        const plan: Plan = .init(rows, n, 64, products, threads);
        const counters = try gpa.alignedAlloc(u8, .@"64", Queue.bytes(plan));
        defer gpa.free(counters);
        Queue.clear(counters.ptr, &plan);
        const taken = try gpa.alloc(u8, plan.groups() * plan.parts);
        defer gpa.free(taken);
        @memset(taken, 0);
        const last: Queue = .init(counters.ptr, &plan, threads - 1, threads);
        try std.testing.expectEqual(plan.parts - divCeil(plan.parts, threads), last.part);
        try std.testing.expect((plan.parts - 1) * plan.task_row_pairs * 2 < plan.row_tiles); // the last one has rows
        var alone: Queue = .init(counters.ptr, &plan, 0, threads); // the others come too late
        while (alone.next()) |task| taken[task.part * plan.groups() + task.group] += 1;
        for (1..threads) |thread| {
            var late: Queue = .init(counters.ptr, &plan, thread, threads);
            try std.testing.expectEqual(null, late.next());
        }
        for (taken) |times| try std.testing.expectEqual(1, times);
    };
}

pub fn divCeil(a: usize, b: usize) usize {
    return (a + b - 1) / b;
}
