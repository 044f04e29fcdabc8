"""Writes packages/models/testdata/odd-*: tiny random models whose sizes divide by nothing, and their logits.

The logits come from the plain float64 forward pass below, written from the papers and independent of the engine.
Run: python tools/reference/odd_models.py (needs numpy and safetensors).
"""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

TESTDATA = Path(__file__).parents[2] / "packages/models/testdata"
TOKENS = 61
COMMON = {"max_position_embeddings": 700, "hidden_act": "silu"}
CONFIGS = {
    "odd-qwen3": COMMON | {
        "model_type": "qwen3", "hidden_size": 50, "intermediate_size": 37, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 14, "vocab_size": 301, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "attention_bias": True,
    },
    "odd-qwen2": COMMON | {
        "model_type": "qwen2", "hidden_size": 66, "intermediate_size": 101, "num_hidden_layers": 3,
        "num_attention_heads": 3, "num_key_value_heads": 1, "vocab_size": 259, "rms_norm_eps": 1e-6,
        "rope_theta": 1e6, "tie_word_embeddings": False, "use_sliding_window": True, "sliding_window": 20,
        "max_window_layers": 1,
    },
}


def head_dim(config):
    return config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])


def random_weights(config, rng):
    """Weights by Hugging Face name, float32, scaled so that the logits have a standard deviation of a few units."""
    weights = {}

    def matrix(name, *shape, scale=None):
        values = rng.standard_normal(shape) * (scale or 1.5 / np.sqrt(shape[-1]))
        weights[name] = values.astype(np.float32)

    def norm(name, size):
        weights[name] = (1 + 0.2 * rng.standard_normal(size)).astype(np.float32)

    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], head_dim(config)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    qwen3 = config["model_type"] == "qwen3"
    matrix("model.embed_tokens.weight", config["vocab_size"], hidden, scale=0.5)
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        for name, count in (("q", heads), ("k", kv_heads), ("v", kv_heads)):
            matrix(f"{p}self_attn.{name}_proj.weight", count * dim, hidden)
            if not qwen3 or config["attention_bias"]:
                matrix(f"{p}self_attn.{name}_proj.bias", count * dim, scale=0.3)
        matrix(p + "self_attn.o_proj.weight", hidden, heads * dim)
        if qwen3:
            if config["attention_bias"]:
                matrix(p + "self_attn.o_proj.bias", hidden, scale=0.1)
            norm(p + "self_attn.q_norm.weight", dim)
            norm(p + "self_attn.k_norm.weight", dim)
        norm(p + "input_layernorm.weight", hidden)
        norm(p + "post_attention_layernorm.weight", hidden)
        matrix(p + "mlp.gate_proj.weight", inner, hidden)
        matrix(p + "mlp.up_proj.weight", inner, hidden)
        matrix(p + "mlp.down_proj.weight", hidden, inner)
    norm("model.norm.weight", hidden)
    if not config["tie_word_embeddings"]:
        matrix("lm_head.weight", config["vocab_size"], hidden)
    return weights


def forward(config, weights, ids):
    """Logits [tokens, vocab] of a whole sequence, in float64."""
    tokens, dim = len(ids), head_dim(config)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]

    def get(name):
        return weights[name].astype(np.float64)

    def linear(x, name):
        bias = weights.get(f"{name}.bias")
        return x @ get(f"{name}.weight").T + (0 if bias is None else bias.astype(np.float64))

    def rms_norm(x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * get(f"{name}.weight")

    angles = np.arange(tokens)[:, None] / config["rope_theta"] ** (np.arange(0, dim, 2) / dim)
    cos, sin = (np.concatenate([f(angles)] * 2, -1)[:, None] for f in (np.cos, np.sin))

    def rope(x):
        return x * cos + np.concatenate([-x[..., dim // 2:], x[..., :dim // 2]], -1) * sin

    row, column = np.arange(tokens)[:, None], np.arange(tokens)[None]
    x = get("model.embed_tokens.weight")[ids]
    for layer in range(config["num_hidden_layers"]):
        p = f"model.layers.{layer}."
        h = rms_norm(x, p + "input_layernorm")
        q = linear(h, p + "self_attn.q_proj").reshape(tokens, heads, dim)
        k = linear(h, p + "self_attn.k_proj").reshape(tokens, kv_heads, dim)
        v = linear(h, p + "self_attn.v_proj").reshape(tokens, kv_heads, dim)
        if config["model_type"] == "qwen3":
            q, k = rms_norm(q, p + "self_attn.q_norm"), rms_norm(k, p + "self_attn.k_norm")
        q, k = rope(q), rope(k)
        k, v = (np.repeat(a, heads // kv_heads, 1) for a in (k, v))
        scores = np.einsum("thd,shd->hts", q, k) / np.sqrt(dim)
        visible = column <= row
        if config.get("use_sliding_window") and layer >= config["max_window_layers"]:
            visible &= column > row - config["sliding_window"]
        scores = np.where(visible, scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + linear(np.einsum("hts,shd->thd", scores, v).reshape(tokens, -1), p + "self_attn.o_proj")
        h = rms_norm(x, p + "post_attention_layernorm")
        gate = linear(h, p + "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, p + "mlp.up_proj"), p + "mlp.down_proj")
    head = "model.embed_tokens" if config["tie_word_embeddings"] else "lm_head"
    return linear(rms_norm(x, "model.norm"), head)


def main():
    for seed, (name, config) in enumerate(CONFIGS.items()):
        rng = np.random.default_rng(seed)
        weights = random_weights(config, rng)
        ids = rng.integers(0, config["vocab_size"], TOKENS).astype(np.int32)
        folder = TESTDATA / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        shutil.copy(TESTDATA / "qwen3-tied/tokenizer.json", folder)
        save_file(weights, folder / "model.safetensors")
        save_file({"ids": ids, "logits": forward(config, weights, ids).astype(np.float32)}, folder / "oracle.safetensors")


if __name__ == "__main__":
    main()
