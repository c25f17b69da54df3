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
from mingshi.errors import DivergedError, ModelError
from mingshi.model.attached import PLAIN, Attached, frozen_sample, idle
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
    adapter: Attached = PLAIN

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """All that a checkpoint must hold to go on bit for bit, by the part that it belongs to."""
        more = self.adapter.tensors()
        return self.optimiser.tensors() | ({"adapter": more} if more else {})

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """The inverse of `tensors`."""
        self.optimiser.restore(tensors)
        self.adapter.restore(self.network, tensors.get("adapter", {}))

    def restore_weights(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """The weights alone: to use them, not to train on."""
        self.optimiser.restore_weights(tensors["weights"])
        self.adapter.restore(self.network, tensors.get("adapter", {}))


def train(work: Work, *, start: int = 0) -> Iterator[Step]:
    """Yield one Step after each update, from 0-based step `start` on.

    A loss or a gradient that is not finite ends in DivergedError before any weight has moved. Weights that should move
    and cannot, or move and should not, end in ModelError at the first step that has any gradient.
    """
    work.network.train()
    checked = False
    for number in range(start, work.plan.steps):
        began = time.perf_counter()
        chosen = [work.samples[int(index)] for index in work.plan.indices(number)]
        batches = list(_batches(work, chosen, number))
        weight = math.fsum(batch.weight for batch, _ in batches) or 1.0  # nothing to train on is a loss of zero
        total, metrics = _accumulate(work, batches, weight)
        rate = learning_rate(work.optimiser.optim, peak=work.peak, step=number, steps=work.plan.steps)
        norm = work.optimiser.gradient_norm()
        ids = tuple(sample.id for sample in chosen)
        if not (math.isfinite(total) and math.isfinite(norm)):
            work.optimiser.clear()
            raise diverged(number + 1, total / weight, norm, ids)
        frozen = frozen_sample(work.network) if norm > 0 and not checked else {}
        if norm > 0 and not checked:
            _require_gradients(work)
        work.optimiser.step(rate=rate, norm=norm)
        metrics |= work.adapter.after_step(work.network, number + 1, work.plan.steps)
        work.optimiser.clear()
        _require_still(work, frozen)
        checked = checked or norm > 0
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
            metrics=metrics,
        )


def _batches(work: Work, samples: Sequence[Sample], number: int) -> Iterator[tuple[Batch, int]]:
    """The step's packed streams, each with the seed of its dropout: a function of (seed, step, place) alone."""
    cuts = micro_batches([len(sample.tokens) for sample in samples], work.budget)
    if not work.objective.additive:
        cuts = [list(range(len(samples)))]
    for place, cut in enumerate(cuts):
        batch = work.objective.collate([samples[index] for index in cut], work.device)
        yield batch, (work.seed * 1_000_003 + number) * 1_009 + place


def _accumulate(work: Work, batches: Sequence[tuple[Batch, int]], weight: float) -> tuple[float, dict[str, float]]:
    """Backward through every stream, and the adapter's penalty once; gradients end up in the optimiser's masters.

    Gives the loss's sum, in float64, and the step's metrics, the penalty among them: the loss is without it.
    """
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
    metrics = {name: value / weight for name, value in sums.items()}
    penalty = work.adapter.penalty(work.network)
    if penalty is not None:
        torch.autograd.backward(penalty)
        work.optimiser.gather()
        metrics["penalty"] = float(penalty.detach())
    return total, metrics


def _require_gradients(work: Work) -> None:
    """ModelError names the layers that are meant to train and get no gradient, and the frozen weights that do."""
    named = dict(work.network.named_parameters())
    masters = {weight.name: weight.master.grad for weight in work.optimiser.weights}
    still = idle((name, masters.get(name)) for name, one in named.items() if one.requires_grad)
    if still:
        what = f"{len(still)} layers are meant to train and get no gradient: {_some(still)}"
        raise ModelError(what, "They are not on the way from these rows to the loss: name other layers to train.")
    if pulled := [name for name, one in named.items() if not one.requires_grad and one.grad is not None]:
        raise ModelError(f"{len(pulled)} frozen weights get a gradient: {_some(pulled)}")


def _require_still(work: Work, before: Mapping[str, torch.Tensor]) -> None:
    """ModelError names the frozen weights that are no longer what they were."""
    after = frozen_sample(work.network) if before else {}
    if moved := [name for name, held in before.items() if not torch.equal(after[name], held)]:
        raise ModelError(f"{len(moved)} frozen weights were moved by the first update: {_some(moved)}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def diverged(step: int, loss: float, norm: float, ids: Sequence[str]) -> DivergedError:
    return DivergedError(
        f"step {step}: loss {loss} and gradient norm {norm} are not both finite, on rows {', '.join(ids)}; "
        "no weight was changed by them",
        "Lower optim.learning_rate, or look at these rows with `mingshi preview`.",
    )
