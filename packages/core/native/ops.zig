//! The op table: the one list of ops. It drives the native dispatch (a kernel per row, checked at compile time), what the
//! native boundary accepts (runtime/rules.zig), the shape inference of TypeScript, `docs/ops.md`, and the conformance
//! suite (a test per row, checked by the type checker).

const std = @import("std");

/// How the elements of an operand must lie: anyhow, with the last dim contiguous, or row-major without gaps.
pub const Order = enum { any, rows, dense };

/// An input or output. `form` says what it must be, in words that people and `parse` read: dtypes, shape, order, and after a
/// `;` what else there is to say, as in `f32|q8a [rows, k] rows; f32 for float weights`.
pub const Operand = struct { name: []const u8, form: []const u8, optional: bool = false };

/// An int or a float.
pub const Arg = struct { name: []const u8, doc: []const u8 };

pub const Op = struct {
    /// Position in the table plus one; never reused.
    id: u32,
    name: []const u8,
    doc: []const u8,
    inputs: []const Operand,
    outputs: []const Operand,
    ints: []const Arg = &.{},
    floats: []const Arg = &.{},
    /// Inputs whose memory output 0 may share when dtype, shape and strides are equal. Any other overlap is refused.
    in_place: []const u32 = &.{},
};

/// The parts of a form.
pub const Form = struct {
    /// Up to the `;`, and behind it.
    text: []const u8,
    doc: []const u8,
    /// Dtypes by name, or a class: `float` (f32, f16, bf16), `weights` (float, or blocks as files have them),
    /// `packed` (weights in panel16 layout), `keys` and `values` (pages of a quantised cache in the layouts kv_keys and
    /// kv_values), `any` (whatever has a strided form).
    dtypes: Words = .{},
    /// Names of the dims, the last ones when `leading`. Dims of one name are equal in all operands of a command.
    dims: Words = .{},
    /// `[...`: any dims before the named ones, equal in all operands that say so.
    leading: bool = false,
    /// `[?]`: any shape; what it must fit is a rule of the op.
    free: bool = false,
    order: Order = .any,
};

pub const Words = struct {
    buffer: [4][]const u8 = undefined,
    len: usize = 0,

    fn append(self: *Words, word: []const u8) void {
        self.buffer[self.len] = word;
        self.len += 1;
    }

    pub fn slice(self: *const Words) []const []const u8 {
        return self.buffer[0..self.len];
    }
};

/// Takes a form apart; what is no form is a programming error.
pub fn parse(form: []const u8) Form {
    const end = std.mem.indexOfScalar(u8, form, ';') orelse form.len;
    var parsed: Form = .{ .text = form[0..end], .doc = std.mem.trim(u8, form[end..], "; ") };
    const open = std.mem.indexOfScalar(u8, parsed.text, '[').?;
    const close = std.mem.indexOfScalar(u8, parsed.text, ']').?;
    var dtypes = std.mem.splitScalar(u8, std.mem.trim(u8, parsed.text[0..open], " "), '|');
    while (dtypes.next()) |dtype| parsed.dtypes.append(dtype);
    var dims = std.mem.splitSequence(u8, parsed.text[open + 1 .. close], ", ");
    while (dims.next()) |dim| {
        if (std.mem.eql(u8, dim, "...")) {
            parsed.leading = true;
        } else if (std.mem.eql(u8, dim, "?")) {
            parsed.free = true;
        } else parsed.dims.append(dim);
    }
    const order = std.mem.trim(u8, parsed.text[close + 1 ..], " ");
    if (order.len > 0) parsed.order = std.meta.stringToEnum(Order, order).?;
    return parsed;
}

const x_any: Operand = .{ .name = "x", .form = "f32 [...]" };
const x_row: Operand = .{ .name = "x", .form = "f32 [..., n]" };
const out_any: Operand = .{ .name = "out", .form = "f32 [...]" };
const out_row: Operand = .{ .name = "out", .form = "f32 [..., n]" };
const out_rows: Operand = .{ .name = "out", .form = "f32|q8a [..., n]; q8a: the bits of quantize_rows of the f32 result" };

fn unary(id: u32, name: []const u8, doc: []const u8) Op {
    return .{ .id = id, .name = name, .doc = doc, .inputs = &.{x_any}, .outputs = &.{out_any}, .in_place = &.{0} };
}

pub const table = [_]Op{
    .{
        .id = 1,
        .name = "copy",
        .doc = "Copies a strided view, converting between f32, f16 and bf16 (round to nearest even); " ++
            "dequantises block dtypes, packed weights and quantised caches to f32.",
        .inputs = &.{.{ .name = "x", .form = "any|packed|keys|values [...]; what is quantised gives f32" }},
        .outputs = &.{.{ .name = "out", .form = "any [...]; of the dtype of x, or a float when x is one" }},
    },
    .{
        .id = 2,
        .name = "add",
        .doc = "a + b; b is broadcast along leading dims.",
        .inputs = &.{
            .{ .name = "a", .form = "f32 [...]" },
            .{ .name = "b", .form = "f32 [?]; shape of a, or its trailing dims" },
        },
        .outputs = &.{.{ .name = "out", .form = "f32 [...]" }},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 3,
        .name = "mul",
        .doc = "a * b; b is broadcast along leading dims.",
        .inputs = &.{
            .{ .name = "a", .form = "f32 [...]" },
            .{ .name = "b", .form = "f32 [?]; shape of a, or its trailing dims" },
        },
        .outputs = &.{.{ .name = "out", .form = "f32 [...]" }},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 4,
        .name = "mul_const",
        .doc = "x * value.",
        .inputs = &.{x_any},
        .outputs = &.{out_any},
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
        .inputs = &.{x_any},
        .outputs = &.{out_any},
        .floats = &.{.{ .name = "cap", .doc = "bound of the result" }},
        .in_place = &.{0},
    },
    .{
        .id = 16,
        .name = "swiglu",
        .doc = "silu(gate) * up; the same bits as silu then mul.",
        .inputs = &.{ .{ .name = "gate", .form = "f32 [..., n]" }, .{ .name = "up", .form = "f32 [..., n]" } },
        .outputs = &.{out_rows},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 17,
        .name = "geglu_tanh",
        .doc = "gelu_tanh(gate) * up.",
        .inputs = &.{ .{ .name = "gate", .form = "f32 [..., n]" }, .{ .name = "up", .form = "f32 [..., n]" } },
        .outputs = &.{out_rows},
        .in_place = &.{ 0, 1 },
    },
    .{
        .id = 18,
        .name = "rmsnorm",
        .doc = "x / sqrt(mean(x^2) + eps) * (weight + offset) along the last dim (Zhang & Sennrich 2019; " ++
            "offset 1 for Gemma).",
        .inputs = &.{ x_row, .{ .name = "weight", .form = "f32 [n] dense" } },
        .outputs = &.{out_rows},
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
        .inputs = &.{ x_row, .{ .name = "residual", .form = "f32 [..., n]" }, .{ .name = "weight", .form = "f32 [n] dense" } },
        .outputs = &.{ .{ .name = "sum", .form = "f32 [..., n]" }, out_rows },
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
            x_row,
            .{ .name = "weight", .form = "f32 [n] dense" },
            .{ .name = "bias", .form = "f32 [n] dense", .optional = true },
        },
        .outputs = &.{out_row},
        .floats = &.{.{ .name = "eps", .doc = "added to the variance" }},
        .in_place = &.{0},
    },
    .{
        .id = 21,
        .name = "l2norm",
        .doc = "x / max(|x|, eps) along the last dim.",
        .inputs = &.{x_row},
        .outputs = &.{out_row},
        .floats = &.{.{ .name = "eps", .doc = "least norm" }},
        .in_place = &.{0},
    },
    .{
        .id = 22,
        .name = "softmax",
        .doc = "softmax(scale * x) along the last dim; a row of -inf gives zeros.",
        .inputs = &.{x_row},
        .outputs = &.{out_row},
        .floats = &.{.{ .name = "scale", .doc = "factor before the softmax" }},
        .in_place = &.{0},
    },
    .{
        .id = 23,
        .name = "causal_softmax",
        .doc = "softmax along the last dim where key j is visible to query i iff j <= i + offset; hidden keys give 0.",
        .inputs = &.{.{ .name = "x", .form = "f32 [..., queries, keys]" }},
        .outputs = &.{.{ .name = "out", .form = "f32 [..., queries, keys]" }},
        .ints = &.{.{ .name = "offset", .doc = "position of query 0" }},
        .floats = &.{.{ .name = "scale", .doc = "factor before the softmax" }},
        .in_place = &.{0},
    },
    .{
        .id = 24,
        .name = "log_softmax",
        .doc = "x - logsumexp(x) along the last dim.",
        .inputs = &.{x_row},
        .outputs = &.{out_row},
        .in_place = &.{0},
    },
    .{
        .id = 25,
        .name = "cross_entropy",
        .doc = "-log_softmax(x)[target] of each row.",
        .inputs = &.{ .{ .name = "x", .form = "f32 [rows, n]" }, .{ .name = "target", .form = "i32 [rows]; one outside 0..n-1 fails the command" } },
        .outputs = &.{.{ .name = "out", .form = "f32 [rows]" }},
    },
    .{
        .id = 26,
        .name = "argmax",
        .doc = "Index of the largest element of each row, the lowest at a tie; NaN counts as smaller than " ++
            "every number.",
        .inputs = &.{.{ .name = "x", .form = "f32 [rows, n]" }},
        .outputs = &.{.{ .name = "out", .form = "i32 [rows]" }},
    },
    .{
        .id = 27,
        .name = "topk",
        .doc = "The k largest of each row in descending order, ties by lower index.",
        .inputs = &.{.{ .name = "x", .form = "f32 [rows, n]" }},
        .outputs = &.{
            .{ .name = "values", .form = "f32 [rows, k]; k <= n" },
            .{ .name = "indices", .form = "i32 [rows, k]" },
        },
    },
    .{
        .id = 28,
        .name = "embedding",
        .doc = "Rows of a table as f32; reads the packed weights of a tied head too.",
        .inputs = &.{
            .{ .name = "ids", .form = "i32 [tokens]; one outside 0..n-1 fails the command" },
            .{ .name = "table", .form = "weights|packed [n, k]" },
        },
        .outputs = &.{.{ .name = "out", .form = "f32 [tokens, k] rows" }},
    },
    .{
        .id = 29,
        .name = "take_rows",
        .doc = "Copies `count` rows of x from row `start` on.",
        .inputs = &.{.{ .name = "x", .form = "f32 [rows, n]" }},
        .outputs = &.{.{ .name = "out", .form = "f32 [count, n]" }},
        .ints = &.{.{ .name = "start", .doc = "first row" }},
    },
    .{
        .id = 30,
        .name = "rope",
        .doc = "Rotary embedding (Su et al. 2021): pairs (2i, 2i+1) when interleaved, else (i, i + " ++
            "rotary/2), turned by (position + t) * inv_freq[i] and multiplied by scale; dims from " ++
            "2*len(inv_freq) on are copied. Angles are reduced in f64.",
        .inputs = &.{
            .{ .name = "x", .form = "f32 [tokens, heads, head_dim]" },
            .{ .name = "inv_freq", .form = "f32 [pairs] dense; 2 * pairs <= head_dim" },
            .{ .name = "positions", .form = "i32 [tokens]; absent: position + t", .optional = true },
        },
        .outputs = &.{.{ .name = "out", .form = "f32 [tokens, heads, head_dim]" }},
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
            "even(x * (1 / scale)).",
        .inputs = &.{.{ .name = "x", .form = "f32 [rows, k] rows; k divides by 32" }},
        .outputs = &.{.{ .name = "out", .form = "q8a [rows, k]" }},
    },
    .{
        .id = 32,
        .name = "pack_weight",
        .doc = "Packs weights into the panel16 layout of kernels/packed.zig.",
        .inputs = &.{.{ .name = "w", .form = "weights [n, k]" }},
        .outputs = &.{.{ .name = "out", .form = "packed [n, k]; of the dtype that `packed_bytes` names" }},
    },
    .{
        .id = 33,
        .name = "linear",
        .doc = "x @ w^T + bias. x q8a: integer dot products per block; x f32: weights are widened, nothing " ++
            "is rounded. A row's bits depend neither on the number of rows nor on the threads; but level amx " ++
            "rounds both factors to bf16 when there are 64 rows of q8a or more.",
        .inputs = &.{
            .{ .name = "x", .form = "f32|q8a [rows, k] rows; f32 for float weights" },
            .{ .name = "w", .form = "packed [n, k]" },
            .{ .name = "bias", .form = "f32 [n] dense", .optional = true },
        },
        .outputs = &.{.{ .name = "out", .form = "f32 [rows, n] rows" }},
    },
    .{
        .id = 34,
        .name = "matmul",
        .doc = "a @ b, batched along leading dims, any strides.",
        .inputs = &.{ .{ .name = "a", .form = "f32 [..., m, k]" }, .{ .name = "b", .form = "f32 [..., k, n]" } },
        .outputs = &.{.{ .name = "out", .form = "f32 [..., m, n]" }},
    },
    .{
        .id = 35,
        .name = "kv_append",
        .doc = "Writes rows into the paged cache at `position`, converting to its dtype. For q8_0 and q4_0 a row is first " ++
            "rotated by a Walsh-Hadamard transform (kernels/hadamard.zig), then quantised in blocks of 32 along head_dim.",
        .inputs = &.{
            .{ .name = "x", .form = "f32 [tokens, kv_heads, head_dim]" },
            .{ .name = "pages", .form = "i32 [logical_pages] dense; physical page of each; one that is out of the cache fails the command" },
        },
        .outputs = &.{.{ .name = "cache", .form = "f32|f16|keys|values [pages, kv_heads, page_size, head_dim] dense" }},
        .ints = &.{.{ .name = "position", .doc = "position of token 0" }},
    },
    .{
        .id = 36,
        .name = "attention",
        .doc = "softmax(scale * q k^T) v over the cache, causal: query t sees keys j with j <= position + t, " ++
            "and with a window also j > position + t - window. Query head h reads kv head h / (heads / " ++
            "kv_heads). Flash-style over one page at a time (Dao 2023), so a row's bits depend neither on " ++
            "the chunking nor on the threads. Quantised caches are read as they are: scores are int8 dots with q in int8 " ++
            "blocks of 32, sums of values are int8 dots with the weights in 15 bits (kernels/attention_quantised.zig). With `i8` " ++
            "runs of 32 tokens or more bring every cache into int8 with a scale per key (kernels/attention_i8_page.zig); a " ++
            "row's bits then depend on whether its run has so many. Pages of more than 128 keys keep to f32. With a window too the page " ++
            "before the first one seen has to be in the cache, as its keys are what those of the next one are measured from.",
        .inputs = &.{
            .{ .name = "q", .form = "f32 [tokens, heads, head_dim]; heads divide by kv_heads" },
            .{ .name = "k_cache", .form = "f32|f16|keys [pages, kv_heads, page_size, head_dim] dense" },
            .{ .name = "v_cache", .form = "f32|f16|values [pages, kv_heads, page_size, head_dim] dense; of any such dtype" },
            .{ .name = "pages", .form = "i32 [logical_pages] dense; physical page of each; one that is out of the cache fails the command" },
        },
        .outputs = &.{.{
            .name = "out",
            .form = "f32|q8a [?]; f32 like q; q8a [tokens, heads * head_dim], where head_dim divides by 32: the bits of " ++
                "quantize_rows of the f32 rows",
        }},
        .ints = &.{
            .{ .name = "position", .doc = "position of query 0" },
            .{ .name = "window", .doc = "sliding window; 0 for none" },
            .{ .name = "i8", .doc = "1: runs of 32 tokens or more over pages of at most 128 keys multiply in int8; 0: never" },
        },
        .floats = &.{
            .{ .name = "scale", .doc = "factor of the scores" },
            .{ .name = "softcap", .doc = "cap*tanh(score/cap) before the softmax; 0 for none" },
        },
    },
    .{
        .id = 37,
        .name = "softmax_topk",
        .doc = "The k largest of softmax(scale * x) of each row, as softmax then topk give them: the router of a " ++
            "mixture of experts.",
        .inputs = &.{.{ .name = "x", .form = "f32 [rows, n]" }},
        .outputs = &.{
            .{ .name = "weights", .form = "f32 [rows, k]; k <= n" },
            .{ .name = "indices", .form = "i32 [rows, k]" },
        },
        .ints = &.{.{ .name = "normalized", .doc = "1: the weights of a row are divided by their sum" }},
        .floats = &.{.{ .name = "scale", .doc = "factor before the softmax" }},
    },
    .{
        .id = 38,
        .name = "linear_swiglu",
        .doc = "silu(x @ gate^T) * (x @ up^T): the same bits as two `linear`, then swiglu, without their results in memory.",
        .inputs = &.{
            .{ .name = "x", .form = "q8a [rows, k]" },
            .{ .name = "gate", .form = "packed [n, k]; quantised" },
            .{ .name = "up", .form = "packed [n, k]; of the dtype of gate" },
        },
        .outputs = &.{.{ .name = "out", .form = "f32|q8a [rows, n] rows; n divides by 32; q8a: the bits of quantize_rows of the f32 result" }},
    },
    .{
        .id = 39,
        .name = "rmsnorm_rope",
        .doc = "rope(rmsnorm(x)) of every head: the same bits as the two ops, in one pass.",
        .inputs = &.{
            .{ .name = "x", .form = "f32 [tokens, heads, head_dim]" },
            .{ .name = "weight", .form = "f32 [head_dim] dense" },
            .{ .name = "inv_freq", .form = "f32 [pairs] dense; 2 * pairs <= head_dim" },
            .{ .name = "positions", .form = "i32 [tokens]; absent: position + t", .optional = true },
        },
        .outputs = &.{.{ .name = "out", .form = "f32 [tokens, heads, head_dim]" }},
        .ints = &.{
            .{ .name = "position", .doc = "position of token 0" },
            .{ .name = "interleaved", .doc = "0 halves, 1 interleaved" },
        },
        .floats = &.{
            .{ .name = "eps", .doc = "added to the mean square" },
            .{ .name = "offset", .doc = "added to the weight" },
            .{ .name = "scale", .doc = "attention factor (YaRN), else 1" },
        },
        .in_place = &.{0},
    },
};

comptime {
    for (table, 1..) |op, id| if (op.id != id) @compileError("op id out of order: " ++ op.name);
}
