"""`mingshi skills`: strategies of teaching one model several skills, at one budget of tokens.

count tokens → measure the base → every seed: experts once, then strategies, merges of the experts → the table.

Each training is a process and a folder of its own (compare_child.py); what was trained, merged and measured is kept, so
all goes on where it stopped. Validation rows choose a start; test rows choose nothing.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from mingshi.display import Display, Silent
from mingshi.errors import MingshiError, Preempted, Problem, RecipeError
from mingshi.model.merging_files import merge_folders
from mingshi.provenance import resume_conflicts
from mingshi.record import Run
from mingshi.report.skills import write_skills
from mingshi.signals import Asked, Stop
from mingshi.use import trained_model
from mingshi.workflows.compare_child import Failure, trained
from mingshi.workflows.skills_file import Distillation, Skills, ledger
from mingshi.workflows.skills_measure import Done, Side, headlines, measured, read_done, values, write, write_done
from mingshi.workflows.skills_recipes import (
    Counted,
    Row,
    after_start,
    counted,
    experts,
    merge_of,
    planned,
    recipe_of,
)
from mingshi.workflows.skills_start import chosen
from mingshi.workflows.skills_table import tabulated

RESULT, PLAN = "skills.json", "plan.json"


@dataclass(slots=True, kw_only=True)
class Work:
    """What is being done, and what has been."""

    told: Skills
    counts: Mapping[str, Counted]
    display: Display
    stop: Asked
    total: int
    base: Done = field(default_factory=lambda: Done(test=()))
    named: Mapping[str, str] = field(default_factory=dict)  # by skill, its headline
    found: dict[str, dict[int, Done]] = field(default_factory=dict)  # row -> seed
    starts: dict[int, dict[str, Any]] = field(default_factory=dict)  # by seed
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    code: int = 0  # of the first that failed
    finished: int = 0

    @property
    def folder(self) -> Path:
        return Path(self.told.output)

    def place(self, row: Row, seed: int) -> Path:
        """The run folder of a row."""
        return self.folder / "runs" / row.name / f"seed-{seed}"


def skills(
    told: Skills, *, resume: bool = False, display: Display | None = None, language: str = "en"
) -> dict[str, Any]:
    """Carry all strategies out; what was found is also in `skills.json` and `report.html` of the folder.

    Strategies that fail are told and the others go on; `code` is then the exit code of the first. Raises RecipeError
    where the folder holds something already and `resume` is not asked for, or other files or settings than it began
    with; Preempted where a signal ends it.
    """
    display = display or Silent()
    _claim(told, resume=resume)
    counts = counted(told)
    every = experts(told, counts) if told.needs_experts else []
    rows = planned(told, counts)
    with Stop() as stop:
        total = len(told.seeds) * (len(every) + len(rows))
        work = Work(told=told, counts=counts, display=display, stop=stop, total=total)
        display.say(f"{len(rows)} strategies, {len(every)} experts, {len(told.seeds)} seeds, in {work.folder}")
        _measure_base(work)
        for seed in told.seeds:
            for row in (*every, *rows):
                _carried_out(work, row, seed, every)
    result = tabulated(
        told, counts, [*rows, *every], base=work.base, found=work.found, starts=work.starts, failures=work.failures
    )
    result |= {"folder": told.output, "code": work.code}
    write(work.folder / RESULT, result)
    write_skills(work.folder, result, language=language)
    return result


def _claim(told: Skills, *, resume: bool) -> None:
    """The folder is new, or was begun with the same settings and files."""
    folder = Path(told.output)
    if not resume and folder.is_dir() and any(folder.iterdir()):
        mend = "Go on with it by --resume, or choose another output."
        raise RecipeError(Problem(file=str(folder), field="output", what="is not empty", mend=mend))
    files = {f"{entry['skill']}, {entry['role']}, {entry['path']}": entry["sha256"] for entry in ledger(told)}
    plan = {"settings": told.model_dump(mode="json"), "files": files}
    if (folder / PLAN).is_file():
        if problems := resume_conflicts(orjson.loads((folder / PLAN).read_bytes()), plan):
            raise RecipeError(problems)
        return
    write(folder / PLAN, plan)


def _measure_base(work: Work) -> None:
    file = work.folder / "scores" / "base.json"
    done = read_done(file)
    if done is None:
        work.display.say("The base model is measured")
        sides = measured(work.told, work.told.model, seed=0, sides=("test",), display=work.display)
        done = write_done(file, Done(test=sides["test"]))
    work.base, work.named = done, headlines(work.told, done.test)


def _carried_out(work: Work, row: Row, seed: int, every: Sequence[Row]) -> None:
    """A row under a seed: found done, or trained or merged, and measured."""
    if work.stop.requested:
        raise Preempted("stopped between two strategies", "Go on with --resume.")
    began = time.monotonic()
    file = work.folder / "scores" / row.name / f"seed-{seed}.json"
    try:
        _settle_start(work, row, seed, every)
        done = read_done(file)
        if done is None:
            done = write_done(file, _made(work, row, seed, every))
        work.found.setdefault(row.name, {})[seed] = done
        told = values(done.test, work.named)
        said = ", ".join(f"{name} {value:.3f}" for name, value in told.items())
        if row.kind != "alone" and not work.told.keep_models:
            for name in ("adapter", "model"):
                shutil.rmtree(work.place(row, seed) / name, ignore_errors=True)
    except Preempted:
        raise
    except (Failure, MingshiError) as error:
        code, what = (error.code, error.error) if isinstance(error, Failure) else (error.exit_code, str(error))
        work.code, said = work.code or code, f"failed: {what}"
        work.failures.setdefault(row.name, []).append({"run": f"seed {seed}", "error": what})
    work.finished += 1
    seconds = time.monotonic() - began
    took = f"{seconds:.0f} s" if seconds > 1 else "done earlier"
    work.display.say(f"[{work.finished}/{work.total}] {row.name}, seed {seed}: {said}; {took}")


def _settle_start(work: Work, row: Row, seed: int, every: Sequence[Row]) -> None:
    """Before a row that needs experts: are they all there, and which of them is the best start?"""
    if not row.needs_experts:
        return
    names = [expert.name for expert in every]
    if absent := [name for name in names if seed not in work.found.get(name, {})]:
        raise RecipeError(f"{row.name} needs {', '.join(absent)}, which failed", "Mend that, and go on with --resume.")
    if seed not in work.starts and _chooses(work.told):
        scores = {name.removeprefix("alone-"): values(work.found[name][seed].validation, work.named) for name in names}
        work.starts[seed] = chosen(scores, work.named)


def _chooses(told: Skills) -> bool:
    return any(one.kind == "experts_first" for one in told.strategies)


def _made(work: Work, row: Row, seed: int, every: Sequence[Row]) -> Done:
    """What the row's model takes, and what it does on the test rows."""
    if row.kind == "merge":
        done, model = _merged(work, row, seed, every)
    else:
        done, model = _trained(work, row, seed, every)
    sides: tuple[Side, ...] = ("test", "validation") if row.kind == "alone" and _chooses(work.told) else ("test",)
    found = measured(work.told, model, seed=seed, sides=sides, display=work.display)
    return replace(done, test=found["test"], validation=found.get("validation", ()))


def _trained(work: Work, row: Row, seed: int, every: Sequence[Row]) -> tuple[Done, Path]:
    folder = work.place(row, seed)
    stages, start, beginning = row.stages, None, ""
    if row.kind == "experts_first":
        beginning = work.starts[seed]["chosen"]
        stages = (after_start(work.told, work.counts, row, beginning),)
        start = trained_model(work.folder / "runs" / f"alone-{beginning}" / f"seed-{seed}")
    distillation = row.settings if isinstance(row.settings, Distillation) else None
    recipe = recipe_of(
        work.told,
        work.counts,
        stages,
        seed=seed,
        output=folder,
        start=start,
        teachers=_experts(work, seed, every) if distillation is not None else (),
        distillation=distillation,
    )
    place = f"seed-{seed}"
    run = trained(
        recipe,
        file=work.folder / "recipes" / row.name / f"{place}.yaml",
        log=work.folder / "logs" / row.name / f"{place}.log",
        stop=work.stop,
    )
    tokens = [sum(step["trained"] for step in run.steps if step["stage"] == stage) for stage in range(len(stages))]
    done = Done(
        test=(),
        trained=tokens,
        seconds=sum(step["seconds"] for step in run.steps),
        start=beginning,
        teachers=_taught(run, len(every)) if distillation is not None else (),
    )
    return done, trained_model(folder)


def _taught(run: Run, count: int) -> list[float]:
    """Each teacher's share of the trained tokens."""
    whole = sum(step["trained"] for step in run.steps)
    return [
        sum(step["metrics"].get(f"teacher_{number}", 0.0) * step["trained"] for step in run.steps) / whole
        for number in range(1, count + 1)
    ]


def _experts(work: Work, seed: int, every: Sequence[Row]) -> list[Path]:
    return [trained_model(work.place(expert, seed)) for expert in every]


def _merged(work: Work, row: Row, seed: int, every: Sequence[Row]) -> tuple[Done, Path]:
    """The experts' task vectors, put together; a folder that is there already was made by this."""
    began = time.monotonic()
    folder = work.place(row, seed) / "model"
    truncation = None
    if folder.is_dir():
        shutil.rmtree(folder)  # made, and not measured: its merge takes seconds
    folder.parent.mkdir(parents=True, exist_ok=True)
    how = merge_of(work.told, row, seed)
    truncation = merge_folders(_experts(work, seed, every), folder, how).truncation
    return Done(test=(), seconds=time.monotonic() - began, truncation=truncation), folder
