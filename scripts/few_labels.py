"""Take the labels of most rows away: `seeds.jsonl` keeps those of a share, `unlabelled.jsonl` has the other texts.

    python scripts/few_labels.py data/sentiment-english/train.jsonl --share 0.05 --seed 0

writes both into the folder `few` beside the file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path


def split(
    rows: Sequence[dict[str, str]], *, share: float, seed: int
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The rows that keep their label, and the texts of the others; drawn without looking at classes."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    count = round(share * len(rows))
    kept = [rows[place] for place in order[:count]]
    return kept, [{"text": rows[place]["text"]} for place in order[count:]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON lines with `text` and `label`.")
    parser.add_argument("--share", type=float, default=0.05, help="Of the rows that keep their label.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="The folder to write into.")
    told = parser.parse_args(arguments)
    rows = [json.loads(line) for line in told.file.read_text("utf-8").splitlines()]
    folder = told.output or told.file.parent / "few"
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(("seeds", "unlabelled"), split(rows, share=told.share, seed=told.seed), strict=True):
        path = folder / f"{name}.jsonl"
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in part), encoding="utf-8")
        os.replace(draft, path)
        print(f"{path}: {len(part)} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
