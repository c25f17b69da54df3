"""What each reshaping of the computation gives: `python -m benchmarks ways`.

One process trains the benchmark's rows with the network as it is and with one thing changed, in turns, each change
with a network of its own, and prints the median seconds of a step. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from unittest.mock import patch

import torch

from benchmarks.environment import ROOT
from benchmarks.ours import STREAM, adapted, sample, work
from benchmarks.prepare import Request, prepare
from benchmarks.rows import read_rows
from benchmarks.side_by_side import WORK, refuse_if_busy
from benchmarks.task import ALLOCATOR, BATCH, Task
from mingshi.loop import Work, train
from mingshi.model import attended, attention, load, lora_linear
from mingshi.model.assets import asset_folder
from mingshi.objectives import Sft

Change = Callable[[], AbstractContextManager[object]]


def by_autograd(
    query_THD: torch.Tensor,
    key_TGD: torch.Tensor,
    value_TGD: torch.Tensor,
    places: attended.Places,
    masks: Sequence[attended.Mask],
    rule: attended.Rule,
) -> torch.Tensor:
    """Packed attention whose backward torch makes, from the same gathers, products and softmax."""
    queries = query_THD.flatten(0, 1).index_select(0, places.queries)
    keys, values = (rows.flatten(0, 1).index_select(0, places.keys) for rows in (key_TGD, value_TGD))
    outputs = []
    for part, mask in zip(places.parts(), masks, strict=True):
        query, key, value = attended.pairs(places, part, queries, keys, values)
        scores = torch.bmm(query * rule.scaling, key.transpose(1, 2))
        scores.view(part.items, places.heads, part.height, part.width)[..., mask.first :].add_(mask.values)
        outputs.append(torch.bmm(torch.softmax(scores, dim=-1), value).flatten(0, 1))
    return torch.cat(outputs).index_select(0, places.order).view(len(query_THD), places.heads, -1)


CHANGES: dict[str, Change] = {
    "as it is": nullcontext,
    "attention by autograd": lambda: patch.object(attention, "attended", by_autograd),
    "attention in blocks of 256": lambda: patch.object(attention, "BLOCKS", (256, 256)),
    "stock attention and last layer": lambda: patch.object(load, "streamline", lambda network: False),
    "beginnings read for each text": lambda: patch.object(attention, "share_prefixes", lambda *stream: None),
    "frozen weights in their own layout": lambda: patch.object(lora_linear, "PACKED_BYTES", 0),
}


def step_seconds(prepared: Work, change: Change) -> float:
    """One pass over the rows, seconds a step."""
    began = time.perf_counter()
    with change():
        steps = list(train(prepared))
    return (time.perf_counter() - began) / len(steps)


def measure(task: Task, rounds: int) -> dict[str, list[float]]:
    """Seconds a step of every change, round by round, without the first, which warms up."""
    samples = [sample(row, str(number)) for number, row in enumerate(read_rows(Path(task.rows)))]
    prepared = {}
    for name, change in CHANGES.items():
        with change():
            prepared[name] = work(task, adapted(task), samples, Sft(), stream=STREAM)
    found: dict[str, list[float]] = {name: [] for name in CHANGES}
    for number in range(rounds + 1):
        for name, change in CHANGES.items():
            seconds = step_seconds(prepared[name], change)
            if number:
                found[name].append(seconds)
                print(f"round {number} of {rounds}: {name}: {seconds:.2f} s a step", file=sys.stderr)
    return found


def main(words: Sequence[str] | None = None) -> int:
    line = argparse.ArgumentParser(prog="python -m benchmarks ways", description=(__doc__ or "").split(":")[0])
    line.add_argument("--rounds", type=int, default=7)
    line.add_argument("--steps", type=int, default=2, help="steps of a round")
    line.add_argument("--force", action="store_true", help="measure on a busy machine too")
    line.add_argument("--json", action="store_true")
    given = sys.argv[1:] if words is None else words
    chosen = line.parse_args(given)
    refuse_if_busy(chosen.force)
    if not ALLOCATOR.items() <= os.environ.items():  # read when a process starts
        os.execve(sys.executable, [sys.executable, "-m", "benchmarks.ways", *given], {**os.environ, **ALLOCATOR})
    model = str(asset_folder("smollm2-135m"))
    rows = str(ROOT / "data" / "docstrings" / "train.jsonl")
    made = prepare(Request(model=model, data=rows, folder=str(WORK / "ways"), count=chosen.steps * BATCH))
    task = Task(model=model, warm_up=0, steps=chosen.steps, **made["task"])
    found = measure(task, chosen.rounds)
    usual = statistics.median(found["as it is"])
    if chosen.json:
        print(json.dumps(found))
        return 0
    for name, seconds in found.items():
        middle = statistics.median(seconds)
        print(f"{name:36} {middle:5.2f} s ({min(seconds):.2f} to {max(seconds):.2f})  {middle / usual - 1:+.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
