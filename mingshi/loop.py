"""Training: a generator of Steps. One optimiser step is one sum over trained tokens divided by one weight.

Nothing here evaluates, saves or prints: whoever draws the steps does, in the body of an ordinary `for`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mingshi.data.plan import Plan, micro_batches
from mingshi.errors import DivergedError
from mingshi.optim import Optimiser, learning_rate
from mingshi.types import Batch, Network, Objective, Sample, Step


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """All that a stage's training needs, and nothing of where it came from."""

    network: Network
    objective: Objective
    companion: Any
    samples: Sequence[Sample]
    plan: Plan
    optimiser: Optimiser
    peak: float  # learning rate
    budget: int  # tokens of one packed stream
    device: str
    seed: int


def train(work: Work, *, start: int = 0) -> Iterator[Step]:
    """Yield one Step after each update, from 0-based step `start` on.

    A loss or a gradient that is not finite ends in DivergedError before any weight has moved.
    """
    work.network.train()
    for number in range(start, work.plan.steps):
        began = time.perf_counter()
        chosen = [work.samples[int(index)] for index in work.plan.indices(number)]
        batches = list(_batches(work, chosen, number))
        weight = math.fsum(batch.weight for batch, _ in batches) or 1.0  # nothing to train on is a loss of zero
        total, sums = _accumulate(work, batches, weight)
        rate = learning_rate(work.optimiser.optim, peak=work.peak, step=number, steps=work.plan.steps)
        norm = work.optimiser.gradient_norm()
        ids = tuple(sample.id for sample in chosen)
        if not (math.isfinite(total) and math.isfinite(norm)):
            work.optimiser.clear()
            raise diverged(number + 1, total / weight, norm, ids)
        work.optimiser.step(rate=rate, norm=norm)
        yield Step(
            number=number + 1,
            epoch=(number + 1) / work.plan.steps_per_epoch,
            loss=total / weight,
            learning_rate=rate,
            gradient_norm=norm,
            tokens=sum(len(batch.tokens) for batch, _ in batches),
            trained=sum(len(batch.target) for batch, _ in batches),
            seconds=time.perf_counter() - began,
            ids=ids,
            metrics={name: value / weight for name, value in sums.items()},
        )


def _batches(work: Work, samples: Sequence[Sample], number: int) -> Iterator[tuple[Batch, int]]:
    """The step's packed streams, each with the seed of its dropout: a function of (seed, step, place) alone."""
    cuts = micro_batches([len(sample.tokens) for sample in samples], work.budget)
    if not work.objective.additive:
        cuts = [list(range(len(samples)))]
    for place, cut in enumerate(cuts):
        batch = work.objective.collate([samples[index] for index in cut], work.device)
        yield batch, (work.seed * 1_000_003 + number) * 1_009 + place


def _accumulate(work: Work, batches: Sequence[tuple[Batch, int]], weight: float) -> tuple[float, Mapping[str, float]]:
    """Backward through every stream; gradients end up in the optimiser's masters, the loss's sum in float64."""
    total = 0.0
    sums: dict[str, float] = {}
    for batch, seed in batches:
        torch.manual_seed(seed % (2**63))
        loss = work.objective.loss(work.network, batch, work.companion)
        torch.autograd.backward(loss.sum / weight)
        work.optimiser.gather()
        total += float(loss.sum.detach())
        for name, value in loss.metrics.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
    return total, sums


def diverged(step: int, loss: float, norm: float, ids: Sequence[str]) -> DivergedError:
    return DivergedError(
        f"step {step}: loss {loss} and gradient norm {norm} are not both finite, on rows {', '.join(ids)}; "
        "no weight was changed by them",
        "Lower optim.learning_rate, or look at these rows with `mingshi preview`.",
    )
