"""Training and held-out rows, by group.

A row's side depends on its group, the seed and the fraction alone: not on its place, and not on which other rows there
are. Growing a data set or reordering it moves no row, and a larger fraction holds out all that a smaller one did.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from mingshi.errors import RecipeError
from mingshi.types import Example, Reject

_WHOLE = 1 << 64
Row = TypeVar("Row", bound=Example | Reject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Which rows are held out; nothing of them is kept."""

    fraction: float
    seed: int
    held_out: str | None = None  # this group is, whatever its hash: no other was
    trained: str | None = None  # this group is not: all others were

    def holds_out(self, row: Example | Reject) -> bool:
        """Rejects go with the training rows, whose ledger counts them."""
        if not isinstance(row, Example) or row.group == self.trained:
            return False
        return row.group == self.held_out or is_held_out(row.group, fraction=self.fraction, seed=self.seed)


def sides_of(examples: Iterable[Example | Reject], *, fraction: float, seed: int) -> Sides:
    """How these rows are split, read only until both sides have a group: a few rows, unless the groups are few.

    Every group is held out with probability `fraction` (of groups, not of rows: n groups give `n fraction` of them,
    with a standard deviation of `sqrt(n fraction (1 - fraction))`). Where there are two groups or more, each side gets
    at least one: the group of the smallest hash is held out, that of the largest is trained. This alone looks at other
    rows. Raises RecipeError for a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise RecipeError(f"cannot hold out {fraction} of the rows", "Give a fraction from 0 to 0.99.")
    if fraction == 0:
        return Sides(fraction=fraction, seed=seed)
    first: tuple[int, str] | None = None
    last: tuple[int, str] | None = None
    for row in examples:
        if not isinstance(row, Example):
            continue
        here = (_place(row.group, seed), row.group)
        first = here if first is None else min(first, here)
        last = here if last is None else max(last, here)
        if _is_below(first[0], fraction) and not _is_below(last[0], fraction):
            return Sides(fraction=fraction, seed=seed)
    if first is None or last is None:
        return Sides(fraction=fraction, seed=seed)
    if _is_below(last[0], fraction):
        return Sides(fraction=fraction, seed=seed, trained=last[1])
    return Sides(fraction=fraction, seed=seed, held_out=first[1] if first != last else None)


def split(examples: Iterable[Row], *, fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows, each in the order given, as `sides_of` says; for rows that are in memory anyway."""
    rows = list(examples)
    sides = sides_of(rows, fraction=fraction, seed=seed)
    parts: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        parts[sides.holds_out(row)].append(row)
    return parts


def is_held_out(group: str, *, fraction: float, seed: int) -> bool:
    """Whether the rows of this group are held out, where no side would be empty."""
    return _is_below(_place(group, seed), fraction)


def _is_below(place: int, fraction: float) -> bool:
    return place < int(fraction * _WHOLE)


def _place(group: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest())
