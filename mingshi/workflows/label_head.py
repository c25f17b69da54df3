"""A student that is a head alone: the encoder stays as it is, reads every text once, and each round solves a head anew.

The head is a regularised logistic regression of the pooled states, each of them brought to mean 0 and deviation 1 over
all texts; its strength is chosen on the seeds by cross-validation, once. Folded into the network's own last layer it is
the classifier that every command of the house reads.

Letters: `R` rows, `W` hidden width, `C` classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from mingshi.display import Display
from mingshi.errors import Problem, RecipeError
from mingshi.model import export, heads
from mingshi.model.assets import cache_root
from mingshi.model.features import kept_features
from mingshi.model.load import Model, load
from mingshi.objectives import Classify
from mingshi.types import Example
from mingshi.use import STREAM, text_sample
from mingshi.workflows.label_file import Labelling, Rows

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # inverse, as scikit-learn counts them
FOLDS = 5
FLAT = 1e-6  # deviation of a state that is the same in every text


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """A head for standardised states."""

    weight_CW: np.ndarray
    bias_C: np.ndarray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Encoded:
    """The states of all rows, standardised, and the model that they are of."""

    model: Model
    seeds_RW: np.ndarray
    unlabelled_RW: np.ndarray
    gold_RW: np.ndarray
    mean_W: np.ndarray
    deviation_W: np.ndarray
    strength: float

    def solve(self, labels: Sequence[int], places: np.ndarray, given: Sequence[int], *, weight: float) -> Solved:
        """By the seeds' labels and those given to unlabelled rows; a seed counts `weight` times where there are any."""
        states_RW = np.concatenate([self.seeds_RW, self.unlabelled_RW[places]])
        weights_R = np.concatenate([np.full(len(labels), weight if len(places) else 1.0), np.ones(len(places))])
        return _solved(states_RW, np.concatenate([labels, given]).astype(int), weights_R, self.strength)

    def shares(self, solved: Solved) -> np.ndarray:
        """`[unlabelled and then gold, C]`: the probabilities of a head."""
        states_RW = np.concatenate([self.unlabelled_RW, self.gold_RW])
        found: np.ndarray = softmax(states_RW @ solved.weight_CW.T + solved.bias_C, axis=1)
        return found

    def save(self, solved: Solved, folder: Path) -> None:
        """The model with the head folded into its last layer: standardising is part of its weights then."""
        weight_CW = solved.weight_CW / self.deviation_W
        bias_C = solved.bias_C - weight_CW @ self.mean_W
        layer = self.model.network.get_submodule(heads.head_of(self.model.network).output)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight_CW))
            layer.bias.copy_(torch.from_numpy(bias_C))
        card = f"# {folder.parent.name}\n\nA head over {self.model.name}, trained by `mingshi label`.\n"
        export.save(self.model, folder, facts={"base": self.model.name, "kind": "model"}, card=card)


def encoded(told: Labelling, rows: Rows, display: Display) -> Encoded:
    """Read every text; states are kept in the cache. RecipeError where the network's head is more than one layer."""
    if find_spec("sklearn") is None:
        mend = "pip install 'mingshi[health]', or set training.student: network."
        raise RecipeError(
            Problem(field="training.student", what="a head needs scikit-learn, which is not installed", mend=mend)
        )
    training = told.training
    classes = heads.Classes(names=rows.classes, problem="single_label", pooling="mean", seed=told.seed)
    model = load(told.model, precision="float32", device=training.device, classes=classes)
    _require_one_layer(model)
    objective = Classify.of(classes, max_length=min(training.max_length, model.context))
    every: list[Example] = [*rows.seeds, *rows.unlabelled, *rows.gold]
    samples = [text_sample(model, objective, row) for row in every]
    folder = cache_root() / "companions" / "features"
    states_RW = kept_features(model.network, samples, folder=folder, budget=STREAM, display=display).values_RW
    mean_W, deviation_W = states_RW.mean(axis=0), np.maximum(states_RW.std(axis=0), FLAT)
    first, second = len(rows.seeds), len(rows.seeds) + len(rows.unlabelled)
    seeds_RW, unlabelled_RW, gold_RW = np.split((states_RW - mean_W) / deviation_W, [first, second])
    labels = np.array([rows.classes.index(str(row.label)) for row in rows.seeds])
    return Encoded(
        model=model,
        seeds_RW=seeds_RW,
        unlabelled_RW=unlabelled_RW,
        gold_RW=gold_RW,
        mean_W=mean_W,
        deviation_W=deviation_W,
        strength=_strength(seeds_RW, labels, told.seed),
    )


def _require_one_layer(model: Model) -> None:
    probe_NW = torch.zeros(1, model.network.config.hidden_size, device=model.device)
    output = model.network.get_submodule(heads.head_of(model.network).output)
    with torch.no_grad():
        alike = torch.allclose(heads.logits(model.network, probe_NW + 1), output(probe_NW + 1).float())
    if not alike:
        what = f"{model.name} has a head of more than one layer"
        raise RecipeError(Problem(field="training.student", what=what, mend="Set training.student: network."))


def _strength(states_RW: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """The strength with the least log loss over the folds of the seeds; the middle one where a class is too rare."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    folds = min(FOLDS, int(np.bincount(labels).min()))
    if folds < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
    scores = [
        cross_val_score(
            LogisticRegression(C=strength, max_iter=1000), states_RW, labels, cv=cut, scoring="neg_log_loss"
        ).mean()
        for strength in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(scores))]


def _solved(states_RW: np.ndarray, labels_R: np.ndarray, weights_R: np.ndarray, strength: float) -> Solved:
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=strength, max_iter=1000).fit(states_RW, labels_R, sample_weight=weights_R)
    weight, bias = found.coef_, found.intercept_
    if len(weight) == 1:  # of two classes scikit-learn tells the difference alone
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return Solved(weight, bias)
