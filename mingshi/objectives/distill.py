"""Distillation: a student is drawn to its teachers' distributions of the answer's tokens, and to the answer itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from mingshi.data.plan import pack
from mingshi.objectives.sft import Sft
from mingshi.provenance import hash_folder
from mingshi.types import Batch, Chat, Example, Loss, Network, Reject, Sample, Settings

if TYPE_CHECKING:
    import torch

    from mingshi.display import Display
    from mingshi.model.divergence import Dense, Distilled, Sparse
    from mingshi.model.load import Model, Text
    from mingshi.model.teachers import Kept


class Teacher(Settings):
    """A model to learn from; it must count tokens as the student does."""

    model: str = Field(min_length=1)
    """A known name, a folder (a whole model or an adapter), or a name on the Hub."""
    weight: float = Field(default=1.0, gt=0)
    """What it counts for beside the others."""


class Cache(Settings):
    """What stays on disk of each distribution of a teacher, so that it runs once."""

    keep: Literal["hidden", "top-k", "sampled"] = "hidden"
    """Its hidden state (exact; two bytes a width in bf16), its likeliest tokens with the others as one bucket (eight
    bytes a token), or tokens drawn from it (unbiased; four bytes a token)."""
    count: int = Field(default=64, ge=1)
    """Tokens of each distribution, for top-k and sampled."""


class Distill(Settings):
    """`loss = sum_i weight_i (alpha T^2 D_i + (1 - alpha) nats_i) / sum_i weight_i` over a whole optimiser step.

    `D_i` is the divergence between teachers' and student's softmax of `logits / T` at prediction `i`. Its gradient
    falls with `T^2`, which the factor takes back (Hinton et al. 2015, section 2.1), so alpha keeps its meaning.
    """

    accepts: ClassVar[tuple[type[Example], ...]] = (Chat,)
    additive: ClassVar[bool] = True
    headline: ClassVar[str] = "distillation"
    higher_is_better: ClassVar[bool] = False

    kind: Literal["distill"] = "distill"
    teachers: tuple[Teacher, ...] = Field(min_length=1)
    combine: Literal["probabilities", "logits", "route"] = "probabilities"
    """Several teachers: a mixture of their distributions, the softmax of their mean logits, or a mixture for each
    example, by how likely its answer is to each of them."""
    route_temperature: float = Field(default=0.0, ge=0)
    """route: a teacher's share is its weight times `exp(-nats / this)`, nats a token of the answer; 0: the best one."""
    divergence: Literal["forward", "reverse"] | Annotated[float, Field(gt=0, lt=1)] = "forward"
    """forward: KL(teacher || student); reverse: KL(student || teacher); a number: generalised Jensen-Shannon's beta."""
    temperature: float = Field(default=1.0, gt=0)
    alpha: float = Field(default=0.5, ge=0, le=1)
    """The divergence's part of the loss; the rest is the cross-entropy of plain fine-tuning."""
    prompt: float = Field(default=0.0, ge=0)
    """What the divergence at a token of the prompt counts beside one of the answer."""
    cache: Cache = Cache()
    train_on: Literal["all", "last"] = "all"
    """Which assistant turns are trained; a message's own `train` wins."""
    max_length: int = Field(default=2048, ge=2)
    """Tokens of one sample; `mingshi plan` prints how many rows are longer."""
    too_long: Literal["drop", "truncate", "error"] = "drop"
    """A longer row is left out, loses its end (and with it the stop token), or stops the run."""

    @model_validator(mode="after")
    def _fits_the_cache(self) -> Distill:
        if self.cache.keep == "hidden":
            return self
        if self.divergence != "forward":
            raise ValueError(f"a {self.cache.keep} cache knows the forward divergence alone. Set cache.keep to hidden.")
        if self.combine == "logits" and len(self.teachers) > 1:
            raise ValueError("logits cannot be averaged from a few tokens. Set cache.keep to hidden.")
        return self

    def encode(self, example: Example, model: Text) -> Sample | Reject | list[Sample]:
        """The tokens and predictions of plain fine-tuning."""
        plain = Sft(train_on=self.train_on, max_length=self.max_length, too_long=self.too_long)
        return plain.encode(example, model)

    def collate(self, samples: Sequence[Sample], device: str) -> Batch:
        return pack(samples, device=device)

    def companion(
        self, model: Model, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display
    ) -> Teachers:
        """Each teacher's answers to these samples, asked one teacher after another."""
        from mingshi.model.logprob import head_of
        from mingshi.model.others import template_beside
        from mingshi.model.teachers import Question, ask

        for one in self.teachers:
            template_beside(one.model, model.text, role="teacher")
        question = Question(
            keep=self.cache.keep,
            count=self.cache.count,
            temperature=self.temperature,
            everywhere=self.prompt > 0,
            vocabulary=len(head_of(model.network).weight),
            surprise=self.combine == "route",
        )
        kept = [
            ask(
                one.model,
                samples,
                question,
                weights=_fingerprint(one.model),
                student=model,
                folder=folder,
                budget=budget,
                display=display,
            )
            for one in self.teachers
        ]
        return Teachers(kept=tuple(kept), shares=self.shares([one.nats for one in kept]))

    def shares(self, nats: Sequence[np.ndarray]) -> np.ndarray:
        """`[N, K]`: what each teacher counts for in each sample, from its mean surprise `[N]` at the answer."""
        weights_K = np.array([one.weight for one in self.teachers])
        nats_NK = np.stack(nats, axis=1)
        if self.combine != "route":
            odds_NK = np.broadcast_to(weights_K, nats_NK.shape)
        elif self.route_temperature == 0:
            odds_NK = np.eye(len(weights_K))[nats_NK.argmin(axis=1)]
        else:
            behind_NK = nats_NK - nats_NK.min(axis=1, keepdims=True)
            odds_NK = weights_K * np.exp(-behind_NK / self.route_temperature)
        shares: np.ndarray = odds_NK / odds_NK.sum(axis=1, keepdims=True)
        return shares

    def loss(self, network: Network, batch: Batch, companion: Teachers) -> Loss:
        scored = self._scored(network, batch, companion)
        answers_M, found = scored.answers_M, scored.found
        metrics = {"divergence": (answers_M * found.divergence_M).sum(), "nats": (answers_M * found.nats_M).sum()}
        if len(companion.kept) > 1:
            shares_K = (answers_M[:, None] * scored.shares_MK).sum(dim=0)
            metrics |= {f"teacher_{number}": share for number, share in enumerate(shares_K, start=1)}
        return Loss(sum=found.sum, metrics=metrics)

    def measure(self, network: Network, batch: Batch, companion: Teachers) -> Mapping[str, torch.Tensor]:
        """The loss of each sample, and its two parts at the answer's tokens, the divergence without `T^2`."""
        scored = self._scored(network, batch, companion)
        answers_M, found = scored.answers_M, scored.found
        columns = {
            self.headline: (scored.weights_M2[:, 0] * found.divergence_M) + (scored.weights_M2[:, 1] * found.nats_M),
            "divergence": answers_M * found.divergence_M,
            "nats_per_token": answers_M * found.nats_M,
        }
        none_N = answers_M.new_zeros(len(batch.ids))
        return {name: none_N.index_add(0, scored.sample_M, values) for name, values in columns.items()}

    def _scored(self, network: Network, batch: Batch, companion: Teachers) -> _Scored:
        import torch

        from mingshi.model.divergence import Rule, distilled
        from mingshi.model.logprob import head_of, prediction_states
        from mingshi.model.teachers import everywhere

        drawn_M = batch.weights
        if self.prompt > 0:
            drawn_M = torch.full_like(batch.positions, self.prompt, dtype=torch.float32)
            drawn_M = drawn_M.index_copy(0, batch.source, batch.weights)
            batch = everywhere(batch)
        weights_M2 = torch.stack([self.alpha * self.temperature**2 * drawn_M, (1 - self.alpha) * batch.weights], dim=1)
        shares_NK = torch.from_numpy(companion.shares[list(batch.rows)]).float().to(batch.weights.device)
        shares_MK = shares_NK[batch.sequence]
        found = distilled(
            prediction_states(network, batch),
            batch.target,
            head_of(network),
            companion.target(batch, shares_MK, average="logits" if self.combine == "logits" else "probabilities"),
            Rule(shape=self.divergence, temperature=self.temperature),
            weights_M2=weights_M2,
        )
        return _Scored(found, weights_M2, batch.weights, batch.sequence, shares_MK)


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    """A batch's rows, divergences and all: `M` predictions, or every position where prompts count."""

    found: Distilled
    weights_M2: torch.Tensor  # what divergence and nats of a row count for in the loss
    answers_M: torch.Tensor  # the weight of the answer's tokens, zero elsewhere
    sample_M: torch.Tensor
    shares_MK: torch.Tensor


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Teachers:
    """What the teachers said of a stage's samples, and what each of them counts for."""

    kept: tuple[Kept, ...]
    shares: np.ndarray  # [N, K]

    def target(
        self, batch: Batch, shares_MK: torch.Tensor, *, average: Literal["logits", "probabilities"]
    ) -> Dense | Sparse:
        """The teachers' distributions at a batch's rows."""
        from mingshi.model.divergence import Dense, Sparse

        device = str(shares_MK.device)
        heads = tuple(one.head for one in self.kept if one.head is not None)
        if heads:
            hidden = tuple(one.rows("hidden", batch.rows, device) for one in self.kept)
            return Dense(hidden=hidden, heads=heads, shares_MK=shares_MK, average=average)
        told = [one.few(batch.rows, device) for one in self.kept]
        return Sparse(few=tuple(told), shares_MK=shares_MK, vocabulary=min(one.vocabulary for one in self.kept))


def _fingerprint(name: str) -> list[Any]:
    """What a teacher's weights can be known by: the hashes of its files and its base's, or the Hub's revision."""
    from mingshi.model.assets import resolve
    from mingshi.model.load import base_place

    return [_place_fingerprint(place) for place in (resolve(name), base_place(name))]


def _place_fingerprint(place: Path | str) -> Any:
    if isinstance(place, Path):
        return hash_folder(place, ("*.safetensors", "*.json"))
    from mingshi.model.others import revision

    return [place, revision(place)]
