"""Text classification: one class of several, any number of classes, or a number, from one pooled state of a text.

The body is an encoder or a causal model, the head the architecture's own (`mingshi.model.heads`). Where the body is
frozen its features are computed once: epochs after the first cost only the head.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from mingshi.data.mix import mix
from mingshi.data.plan import Mixture, pack
from mingshi.errors import DataError, Problem, RecipeError
from mingshi.model.heads import Classes, Pooling
from mingshi.types import Batch, Example, Labelled, Loss, Network, Reject, Sample, Settings

if TYPE_CHECKING:
    import torch

    from mingshi.display import Display
    from mingshi.model.load import Model, Text

NUMBER = "number"  # what the one output of a regression is called
SHOWN = 8  # labels named in one sentence


class Classify(Settings):
    """`loss = sum_i w_i * l_i / sum_i w_i` over a whole optimiser step.

    `w` is a row's own weight times its class's. `l` is the cross-entropy of one class; the mean over classes of the
    binary cross-entropy of each; or the squared error of a number.
    """

    accepts: ClassVar[tuple[type[Example], ...]] = (Labelled,)
    additive: ClassVar[bool] = True
    headline: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    kind: Literal["classify"] = "classify"
    problem: Literal["auto", "single_label", "multi_label", "regression"] = "auto"
    """auto: as the first training row's label is one class, a list of classes, or a number with a point."""
    labels: tuple[str, ...] = ()
    """The classes in the order of the head's outputs; where none are given, those of the training rows, sorted."""
    pooling: Literal["auto", "first", "last", "mean"] = "auto"
    """auto: the architecture's own, which is the only one that transformers can read."""
    class_weights: Literal["balanced"] | Mapping[str, float] | None = None
    """How much a row of a class counts (multi-label: a row that has it); balanced: as if all were as frequent."""
    row_weights: Literal["auto"] | bool = "auto"
    """Each row counts as its field `row_weight` says; auto: where training rows have one; false: all alike."""
    focal: float = Field(default=0.0, ge=0)
    """The focal loss's gamma: `l * (1 - p)^gamma`, so that sure predictions count for less; 0: plain."""
    sampling: Literal["natural", "balanced"] = "natural"
    """balanced: an epoch has as many rows as before, equally many of each class; those of rare classes come again."""
    max_length: int = Field(default=512, ge=3)
    """Tokens of one text."""
    too_long: Literal["truncate", "drop", "error"] = "truncate"
    """A longer text loses its end, is left out, or stops the run."""

    @model_validator(mode="after")
    def _settings_that_count(self) -> Classify:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("a label is named twice. Name each class once.")
        if isinstance(self.class_weights, Mapping) and not all(weight > 0 for weight in self.class_weights.values()):
            raise ValueError("a class weight is not above 0. Leave the class's rows out instead.")
        if self.problem == "regression" and (self.labels or self.class_weights is not None or self.focal):
            raise ValueError("a regression has no classes. Leave labels, class_weights and focal out.")
        if self.sampling == "balanced" and self.problem in ("multi_label", "regression"):
            raise ValueError("balanced sampling needs one class a row. Use class_weights, or leave it out.")
        return self

    @staticmethod
    def of(classes: Classes, *, max_length: int) -> Classify:
        """The objective that a trained classifier is measured by."""
        labels = () if classes.problem == "regression" else classes.names
        return Classify(problem=classes.problem, labels=labels, max_length=max_length)

    # What the training rows decide

    def settled(self, rows: Iterable[Example | Reject]) -> Classify:
        """With the problem, the labels and the weights that these training rows say; DataError where they cannot.

        Only a settled objective encodes.
        """
        examples = _labelled(rows)
        problem = _problem_of(examples) if self.problem == "auto" else self.problem
        own = self.row_weights is not False and any(example.weight != 1 for example in examples)
        found = {"problem": problem, "row_weights": own}
        if problem == "regression":
            return self._with(found)
        counts = Counter(name for example in examples for name in set(_names(example)))
        labels = self.labels or tuple(sorted(counts, key=_natural))
        if len(labels) < (2 if problem == "single_label" else 1):
            raise _too_few(examples, named=self.labels, found=labels)
        weights = self.class_weights
        if weights == "balanced":
            weights = _balanced([counts[name] for name in labels], labels, examples=examples, problem=problem)
        elif weights is not None:
            unknown = sorted(set(weights) - set(labels))
            if unknown:
                what, mend = f"class_weights names {', '.join(unknown)}", f"The classes are {_listed(labels)}."
                raise RecipeError(Problem(field="objective", what=what, mend=mend))
        return self._with({**found, "labels": labels, "class_weights": weights})

    def _with(self, found: Mapping[str, Any]) -> Classify:
        try:
            return Classify.model_validate({**self.model_dump(), **found})
        except ValidationError as error:
            what, _, mend = str(error.errors()[0]["msg"]).removeprefix("Value error, ").partition(". ")
            told = f"the training rows are {found['problem']}: {what}"
            raise RecipeError(Problem(field="objective", what=told, mend=mend)) from None

    def classes(self, *, seed: int) -> Classes:
        """What the head of a settled objective tells apart."""
        assert self.problem != "auto", "settled"
        pooling: Pooling | None = None if self.pooling == "auto" else self.pooling
        names = self.labels or (NUMBER,)
        return Classes(names=names, problem=self.problem, pooling=pooling, seed=seed)

    # Rows

    def encode(self, example: Example, model: Text) -> Sample | Reject:
        """The text between the tokenizer's own beginning and end, and one prediction: its label."""
        assert isinstance(example, Labelled)
        labels = self._label(example)
        if isinstance(labels, str):
            return Reject(source=example.source, line=example.line, reason="unknown_label", detail=labels)
        tokens = model.template.plain(example.content).tokens
        if len(tokens) <= self.max_length or self.too_long == "truncate":
            own = example.weight if self.row_weights is True else 1.0
            return self.sample(tokens, model, labels=labels, name=example.id, weight=own)
        what = f"{len(tokens)} tokens, over max_length {self.max_length}"
        if self.too_long == "error":
            mend = "Raise objective.max_length, or set objective.too_long to drop or truncate."
            raise DataError(Problem(file=example.source, line=example.line, what=what, mend=mend))
        detail = f"{what}. Raise objective.max_length, or set objective.too_long to truncate."
        return Reject(source=example.source, line=example.line, reason="too_long", detail=detail)

    def sample(
        self, tokens: Sequence[int], model: Text, *, labels: np.ndarray, name: str, weight: float = 1.0
    ) -> Sample:
        """A text, its end left out where it is too long, but never what the tokenizer ends every text with."""
        end = model.template.end
        if len(tokens) > self.max_length:
            tokens = tokens[: self.max_length] if end is None else (*tokens[: self.max_length - 1], end)
        return Sample(
            tokens=np.asarray(tokens, dtype=np.int32),
            segments=np.array([[0, len(tokens), -1]], dtype=np.int32),
            source=np.array([len(tokens) - 1], dtype=np.int32),
            target=np.zeros(1, dtype=np.int32),
            weight=np.array([weight * self._weight(labels)], dtype=np.float32),
            sequence=np.zeros(1, dtype=np.int32),
            labels=labels,
            id=name,
        )

    def _label(self, example: Labelled) -> np.ndarray | str:
        """`[1]` the class's place or the number, or `[K]` with a 1 for each class; a sentence where it is neither."""
        if self.problem == "regression":
            try:
                return np.array([float(example.label)], dtype=np.float32)  # type: ignore[arg-type]  # which raises
            except (TypeError, ValueError):
                return f"the label {example.label!r} is not a number. Mend it, or set objective.problem."
        if isinstance(example.label, float) or (self.problem == "single_label" and isinstance(example.label, tuple)):
            wanted = "one class" if self.problem == "single_label" else "a class or a list of them"
            return f"the label {example.label!r} is not {wanted}. Mend it, or set objective.problem."
        names = _names(example)
        unknown = [name for name in names if name not in self.labels]
        if unknown:
            return f"the label {unknown[0]!r} is not one of {_listed(self.labels)}. Add it to objective.labels."
        places = [self.labels.index(name) for name in names]
        if self.problem == "single_label":
            return np.array(places, dtype=np.float32)
        return np.isin(np.arange(len(self.labels)), places).astype(np.float32)

    def _weight(self, labels: np.ndarray) -> float:
        """Of a row: its class's. In multi-label the weights belong to the classes a row has, not to the row."""
        if self.problem != "single_label" or not isinstance(self.class_weights, Mapping):
            return 1.0
        return self.class_weights.get(self.labels[int(labels[0])], 1.0)

    def collate(self, samples: Sequence[Sample], device: str) -> Batch:
        return pack(samples, device=device)

    # The network

    def companion(self, model: Model, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display) -> Any:
        """The samples' features, where no weight that they are made of trains."""
        from mingshi.model import heads
        from mingshi.model.features import kept_features

        if heads.body_trains(model.network):
            return None
        return kept_features(model.network, samples, folder=folder / "features", budget=budget, display=display)

    def loss(self, network: Network, batch: Batch, companion: Any) -> Loss:
        sums = self.measure(network, batch, companion)
        metrics = {name: values.detach().sum() for name, values in sums.items() if name != self.headline}
        return Loss(sum=sums[self.headline].sum(), metrics=metrics)

    def measure(self, network: Network, batch: Batch, companion: Any) -> Mapping[str, torch.Tensor]:
        """Loss of each sample, and whether it is right (in multi-label: in every class), or how far a number is off.

        Where rows or classes have weights all are sums of weighted rows, and the second says so in its name.
        """
        from mingshi.model import heads

        pooled_NW = heads.features(network, batch) if companion is None else companion.of(batch.rows, network)
        logits_NK = heads.logits(network, pooled_NW)
        loss_N = self.losses(logits_NK, batch.labels) * batch.weights
        name, right_N = self._right(logits_NK.detach(), batch.labels)
        return {self.headline: loss_N, name: right_N * batch.weights}

    def losses(self, logits_NK: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """`[N]`, before a row's own weight; `labels` is `[N, 1]`, or `[N, K]` in multi-label.

        Focal loss as in Lin et al. 2017, equation 5, the class weights being its alpha.
        """
        import torch

        if self.problem == "regression":
            return (logits_NK - labels).square()[:, 0]
        if self.problem == "single_label":
            logp_N = logits_NK.log_softmax(-1).gather(1, labels.long())[:, 0]
            return self._focused(-torch.expm1(logp_N), logp_N)
        signs_NK = 2 * labels - 1
        logp_NK = torch.nn.functional.logsigmoid(signs_NK * logits_NK)
        losses_NK = self._focused(torch.sigmoid(-signs_NK * logits_NK), logp_NK)
        if isinstance(self.class_weights, Mapping):
            present_K = losses_NK.new_tensor([self.class_weights.get(name, 1.0) for name in self.labels])
            losses_NK = losses_NK * torch.where(labels > 0, present_K, 1.0)
        return losses_NK.mean(-1)

    def _focused(self, doubt: torch.Tensor, logp: torch.Tensor) -> torch.Tensor:
        """`-(1 - p)^gamma log p`; a doubt of exactly zero would have no slope below a gamma of 1."""
        return -logp if not self.focal else -(doubt.clamp(min=1e-30) ** self.focal) * logp

    def _right(self, logits_NK: torch.Tensor, labels: torch.Tensor) -> tuple[str, torch.Tensor]:
        weighted = self.row_weights is True or (self.problem == "single_label" and self.class_weights is not None)
        prefix = "weighted_" if weighted else ""
        if self.problem == "regression":
            return f"{prefix}absolute_error", (logits_NK - labels).abs()[:, 0]
        if self.problem == "multi_label":
            return f"{prefix}accuracy", ((logits_NK > 0) == (labels > 0)).all(-1).float()
        return f"{prefix}accuracy", (logits_NK.argmax(-1) == labels[:, 0].long()).float()


def require_fit(objective: Classify, model: Model) -> None:
    """RecipeError where the network has no positions for texts as long as may come, or pools what has seen none."""
    from mingshi.model.heads import head_of

    if objective.max_length > model.context:
        what = f"objective.max_length is {objective.max_length}, and {model.name} reads {model.context} tokens"
        raise RecipeError(what, f"Set objective.max_length to {model.context} or less.")
    if objective.pooling == "first" and head_of(model.network).pooling == "last":
        what = f"objective.pooling is first, and the first token of {model.name} sees nothing of the text after it"
        raise RecipeError(what, "Use last or mean, or leave objective.pooling out.")


def _labelled(rows: Iterable[Example | Reject]) -> list[Labelled]:
    """Rows to learn classes from, at least one; DataError at the first of another kind, or where all were rejected."""
    rows = list(rows)
    other = next((row for row in rows if isinstance(row, Example) and not isinstance(row, Labelled)), None)
    if other is not None:
        what, mend = "has no label, and the objective is classify", "Give rows with `text` and `label`."
        raise DataError(Problem(file=other.source, line=other.line, what=what, mend=mend))
    rejects = [row for row in rows if isinstance(row, Reject)]
    if rejects and len(rejects) == len(rows):
        what, mend = "no row is left to train on", "Mend these rows."
        told = [Problem(file=row.source, line=row.line, what=row.detail) for row in rejects[:SHOWN]]
        raise DataError([*told, Problem(file=rejects[0].source, what=what, mend=mend)])
    if not rows:
        raise DataError("no row is left to train on: all of them are held out", "Lower `validation`.")
    return [row for row in rows if isinstance(row, Labelled)]


def _too_few(examples: Sequence[Labelled], *, named: Sequence[str], found: Sequence[str]) -> DataError | RecipeError:
    """Classes to tell apart: the recipe names too few, or the rows have too few."""
    if named:
        what, mend = f"names one class, {named[0]}", "Name all classes, or leave it out."
        return RecipeError(Problem(field="objective.labels", what=what, mend=mend))
    what, mend = f"none of {len(examples)} training rows has a class", "Write classes into their labels."
    if found:
        what = f"all {len(examples)} training rows are of one class, {found[0]}"
        mend = "Give it rows of two classes, or name them all in objective.labels."
    return DataError(Problem(file=examples[0].source, what=what, mend=mend))


def _problem_of(examples: Sequence[Labelled]) -> str:
    """What the first row's label says; DataError at the first row that says something else."""
    kinds = {str: "single_label", tuple: "multi_label", float: "regression"}
    told = {str: "one class", tuple: "a list of classes", float: "a number"}
    first = type(examples[0].label)
    other = next((example for example in examples if type(example.label) is not first), None)
    if other is not None:
        what = f"the label is {told[type(other.label)]}, and that of the first row {told[first]}"
        mend = "Write all labels alike, or say which is meant: objective.problem."
        raise DataError(Problem(file=other.source, line=other.line, field="label", what=what, mend=mend))
    return kinds[first]


def _names(example: Labelled) -> tuple[str, ...]:
    return example.label if isinstance(example.label, tuple) else (str(example.label),)


def _natural(name: str) -> tuple[int, str]:
    """Class numbers in the order of numbers, before names in the order of their characters."""
    return (int(name), "") if name.isdecimal() and name.isascii() else (1 << 62, name)


def _listed(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - SHOWN} more" if len(labels) > SHOWN else ""
    return ", ".join(labels[:SHOWN]) + more


def _balanced(
    counts: Sequence[int], labels: Sequence[str], *, examples: Sequence[Labelled], problem: str
) -> dict[str, float]:
    """`n / (K n_k)` for each class, as scikit-learn has it; in multi-label `(n - n_k) / n_k`: absent over present."""
    rows = len(examples)
    for name, count in zip(labels, counts, strict=True):
        if not count or (problem == "multi_label" and count == rows):
            what = f"class_weights cannot be balanced: {count} of {rows} training rows are {name}"
            mend = "Give the weights by hand, or take the class out of objective.labels."
            raise DataError(Problem(file=examples[0].source, what=what, mend=mend))
    if problem == "multi_label":
        return {name: (rows - count) / count for name, count in zip(labels, counts, strict=True)}
    return {name: rows / (len(labels) * count) for name, count in zip(labels, counts, strict=True)}


def balanced(classes: np.ndarray, sizes: Sequence[int], weights: Sequence[float], *, seed: int) -> Mixture:
    """Epochs with equally many rows of every class that is there, and as many rows as the sources' weights give.

    The rows of a source and a class are mixed like a source of their own, whose weight makes up for how many there
    are: an order that depends on the seed alone is gone through, epoch after epoch, before a row comes again.
    """
    weight_R = np.repeat(np.asarray(weights, dtype=np.float64), sizes)
    present, class_R = np.unique(classes, return_inverse=True)
    total_K = np.bincount(class_R, weights=weight_R)
    goal = weight_R.sum() / np.count_nonzero(total_K)
    each = np.divide(goal, total_K, out=np.zeros(len(present)), where=total_K > 0)
    cell_R = np.repeat(np.arange(len(sizes)), sizes) * len(present) + class_R
    order_R = np.argsort(cell_R, kind="stable")
    cells, starts = np.unique(cell_R[order_R], return_index=True)
    counts = np.diff([*starts, len(order_R)]).tolist()
    shares = [float(weights[cell // len(present)] * each[cell % len(present)]) for cell in cells]

    def mixture(epoch: int) -> np.ndarray:
        chosen: np.ndarray = order_R[mix(counts, shares, seed=seed, epoch=epoch)]
        return chosen

    return mixture
