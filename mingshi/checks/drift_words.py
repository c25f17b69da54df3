"""Which words two piles of rows use differently."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mingshi.checks.drift_features import CJK_START, tokens

FEWEST = 3  # rows with a word, for it to be told
SURE = 1.96  # standard deviations from which on a difference is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A word, and in how many rows of each pile it is."""

    word: str
    first: int
    second: int
    z: float  # above zero: the second pile's


def row_counts(texts: Iterable[str]) -> Counter[str]:
    """In how many texts a word is: one that a text repeats says no more of other texts.

    Of Chinese, pairs of characters: a single one seldom means anything.
    """
    counts = Counter[str]()
    for text in texts:
        counts.update({token for token in tokens(text) if len(token) > 1 or not CJK_START.match(token)})
    return counts


def log_odds(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, float]:
    """Differences of log-odds over their standard deviations, with the informative Dirichlet prior of Monroe, Colaresi
    and Quinn (2008, Fightin' Words), which here is the words of both together.
    """
    words = sorted(first.keys() | second.keys())
    if not words:
        return {}
    first_V = np.array([first.get(word, 0) for word in words], np.float64)
    second_V = np.array([second.get(word, 0) for word in words], np.float64)
    prior_V = first_V + second_V
    prior = prior_V.sum()

    def odds(counts_V: np.ndarray) -> np.ndarray:
        raised_V = counts_V + prior_V
        logs: np.ndarray = np.log(raised_V) - np.log(np.maximum(counts_V.sum() + prior - raised_V, 0.5))
        return logs

    variance_V = 1 / (first_V + prior_V) + 1 / (second_V + prior_V)
    z_V = (odds(second_V) - odds(first_V)) / np.sqrt(variance_V)
    return dict(zip(words, z_V.tolist(), strict=True))


def differing(first: Iterable[str], second: Iterable[str], *, most: int = 20) -> tuple[list[Word], list[Word]]:
    """The words of the first pile and those of the second, the surest first."""
    before, after = row_counts(first), row_counts(second)
    found = [
        Word(word=word, first=before[word], second=after[word], z=z)
        for word, z in log_odds(before, after).items()
        if abs(z) >= SURE and before[word] + after[word] >= FEWEST
    ]
    found.sort(key=lambda word: (word.z, word.word))
    of_first = [word for word in found[:most] if word.z < 0]
    of_second = [word for word in found[::-1][:most] if word.z > 0]
    return of_first, of_second
