"""How often a classifier is right, by class, how well it ranks, and whether its probabilities can be believed.

`Scores.items` holds what was measured, item by item: `label` and `probability.NAME` for one class of several,
`label.NAME` and `probability.NAME` where a text has any number of classes, `label` and `prediction` for numbers. Every
score, and every difference between two models, is computed from these columns.

Letters: `N` items, `K` classes, `R` resamples, each saying how often every item was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from mingshi.errors import DataError, RecipeError
from mingshi.evals import slices, statistics
from mingshi.evals.calibration import fit_temperature
from mingshi.evals.classes import (
    BELIEVED,
    Multi,
    Numbers,
    Single,
    answers_of,
    believed,
    by_class,
    labels_of,
    logits_of,
    rates_of,
    signature_of,
    tempered,
)
from mingshi.types import Batch, Example, Labelled, Score, Scores, Settings

if TYPE_CHECKING:
    from mingshi.model.heads import Classes
    from mingshi.model.load import Model

__all__ = ["Classification", "answers_of", "by_class", "differences", "is_classified", "rates_of"]

SHOWN = 16  # mistakes kept for the report
DIGITS = 7  # significant ones of a probability in the record


class Classification(Settings):
    """Accuracy; precision, recall and F1 in their means and of each class; MCC; the areas under the ROC curve and under
    precision over recall; calibration error, Brier score and log loss. Or, for numbers, Pearson's and Spearman's
    correlation and the mean absolute error."""

    accepts: ClassVar[tuple[type[Example], ...]] = (Labelled,)
    reads: ClassVar[Literal["samples"]] = "samples"

    kind: Literal["classification"] = "classification"
    slices: tuple[str, ...] = ()
    """Accuracy and F1 for each value of these as well: `source`, the file of a text, or names of attributes."""

    def run(
        self,
        model: Model,
        batches: Iterable[Batch],
        *,
        seed: int = 0,
        examples: Iterable[Example] = (),
        validation: Iterable[Batch] = (),
    ) -> Scores:
        """`examples` are the rows that `batches` were made of, needed for slices alone. With `validation`, rows that
        are not among those measured, a temperature is fitted on them, and calibration measured with it as well.

        Raises DataError if there is nothing to score, RecipeError for a model that is no classifier, or slices that
        are not there.
        """
        from mingshi.model.heads import classes_of, is_classifier

        if not is_classifier(model.network):
            raise RecipeError(f"{model.name} is no classifier", "Train it with `objective: {kind: classify}` first.")
        classes = classes_of(model.network.config)
        found = sorted(_outputs(model, classes, batches), key=lambda one: one.id)
        if not found:
            raise DataError("no labelled text to score", "Give the evaluation data rows with `text` and `label`.")
        items = _columns(classes, found)
        answers = answers_of(items)
        same = f"items:{statistics.items_digest(*(items[name] for name in answers.truth))}"
        told = _measured(answers, same=same, seed=seed)
        if held := list(_outputs(model, classes, validation)):
            told |= _with_temperature(answers, answers_of(_columns(classes, held)), same=same, seed=seed)
        if self.slices:
            if isinstance(answers, Numbers):
                raise RecipeError("slices: a regression has no classes", "Leave `slices` out.")
            masks = slices.slices_of(examples, self.slices, [one.id for one in found])
            told |= slices.sliced(answers, masks, same=same, seed=seed)
        return Scores(scores=told, items=items, samples=_mistakes(model, classes, found, items))


def _measured(answers: Single | Multi | Numbers, *, same: str, seed: int) -> dict[str, Score]:
    names = answers.metrics()
    signatures = [f"{signature_of(answers, name)}|{same}" for name in names]
    scores = statistics.measured(answers.measure, len(answers), signatures=signatures, seed=seed)
    told = dict(zip(names, scores, strict=True))
    if "accuracy" in told:  # a share, whose interval is known also where no text is wrong
        right = int((answers.errors() == 0).sum())
        told["accuracy"] = statistics.rate(right, len(answers), signature=told["accuracy"].signature)
    return told


def _with_temperature(
    answers: Single | Multi | Numbers, held: Single | Multi | Numbers, *, same: str, seed: int
) -> dict[str, Score]:
    """The temperature of other rows, and the metrics of belief with it, the temperature taken as known; no numbers'."""
    if isinstance(answers, Numbers) or isinstance(held, Numbers):
        return {}
    fitted = fit_temperature(logits_of(held), labels_of(held))
    digest = statistics.items_digest(labels_of(held).tolist())
    signature = f"temperature|fitted:{digest}"
    names = [f"scaled_{name}" for name in BELIEVED]
    signatures = [f"scaled_{signature_of(answers, name)}|fitted:{digest}|{same}" for name in BELIEVED]
    warmed = tempered(answers, fitted.value)
    scores = statistics.measured(
        lambda counts_RN: believed(warmed, counts_RN), len(answers), signatures=signatures, seed=seed
    )
    temperature = Score(value=fitted.value, low=fitted.low, high=fitted.high, count=fitted.count, signature=signature)
    return {"temperature": temperature, **dict(zip(names, scores, strict=True))}


def differences(before: Scores, after: Scores, *, seed: int = 0) -> Mapping[str, Score]:
    """`after - before` of every metric of both, the items drawn together."""
    first, second = answers_of(before.items), answers_of(after.items)
    names = [name for name in second.metrics() if name in first.metrics()]
    places = [[one.metrics().index(name) for name in names] for one in (first, second)]

    def measure(counts_RN: np.ndarray) -> np.ndarray:
        change: np.ndarray = second.measure(counts_RN)[:, places[1]] - first.measure(counts_RN)[:, places[0]]
        return change

    signatures = [f"change of {after.scores[name].signature}" for name in names]
    scores = statistics.measured(measure, len(first), signatures=signatures, seed=seed)
    return dict(zip(names, scores, strict=True))


def is_classified(items: Mapping[str, Any]) -> bool:
    """Whether columns of items are a classifier's."""
    return any(name == "label" or name.startswith("label.") for name in items)


# What the model says


@dataclass(frozen=True, slots=True)
class Output:
    """One text: its tokens, its label as the objective encoded it, and the head's probabilities or number."""

    id: str
    tokens: np.ndarray
    label: np.ndarray
    output: np.ndarray


def _outputs(model: Model, classes: Classes, batches: Iterable[Batch]) -> Iterable[Output]:
    from mingshi.model import heads
    from mingshi.model.generate import inference

    with inference(model.network):
        for batch in batches:
            logits_NK = heads.logits(model.network, heads.features(model.network, batch))
            outputs = heads.probabilities(logits_NK.cpu().double(), classes.problem).numpy()
            tokens, labels = batch.tokens.cpu().numpy(), batch.labels.cpu().numpy()
            for place, (start, length, _) in enumerate(batch.segments.tolist()):
                yield Output(batch.ids[place], tokens[start : start + length], labels[place], outputs[place])


def _columns(classes: Classes, found: Sequence[Output]) -> dict[str, list[float]]:
    labels = np.stack([one.label for one in found]).astype(np.float64)
    outputs = np.array([[float(f"{value:.{DIGITS}g}") for value in one.output.tolist()] for one in found])
    if classes.problem == "regression":
        return {"label": labels[:, 0].tolist(), "prediction": outputs[:, 0].tolist()}
    columns = {f"probability.{name}": outputs[:, place].tolist() for place, name in enumerate(classes.names)}
    if classes.problem == "single_label":
        return {"label": labels[:, 0].tolist(), **columns}
    return {f"label.{name}": labels[:, place].tolist() for place, name in enumerate(classes.names)} | columns


def _mistakes(
    model: Model, classes: Classes, found: Sequence[Output], items: Mapping[str, Sequence[float]]
) -> list[dict[str, Any]]:
    """The first texts that were not rightly classified, or, of numbers, those that were furthest off."""
    answers = answers_of(items)
    worst = np.argsort(-answers.errors(), kind="stable")[:SHOWN]
    rows = []
    for place in worst[answers.errors()[worst] > 0].tolist():
        one = found[place]
        rows.append(
            {
                "id": one.id,
                "prompt": model.tokenizer.decode(one.tokens.tolist(), skip_special_tokens=True),
                "prediction": answers.told(place, predicted=True),
                "reference": answers.told(place, predicted=False),
                "scores": {name: items[name][place] for name in items if not name.startswith("label")},
            }
        )
    return rows
