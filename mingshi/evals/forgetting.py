"""What a model lost and won between two measurements of the same items, and what a chain of stages did to each task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mingshi.directions import is_better_higher
from mingshi.evals import compare, statistics
from mingshi.evals.classification import answers_of, is_classified
from mingshi.types import Score, Scores

FORMAT = ("empty", "unfinished", "no_room", "unreadable", "repetition")  # of the form of an answer, not of what it says
GUESSED = ("accuracy", "accuracy_sum")  # metrics that a guess gets right now and then
CHANCE = "chance"  # the column of items that says how often a guess is right
ABOVE = 2.0  # standard errors above chance, for there to be something to retain
AT_ONCE = 256  # items that are left out, each in its turn
NORMAL = 1.959963984540054  # standard errors on each side of a 95 % interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One metric before and after."""

    before: Score
    after: Score
    difference: Score  # paired, on the same items
    better: bool | None  # whether the difference is one for the better; None: not sure, or no better way is known
    format: bool  # of the form of the answers: empty, unfinished, repeating
    lost: int | None  # items that got worse: right before and wrong after, where an item is one or the other
    won: int | None
    p_value: float | None  # of lost against won, if items did not change: McNemar's exact test, or the sign test
    retained: Score | None  # (after - chance) / (before - chance); None: nothing was there to retain


def changes(before: Scores, after: Scores, *, seed: int = 0) -> dict[str, Change]:
    """By metric, what `mingshi.evals.compare` compares; RecipeError if the two were not measured alike."""
    return {
        name: _change(name, before, after, difference, seed)
        for name, difference in compare(before, after, seed=seed).items()
    }


def _change(name: str, before: Scores, after: Scores, difference: Score, seed: int) -> Change:
    higher = is_better_higher(name)
    first, second = (_values(scores, name) for scores in (before, after))
    lost = won = None
    p_value: float | None = None
    if first is not None and second is not None and higher is not None:
        moved = (second - first) * (1 if higher else -1)
        lost, won = int((moved < 0).sum()), int((moved > 0).sum())
        p_value = statistics.mcnemar(won, lost)
    return Change(
        before=before.scores[name],
        after=after.scores[name],
        difference=difference,
        better=_better(difference, higher),
        format=name in FORMAT,
        lost=lost,
        won=won,
        p_value=p_value,
        retained=_retained(name, before, first, second, seed) if higher and name not in FORMAT else None,
    )


def _values(scores: Scores, name: str) -> np.ndarray | None:
    """Each item's own value; of a sum over a sum, their ratio; of a classifier, whether it is right or how far off."""
    if is_classified(scores.items):
        errors_N = answers_of(scores.items).errors()
        own = {"accuracy": (errors_N == 0).astype(np.float64), "mean_absolute_error": errors_N}
        return own.get(name)
    if name in scores.items:
        return np.asarray(scores.items[name], np.float64)
    if f"{name}.sum" in scores.items:
        sums, weights = (np.asarray(scores.items[f"{name}.{part}"], np.float64) for part in ("sum", "weight"))
        return sums / np.where(weights > 0, weights, 1.0)
    return None


def _better(difference: Score, higher: bool | None) -> bool | None:
    if higher is None or not math.isfinite(difference.low) or difference.low <= 0 <= difference.high:
        return None
    return (difference.value > 0) == higher


def _retained(
    name: str, before: Scores, first: np.ndarray | None, second: np.ndarray | None, seed: int
) -> Score | None:
    """The share of what stood above chance that still does, items drawn together."""
    if first is None or second is None or name not in before.items:
        return None
    chance = np.asarray(before.items.get(CHANCE, [0.0] * len(first)), np.float64) if name in GUESSED else 0 * first
    above = first - chance
    error = above.std(ddof=1) / math.sqrt(len(above)) if len(above) > 1 else math.inf
    if not above.mean() > ABOVE * error or not above.mean() > 0:
        return None

    def share(counts_RN: np.ndarray) -> np.ndarray:
        there = counts_RN @ above
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = np.where(there > 0, (counts_RN @ (second - chance)) / there, np.nan)[:, None]
        return found

    signature = f"retained {before.scores[name].signature}"
    return statistics.measured(share, len(first), signatures=[signature], seed=seed)[0]


# Several stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What stages did to the tasks that they teach (Lopez-Paz and Ranzato 2017, Gradient Episodic Memory, section 2).

    Means over the tasks that they are about: of backward transfer and forgetting, those of all stages but the last; of
    forward transfer, those of all but the first. Of transfers, positive is better, whatever the metric's own direction;
    of forgetting (Chaudhry et al. 2018, Riemannian Walk, equation 3), zero is. None where there is no task to speak of.
    """

    metric: str
    average: Score | None  # of all these tasks, after the last stage
    backward: Score | None  # what became of each since the stage that taught it
    forward: Score | None  # what came to each before the stage that teaches it
    forgetting: Score | None = None  # from each one's best since it was taught, and before the last stage, to the end


def transfers(
    matrix: Sequence[Mapping[str, Scores]], metrics: Mapping[str, str], taught: Mapping[str, int]
) -> list[Transfer]:
    """One for each metric; `matrix[0]` is before any stage and `matrix[s + 1]` after stage `s`, by task.

    Tasks that are measured by different metrics have no average together.
    """
    last = len(matrix) - 1
    found = []
    for metric in dict.fromkeys(metrics[name] for name in taught):
        names = [name for name in taught if metrics[name] == metric]
        backward = [(name, last, taught[name] + 1) for name in names if taught[name] + 1 < last]
        forward = [(name, taught[name], 0) for name in names if taught[name] > 0]
        fallen = [(name, last, _best(matrix, name, metric, since)) for name, _, since in backward]
        found.append(
            Transfer(
                metric=metric,
                average=_averaged(matrix, metric, [(name, last, None) for name in names]),
                backward=_averaged(matrix, metric, backward),
                forward=_averaged(matrix, metric, forward),
                forgetting=_turned(_averaged(matrix, metric, fallen)),
            )
        )
    return found


def _best(matrix: Sequence[Mapping[str, Scores]], task: str, metric: str, since: int) -> int:
    """The row, from the one after its own stage to the last but one, in which a task was best."""
    name = metric.partition(".")[2]
    sign = -1.0 if is_better_higher(name) is False else 1.0
    return max(range(since, len(matrix) - 1), key=lambda row: sign * matrix[row][task].scores[name].value)


def _turned(score: Score | None) -> Score | None:
    return None if score is None else replace(score, value=-score.value, low=-score.high, high=-score.low)


def _averaged(
    matrix: Sequence[Mapping[str, Scores]], metric: str, terms: Sequence[tuple[str, int, int | None]]
) -> Score | None:
    """The mean over tasks of a score, or of a change between two rows of the matrix.

    Tasks are fixed and their items drawn, so the variance is the mean of each task's own, by the delta method for a sum
    over a sum (Miller 2024, Adding Error Bars to Evals, equations 1 and 7).
    """
    if not terms:
        return None
    name = metric.partition(".")[2]
    sign = -1.0 if is_better_higher(name) is False and terms[0][2] is not None else 1.0
    value = variance = 0.0
    count = 0
    for task, later, earlier in terms:
        found, influence_N = _estimate(matrix[later][task], name)
        if earlier is not None:
            before, earlier_N = _estimate(matrix[earlier][task], name)
            found, influence_N = found - before, influence_N - earlier_N
        value += found / len(terms)
        spread = influence_N.var(ddof=1) if len(influence_N) > 1 else math.nan
        variance += spread / len(influence_N) / len(terms) ** 2
        count += len(influence_N)
    half = NORMAL * math.sqrt(variance)
    signature = f"mean over {len(terms)} tasks of {metric}"
    value *= sign
    return Score(value=value, low=value - half, high=value + half, count=count, signature=signature)


def _estimate(scores: Scores, name: str) -> tuple[float, np.ndarray]:
    """A sum over a sum, and how much each item moves it, times their number; of other statistics by the jackknife."""
    if is_classified(scores.items):
        return _left_out(scores, name)
    if name in scores.items:
        sums_N = np.asarray(scores.items[name], np.float64)
        weights_N = np.ones_like(sums_N)
    else:
        sums_N, weights_N = (np.asarray(scores.items[f"{name}.{part}"], np.float64) for part in ("sum", "weight"))
    value = sums_N.sum() / weights_N.sum()
    return float(value), (sums_N - value * weights_N) / weights_N.mean()


def _left_out(scores: Scores, name: str) -> tuple[float, np.ndarray]:
    """A classifier's metric, and `(N - 1)(metric - metric without the item)`, which of a mean is each item's part."""
    answers = answers_of(scores.items)
    own_N = _values(scores, name)
    if own_N is not None:
        return float(own_N.mean()), own_N - own_N.mean()
    column, count = answers.metrics().index(name), len(answers)
    value = float(answers.measure(np.ones((1, count)))[0, column])
    without_N = np.concatenate(
        [
            answers.measure(1.0 - np.eye(min(AT_ONCE, count - start), count, start))[:, column]
            for start in range(0, count, AT_ONCE)
        ]
    )
    return value, (count - 1) * (value - without_N)
