"""Learning from preferences: of two answers to one prompt, the chosen one is to become likelier than the rejected one.

The prompt is computed once for both answers. A pair's place in a batch: sequence `2 i` is the chosen answer of sample
`i` and `2 i + 1` the rejected one; a batch weighs as many as it has pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from mingshi.data.plan import pack
from mingshi.data.row_problem import RowProblem
from mingshi.errors import DataError, Problem
from mingshi.types import Batch, Example, Loss, Network, Preference, Reject, Rendered, Sample, Settings

if TYPE_CHECKING:
    import torch

    from mingshi.display import Display
    from mingshi.model.load import Model, Text

LossName = Literal["sigmoid", "robust", "ipo", "hinge", "sigmoid_norm", "simpo", "orpo"]
REFERENCE_FREE = ("simpo", "orpo")
PER_TOKEN = ("ipo", "sigmoid_norm", "simpo", "orpo")  # these compare means over an answer's tokens, the others sums
SMOOTHED = ("sigmoid", "robust", "sigmoid_norm", "simpo")
# A mean over tokens is a hundred times smaller than a sum, and its beta as much larger.
BETAS = {"sigmoid_norm": 5.0, "simpo": 2.0}
USUAL_BETA = 0.1


class Dpo(Settings):
    """Direct preference optimisation and its kin; `objectives/preference_losses.py` has the equations and sources."""

    accepts: ClassVar[tuple[type[Example], ...]] = (Preference,)
    additive: ClassVar[bool] = True
    headline: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    kind: Literal["dpo"] = "dpo"
    loss_type: LossName = "sigmoid"
    """`simpo` and `orpo` need no reference; `ipo`, `sigmoid_norm` and those two compare means over tokens."""
    beta: float = Field(default_factory=lambda values: BETAS.get(values["loss_type"], USUAL_BETA), gt=0)
    """How dearly leaving the reference is paid for; 0.1, but 5 for `sigmoid_norm` and 2 for `simpo`."""
    label_smoothing: float = Field(
        default_factory=lambda values: 0.1 if values["loss_type"] == "robust" else 0.0, ge=0, lt=0.5
    )
    """The share of labels taken to be wrong; `robust` needs one and has 0.1."""
    gamma: float = Field(
        default_factory=lambda values: 0.5 * values["beta"] if values["loss_type"] == "simpo" else 0.0, ge=0
    )
    """The margin that `simpo` asks for; by default half its beta."""
    reference: str | None = Field(default=None, min_length=1)
    """A model's name or folder; by default the network as the stage begins."""
    max_length: int = Field(default=2048, ge=3)
    """Tokens of one pair: its prompt once and both answers."""
    too_long: Literal["drop", "error"] = "drop"
    """A longer pair is left out, or stops the run; answers are never cut, for what is left could be alike."""

    @model_validator(mode="after")
    def _settings_that_count(self) -> Dpo:
        if self.loss_type in REFERENCE_FREE and self.reference is not None:
            raise ValueError(f"{self.loss_type} has no reference. Leave `reference` out.")
        if self.loss_type not in SMOOTHED and self.label_smoothing:
            raise ValueError(f"{self.loss_type} knows no label smoothing. Leave it out, or use robust.")
        if self.loss_type == "robust" and not self.label_smoothing:
            raise ValueError("robust without label_smoothing is sigmoid. Give it a share of wrong labels, like 0.1.")
        if self.loss_type != "simpo" and self.gamma:
            raise ValueError(f"{self.loss_type} knows no gamma. Leave it out, or use simpo.")
        return self

    def encode(self, example: Example, model: Text) -> Sample | Reject | list[Sample]:
        """The prompt, and after it each answer as it would stand there alone."""
        assert isinstance(example, Preference)
        chosen, rejected = rendered_answers(example, model)
        if chosen.tokens == rejected.tokens:
            detail = "chosen and rejected are the same tokens once the template has rendered them. Take the row out."
            return Reject(source=example.source, line=example.line, reason="same_answers", detail=detail)
        sample = pair(chosen, rejected, example.id)
        if len(sample.tokens) <= self.max_length:
            return sample
        what = f"{len(sample.tokens)} tokens of prompt and both answers, over max_length {self.max_length}"
        if self.too_long == "error":
            mend = "Raise objective.max_length, or set objective.too_long to drop."
            raise DataError(Problem(file=example.source, line=example.line, what=what, mend=mend))
        detail = f"{what}. Raise objective.max_length."
        return Reject(source=example.source, line=example.line, reason="too_long", detail=detail)

    def collate(self, samples: Sequence[Sample], device: str) -> Batch:
        return pack(samples, device=device, parts=[1.0] * len(samples))

    def companion(self, model: Model, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display) -> Any:
        """The reference's log-probability of every predicted token; None for the losses without one."""
        from mingshi.model.reference import reference_log_probabilities

        if self.loss_type in REFERENCE_FREE:
            return None
        network = model.network if self.reference is None else _frozen(self.reference, model)
        place = folder / "reference"
        return reference_log_probabilities(network, samples, folder=place, budget=budget, display=display)

    def loss(self, network: Network, batch: Batch, companion: Any) -> Loss:
        sums = self.measure(network, batch, companion)
        metrics = {name: values.detach().sum() for name, values in sums.items() if name != self.headline}
        return Loss(sum=sums[self.headline].sum(), metrics=metrics)

    def measure(self, network: Network, batch: Batch, companion: Any) -> Mapping[str, torch.Tensor]:
        """Loss, implicit rewards and log-probabilities of each pair.

        A reward is beta times what the loss compares: the log-ratio to the reference, or the log-probability where
        there is none, as a sum or as a mean over tokens. `reward_accuracy` counts a tie as half. `kl` is the mean of
        half the squared log-ratio over both answers' tokens: Schulman's second estimator of the divergence from the
        reference ("Approximating KL divergence", 2020), but on the data's tokens, not on the network's own.
        """
        from mingshi.model.logprob import token_log_probabilities

        logp_M = token_log_probabilities(network, batch)
        reference_M = None if companion is None else companion.of(batch.rows, logp_M.device)
        pairs = Pairs(batch, logp_M)
        score = pairs if reference_M is None else Pairs(batch, logp_M - reference_M)
        chosen, rejected = score.means if self.loss_type in PER_TOKEN else score.sums
        margin = self.beta * (chosen - rejected)
        found = {
            self.headline: self._losses(chosen, rejected),
            "reward_chosen": self.beta * chosen,
            "reward_rejected": self.beta * rejected,
            "reward_margin": margin,
            "reward_accuracy": (margin > 0) + 0.5 * (margin == 0),
            "log_probability_chosen": pairs.sums[0],
            "log_probability_rejected": pairs.sums[1],
        }
        if reference_M is not None:
            found["kl"] = Pairs(batch, (logp_M.detach() - reference_M) ** 2 / 2).mean
        return {name: values * batch.parts for name, values in found.items()}

    def _losses(self, chosen_N: torch.Tensor, rejected_N: torch.Tensor) -> torch.Tensor:
        from mingshi.objectives import preference_losses as losses

        difference_N = chosen_N - rejected_N
        margin_N = self.beta * difference_N
        match self.loss_type:
            case "sigmoid" | "sigmoid_norm":
                return losses.sigmoid(margin_N, label_smoothing=self.label_smoothing)
            case "robust":
                return losses.robust(margin_N, label_smoothing=self.label_smoothing)
            case "hinge":
                return losses.hinge(margin_N)
            case "ipo":
                return losses.ipo(difference_N, beta=self.beta)
            case "simpo":
                return losses.simpo(margin_N, gamma=self.gamma, label_smoothing=self.label_smoothing)
            case "orpo":
                return losses.orpo(chosen_N, rejected_N, beta=self.beta)


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """One number for each prediction of a batch of pairs, added up by answer."""

    batch: Batch
    values_M: torch.Tensor

    def _by_answer(self, values_M: torch.Tensor) -> torch.Tensor:
        """`[N, 2]`: chosen and rejected."""
        batch = self.batch
        sums = values_M.new_zeros(2 * len(batch.parts)).index_add_(0, batch.sequence, values_M * batch.weights)
        return sums.view(-1, 2)

    @property
    def sums(self) -> tuple[torch.Tensor, torch.Tensor]:
        """`[N]` each, over an answer's tokens."""
        chosen_N, rejected_N = self._by_answer(self.values_M).unbind(1)
        return chosen_N, rejected_N

    @property
    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        chosen_N, rejected_N = (self._by_answer(self.values_M) / self._tokens_N2).unbind(1)
        return chosen_N, rejected_N

    @property
    def mean(self) -> torch.Tensor:
        """`[N]`, over the tokens of both answers."""
        return self._by_answer(self.values_M).sum(1) / self._tokens_N2.sum(1)

    @property
    def _tokens_N2(self) -> torch.Tensor:
        return self._by_answer(self.values_M.new_ones(len(self.values_M))).clamp(min=1.0)


def rendered_answers(example: Preference, model: Text) -> tuple[Rendered, Rendered]:
    """The prompt with its chosen answer, and with its rejected one; the prompt's own assistant turns are not learnt."""
    prompt = [replace(message, train=False) if message.role == "assistant" else message for message in example.prompt]
    return model.template.render([*prompt, *example.chosen]), model.template.render([*prompt, *example.rejected])


def shared_tokens(chosen: Rendered, rejected: Rendered) -> int:
    """How many tokens both begin with, before either has a trained one."""
    pairs = zip(chosen.tokens, rejected.tokens, strict=False)
    alike = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    return min(alike, *(int(np.flatnonzero(rendered.weights)[0]) for rendered in (chosen, rejected)))


def pair(chosen: Rendered, rejected: Rendered, name: str) -> Sample:
    """What both begin with as the parent segment, and the rest of each as a continuation of it."""
    targets = [np.flatnonzero(rendered.weights) for rendered in (chosen, rejected)]
    shared = shared_tokens(chosen, rejected)
    if not shared:
        raise RowProblem("no_shared_prompt", "the answers do not begin with one prompt")
    tokens, segments, columns = [chosen.tokens[:shared]], [(0, shared, -1)], []
    start = shared
    for answer, (rendered, places) in enumerate(zip((chosen, rejected), targets, strict=True)):
        own = rendered.tokens[shared : places[-1]]  # the last target, and what follows it, predicts nothing that counts
        if len(own):
            tokens.append(own)
            segments.append((start, len(own), 0))
        before = places - 1  # in the text of this answer alone
        moved = np.where(before < shared, before, before - shared + start)
        counted = np.asarray(rendered.weights, dtype=np.float32)[places]
        columns.append((moved, np.asarray(rendered.tokens)[places], counted, np.full(len(places), answer)))
        start += len(own)
    source, target, weight, sequence = (np.concatenate(parts) for parts in zip(*columns, strict=True))
    return Sample(
        tokens=np.concatenate(tokens).astype(np.int32),
        segments=np.array(segments, dtype=np.int32),
        source=source.astype(np.int32),
        target=target.astype(np.int32),
        weight=weight,
        sequence=sequence.astype(np.int32),
        id=name,
    )


def _frozen(name: str, model: Model) -> Network:
    """Another model as the reference, in the precision and on the device of the one that is trained."""
    import torch

    from mingshi.model.load import load
    from mingshi.model.others import template_beside

    narrow = model.network.dtype == torch.bfloat16
    template = template_beside(name, model.text, role="reference")
    return load(name, precision="bf16" if narrow else "float32", device=model.device, template=template).network
