"""Make labels and groups independent: by weights, or by how often each row comes.

A cell is a group with a label; without an attribute all rows are one group, and cells are classes. Rows are resampled
after they were split, and only those of training: a balanced test measures another world than that of use. A copy has
the `group` of its original, so that a later split cannot part them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mingshi.checks.bias_mentions import group_of
from mingshi.errors import DataError
from mingshi.types import Labelled

Cell = tuple[str, str]  # group, label
EVERYBODY = ""  # the one group where no attribute is asked for
Way = Literal["over", "under", "both"]
Goal = Literal["equal", "independent"] | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """What reweighing did."""

    attribute: str
    weights: Mapping[Cell, float]  # of each row of the cell
    counts: Mapping[Cell, int]
    effective: float  # rows of equal weight that would vary as little (Kish): the price of weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Resampled:
    """What resampling did."""

    attribute: str | None
    way: Way
    towards: Goal
    cap: float
    seed: int
    before: Mapping[Cell, int]
    after: Mapping[Cell, int]
    capped: Sequence[Cell]  # cells that would have had to change by more than the cap


def cell_of(example: Labelled, attribute: str | None) -> Cell:
    label = example.label
    group = EVERYBODY if attribute is None else group_of(example.attributes, example.content, attribute)
    return group, ", ".join(label) if isinstance(label, tuple) else str(label)


def reweighed(examples: Sequence[Labelled], attribute: str) -> tuple[list[float], Weighed]:
    """A weight for each row, `P(group) P(label) / P(group, label)`: reweighing of Kamiran and Calders (2012, Data
    preprocessing techniques for classification without discrimination).

    Weighted, the label is independent of the group, and both are as frequent as before. The mean weight is 1 where no
    cell is empty. Of what a classifier makes of the groups a part stays where other features say much of the label:
    measure it. Raises DataError without rows.
    """
    cells = [cell_of(example, attribute) for example in examples]
    if not cells:
        raise DataError("There are no rows to weigh", "Name files that have rows.")
    counts = Counter(cells)
    groups, labels = Counter(group for group, _ in cells), Counter(label for _, label in cells)
    weights = {
        (group, label): groups[group] * labels[label] / (len(cells) * counts[group, label]) for group, label in counts
    }
    column = np.array([weights[cell] for cell in cells])
    effective = float(column.sum() ** 2 / (column**2).sum())
    return column.tolist(), Weighed(attribute=attribute, weights=weights, counts=counts, effective=effective)


def resampled(
    examples: Sequence[Labelled],
    attribute: str | None,
    *,
    way: Way,
    towards: Goal = "equal",
    cap: float = 5.0,
    seed: int = 0,
) -> tuple[list[Labelled], Resampled]:
    """Rows in whose cells labels are independent of groups: cells of `equal` size, or (`independent`) of the size that
    shares of groups and labels over all give them, as after reweighing. Or, towards a ratio, no cell is smaller than
    this share of the largest.

    `over` repeats rows until the cell that is fullest for what it should be needs no more; `under` drops rows until the
    emptiest cell needs no fewer; `both` keeps their number, so that a cell comes as often as its weight says (uniform
    sampling of Kamiran and Calders 2012). A row comes at most `cap` times, and of a cell at least one row in `cap`
    stays: what was reached is in the record. Rows stay in order, a copy after its original with an id of its own.
    Raises DataError without rows, where `cap` is below 1, or for a ratio outside (0, 1] or with `both`.
    """
    if not examples or not cap >= 1:
        what = "There are no rows to resample" if not examples else f"cap is {cap}: a row would be there less than once"
        raise DataError(what, "Give rows, and a cap of at least 1.")
    if isinstance(towards, float) and (way == "both" or not 0 < towards <= 1):
        raise DataError(f"{towards} with {way!r} is no ratio of classes", "Give one above 0, at most 1, over or under.")
    cells = [cell_of(example, attribute) for example in examples]
    counts = Counter(cells)
    wanted = _wanted(counts, way, towards)
    targets = {cell: int(min(wanted[cell], cap * count)) for cell, count in counts.items()}
    targets = {cell: max(targets[cell], -int(-count // cap)) for cell, count in counts.items()}
    generator = np.random.default_rng(seed)
    times = np.zeros(len(cells), np.int64)
    members: dict[Cell, list[int]] = {cell: [] for cell in sorted(counts)}
    for place, cell in enumerate(cells):
        members[cell].append(place)
    for cell, rows in members.items():
        whole, rest = divmod(targets[cell], len(rows))
        times[rows] = whole
        times[generator.choice(rows, rest, replace=False)] += 1
    made = [
        example if copy == 0 else replace(example, id=f"{example.id}#{copy + 1}")
        for example, count in zip(examples, times.tolist(), strict=True)
        for copy in range(count)
    ]
    capped = tuple(cell for cell in sorted(counts) if targets[cell] != wanted[cell])
    after = Counter(cell_of(example, attribute) for example in made)
    return made, Resampled(
        attribute=attribute, way=way, towards=towards, cap=cap, seed=seed, before=counts, after=after, capped=capped
    )


def _wanted(counts: Mapping[Cell, int], way: Way, towards: Goal) -> dict[Cell, int]:
    """Rows of each cell; with `over` no cell shrinks, with `under` none grows."""
    if isinstance(towards, float):
        least, most = math.ceil(towards * max(counts.values())), int(min(counts.values()) / towards)
        return {cell: max(count, least) if way == "over" else min(count, most) for cell, count in counts.items()}
    groups, labels = Counter[str](), Counter[str]()
    for (group, label), count in counts.items():
        groups[group] += count
        labels[label] += count
    shares = {cell: groups[cell[0]] * labels[cell[1]] if towards == "independent" else 1 for cell in counts}
    factors = [count / shares[cell] for cell, count in counts.items()]
    kept = sum(counts.values()) / sum(shares.values())
    factor = {"over": max(factors), "under": min(factors), "both": kept}[way]
    return {cell: max(1, round(factor * share)) for cell, share in shares.items()}
