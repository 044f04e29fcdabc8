//! Attention over the paged KV cache, flash-style (Dao 2023): one page of keys and values at a time serves all query rows
//! of a tile, that is all query heads of one kv head for several tokens.
//!
//! The order of every sum is a function of the logical page numbers alone: within a page keys in order; pages are merged
//! into their span (`span_pages` pages, aligned) in order, spans into the result in order. So a query row gives the same
//! bits in any chunk of the prompt, in any tile, and when decoding splits the spans over threads.

const std = @import("std");
const abi = @import("abi");
const Context = @import("context").Context;
const views = @import("views.zig");
const kv = @import("kv_cache.zig");
const tiles_zig = @import("attention_tile.zig");
const integer = @import("attention_i8.zig");
const View = @import("attention_view.zig").View;

const Plan = tiles_zig.Plan;
const Tile = tiles_zig.Tile;
const span_pages = tiles_zig.span_pages;
const split_tokens = tiles_zig.split_tokens;

/// Scratch of every thread, and the spans' partial results of up to `split_tokens` tokens. A program's runs may be too
/// short for int8.
pub fn attention_workspace(cmd: *const abi.Command, threads: u32) callconv(.c) u64 {
    if (!integer.applies(cmd)) return floatWorkspace(cmd, threads);
    var short = cmd.*;
    short.inputs[0].shape[0] = abi.attention_i8_tokens_min - 1;
    return @max(integer.workspace(cmd, threads), floatWorkspace(&short, threads));
}

fn floatWorkspace(cmd: *const abi.Command, threads: u32) u64 {
    var p: Plan = .init(cmd);
    // A program's smaller runs may split, which a run at its largest token count need not.
    const split = if (p.tokens <= split_tokens) p.splitFloats() else blk: {
        p.tokens = split_tokens;
        const floats = p.splitFloats();
        p.tokens = views.dim(&cmd.inputs[0], 0);
        break :blk floats;
    };
    return (threads * p.threadFloats() +| split) *| @sizeOf(f32);
}

/// inputs: q [tokens, heads, head_dim], k_cache, v_cache, pages; outputs: out like q, or q8a [tokens, heads * head_dim];
/// ints: position, window, i8; floats: scale, softcap.
pub fn attention(ctx: *Context, cmd: *const abi.Command) callconv(.c) void {
    if (integer.applies(cmd)) return integer.run(ctx, cmd);
    const q = &cmd.inputs[0];
    const out = &cmd.outputs[0];
    const k: kv.Cache = .init(&cmd.inputs[1], &cmd.inputs[3]);
    const v: kv.Cache = .init(&cmd.inputs[2], &cmd.inputs[3]);
    const view: View = .of(cmd);
    const first = view.firstKey(view.position);
    if (!k.mapped(first, view.position + view.tokens)) return ctx.fail(kv.not_mapped);
    std.debug.assert(ctx.scratch.len >= attention_workspace(cmd, ctx.threads));

    const plan: Plan = .init(cmd);
    const scratch: [*]f32 = @ptrCast(ctx.scratch.ptr);
    var tile: Tile = .init(plan, scratch + ctx.thread * plan.threadFloats());
    tile.k = k;
    tile.v = v;
    tile.view = view;
    tile.softcap = cmd.floats[1];
    const tiles = (plan.tokens + plan.tile_tokens - 1) / plan.tile_tokens;
    tile.stream = .{
        .ctx = ctx,
        .k = k,
        .v = v,
        .tasks = tiles * plan.kv_heads,
        .first = first,
        .end = view.position + view.tokens,
        .walks = tiles == 1 and plan.tokens * plan.group <= tiles_zig.direct_rows,
    };
    // Heads alone keep the threads busy when each has the same number of them.
    const split = tiles == 1 and plan.tokens <= split_tokens and ctx.threads > 1 and plan.kv_heads % ctx.threads != 0;
    if (split) return runSplit(ctx, cmd, &tile, scratch + ctx.threads * plan.threadFloats(), view.position);
    while (tile.stream.begin()) |task| {
        // The last tokens see most keys: longest tasks first.
        const start = (tiles - 1 - task / plan.kv_heads) * plan.tile_tokens;
        const end = @min(plan.tokens, start + plan.tile_tokens);
        tile.begin(q, start, end, task % plan.kv_heads, view.position, cmd.floats[0]);
        tile.total.reset(tile.rows, plan.width);
        for (tile.view.firstPage() / span_pages..tile.view.lastPage() / span_pages + 1) |span| {
            tile.runSpan(span, tile.partial);
            tile.mergeTotal(tile.partial);
        }
        tile.finish(out, start);
    }
}

/// Few tokens, all in one tile: tasks are spans of one kv head; their partial results are merged in order in a second phase.
fn runSplit(ctx: *Context, cmd: *const abi.Command, tile: *Tile, memory: [*]f32, position: usize) void {
    const plan = &tile.plan;
    const rows = plan.tokens * plan.group;
    const floats = plan.stateFloats(rows);
    tile.aim(0, plan.tokens, 0, position);
    const first = tile.view.firstPage() / span_pages;
    const spans = tile.view.lastPage() / span_pages + 1 - first;
    if (ctx.phase == 1) {
        const share = ctx.range(plan.kv_heads, 1);
        for (share.start..share.end) |head| {
            tile.aim(0, plan.tokens, head, position);
            tile.total.reset(rows, plan.width);
            for (0..spans) |s| tile.mergeTotal(.at(memory + (head * spans + s) * floats, rows));
            tile.finish(&cmd.outputs[0], 0);
        }
        return;
    }
    tile.stream.tasks = spans * plan.kv_heads;
    tile.stream.parts = spans;
    tile.stream.part_pages = span_pages;
    var loaded: ?usize = null;
    while (tile.stream.begin()) |task| {
        const head = tile.stream.headOf(task);
        if (loaded != head) tile.begin(&cmd.inputs[0], 0, plan.tokens, head, position, cmd.floats[0]);
        loaded = head;
        tile.runSpan(first + task % spans, .at(memory + task * floats, rows));
    }
    ctx.again();
}

/// Scalar oracle of one query row: `keys` and `values` are the visible rows [n][head_dim], f64 throughout.
pub fn attentionScalar(q: []const f32, keys: []const f32, values: []const f32, scale: f32, softcap: f32, weights: []f64, out: []f64) void {
    const n = keys.len / q.len;
    var largest = -std.math.inf(f64);
    for (0..n) |j| {
        var s: f64 = 0;
        for (q, keys[j * q.len ..][0..q.len]) |a, b| s += @as(f64, a) * b;
        s *= scale;
        if (softcap != 0) s = softcap * std.math.tanh(s / softcap);
        weights[j] = s;
        largest = @max(largest, s);
    }
    var sum: f64 = 0;
    for (weights[0..n]) |*w| {
        w.* = if (largest == -std.math.inf(f64)) 0 else @exp(w.* - largest);
        sum += w.*;
    }
    for (out, 0..) |*y, i| {
        y.* = 0;
        for (0..n) |j| y.* += weights[j] / (if (sum == 0) 1 else sum) * values[j * q.len + i];
    }
}
