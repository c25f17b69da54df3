"""Optimisers, schedules as pure functions of progress, and float32 masters for weights that compute in less."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from mingshi.types import Settings

if TYPE_CHECKING:
    import torch


class Optim(Settings):
    """AdamW with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    learning_rate: float | None = Field(default=None, gt=0)
    """The peak; None: the adapter's own default, printed with its reason."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = Field(default=0.05, ge=0)
    """Below 1 a share of all steps, otherwise a number of steps."""
    final: float = Field(default=0.0, ge=0, le=1)
    """Where cosine and linear end, as a share of the peak."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Applied to matrices only: vectors (biases, norms, single rows and columns) are never decayed."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    clip: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm; None: no clipping."""


def learning_rate(optim: Optim, *, peak: float, step: int, steps: int) -> float:
    """The rate of a 0-based step of `steps`: linear warm-up from 1/w of the peak, then the schedule."""
    warmup = min(steps, round(optim.warmup * steps) if optim.warmup < 1 else int(optim.warmup))
    if step < warmup:
        return peak * (step + 1) / warmup
    if optim.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, steps - warmup)
    falling = 0.5 * (1 + math.cos(math.pi * progress)) if optim.schedule == "cosine" else 1 - progress
    return peak * (optim.final + (1 - optim.final) * falling)


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A parameter that trains: the one the network computes with, and the float32 one that the optimiser moves."""

    name: str
    parameter: torch.nn.Parameter
    master: torch.nn.Parameter  # the same object where the parameter is float32 itself


class Optimiser:
    """AdamW over float32 masters. Gradients are summed in float32, whatever the network computes in."""

    def __init__(
        self,
        named: Iterable[tuple[str, torch.nn.Parameter]],
        optim: Optim,
        *,
        rate: Callable[[str], float] = lambda name: 1.0,
    ):
        """`rate`: how many times the schedule's learning rate the parameter of a name learns at."""
        import torch

        self.optim = optim
        self.weights = [_weight(name, parameter) for name, parameter in named if parameter.requires_grad]
        groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
        for weight in self.weights:
            decay = optim.weight_decay if _is_matrix(weight.master) else 0.0
            groups.setdefault((decay, rate(weight.name)), []).append(weight.master)
        self.adam = torch.optim.AdamW(
            [{"params": masters, "weight_decay": decay, "times": times} for (decay, times), masters in groups.items()],
            betas=optim.betas,
            eps=optim.epsilon,
            fused=True,
        )

    def gather(self) -> None:
        """Move the gradients of one stream from the network's weights to the masters, adding."""
        for weight in self.weights:
            if weight.master is weight.parameter or weight.parameter.grad is None:
                continue
            if weight.master.grad is None:
                weight.master.grad = weight.parameter.grad.float()
            else:
                weight.master.grad.add_(weight.parameter.grad)
            weight.parameter.grad = None

    def gradient_norm(self) -> float:
        """Euclidean norm of all gradients together, before clipping."""
        import torch

        gradients = [weight.master.grad for weight in self.weights if weight.master.grad is not None]
        return float(torch.nn.utils.get_total_norm(gradients))

    def step(self, *, rate: float, norm: float) -> None:
        """Clip, update, and write the masters back; the gradients, clipped, stay until `clear`."""
        import torch

        if self.optim.clip is not None and norm > self.optim.clip:
            for weight in self.weights:
                if weight.master.grad is not None:
                    weight.master.grad.mul_(self.optim.clip / norm)
        for group in self.adam.param_groups:
            group["lr"] = rate * group["times"]
        self.adam.step()
        with torch.no_grad():
            for weight in self.weights:
                if weight.master is not weight.parameter:
                    weight.parameter.copy_(weight.master)

    def clear(self) -> None:
        for weight in self.weights:
            weight.master.grad = None
            weight.parameter.grad = None

    def tensors(self) -> dict[str, dict[str, torch.Tensor]]:
        """What a checkpoint holds: masters by parameter name, and both moments with their step count."""
        moments = {}
        for weight in self.weights:
            for key, value in self.adam.state[weight.master].items():
                moments[f"{weight.name}:{key}"] = value
        return {"weights": {weight.name: weight.master.detach() for weight in self.weights}, "optimizer": moments}

    def restore(self, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """The inverse of `tensors`, bit for bit."""
        self.restore_weights(tensors["weights"])
        known = self._by_name
        for key, value in tensors["optimizer"].items():
            name, _, moment = key.rpartition(":")
            master = known[name].master
            self.adam.state[master][moment] = value.to(master.device, copy=True)

    def restore_weights(self, values: Mapping[str, torch.Tensor]) -> None:
        import torch

        known = self._by_name
        with torch.no_grad():
            for name, value in values.items():
                weight = known[name]
                weight.master.copy_(value)
                if weight.master is not weight.parameter:
                    weight.parameter.copy_(value)

    @property
    def _by_name(self) -> dict[str, Weight]:
        return {weight.name: weight for weight in self.weights}


def _is_matrix(values: torch.Tensor) -> bool:
    return sum(size > 1 for size in values.shape) > 1


def _weight(name: str, parameter: torch.nn.Parameter) -> Weight:
    import torch

    if parameter.dtype == torch.float32:
        return Weight(name, parameter, parameter)
    return Weight(name, parameter, torch.nn.Parameter(parameter.detach().float()))
