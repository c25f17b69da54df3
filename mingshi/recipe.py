"""The recipe: everything that a run is told. A value; YAML is its text form.

Each part is defined next to the code that reads it; this file only joins them, and turns every mistake found into one
line with its place and its mend.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator

from mingshi.continual import Gate, Hold, Rehearsal, require_lessons
from mingshi.data.formats import DataSource
from mingshi.errors import Problem, RecipeError
from mingshi.evals import EVALS, Evaluator
from mingshi.evals.scoring import TextMetric
from mingshi.model.adapters import ADAPTERS, Adapter, Lora
from mingshi.objectives import Classify, Contrastive, Distill, Dpo, Sft
from mingshi.optim import Optim
from mingshi.tasks import Task, objective_for, require_names
from mingshi.types import Example, Settings
from mingshi.yaml_text import apply, dump, line_of, load

LARGEST = 2**53  # beyond it a float skips whole numbers
SHOULD = "Input should be "  # pydantic's sentences begin so

Objective = Annotated[Classify | Contrastive | Distill | Dpo | Sft, Field(discriminator="kind")]


class EarlyStopping(Settings):
    """End a stage once what is watched on the validation rows has stopped getting better.

    A measurement counts as better if it is ahead of the last one that counted by more than `min_delta`; the first one
    after training has begun always counts. After `patience` measurements in a row that do not count, the stage ends.
    The weights that are kept are those of the best measurement, by however little it leads.
    """

    metric: str | None = None
    """What is watched: a metric that the objective measures; by default its headline, nats per token for `sft`."""
    patience: int = Field(default=3, ge=1)
    min_delta: float = Field(default=0.0, ge=0)
    """In the metric's own unit."""


class Stage(Settings):
    """One training run over one set of data; the next stage goes on from its weights."""

    data: tuple[DataSource, ...] = Field(min_length=1)
    validation: tuple[DataSource, ...] | Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Files, or the share of `data` (by group) that is held out; 0: none."""
    objective: Objective = Sft()
    adapter: Adapter = Lora()
    optim: Optim = Optim()
    batch: int = Field(default=16, ge=1)
    """Examples per optimiser step, always exact."""
    epochs: float | None = Field(default=None, gt=0)
    """How often the data is gone through; 1 where neither this nor `steps` is given."""
    steps: int | None = Field(default=None, ge=1)
    evaluate: Literal["epoch"] | Annotated[int, Field(ge=1)] = "epoch"
    """When the validation score is measured: after every epoch, or every so many steps."""
    early_stopping: EarlyStopping | None = None
    checkpoint: int = Field(default=50, ge=1)
    """Steps between checkpoints; one is also kept whenever the validation score is measured, and at the end."""
    shard: Literal["auto", "never", "always"] = "auto"
    """Whether several processes share out a frozen base (sharding.py); auto: where it does not fit into one."""
    rehearsal: Rehearsal | None = None
    """Rows of earlier stages that are mixed into this one's."""
    hold: Hold | None = None
    """What keeps the weights, or what the model says, near to how the stage before left them."""
    gate: Gate | None = None
    """What a task may lose by this stage before its weights are put back."""

    @field_validator("objective", mode="before")
    @classmethod
    def _plain_unless_said(cls, value: Any) -> Any:
        """An objective without a kind is plain fine-tuning."""
        return {"kind": "sft", **value} if isinstance(value, Mapping) else value

    def default_learning_rate(self) -> tuple[float, str]:
        """What trains where `optim.learning_rate` is not given, and why."""
        rate, reason = self.adapter.default_learning_rate()
        if isinstance(self.objective, Dpo):
            return rate / 10, f"{reason}; preferences want a tenth of that"
        return rate, reason

    @model_validator(mode="after")
    def _one_length(self) -> Stage:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("epochs and steps are both given. Keep one of them.")
        if self.early_stopping is not None and self.validation == 0:
            raise ValueError("early_stopping needs a validation set. Give `validation` a share or files.")
        return self


def _default_evals(values: Mapping[str, Any]) -> tuple[Any, ...]:
    accepted = values["stages"][-1].objective.accepts
    fitting = next((kind for kind in EVALS.values() if set(kind.accepts) & set(accepted)), None)
    return (fitting(),) if fitting is not None else ()


class Recipe(Settings):
    """A run, whole."""

    model: str = Field(min_length=1)
    """A known name, a folder, or a name on the Hub."""
    output: str
    """The run folder."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    template: Literal["auto", "own", "turns", "zh-instruction", "alpaca"] = "auto"
    """auto: the model's own, or `turns` where it has none; or a name: zh-instruction, alpaca, turns."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """What the network computes in; what trains has float32 masters whatever this says."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    stream: Literal["auto"] | Annotated[int, Field(ge=128)] = 4096
    """Tokens of one packed stream: more is faster, and takes more memory. It does not change the result.

    auto: as many as fit into the memory that is free, and no more than make it faster.
    """
    stages: tuple[Stage, ...] = Field(min_length=1)
    test: tuple[DataSource, ...] = ()
    """Read twice: before the first stage and after the last, and by nothing else."""
    evals: tuple[Evaluator, ...] = Field(default_factory=_default_evals)
    """What is measured on the test set; by default the first that fits the rows of the last stage's objective."""
    tasks: tuple[Task, ...] = ()
    """What else is measured, before the first stage and after every stage: what a model forgets shows here."""
    keep: int = Field(default=1, ge=1)
    """Checkpoints kept besides the best."""

    @property
    def budget(self) -> int:
        """Tokens of one stream, once they are a number."""
        assert self.stream != "auto", "settled"
        return self.stream

    @model_validator(mode="after")
    def _one_network(self) -> Recipe:
        _shared_head(self.stages)
        require_lessons(self.stages, tasks=len(self.tasks))
        if isinstance(self.stages[0].objective, Classify | Contrastive) and self.template != "auto":
            raise ValueError("texts are read as they are, without turns. Leave `template` out.")
        return self

    @field_validator("tasks")
    @classmethod
    def _tell_tasks_apart(cls, tasks: tuple[Task, ...], info: ValidationInfo) -> tuple[Task, ...]:
        if "stages" in info.data:
            require_names(tasks, len(info.data["stages"]))
            for task in tasks:
                objective_for(task, info.data["stages"][-1].objective)
        return tasks

    @field_validator("evals")
    @classmethod
    def _fit_the_test_rows(cls, evals: tuple[Evaluator, ...], info: ValidationInfo) -> tuple[Evaluator, ...]:
        """The test set holds rows of the last stage's kind: an evaluator of others would have nothing to measure."""
        if "stages" not in info.data:
            return evals
        objective = info.data["stages"][-1].objective
        for evaluator in evals:
            if not set(evaluator.accepts) & set(objective.accepts):
                scored, held = (_names(kinds) for kinds in (evaluator.accepts, objective.accepts))
                fitting = [name for name, kind in EVALS.items() if set(kind.accepts) & set(objective.accepts)]
                mend = f"Use {' or '.join(fitting)}." if fitting else "Leave evals empty: `evals: []`."
                what = f"{evaluator.kind} scores {scored} rows, and the objective {objective.kind} is tested on {held}"
                raise ValueError(f"{what}. {mend}")
        return evals


def _shared_head(stages: Sequence[Stage]) -> None:
    """Stages train one network: a head of classes is no head of words, and a class is what it was."""
    pairs = [stage.objective for stage in stages if isinstance(stage.objective, Contrastive)]
    if pairs and (len(pairs) < len(stages) or len({(one.vision, one.width, one.form) for one in pairs}) > 1):
        what = "stages share both towers and their space: all must be contrastive, with one vision, width and form"
        raise ValueError(f"{what}. Make two recipes: the second's `model` is what the first saved.")
    heads = [stage.objective for stage in stages if isinstance(stage.objective, Classify)]
    if heads and len(heads) < len(stages):
        what = "classify and another objective in one recipe need different heads"
        raise ValueError(f"{what}. Make two recipes: the second's `model` is what the first saved.")
    if len({(one.problem, one.labels, one.pooling) for one in heads}) > 1:
        raise ValueError("stages share one head: give all the same problem, labels and pooling. Or leave them out.")


def _names(kinds: Sequence[type[Example]]) -> str:
    return " or ".join(kind.__name__ for kind in kinds)


def parse(values: Mapping[str, Any], *, file: str = "recipe") -> Recipe:
    """A Recipe from plain values; RecipeError lists every mistake, each with its line where the text had one."""
    problems = []
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        known = [detail for detail in error.errors() if detail["type"] != "default_factory_not_called"]
        problems = _problems(known, values, file)
    told = {problem.field for problem in problems}
    endless = [_out_of_range(place, values, file) for place in _endless(values)]
    if problems := problems + [problem for problem in endless if problem.field not in told]:
        raise RecipeError(sorted(problems, key=lambda problem: problem.line or 0))
    return recipe


def _problems(details: Sequence[Any], values: Any, file: str) -> list[Problem]:
    """One problem for each place: what the branches of a union say of the same value is one mistake."""
    found: dict[str, list[Problem]] = {}
    places = [_place(detail) for detail in details]
    for detail, place in zip(details, places, strict=True):
        deeper = any(other[: len(place)] == place and len(other) > len(place) for other in places)
        if deeper and (_is_union_label(detail["loc"][-1]) or detail["type"] == "too_short"):
            continue  # another branch fits, or the list's items were wrong, which is said already
        problem = _problem(detail, place, values, file)
        found.setdefault(problem.field, []).append(problem)
    return [_joined(problems) for problems in found.values()]


def _joined(problems: Sequence[Problem]) -> Problem:
    first, *others = problems
    return replace(first, what=" or ".join([first.what, *(each.what.removeprefix(SHOULD) for each in others)]))


def _endless(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of numbers that nothing can be counted or multiplied by."""
    pairs = values.items() if isinstance(values, Mapping) else enumerate(values) if isinstance(values, list) else ()
    for key, value in pairs:
        if isinstance(value, int | float) and not abs(value) <= LARGEST:
            yield (*place, key)
        yield from _endless(value, (*place, key))


def _out_of_range(place: Sequence[Any], values: Any, file: str) -> Problem:
    what = "is not a number that can be used"
    return Problem(file=file, line=line_of(values, place), field=".".join(map(str, place)), what=what)


def read_recipe(path: str | Path, *, sets: Sequence[str] = ()) -> Recipe:
    """Read YAML 1.2, apply `a.b=c` overrides, validate."""
    values = load(Path(path))
    apply(values, sets)
    return parse(values, file=str(path))


def write_recipe(recipe: Recipe, path: Path) -> None:
    dump(recipe.model_dump(mode="json"), path)


def _place(detail: Mapping[str, Any]) -> list[Any]:
    return [key for key in detail["loc"] if not _is_union_label(key)]


def _problem(detail: Mapping[str, Any], place: Sequence[Any], values: Any, file: str) -> Problem:
    field = ".".join(map(str, place))
    if detail["type"] == "extra_forbidden":
        what = f"unknown key {str(place[-1])!r}"
        mend = _nearest(str(place[-1]), _fields(place[:-1], values))
    elif detail["type"] == "missing":
        what, mend = "is missing", "" if isinstance(place[-1], int) else f"Add `{place[-1]}: …`."
    elif detail["type"] == "value_error":
        what, _, mend = str(detail["msg"]).removeprefix("Value error, ").partition(". ")
    elif detail["type"] in ("too_short", "string_too_short"):
        what, mend = "is empty", "Give it at least one item." if detail["type"] == "too_short" else "Name one."
    elif detail["type"] == "union_tag_not_found":
        kinds = ADAPTERS if "adapter" in place else EVALS
        what, mend = "has no `kind`", f"Give it one of {', '.join(kinds)}."
    elif detail["type"] == "union_tag_invalid":
        tag, known = str(detail["ctx"]["tag"]), str(detail["ctx"]["expected_tags"])
        close = difflib.get_close_matches(tag, known.replace("'", "").split(", "), n=1, cutoff=0.65)
        what, mend = f"there is no kind {tag!r}", f"Did you mean {close[0]!r}?" if close else f"Known are {known}."
        if tag in get_args(TextMetric) and "generation" in known:
            mend = f"It is a metric of answers: {{kind: generation, metrics: [{tag}]}}."
    else:
        what = str(detail["msg"]).replace("a valid tuple", "a list").replace("a valid dictionary", "keys and values")
        mend = f"Not {str(detail['input'])[:40]!r}." if isinstance(detail["input"], str | int | float) else ""
    return Problem(file=file, line=line_of(values, place), field=field, what=what, mend=mend)


def _is_union_label(key: Any) -> bool:
    """pydantic puts the branch of a union into an error's place: no key of ours has these forms."""
    return isinstance(key, str) and (key in _BRANCHES or "[" in key)


_BRANCHES = {*ADAPTERS, "classify", "contrastive", "distill", "dpo", "sft", *EVALS}
_BRANCHES |= {"float", "int", "constrained-int", "constrained-float"}


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else f"Known keys: {', '.join(known)}."


def _fields(place: Sequence[Any], values: Any) -> list[str]:
    """The keys that are known where an unknown one was found."""
    models: list[type[BaseModel]] = [Recipe]
    for key in place:
        if isinstance(key, int):
            values = values[key] if isinstance(values, list) and key < len(values) else None
            continue
        annotations = [model.model_fields[key].annotation for model in models if key in model.model_fields]
        models = [found for annotation in annotations for found in _models(annotation)]
        values = values.get(key) if isinstance(values, Mapping) else None
    kind = values.get("kind") if isinstance(values, Mapping) else None
    of_kind = [model for model in models if "kind" in model.model_fields and model.model_fields["kind"].default == kind]
    return sorted({name for model in of_kind or models for name in model.model_fields})


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):  # unions, tuples and annotated types share only this attribute
        yield from _models(inner)
