"""Averages the weights of two trainings, the second of which went on from the first (`train.py --init`).

    python average.py build2 build3 --share 0.6 --out build4      # 0.6 of build3

The average of two points of one valley does better than either; Wortsman et al., Model soups (arXiv 2203.05482).
"""

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--share", type=float, default=0.6, help="of the second")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    first, second = (load_file(folder / "model.safetensors") for folder in (args.first, args.second))
    args.out.mkdir(parents=True, exist_ok=True)
    mixed = {name: (weight * (1 - args.share) + second[name] * args.share).contiguous() for name, weight in first.items()}
    save_file(mixed, args.out / "model.safetensors")
    for name in ("tokenizer.json", "training.json"):
        shutil.copy(args.second / name, args.out / name)


if __name__ == "__main__":
    main()
