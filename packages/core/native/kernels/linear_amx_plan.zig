//! How linear_amx.zig cuts a product into tasks, and which thread takes which.

const std = @import("std");
const amx = @import("amx.zig");
const context = @import("context");
const packed_weights = @import("packed.zig");

const Range = context.Context.Range;

/// Elements of K in a row of a tile of activations: one block of q8a.
pub const step_k = 32;
/// Steps before the sums go to scratch: as many as leave the weights of two panels, 32 KiB, in the first cache.
pub const block_steps = 16;
/// Most rows of a task: with K = 1024 their activations and sums leave room in the second cache for what is written.
const task_rows_max = 384;
/// Most columns of a task.
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
    row_pairs: usize,
    /// Of the longest part.
    task_row_pairs: usize,
    parts: usize,
    /// The most parts of products with at most these rows.
    parts_most: usize,
    /// The largest `task_row_pairs` of products with at most these rows: 384 rows in one part have more than 385 in two.
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
        const parts_most = @max(spare, own_parts * divCeil(rows, own_parts * task_rows_max));
        const row_pairs = divCeil(row_tiles, 2);
        const parts = @min(parts_most, row_pairs); // all of them have rows
        const task_row_pairs = divCeil(row_pairs, parts);
        const task_row_pairs_most = @min(divCeil(row_pairs, spare), task_rows_max / (2 * amx.rows));
        std.debug.assert(task_row_pairs <= task_row_pairs_most);
        return .{
            .steps = k / step_k,
            .row_tiles = row_tiles,
            .panels = panels,
            .group_pairs = group_pairs,
            .row_pairs = row_pairs,
            .task_row_pairs = task_row_pairs,
            .parts = parts,
            .parts_most = parts_most,
            .task_row_pairs_most = task_row_pairs_most,
        };
    }

    fn widest(pairs: usize, products: usize) usize {
        return std.math.clamp(pairs / products * products, products, task_columns_max / 32);
    }

    pub fn groups(self: Plan) usize {
        return divCeil(divCeil(self.panels, 2), self.group_pairs);
    }

    pub fn groupPanels(self: Plan, group: usize) Range {
        const first = group * self.group_pairs * 2;
        return .{ .start = first, .end = @min(self.panels, first + self.group_pairs * 2) };
    }

    pub fn rowTiles(self: Plan, part: usize) Range {
        const first = self.row_pairs * part / self.parts * 2;
        const end = self.row_pairs * (part + 1) / self.parts * 2;
        return .{ .start = first, .end = @min(self.row_tiles, end) };
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

/// Hands out the groups of each part, one after the other. A thread begins with its `firstPart` and goes round through all, its
/// own before those of others. The rows of a later part become tiles when a thread comes to it, so that they are in its second
/// cache when it multiplies them. Threads that find nothing else to do wait for the rows that another one has in work, for it is
/// at them at that moment, and take their share of the products; but not for long: it may have lost its processor.
pub const Queue = struct {
    states: []State,
    plan: *const Plan,
    part: usize,

    /// Of a part.
    const State = struct {
        next_group: std.atomic.Value(u32) align(64),
        rows: std.atomic.Value(Rows),

        const Rows = enum(u8) { plain, in_work, tiles };

        /// Whether the caller is the one to make them into tiles.
        fn claimRows(state: *State) bool {
            if (state.rows.load(.monotonic) != .plain) return false; // threads that wait only read
            return state.rows.cmpxchgStrong(.plain, .in_work, .acquire, .monotonic) == null;
        }
    };

    pub const Task = union(enum) {
        /// The part whose rows have to become tiles; `setTiles` then.
        rows: usize,
        product: struct { group: usize, part: usize },
    };

    pub fn bytes(plan: Plan) usize {
        return plan.parts_most * @sizeOf(State);
    }

    /// The part that a thread begins with, of which threads that are more than the parts share one: its rows are tiles before
    /// the queue is asked.
    pub fn firstPart(plan: *const Plan, thread: usize, threads: usize) usize {
        return thread * plan.parts / threads;
    }

    fn statesIn(memory: [*]align(64) u8, plan: *const Plan) []State {
        return @as([*]State, @ptrCast(memory))[0..plan.parts];
    }

    pub fn clear(memory: [*]align(64) u8, plan: *const Plan, threads: usize) void {
        const states = statesIn(memory, plan);
        for (states) |*state| state.* = .{ .next_group = .init(0), .rows = .init(.plain) };
        for (0..threads) |thread| states[firstPart(plan, thread, threads)].rows.raw = .tiles;
    }

    pub fn init(memory: [*]align(64) u8, plan: *const Plan, thread: usize, threads: usize) Queue {
        return .{ .states = statesIn(memory, plan), .plan = plan, .part = firstPart(plan, thread, threads) };
    }

    /// Rounds through all parts for each tile of rows, one step of it, that may be in work: together some times as long as a
    /// part's rows take.
    const rounds_per_tile = 4;

    pub fn next(self: *Queue) ?Task {
        for (0..self.plan.task_row_pairs * 2 * self.plan.steps * rounds_per_tile) |_| {
            var are_in_work = false;
            for (0..self.plan.parts) |_| {
                const state = &self.states[self.part];
                if (state.rows.load(.acquire) == .tiles) {
                    if (self.takeGroup(state)) |group| return .{ .product = .{ .group = group, .part = self.part } };
                } else {
                    if (state.claimRows()) return .{ .rows = self.part };
                    are_in_work = true;
                }
                self.part = (self.part + 1) % self.plan.parts;
            }
            if (!are_in_work) break;
            std.atomic.spinLoopHint();
        }
        return null;
    }

    fn takeGroup(self: *const Queue, state: *State) ?usize {
        const groups = self.plan.groups();
        if (state.next_group.load(.monotonic) >= groups) return null;
        const group = state.next_group.fetchAdd(1, .monotonic);
        return if (group < groups) group else null;
    }

    pub fn setTiles(self: *Queue, part: usize) void {
        self.states[part].rows.store(.tiles, .release);
    }
};

test "every group of every part is taken once and its rows become tiles once, by whichever threads there are" {
    const gpa = std.testing.allocator;
    const sizes = [_][2]usize{ .{ 17, 1 }, .{ 1024, 1 }, .{ 1024, 2 } };
    for ([_]usize{ 1, 2, 3, 8 }) |threads| for ([_]usize{ 64, 300, 512, 1090, 4096 }) |rows| for (sizes) |size| {
        const n, const products = size;
        const plan: Plan = .init(rows, n, 64, products, threads);
        const memory = try gpa.alignedAlloc(u8, .@"64", Queue.bytes(plan));
        defer gpa.free(memory);
        Queue.clear(memory.ptr, &plan, threads);
        const taken = try gpa.alloc(u8, plan.groups() * plan.parts);
        defer gpa.free(taken);
        @memset(taken, 0);
        const tiles = try gpa.alloc(u8, plan.parts);
        defer gpa.free(tiles);
        @memset(tiles, 0);
        for (0..threads) |thread| tiles[Queue.firstPart(&plan, thread, threads)] = 1;
        const last: Queue = .init(memory.ptr, &plan, threads - 1, threads);
        try std.testing.expectEqual(plan.parts - divCeil(plan.parts, threads), last.part);
        var end: usize = 0;
        for (0..plan.parts) |part| {
            const some = plan.rowTiles(part);
            try std.testing.expectEqual(end, some.start);
            try std.testing.expect(some.end > some.start and some.end - some.start <= 2 * plan.task_row_pairs);
            end = some.end;
        }
        try std.testing.expectEqual(plan.row_tiles, end);
        if (plan.parts > threads) try std.testing.expect(plan.parts % threads == 0 or n == 17); // else some have more to do
        var alone: Queue = .init(memory.ptr, &plan, 0, threads); // the others come too late
        while (alone.next()) |task| switch (task) {
            .rows => |part| {
                tiles[part] += 1;
                alone.setTiles(part);
            },
            .product => |product| {
                try std.testing.expectEqual(1, tiles[product.part]);
                taken[product.part * plan.groups() + product.group] += 1;
            },
        };
        for (1..threads) |thread| {
            var late: Queue = .init(memory.ptr, &plan, thread, threads);
            try std.testing.expectEqual(null, late.next());
        }
        for (taken) |times| try std.testing.expectEqual(1, times);
        for (tiles) |times| try std.testing.expectEqual(1, times);
    };
}

test "rows that another thread makes into tiles are waited for, but not for ever, and their products shared" {
    const plan: Plan = .init(2 * task_rows_max, 1024, 64, 1, 1); // two parts for one thread
    try std.testing.expectEqual(2, plan.parts);
    var memory: [2 * @sizeOf(Queue.State)]u8 align(64) = undefined;
    Queue.clear(&memory, &plan, 1);
    var first: Queue = .init(&memory, &plan, 0, 1);
    for (0..plan.groups()) |_| try std.testing.expectEqual(0, first.next().?.product.part);
    try std.testing.expectEqual(Queue.Task{ .rows = 1 }, first.next());
    var other: Queue = .init(&memory, &plan, 0, 1);
    try std.testing.expectEqual(null, other.next());
    first.setTiles(1);
    for (0..plan.groups()) |i| try std.testing.expectEqual(1, (if (i % 2 == 0) &first else &other).next().?.product.part);
    try std.testing.expectEqual(null, first.next());
    try std.testing.expectEqual(null, other.next());
}

pub fn divCeil(a: usize, b: usize) usize {
    return (a + b - 1) / b;
}
