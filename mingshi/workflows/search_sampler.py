"""What to try next, by Optuna; and which fields mattered.

The sampler is asked afresh each time, with a seed that follows from the search's own and the trial's number, and sees
the trials as they stand: so a search that was killed goes on as if it had not been, whichever process asks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, TrialState, create_trial

from mingshi.workflows.search_rungs import Trial, best_first
from mingshi.workflows.search_space import Axis, Choices, Point, Space, written

STARTUP = 10  # trials at random before a model of them is made
TRIES = 20  # for a point that was not tried yet
FEWEST = 4  # trials that say anything of what mattered


def suggest(space: Space, trials: Sequence[Trial], *, number: int, seed: int, kind: str, higher: bool) -> Point | None:
    """The point of the trial of this number; None where every point of the space is taken."""
    taken = {written(trial.point) for trial in trials}
    for attempt in range(TRIES):
        drawn = int(np.random.SeedSequence([seed, number, attempt]).generate_state(1)[0])
        sampler: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=drawn)
        if kind == "tpe":
            sampler = optuna.samplers.TPESampler(seed=drawn, n_startup_trials=STARTUP)
        study = _study(sampler, higher=higher)
        study.add_trials([_seen(trial, space) for trial in trials])
        point = read_point(study.ask(distributions(space)).params, space)
        if written(point) not in taken:
            return point
    if space.size == float("inf"):
        return point
    return next((point for point in space.whole() if written(point) not in taken), None)


def importances(space: Space, trials: Sequence[Trial], *, higher: bool) -> dict[str, float]:
    """How much each field has to do with being among the better trials, by PED-ANOVA (Watanabe et al. 2023).

    Trials are told by their place in the order of `best_first`, since those that were pruned have no score of a whole
    run; failed ones come last. Empty where too few were judged to say.
    """
    order = best_first(trials, higher=higher)
    failed = [trial for trial in trials if trial.state == "failed"]
    if len(order) < FEWEST or len(space.axes) < 2:
        return {}
    study = _study(None, higher=False)
    study.add_trials(
        [
            create_trial(params=params(trial.point, space), distributions=distributions(space), value=float(place))
            for place, trial in enumerate([*order, *failed])
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that they are few is told beside them
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.PedAnovaImportanceEvaluator()
        )
    return {path: float(found.get(path, 0.0)) for path in space.axes}


def distributions(space: Space) -> dict[str, BaseDistribution]:
    return {path: _distribution(axis) for path, axis in space.axes.items()}


def params(point: Point, space: Space) -> dict[str, Any]:
    """A point as Optuna keeps it: choices as JSON texts."""
    return {
        path: written(point[path]) if isinstance(axis, Choices) else point[path] for path, axis in space.axes.items()
    }


def read_point(told: Mapping[str, Any], space: Space) -> Point:
    """The reverse, with numbers rounded as a recipe says them."""
    point: dict[str, Any] = {}
    for path, axis in space.axes.items():
        if isinstance(axis, Choices):
            point[path] = next(value for value in axis.choices if written(value) == told[path])
        else:
            point[path] = axis.settled(told[path])
    return point


def _distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choices):
        return CategoricalDistribution([written(value) for value in axis.choices])
    if axis.step is not None:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log, step=axis.step)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _study(sampler: optuna.samplers.BaseSampler | None, *, higher: bool) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=sampler, direction="maximize" if higher else "minimize")


def _seen(trial: Trial, space: Space) -> FrozenTrial:
    """A trial as the sampler should take it: stopped ones by their last rung, failed ones as worse than all others.

    Optuna ranks whole trials first, then stopped ones by how far they came; those that say nothing come last. One that
    trains for its first score counts as bad, so that two processes do not try the same.
    """
    state = {"open": TrialState.PRUNED, "done": TrialState.COMPLETE}.get(trial.state, TrialState.PRUNED)
    if trial.state == "open" and not trial.scores:
        state = TrialState.RUNNING
    scores = () if trial.state == "failed" else trial.scores
    return create_trial(
        state=state,
        value=trial.score if state == TrialState.COMPLETE else None,
        params=params(trial.point, space),
        distributions=distributions(space),
        intermediate_values=dict(enumerate(scores)),
    )
