"""Personal data, secrets, offensive words, control tokens and invisible characters in the texts of rows.

Rules find forms, not meanings: a number of 16 digits with the right check digit may be an order's. No list of offensive
words comes with the package, because what offends depends on the language, the place and the task: give your own.
Findings never show personal data or secrets in full.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mingshi.checks import safety_rules
from mingshi.checks.rows import Places, Row
from mingshi.checks.safety_rules import Span
from mingshi.errors import DataError, Problem
from mingshi.types import Finding

SEVERAL = 0.01  # share of the rows from which on a kind is worse
TEXTS = 10  # shown of each kind

RULES: dict[str, Callable[[str], Iterator[Span]]] = {
    "email": safety_rules.emails,
    "phone": safety_rules.phones,
    "identity_number": safety_rules.identities,
    "bank_card": safety_rules.cards,
    "key": safety_rules.keys,
    "control_token": safety_rules.controls,
    "invisible": safety_rules.invisibles,
}
OPEN = {"control_token", "offensive"}  # shown as they stand; all else is masked, or cannot be seen

# What is said of each kind, how bad it is in small numbers and in large ones, and the mend.
TOLD: dict[str, tuple[str, str, str, str]] = {
    "email": ("e-mail addresses", "note", "warning", "Replace them, or take the rows out."),
    "phone": ("telephone numbers", "note", "warning", "Replace them, or take the rows out."),
    "identity_number": ("Chinese identity numbers", "warning", "error", "Take these rows out."),
    "bank_card": ("numbers of bank cards", "warning", "error", "Take these rows out."),
    "key": ("secret keys", "error", "error", "Take these rows out, and have the keys withdrawn."),
    "control_token": (
        "control tokens of a chat template",
        "warning",
        "warning",
        "Cut them out: text is encoded without them here, but elsewhere they may end a turn.",
    ),
    "invisible": (
        "invisible characters",
        "note",
        "warning",
        "Cut them out, unless they belong to the language: a model would learn to write them.",
    ),
    "offensive": ("words of the given list", "note", "warning", "Read them, and take out what a model is not to say."),
}


class Safety:
    """All splits, prompts, answers and system turns; `words` are looked for as they are, blind to case."""

    def __init__(self, words: Sequence[str] = ()) -> None:
        self._words = _pattern(words)
        self._rows = 0
        self._times = Counter[str]()
        self._found = {kind: Places() for kind in TOLD}

    def add(self, row: Row) -> None:
        self._rows += 1
        text = f"{row.system}\n{row.text}" if row.system else row.text
        for kind, rule in RULES.items():
            self._note(kind, row, text, list(rule(text)))
        if self._words is not None:
            self._note("offensive", row, text, [found.span() for found in self._words.finditer(text)])

    def _note(self, kind: str, row: Row, text: str, spans: Sequence[Span]) -> None:
        if not spans:
            return
        self._times[kind] += len(spans)
        self._found[kind].add(row, row.split, _shown(kind, text[slice(*spans[0])]), shown=TEXTS)

    def findings(self) -> list[Finding]:
        return [self._finding(kind, places) for kind, places in self._found.items() if places.splits]

    def _finding(self, kind: str, places: Places) -> Finding:
        name, few, many, remedy = TOLD[kind]
        count = places.splits.total()
        return Finding(
            check="safety",
            kind=kind,
            severity=many if count > SEVERAL * self._rows else few,
            count=count,
            message=f"{count} of {self._rows} rows have {name} ({self._times[kind]} in all)",
            rows=places.told(),
            remedy=remedy,
            evidence={
                "of": self._rows,
                "share": count / self._rows,
                "splits": dict(places.splits),
                "examples": places.examples,
            },
        )


def read_words(path: Path) -> list[str]:
    """A list of words, one a line; blank lines and lines that begin with # are left out. Raises DataError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        what = f"cannot be read ({error.strerror or error})"
        raise DataError(Problem(file=str(path), what=what, mend="Give a file of words, one a line.")) from None
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 text (byte {error.start})"
        raise DataError(Problem(file=str(path), what=what, mend="Save it as UTF-8.")) from None
    return [word for line in lines if (word := line.strip()) and not word.startswith("#")]


def _pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    """Any of the words, whole where a word begins or ends with a letter or digit that is not Chinese."""
    if not words:
        return None
    longest = sorted({word.strip() for word in words if word.strip()}, key=len, reverse=True)
    return re.compile("|".join(_whole(word) for word in longest), re.IGNORECASE) if longest else None


def _whole(word: str) -> str:
    def spelt(letter: str) -> bool:
        return letter.isalnum() and not "\u3040" <= letter <= "\u9fff"

    start = r"(?<![^\W\u3040-\u9fff])" if spelt(word[0]) else ""
    end = r"(?![^\W\u3040-\u9fff])" if spelt(word[-1]) else ""
    return f"{start}{re.escape(word)}{end}"


def _shown(kind: str, found: str) -> str:
    if kind == "invisible":
        return f"U+{ord(found):04X} {unicodedata.name(found, '')}".strip()
    return found if kind in OPEN else safety_rules.masked(found)
