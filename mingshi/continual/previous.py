"""The network before a stage as its own teacher: on the stage's rows it stays near what it said (Li and Hoiem 2016).

Letters: `N` samples, `M` predictions, `W` hidden width, `K` classes, `R` rows of a stage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from mingshi.continual.settings import Previous
from mingshi.data.plan import pack
from mingshi.model import heads
from mingshi.model.divergence import Dense, Rule, distilled
from mingshi.model.generate import inference
from mingshi.model.logprob import Head, head_of, prediction_states
from mingshi.model.reference import fingerprint, keep, kept, streams
from mingshi.objectives import Classify
from mingshi.types import Batch, Loss, Network, Objective, Sample

if TYPE_CHECKING:
    from mingshi.display import Display

FORMAT = 1  # of the file and of how its numbers are computed


@dataclass(frozen=True, slots=True, eq=False)
class Then:
    """What the network said of a stage's samples, and what the objective itself wants beside the network."""

    values: np.ndarray  # classifier: logits [samples, K]; else last hidden states [all predictions, W]; float32
    ends: np.ndarray  # [samples + 1] int64, where each sample's values begin and end
    head: Head | None  # of words, as it was
    inner: Any

    def of(self, rows: Sequence[int], network: Network) -> torch.Tensor:
        """For a batch of these samples, one after another."""
        pieces = [self.values[self.ends[row] : self.ends[row + 1]] for row in rows]
        return torch.from_numpy(np.concatenate(pieces)).to(network.device)


def before(
    network: Network,
    objective: Objective,
    samples: Sequence[Sample],
    *,
    inner: Any,
    folder: Path,
    budget: int,
    display: Display,
) -> Then:
    """The network as it is now, asked once; what it said is kept in `folder` as references and features are."""
    classifies = isinstance(objective, Classify)
    digest = hashlib.sha256(f"{FORMAT} previous {classifies} {fingerprint(network)}".encode())
    lengths, counts = [], []
    for sample in samples:
        for column in (sample.tokens, sample.segments, sample.source):
            digest.update(f"{len(column)}:".encode() + np.ascontiguousarray(column, np.int64).tobytes())
        lengths.append(len(sample.tokens))
        counts.append(1 if classifies else len(sample.target))
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    settings = network.config.get_text_config()
    values = kept(folder, digest.hexdigest())
    if values is None:
        width = network.config.num_labels if classifies else settings.hidden_size
        values = np.empty((ends[-1], width), dtype=np.float32)
        cuts = list(streams(lengths, budget))
        say = _logits if classifies else prediction_states
        with inference(network):
            for cut in display.track(cuts, len(cuts), "previous"):
                batch = pack([samples[row] for row in cut], device=str(network.device))
                found = say(network, batch).float().cpu().numpy()
                places = np.concatenate([np.arange(ends[row], ends[row + 1]) for row in cut])
                values[places] = found
        keep(folder, digest.hexdigest(), values)
    return Then(values, ends, None if classifies else _copied(head_of(network)), inner)


def _logits(network: Network, batch: Batch) -> torch.Tensor:
    return heads.logits(network, heads.features(network, batch))


def _copied(head: Head) -> Head:
    bias = None if head.bias is None else head.bias.detach().clone()
    return replace(head, weight=head.weight.detach().clone(), bias=bias)


@dataclass(frozen=True, slots=True)
class Anchored:
    """What a stage trains by in the place of its objective: the objective's loss, and the way from what was said."""

    additive: ClassVar[bool] = True

    objective: Objective
    hold: Previous

    def collate(self, samples: Sequence[Sample], device: str) -> Batch:
        return self.objective.collate(samples, device)

    def loss(self, network: Network, batch: Batch, companion: Then) -> Loss:
        """`sum_i w_i (l_i + weight * T^2 * KL(then || now))`; the divergence among the metrics is without `T^2`."""
        scored: Callable[[Network, Batch, Then], Loss] = (
            self._classified if isinstance(self.objective, Classify) else self._continued
        )
        return scored(network, batch, companion)

    def _classified(self, network: Network, batch: Batch, then: Then) -> Loss:
        assert isinstance(self.objective, Classify)
        inner = then.inner
        pooled_NW = heads.features(network, batch) if inner is None else inner.of(batch.rows, network)
        now_NK, then_NK = heads.logits(network, pooled_NW).float(), then.of(batch.rows, network)
        own = (self.objective.losses(now_NK, batch.labels) * batch.weights).sum()
        log_q_NK, log_p_NK = ((logits_NK / self.hold.temperature).log_softmax(1) for logits_NK in (now_NK, then_NK))
        away = ((log_p_NK.exp() * (log_p_NK - log_q_NK)).sum(1) * batch.weights).sum()
        return Loss(sum=own + self._factor * away, metrics={"divergence": away.detach()})

    def _continued(self, network: Network, batch: Batch, then: Then) -> Loss:
        assert then.head is not None
        states_MW = then.of(batch.rows, network).to(network.dtype)
        shares_M1 = torch.ones(len(batch.source), 1, device=states_MW.device)
        found = distilled(
            prediction_states(network, batch),
            batch.target,
            head_of(network),
            Dense(hidden=(states_MW,), heads=(then.head,), shares_MK=shares_M1, average="probabilities"),
            Rule(shape="forward", temperature=self.hold.temperature),
            weights_M2=torch.stack([self._factor * batch.weights, batch.weights], dim=1),
        )
        return Loss(sum=found.sum, metrics={"divergence": (batch.weights * found.divergence_M).sum()})

    @property
    def _factor(self) -> float:
        return self.hold.weight * self.hold.temperature**2
