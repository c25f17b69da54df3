"""One trial as a process: how long it would be, what it has measured so far, and where it is stopped.

A trial's recipe is that of a whole run, so its schedule is the whole one from the first step: what is measured at a
rung is what the whole run would have measured there. It is stopped by a signal, saves, and goes on bit for bit.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, final

import orjson

from mingshi.directions import is_better_higher
from mingshi.errors import Problem, RecipeError
from mingshi.recipe import Recipe, write_recipe
from mingshi.record import EVALS, RUN, Run, read_run
from mingshi.signals import Asked
from mingshi.workflows.compare_child import Failure
from mingshi.workflows.search_rungs import Trial

RUN_FOLDER, RECIPE_FILE, LOG = "run", "recipe.yaml", "log.txt"
HEAVY = ("checkpoints", "adapter", "model")


class Judge(Protocol):
    """Is told a trial's score at its next rung, None where it has none; says whether it goes on at once."""

    def __call__(self, score: float | None, course: Course) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long the last stage of a whole run is."""

    steps: int
    tokens: int


def folder_of(output: Path, number: int) -> Path:
    return output / "trials" / f"{number:04d}"


def trial_run(recipe: Recipe, *, output: Path, measure: int | None = None) -> Recipe:
    """The recipe as it is carried out in a folder; `measure`: every how many steps its last stage is measured."""
    stages = recipe.stages
    if measure is not None:
        stages = (*stages[:-1], stages[-1].model_copy(update={"evaluate": measure}))
    return recipe.model_copy(update={"stages": stages, "output": str(output)})


def plan_command(file: Path) -> list[str]:
    return [sys.executable, "-m", "mingshi", "plan", str(file), "--json"]


def size_of(recipe: Recipe, *, folder: Path) -> Size:
    """How long a recipe trains, told by `mingshi plan` in a process of its own. Raises Failure where it has no plan."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / RECIPE_FILE
    write_recipe(recipe, file)
    found = subprocess.run(plan_command(file), stdin=subprocess.DEVNULL, capture_output=True, start_new_session=True)
    if found.returncode:
        lines = found.stderr.decode("utf-8", "replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        raise Failure(found.returncode, " ".join(errors or lines[-1:]) or "ended without a word")
    last = orjson.loads(found.stdout)["stages"][-1]
    epoch = max(1, math.ceil(last["samples"] / recipe.stages[-1].batch))
    return Size(steps=last["steps"], tokens=max(1, round(last["tokens"] * last["steps"] / epoch)))


# What a run has measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The validation rows of a run's last stage, measurement after measurement."""

    steps: tuple[int, ...]
    kept: tuple[float, ...]  # what decides which weights the run keeps, turned so that less is better
    values: tuple[float, ...]  # of the metric that trials are told apart by
    measure: str = ""  # on how many rows, and how: the same for trials that can be told apart

    def score_at(self, step: int) -> float | None:
        """The metric at the measurement that the run would keep, were this its last step; None before the first."""
        seen = [(kept, value) for at, kept, value in zip(self.steps, self.kept, self.values, strict=True) if at <= step]
        finite = [pair for pair in seen if all(map(math.isfinite, pair))]
        return min(finite, key=lambda pair: pair[0])[1] if finite else None

    def reached(self, step: int) -> bool:
        return bool(self.steps) and self.steps[-1] >= step


def course_of(run: Run, recipe: Recipe, *, metric: str) -> Course:
    """Raises RecipeError where the metric is not among what the run measures."""
    stages, stage = run.data.get("stages", ()), recipe.stages[-1]
    last, early = len(recipe.stages) - 1, stage.early_stopping
    found = [
        line
        for line in run.evals
        if line["data"] == "validation" and line["stage"] == last and line["kind"] != "divergence" and line["step"] > 0
    ]
    if not stages or not found:
        return Course(steps=(), kept=(), values=())
    headline = str(stages[-1]["headline"])
    watched = early.metric if early is not None and early.metric is not None else headline
    higher = bool(stages[-1]["higher_is_better"]) if watched == headline else is_better_higher(watched)
    known = found[0]["scores"]
    if metric not in known:
        mend = f"Measured are: {', '.join(known)}."
        raise RecipeError(Problem(field="metric", what=f"no {metric!r} is measured on the validation rows", mend=mend))
    sign = -1.0 if higher else 1.0
    return Course(
        steps=tuple(int(line["step"]) for line in found),
        kept=tuple(sign * _number(line["scores"].get(watched)) for line in found),
        values=tuple(_number(line["scores"].get(metric)) for line in found),
        measure=f"{known[metric]['count']} {known[metric]['signature']}",
    )


def _number(score: Mapping[str, Any] | None) -> float:
    value = score["value"] if score is not None else None
    return float(value) if isinstance(value, int | float) else math.nan


def tokens_read(run: Run) -> int:
    """In all stages, by the steps that were taken."""
    return int(sum(step["tokens"] for step in run.steps))


def points_of(run: Run, course: Course, *, stage: int) -> list[tuple[int, float]]:
    """The metric by trained tokens of the last stage."""
    sums: dict[int, int] = {}
    total = 0
    for step in run.steps:
        if step["stage"] == stage:
            total += int(step["tokens"])
            sums[int(step["number"])] = total
    return [(sums[step], value) for step, value in zip(course.steps, course.values, strict=True) if step in sums]


# Stopping it


@final
@dataclass(slots=True)
class Watcher:
    """Says that a trial should stop: because its search does, or because it waits at a rung.

    It is asked as often as a process is looked after, and looks into the run's folder only when that has grown.
    """

    run: Path
    recipe: Recipe
    metric: str
    steps: Sequence[int]  # of the rungs that it has not been judged at, the next one first
    judge: Judge
    stop: Asked
    waits: bool = False  # at a rung
    seen: int = field(default=-1)

    @property
    def requested(self) -> bool:
        if not self.waits:
            self.look()
        return self.waits or self.stop.requested

    def look(self) -> None:
        """Judge whatever rungs the run has passed; the end is judged once the run is over."""
        evals = self.run / EVALS
        size = evals.stat().st_size if evals.is_file() else -1
        if size == self.seen or not (self.run / RUN).is_file():
            return
        self.seen = size
        course = course_of(read_run(self.run), self.recipe, metric=self.metric)
        while len(self.steps) > 1 and not self.waits and course.reached(self.steps[0]):
            if course.score_at(self.steps[0]) is None:
                return  # nothing finite yet: the end will say
            self._judge(course)

    def finish(self, course: Course) -> None:
        """The run is over: every rung that it may be judged at, it has passed."""
        while self.steps and not self.waits:
            self._judge(course)

    def _judge(self, course: Course) -> None:
        place, *rest = self.steps
        self.steps = rest
        self.waits = not self.judge(course.score_at(place), course)


def slim(folder: Path) -> None:
    """Of a trial that is over, the record alone stays."""
    for name in HEAVY:
        shutil.rmtree(folder / RUN_FOLDER / name, ignore_errors=True)


def next_steps(trial: Trial) -> tuple[int, ...]:
    return trial.steps[len(trial.scores) :]
