"""Which samples make a step, and how a step is cut into packed streams.

Order is a pure function of (seed, epoch): nothing is stored, and a resumed run seeks instead of replaying.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mingshi.types import Batch, Sample

if TYPE_CHECKING:
    import torch

Mixture = Callable[[int], np.ndarray]  # epoch -> the row indices of that epoch, in any fixed order


def shuffled(rows: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """`rows` in the order of one epoch: the same for the same (seed, epoch), on every machine."""
    generator = np.random.Generator(np.random.Philox(key=[seed & (2**64 - 1), epoch]))
    return rows[generator.permutation(len(rows))]


@dataclass(slots=True)
class Plan:
    """Steps of `batch` samples each. The last step of an epoch takes what is left: nothing is dropped or repeated."""

    rows: int  # in every epoch
    batch: int
    steps: int
    seed: int
    mixture: Mixture
    ordered: bool = False  # the mixture's own order is that of the epoch: it has shuffled already
    _order: tuple[int, np.ndarray] | None = None  # the epoch last asked for

    @property
    def steps_per_epoch(self) -> int:
        return max(1, math.ceil(self.rows / self.batch))

    def indices(self, step: int) -> np.ndarray:
        """The samples of a 0-based step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            rows = self.mixture(epoch)
            self._order = (epoch, rows if self.ordered else shuffled(rows, seed=self.seed, epoch=epoch))
        return self._order[1][place * self.batch : (place + 1) * self.batch]


def make_plan(*, rows: int, mixture: Mixture, batch: int, seed: int, epochs: float | None, steps: int | None) -> Plan:
    """A plan of `steps` steps, or of as many as `epochs` needs."""
    per_epoch = max(1, math.ceil(rows / batch))
    total = steps if steps is not None else max(1, round(per_epoch * (epochs or 1.0)))
    return Plan(rows, batch, total, seed, mixture)


def micro_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Places `0 … len(lengths) - 1` in as few streams as best-fit decreasing finds, none over `budget` tokens.

    A sample longer than the budget gets a stream of its own. The streams of one step are summed before the update, so
    where the cuts fall changes rounding and nothing else.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # what is left in each stream, and which it is, in order
    for place in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[place]
        fitting = bisect_left(rooms, (length, 0))
        if fitting < len(rooms):
            left, chosen = rooms.pop(fitting)
            bins[chosen].append(place)
        else:
            left, chosen = budget, len(bins)
            bins.append([place])
        insort(rooms, (left - length, chosen))
    return [sorted(places) for places in bins]


def pack(samples: Sequence[Sample], *, device: str, parts: Sequence[float] | None = None) -> Batch:
    """Samples one after another: `[T]` tokens, `[M]` predictions, each sample's first sequence after the last one's.

    `parts` are the samples' shares of the batch's weight: by default what their predictions weigh together.
    """
    import torch

    from mingshi.model.attention import positions

    starts = np.cumsum([0] + [len(sample.tokens) for sample in samples])
    firsts = np.cumsum([0] + [len(sample.segments) for sample in samples])
    sequences = np.cumsum([0] + [int(sample.sequence.max(initial=0)) + 1 for sample in samples])
    segments = []
    for sample, start, first in zip(samples, starts, firsts, strict=False):
        moved = sample.segments.copy()
        moved[:, 0] += start
        moved[:, 2] = np.where(moved[:, 2] >= 0, moved[:, 2] + first, -1)
        segments.append(moved)
    stream = np.concatenate(segments).astype(np.int32)

    def column(values: Sequence[np.ndarray], kind: type) -> torch.Tensor:
        return torch.from_numpy(np.concatenate(values).astype(kind)).to(device)

    if parts is None:
        parts = [float(sample.weight.sum(dtype=np.float64)) for sample in samples]
    return Batch(
        tokens=column([sample.tokens for sample in samples], np.int64),
        positions=torch.from_numpy(positions(stream)).to(device),
        segments=stream,
        source=column([sample.source + start for sample, start in zip(samples, starts, strict=False)], np.int64),
        target=column([sample.target for sample in samples], np.int64),
        weights=column([sample.weight for sample in samples], np.float32),
        sequence=column([sample.sequence + at for sample, at in zip(samples, sequences, strict=False)], np.int64),
        labels=torch.from_numpy(np.stack([sample.labels for sample in samples]).astype(np.float32)).to(device),
        parts=torch.tensor(parts, dtype=torch.float32, device=device),
        weight=math.fsum(parts),
        ids=tuple(sample.id for sample in samples),
        images=tuple(sample.image for sample in samples),
        rows=tuple(sample.row for sample in samples),
    )
