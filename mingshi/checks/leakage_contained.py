"""Held-out questions inside longer training rows, which no likeness of whole texts shows.

A question's runs of words (shingles.py) are looked up in every training row. Two rules, by the name of the run: half
of a question's runs of 8 words, as PaLM and Tülu 3 count (Chowdhery et al., 2022; Lambert et al., 2024), or any run of
13 words, as GPT-3 does (Brown et al., 2020). In Chinese a run has 13 or 21 characters. What many questions or many
training rows share is a template and does not count, except in a row that has a question as a whole.

Letters: `P` runs of all questions, `Q` questions, `K` pairs of a training row and a question.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mingshi.checks.leakage_near import commonplace
from mingshi.checks.shingles import WORDS_8, WORDS_13, Words, word_shingles

Containment = Literal["8-grams", "13-gram"]
RULES: dict[Containment, tuple[tuple[int, int], float]] = {  # characters and words of a run; share of them, at least
    "8-grams": (WORDS_8, 0.5),
    "13-gram": (WORDS_13, 0.0),
}
MOST = 1024  # runs of a question, from its beginning: what is longer is found by them
FEWEST = 3  # runs of a question besides those of templates, unless it has no more

_ALL = 0xFFFFFFFF


@dataclass(slots=True)
class Questions:
    """Runs of words of the questions added so far."""

    rule: Containment
    runs: array[int] = field(default_factory=lambda: array("I"))
    sizes: array[int] = field(default_factory=lambda: array("I"))  # runs of each question

    def add(self, words: Words) -> None:
        runs = np.unique(word_shingles(words, RULES[self.rule][0])[0][:MOST])
        self.runs.frombytes(runs.tobytes())
        self.sizes.append(len(runs))

    def index(self, wanted_Q: np.ndarray) -> Index:
        """To look for those questions, bool, that are not the same words to many rows."""
        sizes = np.asarray(self.sizes, dtype=np.int64)
        owners = np.repeat(np.arange(len(sizes), dtype=np.uint64), sizes)
        marked = (np.asarray(self.runs, dtype=np.uint64) << np.uint64(32)) | owners
        marked = marked[wanted_Q[owners.astype(np.int64)]]
        marked.sort()
        runs, owners = (marked >> np.uint64(32)).astype(np.uint32), (marked & np.uint64(_ALL)).astype(np.int64)
        _, places, counts = np.unique(runs, return_inverse=True, return_counts=True)
        rare = counts[places] <= commonplace(int(wanted_Q.sum()))
        left = np.bincount(owners[rare], minlength=len(sizes))
        looked_for = (left >= np.minimum(FEWEST, sizes)) & (left > 0)
        kept = rare & looked_for[owners]
        return Index(self.rule, runs[kept], owners[kept], np.where(looked_for, left, 0))


@dataclass(frozen=True, slots=True)
class Hit:
    """A question found in a training row."""

    row: int
    question: int
    share: float  # of the question's runs
    longest: int  # words, or characters of Chinese, in one piece
    place: float  # where that piece begins, as a share of the row's length


class Index:
    """Where each run belongs, and what was found."""

    def __init__(self, rule: Containment, runs_P: np.ndarray, owners_P: np.ndarray, sizes_Q: np.ndarray) -> None:
        self.sizes = sizes_Q  # runs that are looked for; none of a question without, or of set phrases alone
        self._lengths, self._share = RULES[rule]
        self._runs, self._owners = runs_P, owners_P
        self._met = np.zeros(len(runs_P), dtype=np.uint32)  # training rows that have the run
        self._shift = np.uint32(32 - min(27, max(10, (8 * len(runs_P)).bit_length())))
        self._present = np.zeros(1 << int(32 - self._shift), dtype=bool)  # of each run its first bits: most are in none
        self._present[runs_P >> self._shift] = True
        self._rows = 0
        self._hits: list[Hit] = []
        self._whole: list[bool] = []
        self._entries: list[np.ndarray] = []  # of each hit, which runs

    def look(self, row: int, words: Words) -> list[Hit]:
        """Questions in this training row, as far as it is known before all rows were seen."""
        self._rows += 1
        runs, starts = word_shingles(words, self._lengths)
        maybe = self._present[runs >> self._shift]
        if not maybe.any():
            return []
        runs, starts = runs[maybe], starts[maybe]
        low, high = np.searchsorted(self._runs, runs, "left"), np.searchsorted(self._runs, runs, "right")
        counts = high - low
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        entries, first = np.unique(np.repeat(low, counts) + inside, return_index=True)
        places = np.repeat(starts, counts)[first]
        self._met[entries] += 1
        owners = self._owners[entries]
        found = []
        for question, count in zip(*np.unique(owners, return_counts=True), strict=True):
            size = int(self.sizes[question])
            if count < self._share * size:
                continue
            mine = owners == question
            longest, begin = _longest(np.sort(places[mine]), words.wide, self._lengths)
            found.append(Hit(row, int(question), float(count / size), longest, float(words.starts[begin])))
            self._whole.append(bool(count == size))
            self._entries.append(entries[mine].astype(np.uint32))
        self._hits += found
        return found

    def hits(self) -> list[Hit]:
        """What stays when runs that many training rows have are left out; they are left out of the question too."""
        rare = self._met <= commonplace(self._rows)
        sizes = np.bincount(self._owners[rare], minlength=len(self.sizes))
        kept = []
        for hit, whole, entries in zip(self._hits, self._whole, self._entries, strict=True):
            count, size = int(rare[entries].sum()), int(sizes[hit.question])
            enough = count >= max(1, self._share * size) and size >= min(FEWEST, self.sizes[hit.question])
            if whole or enough:
                kept.append(hit)
        return kept


def _longest(places: np.ndarray, wide: np.ndarray, lengths: tuple[int, int]) -> tuple[int, int]:
    """Words of the longest piece that runs beginning at these words cover without a gap, and its first word."""
    breaks = np.flatnonzero(np.diff(places) > 1)
    first = places[np.concatenate([[0], breaks + 1])]
    last = places[np.concatenate([breaks, [len(places) - 1]])]
    sizes = last - first + np.where(wide[last], *lengths)
    best = int(np.argmax(sizes))
    return int(sizes[best]), int(first[best])
