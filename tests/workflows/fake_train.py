"""What `mingshi train` leaves behind, without a network: a record made up from the recipe, in no time.

A method's scores follow from its adapter's kind, its learning rate and its seed, and those of an amount of rows from
its model: `tiny` learns from the first 8 rows alone, `other` from all. A file `orders.json` beside the
recipes says what should go wrong: {"ROW/seed-N": "fail" | "wait" | "more"}, once each.
"""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

BEST = {"lora": 2e-4, "ia3": 3e-3, "full": 2e-5}  # where the validation loss is lowest
GAIN = {"lora": 0.8, "ia3": 0.4, "full": 0.8}
ENOUGH = {"tiny": 8, "other": 16}  # rows, of those with a limit
ITEMS = 24


def score(values: list[float], weights: list[float] | None, signature: str) -> dict:
    mean = sum(v * w for v, w in zip(values, weights or [1.0] * ITEMS, strict=True)) / (
        sum(weights) if weights else ITEMS
    )
    return {"value": mean, "low": mean - 0.1, "high": mean + 0.1, "count": ITEMS, "signature": signature}


def line(when: str, step: int, data: str, gain: float, seed: int) -> list[dict]:
    """Nats per token and accuracy of two dozen items; what is easy for one model is easy for another."""
    weights = [5.0 + number % 4 for number in range(ITEMS)]
    nats = [3 + math.sin(number) - gain * (1 + 0.1 * math.cos(number * (seed + 1))) for number in range(ITEMS)]
    right = [float(math.sin(3 * number) + gain + 0.01 * seed > 0.5) for number in range(ITEMS)]
    sums = [value * weight for value, weight in zip(nats, weights, strict=True)]
    head = {"stage": 0, "step": step, "when": when, "data": data}
    first = {"scores": {"nats_per_token": score(nats, weights, "nats|x")}, "samples": []}
    first |= {"kind": "perplexity", "items": {"nats_per_token.sum": sums, "nats_per_token.weight": weights}}
    second = {"kind": "choice", "scores": {"accuracy": score(right, None, "accuracy|x")}, "samples": []}
    return [head | first, head | second | {"items": {"accuracy": right}}]


def ordered(folder: Path) -> str:
    """What should go wrong with this run, and not again."""
    orders = Path("orders.json")
    told = json.loads(orders.read_text()) if orders.exists() else {}
    what = told.pop("/".join(folder.parts[-2:]), "")
    orders.write_text(json.dumps(told))
    return what


def main(path: str) -> int:
    recipe = YAML(typ="safe").load(Path(path).read_text())
    folder = Path(recipe["output"])
    folder.mkdir(parents=True, exist_ok=True)
    stage, seed = recipe["stages"][0], recipe["seed"]
    kind, rate = stage["adapter"]["kind"], stage["optim"]["learning_rate"]
    what = ordered(folder)
    if what == "fail":
        print("error: step 3: the loss is not finite. Lower the learning rate.", file=sys.stderr)
        return 5
    if what == "wait":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
        Path("waiting").write_text("")
        time.sleep(60)
    gain = GAIN[kind] - 0.2 * abs(math.log(rate / BEST[kind]))
    limit = stage["data"][0]["limit"]
    if limit is not None:
        gain *= min(1.0, limit / ENOUGH[Path(recipe["model"]).name])
    steps = (stage["steps"] or 4) + (what == "more")
    evals = line("during", 0, "validation", 0, seed)[:1] + line("during", steps, "validation", gain, seed)[:1]
    if recipe["test"]:
        evals = line("before", 0, "test", 0, seed) + evals + line("after", steps, "test", gain, seed)
    run = {"format": 1, "id": "x", "status": "done", "created": "2026", "seconds": 9.0, "recipe": recipe}
    run |= {"model": {"name": "tiny", "trainable": 10, "parameters": 1000}, "memory": [{"measured": 2_000_000_000}]}
    run |= {"machine": {"threads": 2}, "summary": {}, "scores": {"test.choice.accuracy": 0.5}, "seed": seed}
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "adapter").mkdir(exist_ok=True)
    lines = [{"stage": 0, "number": n + 1, "tokens": 100, "trained": 40, "seconds": 0.5} for n in range(steps)]
    for name, rows in (("steps.jsonl", lines), ("evals.jsonl", evals)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [{"role": "train", "sha256": "a", "path": "train.jsonl", "used": min(limit or 24, 15)}]
    stages = [{"headline": "nats_per_token", "higher_is_better": False}]
    (folder / "data.json").write_text(json.dumps({"sources": sources, "stages": stages}))
    (folder / "run.json").write_text(json.dumps(run))
    with Path("made.txt").open("a") as stream:
        stream.write(f"{folder}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
