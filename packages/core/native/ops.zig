//! The op table: the one list of ops. It drives the native dispatch (a kernel per row, checked at compile time),
//! the generated TypeScript table, `docs/ops.md`, and the conformance suite (a test per row, checked by the type checker).

pub const Arg = struct { name: []const u8, doc: []const u8, optional: bool = false };

pub const Op = struct {
    /// Position in the table plus one; never reused.
    id: u32,
    name: []const u8,
    doc: []const u8,
    inputs: []const Arg,
    outputs: []const Arg,
    ints: []const Arg = &.{},
    floats: []const Arg = &.{},
    /// Inputs whose memory output 0 may share when dtype and shape are equal.
    in_place: []const u32 = &.{},
};

const a = struct {
    const x: Arg = .{ .name = "x", .doc = "f32 [rows..., n]" };
    const out: Arg = .{ .name = "out", .doc = "like x" };
};

fn unary(id: u32, name: []const u8, doc: []const u8) Op {
    return .{ .id = id, .name = name, .doc = doc, .inputs = &.{a.x}, .outputs = &.{a.out}, .in_place = &.{0} };
}

pub const table = [_]Op{
    .{
        .id = 1,
        .name = "copy",
        .doc = "Copies a strided view, converting between f32, f16 and bf16 (round to nearest even); " ++
            "dequantises block dtypes and packed weights to f32.",
        .inputs = &.{.{ .name = "x", .doc = "any strided view, or weights [n, k] in blocks or panel16" }},
        .outputs = &.{.{ .name = "out", .doc = "same shape, strided" }},
    },
    .{
        .id = 2,
        .name = "add",
        .doc = "a + b; b is broadcast along leading dims.",
        .inputs = &.{
            .{ .name = "a", .doc = "f32 [..., n]" },
            .{ .name = "b", .doc = "f32, shape of a, or its trailing dims" },
        },
        .outputs = &.{.{ .name = "out", .doc = "like a" }},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 3,
        .name = "mul",
        .doc = "a * b; b is broadcast along leading dims.",
        .inputs = &.{
            .{ .name = "a", .doc = "f32 [..., n]" },
            .{ .name = "b", .doc = "f32, shape of a, or its trailing dims" },
        },
        .outputs = &.{.{ .name = "out", .doc = "like a" }},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 4,
        .name = "mul_const",
        .doc = "x * value.",
        .inputs = &.{a.x},
        .outputs = &.{a.out},
        .floats = &.{.{ .name = "value", .doc = "factor" }},
        .in_place = &.{0},
    },
    unary(5, "silu", "x * sigmoid(x)."),
    unary(6, "gelu_tanh", "GELU, tanh form: 0.5x(1 + tanh(sqrt(2/pi)(x + 0.044715x^3)))."),
    unary(7, "gelu_erf", "GELU, exact form: 0.5x(1 + erf(x/sqrt(2)))."),
    unary(8, "quick_gelu", "x * sigmoid(1.702x)."),
    unary(9, "sigmoid", "1 / (1 + exp(-x))."),
    unary(10, "relu", "max(x, 0)."),
    unary(11, "relu2", "max(x, 0)^2."),
    unary(12, "tanh", "tanh(x)."),
    unary(13, "softplus", "log(1 + exp(x))."),
    unary(14, "exp", "exp(x)."),
    .{
        .id = 15,
        .name = "softcap",
        .doc = "cap * tanh(x / cap).",
        .inputs = &.{a.x},
        .outputs = &.{a.out},
        .floats = &.{.{ .name = "cap", .doc = "bound of the result" }},
        .in_place = &.{0},
    },
    .{
        .id = 16,
        .name = "swiglu",
        .doc = "silu(gate) * up; the same bits as silu then mul.",
        .inputs = &.{ .{ .name = "gate", .doc = "f32 [..., n]" }, .{ .name = "up", .doc = "like gate" } },
        .outputs = &.{.{ .name = "out", .doc = "like gate" }},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 17,
        .name = "geglu_tanh",
        .doc = "gelu_tanh(gate) * up.",
        .inputs = &.{ .{ .name = "gate", .doc = "f32 [..., n]" }, .{ .name = "up", .doc = "like gate" } },
        .outputs = &.{.{ .name = "out", .doc = "like gate" }},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 18,
        .name = "rmsnorm",
        .doc = "x / sqrt(mean(x^2) + eps) * (weight + offset) along the last dim (Zhang & Sennrich 2019; " ++
            "offset 1 for Gemma).",
        .inputs = &.{ a.x, .{ .name = "weight", .doc = "f32 [n]" } },
        .outputs = &.{a.out},
        .floats = &.{
            .{ .name = "eps", .doc = "added to the mean square" },
            .{ .name = "offset", .doc = "added to the weight" },
        },
        .in_place = &.{0},
    },
    .{
        .id = 19,
        .name = "rmsnorm_residual",
        .doc = "sum = x + residual; out = rmsnorm(sum): the same bits as add then rmsnorm.",
        .inputs = &.{ a.x, .{ .name = "residual", .doc = "like x" }, .{ .name = "weight", .doc = "f32 [n]" } },
        .outputs = &.{ .{ .name = "sum", .doc = "like x" }, a.out },
        .floats = &.{
            .{ .name = "eps", .doc = "added to the mean square" },
            .{ .name = "offset", .doc = "added to the weight" },
        },
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 20,
        .name = "layernorm",
        .doc = "(x - mean) / sqrt(var + eps) * weight + bias along the last dim, biased variance.",
        .inputs = &.{
            a.x,
            .{ .name = "weight", .doc = "f32 [n]" },
            .{ .name = "bias", .doc = "f32 [n]", .optional = true },
        },
        .outputs = &.{a.out},
        .floats = &.{.{ .name = "eps", .doc = "added to the variance" }},
        .in_place = &.{0},
    },
    .{
        .id = 21,
        .name = "l2norm",
        .doc = "x / max(|x|, eps) along the last dim.",
        .inputs = &.{a.x},
        .outputs = &.{a.out},
        .floats = &.{.{ .name = "eps", .doc = "least norm" }},
        .in_place = &.{0},
    },
    .{
        .id = 22,
        .name = "softmax",
        .doc = "softmax(scale * x) along the last dim; a row of -inf gives zeros.",
        .inputs = &.{a.x},
        .outputs = &.{a.out},
        .floats = &.{.{ .name = "scale", .doc = "factor before the softmax" }},
        .in_place = &.{0},
    },
    .{
        .id = 23,
        .name = "causal_softmax",
        .doc = "softmax along the last dim where key j is visible to query i iff j <= i + offset; hidden keys give 0.",
        .inputs = &.{.{ .name = "x", .doc = "f32 [..., queries, keys]" }},
        .outputs = &.{a.out},
        .ints = &.{.{ .name = "offset", .doc = "position of query 0" }},
        .floats = &.{.{ .name = "scale", .doc = "factor before the softmax" }},
        .in_place = &.{0},
    },
    .{
        .id = 24,
        .name = "log_softmax",
        .doc = "x - logsumexp(x) along the last dim.",
        .inputs = &.{a.x},
        .outputs = &.{a.out},
        .in_place = &.{0},
    },
    .{
        .id = 25,
        .name = "cross_entropy",
        .doc = "-log_softmax(x)[target] of each row.",
        .inputs = &.{ .{ .name = "x", .doc = "f32 [rows, n]" }, .{ .name = "target", .doc = "i32 [rows]" } },
        .outputs = &.{.{ .name = "out", .doc = "f32 [rows]" }},
    },
    .{
        .id = 26,
        .name = "argmax",
        .doc = "Index of the largest element of each row, the lowest at a tie; NaN counts as smaller than " ++
            "every number.",
        .inputs = &.{.{ .name = "x", .doc = "f32 [rows, n]" }},
        .outputs = &.{.{ .name = "out", .doc = "i32 [rows]" }},
    },
    .{
        .id = 27,
        .name = "topk",
        .doc = "The k largest of each row in descending order, ties by lower index.",
        .inputs = &.{.{ .name = "x", .doc = "f32 [rows, n]" }},
        .outputs = &.{
            .{ .name = "values", .doc = "f32 [rows, k]" },
            .{ .name = "indices", .doc = "i32 [rows, k]" },
        },
    },
    .{
        .id = 28,
        .name = "embedding",
        .doc = "Rows of a table as f32; reads the packed weights of a tied head too.",
        .inputs = &.{
            .{ .name = "ids", .doc = "i32 [tokens]" },
            .{ .name = "table", .doc = "weights [n, k], strided (f32, f16, bf16 or blocks) or panel16" },
        },
        .outputs = &.{.{ .name = "out", .doc = "f32 [tokens, k]; an id outside 0..n-1 fails the command" }},
    },
    .{
        .id = 29,
        .name = "take_rows",
        .doc = "Copies `count` rows of x from row `start` on.",
        .inputs = &.{.{ .name = "x", .doc = "f32 [rows, n]" }},
        .outputs = &.{.{ .name = "out", .doc = "f32 [count, n]" }},
        .ints = &.{.{ .name = "start", .doc = "first row" }},
    },
    .{
        .id = 30,
        .name = "rope",
        .doc = "Rotary embedding (Su et al. 2021): pairs (2i, 2i+1) when interleaved, else (i, i + " ++
            "rotary/2), turned by (position + t) * inv_freq[i] and multiplied by scale; dims from " ++
            "2*len(inv_freq) on are copied. Angles are reduced in f64.",
        .inputs = &.{
            .{ .name = "x", .doc = "f32 [tokens, heads, head_dim], any strides" },
            .{ .name = "inv_freq", .doc = "f32 [rotary/2]" },
            .{ .name = "positions", .doc = "i32 [tokens]; absent: position + t", .optional = true },
        },
        .outputs = &.{a.out},
        .ints = &.{
            .{ .name = "position", .doc = "position of token 0" },
            .{ .name = "interleaved", .doc = "0 halves, 1 interleaved" },
        },
        .floats = &.{.{ .name = "scale", .doc = "attention factor (YaRN), else 1" }},
        .in_place = &.{0},
    },
    .{
        .id = 31,
        .name = "quantize_rows",
        .doc = "Quantises activations to int8 in blocks of 32: scale = max|x| / 127, code = round to nearest " ++
            "even(x / scale).",
        .inputs = &.{.{ .name = "x", .doc = "f32 [rows, k], k divides by 32" }},
        .outputs = &.{.{ .name = "out", .doc = "q8a [rows, k]" }},
    },
    .{
        .id = 32,
        .name = "pack_weight",
        .doc = "Packs weights into the panel16 layout of kernels/packed.zig.",
        .inputs = &.{.{ .name = "w", .doc = "weights [n, k], strided f32, f16, bf16 or blocks" }},
        .outputs = &.{.{ .name = "out", .doc = "panel16 [n, k]" }},
    },
    .{
        .id = 33,
        .name = "linear",
        .doc = "x @ w^T + bias. x q8a: integer dot products per block; x f32: weights are widened, nothing " ++
            "is rounded. A row's bits depend neither on the number of rows nor on the threads.",
        .inputs = &.{
            .{ .name = "x", .doc = "f32 or q8a [rows, k]" },
            .{ .name = "w", .doc = "panel16 [n, k]" },
            .{ .name = "bias", .doc = "f32 [n]", .optional = true },
        },
        .outputs = &.{.{ .name = "out", .doc = "f32 [rows, n]" }},
    },
    .{
        .id = 34,
        .name = "matmul",
        .doc = "a @ b, batched along leading dims, any strides.",
        .inputs = &.{ .{ .name = "a", .doc = "f32 [..., m, k]" }, .{ .name = "b", .doc = "f32 [..., k, n]" } },
        .outputs = &.{.{ .name = "out", .doc = "f32 [..., m, n]" }},
    },
    .{
        .id = 35,
        .name = "kv_append",
        .doc = "Writes rows into the paged cache at `position`, converting to its dtype.",
        .inputs = &.{
            .{ .name = "x", .doc = "f32 [tokens, kv_heads, head_dim], any strides" },
            .{ .name = "pages", .doc = "i32 [logical pages] -> physical page" },
        },
        .outputs = &.{.{ .name = "cache", .doc = "f32 or f16 [physical pages, kv_heads, page_size, head_dim]" }},
        .ints = &.{.{ .name = "position", .doc = "position of token 0" }},
    },
    .{
        .id = 36,
        .name = "attention",
        .doc = "softmax(scale * q k^T) v over the cache, causal: query t sees keys j with j <= position + t, " ++
            "and with a window also j > position + t - window. Query head h reads kv head h / (heads / " ++
            "kv_heads). Flash-style over one page at a time (Dao 2023), so a row's bits depend neither on " ++
            "the chunking nor on the threads.",
        .inputs = &.{
            .{ .name = "q", .doc = "f32 [tokens, heads, head_dim], any strides" },
            .{ .name = "k_cache", .doc = "f32 or f16 [physical pages, kv_heads, page_size, head_dim]" },
            .{ .name = "v_cache", .doc = "like k_cache" },
            .{ .name = "pages", .doc = "i32 [logical pages]" },
        },
        .outputs = &.{.{ .name = "out", .doc = "f32 [tokens, heads, head_dim]" }},
        .ints = &.{
            .{ .name = "position", .doc = "position of query 0" },
            .{ .name = "window", .doc = "sliding window; 0 for none" },
        },
        .floats = &.{
            .{ .name = "scale", .doc = "factor of the scores" },
            .{ .name = "softcap", .doc = "cap*tanh(score/cap) before the softmax; 0 for none" },
        },
    },
};

comptime {
    for (table, 1..) |op, id| if (op.id != id) @compileError("op id out of order: " ++ op.name);
}
