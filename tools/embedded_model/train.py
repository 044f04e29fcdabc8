"""Trains the embedded model from nothing: dialogues → tokenizer → weights, all from fixed seeds.

    python train.py --out build          # under an hour on two cores; then evaluate.py and export.py

Writes tokenizer.json, model.safetensors (float32, Hugging Face names) and training.json to the output folder. The same
seed, thread count, PyTorch version and kind of CPU give the same weights; another CPU gives slightly different ones.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from dialogue import Generator, pieces
from model import Config, Qwen3
from tokenizer import train_tokenizer

IGNORED = -100


def tokenised(generator: Generator, tokenizer: Tokenizer, tokens_wanted: int, longest: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(ids, targets) of dialogues with `tokens_wanted` tokens in sum; targets are IGNORED where the user speaks."""
    out: list[tuple[np.ndarray, np.ndarray]] = []
    total, rng = 0, Random(0)
    while total < tokens_wanted:
        dialogues = [pieces(*generator.dialogue()) for _ in range(1000)]
        encodings = iter(tokenizer.encode_batch([piece.text for parts in dialogues for piece in parts]))
        for parts in dialogues:
            ids, said = [], []
            for index, piece in enumerate(parts):
                piece_ids = next(encodings).ids
                if piece.fixed and index == len(parts) - 2 and rng.random() < 0.85:
                    # The beginning decides which reply it is; its rest is learnt soon, and would take most of the time.
                    piece_ids = piece_ids[:9]
                ids += piece_ids
                said += [piece.said] * len(piece_ids)
            ids_array = np.array(ids[: longest + 1], dtype=np.int64)
            # Position i predicts token i + 1.
            targets = np.where(np.array(said[: longest + 1]), ids_array, IGNORED)[1:]
            out.append((ids_array[:-1], targets))
            total += len(targets)
    return out


def batches(rows: list[tuple[np.ndarray, np.ndarray]], tokens: int, rng: Random) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of about `tokens` tokens of dialogues of similar length (padded at the end), in random order."""
    rows = sorted(rows, key=lambda row: (len(row[0]), rng.random()))
    out = []
    start = 0
    while start < len(rows):
        end = start
        while end < len(rows) and len(rows[end][0]) * (end + 1 - start) <= tokens:
            end += 1
        end = max(end, start + 1)
        chosen = rows[start:end]
        width = len(chosen[-1][0])
        ids = np.zeros((len(chosen), width), dtype=np.int64)
        targets = np.full((len(chosen), width), IGNORED, dtype=np.int64)
        for index, (row_ids, row_targets) in enumerate(chosen):
            ids[index, : len(row_ids)] = row_ids
            targets[index, : len(row_targets)] = row_targets
        out.append((torch.from_numpy(ids), torch.from_numpy(targets)))
        start = end
    rng.shuffle(out)
    return out


def optimisers(model: Qwen3, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the embedding and the norms, both at the same rate."""
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def train(model: Qwen3, data: list[tuple[torch.Tensor, torch.Tensor]], rate: float) -> float:
    """One pass over the batches; returns the mean loss of the last 50."""
    opts = optimisers(model, rate)
    started, losses = time.time(), []
    for step, (ids, targets) in enumerate(data):
        factor = min((step + 1) / 60, 1.0) * max(0.02, 1 - max(0.0, step / len(data) - 0.1) / 0.9)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate * factor
        said = targets != IGNORED
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.logits(model(ids)[said])
        loss = F.cross_entropy(logits.float(), targets[said])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 50 == 49:
            passed = time.time() - started
            left = passed / (step + 1) * (len(data) - step - 1)
            print(f"step {step + 1}/{len(data)}  loss {np.mean(losses[-50:]):.4f}  {passed:.0f} s, {left:.0f} s left", flush=True)
    return float(np.mean(losses[-50:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--tokens", type=float, default=12e6, help="tokens of dialogue to train on, each seen once")
    parser.add_argument("--batch", type=int, default=4096, help="tokens per step")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--init", type=Path, help="go on from the tokenizer and weights of this folder, e.g. after a change of facts")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    args.out.mkdir(parents=True, exist_ok=True)
    started = time.time()

    config = Config()
    if args.init:
        tokenizer = Tokenizer.from_file(str(args.init / "tokenizer.json"))
    else:
        sample = Generator(args.seed + 1000)
        texts = [text for _ in range(20000) for turn in sample.dialogue()[1] for text in (turn.user, turn.reply)]
        tokenizer = train_tokenizer(texts, config.vocab_size)
    tokenizer.save(str(args.out / "tokenizer.json"))
    rows = tokenised(Generator(args.seed), tokenizer, int(args.tokens), config.max_position_embeddings)
    data = batches(rows, args.batch, Random(args.seed))
    print(f"{len(rows)} dialogues, {sum(len(row[0]) for row in rows)} tokens, {len(data)} steps, {time.time() - started:.0f} s")

    model = Qwen3(config)
    if args.init:
        model.load_state_dict({name.removeprefix("model."): weight for name, weight in load_file(args.init / "model.safetensors").items()})
    loss = train(model, data, args.rate)
    weights = {f"model.{name}": weight.detach().contiguous() for name, weight in model.named_parameters()}
    save_file(weights, args.out / "model.safetensors")
    report = {
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "config": asdict(config),
        "dialogues": len(rows),
        "tokens": sum(len(row[0]) for row in rows),
        "steps": len(data),
        "loss": round(loss, 4),
        "seconds": round(time.time() - started),
        "seed": args.seed,
        "continued": json.loads((args.init / "training.json").read_text()) if args.init else None,
        "threads": args.threads,
    }
    (args.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
