"""`mingshi search`: try recipes around one, stop the poor ones early, and prove the best.

open the folder → say where trials are judged → each worker: go on with a trial, or begin one → run the best again under
new seeds, whole → the table, the page, the best recipe.

A worker is a thread that looks after one process at a time; other processes of the same command may work beside it.
What must be agreed on is read and written with the study held (search_study.py). Trials see validation rows alone.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from mingshi.display import Display, Silent
from mingshi.errors import (
    MingshiError,
    Preempted,
)
from mingshi.provenance import recordable
from mingshi.recipe import Recipe
from mingshi.report.search import write_search
from mingshi.signals import Stop
from mingshi.workflows.compare_child import Failure, trained
from mingshi.workflows.search_again import Rerun, repeat, reruns, write_best
from mingshi.workflows.search_file import SearchPlan, trial_recipe
from mingshi.workflows.search_opening import ERRORS, length, opened, rungs_of
from mingshi.workflows.search_rungs import Trial, rung_steps, settled
from mingshi.workflows.search_sampler import suggest
from mingshi.workflows.search_study import Study, take
from mingshi.workflows.search_table import tabulated, told_score
from mingshi.workflows.search_trial import (
    LOG,
    RECIPE_FILE,
    RUN_FOLDER,
    Course,
    Watcher,
    course_of,
    folder_of,
    next_steps,
    slim,
    trial_run,
)

RESULT = "search.json"
LOOK = 0.5  # seconds between two looks at whether there is something to do
HOPELESS = 3  # trials that failed, and none that did not
PREEMPTED = 75


class Unlike(Exception):
    """A trial whose validation rows are not those of the others."""


@dataclass(slots=True)
class Halt:
    """Asked for by a signal, or because a worker met an error."""

    signal: Stop
    broken: bool = False

    @property
    def requested(self) -> bool:
        return self.signal.requested or self.broken


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """What the workers of one process share."""

    plan: SearchPlan
    study: Study
    rungs: tuple[int, ...]  # tokens of the last stage
    stop: Halt
    display: Display
    voice: threading.Lock = field(default_factory=threading.Lock)

    def say(self, text: str) -> None:
        with self.voice:
            self.display.say(text)


@dataclass(frozen=True, slots=True)
class Job:
    """Something to train, and its claim."""

    what: Trial | Rerun
    claim: int


def search(
    plan: SearchPlan,
    *,
    workers: int = 1,
    resume: bool = False,
    display: Display | None = None,
    language: str = "en",
) -> dict[str, Any]:
    """Carry a search out, or join one; what it found is also in `search.json`, `report.html` and `best.yaml`.

    A trial that fails is told and the others go on. Raises RecipeError where nobody works on the search that
    the folder holds and `resume` is not asked for, or where it is another one; Preempted where a signal ends it.
    """
    display = display or Silent()
    study, attending = opened(plan, resume=resume)
    try:
        with Stop() as signal, threads(workers):
            rungs = rungs_of(plan, study, display)
            team = Team(plan=plan, study=study, rungs=rungs, stop=Halt(signal), display=display)
            _together(team, workers)
            if team.stop.requested:
                raise Preempted("stopped in the middle of a search", "Go on with --resume.")
        with study.held():
            told = tabulated(plan, study.trials(), facts=study.facts(), rungs=team.rungs)
            _write(plan, told, language)
    finally:
        os.close(attending)
    return told


def _write(plan: SearchPlan, told: dict[str, Any], language: str) -> None:
    written = orjson.dumps(recordable(told), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    draft = plan.output / f".{RESULT}.new"
    draft.write_bytes(written)
    draft.replace(plan.output / RESULT)
    write_best(plan, told)
    write_search(plan.output, told, language=language)


# Workers


@contextmanager
def threads(workers: int) -> Iterator[None]:
    """While open, processes that are started share the processor's cores out."""
    name = "OMP_NUM_THREADS"
    before = os.environ.get(name)
    cores = int(before) if before and before.isdecimal() else len(os.sched_getaffinity(0))
    os.environ[name] = str(max(1, cores // workers))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _together(team: Team, workers: int) -> None:
    """All workers, until nothing is left; the first error of one ends them all and is raised."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _work(team)
        except BaseException as error:
            errors.append(error)
            team.stop.broken = True

    crew = [threading.Thread(target=work) for _ in range(workers)]
    for one in crew:
        one.start()
    for one in crew:
        while one.is_alive():
            one.join(0.2)  # a signal is heard between two waits
    if errors:
        raise errors[0]


def _work(team: Team) -> None:
    while not team.stop.requested:
        job, over = _next(team)
        if job is None:
            if over:
                return
            time.sleep(LOOK)
            continue
        try:
            if isinstance(job.what, Trial):
                _try(team, job.what, job.claim)
            else:
                said = repeat(team.plan, team.study, job.what, team.stop, job.claim)
                team.say(f"{job.what.label}: {said}")
        finally:
            os.close(job.claim)
            _sweep(team)


def _next(team: Team) -> tuple[Job | None, bool]:
    """What to train now, if anything; and is everything done, by whomever?"""
    plan, study = team.plan, team.study
    with study.held():
        trials = _settle(team)
        _refuse_hopeless(trials)
        for trial in sorted(trials, key=lambda one: (-one.target, one.number)):
            if trial.wanted and (claim := take(folder_of(plan.output, trial.number))) is not None:
                return Job(trial, claim), False
        if len(trials) < plan.trials:
            trial = study.begin(_point(plan, trials))
            claim = take(folder_of(plan.output, trial.number))
            assert claim is not None, "new"
            return Job(trial, claim), False
        if any(trial.state == "open" for trial in trials):
            return None, False
        left = reruns(plan, trials, facts=study.facts())
        for rerun in left:
            if (claim := take(rerun.folder)) is not None:
                return Job(rerun, claim), False
    return None, not left


def _point(plan: SearchPlan, trials: list[Trial]) -> dict[str, Any]:
    """The recipe as it stands first, where it lies in the space; then what the sampler says."""
    start = plan.space.start(plan.base)
    if start is not None and not trials:
        return dict(start)
    told = plan.told
    point = suggest(plan.space, trials, number=len(trials), seed=told.seed, kind=told.sampler, higher=plan.higher)
    assert point is not None, "no more trials than points"
    return dict(point)


def _settle(team: Team) -> list[Trial]:
    """With the study held: let go on what may, end what never will; the trials as they stand then."""
    trials = team.study.trials()
    pruning = team.plan.told.pruning
    if pruning is None:
        return trials
    planned = max(team.plan.trials, len(trials))
    promoted, pruned = settled(trials, planned=planned, factor=pruning.factor, higher=team.plan.higher)
    for number in promoted:
        team.study.tell(number, {"target": trials[number].target + 1})
    for number in pruned:
        team.study.end(number, "pruned")
    return _settle(team) if promoted or pruned else trials


def _refuse_hopeless(trials: list[Trial]) -> None:
    if len(trials) >= HOPELESS and all(trial.state == "failed" for trial in trials):
        last = trials[-1]
        what = f"the first {len(trials)} trials have all failed, the last by: {last.reason}"
        raise ERRORS.get(last.code, MingshiError)(what, "Train the recipe by itself first.")


def _sweep(team: Team) -> None:
    """Of trials that are over, and that nobody looks after, the record alone stays."""
    with team.study.held():
        ended = [trial.number for trial in team.study.trials() if trial.state in ("pruned", "failed")]
    for number in ended:
        folder = folder_of(team.plan.output, number)
        if (claim := take(folder)) is not None:
            slim(folder)
            os.close(claim)


def _try(team: Team, trial: Trial, claim: int) -> None:
    """Train a trial until it waits at a rung, or is done, or fails."""
    plan, folder = team.plan, folder_of(team.plan.output, trial.number)
    run, recipe = folder / RUN_FOLDER, trial_recipe(plan.recipe_at(trial.point))
    try:
        trial = trial if trial.steps else _sized(team, trial, recipe.model_copy(update={"output": str(run)}), folder)
        recipe = trial_run(recipe, output=run, measure=plan.measured_every(trial.steps))
        watcher = Watcher(
            run=run,
            recipe=recipe,
            metric=plan.metric,
            steps=next_steps(trial),
            judge=lambda score, course: _judged(team, trial.number, score, course),
            stop=team.stop,
        )
        record = trained(recipe, file=folder / RECIPE_FILE, log=folder / LOG, stop=watcher, slim=True, held=(claim,))
        watcher.finish(course_of(record, recipe, metric=plan.metric))
    except Preempted:
        return  # it waits, or the search stops: either way it goes on later
    except Failure as failure:
        _failed(team, trial, failure.code, failure.error)
    except Unlike as error:
        _failed(team, trial, 0, str(error))


def _sized(team: Team, trial: Trial, recipe: Recipe, folder: Path) -> Trial:
    """With the steps of its last stage at which it is judged."""
    size = length(team.study, recipe, folder)
    steps = rung_steps(steps=size.steps, budget=size.tokens, rungs=team.rungs)
    with team.study.held():
        team.study.trials()
        team.study.tell(trial.number, {"steps": list(steps), "budget": size.tokens})
    return replace(trial, steps=steps, budget=size.tokens)


def _judged(team: Team, number: int, score: float | None, course: Course) -> bool:
    """Put a score down; does the trial go on at once?"""
    study, plan = team.study, team.plan
    with study.held():
        trial = study.trial(number)
        known = study.facts().setdefault("measure", course.measure)
        if known != course.measure:
            raise Unlike(f"it was measured otherwise than the trials before it: {course.measure}, not {known}")
        if score is None:
            raise Unlike("no validation score of it is a number")
        study.note("measure", known)
        rung = len(trial.scores)
        study.judge(number, tokens=team.rungs[rung], score=score)
        if rung == len(team.rungs) - 1:
            study.end(number, "done", score)
        _settle(team)
        trial = study.trial(number)
        count = sum(bool(one.scores) or one.state == "failed" for one in study.trials())
    what = {"done": "whole", "pruned": "pruned"}.get(trial.state, "waits" if trial.waits else "goes on")
    place = f"{team.rungs[rung]:,} tokens"
    team.say(f"[{count}/{plan.trials}] trial {number}: {told_score(plan.metric, score)} at {place}; {what}")
    return trial.wanted


def _failed(team: Team, trial: Trial, code: int, error: str) -> None:
    """Put down why; one whose process was ended from outside is taken again, once."""
    outside = code < 0 or code == PREEMPTED
    with team.study.held():
        team.study.trials()
        if outside and not trial.killed:
            team.study.tell(trial.number, {"killed": 1})
        else:
            team.study.tell(trial.number, {"reason": error, "code": code})
            team.study.end(trial.number, "failed")
    team.say(f"trial {trial.number}: {'will be taken again' if outside and not trial.killed else 'failed'}: {error}")
