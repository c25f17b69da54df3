"""What a search may choose: for each field of a recipe a stretch of numbers or a list of values.

A space is proved before anything trains: a recipe is built at its corners, so that a field that is not there or a
value that a field does not take is told at once. Where no space is given, the method of the last stage has one.
"""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from pydantic import Field, ValidationError, model_validator

from mingshi.errors import Problem
from mingshi.objectives import Dpo
from mingshi.recipe import Recipe, Stage, parse
from mingshi.types import Settings
from mingshi.yaml_text import apply, line_of

CORNERS = 64  # that a recipe is built at: all of them where there are no more
DIGITS = 4  # significant ones of a number that was drawn
LENGTHS = ("epochs", "steps")

# The rates that a method is searched at (the smallest and the largest); others begin a fifth and end five times theirs.
RATES = {"full": (1e-6, 1e-4), "lora": (5e-5, 5e-4), "qlora": (5e-5, 5e-4)}
RANKED = ("lora", "qlora")
RANKS = (8, 16, 32, 64)
BATCHES = (8, 16, 32)
WARMUP = 0.1  # the largest share of all steps

# Fields that are no choice of a search, and why.
REFUSED = {
    "seed": "luck is nothing to choose by: runs differ by it, and the best of many seeds is no better than another",
    "output": "every trial has a folder of its own",
    "test": "a search reads no test rows",
    "tasks": "a search reads no tasks",
    "evals": "a search reads no test rows, and these are what is measured on them",
    "keep": "it changes no score",
    "validation": "trials are told apart on the same validation rows",
    "evaluate": "the search measures where its trials are judged",
    "checkpoint": "it changes no score",
}


class Span(Settings):
    """Numbers from `low` to `high`, both among them; with `step`, whole numbers that far apart."""

    low: float
    high: float
    log: bool = False
    """Draw alike from every order of magnitude."""
    step: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _can_be_drawn_from(self) -> Span:
        if not self.low < self.high:
            raise ValueError("`low` is not below `high`. Swap them, or leave the field as it is.")
        if self.log and self.low <= 0:
            raise ValueError("a logarithm needs numbers above 0. Raise `low`, or leave `log` out.")
        if self.step is not None:
            if not (self.low.is_integer() and self.high.is_integer()):
                raise ValueError("a step is between whole numbers. Give whole ends, or leave `step` out.")
            if self.log and self.step != 1:
                raise ValueError("`log` goes with `step: 1` alone. Or list the values: `choices: […]`.")
            if (self.high - self.low) % self.step:
                last = int(self.high - (self.high - self.low) % self.step)
                raise ValueError(f"steps of {self.step} from {self.low:g} miss {self.high:g}. Set `high: {last}`.")
        return self

    def ends(self) -> list[Any]:
        """The smallest, one between, the largest."""
        between = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        return list(dict.fromkeys([self.settled(self.low), self.settled(between), self.settled(self.high)]))

    def settled(self, drawn: float) -> Any:
        """As a recipe says it: whole where it steps, else with a few digits, and never beyond the ends."""
        if self.step is not None:
            return int(self.low) + self.step * round((drawn - self.low) / self.step)
        return min(self.high, max(self.low, float(f"{drawn:.{DIGITS}g}")))

    def holds(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        return self.step is None or (float(value).is_integer() and not (value - self.low) % self.step)

    def told(self) -> str:
        whole = f", in steps of {self.step}" if self.step is not None else ""
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}{whole}"


class Choices(Settings):
    """One of several values, of any kind that a field takes: a number, a name, a whole adapter."""

    choices: tuple[Any, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _apart(self) -> Choices:
        if len({written(value) for value in self.choices}) < len(self.choices):
            raise ValueError("a choice is given twice. Give each once.")
        return self

    def ends(self) -> list[Any]:
        return list(self.choices)

    def holds(self, value: Any) -> bool:
        return written(value) in map(written, self.choices)

    def told(self) -> str:
        return " | ".join(map(written, self.choices))


Axis = Span | Choices
Point = Mapping[str, Any]  # a field's path -> its value


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Every field that is searched, by its path: `stages.0.optim.learning_rate`."""

    axes: Mapping[str, Axis]

    @property
    def size(self) -> float:
        """How many recipes it holds; infinity where a number may be any of a stretch."""
        return math.prod(_count(axis) for axis in self.axes.values())

    def whole(self) -> Iterator[Point]:
        """Every point of a space that can be counted."""
        values = [axis.choices if isinstance(axis, Choices) else _steps(axis) for axis in self.axes.values()]
        for row in itertools.product(*values):
            yield dict(zip(self.axes, row, strict=True))

    def longest(self) -> Point:
        """The point that trains the longest, as far as a stage's length is searched."""
        chosen = {}
        for path, axis in self.axes.items():
            ends = axis.ends()
            chosen[path] = max(ends) if path.rpartition(".")[2] in LENGTHS else ends[len(ends) // 2]
        return chosen

    def corners(self) -> list[Point]:
        """Where recipes are built before anything trains: every end with the others' first, and corners of all."""
        ends = {path: axis.ends() for path, axis in self.axes.items()}
        first = {path: values[0] for path, values in ends.items()}
        found = [{**first, path: value} for path, values in ends.items() for value in values]
        if math.prod(map(len, ends.values())) <= CORNERS:
            rows = list(itertools.product(*ends.values()))
        else:
            drawn = random.Random(0)
            rows = [tuple(drawn.choice(values) for values in ends.values()) for _ in range(CORNERS)]
        found += [dict(zip(ends, row, strict=True)) for row in rows]
        return list({written(point): point for point in found}.values())

    def start(self, recipe: Recipe) -> Point | None:
        """The recipe as it stands, if it lies in the space."""
        values = recipe.model_dump(mode="json")
        point: dict[str, Any] = {}
        for path, axis in self.axes.items():
            value = _at(values, path)
            if value is None and path.endswith(".optim.learning_rate"):
                value = recipe.stages[int(path.split(".")[1])].default_learning_rate()[0]
            if isinstance(axis, Choices):
                value = next((one for one in axis.choices if _agree(one, value)), None)
            if value is None or not axis.holds(value):
                return None
            point[path] = axis.settled(value) if isinstance(axis, Span) else value
        return point

    def as_dict(self) -> dict[str, Any]:
        return {path: axis.model_dump(mode="json", exclude_defaults=True) for path, axis in self.axes.items()}


def read_axes(told: Mapping[str, Any], values: Any, *, file: str) -> tuple[dict[str, Axis], list[Problem]]:
    """The axes that a file tells, and what is wrong with the others."""
    axes: dict[str, Axis] = {}
    problems = []
    for path, axis in told.items():
        field, line = f"space.{path}", line_of(values, ["space", path])
        if (refused := _refused(str(path), told)) is not None:
            problems.append(replace(refused, file=file, line=line, field=field))
        elif not isinstance(axis, Mapping):
            mend = "Give `{low: …, high: …, log: true}`, or `{choices: […]}`."
            problems.append(Problem(file=file, line=line, field=field, what="is no range and no list", mend=mend))
        else:
            try:
                axes[str(path)] = (Choices if "choices" in axis else Span).model_validate(axis)
            except ValidationError as error:
                problems += [_axis_problem(detail, file, line, field) for detail in error.errors()]
    return axes, problems


def preset(recipe: Recipe) -> dict[str, Axis]:
    """What is searched where nothing is said: rate, rank, batch and warm-up of the last stage, by its method."""
    stage, number = recipe.stages[-1], len(recipe.stages) - 1
    low, high = _rates(stage)
    head = f"stages.{number}"
    axes: dict[str, Axis] = {f"{head}.optim.learning_rate": Span(low=low, high=high, log=True)}
    if stage.adapter.kind in RANKED:
        axes[f"{head}.adapter.rank"] = Choices(choices=RANKS)
    if stage.steps is None:  # so many steps of a larger batch would read more
        axes[f"{head}.batch"] = Choices(choices=BATCHES)
    axes[f"{head}.optim.warmup"] = Span(low=0.0, high=WARMUP)
    return axes


def recipe_at(values: Mapping[str, Any], point: Point, *, file: str = "recipe") -> Recipe:
    """The recipe with the fields of a point set; RecipeError where that is none."""
    changed = copy.deepcopy(values)
    apply(changed, [f"{path}={written(value)}" for path, value in point.items()])
    return parse(changed, file=file)


def written(value: Any) -> str:
    """A value as JSON, which is YAML: equal values give equal texts."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS, default=plain).decode()


def plain(value: Any) -> Any:
    """What ruamel reads: its numbers and texts are subclasses of Python's own."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return str(value)


def _rates(stage: Stage) -> tuple[float, float]:
    kind = stage.adapter.kind
    usual = stage.adapter.default_learning_rate()[0]
    low, high = RATES.get(kind, (usual / 5, usual * 5))
    share = 0.1 if isinstance(stage.objective, Dpo) else 1.0  # preferences want a tenth
    return float(f"{low * share:.3g}"), float(f"{high * share:.3g}")


def _refused(path: str, told: Mapping[str, Any]) -> Problem | None:
    """What keeps a field from being searched at all."""
    parts = path.split(".")
    named = parts[0] if parts[0] != "stages" else parts[2] if len(parts) > 2 else ""
    if named in REFUSED:
        return Problem(what=f"is not searched: {REFUSED[named]}", mend="Leave it out.")
    outer = next((other for other in told if other != path and path.startswith(f"{other}.")), None)
    if outer is not None:
        return Problem(what=f"lies in `{outer}`, which is searched as a whole", mend="Keep one of them.")
    return None


def _axis_problem(detail: Mapping[str, Any], file: str, line: int | None, field: str) -> Problem:
    place = ".".join([field, *map(str, detail["loc"])])
    what, mend = str(detail["msg"]), ""
    if detail["type"] == "extra_forbidden":
        what, mend = f"unknown key {str(detail['loc'][-1])!r}", "Known keys: low, high, log, step; or choices."
    elif detail["type"] == "missing":
        what, mend = "is missing", "A range has `low` and `high`; a list has `choices`."
    elif detail["type"] == "value_error":
        what, _, mend = what.removeprefix("Value error, ").partition(". ")
    elif detail["type"] == "too_short":
        what, mend = "leaves nothing to choose", "Give at least two, or set the field in the recipe."
    return Problem(file=file, line=line, field=place, what=what, mend=mend)


def _count(axis: Axis) -> float:
    if isinstance(axis, Choices):
        return len(axis.choices)
    return math.inf if axis.step is None else (axis.high - axis.low) // axis.step + 1


def _steps(axis: Span) -> Sequence[int]:
    assert axis.step is not None, "counted"
    return range(int(axis.low), int(axis.high) + 1, axis.step)


def _at(values: Any, path: str) -> Any:
    """The value of a path, None where there is none."""
    for key in path.split("."):
        if isinstance(values, Mapping):
            values = values.get(key)
        elif isinstance(values, list) and key.isdecimal() and int(key) < len(values):
            values = values[int(key)]
        else:
            return None
    return values


def _agree(told: Any, value: Any) -> bool:
    """Does a recipe's value say what a choice tells, whatever else it says by default?"""
    if isinstance(told, Mapping) and isinstance(value, Mapping):
        return all(_agree(inner, value.get(key)) for key, inner in told.items())
    return written(told) == written(value)
