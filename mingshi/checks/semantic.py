"""Held-out texts that say the same as a training text in other words, by an encoder's states: for a person to read.

How near is too near depends on the encoder and on the texts. So the nearest neighbours of the held-out texts among
themselves say how far apart texts of this kind lie when nobody copied: the distance to the nearest of n texts is below
d with a probability that grows as n d^m (Levina and Bickel 2005; m is the dimension that the texts fill), which is
fitted to two of its quantiles, so that a few repetitions among the held-out texts do not move it. From it follows how
likely a neighbour as near as the one found would be by chance, among as many texts as are on the other side; shown are
as many pairs as keep the share of those by chance below a fifth (Benjamini and Hochberg 1995).

Equal texts are `leakage`'s business. Nothing here is to be dropped unread: a near neighbour may ask for something else.

Legend: M held-out texts, N texts on the other side, W width of states. A distance is 1 less the cosine.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mingshi.checks.leakage_told import LENGTH, SHOWN, shared_spans
from mingshi.checks.rows import SPLITS, Row, Split
from mingshi.checks.states import States
from mingshi.types import Finding

BETWEEN: tuple[tuple[Split, Split], ...] = (("train", "test"), ("train", "validation"), ("validation", "test"))
FEWEST = 50  # held-out texts whose distances say what is usual
MIDDLE, LOW = 0.5, 0.1  # quantiles of their distances that the law is fitted to
ROWS, COLUMNS = 1024, 8192  # texts of the two sides that are multiplied at a time
FALSE = 0.2  # expected share, among the pairs shown, of those that are so near by chance
LEAST = 1e-6  # distance: smaller ones are rounding


@dataclass(slots=True)
class _Side:
    """The different texts of one split: the place of each one's state, and where it was first read."""

    rows: dict[int, int] = field(default_factory=dict)  # place of the state -> place in the columns
    sources: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))

    def add(self, place: int, source: int, line: int) -> None:
        if place not in self.rows:
            self.rows[place] = len(self.lines)
            self.sources.append(source)
            self.lines.append(line)

    def places(self) -> np.ndarray:
        return np.fromiter(self.rows, dtype=np.int64, count=len(self.rows))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Near:
    """Pairs between two splits, the least likely first."""

    earlier: Split
    later: Split
    pairs: np.ndarray  # [K, 2] places of states: of the earlier split and of the later
    cosines: np.ndarray  # [K]
    chances: np.ndarray  # [K]
    compared: int  # held-out texts
    usual: float  # median cosine of a held-out text and its nearest among them


class Semantic:
    """What is given in a row, of all splits but production. Two readings: `again` gathers the texts to show."""

    def __init__(self, states: States) -> None:
        self._states = states
        self._sides: dict[Split, _Side] = {split: _Side() for split in SPLITS[:3]}
        self._names: dict[str, int] = {}  # files, numbered
        self._near: list[_Near] | None = None
        self._texts: dict[tuple[Split, int], str] = {}  # to be shown, by split and place of the state

    def add(self, row: Row) -> None:
        if row.split == "production" or not row.prompt.strip():
            return
        source = self._names.setdefault(row.source, len(self._names))
        self._sides[row.split].add(self._states.add(row.prompt), source, row.line)

    def again(self, row: Row) -> None:
        """The same rows once more, after `add` has had all of them."""
        if row.split == "production" or not row.prompt.strip():
            return
        if self._near is None:
            self._near = list(self._compared())
            for near in self._near:
                for first, second in near.pairs[:SHOWN].tolist():
                    self._texts |= {(near.earlier, first): "", (near.later, second): ""}
        if self._texts:
            key = (row.split, self._states.add(row.prompt))
            if key in self._texts:
                self._texts[key] = row.prompt[:LENGTH]

    def findings(self) -> list[Finding]:
        near = list(self._compared()) if self._near is None else self._near
        return [self._finding(each) for each in near if len(each.pairs)]

    def _compared(self) -> Iterator[_Near]:
        values = self._states.values()
        for earlier, later in BETWEEN:
            mine, theirs = self._sides[later].places(), self._sides[earlier].places()
            mine = mine[~np.isin(mine, theirs)]
            if len(mine) < FEWEST or not len(theirs):
                continue
            usual, _ = nearest(values[mine], None)
            found, which = nearest(values[mine], values[theirs])
            chance = chances(1 - found, 1 - usual, others=len(theirs))
            order = np.argsort(chance, kind="stable")
            within = np.flatnonzero(chance[order] <= FALSE * np.arange(1, len(mine) + 1) / len(mine))
            order = order[: within[-1] + 1] if len(within) else order[:0]
            yield _Near(
                earlier=earlier,
                later=later,
                pairs=np.stack([theirs[which[order]], mine[order]], axis=1),
                cosines=found[order],
                chances=chance[order],
                compared=len(mine),
                usual=float(np.median(usual)),
            )

    def _finding(self, near: _Near) -> Finding:
        count = len(near.pairs)
        return Finding(
            check="semantic",
            kind="near",
            severity="note",
            count=count,
            message=f"{count} of the {near.compared} texts of {near.later} that are not in {near.earlier} lie nearer "
            "to one of its texts than chance explains: they may say the same in other words "
            f"(expect {FALSE:.0%} not to)",
            rows=[
                {
                    **self._place(near.later, second),
                    "with": self._place(near.earlier, first),
                    "cosine": float(cosine),
                    "chance": float(chance),
                }
                for (first, second), cosine, chance in zip(near.pairs.tolist(), near.cosines, near.chances, strict=True)
            ],
            remedy=f"Read the pairs, the first first; take what is the same out of the {near.earlier} file by hand.",
            evidence={
                "from": near.earlier,
                "to": near.later,
                "of": near.compared,
                "encoder": self._states.name,
                "usual_cosine": near.usual,
                "least_cosine": float(near.cosines.min()),
                "pairs": [self._pair(near, at) for at in range(min(SHOWN, count))],
            },
        )

    def _place(self, split: Split, place: int) -> dict[str, Any]:
        side = self._sides[split]
        at = side.rows[place]
        return {"source": list(self._names)[side.sources[at]], "line": side.lines[at]}

    def _pair(self, near: _Near, at: int) -> dict[str, Any]:
        first, second = near.pairs[at].tolist()
        one, other = self._texts.get((near.earlier, first), ""), self._texts.get((near.later, second), "")
        spans = shared_spans(one, other)
        return {
            "similarity": float(near.cosines[at]),
            "first": {**self._place(near.earlier, first), "text": one, "spans": [span[:2] for span in spans]},
            "second": {**self._place(near.later, second), "text": other, "spans": [span[2:] for span in spans]},
        }


def nearest(states_MW: np.ndarray, others_NW: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Cosine of each unit state and its nearest among the others, and which; None: among the rest of its own kind.

    [M] float32, [M]. Memory: a block of ROWS x COLUMNS products and as many states of either side in float32.
    """
    own = others_NW is None
    others_NW = states_MW if others_NW is None else others_NW
    best_M = np.full(len(states_MW), -np.inf, dtype=np.float32)
    which_M = np.zeros(len(states_MW), dtype=np.int64)
    for column in range(0, len(others_NW), COLUMNS):
        others_WC = others_NW[column : column + COLUMNS].astype(np.float32).T
        for row in range(0, len(states_MW), ROWS):
            cosines_RC = states_MW[row : row + ROWS].astype(np.float32) @ others_WC
            if own:
                at = np.arange(row, row + len(cosines_RC)) - column
                inside = np.flatnonzero((at >= 0) & (at < cosines_RC.shape[1]))
                cosines_RC[inside, at[inside]] = -np.inf
            place = cosines_RC.argmax(axis=1)
            found = cosines_RC[np.arange(len(place)), place]
            here = slice(row, row + len(place))
            better = found > best_M[here]
            best_M[here] = np.where(better, found, best_M[here])
            which_M[here] = np.where(better, column + place, which_M[here])
    return best_M, which_M


def chances(distances_M: np.ndarray, usual_M: np.ndarray, *, others: int) -> np.ndarray:
    """How likely each distance to the nearest of `others` texts is by chance, by those of M texts to their nearest. [M]

    With P(nearest of n < d) = 1 - exp(-c n d^m), c and m such that MIDDLE and LOW of the usual distances are as seen.
    """
    logs = np.log(np.maximum(np.quantile(usual_M, [MIDDLE, LOW]), LEAST))
    rates = np.log(-np.log1p([-MIDDLE, -LOW]))
    slope = (rates[0] - rates[1]) / max(logs[0] - logs[1], LEAST)
    rate_M = rates[0] + slope * (np.log(np.maximum(distances_M, LEAST)) - logs[0])
    more = np.log(others / max(len(usual_M) - 1, 1))
    found: np.ndarray = -np.expm1(-np.exp(np.minimum(rate_M + more, 50.0)))
    return found
