"""The card that says whether a stage overfits: the verdict, what was seen, what to do, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mingshi.directions import plain_name
from mingshi.record import Run
from mingshi.report.numbers import figure, places
from mingshi.report.summary import Interval, Record, interval, table, whole
from mingshi.report.words import WORDS, Both, plain, word

SEVERITY = {"healthy": "good", "underfitting": "warning", "overfitting": "warning", "diverging": "error"}
EVIDENCE = (
    "training_change",
    "validation_change",
    "validation_since_best",
    "validation_late",
    "gap",
    "gap_grown",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One verdict for a person."""

    severity: str
    verdict: Both
    because: Both
    next: Both
    evidence: Sequence[tuple[Both, Both]]
    note: Both


def verdicts(run: Run) -> list[dict[str, Any] | None]:
    """Recorded verdicts with what the page says of them, in both languages, for programs; None for a stage without."""
    found: list[dict[str, Any] | None] = []
    for fit in recorded(run):
        made = card(fit)
        said = {"said": made.because._asdict(), "next": made.next._asdict()} if made is not None else {}
        found.append({**fit, **said} if said else None)
    return found


def recorded(run: Run) -> list[Any]:
    """What run.json holds for each stage; empty where nothing was judged."""
    fits = run.run.get("fit")
    return fits if isinstance(fits, list) else []


def card(fit: object) -> Card | None:
    """The card of a recorded verdict; None where there is none, or one that this page has no words for."""
    told = table(fit)
    verdict, because = plain_name(str(told.get("verdict"))), plain_name(str(told.get("because")))
    if f"fit.{verdict}" not in WORDS or f"because.{because}" not in WORDS:
        return None
    scores = {name: interval(score) for name, score in table(told.get("evidence")).items()}
    steps = {name: f"{whole(told.get(name)):,}" for name in ("since", "first", "last", "items")}
    changes = {
        "validation": _change(scores.get("validation_change")),
        "training": _change(scores.get("training_change")),
        "rise": _change(scores.get("validation_since_best")),
        "late": _change(scores.get("validation_late")),
    }
    return Card(
        severity=SEVERITY.get(verdict, "note"),
        verdict=word(f"fit.{verdict}", **steps),
        because=word(f"because.{because}", **steps, **changes),
        next=word(f"next.{because}"),
        evidence=_lines(scores),
        note=word("evidence.note", **steps),
    )


def _lines(scores: Record) -> list[tuple[Both, Both]]:
    """Every number that is there and not zero by its making (no change since the last measurement)."""
    there = ((name, scores.get(name)) for name in EVIDENCE)
    return [
        (word(f"evidence.{plain_name(name)}"), _change(score))
        for name, score in there
        if score and (score.value or score.known)
    ]


def _change(score: Interval | None) -> Both:
    """`−0.541 (95 % −0.602 to −0.483)`."""
    if score is None:
        return plain("–")
    decimals = max(2, min(4, places(score.value, significant=2)))
    value, low, high = (figure(number, decimals, signed=True) for number in (score.value, score.low, score.high))
    return word("evidence.sure", value=value, low=low, high=high) if score.known else plain(value)
