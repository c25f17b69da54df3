"""Whether a stage made a task worse by more than it may, and the weights to go back to if it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mingshi.directions import is_better_higher
from mingshi.evals import compare
from mingshi.model.adapters import fold
from mingshi.model.load import Model
from mingshi.types import Score, Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Fall:
    """How far a task stands below its best measurement before a stage, in its metric's own unit."""

    task: str
    metric: str  # kind.name
    since: int  # stages done when it was best
    best: Score
    now: Score
    fall: Score  # paired, on the same items; above zero: worse than it was
    refused: bool


def falls(history: Sequence[Mapping[str, Scores]], metrics: Mapping[str, str], *, allowed: float) -> list[Fall]:
    """Of each task, by its metric; `history[s]` is what was measured after `s` stages, the last one now.

    A fall counts if it is larger than `allowed` and its 95 % interval does not reach zero. Chance alone is so refused
    no more often than one stage in forty for each task; a real fall is refused where the task has items enough to show
    it. Where every item fell alike there is no interval, and no doubt. A metric without a better direction is passed
    over.
    """
    *earlier, now = history
    found = []
    for task, metric in metrics.items():
        name = metric.partition(".")[2]
        higher = is_better_higher(name)
        if higher is None:
            continue
        sign = 1.0 if higher else -1.0
        values = [sign * scores[task].scores[name].value for scores in earlier]
        since = max(range(len(values)), key=values.__getitem__)
        best = earlier[since][task]
        change = compare(best, now[task])[name]
        ends = sorted((-sign * change.low, -sign * change.high))
        fall = Score(
            value=-sign * change.value, low=ends[0], high=ends[1], count=change.count, signature=change.signature
        )
        sure = not fall.low <= 0 if math.isfinite(fall.low) else fall.value > 0
        found.append(
            Fall(
                task=task,
                metric=metric,
                since=since,
                best=best.scores[name],
                now=now[task].scores[name],
                fall=fall,
                refused=fall.value > allowed and sure,
            )
        )
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Before:
    """A network's weights as a stage found them, on the processor: a second copy of the model while the stage lasts."""

    tensors: Mapping[str, torch.Tensor]
    changed: bool

    @classmethod
    def of(cls, model: Model) -> Before:
        """What an adapter that is still in the network adds is merged first, as the next one would have it."""
        fold(model)
        copies: dict[int, torch.Tensor] = {}  # tied weights have two names and one content
        tensors = {}
        for name, tensor in model.network.state_dict().items():
            place = tensor.data_ptr()
            if place not in copies or copies[place].shape != tensor.shape:
                copies[place] = tensor.detach().to("cpu", copy=True)
            tensors[name] = copies[place]
        return cls(tensors, model.changed)

    def put_back(self, model: Model) -> None:
        """Bit for bit; whatever adapter the stage left is gone."""
        fold(model)
        model.network.load_state_dict(self.tensors)
        model.changed = self.changed
