"""Does a stage overfit? A verdict from its losses on validation rows and on training rows, measured in the same mode.

Both are measured without dropout on the same rows each time, the first time before the first step. So every change
between two measurements is paired, item by item, and has the bootstrap's interval. The step losses do not enter:
dropout is on in them, each is of other rows, and it is taken before the update.

A change counts if its interval leaves out zero and it is at least `MATERIAL` of the loss before training: the interval
covers the choice of rows, not the unrest of the optimiser, which is estimated where there are enough measurements.
Prechelt ("Early stopping - but when?", 1998) measures the loss of generalisation in such percents.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mingshi.evals import statistics
from mingshi.types import Score

MATERIAL = 0.01  # of the loss before training: a smaller change is not worth a word
STEEP = 0.02  # of the same, in each quarter of the steps: a fall that has not come to its end
RUNAWAY = 0.05  # of the same: a training loss this far above its lowest is no noise
LEARNT_BY_HEART = 0.1  # of the same: what the training loss falls by while the validation loss stays where it is
FEWEST = 20  # validation items: the bootstrap of fewer promises more than it holds
SAMPLE = "train-sample"  # what the measurements of training rows are recorded under

Verdict = Literal["healthy", "underfitting", "overfitting", "diverging", "too_small"]
Because = Literal[
    "not_finite",
    "both_rise",
    "training_rises",
    "few_rows",
    "wide",
    "rises",
    "flat",
    "learnt_nothing",
    "falling",
    "falls",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """One measurement: what each item's loss adds up to, and what it is divided by."""

    step: int
    sums: Sequence[float]
    weights: Sequence[float]

    @property
    def value(self) -> float:
        return math.fsum(self.sums) / (math.fsum(self.weights) or math.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A verdict and what bears it. Losses are the lower the better: a headline that is not is turned round."""

    verdict: Verdict
    because: Because
    since: int | None = None  # the step of the lowest validation loss, where a later one is surely worse
    first: int  # steps that were measured
    last: int
    items: int
    evidence: Mapping[str, Score] = field(default_factory=dict)


def fits(
    evals: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]], *, diverged: bool = False
) -> list[dict[str, Any] | None]:
    """A verdict for each stage of a run, from its records; None where nothing was measured in both ways.

    `evals` are the lines of evals.jsonl, `stages` those of data.json; `diverged` says that the run ended in a loss
    that was not finite, which is then its last measured stage's verdict.
    """
    found = [_stage(evals, number, stage) for number, stage in enumerate(stages)]
    begun = max((int(line["stage"]) for line in evals if line["data"] in (SAMPLE, "validation")), default=-1)
    told: list[dict[str, Any] | None] = []
    for number, (validation, training) in enumerate(found):
        fit = judge(validation, training, diverged=diverged and number == begun)
        told.append(asdict(fit) if fit is not None else None)
    return told


def _stage(
    evals: Sequence[Mapping[str, Any]], number: int, stage: Mapping[str, Any]
) -> tuple[list[Losses], list[Losses]]:
    """Validation and training losses of one stage at the steps where both were measured on the same items."""
    metric, sign = str(stage["headline"]), -1.0 if stage.get("higher_is_better") else 1.0
    measured: dict[str, dict[int, Losses]] = {"validation": {}, SAMPLE: {}}
    for line in evals:
        if line["stage"] == number and line["when"] == "during" and line["data"] in measured:
            columns = _columns(line.get("items") or {}, metric, sign)
            if columns is not None:
                step = int(line["step"])
                measured[line["data"]][step] = Losses(step=step, sums=columns[0], weights=columns[1])
    validation, training = measured["validation"], measured[SAMPLE]
    both = sorted(validation.keys() & training.keys())
    same = [
        step
        for step in both
        if len(validation[step].sums) == len(validation[both[0]].sums)
        and len(training[step].sums) == len(training[both[0]].sums)
    ]
    return [validation[step] for step in same], [training[step] for step in same]


def _columns(items: Mapping[str, Any], metric: str, sign: float) -> tuple[list[float], list[float]] | None:
    if f"{metric}.sum" in items:
        sums, weights = items[f"{metric}.sum"], items[f"{metric}.weight"]
    elif metric in items:
        sums, weights = items[metric], [1.0] * len(items[metric])
    else:
        return None
    return [sign * float(value) for value in sums], [float(value) for value in weights]  # also of "NaN"


def judge(validation: Sequence[Losses], training: Sequence[Losses], *, diverged: bool = False) -> Fit | None:
    """The verdict on measurements at the same steps, the first before training; None where there are none."""
    if not validation:
        return None
    course = _Course(validation, training)
    broken = not all(math.isfinite(losses.value) for losses in (*validation, *training))
    if diverged or broken:
        return course.fit("diverging", "not_finite", measured=not broken)
    if course.items < FEWEST:
        return course.fit("too_small", "few_rows")
    return course.rising() or course.falling()


class _Course:
    """The measurements of one stage, and the changes between them that a verdict rests on."""

    def __init__(self, validation: Sequence[Losses], training: Sequence[Losses]):
        self.validation, self.training = validation, training
        self.items = len(validation[0].sums)
        self.last = len(validation) - 1
        self.unit = abs(validation[0].value)
        self.best = min(range(len(validation)), key=lambda place: validation[place].value)
        self.unrest = unrest([losses.value for losses in validation])
        self.known: dict[tuple[str, int, int], Score] = {}

    def change(self, data: str, start: int, end: int) -> Score:
        """Loss at measurement `end` less that at `start`, on the same items."""
        if (data, start, end) not in self.known:
            losses = self.validation if data == "validation" else self.training
            before, after = losses[start], losses[end]
            self.known[data, start, end] = statistics.ratio_difference(
                (before.sums, before.weights),
                (after.sums, after.weights),
                signature=f"change of {data} loss from step {before.step} to {after.step}",
            )
        return self.known[data, start, end]

    def rising(self) -> Fit | None:
        """What a validation or training loss that has gone up again means, if it has."""
        lowest = min(range(len(self.training)), key=lambda place: self.training[place].value)
        training = self.change(SAMPLE, lowest, self.last)
        if self.sure(training, RUNAWAY):
            return self.fit("diverging", "training_rises")
        validation = self.change("validation", self.best, self.last)
        if self.best < self.last - 1:  # one bad measurement is a blip: the one before it must be half as bad
            risen = self.sure(validation, MATERIAL) and self.sure(
                self.change("validation", self.best, self.last - 1), MATERIAL / 2
            )
        else:
            risen = self.sure(validation, 2 * MATERIAL)
        if risen:
            if self.sure(training, 2 * MATERIAL):
                return self.fit("diverging", "both_rise")
            if self.learnt():
                return self.fit("overfitting", "rises", since=self.validation[self.best].step)
        if self.best < self.last and validation.low <= 0 and validation.high > 2 * MATERIAL * self.unit:
            return self.fit("too_small", "wide")
        return None

    def falling(self) -> Fit:
        """What it means that nothing went up again: the losses fell, are falling, or never moved."""
        validation = self.change("validation", 0, self.last)
        if not self.learnt():
            return self.fit("underfitting", "learnt_nothing")
        if not validation.high < 0:
            if self.gap_grown().low > 0 and validation.low > -2 * MATERIAL * self.unit:
                return self.fit("overfitting", "flat", since=self.validation[0].step)
            return self.fit("too_small", "wide")
        level = self.level()
        if self.sure(turned(self.change(SAMPLE, level, self.last)), LEARNT_BY_HEART):
            return self.fit("overfitting", "flat", since=self.validation[level].step)
        late, end = self.late(), self.validation[-1].step
        quarters = max(1.0, (end - self.validation[late].step) / (0.25 * end))
        if len(self.validation) > 2 and self.sure(turned(self.change("validation", late, self.last)), quarters * STEEP):
            return self.fit("underfitting", "falling")
        return self.fit("healthy", "falls")

    def learnt(self) -> bool:
        return self.sure(turned(self.change(SAMPLE, 0, self.last)), MATERIAL)

    def late(self) -> int:
        """The last measurement that leaves at least a quarter of the steps after it."""
        end = self.validation[-1].step
        return max(place for place, losses in enumerate(self.validation) if losses.step <= 0.75 * end or place == 0)

    def level(self) -> int:
        """The first measurement after which the validation loss fell by nothing worth a word."""
        end = self.validation[-1].value
        return next(n for n, losses in enumerate(self.validation) if losses.value - end < MATERIAL * self.unit)

    def sure(self, score: Score, share: float) -> bool:
        """Is a rise more than chance among the rows, than the optimiser's unrest, and than this share of the unit?"""
        return score.low > 0 and score.value >= max(share * self.unit, 3 * self.unrest)

    def gap(self) -> Score:
        """Validation loss less training loss at the end."""
        return apart(_score(self.validation[-1], "validation loss"), _score(self.training[-1], "training loss"))

    def gap_grown(self) -> Score:
        """How much more the training loss has fallen: what a difference of the rows themselves cannot explain."""
        return apart(self.change("validation", 0, self.last), self.change(SAMPLE, 0, self.last))

    def fit(self, verdict: Verdict, because: Because, *, since: int | None = None, measured: bool = True) -> Fit:
        evidence: dict[str, Score] = {}
        if measured:
            evidence = {
                "training_change": self.change(SAMPLE, 0, self.last),
                "validation_change": self.change("validation", 0, self.last),
                "validation_since_best": self.change("validation", self.best, self.last),
                "validation_late": self.change("validation", self.late(), self.last),
                "gap": self.gap(),
                "gap_grown": self.gap_grown(),
            }
        return Fit(
            verdict=verdict,
            because=because,
            since=since,
            first=self.validation[0].step,
            last=self.validation[-1].step,
            items=self.items,
            evidence=evidence,
        )


def unrest(values: Sequence[float]) -> float:
    """Standard deviation of what shakes a smooth course, the first value apart; 0 where there are too few to tell.

    From second differences (Gasser, Sroka and Jennen-Steinmetz 1986), by their median, which a bend moves little.
    """
    second = np.diff(np.asarray(values[1:]), n=2)
    return float(1.4826 * np.median(np.abs(second)) / math.sqrt(6)) if len(second) >= 4 else 0.0


def _score(losses: Losses, name: str) -> Score:
    return statistics.ratio(losses.sums, losses.weights, signature=f"{name} at step {losses.step}")


def turned(score: Score) -> Score:
    """The same change the other way round."""
    return Score(value=-score.value, low=-score.high, high=-score.low, count=score.count, signature=score.signature)


def apart(first: Score, second: Score) -> Score:
    """`first - second` of scores on different items, from their own intervals (Zou and Donner 2008, MOVER)."""
    value = first.value - second.value
    return Score(
        value=value,
        low=value - math.hypot(first.value - first.low, second.high - second.value),
        high=value + math.hypot(first.high - first.value, second.value - second.low),
        count=min(first.count, second.count),
        signature=f"{first.signature} less {second.signature}",
    )
