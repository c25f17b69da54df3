"""Merging by task vectors: what training added to one base, put together tensor by tensor.

A task vector is trained weights less their base (Ilharco et al. 2023, arXiv:2212.04089). An adapter's is `s B A`: never
are two adapters' A and B merged each for itself, for a product of sums is no sum of products.

Letters: `K` models, `I` inputs, `O` outputs, `r` rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator

from mingshi.types import Settings

TRIMMED, DROPPED = 0.2, 0.5  # shares of the numbers that ties and dare keep, unless told


class Merge(Settings):
    """How task vectors become one, which is then added to the base."""

    method: Literal["cat", "average", "arithmetic", "ties", "dare", "svd"]
    """average: their mean (model soup, Wortsman et al. 2022); arithmetic: `scale` times their sum; cat: the same of
    adapters alone, exactly, side by side; svd: the same as an adapter of one `rank`; ties: trimmed, and averaged where
    they agree in sign (Yadav et al. 2023, arXiv:2306.01708); dare: thinned at random and made up for (Yu et al. 2023,
    arXiv:2311.03099)."""
    weights: tuple[float, ...] | None = None
    """One for each model; left out, all count alike: 1, or of an average a K-th."""
    scale: float = 1.0
    """What the merged task vector is multiplied by: lambda. One model and 0.5 is WiSE-FT (Wortsman et al. 2021)."""
    density: float | None = Field(default=None, gt=0, le=1)
    """The share of numbers that ties and dare keep; left out, 0.2 and 0.5."""
    rank: int | None = Field(default=None, ge=1)
    """Of the adapter that comes out, found by singular values; svd takes the largest of the adapters' by default."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of what dare drops."""

    @model_validator(mode="after")
    def _fits(self) -> Merge:
        if self.density is not None and self.method not in ("ties", "dare"):
            raise ValueError(f"density: {self.method} keeps every number. Leave it out, or use ties or dare.")
        if self.rank is not None and self.method == "cat":
            raise ValueError("rank: cat keeps all ranks. Use svd.")
        if self.method == "average" and self.weights is not None and not sum(self.weights) > 0:
            raise ValueError("weights: an average needs a sum above zero. Or use arithmetic.")
        return self

    @property
    def kept(self) -> float:
        """The share of numbers that are kept."""
        usual = {"ties": TRIMMED, "dare": DROPPED}
        return self.density if self.density is not None else usual.get(self.method, 1.0)

    @property
    def linear(self) -> bool:
        """Is the result a weighted sum of the task vectors?"""
        return self.method not in ("ties", "dare")

    def factors(self, count: int) -> list[float]:
        """What each of `count` task vectors is multiplied by; for ties before the mean of those that agree."""
        weights = list(self.weights) if self.weights is not None else [1.0] * count
        total = sum(weights) if self.method == "average" else 1.0
        return [self.scale * weight / total for weight in weights]

    def shares(self, count: int) -> list[float]:
        """The weights as shares of one."""
        weights = list(self.weights) if self.weights is not None else [1.0] * count
        total = sum(weights)
        return [weight / total for weight in weights] if total else [1 / count] * count


def merged(tasks: Sequence[torch.Tensor], how: Merge, generator: torch.Generator) -> torch.Tensor:
    """One task vector of several, of the same shape.

    Norms and biases (fewer than two dimensions) are few numbers that all matter: ties and dare take `scale` times their
    weighted mean instead of trimming them.
    """
    weights = how.factors(len(tasks))
    if how.linear:
        return total(tasks, weights)
    if tasks[0].ndim < 2:
        return total(tasks, [how.scale * share for share in how.shares(len(tasks))])
    if how.method == "ties":
        return ties(tasks, weights, density=how.kept)
    return dare(tasks, weights, density=how.kept, generator=generator)


def total(tasks: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    """`sum_k w_k t_k`: task arithmetic, and with weights that sum to one the average."""
    summed = torch.zeros_like(tasks[0])
    for task, weight in zip(tasks, weights, strict=True):
        summed.add_(task, alpha=weight)
    return summed


def trim(task: torch.Tensor, density: float) -> torch.Tensor:
    """The largest numbers, a share `density` of them; the others are zero."""
    if density >= 1:
        return task
    flat = task.reshape(-1)
    kept = flat.abs().topk(int(density * flat.numel())).indices
    return torch.zeros_like(flat).index_copy_(0, kept, flat[kept]).view_as(task)


def ties(tasks: Sequence[torch.Tensor], weights: Sequence[float], *, density: float) -> torch.Tensor:
    """TIES (Yadav et al. 2023, section 3): trim each; the sign of their sum is elected; mean over those that have it.

    Each tensor is trimmed for itself, as in peft: the share that is kept is then the same in every layer.
    """
    tasks_K = torch.stack([trim(task, density) for task in tasks])
    elected = torch.where(tasks_K.sum(dim=0) >= 0, 1.0, -1.0)
    agrees_K = tasks_K.sign() == elected
    weights_K = torch.tensor(weights, dtype=tasks_K.dtype).view(-1, *[1] * tasks[0].ndim)
    summed: torch.Tensor = (tasks_K * weights_K * agrees_K).sum(dim=0)
    return summed / agrees_K.sum(dim=0).clamp(min=1)


def dare(
    tasks: Sequence[torch.Tensor], weights: Sequence[float], *, density: float, generator: torch.Generator
) -> torch.Tensor:
    """DARE (Yu et al. 2023, equation 2): drop with probability `1 - density`, divide the rest by `density`, and add."""
    thinned = []
    for task in tasks:
        kept = torch.bernoulli(torch.full_like(task, density), generator=generator)
        thinned.append(task * kept / density)
    return total(thinned, weights)


class LowRank(NamedTuple):
    """An update `up down` of a layer, its scale folded into `up`."""

    down_rI: torch.Tensor
    up_Or: torch.Tensor

    @property
    def rank(self) -> int:
        return len(self.down_rI)

    def dense(self) -> torch.Tensor:
        """`[O, I]`."""
        return self.up_Or @ self.down_rI


def side_by_side(updates: Sequence[LowRank], weights: Sequence[float]) -> LowRank:
    """`sum_k w_k B_k A_k = [w_1 B_1, w_2 B_2, …] [A_1; A_2; …]`: exact, of the sum of the ranks."""
    down_rI = torch.cat([update.down_rI for update in updates])
    up_Or = torch.cat([weight * update.up_Or for update, weight in zip(updates, weights, strict=True)], dim=1)
    return LowRank(down_rI, up_Or)


def truncated(update: LowRank, rank: int) -> tuple[LowRank, float, float]:
    """The nearest update of this rank (Eckart-Young), and two squared Frobenius norms: of what is lost, and of all.

    The singular values of `up down` are those of `R_up R_down^T`, which is as small as the ranks.
    """
    turn_up, inner_up = torch.linalg.qr(update.up_Or.double())
    turn_down, inner_down = torch.linalg.qr(update.down_rI.double().T)
    left, values, right = torch.linalg.svd(inner_up @ inner_down.T)
    return _cut(turn_up @ left, values, right @ turn_down.T, rank)


def nearest(update_OI: torch.Tensor, rank: int) -> tuple[LowRank, float, float]:
    """The same for an update that is given as one matrix."""
    left, values, right = torch.linalg.svd(update_OI.double(), full_matrices=False)
    return _cut(left, values, right, rank)


def _cut(left: torch.Tensor, values: torch.Tensor, right: torch.Tensor, rank: int) -> tuple[LowRank, float, float]:
    roots = values[:rank].sqrt()
    update = LowRank((roots[:, None] * right[:rank]).float(), (left[:, :rank] * roots).float())
    return update, float(values[rank:].square().sum()), float(values.square().sum())
