"""What is compared: a file of rows, each a change to one recipe, or recipes as they are; and what makes it fair.

Rows may also be told as a scale: models and amounts of data (see compare_scale.py).

Everything that can be wrong is found here, before anything is trained.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, ValidationError, field_validator, model_validator

from mingshi.errors import Problem, RecipeError
from mingshi.provenance import fingerprint_file
from mingshi.recipe import Recipe, parse, read_recipe
from mingshi.tasks import refuse_second_readings
from mingshi.types import Settings
from mingshi.workflows.compare_scale import Cell, Scale, too_few_rows, unscalable
from mingshi.yaml_text import apply, line_of, load

NAME = r"^[A-Za-z0-9_-]{1,40}$"  # of a row: also that of its folder
FEWEST_SEEDS = 3  # for a claim


class Search(Settings):
    """How each method's learning rate is found: the same tries for all, told apart by validation rows alone."""

    rates: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.3, 1.0, 3.0), min_length=2)
    """Times the rate that the method begins with: the row's own, or the default of its adapter."""
    share: float = Field(default=0.33, gt=0, le=1)
    """Of the steps (or epochs) of a run, for each try."""
    seed: int = Field(default=1000, ge=0, lt=2**31)
    """Of the tries: not one of the comparison's, so that no run is chosen for its own luck."""

    @field_validator("rates")
    @classmethod
    def _rising(cls, rates: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(rates)) < len(rates):
            raise ValueError("a rate is given twice. Give each once.")
        return tuple(sorted(rates))


class Row(Settings):
    """One method: what it changes in the recipe."""

    name: str = Field(pattern=NAME)
    set: tuple[str, ...] = ()
    """Assignments as for --set, `"stages.0.adapter={kind: full}"`, or a mapping: `stages.0.adapter: {kind: full}`."""

    @field_validator("set", mode="before")
    @classmethod
    def _as_assignments(cls, value: Any) -> Any:
        if isinstance(value, Mapping):  # JSON is YAML
            return tuple(f"{key}={orjson.dumps(inner, default=_plain).decode()}" for key, inner in value.items())
        return value


class Comparison(Settings):
    """The file of a comparison."""

    base: str | None = None
    """A recipe's file, relative to this one."""
    recipe: Mapping[str, Any] | None = None
    """The recipe itself, in the place of `base`."""
    output: str = Field(min_length=1)
    """The folder of the comparison."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(default=(0, 1, 2), min_length=1)
    search: Search | None = Search()
    """null: every method trains with the rate that it begins with."""
    rows: tuple[Row, ...] = Field(default=(), min_length=1)
    """The methods; the others are tested against the first."""
    scale: Scale | None = None
    """In the place of `rows`: models and amounts of data, and from which amount on more adds nothing."""
    price: float | None = Field(default=None, gt=0)
    """Of an hour of this machine; without it, cost is told in core-hours."""

    @model_validator(mode="after")
    def _one_recipe(self) -> Comparison:
        if (self.base is None) == (self.recipe is None):
            given = (
                "neither `base` nor `recipe` is given" if self.base is None else "`base` and `recipe` are both given"
            )
            raise ValueError(f"{given}. Give one of them.")
        if bool(self.rows) == (self.scale is not None):
            given = "`rows` and `scale` are both given" if self.rows else "neither `rows` nor `scale` is given"
            raise ValueError(f"{given}. Give one of them.")
        _require_apart([row.name for row in self.rows])
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A row of the table, as a recipe; its seed, output and learning rates are still to be set."""

    name: str
    recipe: Recipe
    cell: Cell | None = None  # of a scale
    tuned_as: str = ""  # whose search it takes its learning rate from; "": its own

    @property
    def searched(self) -> str:
        """The name of the method whose search is this one's."""
        return self.tuned_as or self.name

    def rates(self) -> list[float]:
        """What each stage begins with."""
        return [stage.optim.learning_rate or stage.default_learning_rate()[0] for stage in self.recipe.stages]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A comparison that can be carried out."""

    output: Path
    seeds: tuple[int, ...]
    search: Search | None
    methods: tuple[Method, ...]
    price: float | None = None

    @property
    def scaled(self) -> bool:
        """Are the methods amounts of data?"""
        return self.methods[0].cell is not None


def read_comparison(path: Path) -> Plan:
    """A comparison's file; RecipeError lists what is wrong with it, or with one of its recipes."""
    values = load(path)
    try:
        told = Comparison.model_validate(values)
    except ValidationError as error:
        raise RecipeError([_problem(detail, values, str(path)) for detail in error.errors()]) from None
    base = load(path.parent / told.base) if told.base is not None else values["recipe"]
    file = str(path.parent / told.base) if told.base is not None else str(path)
    problems: list[Problem] = []
    methods = []
    for row, cell, tuned_as in _rows(told):
        changed = copy.deepcopy(base)
        try:
            apply(changed, [*row.set, "output=unset"])
            recipe = parse(changed, file=f"{file} (row {row.name})")
            methods.append(Method(name=row.name, recipe=recipe, cell=cell, tuned_as=tuned_as))
        except RecipeError as error:
            problems += error.problems
        if cell is None and told.search is not None and not any("learning_rate" in each for each in row.set):
            problems += _shared_rates(base, row.name, file)
    if problems:
        raise RecipeError(problems)
    return checked(
        Plan(output=Path(told.output), seeds=told.seeds, search=told.search, methods=tuple(methods), price=told.price),
        file=str(path),
    )


def _rows(told: Comparison) -> list[tuple[Row, Cell | None, str]]:
    """Each row with its cell, where the file tells a scale, and with whose learning rate it takes, if not its own."""
    found: list[tuple[Row, Cell | None, str]] = [(row, None, "") for row in told.rows]
    if told.scale is None:
        return found
    for cell in told.scale.cells():
        tuned = told.scale.tuned(cell).name
        found.append((Row(name=cell.name, set=cell.set), cell, "" if tuned == cell.name else tuned))
    return found


def of_recipes(paths: Sequence[Path], *, output: Path, seeds: int, search: Search | None) -> Plan:
    """Recipes as they are, each a row that is called what its file is."""
    methods = tuple(Method(name=path.stem, recipe=read_recipe(path)) for path in paths)
    try:
        _require_apart([method.name for method in methods])
    except ValueError as error:
        what, _, mend = str(error).partition(". ")
        raise RecipeError(what, mend) from None
    return checked(Plan(output=output, seeds=tuple(range(seeds)), search=search, methods=methods), file="")


def checked(plan: Plan, *, file: str) -> Plan:
    """The plan, if its rows can be compared: RecipeError names everything that would make it unfair."""
    problems = [Problem(file=file, field=field, what=what, mend=mend) for field, what, mend in _unfair(plan)]
    if problems:
        raise RecipeError(problems)
    for method in plan.methods:
        refuse_second_readings(ledger(method.recipe))
    last = plan.methods[-1]
    if last.cell is not None and (what := too_few_rows(last.recipe, last.cell.rows)):
        raise RecipeError(Problem(file=file, field="scale.rows", what=what, mend="Lower the largest amount."))
    return plan


def _unfair(plan: Plan) -> Iterator[tuple[str, str, str]]:
    """Field, what and mend of each thing that keeps the rows from being compared."""
    if len(set(plan.seeds)) < len(plan.seeds):
        yield "seeds", "a seed is given twice", "Give each once: a run repeats itself bit for bit."
    if plan.search is not None and plan.search.seed in plan.seeds:
        what = f"the search's seed, {plan.search.seed}, is one of the comparison's"
        yield "search.seed", what, "Give it one of its own."
    first = plan.methods[0]
    if plan.scaled:
        yield from unscalable(first.recipe)
    for method in plan.methods:
        recipe = method.recipe
        if not recipe.test and not recipe.tasks:
            yield f"rows.{method.name}", "has neither `test` nor `tasks`: there is nothing to compare by", "Give one."
        if plan.search is not None and recipe.stages[-1].validation == 0:
            what = "its last stage has no validation rows, by which a learning rate could be chosen"
            yield f"rows.{method.name}", what, "Give `validation`, or set `search: null`."
        for name, mine, theirs in (
            ("test", recipe.test, first.recipe.test),
            ("tasks", recipe.tasks, first.recipe.tasks),
            ("evals", recipe.evals, first.recipe.evals),
        ):
            if mine != theirs:
                what = f"is not measured as row {first.name} is: its `{name}` is another"
                yield f"rows.{method.name}", what, "Measure all rows alike."


def ledger(recipe: Recipe) -> list[dict[str, Any]]:
    """The files of a recipe and what each is for; RecipeError names those that are not there."""
    named = [("test", source) for source in recipe.test]
    named += [(task.name, source) for task in recipe.tasks for source in task.data]
    for stage in recipe.stages:
        named += [("train", source) for source in stage.data]
        if isinstance(stage.validation, tuple):
            named += [("validation", source) for source in stage.validation]
    found, problems = [], []
    for role, source in named:
        try:
            found.append({"role": role, "path": source.path, "sha256": fingerprint_file(Path(source.path))["sha256"]})
        except OSError as error:
            problems.append(Problem(file=source.path, field=role, what=f"cannot be read ({error.strerror})"))
    if problems:
        raise RecipeError(problems)
    return found


def _require_apart(names: Sequence[str]) -> None:
    lower = [name.lower() for name in names]
    twice = next((name for name in names if lower.count(name.lower()) > 1), None)
    if twice is not None:
        raise ValueError(f"two rows are called {twice!r}. Give each a name of its own.")


def _shared_rates(base: Mapping[str, Any], name: str, file: str) -> list[Problem]:
    """One rate for every method is no comparison of methods."""
    stages = base.get("stages") if isinstance(base.get("stages"), list) else []
    shared = [place for place, stage in enumerate(stages or ()) if _rate(stage) is not None]
    what = f"is the same for every row, though row {name} may need another"
    mend = "Leave it out: each method begins at its own default. Or give it in the row's `set`."
    return [Problem(file=file, field=f"stages.{place}.optim.learning_rate", what=what, mend=mend) for place in shared]


def _rate(stage: Any) -> Any:
    optim = stage.get("optim") if isinstance(stage, Mapping) else None
    return optim.get("learning_rate") if isinstance(optim, Mapping) else None


def _plain(value: Any) -> Any:
    """What ruamel reads: its numbers and texts are subclasses of Python's own."""
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return dict(value) if isinstance(value, Mapping) else list(value)


def _problem(detail: Mapping[str, Any], values: Any, file: str) -> Problem:
    place = list(detail["loc"])
    field, what, mend = ".".join(map(str, place)), str(detail["msg"]), ""
    if detail["type"] == "extra_forbidden":
        kinds: dict[str, type[Settings]] = {"rows": Row, "search": Search, "scale": Scale}
        kind = kinds.get(str(place[0]), Comparison) if len(place) > 1 else Comparison
        known = list(kind.model_fields)
        close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        what = f"unknown key {str(place[-1])!r}"
        mend = f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."
    elif detail["type"] == "missing":
        what, mend = "is missing", f"Add `{place[-1]}: …`."
    elif detail["type"] == "value_error":
        what, _, mend = what.removeprefix("Value error, ").partition(". ")
    elif detail["type"] == "too_short":
        what, mend = "is too short", "Give it more items."
    elif detail["type"] == "string_pattern_mismatch":
        what, mend = f"{detail['input']!r} is no name for a row", "Use letters, digits, - and _: 40 at most."
    return Problem(file=file, line=line_of(values, place), field=field, what=what, mend=mend)
