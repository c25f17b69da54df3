"""This project's side of the preference pairs: `python -m benchmarks.ours_dpo TASK`. Prints a `PairOutcome`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.encoded import texts
from benchmarks.ours import STREAM, adapted, trained, work
from benchmarks.pairs import Pair, pairs_fingerprint, read_pairs
from benchmarks.rows import Row
from benchmarks.side import answer
from benchmarks.task import PairOutcome, PairTask
from mingshi.display import Silent
from mingshi.objectives.dpo import Dpo, pair
from mingshi.types import Rendered, Sample


def sample(given: Pair, row: int) -> Sample:
    """A pair as the objective encodes it."""
    chosen, rejected = (_rendered(text) for text in given.texts())
    return replace(pair(chosen, rejected, str(row)), row=row)


def _rendered(text: Row) -> Rendered:
    weights = tuple(float(bit) for bit in text.mask)
    return Rendered(tokens=text.tokens, weights=weights, reasons=("",) * len(weights))


def run_ours(task: PairTask, *, stream: int = STREAM) -> PairOutcome:
    """Train the task, its reference computed here and now: nothing that an earlier run kept is read."""
    pairs = read_pairs(Path(task.rows))
    samples = [sample(given, row) for row, given in enumerate(pairs)]
    model, objective = adapted(task), Dpo(beta=task.beta)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        companion = objective.companion(model, samples, folder=Path(folder), budget=stream, display=Silent())
    seconds = time.perf_counter() - began
    prepared = work(task, model, samples, objective, companion=companion, stream=stream)
    seen = pairs_fingerprint(_seen(objective, sample) for sample in samples)
    outcome, steps = trained(prepared, [pair.tokens for pair in pairs], [pair.written for pair in pairs], seen)
    return PairOutcome(
        **asdict(outcome),
        margins=[step.metrics["reward_margin"] for step in steps],
        accuracies=[step.metrics["reward_accuracy"] for step in steps],
        reference_seconds=seconds,
    )


def _seen(objective: Dpo, sample: Sample) -> tuple[Row, Row]:
    chosen, rejected = texts(objective.collate([sample], "cpu"))
    return chosen, rejected


if __name__ == "__main__":
    answer(run_ours, PairTask)
