"""New rows out of old ones, until classes are even or each row has so many: with its label, and never its text.

A new row has the `group` of the one that it was made from, so that a split keeps them together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mingshi.checks.bias_swaps import Swaps, swapped
from mingshi.checks.normal import normalised
from mingshi.display import Display, Silent
from mingshi.errors import DataError
from mingshi.remedies.edits import Edit
from mingshi.remedies.weights import Cell, cell_of
from mingshi.types import Labelled

_Try = tuple[int, str, Sequence[int]]  # a row's place, a method, what it is seeded with
Rewrite = Callable[[Sequence[str], Sequence[Sequence[int]]], Sequence[str | None]]  # texts and their seeds

FRUITLESS = 2  # times that each row is tried by each method without anything new coming out: then there is nothing
TOGETHER = 256  # texts rewritten in one call
UNABLE = "unable"  # a text without a word that the method could change


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way to rewrite texts, and what may be wrong with an outcome ("": nothing)."""

    rewrite: Rewrite
    fault: Callable[[str, str], str] = lambda old, new: ""
    of_people: bool = False  # it changes whom a text speaks of: what the row said of that no longer holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new row."""

    origin: int  # the place of the row that it was made from
    method: str
    example: Labelled


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmented:
    """What augmentation did."""

    seed: int
    before: Mapping[Cell, int]
    after: Mapping[Cell, int]
    made: Mapping[str, int]  # by method
    dropped: Mapping[str, int]  # outcomes by method and what was wrong with them: `swap.same`
    lacking: Mapping[Cell, int]  # rows that could not be made


def edited(edit: Edit) -> Method:
    """A change that looks at one text alone."""

    def rewrite(texts: Sequence[str], seeds: Sequence[Sequence[int]]) -> list[str | None]:
        return [edit(text, np.random.default_rng(seed)) for text, seed in zip(texts, seeds, strict=True)]

    return Method(rewrite=rewrite)


def counterfactual(swaps: Swaps) -> Method:
    """Every word of a pair changed for the other one (Lu et al. 2018, Gender bias in neural natural language
    processing). A text without such words has no counterfactual."""

    def other(text: str, generator: np.random.Generator) -> str | None:
        found, sides = swapped(text, swaps)
        return found if sides else None

    return replace(edited(other), of_people=True)


def wanted_rows(
    examples: Sequence[Labelled], attribute: str | None, *, until: float | None = None, each: int = 0
) -> dict[Cell, int]:
    """New rows of each cell: so many that none is smaller than `until` times the largest, or `each` of every row."""
    counts = Counter(cell_of(example, attribute) for example in examples)
    if until is None:
        return {cell: each * count for cell, count in counts.items()}
    least = math.ceil(until * max(counts.values(), default=0))
    return {cell: max(0, least - count) for cell, count in counts.items()}


def augmented(
    examples: Sequence[Labelled],
    methods: Mapping[str, Method],
    wanted: Mapping[Cell, int],
    *,
    attribute: str | None = None,
    most: int | None = None,
    held_out: Collection[str] = (),
    seed: int = 0,
    display: Display | None = None,
) -> tuple[list[Made], Augmented]:
    """Rows that are new: each row in turn, by each method in turn, in an order that the seed says, and `most` of each.

    An outcome is dropped that is empty or there already; and that is, but for case, width, spaces and punctuation, the
    text of a row with another label, or one of `held_out`. A cell ends short of what is wanted where nothing new comes
    out any more. Labels stay. Raises DataError without rows or methods.
    """
    if not examples or not methods:
        raise DataError("There is nothing to augment", "Give rows, and at least one method.")
    members: dict[Cell, list[int]] = {}
    for place, example in enumerate(examples):
        members.setdefault(cell_of(example, attribute), []).append(place)
    work = _Work(examples, methods, seed, {normalised(text) for text in held_out})
    for example in examples:
        work.taken.add(example.content)
        work.labels.setdefault(normalised(example.content), set()).add(example.label)
    for number, cell in enumerate((display or Silent()).track(sorted(members), len(members), "augment")):
        work.fill(members[cell], wanted.get(cell, 0), number, most)
    work.made.sort(key=lambda one: one.origin)
    before = Counter(cell_of(example, attribute) for example in examples)
    added = Counter(cell_of(examples[one.origin], attribute) for one in work.made)
    record = Augmented(
        seed=seed,
        before=before,
        after=before + added,
        made=Counter(one.method for one in work.made),
        dropped=work.dropped,
        lacking={cell: count - added[cell] for cell, count in wanted.items() if count > added[cell]},
    )
    return work.made, record


@dataclass(slots=True, eq=False)
class _Work:
    """What is under way."""

    examples: Sequence[Labelled]
    methods: Mapping[str, Method]
    seed: int
    held_out: set[str]  # normalised, also below
    taken: set[str] = field(default_factory=set)  # texts as they are
    labels: dict[str, set[object]] = field(default_factory=dict)  # of the old texts
    made: list[Made] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    copies: Counter[int] = field(default_factory=Counter)  # new rows of each old one

    def fill(self, rows: Sequence[int], missing: int, number: int, most: int | None) -> None:
        """Make the rows that a cell lacks. A pass gives each of its rows one more, by one method after another."""
        order = np.random.default_rng([self.seed, number]).permutation(rows).tolist()
        names, turn, fruitless = list(self.methods), 0, 0
        while missing and fruitless < FRUITLESS * len(names):
            tries = [
                (row, names[(place + turn) % len(names)], (self.seed, number, turn, place))
                for place, row in enumerate(order)
                if most is None or self.copies[row] < most
            ]
            before, done = missing, 0
            while missing and done < len(tries):
                batch = tries[done : done + min(missing, TOGETHER)]
                missing -= sum(self._accept(*one) for one in self._rewritten(batch))
                done += len(batch)
            fruitless = 0 if missing < before else fruitless + 1
            turn += 1

    def _rewritten(self, tries: Sequence[_Try]) -> list[tuple[int, str, str | None]]:
        """Row, method and outcome of each try, those of one method computed together."""
        outcomes: dict[int, str | None] = {}
        for name, method in self.methods.items():
            mine = [at for at, (_, chosen, _) in enumerate(tries) if chosen == name]
            texts = [self.examples[tries[at][0]].content for at in mine]
            found = method.rewrite(texts, [tries[at][2] for at in mine]) if mine else ()
            outcomes.update(zip(mine, found, strict=True))
        return [(row, name, outcomes[at]) for at, (row, name, _) in enumerate(tries)]

    def _accept(self, row: int, name: str, text: str | None) -> bool:
        """Keep a new row, or count what is wrong with it."""
        old, method = self.examples[row], self.methods[name]
        if text is None or (fault := self._fault(old, text) or method.fault(old.content, text)):
            self.dropped[f"{name}.{UNABLE if text is None else fault}"] += 1
            return False
        self.taken.add(text)
        self.copies[row] += 1
        attributes = {} if method.of_people else old.attributes
        example = replace(old, id=f"{old.id}#{name}{self.copies[row]}", content=text, attributes=attributes)
        self.made.append(Made(origin=row, method=name, example=example))
        return True

    def _fault(self, old: Labelled, text: str) -> str:
        """What is wrong with any new text: `empty`, `same`, `held_out` or `contradicts`."""
        key = normalised(text)
        if not key:
            return "empty"
        if text in self.taken:
            return "same"
        if key in self.held_out:
            return "held_out"
        return "contradicts" if self.labels.get(key, set()) - {old.label} else ""
