"""Whether a classifier says the same of a text when it speaks of somebody else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mingshi.checks.bias_swaps import Swaps, swapped
from mingshi.evals import statistics
from mingshi.types import Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """A text that has a counterfactual."""

    place: int  # among the texts
    text: str  # the counterfactual
    side: int | None  # of which side of the pairs the text itself speaks; None: of both


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What became of a classifier's answers."""

    texts: int  # that were asked about
    changed: Score  # share of those with a counterfactual whose class is another in it
    shifts: Mapping[str, Score]  # class -> its mean probability with the second side's words, less with the first's


def counterfactuals(texts: Sequence[str], swaps: Swaps) -> list[Swapped]:
    """The texts that hold a word of a pair, with every such word changed for its partner."""
    found = []
    for place, text in enumerate(texts):
        other, sides = swapped(text, swaps)
        if sides and other != text:
            found.append(Swapped(place=place, text=other, side=next(iter(sides)) if len(sides) == 1 else None))
    return found


def probed(
    others: Sequence[Swapped],
    before: Sequence[Mapping[str, float]],
    after: Sequence[Mapping[str, float]],
    *,
    texts: int,
) -> Probe:
    """`before` and `after` are the probabilities of each class, of the texts that were swapped and of their swaps.

    A shift is measured on texts that speak of one side alone; where nothing shifts, or one text is left, it has no
    interval.
    """
    moved = [
        max(old, key=old.__getitem__) != max(new, key=new.__getitem__) for old, new in zip(before, after, strict=True)
    ]
    one_sided = [place for place, other in enumerate(others) if other.side is not None]
    shifts = {}
    for name in before[0] if before else ():
        pairs = [(before[at][name], after[at][name], others[at].side) for at in one_sided]
        changes = [(new - old) if side == 0 else (old - new) for old, new, side in pairs]
        shifts[name] = _mean(changes, f"swap_shift|{name}")
    changed = statistics.rate(sum(moved), len(moved), signature="swap_changed")
    return Probe(texts=texts, changed=changed, shifts=shifts)


def _mean(changes: Sequence[float], signature: str) -> Score:
    if changes:
        return statistics.mean(changes, signature=signature)
    return Score(value=math.nan, low=math.nan, high=math.nan, count=0, signature=signature)
