"""Training: a generator of Steps. One optimiser step is one sum over trained tokens divided by one weight.

Nothing here evaluates, saves or prints: whoever draws the steps does, in the body of an ordinary `for`.
"""

from __future__ import annotations

import functools
import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch

from mingshi.data.plan import Plan, micro_batches
from mingshi.errors import DivergedError, ModelError
from mingshi.model.attached import PLAIN, Attached, frozen_sample, idle
from mingshi.model.reference import fingerprint
from mingshi.optim import Optimiser, learning_rate
from mingshi.ranks import ALONE, Ranks, share
from mingshi.shortage import halving
from mingshi.types import Batch, Loss, Network, Sample, Step


class Trained(Protocol):
    """The part of an objective that is trained by."""

    additive: ClassVar[bool]

    def collate(self, samples: Sequence[Sample], device: str) -> Batch: ...

    def loss(self, network: Network, batch: Batch, companion: Any) -> Loss: ...


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """All that a stage's training needs, and nothing of where it came from."""

    network: Network
    objective: Trained
    companion: Any
    samples: Sequence[Sample]
    plan: Plan
    optimiser: Optimiser
    peak: float  # learning rate
    budget: int  # tokens of one packed stream
    device: str
    seed: int
    adapter: Attached = PLAIN
    ranks: Ranks = ALONE

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """All that a checkpoint must hold to go on bit for bit, by the part that it belongs to."""
        more = self.adapter.tensors()
        return self.optimiser.tensors() | ({"adapter": more} if more else {})

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """The inverse of `tensors`."""
        self.optimiser.restore(tensors)
        self.adapter.restore(self.network, tensors.get("adapter", {}))

    def fingerprint(self) -> list[str]:
        """Of all weights, and of those that train: the same on every process that trains the same network."""
        digest = hashlib.sha256()
        for weight in self.optimiser.weights:
            digest.update(weight.master.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        base = [] if self.ranks.divided else [fingerprint(self.network)]  # compared before it was divided
        return [*base, digest.hexdigest()]

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
    budget = work.budget
    scattered = work.ranks.count > 1 and work.objective.additive and not draws(work.network)
    for number in range(start, work.plan.steps):
        began = time.perf_counter()
        chosen = [work.samples[int(index)] for index in work.plan.indices(number)]
        if work.objective.additive and (work.ranks.count == 1 or (scattered and not work.ranks.divided)):
            attempt = functools.partial(_attempt, work, chosen, number, scattered)
            longest = max(len(sample.tokens) for sample in chosen)
            sums, budget = halving(attempt, budget, smallest=longest, drop=work.optimiser.clear)
        else:  # where processes share out streams, all must cut them alike
            sums = _attempt(work, chosen, number, scattered, budget)
        whole, weight, total, metrics = sums
        total, metrics = _over_all(work, total, metrics)
        rate = learning_rate(work.optimiser.optim, peak=work.peak, step=number, steps=work.plan.steps)
        norm = work.optimiser.gradient_norm()
        ids = tuple(sample.id for sample in chosen)
        if not (math.isfinite(total) and math.isfinite(norm)):
            work.optimiser.clear()
            raise diverged(number + 1, total / weight, norm, ids)
        sampled = norm > 0 and not checked and not work.ranks.divided  # a divided base is in no optimiser
        frozen = frozen_sample(work.network) if sampled else {}
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
            tokens=sum(len(batch.tokens) for batch in whole),
            trained=sum(len(batch.target) for batch in whole),
            seconds=time.perf_counter() - began,
            ids=ids,
            metrics=metrics,
            stream=budget,
        )


def _attempt(
    work: Work, chosen: Sequence[Sample], number: int, scattered: bool, budget: int
) -> tuple[list[Batch], float, float, dict[str, float]]:
    """A step's batches, their weight, and what `_accumulate` gives, in streams of so many tokens at most."""
    batches = list(_batches(work, chosen, number, budget, scattered=scattered))
    whole = [batch for batch, _ in batches]
    if work.ranks.count > 1:  # each knows the whole step without asking
        whole = [work.objective.collate(chosen, "cpu")]
    weight = math.fsum(batch.weight for batch in whole) or 1.0  # nothing to train on is a loss of zero
    return whole, weight, *_accumulate(work, batches, weight)


def _batches(
    work: Work, samples: Sequence[Sample], number: int, budget: int, *, scattered: bool
) -> Iterator[tuple[Batch, int]]:
    """This process's packed streams of a step, each with the seed of its dropout.

    The seed is a function of (seed, step, place) alone, and so is what lies at a place: with dropout, processes share
    out the very streams that one would compute. Without it a step may be `scattered`: shared out sample by sample.
    Through a divided network all go equally often: whoever has fewer streams adds some of weight zero.
    """
    lengths = [len(sample.tokens) for sample in samples]
    if scattered:
        shares = [
            list(enumerate([mine[index] for index in cut] for cut in micro_batches([lengths[i] for i in mine], budget)))
            for mine in share(lengths, work.ranks.count)
        ]
    else:
        whole = micro_batches(lengths, budget) if work.objective.additive else [list(range(len(samples)))]
        sizes = [sum(lengths[index] for index in cut) for cut in whole]
        shares = [[(place, whole[place]) for place in mine] for mine in share(sizes, work.ranks.count)]
    for place, cut in shares[work.ranks.number]:
        batch = work.objective.collate([samples[index] for index in cut], work.device)
        yield batch, (work.seed * 1_000_003 + number) * 1_009 + place
    if work.ranks.divided:
        batch = work.objective.collate([min(samples, key=lambda one: len(one.tokens))], work.device)
        silent = replace(batch, weights=torch.zeros_like(batch.weights), weight=0.0)
        for _ in range(max(map(len, shares)) - len(shares[work.ranks.number])):
            yield silent, 0


def draws(network: Network) -> bool:
    """Does the network draw random numbers while it trains, by its settings or by what was put into it?"""
    settings = network.config.get_text_config().to_dict()
    set_to = (settings[name] for name in settings if "drop" in name)
    return any(isinstance(value, float) and value > 0 for value in set_to) or any(
        isinstance(module, torch.nn.Dropout) and module.p > 0 for module in network.modules()
    )


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
    penalty = work.adapter.penalty(work.network) if work.ranks.first else None
    if penalty is not None:
        torch.autograd.backward(penalty)
        work.optimiser.gather()
        metrics["penalty"] = float(penalty.detach())
    return total, metrics


def _over_all(work: Work, total: float, metrics: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """Both, and the gradients, over all processes."""
    found = work.ranks.added({"": total, **metrics})
    work.ranks.add_gradients([one.master for one in work.optimiser.weights])
    return found.pop(""), found


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
