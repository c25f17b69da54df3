"""Rows besides the test set that a run is measured on again and again, and what may not be measured twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from mingshi.data.formats import DataSource
from mingshi.directions import TEST
from mingshi.errors import Problem, RecipeError
from mingshi.evals import EVALS, Evaluator
from mingshi.objectives import Classify, Contrastive, Dpo, Sft
from mingshi.types import Objective, Settings

HEADLINES = ("accuracy", "prompt_strict", "reward_accuracy", "macro_f1", "rougeL", "nats_per_token")
TAKEN = (TEST, "train", "train-sample", "validation")  # what a run calls its own rows


class Task(Settings):
    """Something that the model should do, or go on doing: measured before the first stage and after every stage.

    What was lost and what was won is told item by item, and with several stages as a matrix of stages and tasks.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")
    data: tuple[DataSource, ...] = Field(min_length=1)
    evals: tuple[Evaluator, ...] = Field(min_length=1)
    stage: int | None = Field(default=None, ge=0)
    """The stage that teaches it, counted from 0; left out: what the model could do before."""
    metric: str | None = None
    """`kind.name` of what stands in the matrix; by default the first of accuracy, ROUGE-L and nats per token that is
    measured, else the first of all."""


def headline(task: Task, measured: Sequence[str]) -> str:
    """The `kind.name` that stands for a task; RecipeError for one that is not measured."""
    if task.metric is not None:
        if task.metric not in measured:
            what = f"task {task.name!r} is to be told by {task.metric!r}, which is not measured"
            raise RecipeError(Problem(field="tasks", what=what, mend=f"Use one of: {', '.join(measured)}."))
        return task.metric
    by_name = {name.partition(".")[2]: name for name in reversed(measured)}
    return next((by_name[name] for name in HEADLINES if name in by_name), measured[0])


def require_names(tasks: Sequence[Task], stages: int) -> None:
    """ValueError for a name that means something else, or two things, and for a stage that is not there."""
    names = [task.name for task in tasks]
    for task in tasks:
        if task.name in (*TAKEN, *EVALS):
            raise ValueError(f"a task cannot be called {task.name!r}: that means something already. Rename it.")
        if names.count(task.name) > 1:
            raise ValueError(f"two tasks are called {task.name!r}. Give each a name of its own.")
        if task.stage is not None and task.stage >= stages:
            raise ValueError(
                f"task {task.name!r}: there is no stage {task.stage}. Stages count from 0 to {stages - 1}."
            )


def refuse_second_readings(ledger: Iterable[Mapping[str, Any]]) -> None:
    """RecipeError where a file that is tested on also trains, or chooses weights or settings: it is read for one end.

    Files are told apart by their contents, so a copy is no way around it.
    """
    chosen = {entry["sha256"]: entry for entry in ledger if entry["role"] in ("train", "validation")}
    problems = []
    for entry in ledger:
        other = chosen.get(entry["sha256"])
        if other is not None and entry["role"] not in ("train", "validation"):
            use = "trained on" if other["role"] == "train" else "what the weights are chosen by"
            what = f"is tested on and also {use} ({other['path']}), so its scores would flatter the model"
            mend = "Keep other rows for the test; a share of the training rows can validate: `validation: 0.05`."
            problems.append(Problem(file=str(entry["path"]), field=str(entry["role"]), what=what, mend=mend))
    if problems:
        raise RecipeError(problems)


def objective_for(task: Task, last: Objective) -> Objective:
    """What encodes a task's rows: the last stage's objective where that fits them, or a plain one of their kind.

    ValueError where evaluators want rows of different kinds, or a classifier's rows meet a language model.
    """
    wanted = [set(evaluator.accepts) for evaluator in task.evals if evaluator.reads == "samples"]
    plain: tuple[Objective, ...] = (Sft(max_length=last.max_length), Dpo(max_length=max(3, last.max_length)))
    for objective in (last, *(() if isinstance(last, Classify | Contrastive) else plain)):
        if all(kinds & set(objective.accepts) for kinds in wanted):
            return objective
    kinds = " and ".join(evaluator.kind for evaluator in task.evals)
    what = f"task {task.name!r}: {kinds} cannot be measured together on rows of a model trained by {last.kind}"
    raise ValueError(f"{what}. Make a task for each kind of rows.")
