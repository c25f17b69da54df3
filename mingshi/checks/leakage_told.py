"""What leaks are told as: a finding for each kind between two splits or inside one, with the texts of a few pairs."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any, Literal

import numpy as np

from mingshi.checks.clusters import clusters_of
from mingshi.checks.leakage_contained import Hit
from mingshi.checks.rows import SPLITS, Split
from mingshi.types import Finding

Kind = Literal["equal", "normalised", "near", "prompt", "contained", "short", "group"]
Scope = tuple[Split, Split]  # the second is held out from the first, or the same

SHOWN = 20  # pairs whose texts are shown
LENGTH = 300  # characters shown of a text
BEFORE = 60  # characters shown before a question that is quoted
SHARED = 3  # characters of a span that is marked; shorter ones are in common with anything
QUOTED = 2000  # passages kept
MUCH = 0.01  # share of a split's rows from which on repetitions are a warning

WORDS: dict[Kind, str] = {
    "equal": "the same text",
    "normalised": "the same text but for width, case, spaces and punctuation",
    "near": "nearly the same text",
    "prompt": "the same prompt",
    "contained": "the question inside a longer text",
    "short": "a short text that differs in one character",
    "group": "the same group",
}


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Pairs of rows: of the first and of the second split, or a repetition and the row that it repeats."""

    kind: Kind
    scope: Scope
    pairs: np.ndarray  # [K, 2]
    similarity: Sequence[float] = ()  # of the first pairs


@dataclass(frozen=True, slots=True)
class Places:
    """Where each row was read."""

    names: Sequence[str]  # files
    sources: Sequence[int]  # of each row: its file
    lines: Sequence[int]
    splits: Sequence[int]

    def of(self, row: int) -> dict[str, Any]:
        return {"source": self.names[self.sources[row]], "line": self.lines[row]}


@dataclass(slots=True)
class Passages:
    """Texts that were kept for showing, cut."""

    texts: dict[int, str] = field(default_factory=dict)
    asked: dict[int, str] = field(default_factory=dict)  # the questions of some rows
    questions: set[int] = field(default_factory=set)  # rows whose question was quoted
    quotes: dict[int, tuple[Hit, int, str]] = field(default_factory=dict)  # training row -> what, whose, where

    def keep(self, row: int, text: str, question: str) -> None:
        self.texts[row], self.asked[row] = text[:LENGTH], question[:LENGTH]

    def quote(self, hit: Hit, question: int, text: str) -> None:
        """Keep what is around a question in a training row."""
        before = self.quotes.get(hit.row)
        if len(self.quotes) >= QUOTED if before is None else before[0].share >= hit.share:
            return
        start = max(0, int(hit.place * len(text)) - BEFORE)
        self.quotes[hit.row] = (hit, question, text[start : start + LENGTH])
        self.questions.add(question)


def findings_of(found: Sequence[Found], places: Places, passages: Passages) -> list[Finding]:
    """Clusters are numbered from 1, over all findings."""
    if not found:
        return []
    pairs = np.concatenate([each.pairs for each in found])
    first = clusters_of(len(places.lines), pairs)
    numbers = {int(row): number for number, row in enumerate(np.unique(first[pairs]), start=1)}
    sizes = np.bincount(np.asarray(places.splits), minlength=len(SPLITS))
    told = []
    for each in found:
        told.append(_finding(each, sizes, places, passages, [numbers[int(row)] for row in first[each.pairs[:, 0]]]))
    return told


def _finding(found: Found, sizes: np.ndarray, places: Places, passages: Passages, clusters: Sequence[int]) -> Finding:
    first, second = found.scope
    rows, partner = np.unique(found.pairs[:, 0], return_index=True)
    held = len(np.unique(found.pairs[:, 1]))
    of_first, of_second = int(sizes[SPLITS.index(first)]), int(sizes[SPLITS.index(second)])
    if first == second:
        message = f"{len(rows)} of {of_first} rows of {first} repeat another: {WORDS[found.kind]}"
        remedy = f"Drop these rows from the {_file(first)}: one of each cluster stays."
    else:
        message = (
            f"{held} of {of_second} rows of {second} ({held / of_second:.1%}) are in {first}, "
            f"in {len(rows)} rows: {WORDS[found.kind]}"
        )
        remedy = f"Drop these rows from the {_file(first)}, not from the {_file(second)}."
    listed = [
        {**places.of(row), "with": places.of(other), "cluster": clusters[at]}
        for row, other, at in zip(rows.tolist(), found.pairs[partner, 1].tolist(), partner.tolist(), strict=True)
    ]
    return Finding(
        check="leakage",
        kind=found.kind,
        severity=_severity(found, len(rows) / of_first),
        count=len(rows),
        message=message,
        rows=listed,
        remedy=remedy,
        evidence={
            "from": first,
            "to": second,
            "rows": len(rows),
            "of": of_first,
            "held_out": held,
            "of_held_out": of_second,
            "clusters": len(set(clusters)),
            "pairs": _shown(found, clusters, places, passages),
        },
    )


def _file(split: Split) -> str:
    return "training file" if split == "train" else f"{split} file"


def _severity(found: Found, share: float) -> str:
    """Short texts that differ in one character may well be two."""
    first, second = found.scope
    if first == second:
        return "warning" if share > MUCH and found.kind != "short" else "note"
    return "error" if found.scope == ("train", "test") and found.kind != "short" else "warning"


def _shown(found: Found, clusters: Sequence[int], places: Places, passages: Passages) -> list[dict[str, Any]]:
    """Texts side by side, with what they share."""
    shown: list[dict[str, Any]] = []
    for at, (row, other) in enumerate(found.pairs.tolist()):
        if len(shown) == SHOWN:
            break
        pair: dict[str, Any] = {"cluster": clusters[at]}
        if found.kind == "contained":
            if row not in passages.quotes:
                continue
            hit, question, text = passages.quotes[row]
            beside = passages.asked.get(question)
            pair |= {"share": hit.share, "longest": hit.longest}
        else:
            text, beside = passages.texts.get(row, ""), passages.texts.get(other)
            if at < len(found.similarity):
                pair["similarity"] = found.similarity[at]
        if text and beside:
            spans = shared_spans(text, beside)
            pair["first"] = {**places.of(row), "text": text, "spans": [span[:2] for span in spans]}
            pair["second"] = {**places.of(other), "text": beside, "spans": [span[2:] for span in spans]}
            shown.append(pair)
    return shown


def shared_spans(first: str, second: str) -> list[tuple[int, int, int, int]]:
    """Start and end in the first text and in the second of what both say in the same order, blind to width and case."""
    blocks = SequenceMatcher(None, _folded(first), _folded(second), autojunk=False).get_matching_blocks()
    return [(a, a + size, b, b + size) for a, b, size in blocks if size >= SHARED]


def _folded(text: str) -> str:
    """As long as the text is."""
    folded = (unicodedata.normalize("NFKC", each).casefold() for each in text)
    return "".join(one if len(one) == 1 else each for one, each in zip(folded, text, strict=True))
