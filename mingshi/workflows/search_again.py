"""The best trials again, whole and under new seeds; and the best of them as a recipe that is ready to run.

The winner of a search was also lucky: it is the best of many, by the very score that it is told by. What it is worth is
what it comes to under seeds that had no part in choosing it; and the test rows are read by these runs alone.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mingshi.record import RUN, Run, read_run
from mingshi.resume import finished
from mingshi.signals import Asked
from mingshi.workflows.compare_child import Failure, trained
from mingshi.workflows.search_file import SearchPlan
from mingshi.workflows.search_rungs import Trial, best_first
from mingshi.workflows.search_space import written
from mingshi.workflows.search_study import Study
from mingshi.workflows.search_trial import LOG, RECIPE_FILE, RUN_FOLDER, course_of, trial_run
from mingshi.yaml_text import apply

BEST = "best.yaml"
FAILED = "again.{number}.{seed}"  # the study's note of a run that failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """One of the best trials under a new seed."""

    trial: Trial
    seed: int
    folder: Path

    @property
    def label(self) -> str:
        return f"trial {self.trial.number} again, seed {self.seed}"

    @property
    def run(self) -> Path:
        return self.folder / RUN_FOLDER

    @property
    def failure(self) -> str:
        """The name of the study's note, where it failed."""
        return FAILED.format(number=self.trial.number, seed=self.seed)

    def over(self) -> bool:
        return (self.run / RUN).is_file() and read_run(self.run).status == "done"


def all_reruns(plan: SearchPlan, trials: Sequence[Trial]) -> list[Rerun]:
    """Seed by seed, the best trial first."""
    again = plan.told.again
    if again is None:
        return []
    best = best_first(trials, higher=plan.higher)[: again.trials]
    return [
        Rerun(trial=trial, seed=seed, folder=plan.output / "again" / f"trial-{trial.number:04d}" / f"seed-{seed}")
        for seed in again.seeds
        for trial in best
    ]


def reruns(plan: SearchPlan, trials: Sequence[Trial], *, facts: Mapping[str, Any]) -> list[Rerun]:
    """Those that are still to be made."""
    return [one for one in all_reruns(plan, trials) if one.failure not in facts and not one.over()]


def repeat(plan: SearchPlan, study: Study, rerun: Rerun, stop: Asked, claim: int) -> str:
    """Train it, or go on with it; says what came of it. Raises Preempted where `stop` is asked for."""
    recipe = plan.recipe_at(rerun.trial.point).model_copy(update={"seed": rerun.seed})
    recipe = trial_run(recipe, output=rerun.run, measure=plan.measured_every(rerun.trial.steps))
    try:
        run = trained(recipe, file=rerun.folder / RECIPE_FILE, log=rerun.folder / LOG, stop=stop, held=(claim,))
    except Failure as failure:
        with study.held():
            study.note(rerun.failure, failure.error)
        return f"failed: {failure.error}"
    score = final_score(plan, run, rerun.trial)
    return f"{plan.metric.replace('_', ' ')} {score:.4f}" if score is not None else "no score"


def final_score(plan: SearchPlan, run: Run, trial: Trial) -> float | None:
    """Of the validation rows, at the weights that the run kept."""
    return course_of(run, plan.recipe_at(trial.point), metric=plan.metric).score_at(trial.steps[-1])


def runs_again(plan: SearchPlan, trials: Sequence[Trial]) -> dict[int, dict[int, Run]]:
    """The records of the best trials' runs, by trial and seed."""
    found: dict[int, dict[int, Run]] = {}
    for rerun in all_reruns(plan, trials):
        recipe = plan.recipe_at(rerun.trial.point).model_copy(update={"seed": rerun.seed})
        values = trial_run(recipe, output=rerun.run, measure=plan.measured_every(rerun.trial.steps)).model_dump(
            mode="json"
        )
        run = finished(rerun.run, values)
        of_trial = found.setdefault(rerun.trial.number, {})
        if run is not None:
            of_trial[rerun.seed] = run
    return found


def write_best(plan: SearchPlan, told: Mapping[str, Any]) -> None:
    """The best recipe as it was written, with what was found set in it, and above it what it is."""
    best = told["best"]
    if best is None:
        return
    tree = copy.deepcopy(plan.values)
    values = dict(best["point"])
    if best["evaluate"] is not None:
        values[f"stages.{len(plan.base.stages) - 1}.evaluate"] = best["evaluate"]
    apply(tree, [f"{path}={written(value)}" for path, value in values.items()])
    tree["output"] = str(plan.output / "best")
    stream = io.StringIO()
    yaml = YAML()
    yaml.dump(tree, stream)
    head = "".join(f"# {line}\n" if line else "#\n" for line in _head(plan, told, best))
    draft = plan.output / f".{BEST}.new"
    draft.write_text(f"{head}\n{stream.getvalue()}", encoding="utf-8")
    draft.replace(plan.output / BEST)


def _head(plan: SearchPlan, told: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    metric = plan.metric.replace("_", " ")
    found = [f"  {path}: {written(value)}   ({plan.space.axes[path].told()})" for path, value in best["point"].items()]
    lines = [f"The best of {len(told['trials'])} trials: trial {best['trial']} of the search {plan.file.name}.", ""]
    lines += ["What was searched, what was found, and out of what:", *found, ""]
    lines += [f"Validation {metric} when it was chosen (seed {plan.base.seed}): {best['chosen']:.4g}"]
    if best["again"] is not None:
        seeds = ", ".join(map(str, best["seeds"]))
        lines += [f"Again, whole, under new seeds ({seeds}): {best['again']:.4g} on average: believe this one."]
        lines += ["What was chosen as the best of many was lucky too."]
    else:
        lines += ["It was not run again under new seeds: what is chosen as the best of many was lucky too."]
    lines += [""]
    if best["evaluate"] is not None:
        lines += ["`evaluate` is as in the search: the weights of the best of these measurements are kept."]
    return [*lines, f"mingshi train {plan.output / BEST}"]
