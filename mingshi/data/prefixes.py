"""Texts of one stream that begin alike are read once up to where they part: a system prompt, an instruction, few shots.

In a causal network what stands before a token decides its states alone, so states and summed gradients are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np

SHORTEST = 16  # tokens: a segment more has its price, too


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A stream without its repetitions."""

    rows: np.ndarray  # [U] int64: which row of the stream stands here
    segments: np.ndarray  # [S, 3] int32
    places: np.ndarray  # [T] int64: where each row of the stream stands now, or the one that is read for it


def share_prefixes(tokens_T: np.ndarray, segments: np.ndarray) -> Shared | None:
    """Fold the beginnings that texts have in common; None where nothing is.

    `segments` is `[S, 3]` start, length, parent, parents before children. Only segments without a parent are compared.
    """
    roots = [index for index, (_, length, parent) in enumerate(segments.tolist()) if parent < 0 and length]
    texts = {root: tokens_T[segments[root, 0] : segments[root, 0] + segments[root, 1]] for root in roots}
    roots.sort(key=lambda root: texts[root].astype(">u4").tobytes())
    folding = _Folding(segments, texts)
    if roots:
        folding.divide(roots, depth=0, parent=-1)
    if all(len(sharing) == 1 for sharing, *_ in folding.parts):
        return None
    return folding.shared(len(tokens_T))


class _Folding:
    """A trie over sorted texts, written down as segments while it is walked."""

    def __init__(self, segments: np.ndarray, texts: dict[int, np.ndarray]):
        self.old = segments
        self.texts = texts
        self.parts: list[tuple[list[int], int, int, int]] = []  # the roots that share it, from, to, parent
        self.ends: dict[int, int] = {}  # of each root: the part that it ends in

    def divide(self, roots: list[int], *, depth: int, parent: int) -> None:
        """Write the texts from `depth` on, which are alike until there."""
        if len(roots) == 1:
            (root,) = roots
            self._write(roots, depth, len(self.texts[root]), parent)
            return
        first, last = self.texts[roots[0]], self.texts[roots[-1]]  # of sorted texts these two differ most
        common = _common(first, last)
        if common - depth >= SHORTEST or common == len(first):
            parent, depth = self._write(roots, depth, common, parent), common
        whole = [root for root in roots if len(self.texts[root]) == common]  # nothing is left of them to write
        longer = roots[len(whole) :]
        for _, alike in groupby(longer, key=lambda root: int(self.texts[root][common])):
            self.divide(list(alike), depth=depth, parent=parent)

    def _write(self, roots: list[int], start: int, end: int, parent: int) -> int:
        self.parts.append((roots, start, end, parent))
        self.ends.update(dict.fromkeys(roots, len(self.parts) - 1))
        return len(self.parts) - 1

    def shared(self, tokens: int) -> Shared:
        rows: list[np.ndarray] = []
        segments: list[tuple[int, int, int]] = []
        places = np.full(tokens, -1, dtype=np.int64)
        at = 0
        for roots, start, end, parent in self.parts:
            for root in roots:
                places[self.old[root, 0] + start : self.old[root, 0] + end] = np.arange(at, at + end - start)
            rows.append(np.arange(self.old[roots[0], 0] + start, self.old[roots[0], 0] + end))
            segments.append((at, end - start, parent))
            at += end - start
        moved = {-1: -1, **self.ends}  # where each old segment ends now
        for index, (start, length, parent) in enumerate(self.old.tolist()):
            if index in self.ends:
                continue
            if not length:
                moved[index] = moved[parent]
                continue
            places[start : start + length] = np.arange(at, at + length)
            rows.append(np.arange(start, start + length))
            moved[index] = len(segments)
            segments.append((at, length, moved[parent]))
            at += length
        return Shared(np.concatenate(rows).astype(np.int64), np.array(segments, dtype=np.int32), places)


def _common(left: np.ndarray, right: np.ndarray) -> int:
    """How many tokens two texts begin with alike."""
    length = min(len(left), len(right))
    different = np.flatnonzero(left[:length] != right[:length])
    return int(different[0]) if len(different) else length
