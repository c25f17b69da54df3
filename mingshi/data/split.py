"""Training and held-out rows, by group.

A row's side depends on its group, the seed and the fraction alone: not on its place, and not on which other rows there
are. Growing a data set or reordering it moves no row, and a larger fraction holds out all that a smaller one did.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TypeVar

from mingshi.errors import RecipeError
from mingshi.types import Example, Reject

_WHOLE = 1 << 64
Row = TypeVar("Row", bound=Example | Reject)


def is_held_out(group: str, *, fraction: float, seed: int) -> bool:
    """Whether the rows of this group are held out; for data too large to hold in a list."""
    return _place(group, seed) < int(fraction * _WHOLE)


def split(examples: Iterable[Row], *, fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows, each in the order given.

    Every group is held out with probability `fraction` (of groups, not of rows: n groups give `n fraction` of them,
    with a standard deviation of `sqrt(n fraction (1 - fraction))`). Where there are two groups or more, each side gets
    at least one: the group of the smallest hash is held out, that of the largest is trained. This alone looks at other
    rows. Rejects go with the training rows, whose ledger counts them. Raises RecipeError for a fraction outside [0, 1).
    """
    if not 0 <= fraction < 1:
        raise RecipeError(f"cannot hold out {fraction} of the rows", "Give a fraction from 0 to 0.99.")
    rows = list(examples)
    groups = sorted(
        {row.group for row in rows if isinstance(row, Example)}, key=lambda group: (_place(group, seed), group)
    )
    count = sum(is_held_out(group, fraction=fraction, seed=seed) for group in groups)
    if fraction > 0 and groups:
        count = min(max(count, 1), len(groups) - 1)
    held_out = set(groups[:count])
    sides: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        sides[isinstance(row, Example) and row.group in held_out].append(row)
    return sides


def _place(group: str, seed: int) -> int:
    return int.from_bytes(blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest())
