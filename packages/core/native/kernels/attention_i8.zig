//! Attention of many queries in int8: pages of the cache are brought into int8 once, in a first phase; then tiles of query
//! rows pass over them. See attention_i8_page.zig for the pages and attention_i8_dot.zig for the sums.
//!
//! A row's bits depend on the row, its keys and values, and on their pages, merged in order: neither on the tile, nor on
//! threads, nor on how many queries there are (from `abi.attention_i8_tokens_min` on, where this begins).

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const simd = @import("simd.zig");
const views = @import("views.zig");
const hadamard = @import("hadamard.zig");
const gemm = @import("gemm.zig");
const kv = @import("kv_cache.zig");
const kv_page = @import("kv_page.zig");
const transposing = @import("transpose.zig");
const dots = @import("attention_i8_dot.zig");
const i8_page = @import("attention_i8_page.zig");
const view_zig = @import("attention_view.zig");

const Page = i8_page.Page;
const Shape = i8_page.Shape;
const State = view_zig.State;
const View = view_zig.View;
const padded = view_zig.padded;

/// Pages whose references meet the queries together.
const batch = 8;

/// Queries that are made ready together: whole vectors at every level.
const some = 16;

/// Largest page: its keys share the steps of a row's weights, and those below half a step count in the divisor alone.
pub const page_size_max = 128;

/// Whether this command multiplies in int8.
pub fn applies(cmd: *const abi.Command) bool {
    const fits = views.dim(&cmd.inputs[0], 0) >= abi.attention_i8_tokens_min and views.dim(&cmd.inputs[1], 2) <= page_size_max;
    return cmd.ints[2] == 1 and fits;
}

/// Sizes that follow from a command's shapes, in elements.
const Plan = struct {
    tokens: usize,
    group: usize,
    kv_heads: usize,
    /// Of the page table.
    pages: usize,
    shape: Shape,
    tile_tokens: usize,
    tile_rows: usize,

    fn init(cmd: *const abi.Command) Plan {
        const q = &cmd.inputs[0];
        const cache = &cmd.inputs[1];
        const kv_heads = views.dim(cache, 1);
        const group = views.dim(q, 1) / kv_heads;
        const head_dim = views.dim(q, 2);
        // Results of the rows stay in the first-level cache, and no row of a register tile is idle.
        const most = @max(1, std.math.clamp(6144 / head_dim, 24, 96) / group);
        const tile_tokens = @min(if (most > 6) most / 6 * 6 else most, views.dim(q, 0));
        return .{
            .tokens = views.dim(q, 0),
            .group = group,
            .kv_heads = kv_heads,
            .pages = views.dim(&cmd.inputs[3], 0),
            .shape = .init(views.dim(cache, 2), head_dim),
            .tile_tokens = tile_tokens,
            .tile_rows = tile_tokens * group,
        };
    }

    fn pageFloats(p: *const Plan) usize {
        // Saturating: nothing bounds what a page table claims but that no memory is as large.
        return p.kv_heads *| p.pages *| p.shape.floats();
    }

    fn threadFloats(p: *const Plan) usize {
        return State.floats(p.tile_rows, p.shape.width) + view_zig.floatsOf(&p.parts());
    }

    /// Floats of the scratch arrays of a tile, by the names of its fields.
    fn parts(p: *const Plan) [scratch_fields.len]usize {
        const rows = p.tile_rows;
        const s = p.shape;
        return .{
            // maker_rows, maker_codes
            i8_page.Maker.rowFloats(s),
            i8_page.Maker.codeFloats(s),
            // q, turned, codes, scales, starts, commons
            some * s.width,
            padded(rows) * s.width,
            rows * s.width / 4,
            rows,
            rows,
            batch * padded(rows),
            // scores, weights, max, sum, keep, gain, low, high
            dots.rows_max * s.keys,
            rows * s.keys / 4,
            rows,
            rows,
            rows,
            rows,
            rows,
            rows,
        };
    }
};

pub fn workspace(cmd: *const abi.Command, threads: u32) u64 {
    const p: Plan = .init(cmd);
    return (p.pageFloats() +| threads * p.threadFloats()) *| @sizeOf(f32);
}

const no_logs: [page_size_max]f32 align(64) = @splat(0);

const scratch_fields = .{
    "maker_rows", "maker_codes", "q",   "turned", "codes", "scales", "starts", "commons",
    "scores",     "weights",     "max", "sum",    "keep",  "gain",   "low",    "high",
};

const Tile = struct {
    plan: Plan,
    view: View,
    rows: usize,
    softcap: f32,
    /// All pages, [pages][kv_heads]: memory beyond those that are seen is never touched.
    pages: [*]f32,
    // Scratch; Plan.parts has the sizes.
    maker_rows: [*]f32,
    maker_codes: [*]i8,
    /// Rows times scale, rotated: some [some][W]; and all [W][rows padded].
    q: [*]f32,
    turned: [*]f32,
    codes: [*]i8,
    scales: [*]f32,
    starts: [*]i32,
    /// q · reference of some pages [batch][rows padded].
    commons: [*]f32,
    scores: [*]f32,
    weights: [*]u8,
    /// Of the page, per row: largest score, sum of weights, factors of the merge, visible keys.
    max: [*]f32,
    sum: [*]f32,
    keep: [*]f32,
    gain: [*]f32,
    low: [*]u32,
    high: [*]u32,
    total: State,

    fn init(plan: Plan, pages: [*]f32, memory: [*]f32) Tile {
        var t: Tile = undefined;
        t.plan = plan;
        t.pages = pages;
        t.total = .at(view_zig.place(&t, scratch_fields, plan.parts(), memory), plan.tile_rows);
        return t;
    }

    fn pageAt(t: *const Tile, head: usize, page: usize) [*]f32 {
        return t.pages + (page * t.plan.kv_heads + head) * t.plan.shape.floats();
    }

    /// Takes on the query rows of tokens first … first+count-1.
    fn begin(t: *Tile, q: *const abi.TensorDesc, first: usize, scale: f32) void {
        const s = t.plan.shape;
        var start: usize = 0;
        while (start < t.rows) : (start += some) {
            const count = @min(some, t.rows - start);
            for (0..count, start..) |i, r| {
                const row = t.q + i * s.width;
                t.view.readQuery(q, first, r, scale, row[0..s.head_dim]);
                @memset(row[s.head_dim..s.width], 0);
                hadamard.rotate(row, s.head_dim);
                const quantised = i8_page.quantise(row, s.width, t.codes + r * s.width);
                t.scales[r] = quantised.scale;
                t.starts[r] = dots.startOf(quantised.sum);
            }
            transposing.transpose(f32, t.q, count, s.width, t.turned + start, padded(t.rows));
        }
        t.total.reset(t.rows, s.width);
    }

    fn run(t: *const Tile) void {
        const s = t.plan.shape;
        const stride = padded(t.rows);
        const end = t.view.lastPage() + 1;
        var page = t.view.firstPage();
        while (page < end) {
            const last = @min(end, page + batch);
            const references = t.pageAt(t.view.head, page);
            const apart = t.plan.kv_heads * s.floats();
            gemm.multiply(f32, .zero, last - page, simd.roundUp(t.rows), s.width, references, apart, t.turned, stride, t.commons, stride);
            for (page..last, 0..) |each, i| t.runPage(each, t.commons + i * stride);
            page = last;
        }
    }

    fn runPage(t: *const Tile, number: usize, commons: [*]const f32) void {
        const page: Page = .at(t.plan.shape, t.pageAt(t.view.head, number));
        t.view.look(number, t.low, t.high);
        var r: usize = 0;
        while (r < t.rows) : (r += dots.rows_max) {
            const rows = t.part(r, &page, commons);
            switch (@min(dots.rows_max, t.rows - r)) {
                inline 1...dots.rows_max => |count| dots.weigh(count, page, &rows),
                else => unreachable,
            }
        }
        for (t.max[0..t.rows], commons) |*max, common| {
            max.* = (if (t.softcap == 0) max.* + common else max.*) * (1.0 / i8_page.log2e);
        }
        t.total.absorb(t.max, t.sum, 0, t.rows, t.keep, t.gain);
        r = 0;
        while (r < t.rows) : (r += dots.rows_max) {
            const rows = t.part(r, &page, commons);
            const acc = t.total.acc + r * t.plan.shape.width;
            switch (@min(dots.rows_max, t.rows - r)) {
                inline 1...dots.rows_max => |count| dots.sum(count, page, &rows, t.keep + r, t.gain + r, acc),
                else => unreachable,
            }
        }
    }

    /// The rows of a register tile.
    fn part(t: *const Tile, r: usize, page: *const Page, commons: [*]const f32) dots.Rows {
        const s = t.plan.shape;
        return .{
            .shape = s,
            .queries = t.codes + r * s.width,
            .query_scales = t.scales + r,
            .query_starts = t.starts + r,
            .commons = commons + r,
            .softcap = t.softcap,
            .logs = if (t.softcap == 0) page.value_logs else &no_logs,
            .low = t.low + r,
            .high = t.high + r,
            .scores = t.scores,
            .weights = t.weights + r * s.keys,
            .max = t.max + r,
            .sum = t.sum + r,
        };
    }
};

/// The op `attention` in two phases: pages, then tiles.
pub fn run(ctx: *Context, cmd: *const abi.Command, view: View, k: kv.Cache, v: kv.Cache) void {
    const plan: Plan = .init(cmd);
    const scratch: [*]f32 = @ptrCast(ctx.scratch.ptr);
    var tile: Tile = .init(plan, scratch, scratch + plan.pageFloats() + ctx.thread * plan.threadFloats());
    tile.softcap = cmd.floats[1] * i8_page.log2e;
    tile.view = view;
    if (ctx.phase == 0) return makePages(ctx, &tile, k, v);
    const tiles = (plan.tokens + plan.tile_tokens - 1) / plan.tile_tokens;
    while (true) {
        const task = ctx.take();
        if (task >= tiles * plan.kv_heads) return;
        // The last tokens see most keys: longest tasks first.
        const start = (tiles - 1 - task / plan.kv_heads) * plan.tile_tokens;
        tile.view.head = task % plan.kv_heads;
        tile.view.position = view.position + start;
        tile.view.tokens = @min(plan.tokens - start, plan.tile_tokens);
        tile.rows = tile.view.rows();
        tile.begin(&cmd.inputs[0], start, cmd.floats[0] * i8_page.log2e);
        tile.run();
        tile.view.finish(tile.total, plan.shape.width, true, &cmd.outputs[0], start);
    }
}

/// All pages that some query sees; a task is a page of a head.
fn makePages(ctx: *Context, t: *const Tile, k: kv.Cache, v: kv.Cache) void {
    const s = t.plan.shape;
    const maker: i8_page.Maker = .{ .shape = s, .k = k, .v = v, .rows = t.maker_rows, .codes = t.maker_codes };
    const first = t.view.firstPage();
    const count = t.view.lastPage() + 1 - first;
    const end = t.view.position + t.view.tokens;
    while (true) {
        const task = ctx.take();
        if (task >= count * t.plan.kv_heads) return ctx.again();
        const head = task / count;
        const page = first + task % count;
        const live = @min(s.page_size, end - page * s.page_size);
        maker.make(.at(s, t.pageAt(head, page)), page, head, live);
    }
}
