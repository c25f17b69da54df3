"""How a model serves each group: shares of its right and wrong answers, and how far apart the groups are.

Letters: `N` rows, `G` groups, `R` resamples, each saying how often every row was drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mingshi.evals import statistics
from mingshi.types import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """One group's; intervals are Wilson's, nan where a group has no row to measure on."""

    accuracy: Score
    selection: Score  # share that is predicted positive
    true_positive: Score  # of the positive
    false_positive: Score  # of the negative
    false_negative: Score  # of the positive


def outcomes(
    truth: Sequence[str], predicted: Sequence[str], groups: Sequence[str], *, positive: str
) -> dict[str, Outcomes]:
    """By group, in alphabetical order. Every label but `positive` is negative; the accuracy is of the labels."""
    truth_N, predicted_N, groups_N = np.asarray(truth), np.asarray(predicted), np.asarray(groups)
    if not len(truth_N) == len(predicted_N) == len(groups_N):
        raise ValueError("truth, predictions and groups are of different lengths")
    wanted_N, taken_N, right_N = truth_N == positive, predicted_N == positive, truth_N == predicted_N
    found = {}
    for group in np.unique(groups_N):
        mine = groups_N == group
        good, bad = mine & wanted_N, mine & ~wanted_N
        found[str(group)] = Outcomes(
            accuracy=_share(right_N, mine, "accuracy"),
            selection=_share(taken_N, mine, f"selection|positive:{positive}"),
            true_positive=_share(taken_N, good, f"true_positive|positive:{positive}"),
            false_positive=_share(taken_N, bad, f"false_positive|positive:{positive}"),
            false_negative=_share(~taken_N, good, f"false_negative|positive:{positive}"),
        )
    return found


def _share(hits_N: np.ndarray, among_N: np.ndarray, signature: str) -> Score:
    return statistics.rate(int((hits_N & among_N).sum()), int(among_N.sum()), signature=signature)


def demographic_parity_difference(found: Mapping[str, Outcomes]) -> float:
    """The largest share predicted positive, less the smallest; 0 where each group is taken as often."""
    return _spread([each.selection for each in found.values()])


def demographic_parity_ratio(found: Mapping[str, Outcomes]) -> float:
    """The smallest share predicted positive over the largest: disparate impact; nan where nobody is taken."""
    shares = [each.selection.value for each in found.values()]
    return min(shares) / max(shares) if shares and max(shares) > 0 else math.nan


def equalised_odds_difference(found: Mapping[str, Outcomes]) -> float:
    """The larger of the spreads of true and of false positives (Hardt, Price and Srebro 2016, as fairlearn has it)."""
    return max(
        _spread([each.true_positive for each in found.values()]),
        _spread([each.false_positive for each in found.values()]),
    )


def _spread(scores: Sequence[Score]) -> float:
    """Between groups that have rows to measure on; 0 where fewer than two have."""
    values = [score.value for score in scores if score.count]
    return max(values) - min(values) if len(values) > 1 else 0.0


GAPS = ("demographic_parity_difference", "demographic_parity_ratio", "equalised_odds_difference")


def gaps(
    truth: Sequence[str], predicted: Sequence[str], groups: Sequence[str], *, positive: str, seed: int = 0
) -> dict[str, Score]:
    """The three numbers above with BCa intervals over rows: between groups of so few rows much is chance."""
    wanted_N, taken_N = np.asarray(truth) == positive, np.asarray(predicted) == positive
    whose_GN = np.asarray(groups) == np.unique(groups)[:, None]
    parts = [whose_GN & side_N for side_N in (np.ones_like(wanted_N), wanted_N, ~wanted_N)]

    def measure(counts_RN: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = [counts_RN @ (part & taken_N).T / (counts_RN @ part.T) for part in parts]
            selection_RG, *odds = shares
            most_R = np.fmax.reduce(selection_RG, axis=1)
            ratio_R = np.where(most_R > 0, np.fmin.reduce(selection_RG, axis=1) / most_R, math.nan)
        spreads = [
            np.nan_to_num(np.fmax.reduce(each, axis=1) - np.fmin.reduce(each, axis=1)) for each in (selection_RG, *odds)
        ]
        return np.stack([spreads[0], ratio_R, np.maximum(spreads[1], spreads[2])], axis=1)

    signatures = [f"{name}|positive:{positive}" for name in GAPS]
    scores = statistics.measured(measure, len(wanted_N), signatures=signatures, seed=seed)
    return dict(zip(GAPS, scores, strict=True))
