"""What a round of self-training takes, what ends it, and what a person should label: functions of probabilities.

Letters: `N` rows, `C` classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mingshi.evals.statistics import clopper_pearson

Reason = Literal["guesses", "worse", "collapsed", "none_sure", "rounds"]

RARE = 0.2  # of a class's share among known rows: predicted more rarely, it is dying out
SEEN = 5  # known rows of a class, without which its share says nothing


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Known:
    """Rows with labels, and what a model makes of them."""

    shares_NC: np.ndarray
    truth_N: np.ndarray  # classes' numbers

    @property
    def right_N(self) -> np.ndarray:
        right: np.ndarray = self.shares_NC.argmax(axis=1) == self.truth_N
        return right

    @property
    def accuracy(self) -> float:
        return float(self.right_N.mean())


def taken(shares_NC: np.ndarray, *, part: float, floor: float) -> tuple[np.ndarray, list[float]]:
    """`[N]`: the surest `part` of the rows predicted as each class, none less sure than `floor`; and for each class the
    confidence of the last that was taken, nan where none was.

    A class that is learnt late is given a lower threshold, as in FlexMatch (Zhang et al. 2021, section 3), so that the
    easy ones do not swallow it; raising `part` from round to round lets all of them fall.
    """
    sure_N, class_N = shares_NC.max(axis=1), shares_NC.argmax(axis=1)
    chosen_N, last = np.zeros(len(shares_NC), dtype=bool), []
    for number in range(shares_NC.shape[1]):
        mine = np.flatnonzero(class_N == number)
        mine = mine[np.argsort(-sure_N[mine], kind="stable")][: math.ceil(part * len(mine))]
        mine = mine[sure_N[mine] >= floor]
        chosen_N[mine] = True
        last.append(float(sure_N[mine].min()) if len(mine) else math.nan)
    return chosen_N, last


def guesses(known: Known) -> bool:
    """Is a teacher no better than the commonest class, as far as these rows can tell?"""
    counts = np.bincount(known.truth_N, minlength=known.shares_NC.shape[1])
    low, _ = clopper_pearson(int(known.right_N.sum()), len(known.truth_N))
    return low <= float(counts.max()) / len(known.truth_N)


def worse(known: Known, best: Known) -> bool:
    """Does a round fall behind the best by more than one standard error of their paired difference?"""
    change_N = known.right_N.astype(float) - best.right_N.astype(float)
    spread = float(change_N.std(ddof=1)) / math.sqrt(len(change_N)) if len(change_N) > 1 else 0.0
    return float(change_N.mean()) < -spread


def dying(shares_NC: np.ndarray, truth_N: np.ndarray) -> list[int]:
    """Classes that are predicted far more rarely than known rows have them."""
    known_C = np.bincount(truth_N, minlength=shares_NC.shape[1])
    told_C = np.bincount(shares_NC.argmax(axis=1), minlength=shares_NC.shape[1]) / len(shares_NC)
    return [
        number for number, count in enumerate(known_C) if count >= SEEN and told_C[number] < RARE * count / len(truth_N)
    ]


def most_useful(shares_NC: np.ndarray) -> np.ndarray:
    """The rows in the order in which a person should label them: the smallest lead of the first class first, and of
    rows that any two classes share, turn by turn, so that no pair of classes takes all the room."""
    order_NC = np.argsort(-shares_NC, axis=1, kind="stable")
    top = np.take_along_axis(shares_NC, order_NC[:, :2], axis=1)
    lead_N = top[:, 0] - top[:, 1]
    pairs_N2 = np.sort(order_NC[:, :2], axis=1)
    turn_N = np.empty(len(shares_NC), np.int64)
    for pair in np.unique(pairs_N2, axis=0):
        mine = np.flatnonzero((pairs_N2 == pair).all(axis=1))
        turn_N[mine[np.argsort(lead_N[mine], kind="stable")]] = np.arange(len(mine))
    found: np.ndarray = np.lexsort((lead_N, turn_N))
    return found
