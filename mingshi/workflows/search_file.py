"""What is searched: a file with a recipe, a space around it, and how much may be spent.

Everything that can be wrong is found here, before anything is trained.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mingshi.directions import is_better_higher, plain_name
from mingshi.errors import Problem, RecipeError
from mingshi.recipe import Recipe, parse
from mingshi.tasks import refuse_second_readings
from mingshi.types import Settings
from mingshi.workflows.comparison import ledger
from mingshi.workflows.search_space import Point, Space, plain, preset, read_axes, recipe_at, written
from mingshi.yaml_text import apply, line_of, load

PER_TOKEN = ("natspertoken", "perplexity", "loss")  # what these say is of one tokenizer's tokens


class Pruning(Settings):
    """Successive halving (Jamieson and Talwalkar 2016), each trial by itself (ASHA, Li et al. 2020).

    A trial is judged at `rungs` places before its end, each `factor` times as many tokens in as the one before; of the
    trials that were judged at a rung the best one in `factor` goes on.
    """

    factor: int = Field(default=3, ge=2, le=10)
    rungs: int = Field(default=2, ge=1, le=6)

    def shares(self) -> list[float]:
        """Of the tokens of a whole run: where trials are judged, the end last."""
        return [float(self.factor) ** (place - self.rungs) for place in range(self.rungs + 1)]


class Again(Settings):
    """The best trials, whole and under new seeds: what the winner of a search owes to luck shows here."""

    trials: int = Field(default=3, ge=1, le=20)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(default=(1, 2, 3), min_length=1)

    @field_validator("seeds")
    @classmethod
    def _apart(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed is given twice. Give each once: a run repeats itself bit for bit.")
        return seeds


class Search(Settings):
    """The file of a search."""

    base: str | None = None
    """A recipe's file, relative to this one."""
    recipe: Mapping[str, Any] | None = None
    """The recipe itself, in the place of `base`."""
    set: tuple[str, ...] = ()
    """Assignments on the recipe, as for --set."""
    output: str = Field(min_length=1)
    """The folder of the search."""
    trials: int = Field(default=27, ge=2, le=10_000)
    sampler: Literal["tpe", "random"] = "tpe"
    """tpe: from what the trials so far came to (Bergstra et al. 2011), several fields together."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the sampler; the trials train with the recipe's own."""
    pruning: Pruning | None = Pruning()
    """null: every trial trains to its end."""
    metric: str | None = None
    """By what trials are told apart: of the validation rows of the last stage; by default the objective's headline."""
    space: Mapping[str, Any] | None = None
    """Ranges and lists by a field's path; by default what the last stage's method is usually searched by."""
    again: Again | None = Again()
    """null: the best trial is told as it is."""

    @model_validator(mode="after")
    def _one_recipe(self) -> Search:
        if (self.base is None) == (self.recipe is None):
            given = "neither `base` nor `recipe` is" if self.base is None else "`base` and `recipe` are both"
            raise ValueError(f"{given} given. Give one of them.")
        if self.space is not None and not self.space:
            raise ValueError("the space is empty. Give it a field, or leave `space` out for the method's own.")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchPlan:
    """A search that can be carried out."""

    file: Path
    told: Search
    values: Any  # the recipe's tree as it was written, with `set` carried out
    base: Recipe
    space: Space
    trials: int  # no more than there are points

    @property
    def output(self) -> Path:
        return Path(self.told.output)

    @property
    def metric(self) -> str:
        return self.told.metric or self.base.stages[-1].objective.headline

    @property
    def higher(self) -> bool:
        """Is more of the metric better?"""
        objective = self.base.stages[-1].objective
        if self.metric == objective.headline:
            return objective.higher_is_better
        known = is_better_higher(self.metric)
        assert known is not None, "checked"
        return known

    @property
    def shares(self) -> list[float]:
        """Where trials are judged, as shares of a whole run's tokens; the end alone without pruning."""
        return self.told.pruning.shares() if self.told.pruning is not None else [1.0]

    def measured_every(self, steps: Sequence[int]) -> int | None:
        """Every how many steps a trial that is judged at these is measured; None (no pruning): as its recipe says."""
        return steps[0] if self.told.pruning is not None else None

    def recipe_at(self, point: Point) -> Recipe:
        return recipe_at(self.values, point)

    def kept_to(self) -> dict[str, Any]:
        """What must be the same in every process that works on this search, and when it goes on."""
        told = self.told.model_dump(mode="json", include={"sampler", "seed", "pruning"})
        recipe = self.base.model_dump(mode="json")
        return {"search": told | {"metric": self.metric}, "space": self.space.as_dict(), "recipe": recipe}


def read_search(path: Path) -> SearchPlan:
    """A search's file; RecipeError lists what is wrong with it, with its space, or with its recipe."""
    values = load(path)
    try:
        told = Search.model_validate(values)
    except ValidationError as error:
        raise RecipeError([_problem(detail, values, str(path)) for detail in error.errors()]) from None
    tree = load(path.parent / told.base) if told.base is not None else copy.deepcopy(values["recipe"])
    file = str(path.parent / told.base) if told.base is not None else str(path)
    apply(tree, told.set)
    if told.recipe is not None:
        tree.setdefault("output", "unset")
    base = parse(tree, file=file)
    axes, problems = read_axes(told.space, values, file=str(path)) if told.space is not None else (preset(base), [])
    _spell_out(tree, base, list(axes))
    problems += [
        Problem(file=str(path), line=line_of(values, field.split(".", 1)), field=field, what=what, mend=mend)
        for field, what, mend in _unfit(told, base)
    ]
    if not problems:
        problems = _unfit_points(Space(axes=axes), base, tree, told, values, str(path))
    if problems:
        raise RecipeError(sorted(problems, key=lambda problem: problem.line or 0))
    space = Space(axes=axes)
    for point in [{}, *(space.corners() if any(map(_is_of_data, axes)) else ())]:
        refuse_second_readings(ledger(recipe_at(tree, point)))
    return SearchPlan(
        file=path, told=told, values=tree, base=base, space=space, trials=int(min(told.trials, space.size))
    )


def _spell_out(tree: Any, base: Recipe, paths: Sequence[str]) -> None:
    """Write down a kind that a stage has by default, where a field of it is searched."""
    for number, stage in enumerate(base.stages):
        for name, kind in (("adapter", stage.adapter.kind), ("objective", stage.objective.kind)):
            if any(path.startswith(f"stages.{number}.{name}.") for path in paths):
                tree["stages"][number].setdefault(name, {"kind": kind})


def trial_recipe(recipe: Recipe) -> Recipe:
    """A recipe as trials train it: nothing that is tested on is read."""
    return recipe.model_copy(update={"test": (), "tasks": ()})


def _is_of_data(path: str) -> bool:
    return path.split(".")[2:3] == ["data"]


def _unfit(told: Search, base: Recipe) -> Iterator[tuple[str, str, str]]:
    """Field, what and mend of what keeps this recipe from being searched."""
    last = base.stages[-1]
    if last.validation == 0:
        mend = "Give the last stage `validation`."
        yield "recipe", "the last stage has no validation rows, by which trials could be told apart", mend
    if told.metric is not None and told.metric != last.objective.headline and is_better_higher(told.metric) is None:
        what = f"whether {told.metric!r} is better higher or lower is not known"
        yield "metric", what, f"Leave it out: {last.objective.headline} is what the objective is judged by."
    if told.again is not None and base.seed in told.again.seeds:
        what = f"the trials' own seed, {base.seed}, is one of the new ones"
        yield "again.seeds", what, "Give seeds that no trial has trained with."
    for number, stage in enumerate(base.stages):
        batch = f"stages.{number}.batch"
        if stage.steps is not None and told.space is not None and batch in told.space:
            what = "so many steps of a larger batch read more: the trials would not have one budget"
            yield f"space.{batch}", what, "Give the stage `epochs` in the place of `steps`."
        if told.space is not None and not isinstance(stage.validation, tuple):
            for path in told.space:
                if str(path).startswith(f"stages.{number}.data"):
                    what = "a share of other rows is other validation rows: trials could not be told apart by them"
                    yield f"space.{path}", what, "Give the stage's `validation` files of its own."
    metric = plain_name(told.metric or last.objective.headline)
    for name in ("model", "template"):
        if told.space is not None and name in told.space and metric in PER_TOKEN:
            what = "nats per token of other tokens or turns are no measure between trials"
            yield f"space.{name}", what, "Give a `metric` that does not count tokens, or search within one."
    try:
        parse(trial_recipe(base).model_dump(mode="json"))
    except RecipeError as error:
        yield "recipe", f"as a trial trains it, without tests and tasks: {error.problems[0].what}", "Leave it out."


def _unfit_points(space: Space, base: Recipe, tree: Any, told: Search, values: Any, file: str) -> list[Problem]:
    """What is wrong with a recipe somewhere in the space, each mistake once, with a point that has it."""
    found: dict[tuple[str, str], Problem] = {}
    headline = base.stages[-1].objective.headline
    for point in space.corners():
        try:
            recipe = recipe_at(tree, point)
        except RecipeError as error:
            for problem in error.problems:
                placed = _placed(problem, space, point, values, file)
                value = str(plain(point.get(placed.field.removeprefix("space."))))
                found.setdefault((placed.field, problem.what.replace(value, "…")), placed)
            continue
        other = recipe.stages[-1].objective.headline
        if told.metric is None and other != headline:
            what = f"some trials are judged by {headline} and some by {other}"
            found.setdefault(("", what), Problem(file=file, field="space", what=what, mend="Give one `metric`."))
    return list(found.values())


def _placed(problem: Problem, space: Space, point: Point, values: Any, file: str) -> Problem:
    """A problem of a recipe in the space, at the field that brought it."""
    nowhere = next((path for path in space.axes if problem.what.startswith(f"--set {path}: ")), None)
    if nowhere is not None:
        problem = replace(problem, field=nowhere, what=problem.what.removeprefix(f"--set {nowhere}: "))
    path = next((path for path in space.axes if problem.field.startswith(path) or path.startswith(problem.field)), "")
    if path and problem.field:
        what = f"{written(point[path])}: {problem.what}" if problem.field != path else problem.what
        field = f"space.{path}"
        line = line_of(values, ["space", path])
        return Problem(file=file, line=line, field=field, what=what, mend=problem.mend)
    told = ", ".join(f"{name}={written(value)}" for name, value in point.items())
    return Problem(file=file, field=problem.field, what=f"{problem.what.rstrip('.')} (at {told})", mend=problem.mend)


def _problem(detail: Mapping[str, Any], values: Any, file: str) -> Problem:
    place = list(detail["loc"])
    field, what, mend = ".".join(map(str, place)), str(detail["msg"]), ""
    if detail["type"] == "extra_forbidden":
        kinds: dict[str, type[Settings]] = {"pruning": Pruning, "again": Again}
        known = list(kinds.get(str(place[0]), Search).model_fields)
        close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        what = f"unknown key {str(place[-1])!r}"
        mend = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
    elif detail["type"] == "missing":
        what, mend = "is missing", f"Add `{place[-1]}: …`."
    elif detail["type"] == "value_error":
        what, _, mend = what.removeprefix("Value error, ").partition(". ")
    return Problem(file=file, line=line_of(values, place), field=field, what=what, mend=mend)
