"""Trains the embedded model from nothing: dialogues → tokenizer → weights, all from fixed seeds.

    python train.py      # under an hour on two cores; then export.py and evaluate.py

Writes tokenizer.json, model.safetensors (float32, Hugging Face names) and training.json to the output folder. Two processes
of one thread each train together: every one makes its own dialogues, and each step takes the mean of their gradients. The
same seed, number of processes, PyTorch version and kind of CPU give the same weights; another CPU slightly different ones.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer

from dialogue import Generator, pieces
from model import Config, Qwen3
from tokenizer import train_tokenizer

IGNORED = -100
CHUNK = 4000  # dialogues made at a time
Row = tuple[np.ndarray, np.ndarray]


def tokenised(generator: Generator, tokenizer: Tokenizer, longest: int, rng: Random) -> list[Row]:
    """(ids, targets) of the next dialogues; targets are IGNORED where the user speaks."""
    dialogues = [pieces(*generator.dialogue()) for _ in range(CHUNK)]
    encodings = iter(tokenizer.encode_batch([piece.text for parts in dialogues for piece in parts]))
    out: list[Row] = []
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
    return out


def batches(rows: list[Row], tokens: int, rng: Random) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of at most `tokens` tokens of dialogues of similar length (padded at the end), in random order."""
    rows = sorted(rows, key=lambda row: (len(row[0]), rng.random()))
    out = []
    start = 0
    while start < len(rows):
        end = start
        while end < len(rows) and len(rows[end][0]) * (end + 1 - start) <= tokens:
            end += 1
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


def stream(seed: int, tokenizer: Tokenizer, tokens: int, longest: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches without end; no dialogue comes twice."""
    generator, rng = Generator(seed), Random(seed)
    while True:
        yield from batches(tokenised(generator, tokenizer, longest, rng), tokens, rng)


def optimisers(model: Qwen3, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices, AdamW for the embedding and the norms, both at the same rate."""
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def flat_gradients(model: Qwen3) -> torch.Tensor:
    """One vector, of which the gradients of all weights are views: one message between the processes."""
    flat = torch.zeros(sum(weight.numel() for weight in model.parameters()))
    for weight, part in zip(model.parameters(), flat.split([weight.numel() for weight in model.parameters()])):
        weight.grad = part.view_as(weight)
    return flat


def schedule(step: int, steps: int) -> float:
    """Share of the full rate: a short warm-up, a constant part, and from 60 % on a straight line to nothing."""
    return min((step + 1) / 60, 1.0, (steps - step) / (0.4 * steps))


def train(model: Qwen3, data: Iterator[tuple[torch.Tensor, torch.Tensor]], steps: int, rate: float) -> float:
    """`steps` batches; returns the mean loss of the last 50."""
    opts, gradients, rank = optimisers(model, rate), flat_gradients(model), dist.get_rank()
    started, losses = time.time(), []
    for step in range(steps):
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = rate * schedule(step, steps)
        ids, targets = next(data)
        said = targets != IGNORED
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.logits(model(ids)[said])
        loss = F.cross_entropy(logits.float(), targets[said])
        gradients.zero_()
        loss.backward()
        dist.all_reduce(gradients)
        gradients /= dist.get_world_size()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
        losses.append(loss.item())
        if rank == 0 and step % 50 == 49:
            passed = time.time() - started
            left = passed / (step + 1) * (steps - step - 1)
            print(f"step {step + 1}/{steps}  loss {np.mean(losses[-50:]):.4f}  {passed:.0f} s, {left:.0f} s left", flush=True)
    return float(np.mean(losses[-50:]))


def work(rank: int, args: argparse.Namespace, meeting: str) -> None:
    """One of the processes; the first writes the results."""
    started = time.time()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=args.processes)
    tokenizer, config = Tokenizer.from_file(str(args.out / "tokenizer.json")), Config()
    model = Qwen3(config)
    data = stream(args.seed + rank, tokenizer, args.batch // args.processes, config.max_position_embeddings)
    loss = train(model, data, args.steps, args.rate)
    if rank == 0:
        weights = {f"model.{name}": weight.detach().contiguous() for name, weight in model.named_parameters()}
        save_file(weights, args.out / "model.safetensors")
        report = {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "config": asdict(config),
            "steps": args.steps,
            "batch": args.batch,
            "loss": round(loss, 4),
            "seconds": round(time.time() - started),
            "seed": args.seed,
            "processes": args.processes,
        }
        (args.out / "training.json").write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report))
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "build")
    parser.add_argument("--steps", type=int, default=4200)
    parser.add_argument("--batch", type=int, default=4096, help="tokens of dialogue per step, of all processes together")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    sample = Generator(args.seed + 1000)
    texts = [text for _ in range(20000) for turn in sample.dialogue()[1] for text in (turn.user, turn.reply)]
    train_tokenizer(texts, Config().vocab_size).save(str(args.out / "tokenizer.json"))
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(work, (args, f"{folder}/meeting"), nprocs=args.processes)


if __name__ == "__main__":
    main()
