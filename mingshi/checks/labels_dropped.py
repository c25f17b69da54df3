"""Whether dropping the suspects pays, measured on rows that had no part in it.

A fifth of the rows is set aside. Suspects are looked for among the rest, and a model learns once from all of these and
once without the suspects; how often each agrees with the labels set aside is compared. Some of those are wrong too, for
both alike: where a share e of the labels of two classes is wrong at random, agreement is e + (1 - 2e) accuracy, so what
pays for agreement pays for accuracy. Nothing can tell a wrong label from a hard row without reading; this can tell
whether rows like these are better learnt without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mingshi.checks import labels_model
from mingshi.evals import statistics

ASIDE = 5  # one row in so many
FEWEST = 100  # rows set aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """Agreement with the labels set aside."""

    rows: int  # set aside
    before: float  # share, by a model that learnt from all others
    after: float  # by one that learnt without the suspects
    low: float  # of the 95 % interval of the paired difference
    high: float

    @property
    def pays(self) -> bool:
        return self.low > 0


def dropped(
    features_NF: Any,
    labels_N: np.ndarray,
    components_N: np.ndarray,
    *,
    states_NW: np.ndarray | None = None,
    seed: int = 0,
) -> Dropped | None:
    """None where the rows are too few, or one class is left."""
    from cleanlab.filter import find_label_issues

    aside = labels_model.deal(labels_N, components_N, folds=ASIDE, seed=seed) == 0
    rest, there = np.flatnonzero(~aside), np.flatnonzero(aside)
    if len(there) < FEWEST:
        return None
    probabilities = labels_model.judge(
        features_NF[rest],
        labels_N[rest],
        components_N[rest],
        states_NW=None if states_NW is None else states_NW[rest],
        seed=seed,
    ).probabilities
    doubted = find_label_issues(labels_N[rest], probabilities, filter_by="prune_by_noise_rate", n_jobs=1)
    kept = rest[~doubted]
    if len(np.unique(labels_N[kept])) < 2:
        return None
    right = [
        labels_model.predicted(features_NF, labels_N, learning, there, states_NW=states_NW, seed=seed)
        == labels_N[there]
        for learning in (rest, kept)
    ]
    change = statistics.difference(right[0].tolist(), right[1].tolist(), signature="agreement|without the suspects")
    return Dropped(
        rows=len(there),
        before=float(right[0].mean()),
        after=float(right[1].mean()),
        low=change.low,
        high=change.high,
    )
