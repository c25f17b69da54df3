"""Each text once: copies and near-copies that have one label go, the first of them stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mingshi.checks.leakage import Leakage
from mingshi.checks.rows import row_of
from mingshi.types import Labelled

KINDS = ("equal", "normalised", "near")  # of the leakage check; short texts a character apart may well be two


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """What became of repeated texts."""

    before: int
    after: int
    gone: Mapping[int, str]  # places of the rows that went, and what they were: equal, normalised or near


def without_repeats(examples: Sequence[Labelled]) -> tuple[list[Labelled], Once]:
    """The rows that the leakage check does not call repetitions, in their order.

    Texts with different labels contradict each other, which `mingshi check` tells: one of each label stays.
    """
    check = Leakage()
    rows = [row_of(example, "train") for example in examples]
    for row in rows:
        check.add(row)
    for row in rows:
        check.again(row)
    findings = check.findings()
    found = {(row["source"], row["line"]): each.kind for each in findings if each.kind in KINDS for row in each.rows}
    gone = {place: found[row.source, row.line] for place, row in enumerate(rows) if (row.source, row.line) in found}
    kept = [example for place, example in enumerate(examples) if place not in gone]
    return kept, Once(before=len(examples), after=len(kept), gone=gone)
