"""Whether probabilities can be believed, and the temperature that makes them more so.

Letters: `N` items, `K` classes, `R` resamples, `B` bins, `D` decisions about each item, `C` choices in each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_softmax, ndtri
from scipy.stats import rankdata

from mingshi.errors import DataError
from mingshi.evals.statistics import LEVEL

BINS = 15  # as many decisions in each
SURE = float(np.finfo(np.float64).eps)  # of the log loss: no probability is taken to be nearer to 0 or 1
LEAST, MOST = 0.05, 20.0  # temperatures that are looked at


def bins_of(shares: np.ndarray) -> np.ndarray:
    """The bin of each probability, of its shape: bins hold equally many, but equal ones stay together."""
    ranks = rankdata(shares, method="min", axis=None).reshape(shares.shape) - 1
    numbers: np.ndarray = (ranks * BINS // shares.size).astype(np.int64)
    return numbers


def calibration_error(counts_RN: np.ndarray, shares_NK: np.ndarray, right_NK: np.ndarray) -> np.ndarray:
    """Expected calibration error `[R]` (Naeini et al. 2015) over bins of equally many decisions: mean gap of
    probability and frequency."""
    bins_NK = bins_of(shares_NK)
    gaps_NK = shares_NK - right_NK
    gaps_NB = np.stack([np.where(bins_NK == number, gaps_NK, 0.0).sum(1) for number in range(BINS)], axis=1)
    found: np.ndarray = np.abs(counts_RN @ gaps_NB).sum(1) / (counts_RN.sum(1) * shares_NK.shape[1])
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Decisions of about one probability: its mean, how often they were right, and their number."""

    share: float
    frequency: float
    count: int


def reliability(shares_NK: np.ndarray, right_NK: np.ndarray) -> list[Bin]:
    """The bins of the calibration error that hold any decision, the least sure first."""
    bins_NK = bins_of(shares_NK)
    found = []
    for number in np.unique(bins_NK):
        inside = bins_NK == number
        share, frequency = float(shares_NK[inside].mean()), float(right_NK[inside].mean())
        found.append(Bin(share=share, frequency=frequency, count=int(inside.sum())))
    return found


# Temperature


@dataclass(frozen=True, slots=True, kw_only=True)
class Temperature:
    """What logits are to be divided by, and its 95 % interval, nan where the rows cannot give one."""

    value: float
    low: float
    high: float
    count: int  # rows it was fitted on


def fit_temperature(logits_NK: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature that gives the least log loss on these rows (Guo et al. 2017), from 1/20 to 20.

    `labels` are the classes `[N]` of a softmax, or `[N, K]` which of them an item has: one sigmoid for each. The loss
    is convex in the temperature's reciprocal, so its one minimum is where the slope is zero; where the slope has no
    zero (every row rightly classified, say) the temperature is an end of the range, without interval. The interval is
    that of a misspecified model (White 1982), on the scale of the logarithm. DataError without rows, or where a
    logit is not finite.
    """
    if not len(logits_NK) or not np.isfinite(logits_NK).all():
        raise DataError("no temperature can be fitted", "Give at least one row, and logits that are finite.")
    if labels.ndim == 1:
        logits_NDC, labels_ND = logits_NK[:, None, :], labels[:, None]
    else:
        logits_NDC, labels_ND = np.stack([np.zeros_like(logits_NK), logits_NK], axis=2), labels.astype(np.int64)
    chosen_ND = np.take_along_axis(logits_NDC, labels_ND[:, :, None], axis=2)[:, :, 0]

    def slopes(reciprocal: float) -> tuple[np.ndarray, float]:
        """Of the loss of each item, and how much their sum bends."""
        shares_NDC = np.exp(log_softmax(reciprocal * logits_NDC, axis=2))
        mean_ND = (shares_NDC * logits_NDC).sum(2)
        spread = (shares_NDC * (logits_NDC - mean_ND[:, :, None]) ** 2).sum()
        return (mean_ND - chosen_ND).sum(1), float(spread)

    def slope(reciprocal: float) -> float:
        return float(slopes(reciprocal)[0].sum())

    count = len(logits_NK)
    first, last = slope(1 / MOST), slope(1 / LEAST)
    if first >= 0 or last <= 0:
        end = LEAST if first < 0 else MOST if last > 0 else 1.0
        return Temperature(value=end, low=math.nan, high=math.nan, count=count)
    reciprocal = float(brentq(slope, 1 / MOST, 1 / LEAST, xtol=1e-14, rtol=1e-14))
    slopes_N, bend = slopes(reciprocal)
    deviation = math.sqrt(float((slopes_N**2).sum())) / (bend * reciprocal)  # of the logarithm
    factor = math.exp(float(ndtri(0.5 + LEVEL / 2)) * deviation) if count > 1 else math.nan
    return Temperature(value=1 / reciprocal, low=1 / reciprocal / factor, high=factor / reciprocal, count=count)
