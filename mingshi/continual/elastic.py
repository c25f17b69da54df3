"""Elastic weight consolidation: weights that earlier rows are told by are held where they are.

The information is the variance of the model's own score: of each row apart, the gradient of the log-likelihood of
labels that are drawn from the model. Gradients of the data's labels, of the likeliest ones, or of batches are other
quantities (Kunstner et al. 2019, Limitations of the Empirical Fisher Approximation, section 2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from mingshi.errors import RecipeError
from mingshi.model import heads
from mingshi.model.adapter_library import LoraLayer
from mingshi.model.adapters import Lora
from mingshi.model.attached import NAME, Attached
from mingshi.model.logprob import chunks, head_of, prediction_states
from mingshi.objectives import Classify, Sft
from mingshi.types import Batch, Network, Objective, Sample, Settings

COPY = ".modules_to_save.default"  # in the name of a module that is trained whole beside an adapter


@dataclass(frozen=True, slots=True, eq=False)
class Anchors:
    """Weights as they were, and how much earlier rows need each, by parameter name."""

    weights: Mapping[str, torch.Tensor]
    information: Mapping[str, torch.Tensor]  # per trained token, float32


def anchors(network: Network, adapter: Settings, samples: Iterable[tuple[Objective, Sample]], *, seed: int) -> Anchors:
    """Of the weights that this adapter will move, before it is attached, by these earlier rows."""
    named = dict(network.named_parameters())
    chosen = {name: named[name] for name in held_names(network, adapter)}
    information = fisher(network, chosen, samples, seed=seed)
    return Anchors({name: one.detach().clone() for name, one in chosen.items()}, information)


def held_names(network: Network, adapter: Settings) -> list[str]:
    """Parameters that will move, or that an update of low rank will be added to."""
    places: list[str] = adapter.places(network)  # type: ignore[attr-defined]  # every adapter has it
    if not isinstance(adapter, Lora):
        return places
    whole = [name for name, _ in network.named_parameters() if heads.in_head(network, name)]
    return [f"{path}.weight" for path in places] + whole


def fisher(
    network: Network,
    parameters: Mapping[str, torch.nn.Parameter],
    samples: Iterable[tuple[Objective, Sample]],
    *,
    seed: int,
) -> dict[str, torch.Tensor]:
    """The diagonal by parameter name: squared gradients of each row apart, over all trained tokens of the rows."""
    generator = torch.Generator(device=network.device).manual_seed(seed)
    found = {name: torch.zeros_like(one, dtype=torch.float32) for name, one in parameters.items()}
    trained = 0.0
    with _evaluated(network, parameters.values()):
        for objective, sample in samples:
            batch = drawn(network, objective, objective.collate([sample], str(network.device)), generator)
            loss = objective.loss(network, batch, None).sum
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for total, gradient in zip(found.values(), gradients, strict=True):
                if gradient is not None:
                    total += gradient.float().square()
            trained += len(sample.target)
    return {name: total / max(trained, 1.0) for name, total in found.items()}


def drawn(network: Network, objective: Objective, batch: Batch, generator: torch.Generator) -> Batch:
    """The same texts with labels drawn from the model, each counted once; RecipeError where it has no distribution."""
    with torch.no_grad():
        if isinstance(objective, Classify) and objective.problem == "single_label":
            odds_NK = heads.logits(network, heads.features(network, batch)).float().softmax(1)
            labels_N1 = torch.multinomial(odds_NK, 1, generator=generator).to(batch.labels.dtype)
            return replace(batch, labels=labels_N1, weights=torch.ones_like(batch.weights))
        if not isinstance(objective, Sft):
            what = f"hold: ewc needs one distribution a row, and {objective.kind} is told by others"
            raise RecipeError(what, "Use sft, or classify of one label; or rehearse instead.")
        hidden_MW, head = prediction_states(network, batch), head_of(network)
        target_M = torch.empty_like(batch.target)
        for rows in chunks(len(target_M), len(head.weight)):
            odds_CV = head.logits(hidden_MW[rows]).softmax(1)
            target_M[rows] = torch.multinomial(odds_CV, 1, generator=generator)[:, 0]
    return replace(batch, target=target_M, weights=torch.ones_like(batch.weights))


@contextmanager
def _evaluated(network: Network, parameters: Iterable[torch.nn.Parameter]) -> Iterator[None]:
    """Dropout off, and gradients for these parameters alone; both as they were at the end."""
    modes = [(module, module.training) for module in network.modules()]
    wanted = [(one, one.requires_grad) for one in network.parameters()]
    network.eval()
    network.requires_grad_(False)
    for one in parameters:
        one.requires_grad_(True)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
        for one, trains in wanted:
            one.requires_grad_(trains)


# Training


@dataclass(frozen=True, slots=True, eq=False)
class Elastic:
    """An attached adapter with the penalty of its anchors; all else is the adapter's."""

    adapter: Attached
    anchors: Anchors
    strength: float

    def rate(self, name: str) -> float:
        return self.adapter.rate(name)

    def penalty(self, network: Network) -> torch.Tensor:
        """`strength / 2 * sum F (w - w before)^2`; of an update of low rank, its product is what moves a weight."""
        whole = torch.zeros((), device=network.device)
        for name, moved in movements(network, self.anchors.weights):
            whole = whole + (self.anchors.information[name] * moved.float().square()).sum()
        own = self.adapter.penalty(network)
        return self.strength / 2 * whole + (own if own is not None else 0.0)

    def after_step(self, network: Network, step: int, steps: int) -> Mapping[str, float]:
        return self.adapter.after_step(network, step, steps)

    def tensors(self) -> dict[str, torch.Tensor]:
        return self.adapter.tensors()

    def restore(self, network: Network, tensors: Mapping[str, torch.Tensor]) -> None:
        self.adapter.restore(network, tensors)


def movements(network: Network, before: Mapping[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """How far each held weight has moved, through which gradients flow, by its name without an adapter."""
    for path, layer in network.named_modules():
        if isinstance(layer, LoraLayer) and f"{path}.weight" in before and NAME in layer.lora_A:
            yield f"{path}.weight", layer.get_delta_weight(NAME)
    for name, parameter in network.named_parameters():
        plain = name.replace(COPY, "")
        if parameter.requires_grad and plain in before:
            yield plain, parameter - before[plain]


def evenly(counts: Sequence[int], rows: int, *, seed: int) -> list[tuple[int, int]]:
    """`rows` (stage, row) pairs of stages with so many rows, of each stage as many as of any other."""
    from mingshi.continual.choose import quotas

    drawn_rows = (
        (stage, np.random.Generator(np.random.Philox(key=[seed, stage])).permutation(count)[:share])
        for stage, (count, share) in enumerate(zip(counts, quotas(counts, rows), strict=True))
    )
    return [(stage, int(row)) for stage, chosen in drawn_rows for row in np.sort(chosen)]
