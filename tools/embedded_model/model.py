"""Qwen3 (dense, tied head) in PyTorch, with Hugging Face's weight names.

Formulas: Qwen3 Technical Report (arXiv 2505.09388) and transformers, models/qwen3/modeling_qwen3.py. Kept small enough
to be read beside packages/models/src/qwen3/modeling.ts, which runs the result.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """Sizes of the embedded model. Rows divide by 256, so that every GGUF block type fits."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 1024


def rotary(positions: int, config: Config) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary embedding, [positions, head_dim], halves repeated (the "neox" pairing)."""
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angles = torch.outer(torch.arange(positions, dtype=torch.float32), config.rope_theta**-exponents)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        hidden, width = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(hidden, config.num_attention_heads * width, bias=False)
        self.k_proj = nn.Linear(hidden, config.num_key_value_heads * width, bias=False)
        self.v_proj = nn.Linear(hidden, config.num_key_value_heads * width, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * width, hidden, bias=False)
        self.q_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(width, eps=config.rms_norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: list | None) -> Tensor:
        batch, tokens, _ = x.shape
        split = (batch, tokens, -1, self.config.head_dim)
        q = self.q_norm(self.q_proj(x).view(split).float()).transpose(1, 2)  # [batch, heads, tokens, head_dim]
        k = self.k_norm(self.k_proj(x).view(split).float()).transpose(1, 2)
        v = self.v_proj(x).view(split).float().transpose(1, 2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if cache is not None:
            if cache:
                k, v = torch.cat([cache[0], k], dim=2), torch.cat([cache[1], v], dim=2)
            cache[:] = [k, v]
        groups = self.config.num_attention_heads // self.config.num_key_value_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        # A prompt starts at position 0 and is causal; a later token sees everything before it.
        assert k.shape[2] == tokens or tokens == 1, "a cached prompt continues one token at a time"
        with torch.autocast("cpu", enabled=False):  # float32 is as fast here, for heads as narrow as these
            out = F.scaled_dot_product_attention(q, k, v, is_causal=tokens > 1)
        return self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))


class Mlp(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Config):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, cache: list | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Qwen3(nn.Module):
    """`forward` gives hidden states after the last norm; `logits` multiplies them with the tied embedding."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        cos, sin = rotary(config.max_position_embeddings, config)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                std = 0.02 / (2 * config.num_hidden_layers) ** 0.5 if "o_proj" in name or "down_proj" in name else 0.02
                nn.init.normal_(weight, std=std if "embed" in name or "o_proj" in name else std * 2)

    def forward(self, ids: Tensor, caches: list[list] | None = None, position: int = 0) -> Tensor:
        """ids [batch, tokens] at `position`… of their sequence; hidden states [batch, tokens, hidden_size]."""
        x = self.embed_tokens(ids)
        cos, sin = (table[position : position + ids.shape[1]] for table in (self.cos, self.sin))
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin, None if caches is None else caches[index])
        return self.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embed_tokens.weight)

    @torch.no_grad()
    def greedy(self, ids: list[int], stop: int, limit: int = 160) -> list[int]:
        """The most likely continuation of `ids`, without the stop token."""
        caches: list[list] = [[] for _ in self.layers]
        hidden, out = self(torch.tensor([ids]), caches), []
        limit = min(limit, self.config.max_position_embeddings - len(ids))
        while len(out) < limit:
            token = int(self.logits(hidden[:, -1]).argmax())
            if token == stop:
                break
            out.append(token)
            hidden = self(torch.tensor([[token]]), caches, len(ids) + len(out) - 1)
        return out
