"""This project's side of distillation: `python -m benchmarks.ours_distill TASK`. Prints a `DistillOutcome`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.encoded import texts
from benchmarks.ours import STREAM, adapted, sample, trained, work
from benchmarks.rows import fingerprint, read_rows
from benchmarks.side import answer
from benchmarks.task import DistillOutcome, DistillTask
from mingshi.display import Silent
from mingshi.model import teachers
from mingshi.objectives.distill import Distill, Teacher


def run_ours(task: DistillTask, *, stream: int = STREAM) -> DistillOutcome:
    """Train the task, its teacher asked here and now: nothing that an earlier run kept is read."""
    rows = read_rows(Path(task.rows))
    samples = [replace(sample(row, str(number)), row=number) for number, row in enumerate(rows)]
    model, objective = adapted(task), Distill(teachers=(Teacher(model=task.teacher),), alpha=task.alpha)
    with tempfile.TemporaryDirectory() as folder, loading_timed() as loading:
        began = time.perf_counter()
        companion = objective.companion(model, samples, folder=Path(folder), budget=stream, display=Silent())
        seconds = time.perf_counter() - began - sum(loading)
        prepared = work(task, model, samples, objective, companion=companion, stream=stream, order=task.order)
        seen = (row for sample in samples for row in texts(objective.collate([sample], "cpu")))
        lengths = [len(row.tokens) for row in rows]
        outcome, _ = trained(prepared, lengths, lengths, fingerprint((row.tokens, row.mask) for row in seen))
    return DistillOutcome(**asdict(outcome), teacher_seconds=seconds)


@contextmanager
def loading_timed() -> Iterator[list[float]]:
    """Seconds that each teacher took to load: the loop's is loaded before anything is timed."""
    honest, seconds = teachers.load, []

    def timed(*arguments: Any, **settings: Any) -> Any:
        began = time.perf_counter()
        model = honest(*arguments, **settings)
        seconds.append(time.perf_counter() - began)
        return model

    teachers.load = timed
    try:
        yield seconds
    finally:
        teachers.load = honest


if __name__ == "__main__":
    answer(run_ours, DistillTask)
