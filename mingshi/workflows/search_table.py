"""What a search came to: its trials, what they took beside training all of them whole, what mattered, the best."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from scipy import stats

from mingshi.record import RUN, Run, read_run
from mingshi.report.search_words import noted
from mingshi.workflows import compare_table, comparison
from mingshi.workflows.search_again import FAILED, all_reruns, final_score, runs_again
from mingshi.workflows.search_file import SearchPlan
from mingshi.workflows.search_rungs import Trial, best_first
from mingshi.workflows.search_sampler import STARTUP, importances
from mingshi.workflows.search_space import Axis, Choices, Span, written
from mingshi.workflows.search_trial import RECIPE_FILE, RUN_FOLDER, course_of, folder_of, points_of, trial_run

FORMAT = 1
LEVEL = 0.95
EDGE = 0.03  # of a range: nearer to its end than this lies at it


def tabulated(
    plan: SearchPlan, trials: Sequence[Trial], *, facts: Mapping[str, Any], rungs: Sequence[int]
) -> dict[str, Any]:
    """What `search.json` holds."""
    last = len(plan.base.stages) - 1
    rows = [_row(plan, trial, last) for trial in trials]
    found = runs_again(plan, trials)
    again = _again(plan, trials, found)
    best = _best(plan, trials, again)
    read, whole = sum(row["tokens"] for row in rows), sum(row["whole"] for row in rows)
    told = {
        "format": FORMAT,
        "model": plan.base.model,
        "file": plan.file.name,
        "folder": str(plan.output),
        "metric": plan.metric,
        "higher_is_better": plan.higher,
        "sampler": plan.told.sampler,
        "seed": plan.told.seed,
        "pruning": plan.told.pruning.model_dump(mode="json") if plan.told.pruning is not None else None,
        "rungs": list(rungs),
        "space": {path: _axis(axis) for path, axis in plan.space.axes.items()},
        "trials": rows,
        "tokens": {"read": read, "whole": whole, "share": read / whole if whole else None},
        "importance": importances(plan.space, trials, higher=plan.higher),
        "again": again,
        "tested": _tested(plan, trials, found, facts),
        "best": best,
        "code": 0 if best is not None else next((trial.code for trial in trials if trial.code), 1),
    }
    return told | {"notes": _notes(plan, trials, told)}


def told_score(metric: str, score: float | None) -> str:
    return f"{metric.replace('_', ' ')} {score:.4f}" if score is not None else "no score"


def plain_point(point: Mapping[str, Any]) -> dict[str, Any]:
    """Without the types of the file that it was read from."""
    told: dict[str, Any] = orjson.loads(written(point))
    return told


def _axis(axis: Axis) -> dict[str, Any]:
    told: dict[str, Any] = {"told": axis.told()}
    if isinstance(axis, Choices):
        return told | {"choices": [written(value) for value in axis.choices]}
    return told | {"low": axis.low, "high": axis.high, "log": axis.log}


def _row(plan: SearchPlan, trial: Trial, last: int) -> dict[str, Any]:
    """One trial: what it tried, how far it came, what it read and what it would have read."""
    folder = folder_of(plan.output, trial.number)
    run = read_run(folder / RUN_FOLDER) if (folder / RUN_FOLDER / RUN).is_file() else None
    read, before, seconds, curve = 0, 0, 0.0, []
    if run is not None and trial.steps:
        recipe = trial_run(plan.recipe_at(trial.point), output=run.folder, measure=plan.measured_every(trial.steps))
        read = int(sum(step["tokens"] for step in run.steps))
        before = int(sum(step["tokens"] for step in run.steps if step["stage"] < last))
        seconds = float(run.run["seconds"])
        curve = [list(point) for point in points_of(run, course_of(run, recipe, metric=plan.metric), stage=last)]
    again = f"{plan.output / 'alone' / f'{trial.number:04d}'}"
    return {
        "trial": trial.number,
        "point": plain_point(trial.point),
        "state": trial.state,
        "scores": list(trial.scores),
        "score": trial.score,
        "reason": trial.reason,
        "tokens": read,
        "whole": read if trial.state == "done" else trial.budget + before,
        "seconds": seconds,
        "curve": [[tokens, value] for tokens, value in curve if math.isfinite(value)],
        "command": f"mingshi train {folder / RECIPE_FILE} --set output={again}",
    }


# The best, again


def _again(plan: SearchPlan, trials: Sequence[Trial], found: Mapping[int, Mapping[int, Run]]) -> list[dict[str, Any]]:
    """The best trials with what each came to under new seeds, the best mean first."""
    rows = []
    for number, runs in found.items():
        trial = trials[number]
        scores = {seed: final_score(plan, run, trial) for seed, run in runs.items()}
        values = [score for score in scores.values() if score is not None]
        low, high = _interval(values)
        rows.append(
            {
                "trial": number,
                "point": plain_point(trial.point),
                "chosen": trial.score,
                "seeds": list(scores),
                "values": values,
                "mean": statistics.fmean(values) if values else None,
                "low": low,
                "high": high,
            }
        )
    sign = -1.0 if plan.higher else 1.0
    return sorted(rows, key=lambda row: (-len(row["values"]), sign * (row["mean"] or 0.0), row["trial"]))


def _interval(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Of the mean over seeds, by Student's t."""
    if len(values) < 2:
        return None, None
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.fmean(values) - half, statistics.fmean(values) + half


def _best(plan: SearchPlan, trials: Sequence[Trial], again: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """By the mean under new seeds where there is one, else by the search."""
    first = next((row for row in again if row["mean"] is not None), None)
    order = best_first(trials, higher=plan.higher)
    if not order:
        return None
    trial = trials[first["trial"]] if first is not None else order[0]
    return {
        "trial": trial.number,
        "point": plain_point(trial.point),
        "chosen": trial.score,
        "again": first["mean"] if first is not None else None,
        "low": first["low"] if first is not None else None,
        "high": first["high"] if first is not None else None,
        "seeds": first["seeds"] if first is not None else [],
        "evaluate": plan.measured_every(trial.steps),
        "command": f"mingshi train {plan.output / 'best.yaml'}",
    }


def _tested(
    plan: SearchPlan, trials: Sequence[Trial], found: Mapping[int, Mapping[int, Run]], facts: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The runs under new seeds on the test rows, as `mingshi compare` tells methods; None where nothing is tested."""
    again = plan.told.again
    if again is None or not found or not (plan.base.test or plan.base.tasks):
        return None
    names = {number: f"trial-{number}" for number in found}
    failures: dict[str, list[dict[str, Any]]] = {}
    for rerun in all_reruns(plan, trials):
        number = rerun.trial.number
        error = facts.get(FAILED.format(number=number, seed=rerun.seed))
        if error is not None:
            failures.setdefault(names[number], []).append({"run": f"seed {rerun.seed}", "error": error})
    methods = tuple(
        comparison.Method(name=name, recipe=plan.recipe_at(trials[number].point)) for number, name in names.items()
    )
    compared = comparison.Plan(output=plan.output, seeds=again.seeds, search=None, methods=methods)
    runs = {names[number]: dict(of_trial) for number, of_trial in found.items()}
    return compare_table.tabulated(compared, runs=runs, tries={}, failures=failures)


# What must be said


def _notes(plan: SearchPlan, trials: Sequence[Trial], told: Mapping[str, Any]) -> list[dict[str, Any]]:
    notes = []
    best = told["best"]
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        about = {"count": len(failed), "number": failed[0].number, "reason": failed[0].reason}
        notes.append(noted("failed", about, loud=True))
    if best is not None and best["again"] is None:
        notes.append(noted("lucky", {}, loud=True))
    elif best is not None and best["chosen"] is not None:
        less = (best["chosen"] - best["again"]) * (1 if plan.higher else -1)
        about = {"chosen": f"{best['chosen']:.4f}", "again": f"{best['again']:.4f}", "less": f"{less:.4f}"}
        notes.append(noted("curse" if less > 0 else "held", about))
    for path, axis in plan.space.axes.items() if best is not None else ():
        if isinstance(axis, Span) and (end := _edge(axis, best["point"][path])):
            notes.append(noted(f"edge.{end}", {"field": path, "value": written(best["point"][path])}))
    if plan.told.sampler == "tpe" and len(trials) <= STARTUP:
        notes.append(noted("random", {"count": len(trials), "startup": STARTUP}))
    start = trials[0] if trials and plan.space.start(plan.base) == dict(trials[0].point) else None
    if start is not None and start.scores:
        notes.append(noted("start", {"score": f"{start.scores[-1]:.4f}", "state": start.state}))
    if told["tested"] is not None:
        notes += told["tested"]["notes"]
    return notes


def _edge(axis: Span, value: float) -> str:
    """low or high, where a value lies at the end of its range."""
    low, high, at = (math.log(each) if axis.log else each for each in (axis.low, axis.high, value))
    place = (at - low) / (high - low)
    return "low" if place < EDGE else "high" if place > 1 - EDGE else ""
