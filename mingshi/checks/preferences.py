"""What preference pairs teach besides what they mean to: the length of an answer, an echo of the prompt, or nothing.

A pair's difference of lengths is `d = len(chosen) - len(rejected)`, in characters. Over all pairs, each seen in both
orders, the correlation of that difference with being chosen is `sum(d) / sqrt(n sum(d^2))`: 0 where the longer answer
wins as much as it loses, 1 where it wins every time by the same length.
"""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mingshi.evals import statistics
from mingshi.types import Finding, Message, Preference, Sample, Score

SLIGHT = 0.1  # a correlation that Cohen (1988) calls small: what is surely above it is a warning
SEVERAL = 0.01  # share of the pairs from which on an echo of the prompt is a warning
FEWEST = 10  # pairs: of fewer nothing is said about lengths
SHORTEST_PROMPT = 20  # characters: a shorter one may well belong into an answer
RESAMPLES = 999
SHOWN = 5  # rows of each kind


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthEffect:
    """How much the choice goes with the length."""

    correlation: Score  # -1 to 1
    longer_wins: Score  # share of the pairs of unequal length in which the longer answer was chosen


def length_effect(differences: Sequence[int]) -> LengthEffect:
    """The effect of `len(chosen) - len(rejected)`; not a number where no pair has answers of unequal length."""
    d = np.asarray(differences, dtype=np.float64)
    columns = np.stack([d, d * d, np.ones_like(d)], axis=1)
    signature = "length_correlation|unit:character"
    with np.errstate(invalid="ignore", divide="ignore"):
        low, high = statistics.bca(columns, _correlation, seed=0, resamples=RESAMPLES)
        value = float(_correlation(columns.sum(axis=0)))
    unequal, longer = int((d != 0).sum()), int((d > 0).sum())
    return LengthEffect(
        correlation=Score(value=value, low=low, high=high, count=len(d), signature=signature),
        longer_wins=statistics.rate(longer, unequal, signature="longer_wins|unit:character"),
    )


def _correlation(sums: np.ndarray) -> np.ndarray:
    quotient: np.ndarray = sums[..., 0] / np.sqrt(sums[..., 1] * sums[..., 2])
    return quotient


@dataclass(slots=True)
class _Seen:
    """What one walk over the pairs keeps: numbers, and where the first pairs are that something is wrong with."""

    differences: list[int] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    directions: dict[int, bool] = field(default_factory=dict)  # of prompt and both answers: is the chosen one the first

    def note(self, kind: str, pair: Preference) -> None:
        self.counts[kind] += 1
        if self.counts[kind] <= SHOWN:
            self.first.setdefault(kind, []).append({"source": pair.source, "line": pair.line})


def check_preferences(pairs: Iterable[Preference], *, twins: Collection[str] = ()) -> list[Finding]:
    """Findings on preference pairs; `twins` are ids of pairs whose answers are the same tokens once they are cut."""
    seen = _Seen()
    for pair in pairs:
        _look(pair, twins, seen)
    return [*_length(seen.differences), *(_finding(kind, seen) for kind in TOLD if kind in seen.counts)]


def same_tokens(samples: Iterable[Sample]) -> set[str]:
    """Ids of the samples whose first two answers are trained on the same tokens."""
    return {
        sample.id
        for sample in samples
        if np.array_equal(sample.target[sample.sequence == 0], sample.target[sample.sequence == 1])
    }


def _look(pair: Preference, twins: Collection[str], seen: _Seen) -> None:
    chosen, rejected = answer_text(pair.chosen), answer_text(pair.rejected)
    seen.differences.append(len(chosen) - len(rejected))
    prompt = next((message.content for message in reversed(pair.prompt) if message.role in ("user", "input")), "")
    asked, good, bad = normal(prompt), normal(chosen), normal(rejected)
    if not good or not bad:
        seen.note("missing", pair)
    elif good == bad:
        seen.note("identical", pair)
    elif pair.id in twins:
        seen.note("cut_alike", pair)
    if len(asked) >= SHORTEST_PROMPT and (asked in good or asked in bad):
        seen.note("echo_in_both" if asked in good and asked in bad else "echo", pair)
    if good != bad:
        context = "\n".join(normal(message.content) for message in pair.prompt)
        turned = seen.directions.setdefault(hash((context, *sorted((good, bad)))), good < bad)
        if turned != (good < bad):
            seen.note("contradiction", pair)


def answer_text(messages: Sequence[Message]) -> str:
    """What an answer says, all its turns together."""
    return "\n".join(message.content for message in messages)


def normal(text: str) -> str:
    """Blind to case, width (NFKC), white space and characters that cannot be seen."""
    shown = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", shown).casefold().split())


# What is said of each kind, how bad it is in small numbers and in large ones, and the mend.
TOLD: dict[str, tuple[str, str, str, str]] = {
    "missing": (
        "{count} of {pairs} pairs have an answer without text",
        "warning",
        "warning",
        "Write the answers, or take the rows out.",
    ),
    "identical": (
        "{count} of {pairs} pairs have answers that differ in white space, case or width alone",
        "warning",
        "warning",
        "Take them out: there is nothing to prefer.",
    ),
    "cut_alike": (
        "{count} of {pairs} pairs have answers that are the same tokens once they are cut to max_length",
        "warning",
        "warning",
        "Raise objective.max_length, or take them out: they teach nothing.",
    ),
    "echo": (
        "the prompt stands inside one answer of {count} of {pairs} pairs: what is preferred may be the echo",
        "note",
        "warning",
        "Cut the prompt out of the answers.",
    ),
    "echo_in_both": (
        "the prompt stands inside both answers of {count} of {pairs} pairs",
        "note",
        "warning",
        "Cut the prompt out of the answers: it is trained on as if the model had said it.",
    ),
    "contradiction": (
        "{count} of {pairs} pairs prefer what another pair of the same prompt rejects, the other way round",
        "note",
        "warning",
        "Keep the judgement that you trust.",
    ),
}


def _finding(kind: str, seen: _Seen) -> Finding:
    message, few, many, remedy = TOLD[kind]
    count, pairs = seen.counts[kind], len(seen.differences)
    return Finding(
        check="preferences",
        kind=kind,
        severity=many if count > SEVERAL * pairs else few,
        count=count,
        message=message.format(count=count, pairs=pairs),
        rows=seen.first[kind],
        remedy=remedy,
    )


def _length(differences: Sequence[int]) -> list[Finding]:
    """A warning where the effect is surely more than slight, a note where it is surely there."""
    if len(differences) < FEWEST:
        return []
    effect = length_effect(differences)
    correlation, longer = effect.correlation, effect.longer_wins
    alike = len(set(differences)) == 1 and differences[0] != 0  # no interval, and no doubt
    low, high = (correlation.value,) * 2 if alike else (correlation.low, correlation.high)
    if not math.isfinite(low) or low <= 0 <= high:
        return []
    winner, share = ("longer", longer.value) if correlation.value > 0 else ("shorter", 1 - longer.value)
    ends = (longer.low, longer.high) if correlation.value > 0 else (1 - longer.high, 1 - longer.low)
    message = (
        f"the {winner} answer is the chosen one in {share:.0%} of {longer.count} pairs of unequal length "
        f"(95 % {ends[0]:.0%} to {ends[1]:.0%}); correlation of length and choice {correlation.value:+.2f} "
        f"(95 % {low:+.2f} to {high:+.2f})"
    )
    return [
        Finding(
            check="preferences",
            kind="length",
            severity="warning" if min(abs(low), abs(high)) > SLIGHT else "note",
            count=longer.count,
            message=message,
            remedy="Balance the pairs by length (`mingshi pairs` does), or use a loss that divides by length.",
        )
    ]
