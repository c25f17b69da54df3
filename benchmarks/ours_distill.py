"""This project's side of distillation: `python -m benchmarks.ours_distill TASK`. Prints a `DistillOutcome`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.encoded import texts
from benchmarks.ours import STREAM, adapted, sample, trained, work
from benchmarks.rows import fingerprint, read_rows
from benchmarks.side import answer
from benchmarks.task import DistillOutcome, DistillTask
from mingshi.display import Silent
from mingshi.objectives.distill import Distill, Teacher


def run_ours(task: DistillTask, *, stream: int = STREAM) -> DistillOutcome:
    """Train the task, its teacher asked here and now: nothing that an earlier run kept is read."""
    rows = read_rows(Path(task.rows))
    samples = [replace(sample(row, str(number)), row=number) for number, row in enumerate(rows)]
    model, objective = adapted(task), Distill(teachers=(Teacher(model=task.teacher),), alpha=task.alpha)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        companion = objective.companion(model, samples, folder=Path(folder), budget=stream, display=Silent())
        seconds = time.perf_counter() - began
        prepared = work(task, model, samples, objective, companion=companion, stream=stream, order=task.order)
        seen = (row for sample in samples for row in texts(objective.collate([sample], "cpu")))
        lengths = [len(row.tokens) for row in rows]
        outcome, _ = trained(prepared, lengths, lengths, fingerprint((row.tokens, row.mask) for row in seen))
    return DistillOutcome(**asdict(outcome), teacher_seconds=seconds)


if __name__ == "__main__":
    answer(run_ours, DistillTask)
