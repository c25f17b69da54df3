"""This project's side: `python -m benchmarks.ours TASK`, TASK as JSON. Prints one JSON line, an `Outcome`."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from safetensors.torch import load_file

import mingshi
from benchmarks.encoded import texts
from benchmarks.rows import Row, fingerprint, read_rows
from benchmarks.task import Outcome, Task, resident_bytes
from mingshi.loop import Work, train
from mingshi.model.adapters import Lora
from mingshi.model.load import Model, load
from mingshi.objectives import Sft
from mingshi.optim import Optim, Optimiser
from mingshi.recipe import Recipe
from mingshi.types import Objective, Sample, Step

STREAM: int = Recipe.model_fields["stream"].default


def sample(row: Row, name: str) -> Sample:
    """A row as the objective would encode it: a prediction for each token of the mask."""
    mask = np.asarray(row.mask, dtype=bool)
    mask[:1] = False
    target = np.flatnonzero(mask)
    tokens = np.asarray(row.tokens, dtype=np.int32)
    read = tokens[: target[-1]]
    return Sample(
        tokens=read,
        segments=np.array([[0, len(read), -1]], dtype=np.int32),
        source=(target - 1).astype(np.int32),
        target=tokens[target],
        weight=np.ones(len(target), dtype=np.float32),
        sequence=np.zeros(len(target), dtype=np.int32),
        id=name,
    )


class InOrder:
    """A plan that takes the rows as they stand in the file."""

    def __init__(self, steps: int, batch: int):
        self.steps, self.batch, self.steps_per_epoch = steps, batch, steps

    def indices(self, step: int) -> np.ndarray:
        return np.arange(step * self.batch, (step + 1) * self.batch)


def adapted(task: Task) -> Model:
    """The model with the LoRA weights of the task."""
    model = load(task.model)
    saved = json.loads((Path(task.adapter) / "adapter_config.json").read_text())
    Lora(rank=saved["r"], alpha=saved["lora_alpha"]).attach(model, seed=0)
    weights = load_file(Path(task.adapter) / "adapter_model.safetensors")
    result: Any = peft.set_peft_model_state_dict(model.adapter, weights)
    if result.unexpected_keys or any("lora_" in key for key in result.missing_keys):
        raise ValueError("the adapter of the task does not fit the model's modules")
    return model


def work(
    task: Task, model: Model, samples: Sequence[Sample], objective: Objective, *, companion: Any = None, stream: int
) -> Work:
    """The task as the loop takes it."""
    return Work(
        network=model.network,
        objective=objective,
        companion=companion,
        samples=samples,
        plan=InOrder(task.warm_up + task.steps, task.batch),
        optimiser=Optimiser(model.network.named_parameters(), Optim(schedule="constant", warmup=0, clip=task.clip)),
        peak=task.learning_rate,
        budget=stream,
        device=model.device,
        seed=0,
    )


def run_ours(task: Task, *, stream: int = STREAM) -> Outcome:
    """Train the task."""
    rows = read_rows(Path(task.rows))
    samples = [sample(row, str(number)) for number, row in enumerate(rows)]
    prepared = work(task, adapted(task), samples, Sft(), stream=stream)
    seen = (row for sample in samples for row in texts(prepared.objective.collate([sample], "cpu")))
    outcome, _ = trained(
        prepared, [len(row.tokens) for row in rows], fingerprint((row.tokens, row.mask) for row in seen)
    )
    return outcome


def trained(prepared: Work, lengths: Sequence[int], seen: str) -> tuple[Outcome, list[Step]]:
    """Train, and what it came to. `seconds` are from one step's end to the next, the first from the start of training.

    `lengths` are each sample's real tokens, whole: the last token of a text, which only is predicted, is one that the
    peer reads too. `seen` is the fingerprint of what the objective collates.
    """
    before = {weight.name: weight.master.detach().clone() for weight in prepared.optimiser.weights}
    loaded = resident_bytes()
    times, steps = [time.perf_counter()], list[Step]()
    for step in train(prepared):
        steps.append(step)
        times.append(time.perf_counter())
    changes = [float((weight.master - before[weight.name]).abs().max()) for weight in prepared.optimiser.weights]
    taken = [prepared.plan.indices(step.number - 1).tolist() for step in steps]
    outcome = Outcome(
        fingerprint=seen,
        seconds=[end - start for start, end in pairwise(times)],
        real=[sum(lengths[index] for index in indices) for indices in taken],
        processed=[step.tokens for step in steps],
        trained=[step.trained for step in steps],
        losses=[step.loss for step in steps],
        gradient_norms=[step.gradient_norm for step in steps],
        change=max(changes),
        loaded_bytes=loaded,
        peak_bytes=resident_bytes("VmHWM"),
        versions={"mingshi": mingshi.__version__, "torch": torch.__version__},
        settings={"stream": str(prepared.budget)},
    )
    return outcome, steps


def answer(task: type[Task], run: Callable[..., Outcome]) -> None:
    """Read the task from the command line, and options of `run` after it; print the outcome alone."""
    given, options = task(**json.loads(sys.argv[1])), json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    with contextlib.redirect_stdout(sys.stderr):
        outcome = run(given, **options)
    print(outcome.dumps())


if __name__ == "__main__":
    answer(Task, run_ours)
