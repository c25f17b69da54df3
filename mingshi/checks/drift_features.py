"""Texts as numbers in which two piles of them may differ: hashed words, their main directions, and their shape.

`N` texts, `F` hashed tokens, `D` dense features.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mingshi.evals.tokens import CJK

HASHED = 2**15  # columns
DIRECTIONS = 16  # of the hashed tokens, for trees
RUN = re.compile(f"[{CJK}]+|[^\\W{CJK}]+")
CJK_START = re.compile(f"[{CJK}]")
KINDS: dict[str, re.Pattern[str]] = {
    "CJK characters": CJK_START,
    "small Latin letters": re.compile("[a-z]"),
    "capital Latin letters": re.compile("[A-Z]"),
    "digits": re.compile(r"\d"),
    "white space": re.compile(r"\s"),
    "punctuation": re.compile(r"[^\w\s]"),
}
SHAPES = ("characters", "line ends", *KINDS, "different words", "characters of a word")  # the first dense features


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Rows `N` of both piles together; nothing here knows which pile a row is of."""

    tokens_NF: Any  # scipy.sparse.csr_array, TF-IDF, rows of length 1
    dense_ND: np.ndarray  # float64

    def take(self, rows: np.ndarray) -> Features:
        return Features(self.tokens_NF[rows], self.dense_ND[rows])


def tokens(text: str) -> Iterator[str]:
    """Words in lower case; of Chinese, Japanese and Korean each character and each pair of neighbours."""
    for run in RUN.findall(text.lower()):
        if CJK_START.match(run):
            yield from run
            yield from (run[place : place + 2] for place in range(len(run) - 1))
        else:
            yield run


def features(texts: Sequence[str], lengths: Sequence[int]) -> Features:
    """`lengths` in characters: the texts may have been cut."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counting = HashingVectorizer(analyzer=tokens, n_features=HASHED, alternate_sign=False, norm=None)
    counts_NF = counting.transform(texts).tocsc()
    shared_F = np.flatnonzero(np.diff(counts_NF.indptr) > 1)  # a token of one row alone says nothing of others
    if not len(shared_F):
        shared_F = np.zeros(1, np.int64)  # learners need a column
    tokens_NF = TfidfTransformer(sublinear_tf=True).fit_transform(counts_NF[:, shared_F].tocsr())
    shapes = np.array([_shape(text, length) for text, length in zip(texts, lengths, strict=True)])
    kept = min(DIRECTIONS, tokens_NF.shape[1] - 1, tokens_NF.shape[0] - 1)
    if kept < 1:
        return Features(tokens_NF, shapes)
    directions = TruncatedSVD(kept, random_state=0).fit_transform(tokens_NF)
    return Features(tokens_NF, np.hstack([shapes, directions]))


def _shape(text: str, length: int) -> list[float]:
    """As SHAPES: two counts, shares of the characters, the share of words that are no repetition, a length."""
    size = max(len(text), 1)
    shares = [len(kind.findall(text)) / size for kind in KINDS.values()]
    words = text.split()
    variety = len(set(words)) / max(len(words), 1)
    return [float(length), float(text.count("\n")), *shares, variety, size / max(len(words), 1)]
