"""Rows that cannot both be right: one text with two labels, one prompt with two answers.

Labelled texts and answers are compared without width, case, punctuation and spaces. Prompts keep their punctuation: in
a sum or in code it is what is asked. Of each text a hash of 64 bits is kept: that two of a million texts share one
happens in one file of 37 million.
"""

from __future__ import annotations

import unicodedata
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

import numpy as np

from mingshi.checks.normal import normalised
from mingshi.checks.rows import Row, Split
from mingshi.types import Finding

Kind = Literal["labels", "answers"]
SEVERAL = 0.01  # share of the rows from which on prompts with several answers are a warning
GROUPS = 20  # shown side by side
MEMBERS = 10  # rows shown of each
SHOWN = 300  # characters of a text


@dataclass(slots=True)
class _Seen:
    """Rows of one kind in one split, as numbers: column `i` is row `i`."""

    texts: array[int] = field(default_factory=lambda: array("Q"))  # hash of what is given
    values: array[int] = field(default_factory=lambda: array("Q"))  # of a label its number, of an answer its hash
    sources: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    first: dict[int, int] = field(default_factory=dict)  # text -> its first value
    disputed: dict[int, str] = field(default_factory=dict)  # text -> how it begins, "" beyond the first GROUPS


class Contradictions:
    """Equal texts with different labels, and equal prompts with different answers, inside a split."""

    def __init__(self) -> None:
        self._seen: dict[tuple[Kind, Split], _Seen] = {}
        self._names: dict[str, int] = {}  # labels and files, numbered

    def add(self, row: Row) -> None:
        if row.label is not None:
            text = normalised(row.prompt) or row.prompt.strip()
            self._add("labels", row, text, self._number(row.label))
        elif row.answer:
            prompt = _spaced(row.prompt)
            self._add("answers", row, prompt and f"{row.system}\n{prompt}", _hash(normalised(row.answer) or row.answer))

    def _add(self, kind: Kind, row: Row, text: str, value: int) -> None:
        if not text:
            return
        seen = self._seen.setdefault((kind, row.split), _Seen())
        key = _hash(text)
        seen.texts.append(key)
        seen.values.append(value)
        seen.sources.append(self._number(row.source))
        seen.lines.append(row.line)
        if seen.first.setdefault(key, value) != value and key not in seen.disputed:
            seen.disputed[key] = row.prompt[:SHOWN] if len(seen.disputed) < GROUPS else ""

    def _number(self, name: str) -> int:
        return self._names.setdefault(name, len(self._names))

    def findings(self) -> list[Finding]:
        names = list(self._names)
        return [_finding(kind, split, seen, names) for (kind, split), seen in self._seen.items() if seen.disputed]


def _finding(kind: Kind, split: Split, seen: _Seen, names: Sequence[str]) -> Finding:
    texts = np.asarray(seen.texts, dtype=np.uint64)
    members = np.flatnonzero(np.isin(texts, np.fromiter(seen.disputed, dtype=np.uint64)))
    groups: dict[int, list[int]] = {key: [] for key in seen.disputed}  # in the order in which they were found
    for member in members:
        groups[seen.texts[member]].append(int(member))
    count, rows = len(groups), len(texts)
    shown = [_group(kind, text, groups[key], seen, names) for key, text in list(seen.disputed.items())[:GROUPS]]
    if kind == "labels":
        message = f"{count} texts of {split} have rows with different labels ({len(members)} of {rows} rows)"
        remedy = "Decide on one label for each text, or take all of its rows out."
    else:
        message = f"{count} prompts of {split} have rows with different answers ({len(members)} of {rows} rows)"
        remedy = "Keep one answer where only one can be right; several good answers to one prompt may stay."
    return Finding(
        check="contradictions",
        kind=kind,
        severity="warning" if kind == "labels" or len(members) > SEVERAL * rows else "note",
        count=count,
        message=message,
        rows=[_place(member, seen, names) for group in groups.values() for member in group],
        remedy=remedy,
        evidence={"split": split, "rows": len(members), "of": rows, "groups": shown},
    )


def _group(kind: Kind, text: str, members: Sequence[int], seen: _Seen, names: Sequence[str]) -> dict[str, Any]:
    """One text and its rows, those of different values first: copies of one another would hide the dispute."""
    values = [seen.values[member] for member in members]
    turns = Counter[int]()
    order = []
    for place, value in enumerate(values):
        order.append((turns[value], place))
        turns[value] += 1
    told = [members[place] for _, place in sorted(order)[:MEMBERS]]
    if kind == "labels":
        rows = [{"label": names[seen.values[member]], **_place(member, seen, names)} for member in told]
        counts = {names[value]: count for value, count in turns.items()}
        return {"text": text, "rows": rows, "count": len(members), "labels": counts}
    return {"text": text, "rows": [_place(member, seen, names) for member in told], "count": len(members)}


def _place(member: int, seen: _Seen, names: Sequence[str]) -> dict[str, Any]:
    return {"source": names[seen.sources[member]], "line": seen.lines[member]}


def _spaced(text: str) -> str:
    """Blind to width, case and white space alone."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
