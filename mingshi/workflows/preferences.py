"""Preference pairs out of ranked or scored answers, with everything that was dropped on the way accounted for.

answers to a prompt → pairs of a better and a worse one → without ties and near-equal texts, at most so many a prompt →
balanced by length → split by prompt.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mingshi.checks.preferences import LengthEffect, check_preferences, length_effect
from mingshi.data.formats.questions import turn
from mingshi.data.similarity import nearly_equal
from mingshi.data.split import split
from mingshi.errors import DataError, Problem
from mingshi.types import Answer, Answered, Example, Finding, Message, Preference, Settings

CALIPER = 0.1  # two differences of lengths are of a size if the larger is at most so much above the smaller
NEAR_ZERO = CALIPER / 2  # the correlation of length and choice that balancing leaves at most


class Pairing(Settings):
    """Which pairs are made of the answers to a prompt, and which of them are kept."""

    take: Literal["best-worst", "all", "adjacent"] = "best-worst"
    """The best against the worst, every better one against every worse one, or each against the next best."""
    margin: float = Field(default=0.0, ge=0)
    """By how much the better score must be ahead at least; a tie is never a pair."""
    similar: float = Field(default=0.9, gt=0, le=1)
    """Texts whose edit similarity is above this are no pair."""
    per_prompt: int = Field(default=4, ge=1)
    """At most so many pairs of one prompt: those furthest apart."""
    balance: bool = True
    """Keep a pair that a longer answer wins only with one of like size that a shorter answer wins."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the prompts whose pairs are held out."""
    seed: int = Field(default=0, ge=0, lt=2**31)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(Example):
    """Two answers to a prompt, and why the first is the better one."""

    prompt: tuple[Message, ...]
    chosen: Answer
    rejected: Answer

    @property
    def gap(self) -> float:
        return self.chosen.score - self.rejected.score

    @property
    def longer(self) -> int:
        """Characters that the chosen answer has more."""
        return len(self.chosen.text) - len(self.rejected.text)

    def row(self) -> dict[str, Any]:
        """A row of the preference format. Readers pass over what they do not know: where the pair came from."""
        return {
            "id": self.id,
            "group": self.group,
            "prompt": [turn(message) for message in self.prompt],
            "chosen": self.chosen.text,
            "rejected": self.rejected.text,
            "chosen_score": self.chosen.score,
            "rejected_score": self.rejected.score,
            "chosen_by": self.chosen.by,
            "rejected_by": self.rejected.by,
            "from_file": Path(self.source).name,
            "from_line": self.line,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """What came out, and where everything else went: `considered = train + test + sum of dropped`."""

    train: Sequence[Pair]
    test: Sequence[Pair]
    answers: Counter[str]  # used, and the others by reason
    prompts: Counter[str]  # with a pair, and without one
    dropped: Counter[str]  # pairs by reason
    considered: int
    effects: dict[str, LengthEffect]  # before and after the balancing, and of its two parts train and test
    findings: Sequence[Finding]


def make_pairs(rows: Iterable[Answered], pairing: Pairing) -> Pairs:
    """Pairs of all rows; DataError where none is left."""
    rows = list(rows)
    answers: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    candidates: dict[str, list[Pair]] = {}
    for row in _together(rows):
        sifted = list(_sifted(row.answers))
        answers.update(reason for _, reason in sifted)
        used = [answer for answer, reason in sifted if reason == "used"]
        candidates.setdefault(row.group, []).extend(_candidates(row, used, pairing.take))
    considered = sum(map(len, candidates.values()))
    kept_pairs = [pair for found in candidates.values() for pair in _worth_it(found, pairing, dropped)]
    balanced = _balanced(kept_pairs, pairing.seed) if pairing.balance else kept_pairs
    dropped["unbalanced"] = len(kept_pairs) - len(balanced)
    train, test = split(balanced, fraction=pairing.test, seed=pairing.seed)
    if not train:
        raise _nothing_left(rows, considered, dropped)
    groups = {pair.group for pair in balanced}
    moments = {"before": kept_pairs, "after": balanced, "train": train, "test": test}
    return Pairs(
        train=train,
        test=test,
        answers=answers,
        prompts=Counter({"with_pairs": len(groups), "without_pairs": len(candidates) - len(groups)}),
        dropped=+dropped,
        considered=considered,
        effects={name: length_effect([pair.longer for pair in found]) for name, found in moments.items() if found},
        findings=check_preferences(map(_preference, train)),
    )


def answered(example: Example, prompt: tuple[Message, ...], answers: Iterable[Answer]) -> Answered:
    """Answers to the prompt of a row of any format, in that row's place."""
    return Answered(
        id=example.id,
        source=example.source,
        line=example.line,
        group=example.group,
        prompt=prompt,
        answers=tuple(answers),
    )


def _together(rows: Iterable[Answered]) -> Iterator[Answered]:
    """Rows as they are, but those of a single answer joined by their prompt: their scores can be compared."""
    single: dict[str, Answered] = {}
    for row in rows:
        if len(row.answers) != 1:
            yield row
            continue
        asked = repr(row.prompt)
        first = single.setdefault(asked, row)
        if first is not row:
            single[asked] = replace(first, answers=first.answers + row.answers)
    yield from single.values()


def _sifted(answers: Sequence[Answer]) -> Iterator[tuple[Answer, str]]:
    """Each answer with `used`, or why it is not."""
    seen: set[str] = set()
    for answer in answers:
        text = " ".join(unicodedata.normalize("NFKC", answer.text).split())
        reason = "empty" if not text else "duplicate" if text in seen else "used"
        seen.add(text)
        yield answer, reason


def _candidates(row: Answered, answers: Sequence[Answer], take: str) -> list[Pair]:
    """The pairs of one row that are to be looked at, ties among them."""
    ordered = sorted(answers, key=lambda answer: -answer.score)  # equal scores stay in the row's order
    if take == "best-worst":
        chosen = [(ordered[0], ordered[-1])] if len(ordered) > 1 else []
    else:
        chosen = list(combinations(ordered, 2) if take == "all" else pairwise(ordered))
    return [
        Pair(
            id=f"{row.id}#{number}",
            source=row.source,
            line=row.line,
            group=row.group,
            prompt=row.prompt,
            chosen=better,
            rejected=worse,
        )
        for number, (better, worse) in enumerate(chosen)
    ]


def _worth_it(candidates: Sequence[Pair], pairing: Pairing, dropped: Counter[str]) -> list[Pair]:
    """Of one prompt's pairs those that teach something, the furthest apart first, as many as are asked for."""
    kept: list[Pair] = []
    for pair in sorted(candidates, key=lambda pair: -pair.gap):
        reason = _reason(pair, pairing, full=len(kept) == pairing.per_prompt)
        if reason is None:
            kept.append(pair)
        else:
            dropped[reason] += 1
    return kept


def _reason(pair: Pair, pairing: Pairing, *, full: bool) -> str | None:
    if pair.gap == 0:
        return "tie"
    if pair.gap < pairing.margin:
        return "under_margin"
    if full:
        return "over_cap"
    return "near_equal" if nearly_equal(pair.chosen.text, pair.rejected.text, above=pairing.similar) else None


def _balanced(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """The pairs, without those that would let length predict the choice; in the order given.

    A pair that the longer answer wins and one that the shorter wins by about as many characters make a couple, as
    many couples as there can be: both sides sorted by size, the smaller of two that do not match is passed over.
    Pairs of equal length stay. In each couple of differences `a > 0 > -b` is `|a - b| <= CALIPER min(a, b)`, so that
    by Cauchy and Schwarz the correlation of what is kept is at most `NEAR_ZERO`, and the longer answer wins half of it.
    """

    def by_size(pair: Pair) -> tuple[int, bytes]:
        return abs(pair.longer), blake2b(f"{seed}\0{pair.id}".encode(), digest_size=8).digest()

    up = sorted((pair for pair in pairs if pair.longer > 0), key=by_size)
    down = sorted((pair for pair in pairs if pair.longer < 0), key=by_size)
    kept: set[str] = set()
    left = right = 0
    while left < len(up) and right < len(down):
        more, fewer = up[left].longer, -down[right].longer
        matched = max(more, fewer) <= (1 + CALIPER) * min(more, fewer)
        if matched:
            kept.update((up[left].id, down[right].id))
        if matched or more < fewer:
            left += 1
        if matched or fewer < more:
            right += 1
    return [pair for pair in pairs if pair.id in kept or pair.longer == 0]


def _preference(pair: Pair) -> Preference:
    return Preference(
        id=pair.id,
        source=pair.source,
        line=pair.line,
        group=pair.group,
        prompt=pair.prompt,
        chosen=(Message(role="assistant", content=pair.chosen.text),),
        rejected=(Message(role="assistant", content=pair.rejected.text),),
    )


# Where most pairs went that are not there, and how to have them.
MENDS = {
    "tie": "Give the answers of a prompt different scores.",
    "under_margin": "Lower --margin.",
    "near_equal": "Give answers that differ more, or raise --similar.",
    "unbalanced": "Take --no-balance, or give more prompts.",
}


def _nothing_left(rows: Sequence[Answered], considered: int, dropped: Counter[str]) -> DataError:
    file = rows[0].source if rows else ""
    if not considered:
        what = f"none of {len(rows)} rows has two different answers that could be compared"
        mend = "Give each prompt at least two; of a model, ask for more --samples or at a higher --temperature."
        return DataError(Problem(file=file, what=what, mend=mend))
    lost = (+dropped).most_common()
    told = ", ".join(f"{count} {reason}" for reason, count in lost) or "all are held out"
    what = f"none of {considered} pairs is left to train on: {told}"
    mend = MENDS.get(lost[0][0], "") if lost else "Give more prompts, or lower --test."
    return DataError(Problem(file=file, what=what, mend=mend))
