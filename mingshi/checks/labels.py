"""Labels that the other rows speak against, by confident learning (Northcutt, Jiang and Chuang 2021).

A simple model says of each row's label what it makes of it without having seen the row or a copy of it
(`checks.labels_model`); the library `cleanlab` says which labels are too unlikely for their class. It cannot tell a
wrong label from a hard row, so the same is done once more with some labels turned on purpose (`checks.labels_trial`):
that says how many wrong ones it would find, and how many there can be at most. Whether rows like these are better
learnt without the suspects is measured (`checks.labels_dropped`).

Needs the extra `health`. What is kept of a row are hashed counts of what it says, and where there is an encoder the
place of its state; of very much data, a sample.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from importlib.util import find_spec
from typing import Any

import numpy as np

from mingshi.checks import labels_model
from mingshi.checks.labels_dropped import Dropped, dropped
from mingshi.checks.labels_trial import Trial, trial
from mingshi.checks.normal import normalised
from mingshi.checks.rows import SPLITS, Row
from mingshi.checks.states import States
from mingshi.evals import statistics
from mingshi.types import Finding

FEWEST = 5  # rows of a class, copies counted once: of fewer nothing is said
SLIGHT = 0.02  # share of the uncertainty about a label that the texts must take away before a model's doubt counts
MANY = 0.1  # estimated share of wrong labels from which on the finding is a warning
HALF = 0.5  # share of the suspects that must be expected to be wrong for a warning
ENTRIES = 30_000_000  # counts kept, 8 bytes each
BATCH = 256  # rows that are counted at a time
LISTED = 1000  # classes of few rows with their counts
PAIRS = 20  # of a given and a suggested label, the most frequent
NAMED = 10  # classes named in a message
LARGEST_MATRIX = 30  # classes
MISSING = "Install the extra: pip install 'mingshi[health]'."


@dataclass(slots=True)
class _Kept:
    """Rows as numbers: column `i` is row `i`."""

    labels: array[int] = field(default_factory=lambda: array("I"))
    sources: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    splits: array[int] = field(default_factory=lambda: array("B"))
    texts: array[int] = field(default_factory=lambda: array("Q"))  # hash
    groups: array[int] = field(default_factory=lambda: array("Q"))  # hash
    states: array[int] = field(default_factory=lambda: array("I"))  # places; all 0 without an encoder

    def columns(self) -> tuple[array[int], ...]:
        return self.labels, self.sources, self.lines, self.splits, self.texts, self.groups, self.states

    def thin(self, stays: np.ndarray) -> None:
        for column in self.columns():
            column[:] = array(column.typecode, np.array(column)[stays].tolist())


def suspects(labels_N: np.ndarray, probabilities_NK: np.ndarray) -> np.ndarray:
    """Rows whose label is probably wrong, the least likely label first. Probabilities must be out of sample."""
    from cleanlab.filter import find_label_issues

    found: np.ndarray = find_label_issues(
        labels_N,
        probabilities_NK,
        filter_by="prune_by_noise_rate",
        return_indices_ranked_by="self_confidence",
        n_jobs=1,
    )
    return found


def joint(labels_N: np.ndarray, probabilities_NK: np.ndarray) -> np.ndarray:
    """Estimated rows by given label (row) and true label (column): the calibrated confident joint. [K, K]"""
    from cleanlab.count import compute_confident_joint

    found: np.ndarray = compute_confident_joint(labels_N, probabilities_NK, calibrate=True)
    return found


class Labels:
    """Labels of classification rows, of all splits but production together."""

    def __init__(self, *, seed: int = 0, entries: int = ENTRIES, states: States | None = None) -> None:
        self._seed = seed
        self._states = states
        self._entries = entries
        self._kept = _Kept()
        self._blocks: list[Any] = []  # sparse counts
        self._waiting: list[str] = []  # fewer than BATCH texts
        self._names: dict[str, int] = {}  # labels and files, numbered
        self._halvings = 0
        self._rows = 0
        self._able = find_spec("sklearn") is not None and find_spec("cleanlab") is not None

    def add(self, row: Row) -> None:
        if row.label is None or row.split == "production" or not row.prompt.strip():
            return
        self._rows += 1
        if not self._able:
            return
        text = _hash(normalised(row.prompt) or row.prompt)
        kept = self._kept
        kept.labels.append(self._number(row.label))
        kept.sources.append(self._number(row.source))
        kept.lines.append(row.line)
        kept.splits.append(SPLITS.index(row.split))
        kept.texts.append(text)
        kept.groups.append(_hash(f"group {row.group}") if row.group else text)
        kept.states.append(0 if self._states is None else self._states.add(row.prompt))
        self._waiting.append(row.prompt[: labels_model.CHARACTERS])
        if len(self._waiting) == BATCH:
            self._count()

    def _number(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))

    def _count(self) -> None:
        """Texts that wait become counts; beyond the budget every other text goes, chosen by its hash."""
        if self._waiting:
            self._blocks.append(labels_model.features(self._waiting))
            self._waiting.clear()
        while sum(block.nnz for block in self._blocks) > self._entries and self._halvings < 60:
            self._halvings += 1
            texts = np.array(self._kept.texts, dtype=np.uint64)
            stays = texts % np.uint64(2**self._halvings) == 0
            self._blocks = [_stacked(self._blocks)[stays]]
            self._kept.thin(stays)

    def findings(self) -> list[Finding]:
        if not self._able:
            return [_unable(self._rows)] if self._rows else []
        self._count()
        if not self._blocks or not len(self._kept.labels):
            return []
        names = list(self._names)
        kept = self._kept
        components = labels_model.together(kept.texts, kept.groups)
        given = np.asarray(kept.labels)
        classes, rows = _enough(given, components)
        found = _too_few(given, classes, names)
        if len(classes) < 2:
            return found
        labels = np.searchsorted(classes, given[rows])
        case = _Case(
            features=_stacked(self._blocks)[rows],
            states=None if self._states is None else self._states.values()[np.asarray(kept.states)[rows]],
            labels=labels,
            components=components[rows],
            rows=rows,
            classes=[names[number] for number in classes],
            share=0.5**self._halvings,
        )
        return [*found, *_judged(case, kept, names, self._seed)]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Case:
    """The rows that are judged. N of them, K classes."""

    features: Any  # [N, F] sparse
    states: np.ndarray | None  # [N, W]
    labels: np.ndarray  # [N] from 0
    components: np.ndarray  # [N]
    rows: np.ndarray  # [N] places among those kept
    classes: list[str]
    share: float  # of the texts that were read


def _enough(labels_N: np.ndarray, components_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classes of at least FEWEST rows that do not belong together, and the places of their rows."""
    pairs = np.unique(np.stack([labels_N, components_N]), axis=1)
    classes, counts = np.unique(pairs[0], return_counts=True)
    classes = classes[counts >= FEWEST]
    return classes, np.flatnonzero(np.isin(labels_N, classes))


def _too_few(labels_N: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> list[Finding]:
    counts = Counter(names[label] for label in labels_N.tolist() if label not in set(classes.tolist()))
    if not counts:
        return []
    named = ", ".join(f"{name} ({count})" for name, count in counts.most_common(NAMED))
    more = f", and {len(counts) - NAMED} more" if len(counts) > NAMED else ""
    message = f"{len(counts)} classes have fewer than {FEWEST} different rows, and their labels are not judged: "
    return [
        Finding(
            check="labels",
            kind="few_rows",
            severity="note",
            count=sum(counts.values()),
            message=f"{message}{named}{more}",
            remedy="Look at these rows yourself, or collect more of them.",
            evidence={"classes": dict(counts.most_common(LISTED))},
        )
    ]


def _unable(rows: int) -> Finding:
    return Finding(
        check="labels",
        kind="not_checked",
        severity="note",
        count=rows,
        message=f"{rows} labels were not judged: scikit-learn and cleanlab are not both installed",
        remedy=MISSING,
    )


def _judged(case: _Case, kept: _Kept, names: Sequence[str], seed: int) -> list[Finding]:
    """A finding for each split with suspects, or one that says why the model's doubts mean nothing."""
    probabilities = labels_model.judge(
        case.features, case.labels, case.components, states_NW=case.states, seed=seed
    ).probabilities
    accuracy = statistics.rate(
        int((probabilities.argmax(axis=1) == case.labels).sum()), len(case.labels), signature="accuracy|out-of-sample"
    )
    skill = _skill(case.labels, probabilities)
    seen = "" if case.share == 1 else f", of a sample of {100 * case.share:.3g}% of the texts,"
    if skill < SLIGHT:
        return [_unskilled(len(case.labels), accuracy.value, skill)]
    doubted = suspects(case.labels, probabilities)
    if not len(doubted):
        return []
    tried = trial(case.features, case.labels, case.components, states_NW=case.states, seed=seed)
    without = dropped(case.features, case.labels, case.components, states_NW=case.states, seed=seed)
    evidence = {
        "judged": len(case.labels),
        "sampled": case.share,
        "accuracy": accuracy.value,
        "skill": skill,
        "encoder": case.states is not None,
        **_tried(tried),
        "dropped": {**asdict(without), "pays": without.pays} if without else None,
        **_matrix(case, probabilities),
    }
    splits = np.asarray(kept.splits)[case.rows]
    findings = []
    for number in sorted(set(splits.tolist())):
        here = doubted[splits[doubted] == number]
        if len(here):
            told = _described(accuracy.value, tried, encoder=case.states is not None)
            findings.append(
                Finding(
                    check="labels",
                    kind="suspect",
                    severity=_severity(tried, len(doubted) / len(splits)),
                    count=len(here),
                    message=f"{len(here)} of {int((splits == number).sum())} labels of {SPLITS[number]}{seen} {told}",
                    rows=[_suspect(case, row, probabilities, kept, names) for row in here.tolist()],
                    remedy=_remedy(without),
                    evidence={"split": SPLITS[number], **evidence},
                )
            )
    return findings


def _tried(tried: Trial | None) -> dict[str, float | None]:
    """What the trial found, None where there was none."""
    return {
        "found_of_turned": tried.found if tried else None,
        "wrong": tried.wrong if tried else None,
        "wrong_at_most": tried.at_most if tried else None,
        "precision_at_most": tried.precision if tried else None,
    }


def _severity(tried: Trial | None, doubted: float) -> str:
    """A warning where many labels are wrong and doubts about them are more often right than not."""
    warns = tried is not None and min(tried.wrong, doubted) > MANY and tried.precision >= HALF
    return "warning" if warns else "note"


def _described(accuracy: float, tried: Trial | None, *, encoder: bool) -> str:
    model = "models of n-grams and of an encoder's states" if encoder else "a simple model"
    verbs = "have not seen them and agree" if encoder else "has not seen them and agrees"
    told = f"are doubted by {model} that {verbs} with {accuracy:.0%} of all"
    if tried is None:
        return f"{told}; too few rows to say how much that means"
    found = "they find" if encoder else "it finds"
    return (
        f"{told}; {found} {tried.found:.0%} of labels turned at random, and if wrong ones are like those, at most "
        f"about {tried.precision:.0%} of the doubted labels are wrong, and at most about {tried.at_most:.0%} of all"
    )


def _remedy(without: Dropped | None) -> str:
    if without is None:
        return "Read them, the first first: mend a label that is wrong, leave a row that is only hard."
    agrees = f"a model that learns without them agrees with {without.after:.1%} of {without.rows} labels set aside"
    compared = f"{agrees}, one that learns from all with {without.before:.1%}"
    advice = "or drop them, which pays" if without.pays else "do not drop them unread, which is not seen to pay"
    return f"Read them, the first first, and mend what is wrong; {advice}: {compared}."


def _skill(labels_N: np.ndarray, probabilities_NK: np.ndarray) -> float:
    """Share of the labels' entropy that the model takes away: 0 of one that knows their frequencies alone."""
    shares = np.bincount(labels_N) / len(labels_N)
    entropy = float(-(shares * np.log(shares)).sum())
    likelihood = probabilities_NK[np.arange(len(labels_N)), labels_N]
    return 1 - float(-np.log(np.maximum(likelihood, 1e-6)).mean()) / entropy


def _unskilled(rows: int, accuracy: float, skill: float) -> Finding:
    return Finding(
        check="labels",
        kind="not_learnt",
        severity="note",
        count=rows,
        message=f"a simple model cannot tell the labels of {rows} rows from their texts (it agrees with {accuracy:.0%} "
        "of them, little more than chance): its doubts would mean nothing",
        remedy="Check that the label belongs to the text; if it does, read a sample of rows by hand.",
        evidence={"accuracy": accuracy, "skill": skill},
    )


def _suspect(case: _Case, row: int, probabilities_NK: np.ndarray, kept: _Kept, names: Sequence[str]) -> dict[str, Any]:
    place = int(case.rows[row])
    label, suggested = int(case.labels[row]), int(probabilities_NK[row].argmax())
    return {
        "source": names[kept.sources[place]],
        "line": kept.lines[place],
        "label": case.classes[label],
        "suggested": case.classes[suggested],
        "probability": float(probabilities_NK[row, label]),
        "probability_suggested": float(probabilities_NK[row, suggested]),
    }


def _matrix(case: _Case, probabilities_NK: np.ndarray) -> dict[str, Any]:
    """Estimated rows by given and true label, as far as a person can read it; and the largest of its doubts."""
    matrix = joint(case.labels, probabilities_NK)
    given = matrix.sum(axis=1)
    off = matrix - np.diag(np.diag(matrix))
    largest = np.argsort(-off, axis=None, kind="stable")[:PAIRS]
    pairs = []
    for label, true in zip(*np.unravel_index(largest, off.shape), strict=True):
        if off[label, true] > 0:
            low, high = statistics.wilson(float(off[label, true]), int(given[label]))
            share = float(off[label, true] / given[label])
            pair = {"label": case.classes[label], "suggested": case.classes[true], "rows": int(off[label, true])}
            pairs.append({**pair, "share": share, "low": low, "high": high})
    whole = {"labels": case.classes, "matrix": matrix.tolist()} if len(case.classes) <= LARGEST_MATRIX else {}
    return {**whole, "confusions": pairs}


def _stacked(blocks: Sequence[Any]) -> Any:
    from scipy.sparse import vstack

    return vstack(blocks, format="csr")


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
