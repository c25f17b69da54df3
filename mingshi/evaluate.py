"""A recipe's evaluators over its test set and its tasks, before training, between stages and after."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mingshi import measured
from mingshi.continual.gate import Fall, falls
from mingshi.data.plan import micro_batches
from mingshi.directions import TEST, score_name
from mingshi.display import Display
from mingshi.evals import Classification, Evaluator, Perplexity, PreferenceAccuracy, compare, seed_of, statistics
from mingshi.evals.forgetting import changes, transfers
from mingshi.model.load import Model, Text
from mingshi.objectives import Sft
from mingshi.prepare import TestSet, prepare_task, prepare_tests
from mingshi.ranks import Onlooker
from mingshi.recipe import Recipe
from mingshi.record import Record
from mingshi.shortage import hand_back
from mingshi.tasks import Task, headline, objective_for
from mingshi.types import Batch, Objective, Sample, Score, Scores


def batches(samples: Sequence[Sample], *, objective: Objective, budget: int, device: str) -> Iterator[Batch]:
    """Packed streams that hold every sample once, in a fixed order."""
    for cut in micro_batches([len(sample.tokens) for sample in samples], budget):
        yield objective.collate([samples[index] for index in cut], device)


def validation_scores(
    model: Model, samples: Sequence[Sample], *, objective: Objective, companion: Any, budget: int, display: Display
) -> Scores:
    """What the objective watches on these rows, with intervals; dropout is off while they are measured.

    Plain fine-tuning is measured in nats and perplexity of every predicted token, whatever its weight in training.
    """
    streams = list(batches(samples, objective=objective, budget=budget, device=model.device))
    tracked = display.track(streams, len(streams), "validate")
    if isinstance(objective, Sft):
        return Perplexity().run(model, tracked)
    return measured_by_objective(model, tracked, objective=objective, companion=companion)


def measured_by_objective(model: Model, streams: Iterable[Batch], *, objective: Objective, companion: Any) -> Scores:
    """The objective's own measures as sums over shares of the weight, items resampled whole for the intervals.

    An item is an id, and its samples are summed.
    """
    from mingshi.model.generate import inference

    parts: dict[str, float] = {}
    sums: dict[str, dict[str, float]] = {}
    with inference(model.network):
        for batch in streams:
            found = objective.measure(model.network, batch, companion)
            for name, values in {"": batch.parts, **found}.items():
                column = sums.setdefault(name, {}) if name else parts
                for item, value in zip(batch.ids, values.double().tolist(), strict=True):
                    column[item] = column.get(item, 0.0) + value
    ids = sorted(parts)
    weights = [parts[item] for item in ids]
    same = f"{objective.kind}|items:{statistics.items_digest(ids, weights)}"
    scores, items = {}, {}
    for name, column in sums.items():
        items[f"{name}.sum"], items[f"{name}.weight"] = [column[item] for item in ids], weights
        scores[name] = statistics.ratio(items[f"{name}.sum"], weights, signature=f"{name}|{same}")
    return Scores(scores=scores, items=items)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """Rows to be measured on again and again, and by what."""

    name: str
    evals: Sequence[Evaluator]
    tests: TestSet
    objective: Objective  # what encoded them


def subjects(recipe: Recipe, text: Text, display: Display) -> list[Subject]:
    """The test set, and the tasks."""
    last = recipe.stages[-1].objective
    found = [Subject(TEST, recipe.evals, prepare_tests(recipe.test, last, text, display), last)]
    for task in recipe.tasks:
        objective = objective_for(task, last)
        found.append(Subject(task.name, task.evals, prepare_task(task, objective, text, display), objective))
    return found


@dataclass(slots=True, eq=False)
class Suite:
    """A recipe's test set and its tasks; what was said of them at each time, for paired differences.

    The first subject is the test set, which is measured at both ends alone: nothing can be chosen by it.
    """

    recipe: Recipe
    model: Model
    subjects: Sequence[Subject]
    record: Record | Onlooker
    display: Display
    results: dict[tuple[int, str, str], Scores] = field(default_factory=dict)  # (stages done, subject, kind)

    @property
    def ledger(self) -> list[dict[str, Any]]:
        return [entry for subject in self.subjects for entry in subject.tests.ledger]

    def before(self) -> None:
        for subject in self.subjects:
            self._measure(subject, when="before", done=0, step=0)

    def between(self, stage: int, step: int) -> None:
        """The tasks after a stage that is not the last, or that a gate follows."""
        for subject in self.subjects[1:]:
            self._measure(subject, when="during", done=stage + 1, step=step)

    def after(self, step: int, *, validation: Sequence[Sample]) -> None:
        """`validation` is the last stage's: rows that the test set's probabilities may be mended by."""
        for subject in self.subjects:
            if subject is self.subjects[0]:
                subject = replace(subject, tests=replace(subject.tests, validation=validation))
            self._measure(subject, when="after", done=len(self.recipe.stages), step=step)

    def stand(self, since: int, *, to: int) -> None:
        """The weights are again those of `since` stages: what the tasks scored then they score until `to` stages."""
        for done in range(since + 1, to + 1):
            for task in self.recipe.tasks:
                for evaluator in task.evals:
                    if (found := self.results.get((since, task.name, evaluator.kind))) is not None:
                        self.results[done, task.name, evaluator.kind] = found

    def falls(self, stage: int, *, allowed: float) -> list[Fall]:
        """How far the tasks that were taught by now, or by no stage, stand below their best before this stage."""
        taught = [task for task in self.recipe.tasks if task.stage is None or task.stage <= stage]
        metrics = {task.name: self._headline(task, stage + 1) for task in taught}
        return falls([self._row(done, metrics) for done in range(stage + 2)], metrics, allowed=allowed)

    def _measure(self, subject: Subject, *, when: str, done: int, step: int) -> None:
        """Run its evaluators and record what they say. With no rows, or no record, there is nothing to say."""
        if not subject.tests.ledger or isinstance(self.record, Onlooker):
            return
        label = when if when != "during" else f"after stage {done - 1}"
        label = f"{label:6}" if subject.name == TEST else f"{label:6} {subject.name}"
        for evaluator in subject.evals:
            place = (done, subject.name, evaluator.kind)
            if place not in self.results:  # a gate may have measured it, or gone back to weights that were
                self.results[place] = self._scores(subject, evaluator, label, untrained=done == 0)
            scores = self.results[place]
            self.record.write_eval(
                stage=max(done - 1, 0), step=step, when=when, data=subject.name, kind=evaluator.kind, scores=scores
            )
            for line in summary_lines(f"{label} {evaluator.kind}", scores):
                self.display.say(line)

    def _scores(self, subject: Subject, evaluator: Evaluator, label: str, *, untrained: bool) -> Scores:
        recipe = self.recipe
        seed = seed_of(evaluator, recipe.seed)
        settings: tuple[Any, ...] = (evaluator, subject.objective, seed, recipe.budget)
        name = measured.key(self.model, subject.tests.ledger, settings) if untrained else None
        scores = measured.recall(name)
        if scores is not None:
            self.display.say(f"{label} {evaluator.kind}: measured earlier, of the same model on the same rows")
            return scores
        scores = run_evaluator(
            evaluator,
            self.model,
            subject.tests,
            objective=subject.objective,
            stream=recipe.budget,
            seed=seed,
            display=self.display,
            before=self.results.get((0, subject.name, evaluator.kind)),
        )
        measured.remember(name, scores)
        hand_back()
        return scores

    def differences(self) -> dict[str, Score]:
        """After less before on the same items, with paired intervals."""
        found: dict[str, Score] = {}
        for subject, evaluator, before, after in self._ends():
            for name, score in compare(before, after).items():
                found[score_name(subject.name, evaluator.kind, name)] = score
        return found

    def scores(self) -> dict[str, dict[str, Score]]:
        told: dict[str, dict[str, Score]] = {}
        for when, done in (("before", 0), ("after", len(self.recipe.stages))):
            for (place, data, kind), scores in self.results.items():
                if place == done:
                    found = {score_name(data, kind, name): score for name, score in scores.scores.items()}
                    told.setdefault(when, {}).update(found)
        return told | {"difference": self.differences()}

    def forgetting(self) -> dict[str, Any]:
        """What became of each task from the first measurement to the last, and between the stages."""
        tasks: dict[str, Any] = {task.name: {"stage": task.stage, "metrics": {}} for task in self.recipe.tasks}
        for subject, evaluator, before, after in self._ends():
            if subject.name in tasks:
                found = {f"{evaluator.kind}.{name}": change for name, change in changes(before, after).items()}
                tasks[subject.name]["metrics"].update(found)
        if not tasks or not any(task["metrics"] for task in tasks.values()):
            return {}
        return {"tasks": tasks, **self._matrix()}

    def _matrix(self) -> dict[str, Any]:
        """Each task's chosen metric before any stage and after each, and what stages did to those before and after."""
        times = range(len(self.recipe.stages) + 1)
        metrics = {task.name: self._headline(task, len(self.recipe.stages)) for task in self.recipe.tasks}
        rows = [self._row(done, metrics) for done in times]
        taught = {task.name: task.stage for task in self.recipe.tasks if task.stage is not None}
        told = [{task: scores.scores[metrics[task].partition(".")[2]] for task, scores in row.items()} for row in rows]
        return {"metrics": metrics, "matrix": told, "transfer": transfers(rows, metrics, taught)}

    def _row(self, done: int, metrics: Mapping[str, str]) -> dict[str, Scores]:
        """What the tasks' metrics were measured by after so many stages."""
        return {task: self.results[done, task, metric.partition(".")[0]] for task, metric in metrics.items()}

    def _headline(self, task: Task, done: int) -> str:
        measured_names = [
            f"{evaluator.kind}.{name}"
            for evaluator in task.evals
            for name in self.results[done, task.name, evaluator.kind].scores
        ]
        return headline(task, measured_names)

    def _ends(self) -> Iterator[tuple[Subject, Evaluator, Scores, Scores]]:
        """What was measured both before and after."""
        for subject in self.subjects:
            for evaluator in subject.evals:
                first = self.results.get((0, subject.name, evaluator.kind))
                last = self.results.get((len(self.recipe.stages), subject.name, evaluator.kind))
                if first is not None and last is not None:
                    yield subject, evaluator, first, last


def run_evaluator(
    evaluator: Evaluator,
    model: Model,
    tests: TestSet,
    *,
    objective: Objective,
    stream: int,
    seed: int,
    display: Display,
    before: Scores | None = None,
) -> Scores:
    """What reads answers is given examples to answer; everything else is given the packed samples.

    `before` is the same evaluator's first measurement, for those whose scores are changes since it.
    """
    if evaluator.reads == "examples":
        rows: list[Any] = [example for example in tests.examples if isinstance(example, evaluator.accepts)]
        return evaluator.run(model, rows, seed=seed, progress=display.track)
    streams = list(batches(tests.samples, objective=objective, budget=stream, device=model.device))
    tracked = display.track(streams, len(streams), evaluator.kind)
    if isinstance(evaluator, PreferenceAccuracy):
        return evaluator.run(model, tracked, before=before)
    if isinstance(evaluator, Classification):
        held = batches(tests.validation, objective=objective, budget=stream, device=model.device)
        return evaluator.run(model, tracked, examples=tests.examples, validation=held)
    return evaluator.run(model, tracked)


def summary_lines(label: str, scores: Scores) -> list[str]:
    """One line a metric: value and interval."""
    width = max(map(len, scores.scores), default=0)
    return [f"{label}  {name:{width}}  {told(score)}" for name, score in scores.scores.items()]


def told(score: Score, *, signed: bool = False) -> str:
    """A score for a person; without an interval where there is none (one item, or all alike)."""
    form = "+.4f" if signed else ".4f"
    if not math.isfinite(score.low):
        return f"{score.value:{form}}  (n={score.count}, no interval)"
    return f"{score.value:{form}}  (95 % {score.low:{form}} to {score.high:{form}}, n={score.count})"


def as_json(score: Score) -> Mapping[str, Any]:
    return {name: getattr(score, name) for name in ("value", "low", "high", "count", "signature")}
