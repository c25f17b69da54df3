"""Do the rows that a model will meet, or is tested on, come from where its training rows came from?

Of each split a sample of at most 5,000 rows is kept, no two of one group: copies of a prompt and turns of one document
say the same thing again, and tests that counted them would be surer than they may be.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import numpy as np

from mingshi.checks import drift_tests
from mingshi.checks.balance import are_numbers
from mingshi.checks.bias_tests import independence
from mingshi.checks.drift_features import SHAPES, Features, features
from mingshi.checks.drift_tests import FEWEST, LEARNERS, LEVEL, Tested
from mingshi.checks.drift_words import differing
from mingshi.checks.rows import Row, Split
from mingshi.evals.statistics import holm
from mingshi.types import Finding, Score

MOST = 5000  # rows of a split
CHARACTERS = 4000  # of a text that are looked at
AGAINST: tuple[Split, ...] = ("production", "test", "validation")  # the first that has rows is held against train
SLIGHT, CLEAR, STRONG = 0.55, 0.65, 0.8  # areas
LABELS_MOVED = 0.05  # change of a label's share from which on it is a warning
SHOWN = 10  # rows that are most like the other split
EXCERPT = 300  # characters of their texts
BINS = 10  # of labels that are numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """A row of the sample."""

    order: int  # among the rows of its group, by hash: the least is kept
    group: str
    text: str
    length: int
    label: str | None
    place: Mapping[str, Any]


@dataclass(slots=True)
class _Sample:
    """The groups with the smallest hashes: which they are depends on the seed, not on the order of the rows."""

    seed: int
    rows: int = 0
    kept: dict[int, _Kept] = field(default_factory=dict)  # by the group's hash
    worst: list[int] = field(default_factory=list)  # a heap of their negated hashes

    def add(self, row: Row) -> None:
        self.rows += 1
        group = row.group or f"{row.source}:{row.line}"
        key, order = self._hash(row.split, group), self._hash(row.source, str(row.line))
        present = self.kept.get(key)
        if present is None and len(self.kept) == MOST and key > -self.worst[0]:
            return
        if present is not None and present.order <= order:
            return
        text = row.prompt or row.answer
        self.kept[key] = _Kept(
            order=order, group=group, text=text[:CHARACTERS], length=len(text), label=row.label, place=row.place
        )
        if present is None:
            heapq.heappush(self.worst, -key)
            if len(self.kept) > MOST:
                del self.kept[-heapq.heappop(self.worst)]

    def members(self) -> list[_Kept]:
        return [self.kept[key] for key in sorted(self.kept)]

    def _hash(self, *parts: str) -> int:
        told = "\x1f".join((str(self.seed), *parts)).encode("utf-8", "surrogatepass")
        return int.from_bytes(blake2b(told, digest_size=8).digest())


class Drift:
    """Production against train; without production, test against train. What is compared is what is given, not the
    answers: rows from use often have none."""

    def __init__(self, *, seed: int = 0) -> None:
        self._seed = seed
        self._samples: dict[Split, _Sample] = {}

    def add(self, row: Row) -> None:
        if row.prompt or row.answer:
            self._samples.setdefault(row.split, _Sample(self._seed)).add(row)

    def findings(self) -> list[Finding]:
        against = next((split for split in AGAINST if split in self._samples), None)
        if against is None or "train" not in self._samples:
            return []
        if find_spec("sklearn") is None:
            return [_not_looked_at()]
        old, new = self._samples["train"].members(), self._samples[against].members()
        if min(len(old), len(new)) < FEWEST:
            return [_too_few(against, len(old), len(new))]
        return _compared(against, old, new, self._seed)


def _not_looked_at() -> Finding:
    return Finding(
        check="drift",
        kind="missing",
        severity="note",
        count=0,
        message="Drift was not looked for: scikit-learn is not installed",
        remedy="Install the extra: pip install 'mingshi[health]'.",
    )


def _too_few(against: Split, old: int, new: int) -> Finding:
    return Finding(
        check="drift",
        kind="few",
        severity="note",
        count=min(old, new),
        message=f"Too few rows to compare {against} with train: {new} and {old} of different groups, at least {FEWEST} "
        "of each are needed",
        remedy=f"Collect more rows of {against}.",
        evidence={"against": against, "rows": [old, new]},
    )


def _compared(against: Split, old: Sequence[_Kept], new: Sequence[_Kept], seed: int) -> list[Finding]:
    both = [*old, *new]
    new_N = np.arange(len(both)) >= len(old)
    rows = features([row.text for row in both], [row.length for row in both])
    folds_N = drift_tests.folds(new_N, [row.group for row in both], np.random.default_rng(seed))
    tests = drift_tests.text_tests(rows, new_N, folds_N, seed=seed)
    labels = _labels(old, new, seed)
    p_values = holm([test.p for test in tests] + ([labels.p] if labels else []))
    least = drift_tests.least_area(len(old), len(new), tests=len(p_values))
    evidence: dict[str, Any] = {
        "against": against,
        "rows": [len(old), len(new)],
        "least_area": least,
        "tests": [_told(test, p) for test, p in zip(tests, p_values, strict=False)],
    }
    found = []
    if min(p_values[: len(tests)]) <= LEVEL:
        found.append(_texts(_Pair(against, both, new_N, rows, folds_N), evidence, seed))
    if labels and p_values[-1] <= LEVEL:
        found.append(_label_shift(against, labels, p_values[-1]))
    return found or [_alike(against, evidence, labels)]


def _told(test: Tested, p: float) -> dict[str, Any]:
    return {"name": test.name, "value": test.value, "p": test.p, "p_holm": p}


def _alike(against: Split, evidence: Mapping[str, Any], labels: _Labels | None) -> Finding:
    """No difference, and how large one might have been missed."""
    old, new = evidence["rows"]
    return Finding(
        check="drift",
        kind="alike",
        severity="note",
        count=0,
        message=f"No difference found between {new} rows of {against} and {old} of train; an area under the ROC curve "
        f"below {evidence['least_area']:.2f} would not have been seen with so few"
        if evidence["least_area"] > SLIGHT
        else f"No difference found between {new} rows of {against} and {old} of train",
        evidence={**evidence, "labels": labels.told() if labels else None},
    )


# Texts


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Both samples as they were tested: rows of train first."""

    against: Split
    both: Sequence[_Kept]
    new_N: np.ndarray
    rows: Features
    folds_N: np.ndarray


def _texts(pair: _Pair, evidence: Mapping[str, Any], seed: int) -> Finding:
    areas: dict[str, Score] = {}
    scores: dict[str, np.ndarray] = {}
    for name, learner in LEARNERS.items():
        scores[name] = drift_tests.cross_scores(learner, pair.rows, pair.new_N, pair.folds_N)
        signature = f"area|learner:{name}|folds:{drift_tests.FOLDS}"
        areas[name] = drift_tests.area(scores[name], pair.new_N, pair.folds_N, signature=signature, seed=seed)
    best = max(areas, key=lambda name: areas[name].value)
    size = areas[best].value
    texts = [row.text for row in pair.both]
    count = int((~pair.new_N).sum())
    of_train, of_new = differing(texts[:count], texts[count:])
    rows = _most_like_new(pair, scores[best], new=True)
    words = ", ".join(word.word for word in of_new[:5])
    return Finding(
        check="drift",
        kind="texts",
        severity="warning" if size >= SLIGHT else "note",
        count=len(pair.both) - count,
        message=f"Texts of {pair.against} differ from those of train: {_size(size)} (area under the ROC curve "
        f"{size:.2f}, from {areas[best].low:.2f} to {areas[best].high:.2f})"
        + (f"; words that are more frequent: {words}" if words else ""),
        rows=[row["place"] | {"score": row["score"]} for row in rows],
        remedy=f"Add rows like these of {pair.against} to train, or measure on such rows before it is used on them."
        if pair.against == "production"
        else f"Split train and {pair.against} at random from the same rows, unless they are meant to differ.",
        evidence={
            **evidence,
            "areas": {name: _interval(score) for name, score in areas.items()},
            "size": _size(size),
            "words": {"train": [_word(word) for word in of_train], pair.against: [_word(word) for word in of_new]},
            "shape": _shapes(pair.rows, pair.new_N),
            "most_new": rows,
            "nearest": _most_like_new(pair, scores[best], new=False),
        },
    )


def _size(area: float) -> str:
    for bound, told in ((STRONG, "strongly"), (CLEAR, "clearly"), (SLIGHT, "slightly")):
        if area >= bound:
            return told
    return "hardly"


def _interval(score: Score) -> dict[str, float]:
    return {"value": score.value, "low": score.low, "high": score.high}


def _word(word: Any) -> dict[str, Any]:
    return {"word": word.word, "train": word.first, "new": word.second, "z": word.z}


def _most_like_new(pair: _Pair, scores_N: np.ndarray, *, new: bool) -> list[dict[str, Any]]:
    """Rows of one split by how much they look like the new ones: the share of rows of their fold that do so less."""
    below = np.empty(len(scores_N))
    for fold in range(drift_tests.FOLDS):
        rows = np.flatnonzero(pair.folds_N == fold)
        below[rows] = (np.searchsorted(np.sort(scores_N[rows]), scores_N[rows]) + 0.5) / len(rows)
    mine = np.flatnonzero(pair.new_N == new)
    chosen = mine[np.argsort(-below[mine], kind="stable")][:SHOWN]
    return [
        {
            "place": dict(pair.both[row].place),
            "score": round(float(below[row]), 4),
            "text": pair.both[row].text[:EXCERPT],
        }
        for row in chosen
    ]


def _shapes(rows: Features, new_N: np.ndarray) -> dict[str, list[float]]:
    """Medians of both splits."""
    shapes = rows.dense_ND[:, : len(SHAPES)]
    old, new = np.median(shapes[~new_N], axis=0), np.median(shapes[new_N], axis=0)
    return {name: [float(old[place]), float(new[place])] for place, name in enumerate(SHAPES)}


# Labels


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """Counts of each label in both samples."""

    names: Sequence[str]
    table_2K: np.ndarray
    p: float

    @property
    def shares_2K(self) -> np.ndarray:
        shares: np.ndarray = self.table_2K / self.table_2K.sum(axis=1, keepdims=True)
        return shares

    def told(self) -> dict[str, Any]:
        return {
            "counts": {
                name: [int(count) for count in column] for name, column in zip(self.names, self.table_2K.T, strict=True)
            },
            "divergence": drift_tests.divergence(self.table_2K[0], self.table_2K[1]),
            "p": self.p,
        }


def _labels(old: Sequence[_Kept], new: Sequence[_Kept], seed: int) -> _Labels | None:
    before = [row.label for row in old if row.label is not None]
    after = [row.label for row in new if row.label is not None]
    if min(len(before), len(after)) < FEWEST:
        return None
    if are_numbers({*before, *after}):
        before, after = _binned(before, after)
    names = sorted({*before, *after})
    places = {name: place for place, name in enumerate(names)}
    table = np.array([np.bincount([places[name] for name in side], minlength=len(names)) for side in (before, after)])
    return _Labels(names, table, independence(table, seed=seed).p)


def _binned(before: Sequence[str], after: Sequence[str]) -> tuple[list[str], list[str]]:
    """Numbers by the tenth of all of them in which they are."""
    both = np.array([float(label) for label in (*before, *after)])
    edges = np.unique(np.quantile(both, np.arange(1, BINS) / BINS))
    named = [f"up to {edge:g}" for edge in edges] + [f"above {edges[-1]:g}"]
    told = [named[place] for place in np.searchsorted(edges, both)]
    return told[: len(before)], told[len(before) :]


def _label_shift(against: Split, labels: _Labels, p: float) -> Finding:
    moved_K = labels.shares_2K[1] - labels.shares_2K[0]
    most = int(np.argmax(moved_K))  # of two classes, one moves as far as the other
    old, new = labels.shares_2K[:, most]
    return Finding(
        check="drift",
        kind="labels",
        severity="warning" if abs(moved_K[most]) >= LABELS_MOVED else "note",
        count=int(labels.table_2K[1].sum()),
        message=f"Labels of {against} are shared out otherwise than those of train: {labels.names[most]} is "
        f"{new:.1%} there and {old:.1%} in train",
        remedy="Resample train to the shares of use, or correct what is predicted; thresholds chosen on train are off.",
        evidence={"against": against, "p_holm": p, "labels": labels.told()},
    )
