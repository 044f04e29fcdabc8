"""Says how many cases of evaluation.json the committed model passes.

    python evaluate.py                       # PyTorch on the weights of model.gguf, as dequantised from Q8_0
    python evaluate.py --verbose             # also every failed reply
    python evaluate.py --chat "Hello" "…"    # one dialogue, printed

Needs the GGUF file only: tokenizer and chat template are those inside it. Prints a table; --json writes it to a file.
"""

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

import gguf
import jinja2
import torch
from gguf.quants import dequantize
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from export import LAYER_NAMES
from model import Config, Qwen3
from tokenizer import PATTERN

EMBEDDED = Path(__file__).parent / "../../packages/models/embedded"


class Embedded:
    """The model of a GGUF file, answering greedily."""

    def __init__(self, path: Path):
        reader = gguf.GGUFReader(path)
        fields = {name: field.contents() for name, field in reader.fields.items()}
        self.model = Qwen3(
            Config(
                vocab_size=len(fields["tokenizer.ggml.tokens"]),
                hidden_size=fields["qwen3.embedding_length"],
                intermediate_size=fields["qwen3.feed_forward_length"],
                num_hidden_layers=fields["qwen3.block_count"],
                num_attention_heads=fields["qwen3.attention.head_count"],
                num_key_value_heads=fields["qwen3.attention.head_count_kv"],
                head_dim=fields["qwen3.attention.key_length"],
                rms_norm_eps=fields["qwen3.attention.layer_norm_rms_epsilon"],
                rope_theta=fields["qwen3.rope.freq_base"],
                max_position_embeddings=fields["qwen3.context_length"],
            )
        )
        back = {short: long for long, short in LAYER_NAMES.items()}
        weights = {}
        for tensor in reader.tensors:
            name = {"token_embd.weight": "embed_tokens.weight", "output_norm.weight": "norm.weight"}.get(tensor.name)
            if name is None:
                _, layer, short, _ = tensor.name.split(".")
                name = f"layers.{layer}.{back[short]}.weight"
            weights[name] = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        self.model.load_state_dict(weights)
        self.model.eval()
        self.tokenizer = self._tokenizer(fields)
        self.template = jinja2.Environment().from_string(fields["tokenizer.chat_template"])
        self.eos = fields["tokenizer.ggml.eos_token_id"]

    @staticmethod
    def _tokenizer(fields: dict) -> Tokenizer:
        tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
        merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
        tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        tokenizer.decoder = decoders.ByteLevel()
        special = [token for token, kind in zip(tokens, types) if kind == gguf.TokenType.CONTROL]
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
        return tokenizer

    def reply(self, messages: list[dict]) -> str:
        text = self.template.render(messages=messages, add_generation_prompt=True)
        return self.tokenizer.decode(self.model.greedy(self.tokenizer.encode(text).ids, self.eos))


def run_case(model: Embedded, case: dict) -> tuple[bool, list[dict]]:
    """Whether all checked turns pass, and the dialogue."""
    messages: list[dict] = []
    passed = True
    for turn in case["turns"]:
        messages.append({"role": "user", "content": turn["user"]})
        reply = model.reply(messages)
        messages.append({"role": "assistant", "content": reply})
        passed &= all(re.search(pattern, reply, re.IGNORECASE) for pattern in turn.get("accept", []))
    return passed, messages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=EMBEDDED / "model.gguf")
    parser.add_argument("--cases", type=Path, default=EMBEDDED / "evaluation.json")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chat", nargs="+", metavar="TEXT")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = Embedded(args.model)
    if args.chat:
        for message in run_case(model, {"turns": [{"user": text} for text in args.chat]})[1]:
            print(("> " if message["role"] == "user" else "  ") + message["content"])
        return

    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for case in json.loads(args.cases.read_text())["cases"]:
        passed, messages = run_case(model, case)
        counts[case["category"]][0] += passed
        counts[case["category"]][1] += 1
        if args.verbose and not passed:
            print(f"[{case['category']}] " + " | ".join(message["content"] for message in messages))
    counts["all"] = [sum(passed for passed, _ in counts.values()), sum(count for _, count in counts.values())]
    for category, (passed, count) in counts.items():
        print(f"{category:30} {passed:4} of {count:4}  {100 * passed / count:5.1f} %")
    if args.json:
        args.json.write_text(json.dumps({name: {"passed": p, "of": n} for name, (p, n) in counts.items()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
