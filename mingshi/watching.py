"""What is measured on the way through a stage, and what follows: which weights are the best, and when to stop.

Held-out rows are measured before the first step and whenever the recipe says, and each time as many rows that are
trained on, in the same mode: the two courses side by side are what a verdict on overfitting rests on (checks/fit.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mingshi import measured
from mingshi.checks.fit import SAMPLE
from mingshi.data.plan import Plan
from mingshi.directions import is_better_higher
from mingshi.display import Display
from mingshi.errors import Problem, RecipeError
from mingshi.evals import statistics
from mingshi.evaluate import batches, told, validation_scores
from mingshi.model.load import Model
from mingshi.model.origin import Origin
from mingshi.model.reference import fingerprint
from mingshi.objectives import Sft
from mingshi.prepare import Joined
from mingshi.ranks import ALONE, Onlooker, Ranks
from mingshi.recipe import Stage
from mingshi.record import Record
from mingshi.shortage import hand_back
from mingshi.types import Batch, Objective, Sample, Score, Scores


@dataclass(slots=True)
class Standing:
    """Where a stage stands: all that a checkpoint holds besides tensors."""

    steps: int = 0
    best_step: int = 0
    best_value: float | None = None  # of what is watched on the validation set
    mark: float | None = None  # the last value that counted as better
    waited: int = 0  # measurements since then
    stopped_early: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Watch:
    """The rows of a stage that are measured again and again."""

    model: Model
    stage: Stage
    number: int  # of the stage
    record: Record | Onlooker
    display: Display
    budget: int  # tokens of one packed stream
    validation: Joined
    held: Any  # what the objective wants beside the network for the validation samples
    sample: Sequence[Sample]  # of the training samples
    trained: Any  # what the objective wants beside the network for the training samples
    origin: Origin | None = None  # the network before the stage, where it is to be told how far it goes
    ranks: Ranks = ALONE

    def begin(self) -> None:
        """Measure the untrained network; RecipeError where early stopping waits for a metric that is not measured."""
        scores = self._scores_at(0)
        early = self.stage.early_stopping
        if early is None or early.metric is None:
            return
        known = [name for name in scores if _better_higher(self.stage, name) is not None]
        if early.metric not in known:
            what = f"no {early.metric!r} is measured on the validation rows"
            if early.metric in scores:
                what = f"whether {early.metric!r} is better higher or lower is not known"
            field = f"stages.{self.number}.early_stopping.metric"
            raise RecipeError(Problem(field=field, what=what, mend=f"Use one of: {', '.join(known)}."))

    def measure(self, standing: Standing) -> None:
        """Both sets of rows: recorded, shown, and what is watched weighed against what went before."""
        early, name = self.stage.early_stopping, self.watched
        value = self._scores_at(standing.steps)[name].value
        sign = -1.0 if _better_higher(self.stage, name) else 1.0
        if _ahead(sign, value, standing.best_value) > 0:
            standing.best_value, standing.best_step = value, standing.steps
        if _ahead(sign, value, standing.mark) > (early.min_delta if early else 0.0):
            standing.mark, standing.waited = value, 0
        else:
            standing.waited += 1
        standing.stopped_early = early is not None and standing.waited >= early.patience
        if standing.stopped_early:
            self.display.say(f"Stopping early: {_words(name)} no better for {standing.waited} measurements")

    @property
    def watched(self) -> str:
        """The metric that decides which weights are the best, and when to stop."""
        early = self.stage.early_stopping
        return early.metric if early is not None and early.metric is not None else self.stage.objective.headline

    def _scores_at(self, step: int) -> dict[str, Score]:
        """Of the validation rows, which process 0 measures: what follows from them follows on every process."""
        found = self.ranks.told(lambda: {name: asdict(score) for name, score in self._measured(step).scores.items()})
        return {name: Score(**score) for name, score in found.items()}

    def _measured(self, step: int) -> Scores:
        objective = self.stage.objective
        kind = "perplexity" if isinstance(objective, Sft) else objective.kind
        sets = (("validation", self.validation, self.held), (SAMPLE, self.sample, self.trained))
        alone = self.held is None and self.trained is None  # teachers and references are in no key
        asked = step == 0 and alone and not self.ranks.divided  # and a part of a network is not the network
        untouched = fingerprint(self.model.network) if asked else None
        found = []
        for data, samples, companion in sets:
            scores = self._scores(samples, companion, untouched=untouched)
            found.append(scores)
            self.record.write_eval(stage=self.number, step=step, when="during", data=data, kind=kind, scores=scores)
        self._tell_divergence(step)
        for name in dict.fromkeys((objective.headline, self.watched)):
            if name in found[0].scores:
                held, seen = (told(scores.scores[name]) for scores in found)
                self.display.say(f"step {step}: validation {_words(name)} {held}; on training rows {seen}")
        hand_back()
        return found[0]

    def _tell_divergence(self, step: int) -> None:
        """How far the network is from what it was, on the new rows: what is forgotten grows with it.

        KL(base || tuned) on the new task foretells forgetting (Shenfeld et al. 2025, RL's Razor, section 4).
        """
        if self.origin is None or step == 0:
            return
        streams = validation_streams(self.stage.objective, self.validation, self.budget, self.model.device)
        sums = self.origin.divergence(self.model.network, streams)
        columns = ((batch.ids, nats, batch.parts) for batch, nats in zip(streams, sums, strict=True))
        rows = sorted(
            row for ids, nats, parts in columns for row in zip(ids, nats.tolist(), parts.tolist(), strict=True)
        )
        divergences, weights = [row[1] for row in rows], [row[2] for row in rows]
        score = statistics.ratio(divergences, weights, signature="kl from the start of the stage")
        scores = Scores(scores={"kl": score}, items={"kl.sum": divergences, "kl.weight": weights})
        self.record.write_eval(
            stage=self.number, step=step, when="during", data="validation", kind="divergence", scores=scores
        )
        self.display.say(f"step {step}: KL from the start of the stage {told(score)}")

    def _scores(self, samples: Sequence[Sample], companion: Any, *, untouched: str | None) -> Scores:
        """One set of rows; of an untouched network of this fingerprint, what an earlier run measured stands."""
        objective = self.stage.objective
        settings = [objective.model_dump(mode="json"), self.budget]
        name = measured.network_key(untouched, samples, settings) if untouched is not None else None
        scores = measured.recall(name)
        if scores is None:
            scores = validation_scores(
                self.model,
                samples,
                objective=objective,
                companion=companion,
                budget=self.budget,
                display=self.display,
            )
            measured.remember(name, scores)
        return scores


def validation_streams(objective: Objective, samples: Sequence[Sample], budget: int, device: str) -> list[Batch]:
    return list(batches(samples, objective=objective, budget=budget, device=device))


def training_sample(samples: Joined, plan: Plan, *, count: int, seed: int) -> list[Sample]:
    """`count` of the samples that the plan trains on, or all of them: the same ones at every measurement."""
    steps = range(min(plan.steps, plan.steps_per_epoch))
    seen = np.unique(np.concatenate([plan.indices(step) for step in steps]))
    chosen = np.random.default_rng(seed).permutation(len(seen))[:count]
    return [samples[int(seen[place])] for place in np.sort(chosen)]


def _better_higher(stage: Stage, metric: str) -> bool | None:
    objective = stage.objective
    return objective.higher_is_better if metric == objective.headline else is_better_higher(metric)


def _ahead(sign: float, value: float, other: float | None) -> float:
    """By how much a value is better than another; whatever there is is better than nothing."""
    if other is None:
        return math.inf if math.isfinite(value) else -math.inf
    return sign * (other - value)


def _words(metric: str) -> str:
    return metric.replace("_", " ")
