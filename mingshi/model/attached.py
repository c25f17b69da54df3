"""What an adapter asks of the loop once it is attached: rates of its own, a penalty, something after each update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mingshi.errors import ModelError
from mingshi.types import Network

if TYPE_CHECKING:
    import torch

NAME = "default"  # what peft calls an adapter that nobody named
SAMPLED = 256  # numbers of each frozen weight that are looked at: an optimiser moves all of a weight, or none of it


class Attached(Protocol):
    """An adapter in a network, while it trains."""

    def rate(self, name: str) -> float:
        """How many times the schedule's learning rate the parameter of this name learns at."""

    def penalty(self, network: Network) -> torch.Tensor | None:
        """What is added to the loss of a whole step, once."""

    def after_step(self, network: Network, step: int, steps: int) -> Mapping[str, float]:
        """Called after the update of 1-based `step` of `steps`, its gradients still there; gives metrics by name."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What a checkpoint must hold besides weights and moments."""

    def restore(self, network: Network, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse of `tensors`, once the weights themselves have been put back."""


@dataclass(frozen=True, slots=True)
class Plain:
    """Asks for nothing, except that the second factor of a low-rank update may learn faster (LoRA+)."""

    up_rate: float = 1.0

    def rate(self, name: str) -> float:
        return self.up_rate if ".lora_B." in name else 1.0

    def penalty(self, network: Network) -> torch.Tensor | None:
        return None

    def after_step(self, network: Network, step: int, steps: int) -> Mapping[str, float]:
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}

    def restore(self, network: Network, tensors: Mapping[str, torch.Tensor]) -> None:
        """Weights and moments are all there is."""


PLAIN = Plain()


@dataclass(frozen=True, slots=True, eq=False)
class Allocation:
    """Rank taken from where it matters least (Zhang et al. 2023, algorithm 1): peft scores and masks, at our times.

    Every update is `P diag(E) Q`; a singular value in `E` that is masked stays zero once `settle` has begun. Which are
    kept can be read off `E`, so the pattern that peft saves by is always that of the weights.
    """

    tuner: Any  # peft's AdaLoraModel
    begin: float  # share of the steps before the first rank is taken
    settle: float  # share of the steps after the last
    every: int  # steps from one allocation to the next

    def rate(self, name: str) -> float:
        return 1.0

    def penalty(self, network: Network) -> torch.Tensor:
        """`weight * mean |P^T P - I|_F` over all factors (equation 4; peft takes the norm, not its square)."""
        import torch

        gaps = []
        for name, factor in network.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                gram = factor @ factor.T if ".lora_A." in name else factor.T @ factor
                gaps.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        weight: float = self.tuner.peft_config[NAME].orth_reg_weight
        return weight * torch.stack(gaps).mean()

    def after_step(self, network: Network, step: int, steps: int) -> Mapping[str, float]:
        import torch

        if steps < 2:
            raise ModelError("adalora takes its rank away between steps, and there is one", "Train for two or more.")
        config = self.tuner.peft_config[NAME]
        config.total_step, config.deltaT = steps, self.every
        config.tfinal = min(round(self.settle * steps), steps - 2)
        config.tinit = min(round(self.begin * steps), steps - config.tfinal - 1)
        for name, factor in network.named_parameters():
            if factor.requires_grad and factor.grad is None and ".lora_" in name:
                factor.grad = torch.zeros_like(factor)  # of a step in which nothing was trained; peft multiplies by it
        self.tuner.update_and_allocate(step)
        config.rank_pattern = _kept(network)
        ranks = [sum(kept) for kept in config.rank_pattern.values()]
        return {"mean_rank": sum(ranks) / len(ranks)}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Both moving averages of every weight's importance; none once the last rank is taken."""
        scores = self.tuner.rankallocator
        parts = (("sensitivity", scores.exp_avg_ipt), ("uncertainty", scores.exp_avg_unc))
        return {f"{part}:{name}": value for part, values in parts for name, value in values.items()}

    def restore(self, network: Network, tensors: Mapping[str, torch.Tensor]) -> None:
        import torch

        scores = self.tuner.rankallocator
        scores.reset_ipt()
        for key, value in tensors.items():
            part, _, name = key.partition(":")
            moved = value.to(network.device, copy=True)
            (scores.exp_avg_ipt if part == "sensitivity" else scores.exp_avg_unc)[name] = moved
            scores.ipt[name] = torch.zeros_like(moved)  # made anew at every step
        kept = _kept(network)
        self.tuner.peft_config[NAME].rank_pattern = kept if any(any(one) for one in kept.values()) else None


def _kept(network: Network) -> dict[str, list[bool]]:
    """Which singular values of each update are not zero, by parameter name."""
    values = ((name, one) for name, one in network.named_parameters() if ".lora_E." in name)
    return {name: (one.detach() != 0).flatten().tolist() for name, one in values}


def idle(named: Iterable[tuple[str, torch.Tensor | None]]) -> list[str]:
    """Layers none of whose training weights has a gradient that is not zero, of `(parameter name, gradient)`.

    The factors of one update count together: the first of LoRA's has no gradient while the second is zero. Rows of new
    tokens need only be on the way to the loss: no row of this step may hold such a token.
    """
    busy: dict[str, bool] = {}
    for name, gradient in named:
        layer = name.split(".lora_")[0] if ".lora_" in name else name.rpartition(".")[0] or name
        rows = "trainable_tokens_delta" in name
        busy[layer] = busy.get(layer, False) or (gradient is not None and (rows or bool(gradient.any())))
    return [layer for layer, moves in busy.items() if not moves]


def frozen_sample(network: Network) -> dict[str, torch.Tensor]:
    """A few numbers of every weight that does not train, by name."""
    kept = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            flat = parameter.detach().reshape(-1)
            kept[name] = flat[:: max(1, len(flat) // SAMPLED)].clone()
    return kept
