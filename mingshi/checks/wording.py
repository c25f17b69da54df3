"""Answers in free words that something is wrong with, by rules (`checks.wording_rules`); of labelled rows, their texts.

Two rules are set by the data itself: a missing final sign means something only where nearly all answers have one, and
an answer in another script than its prompt only where that is rare.
"""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mingshi.checks import wording_rules
from mingshi.checks.rows import Row
from mingshi.types import Finding

SEVERAL = 0.01  # share of the rows from which on a kind is a warning
NEARLY_ALL = 0.95  # share of the answers that end with a final sign, so that the others are cut
BY_DESIGN = 0.3  # share of the answers in another script than their prompts, from which on they are meant to be
FEWEST = 50  # answers that such a share is taken of
ROWS = 100  # named in a finding
TEXTS = 10  # shown of each kind
SHOWN = 300  # characters of a text

# What is said of each kind, how bad it is in small numbers and in large ones, and the mend.
TOLD: dict[str, tuple[str, str, str, str]] = {
    "empty": ("have no text", "warning", "error", "Write them, or take the rows out."),
    "mojibake": (
        "have characters of a wrong encoding",
        "warning",
        "error",
        "Read the source again in its own encoding (GB 18030 or UTF-8).",
    ),
    "cut": (
        "end without a final sign, as nearly all others do: they may be cut off",
        "note",
        "warning",
        "Make them again with room for more tokens, or take them out.",
    ),
    "language": (
        "are not in the script of their prompt",
        "note",
        "warning",
        "Have them written in the language of the prompt.",
    ),
    "copied": ("repeat their whole prompt", "note", "warning", "Cut the prompt out of the answers."),
    "refusal": (
        "begin as a refusal does",
        "note",
        "warning",
        "Keep those that you want a model to learn, and take out the others.",
    ),
    "repetition": ("say the same words again and again", "note", "warning", "Take them out, or write them anew."),
    "broken_json": ("begin as JSON and cannot be read as such", "note", "warning", "Mend the JSON."),
    "open_fence": ("open a code block and do not close it", "note", "warning", "Close it: they may be cut off."),
    "open_bracket": ("open a bracket and do not close it", "note", "warning", "Close it: they may be cut off."),
}


@dataclass(slots=True)
class _Places:
    """Rows of one kind: how many, where, and the first texts."""

    splits: Counter[str] = field(default_factory=Counter)
    sources: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    examples: list[dict[str, Any]] = field(default_factory=list)


class Wording:
    """Rules for answers, split by split; rows from production have none that is learnt."""

    def __init__(self) -> None:
        self._sources: dict[str, int] = {}
        self._rows = self._answers = 0
        self._found: dict[str, _Places] = {kind: _Places() for kind in TOLD}
        self._ends: dict[bool, tuple[Counter[bool], _Places]] = {  # by script, Han or not: with a final sign or not
            han: (Counter(), _Places()) for han in (True, False)
        }
        self._compared = 0  # answers in one script to prompts in one

    def add(self, row: Row) -> None:
        if row.split == "production":
            return
        self._rows += 1
        wanted = row.answer if row.label is None else row.prompt
        if not wanted.strip():
            self._note("empty", row)
            return
        if wording_rules.mojibake(row.text):
            self._note("mojibake", row)
        if row.label is None:
            self._answer(row)

    def _answer(self, row: Row) -> None:
        self._answers += 1
        for kind, wrong in wording_rules.ALONE.items():
            if wrong(row.answer):
                self._note(kind, row)
        if row.prompt and wording_rules.copies(row.prompt, row.answer):
            self._note("copied", row)
        scripts = wording_rules.scripts(row.prompt, row.answer)
        if scripts is not None:
            self._compared += 1
            if scripts[0] != scripts[1]:
                self._note("language", row)
        finished = wording_rules.ends(row.answer)
        if finished is not None:
            counts, places = self._ends[wording_rules.script(row.answer, 1) == "Han"]
            counts[finished] += 1
            if not finished:
                self._keep(places, row, row.answer[-SHOWN:])

    def _note(self, kind: str, row: Row) -> None:
        self._keep(
            self._found[kind], row, row.prompt[:SHOWN] if kind == "empty" else row.answer[:SHOWN] or row.prompt[:SHOWN]
        )

    def _keep(self, places: _Places, row: Row, text: str) -> None:
        places.splits[row.split] += 1
        if len(places.lines) < ROWS:
            places.sources.append(self._sources.setdefault(row.source, len(self._sources)))
            places.lines.append(row.line)
        if len(places.examples) < TEXTS:
            places.examples.append({**row.place, "text": text})

    def findings(self) -> list[Finding]:
        found = dict(self._found)
        found["cut"] = self._cut()
        return [self._finding(kind, found[kind]) for kind in TOLD if found[kind].splits]

    def _cut(self) -> _Places:
        """Answers without a final sign, in the scripts whose others have one."""
        cut = _Places()
        for counts, places in self._ends.values():
            if counts.total() >= FEWEST and counts[True] >= NEARLY_ALL * counts.total():
                cut.splits.update(places.splits)
                cut.sources.extend(places.sources)
                cut.lines.extend(places.lines)
                cut.examples.extend(places.examples)
        return cut

    def _finding(self, kind: str, places: _Places) -> Finding:
        message, few, many, remedy = TOLD[kind]
        count, of = places.splits.total(), self._rows if kind in ("empty", "mojibake") else self._answers
        severity = many if count > SEVERAL * of else few
        noun = "rows" if kind in ("empty", "mojibake") else "answers"
        told = f"{count} of {of} {noun} {message}"
        if kind == "language" and self._compared >= FEWEST and count > BY_DESIGN * self._compared:
            severity, told = "note", f"{told}: so many that it seems to be meant"
        names = list(self._sources)
        rows: list[dict[str, Any]] = [
            {"source": names[source], "line": line} for source, line in zip(places.sources, places.lines, strict=True)
        ]
        return Finding(
            check="wording",
            kind=kind,
            severity=severity,
            count=count,
            message=told,
            rows=rows[:ROWS],
            remedy=remedy,
            evidence={
                "of": of,
                "share": count / of,
                "splits": dict(places.splits),
                "examples": places.examples[:TEXTS],
            },
        )
