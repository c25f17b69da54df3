"""Answers in free words that something is wrong with, by rules (`checks.wording_rules`); of labelled rows, their texts.

Two rules are set by the data itself: a missing final sign means something only where nearly all answers have one, and
an answer in another script than its prompt only where that is rare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mingshi.checks import wording_rules
from mingshi.checks.rows import Places, Row
from mingshi.types import Finding

SEVERAL = 0.01  # share of the rows from which on a kind is a warning
NEARLY_ALL = 0.95  # share of the answers that end with a final sign, so that the others are cut
BY_DESIGN = 0.3  # share of the answers in another script than their prompts, from which on they are meant to be
FEWEST = 50  # answers that such a share is taken of
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


class Wording:
    """Rules for answers, split by split; rows from production have none that is learnt."""

    def __init__(self) -> None:
        self._rows = self._answers = 0
        self._found: dict[str, Places] = {kind: Places() for kind in TOLD}
        self._ends: dict[bool, tuple[Counter[bool], Places]] = {  # by script, Han or not: with a final sign or not
            han: (Counter(), Places()) for han in (True, False)
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
                places.add(row, row.split, row.answer[-SHOWN:], shown=TEXTS)

    def _note(self, kind: str, row: Row) -> None:
        text = row.prompt if kind == "empty" else row.answer or row.prompt
        self._found[kind].add(row, row.split, text[:SHOWN], shown=TEXTS)

    def findings(self) -> list[Finding]:
        found = {kind: [places] for kind, places in self._found.items()} | {"cut": self._cut()}
        return [self._finding(kind, found[kind]) for kind in TOLD if any(places.splits for places in found[kind])]

    def _cut(self) -> list[Places]:
        """Answers without a final sign, in the scripts whose others have one."""
        return [
            places
            for counts, places in self._ends.values()
            if counts.total() >= FEWEST and counts[True] >= NEARLY_ALL * counts.total()
        ]

    def _finding(self, kind: str, found: Sequence[Places]) -> Finding:
        message, few, many, remedy = TOLD[kind]
        splits = sum((places.splits for places in found), Counter[str]())
        count, of = splits.total(), self._rows if kind in ("empty", "mojibake") else self._answers
        severity = many if count > SEVERAL * of else few
        noun = "rows" if kind in ("empty", "mojibake") else "answers"
        told = f"{count} of {of} {noun} {message}"
        if kind == "language" and self._compared >= FEWEST and count > BY_DESIGN * self._compared:
            severity, told = "note", f"{told}: so many that it seems to be meant"
        return Finding(
            check="wording",
            kind=kind,
            severity=severity,
            count=count,
            message=told,
            rows=[row for places in found for row in places.told()],
            remedy=remedy,
            evidence={
                "of": of,
                "share": count / of,
                "splits": dict(splits),
                "examples": [example for places in found for example in places.examples][:TEXTS],
            },
        )
