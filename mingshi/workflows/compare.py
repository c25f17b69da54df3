"""`mingshi compare`: methods side by side, on the same rows, the same tokens, the same seeds.

search each method's learning rate → train every method under every seed → check that all read as much → the table.

Each run is a process and a folder of its own (see compare_child.py), so a comparison goes on where it stopped. The
search sees validation rows alone; the test set is read by the runs that are told.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from mingshi.display import Display, Silent
from mingshi.errors import Problem, RecipeError
from mingshi.provenance import recordable
from mingshi.recipe import Recipe, Stage
from mingshi.record import Run
from mingshi.report.compare import write_comparison
from mingshi.signals import Asked, Stop
from mingshi.workflows.compare_child import Failure, trained
from mingshi.workflows.compare_search import Try, chosen
from mingshi.workflows.compare_table import tabulated
from mingshi.workflows.comparison import Method, Plan

RESULT = "comparison.json"
LEAST = 1e-3  # seconds: what a run that was done already takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run: whose it is, and how long it is beside a whole one."""

    method: Method
    label: str  # of the folder and of the line
    share: float
    factor: float | None = None  # of a try of the search
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class Progress:
    """What has been done and what it took."""

    total: int
    work: float  # whole runs in all
    display: Display
    done: int = 0
    spent: dict[str, tuple[float, float]] = field(default_factory=dict)  # method -> (whole runs, seconds) of runs made
    left: dict[str, float] = field(default_factory=dict)  # method -> whole runs

    def note(self, job: Job, seconds: float, said: str) -> None:
        """One job is done: a line, with the time left by what the method's runs, or all, have taken."""
        self.done += 1
        name = job.method.name
        self.left[name] -= job.share
        if seconds > 1:
            work, before = self.spent.get(name, (0.0, 0.0))
            self.spent[name] = (work + job.share, before + seconds)
        took = f"{seconds:.0f} s" if seconds > 1 else "done earlier"
        self.display.say(f"[{self.done}/{self.total}] {name}, {job.label}: {said}; {took}{self._remaining()}")

    def _remaining(self) -> str:
        work = sum(work for work, _ in self.spent.values())
        if self.done == self.total or not work:
            return ""
        usual = sum(seconds for _, seconds in self.spent.values()) / work
        rates = {name: seconds / work for name, (work, seconds) in self.spent.items()}
        seconds = sum(left * rates.get(name, usual) for name, left in self.left.items())
        return f", about {max(1, round(seconds / 60))} min left"


@dataclass(slots=True, kw_only=True)
class Found:
    """What all runs came to."""

    runs: dict[str, dict[int, Run]] = field(default_factory=dict)  # method -> seed
    tries: dict[str, list[Try]] = field(default_factory=dict)
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    code: int = 0  # of the first run that failed


def compare(
    plan: Plan, *, resume: bool = False, display: Display | None = None, language: str = "en"
) -> dict[str, Any]:
    """Carry a comparison out; what it found is also in `comparison.json` and `report.html` of its folder.

    Runs that fail are told and the others go on; `code` is then the exit code of the first. Raises RecipeError where
    the folder holds a comparison already and `resume` is not asked for, Preempted where a signal ends it.
    """
    display = display or Silent()
    _claim(plan.output, resume=resume)
    found = Found()
    jobs = _jobs(plan)
    progress = Progress(total=len(jobs), work=sum(job.share for job in jobs), display=display)
    for job in jobs:
        progress.left[job.method.name] = progress.left.get(job.method.name, 0.0) + job.share
    display.say(f"{len(plan.methods)} methods, {len(jobs)} runs, in {plan.output}")
    with Stop() as stop:
        for job in jobs:
            _carried_out(plan, job, found, progress, stop)
    display.say("All runs are done: now the tests")
    told = tabulated(plan, runs=found.runs, tries=found.tries, failures=found.failures)
    told |= {"folder": str(plan.output), "code": found.code}
    written = orjson.dumps(recordable(told), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    draft = plan.output / f".{RESULT}.new"
    draft.write_bytes(written)
    draft.replace(plan.output / RESULT)
    write_comparison(plan.output, told, language=language)
    return told


def _claim(folder: Path, *, resume: bool) -> None:
    if not resume and folder.is_dir() and any(folder.iterdir()):
        mend = "Go on with it by --resume, or choose another output."
        raise RecipeError(Problem(file=str(folder), field="output", what="is not empty", mend=mend))
    folder.mkdir(parents=True, exist_ok=True)


def _jobs(plan: Plan) -> list[Job]:
    """The searches first; then seed by seed, so that what a machine does by the hour meets all methods alike."""
    jobs = []
    if plan.search is not None:
        for method in plan.methods:
            for factor in plan.search.rates if not method.tuned_as else ():
                jobs.append(
                    Job(
                        method=method,
                        label=f"search x{factor:g}",
                        share=plan.search.share,
                        factor=factor,
                        seed=plan.search.seed,
                    )
                )
    return jobs + [
        Job(method=method, label=f"seed {seed}", share=1.0, seed=seed) for seed in plan.seeds for method in plan.methods
    ]


def _carried_out(plan: Plan, job: Job, found: Found, progress: Progress, stop: Asked) -> None:
    began, name = time.monotonic(), job.method.name
    rates = _rates(plan, job, found)
    if rates is None:
        said = "left out, for no learning rate could be found"
        found.failures.setdefault(name, []).append({"run": job.label, "error": said})
    else:
        said = _run(plan, job, rates, found, stop)
    progress.note(job, time.monotonic() - began, said)


def _rates(plan: Plan, job: Job, found: Found) -> list[float] | None:
    """The learning rate of each stage; None where the search found none."""
    first = job.method.rates()
    if job.factor is not None:
        return [rate * job.factor for rate in first]
    if plan.search is None:
        return first
    best = chosen(found.tries[job.method.searched])
    return None if best is None else [rate * best.factor for rate in first]


def _run(plan: Plan, job: Job, rates: Sequence[float], found: Found, stop: Asked) -> str:
    """Train, keep the record, and say what came of it."""
    name, trying = job.method.name, job.factor is not None
    place = f"rate-{job.factor:g}" if trying else f"seed-{job.seed}"
    folder = plan.output / ("search" if trying else "runs") / name / place
    recipe = _set(job.method.recipe, rates=rates, seed=job.seed, output=folder)
    if trying and plan.search is not None:
        recipe = _shortened(recipe, plan.search.share)
    told = plan.output / "recipes" / name / f"{place}.yaml"
    log = plan.output / "logs" / name / f"{place}.log"
    run, error = None, ""
    try:
        run = trained(recipe, file=told, log=log, stop=stop, slim=trying)
    except Failure as failure:
        found.code, error = found.code or failure.code, failure.error
        found.failures.setdefault(name, []).append({"run": job.label, "error": error})
    if job.factor is not None:
        one = Try.of(run, factor=job.factor, rate=rates[-1], error=error)
        found.tries.setdefault(name, []).append(one)
        return f"failed: {error}" if run is None else f"learning rate {one.rate:.3g}, validation {one.told()}"
    if run is None:
        return f"failed: {error}"
    found.runs.setdefault(name, {})[job.seed] = run
    return _headline(run)


def _headline(run: Run) -> str:
    after = {key: value for key, value in run.run["scores"].items() if key.startswith("test.")}
    return ", ".join(f"{key.removeprefix('test.')} {value:.4f}" for key, value in list(after.items())[:2]) or "done"


def _set(recipe: Recipe, *, rates: Sequence[float], seed: int, output: Path) -> Recipe:
    stages = tuple(
        stage.model_copy(update={"optim": stage.optim.model_copy(update={"learning_rate": float(f"{rate:.6g}")})})
        for stage, rate in zip(recipe.stages, rates, strict=True)
    )
    return recipe.model_copy(update={"stages": stages, "seed": seed, "output": str(output)})


def _shortened(recipe: Recipe, share: float) -> Recipe:
    """A try of the search: a part of the steps, and nothing that is tested on."""
    stages = tuple(stage.model_copy(update=_length(stage, share)) for stage in recipe.stages)
    return recipe.model_copy(update={"stages": stages, "test": (), "tasks": ()})


def _length(stage: Stage, share: float) -> dict[str, Any]:
    if stage.steps is not None:
        return {"steps": max(1, round(stage.steps * share))}
    return {"epochs": (stage.epochs or 1.0) * share}
