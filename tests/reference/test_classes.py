"""Areas and probabilities against scikit-learn, the temperature against torch's own optimiser."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mingshi.errors import DataError
from mingshi.evals import statistics
from mingshi.evals.calibration import LEAST, fit_temperature, reliability
from mingshi.evals.classes import Multi, Single, answers_of, believed, labels_of, logits_of, tempered

reference: Any = pytest.importorskip("sklearn.metrics")

NAMES = ("甲", "b", "c", "absent")


def single(kinds: int, *, absent: bool = False, count: int = 240) -> Single:
    """Probabilities with two decimals, so that many are equal; `absent`: no text has the last class."""
    generator = np.random.default_rng(kinds)
    truth = generator.integers(0, kinds - absent, count)
    scores = generator.normal(size=(count, kinds)) + 1.2 * (np.arange(kinds) == truth[:, None])
    shares = np.round(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), 2)
    shares[:, -1] += 1 - shares.sum(1)
    return Single(NAMES[:kinds], truth, np.abs(shares))


def multi(*, absent: bool = False, count: int = 200) -> Multi:
    generator = np.random.default_rng(9)
    truth = generator.random((count, 3)) < [0.5, 0.2, 0.0 if absent else 0.1]
    return Multi(NAMES[:3], truth, np.round(generator.random((count, 3)) * 0.6 + 0.4 * truth, 2))


def values(answers: Single | Multi) -> dict[str, float]:
    found = answers.measure(np.ones((1, len(answers))))[0]
    return dict(zip(answers.metrics(), found.tolist(), strict=True))


def agree(found: dict[str, float], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), abs=1e-12), name


def ranked(answers: Single | Multi, present: Sequence[int]) -> dict[str, Any]:
    """Every area by scikit-learn, over the classes that some texts have."""
    truth, shares = answers.wins_NK[:, present], answers.shares_NK[:, present]
    told: dict[str, Any] = {}
    for name, score in (
        ("roc_auc", reference.roc_auc_score),
        ("average_precision", reference.average_precision_score),
    ):
        told[name] = score(truth, shares, average="macro")
        told[f"weighted_{name}"] = score(truth, shares, average="weighted")
        each = score(truth, shares, average=None)
        told |= {f"{name}.{answers.names[place]}": value for place, value in zip(present, each, strict=True)}
    return told


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("kinds", [3, 4])
def test_areas_of_one_class_of_several_are_scikit_learns(kinds: int, absent: bool) -> None:
    answers = single(kinds, absent=absent)
    found, present = values(answers), range(kinds - absent)
    agree(found, ranked(answers, list(present)))
    if absent:
        assert math.isnan(found[f"roc_auc.{NAMES[kinds - 1]}"])
        assert math.isnan(found[f"average_precision.{NAMES[kinds - 1]}"])


@pytest.mark.parametrize("absent", [False, True])
def test_areas_of_any_number_of_classes_are_scikit_learns(absent: bool) -> None:
    answers = multi(absent=absent)
    agree(values(answers), ranked(answers, [0, 1] if absent else [0, 1, 2]))


def test_areas_of_two_classes_are_those_of_the_second() -> None:
    answers = single(2)
    found, share = values(answers), answers.shares_NK[:, 1]
    assert "weighted_roc_auc" not in found
    agree(
        found,
        {
            "roc_auc": reference.roc_auc_score(answers.truth_N, share),
            "average_precision": reference.average_precision_score(answers.truth_N, share),
            "average_precision.甲": reference.average_precision_score(1 - answers.truth_N, answers.shares_NK[:, 0]),
        },
    )


def test_means_of_precision_and_recall_are_scikit_learns() -> None:
    for answers, truth, taken in (
        (one := single(3), one.truth_N, one.shares_NK.argmax(1)),
        (many := multi(), many.truth_NK, many.shares_NK > 0.5),
    ):
        found = values(answers)
        for mean in ("macro", "weighted"):
            wanted = reference.precision_recall_fscore_support(truth, taken, average=mean, zero_division=0)
            agree(found, {f"{mean}_{rate}": wanted[place] for place, rate in enumerate(("precision", "recall", "f1"))})


def test_a_resample_has_the_areas_of_the_rows_it_drew() -> None:
    generator = np.random.default_rng(3)
    for answers in (single(4, count=60), multi(count=60)):
        counts = np.bincount(generator.integers(0, 60, 60), minlength=60)
        chosen = np.repeat(np.arange(60), counts)
        drawn: Single | Multi
        if isinstance(answers, Single):
            drawn = Single(answers.names, answers.truth_N[chosen], answers.shares_NK[chosen])
        else:
            drawn = Multi(answers.names, answers.truth_NK[chosen], answers.shares_NK[chosen])
        found = answers.measure(counts[None].astype(np.float64))[0]
        wanted = values(drawn)
        names = [name for name in wanted if "roc" in name or "average" in name or name in ("brier", "log_loss")]
        agree(dict(zip(answers.metrics(), found.tolist(), strict=True)), {name: wanted[name] for name in names})


def test_areas_have_intervals_that_hold_them() -> None:
    answers = single(3)
    scores = statistics.measured(answers.measure, len(answers), signatures=answers.metrics())
    told = dict(zip(answers.metrics(), scores, strict=True))
    for name in ("roc_auc", "weighted_average_precision", "average_precision.b", "brier", "log_loss"):
        assert told[name].low < told[name].value < told[name].high


@pytest.mark.parametrize("kinds", [2, 3])
def test_probabilities_are_scored_as_by_scikit_learn(kinds: int) -> None:
    answers = single(kinds)
    names, shares = list(range(kinds)), answers.shares_NK
    column = shares[:, 1] if kinds == 2 else shares
    agree(
        values(answers),
        {
            "log_loss": reference.log_loss(answers.truth_N, shares, labels=names),
            "brier": reference.brier_score_loss(answers.truth_N, column)
            if kinds == 2
            else np.mean(((np.eye(kinds)[answers.truth_N] - shares) ** 2).sum(1)),
        },
    )


def test_each_class_by_itself_is_scored_as_by_scikit_learn() -> None:
    answers = multi()
    columns = list(zip(answers.truth_NK.T, answers.shares_NK.T, strict=True))
    agree(
        values(answers),
        {
            "log_loss": np.mean([reference.log_loss(truth, share) for truth, share in columns]),
            "brier": np.mean([reference.brier_score_loss(truth, share) for truth, share in columns]),
        },
    )


# Temperature


def torch_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """By LBFGS on the logarithm, as torch minimises its own loss."""
    outputs, wanted = torch.from_numpy(logits), torch.from_numpy(labels)
    logarithm = torch.zeros((), dtype=torch.float64, requires_grad=True)
    lbfgs = torch.optim.LBFGS(
        [logarithm], max_iter=300, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def loss() -> Any:
        lbfgs.zero_grad()
        divided = outputs / logarithm.exp()
        if wanted.ndim == 1:
            total = torch.nn.functional.cross_entropy(divided, wanted)
        else:
            total = torch.nn.functional.binary_cross_entropy_with_logits(divided, wanted.double())
        total.backward()
        return total

    lbfgs.step(loss)
    return float(logarithm.detach().exp())


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_is_the_one_that_torch_finds(true: float) -> None:
    generator = np.random.default_rng(1)
    calm = 2 * generator.normal(size=(3000, 4))
    labels = (calm + generator.gumbel(size=calm.shape)).argmax(1)
    fitted = fit_temperature(calm * true, labels)
    assert fitted.value == pytest.approx(torch_temperature(calm * true, labels), rel=1e-7)
    assert fitted.low < true < fitted.high < 1.2 * true and fitted.count == 3000


def test_the_temperature_of_sigmoids_is_the_one_that_torch_finds() -> None:
    generator = np.random.default_rng(2)
    calm = 2 * generator.normal(size=(800, 3))
    labels = generator.random(calm.shape) < 1 / (1 + np.exp(-calm))
    fitted = fit_temperature(2.5 * calm, labels)
    assert fitted.value == pytest.approx(torch_temperature(2.5 * calm, labels), rel=1e-7)
    assert fitted.low < 2.5 < fitted.high


def test_the_interval_of_the_temperature_holds_what_it_says() -> None:
    generator, held = np.random.default_rng(5), 0
    for _ in range(150):
        calm = 2 * generator.normal(size=(150, 3))
        fitted = fit_temperature(1.7 * calm, (calm + generator.gumbel(size=calm.shape)).argmax(1))
        held += fitted.low <= 1.7 <= fitted.high
    assert 0.9 <= held / 150 <= 0.99


def test_rows_that_know_no_temperature() -> None:
    sure = fit_temperature(np.eye(3) * 4, np.arange(3))
    assert sure.value == LEAST and math.isnan(sure.low)
    assert fit_temperature(np.eye(3) * -4, np.arange(3)).value == 20.0
    assert fit_temperature(np.zeros((3, 3)), np.arange(3)).value == 1.0
    with pytest.raises(DataError, match="no temperature"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64))


@pytest.mark.parametrize("problem", ["single", "multi"])
def test_a_fitted_temperature_mends_what_is_too_sure_and_changes_no_answer(problem: str) -> None:
    generator = np.random.default_rng(4)
    calm = 1.5 * generator.normal(size=(4000, 3))
    if problem == "single":
        labels = (calm + generator.gumbel(size=calm.shape)).argmax(1)
        shares = np.exp(4 * calm) / np.exp(4 * calm).sum(1, keepdims=True)
        answers: Single | Multi = Single(NAMES[:3], labels, shares)
    else:
        labels = generator.random(calm.shape) < 1 / (1 + np.exp(-calm))
        answers = Multi(NAMES[:3], labels, 1 / (1 + np.exp(-4 * calm)))
    warmed = tempered(answers, fit_temperature(logits_of(answers), labels_of(answers)).value)
    ones = np.ones((1, len(answers)))
    before, after = believed(answers, ones)[0], believed(warmed, ones)[0]
    assert after[0] < 0.25 * before[0] and (after[1:] < before[1:]).all()
    assert np.array_equal(answers.rated(ones), warmed.rated(ones))
    assert np.allclose(tempered(answers, 1.0).shares_NK, answers.shares_NK, atol=1e-9)


def test_the_bins_of_the_picture_are_those_of_the_error() -> None:
    answers = single(3)
    bins = reliability(*answers.decisions())
    error = sum(one.count * abs(one.share - one.frequency) for one in bins) / len(answers)
    assert sum(one.count for one in bins) == len(answers)
    agree(values(answers), {"ece": error})


def test_columns_of_a_record_are_understood_as_they_were_written() -> None:
    answers = single(3)
    items = {"label": answers.truth_N.tolist()}
    items |= {f"probability.{name}": answers.shares_NK[:, place].tolist() for place, name in enumerate(answers.names)}
    again = answers_of(items)
    assert isinstance(again, Single) and again.names == answers.names
    assert np.array_equal(again.measure(np.ones((1, 240))), answers.measure(np.ones((1, 240))), equal_nan=True)
