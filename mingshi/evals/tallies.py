"""Metrics of predictions as sums over items: what each row adds, and what the sums come to.

A file of any length is read once and held as at most `MOST_ITEMS` rows of numbers, from which value, interval and
paired test are all computed. Letters: `N` items, `K` columns of a tally, `R` resamples, `M` metrics.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np

from mingshi.errors import DataError
from mingshi.evals import classification
from mingshi.evals.predictions import Item

MOST_ITEMS = 19_997  # resampled each by itself; a prime, so that no period of a file falls together with it
MOST_CLASSES = 200

Parts = Callable[[Item], Sequence[tuple[float, float]]]  # above and below the line, for each metric


class Places:
    """Which of the resampled items a row belongs to: its own, or its group's. With more than `MOST_ITEMS`, several
    rows or groups share one: sums of random handfuls vary as their rows do."""

    def __init__(self) -> None:
        self.groups: dict[str, int] = {}
        self.items = 0
        self.clustered = False

    def of(self, group: str | None) -> int:
        if group is not None:
            self.clustered = True
            if group in self.groups:
                return self.groups[group]
            if len(self.groups) >= MOST_ITEMS:  # no more are remembered: a hash says where the group lies
                return int.from_bytes(blake2b(group.encode(), digest_size=8).digest()) % MOST_ITEMS
        place = self.items % MOST_ITEMS
        self.items += 1
        if group is not None:
            self.groups[group] = place
        return place

    @property
    def count(self) -> int:
        return min(self.items, MOST_ITEMS)


class Tally(Protocol):
    """One family of metrics over the rows of a file."""

    def names(self) -> Sequence[str]:
        """Its metrics, in the order of `values`."""

    def signature(self, name: str) -> str:
        """What a metric depends on but for the rows."""

    def add(self, items: Sequence[Item], places: Sequence[int]) -> None:
        """Take rows in."""

    def columns(self, count: int) -> np.ndarray:
        """The sums of each of `count` items, `[N, K]`."""

    def values(self, sums_RK: np.ndarray) -> np.ndarray:
        """The metrics of added columns, `[R, M]`."""


class Ratios:
    """Metrics that are each a sum over a sum: means of items, and lengths over lengths."""

    def __init__(self, signatures: dict[str, str], parts: Parts):
        self.signatures = signatures
        self.parts = parts
        self.sums_NK = np.zeros((MOST_ITEMS, 2 * len(signatures)))

    def names(self) -> Sequence[str]:
        return list(self.signatures)

    def signature(self, name: str) -> str:
        return self.signatures[name]

    def add(self, items: Sequence[Item], places: Sequence[int]) -> None:
        _add(self.sums_NK, places, [[part for pair in self.parts(item) for part in pair] for item in items])

    def columns(self, count: int) -> np.ndarray:
        return self.sums_NK[:count]

    def values(self, sums_RK: np.ndarray) -> np.ndarray:
        return quotients(sums_RK)


class Corpus:
    """BLEU or chrF of `sacrebleu`, out of the statistics that it adds up itself; from 0 to 100, as it counts."""

    def __init__(self, name: str, metric: Any):
        self.name = name
        self.metric = metric
        self.sums_NK = np.zeros((MOST_ITEMS, 0))
        self.numbers_of_references: set[int] = set()

    def names(self) -> Sequence[str]:
        return [self.name]

    def signature(self, name: str) -> str:
        counts = self.numbers_of_references
        self.metric.num_refs = counts.copy().pop() if len(counts) == 1 else -1  # -1: they vary
        return f"{name}|{self.metric.get_signature()}"

    def add(self, items: Sequence[Item], places: Sequence[int]) -> None:
        rows = []
        for item in items:
            self.numbers_of_references.add(len(item.references))
            references = [[reference] for reference in item.references]
            rows.extend(self.metric._extract_corpus_statistics([item.prediction], references))
        if not self.sums_NK.shape[1]:
            self.sums_NK = np.zeros((MOST_ITEMS, len(rows[0])))
        _add(self.sums_NK, places, rows)

    def columns(self, count: int) -> np.ndarray:
        return self.sums_NK[:count]

    def values(self, sums_RK: np.ndarray) -> np.ndarray:
        rows = np.rint(sums_RK).astype(np.int64).tolist()
        return np.array([[self.metric._compute_score_from_stats(row).score] for row in rows])


class Classes:
    """Accuracy, and precision, recall and F1 by class and in their means, over the classes of all rows.

    `names_of_classes` may be shared by two files: both are then measured over the classes of either.
    """

    def __init__(self, names_of_classes: dict[str, int], *, every: bool):
        self.known = names_of_classes
        self.every = every  # metric, or accuracy alone
        self.cells = array("q")  # place, true class and predicted class of each row in turn

    def names(self) -> Sequence[str]:
        means = [f"{mean}_{rate}" for mean in ("macro", "weighted") for rate in ("precision", "recall", "f1")]
        return ["accuracy", *means, *classification.by_class(self.classes())] if self.every else ["accuracy"]

    def classes(self) -> list[str]:
        return sorted(self.known)

    def signature(self, name: str) -> str:
        return f"{name}|classes:{len(self.known)}"

    def add(self, items: Sequence[Item], places: Sequence[int]) -> None:
        for item, place in zip(items, places, strict=True):
            assert item.label is not None
            true, taken = (self.known.setdefault(name, len(self.known)) for name in (item.label, item.prediction))
            self.cells.extend((place, true, taken))
        if len(self.known) > MOST_CLASSES:
            what = f"more than {MOST_CLASSES} different classes: {', '.join(sorted(self.known)[:3])}, …"
            raise DataError(what, "If the rows hold texts, name their field `reference`, not `label`.")

    def columns(self, count: int) -> np.ndarray:
        """Hits, true and taken of every class, and how many rows."""
        place_n, true_n, taken_n = self._cells()
        kinds = len(self.known)
        sums_NK = np.zeros((count, 3 * kinds + 1))
        np.add.at(sums_NK, (place_n, true_n), true_n == taken_n)
        np.add.at(sums_NK, (place_n, kinds + true_n), 1)
        np.add.at(sums_NK, (place_n, 2 * kinds + taken_n), 1)
        sums_NK[:, -1] = np.bincount(place_n, minlength=count)
        return sums_NK

    def confusion(self) -> np.ndarray:
        """Rows by true class (down) and predicted class (across), both sorted."""
        _, true_n, taken_n = self._cells()
        matrix = np.zeros((len(self.known), len(self.known)), dtype=np.int64)
        np.add.at(matrix, (true_n, taken_n), 1)
        return matrix

    def values(self, sums_RK: np.ndarray) -> np.ndarray:
        hits_RC, true_RC, taken_RC = np.split(sums_RK[:, :-1], 3, axis=1)
        rows_R = sums_RK[:, -1]
        accuracy_R1: np.ndarray = (hits_RC.sum(1) / rows_R)[:, None]
        if not self.every:
            return accuracy_R1
        rates = classification.rates_of(hits_RC, true_RC, taken_RC, np.ones(len(self.known), dtype=bool))
        each_RC3 = rates.by_class_RM.reshape(len(sums_RK), -1, 3)
        weighted_R3 = (each_RC3 * true_RC[:, :, None]).sum(1) / rows_R[:, None]
        columns = [accuracy_R1, each_RC3.mean(1), weighted_R3, rates.by_class_RM]
        values_RM: np.ndarray = np.concatenate(columns, axis=1)
        return values_RM

    def _cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places, true and predicted classes, where classes are numbered in the order of their names."""
        cells = np.frombuffer(self.cells, dtype=np.int64).reshape(-1, 3)
        order = np.empty(len(self.known), dtype=np.int64)
        for number, name in enumerate(self.classes()):
            order[self.known[name]] = number
        return cells[:, 0], order[cells[:, 1]], order[cells[:, 2]]


def quotients(sums_RK: np.ndarray) -> np.ndarray:
    """Even columns over odd ones; nan where there is nothing to divide by."""
    above, below = sums_RK[:, 0::2], sums_RK[:, 1::2]
    divided: np.ndarray = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return divided


def _add(sums_NK: np.ndarray, places: Sequence[int], rows: Sequence[Sequence[float]]) -> None:
    np.add.at(sums_NK, np.asarray(places), np.asarray(rows, dtype=np.float64))
