"""This project's side: `python -m benchmarks.ours TASK`, TASK as JSON. Prints one JSON line, an `Outcome`."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
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
from benchmarks.side import answer
from benchmarks.task import Outcome, Task, resident_bytes
from mingshi.data.plan import micro_batches
from mingshi.data.prefixes import share_prefixes
from mingshi.loop import Work, train
from mingshi.model.adapters import Full, Lora
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
    """A plan that takes the rows as they stand in the file, or its steps in another order."""

    def __init__(self, order: Sequence[int], batch: int):
        self.order, self.batch = order, batch
        self.steps = self.steps_per_epoch = len(order)

    def indices(self, step: int) -> np.ndarray:
        return np.arange(self.order[step] * self.batch, (self.order[step] + 1) * self.batch)


def adapted(task: Task) -> Model:
    """The model with the LoRA weights of the task, or with all its weights to train."""
    model = load(task.model)
    if not task.adapter:
        Full().attach(model, seed=0)
        return model
    saved = json.loads((Path(task.adapter) / "adapter_config.json").read_text())
    Lora(rank=saved["r"], alpha=saved["lora_alpha"]).attach(model, seed=0)
    weights = load_file(Path(task.adapter) / "adapter_model.safetensors")
    result: Any = peft.set_peft_model_state_dict(model.adapter, weights)
    if result.unexpected_keys or any("lora_" in key for key in result.missing_keys):
        raise ValueError("the adapter of the task does not fit the model's modules")
    return model


def work(
    task: Task,
    model: Model,
    samples: Sequence[Sample],
    objective: Objective,
    *,
    companion: Any = None,
    stream: int,
    order: Sequence[int] | None = None,
) -> Work:
    """The task as the loop takes it, its steps as they stand in the file if no other order is given."""
    return Work(
        network=model.network,
        objective=objective,
        companion=companion,
        samples=samples,
        plan=InOrder(order or range(task.warm_up + task.steps), task.batch),
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
    lengths = [len(row.tokens) for row in rows]
    outcome, _ = trained(prepared, lengths, lengths, fingerprint((row.tokens, row.mask) for row in seen))
    return outcome


def trained(prepared: Work, lengths: Sequence[int], written: Sequence[int], seen: str) -> tuple[Outcome, list[Step]]:
    """Train, and what it came to. `seconds` are from one step's end to the next, the first from the start of training.

    `lengths` are each sample's real tokens, whole: the last token of a text, which only is predicted, is one that the
    peer reads too. `written` are those of all its texts, each from its beginning. `seen` is the fingerprint of what
    the objective collates.
    """
    before = {weight.name: weight.master.detach().clone() for weight in prepared.optimiser.weights}
    loaded = resident_bytes()
    times, steps = [time.perf_counter()], list[Step]()
    for step in train(prepared):
        steps.append(step)
        times.append(time.perf_counter())
    changes = [
        float((weight.master.detach() - before[weight.name]).abs().max()) for weight in prepared.optimiser.weights
    ]
    taken = [prepared.plan.indices(step.number - 1).tolist() for step in steps]
    read = [tokens_read(prepared, indices) for indices in taken]
    outcome = Outcome(
        fingerprint=seen,
        seconds=[end - start for start, end in pairwise(times)],
        real=[sum(lengths[index] for index in indices) for indices in taken],
        processed=read,
        read=read,
        written=[sum(written[index] for index in indices) for indices in taken],
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


def tokens_read(prepared: Work, indices: Sequence[int]) -> int:
    """What the network reads of these samples, packed as the loop packs them, beginnings in common once."""
    samples = [prepared.samples[index] for index in indices]
    cuts = micro_batches([len(sample.tokens) for sample in samples], prepared.budget)
    if not prepared.objective.additive:
        cuts = [list(range(len(samples)))]
    count = 0
    for cut in cuts:
        batch = prepared.objective.collate([samples[place] for place in cut], "cpu")
        shared = share_prefixes(batch.tokens.numpy(), batch.segments)
        count += len(batch.tokens) if shared is None else len(shared.rows)
    return count


if __name__ == "__main__":
    answer(run_ours, Task)
