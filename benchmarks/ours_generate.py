"""This project's answers to prompts: `python -m benchmarks.ours_generate TASK`. Prints an `Answered`."""

from __future__ import annotations

import time
from pathlib import Path

import torch

import mingshi
from benchmarks.rows import fingerprint, read_rows
from benchmarks.side import answer
from benchmarks.task import Answered, GenerateTask, resident_bytes
from mingshi.model.generate import generate
from mingshi.model.load import load


def run_ours(task: GenerateTask) -> Answered:
    """Answer the warm-up's prompts, and then the others, each pass timed."""
    rows, model = read_rows(Path(task.rows)), load(task.model)
    first = task.warm_up * task.batch
    loaded, seconds, made = resident_bytes(), [], []
    for part in (rows[:first], rows[first:]):
        began = time.perf_counter()
        made.append(generate(model, [row.tokens for row in part], max_new_tokens=task.new_tokens))
        seconds.append(time.perf_counter() - began)
    return Answered(
        fingerprint=fingerprint((row.tokens, row.mask) for row in rows),
        seconds=seconds,
        real=[sum(len(one.tokens) for one in part) for part in made],
        answers=[list(one.tokens) for one in made[1]],
        loaded_bytes=loaded,
        peak_bytes=resident_bytes("VmHWM"),
        versions={"mingshi": mingshi.__version__, "torch": torch.__version__},
    )


if __name__ == "__main__":
    answer(run_ours, GenerateTask)
