"""Against scikit-learn and scipy on random answers; intervals against what else knows them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics as reference
from encoders import tiny_encoder

from mingshi.errors import DataError, RecipeError
from mingshi.evals import Classification, compare, statistics
from mingshi.evals.calibration import BINS, fit_temperature
from mingshi.evals.classes import RATED, Multi, Numbers, Single, answers_of, logits_of
from mingshi.model.heads import Classes
from mingshi.model.load import load
from mingshi.objectives import Classify
from mingshi.types import Labelled, Sample, Score, Scores

NAMES = ("甲", "b", "c", "absent")


def single(count: int = 300, kinds: int = 3, *, seed: int = 0, sharp: float = 1.0) -> Single:
    """Answers that are right more often than not, rounded so that there are ties."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(kinds, count, p=np.arange(1, kinds + 1) / np.arange(1, kinds + 1).sum())
    scores = generator.normal(size=(count, kinds)) + sharp * (np.arange(kinds) == truth[:, None])
    shares = np.round(np.exp(scores) / np.exp(scores).sum(1, keepdims=True), 2)
    return Single(NAMES[:kinds], truth, shares)


def multi(count: int = 250, *, seed: int = 0) -> Multi:
    generator = np.random.default_rng(seed)
    truth = generator.random((count, 3)) < [0.5, 0.2, 0.05]
    return Multi(NAMES[:3], truth, np.round(generator.random((count, 3)) * 0.6 + 0.4 * truth, 2))


def values(answers: Single | Multi | Numbers) -> dict[str, float]:
    found = answers.measure(np.ones((1, len(answers))))[0]
    return dict(zip(answers.metrics(), found.tolist(), strict=True))


def agree(found: dict[str, float], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), abs=1e-12), name


@pytest.mark.parametrize(("kinds", "sharp"), [(2, 1.0), (3, 1.0), (4, 0.3)])
def test_one_class_of_several_is_scikit_learns(kinds: int, sharp: float) -> None:
    answers = single(kinds=kinds, sharp=sharp)
    truth, taken, shares = answers.truth_N, answers.shares_NK.argmax(1), answers.shares_NK
    found = values(answers)
    areas = [reference.roc_auc_score(truth == place, shares[:, place]) for place in range(kinds)]
    agree(
        found,
        {
            "accuracy": reference.accuracy_score(truth, taken),
            "macro_f1": reference.f1_score(truth, taken, average="macro"),
            "weighted_f1": reference.f1_score(truth, taken, average="weighted"),
            "micro_f1": reference.f1_score(truth, taken, average="micro"),
            "mcc": reference.matthews_corrcoef(truth, taken),
            "roc_auc": areas[1] if kinds == 2 else np.mean(areas),
        },
    )
    rates = reference.precision_recall_fscore_support(truth, taken)
    for rate, column in zip(("precision", "recall", "f1"), rates, strict=False):
        agree(found, {f"{rate}.{name}": column[place] for place, name in enumerate(NAMES[:kinds])})
    matrix = answers.confusion(np.ones((1, len(truth))))[0]
    assert np.array_equal(matrix, reference.confusion_matrix(truth, taken))


def test_several_classes_are_scikit_learns() -> None:
    answers = multi()
    truth, taken = answers.truth_NK, answers.shares_NK > 0.5
    found = values(answers)
    agree(
        found,
        {
            "accuracy": reference.accuracy_score(truth, taken),
            "macro_f1": reference.f1_score(truth, taken, average="macro"),
            "weighted_f1": reference.f1_score(truth, taken, average="weighted"),
            "micro_f1": reference.f1_score(truth, taken, average="micro"),
            "roc_auc": reference.roc_auc_score(truth, answers.shares_NK, average="macro"),
        },
    )
    rates = reference.precision_recall_fscore_support(truth, taken, zero_division=0)
    for rate, column in zip(("precision", "recall", "f1"), rates, strict=False):
        agree(found, {f"{rate}.{name}": column[place] for place, name in enumerate(NAMES[:3])})


def test_numbers_are_scipys_and_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    truth = np.round(generator.normal(size=200), 1)  # ties
    predicted = np.round(truth + generator.normal(size=200), 1)
    agree(
        values(Numbers(truth, predicted)),
        {
            "pearson": scipy.stats.pearsonr(truth, predicted).statistic,
            "spearman": scipy.stats.spearmanr(truth, predicted).statistic,
            "mean_absolute_error": reference.mean_absolute_error(truth, predicted),
        },
    )


def test_a_class_that_no_text_has_is_zero_and_out_of_the_means() -> None:
    answers = single(kinds=3)
    wider = Single(NAMES, answers.truth_N, np.pad(answers.shares_NK, ((0, 0), (0, 1))))
    found, narrow = values(wider), values(answers)
    assert found["f1.absent"] == 0.0
    agree(found, {name: narrow[name] for name in ("accuracy", "macro_f1", "weighted_f1", "mcc", "roc_auc")})


def test_where_all_texts_are_of_one_class_there_is_no_area() -> None:
    found = values(Single(NAMES[:2], np.zeros(5, dtype=np.int64), np.tile([0.8, 0.2], (5, 1))))
    assert math.isnan(found["roc_auc"]) and found["mcc"] == 0.0 and found["accuracy"] == 1.0


def test_the_calibration_error_is_its_definition() -> None:
    answers = single(count=200, kinds=2)
    confidence, right = answers.shares_NK.max(1), answers.shares_NK.argmax(1) == answers.truth_N
    order = np.argsort(confidence, kind="stable")
    ranks = scipy.stats.rankdata(confidence, method="min") - 1
    wanted = 0.0
    for number in range(BINS):
        chosen = [place for place in order if int(ranks[place]) * BINS // 200 == number]
        if chosen:
            wanted += len(chosen) / 200 * abs(confidence[chosen].mean() - right[chosen].mean())
    agree(values(answers), {"ece": wanted})


def test_probabilities_that_come_true_as_often_as_they_say_are_calibrated() -> None:
    generator = np.random.default_rng(0)
    share = generator.uniform(0.5, 1.0, 40_000)
    truth = (generator.random(40_000) >= share).astype(np.int64)
    calibrated = Single(("a", "b"), truth, np.stack([share, 1 - share], axis=1))
    boastful = Single(("a", "b"), truth, np.stack([np.minimum(share + 0.2, 1), np.maximum(0.8 - share, 0)], axis=1))
    assert values(calibrated)["ece"] < 0.01 < 0.1 < values(boastful)["ece"]


# Resampling


def test_a_resample_is_the_rows_it_drew() -> None:
    """Every metric from counts is that of the rows written out so many times."""
    generator = np.random.default_rng(3)
    chosen = generator.integers(0, 80, 80)
    counts = np.bincount(chosen, minlength=80).astype(np.float64)[None]
    one, many = single(count=80), multi(count=80)
    noise = generator.normal(size=80)
    numbers = Numbers(np.round(noise, 1), np.round(noise + generator.normal(size=80), 1))
    drawn = [
        Single(one.names, one.truth_N[chosen], one.shares_NK[chosen]),
        Multi(many.names, many.truth_NK[chosen], many.shares_NK[chosen]),
        Numbers(numbers.truth_N[chosen], numbers.predicted_N[chosen]),
    ]
    for answers, written in zip((one, many, numbers), drawn, strict=True):
        found = dict(zip(answers.metrics(), answers.measure(counts)[0].tolist(), strict=True))
        wanted = values(written)
        wanted.pop("ece", None)  # whose bins are those of all rows
        agree(found, wanted)


def test_the_interval_of_a_mean_is_the_bootstraps() -> None:
    column = np.random.default_rng(0).gamma(1.0, size=120)
    signatures = ["mean"]
    (found,) = statistics.measured(lambda counts: counts @ column[:, None] / 120, 120, signatures=signatures)
    wanted = statistics.mean(column.tolist(), signature="mean")
    assert found.value == pytest.approx(wanted.value)
    assert [found.low, found.high] == pytest.approx([wanted.low, wanted.high], rel=0.03)


def test_intervals_hold_what_they_say() -> None:
    """Of 150 samples of a known population, about 95 % of the intervals have its macro F1 in them."""
    population = single(count=20_000)
    truth = values(population)["macro_f1"]
    place, held = RATED.index("macro_f1"), 0
    for start in range(0, 15_000, 100):
        rows = slice(start, start + 100)
        answers = Single(population.names, population.truth_N[rows], population.shares_NK[rows])
        score = statistics.measured(
            lambda counts, one=answers: one.rated(counts)[:, [place]], 100, signatures=["macro_f1"], seed=start
        )[0]
        held += score.low <= truth <= score.high
    assert 0.89 <= held / 150 <= 0.99


def scored(answers: Single, *, seed: int = 0) -> Scores:
    names = answers.metrics()
    items = {"label": answers.truth_N.tolist()}
    items |= {f"probability.{name}": answers.shares_NK[:, place].tolist() for place, name in enumerate(answers.names)}
    digest = statistics.items_digest(items["label"])
    scores = statistics.measured(
        answers.measure, len(answers), signatures=[f"{name}|{digest}" for name in names], seed=seed
    )
    return Scores(scores=dict(zip(names, scores, strict=True)), items=items)


def test_differences_are_paired() -> None:
    before = single()
    after = Single(before.names, before.truth_N, np.where(np.arange(300)[:, None] < 20, 0.0, before.shares_NK))
    after.shares_NK[np.arange(20), before.truth_N[:20]] = 1.0
    found = compare(scored(before), scored(after))
    assert set(found) == set(before.metrics())
    right = [(one.shares_NK.argmax(1) == one.truth_N).astype(float).tolist() for one in (before, after)]
    wanted = statistics.difference(*right, signature="")
    assert found["accuracy"].value == pytest.approx(wanted.value)
    assert [found["accuracy"].low, found["accuracy"].high] == pytest.approx([wanted.low, wanted.high], abs=0.004)
    apart = scored(before).scores["accuracy"]
    assert found["accuracy"].high - found["accuracy"].low < (apart.high - apart.low) / 2
    same = compare(scored(before), scored(before))["macro_f1"]
    assert same.value == 0.0 and math.isnan(same.low)


def test_answers_to_other_texts_are_not_compared() -> None:
    with pytest.raises(RecipeError, match="not measured alike"):
        compare(scored(single()), scored(single(seed=1)))


# With a network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


def run(folder: Path, problem: Any, labels: list[Any], *, cuts: int = 1) -> tuple[Scores, Any]:
    names = ("a", "b", "c") if problem != "regression" else ("number",)
    classes = Classes(names=names, problem=problem)
    model = load(folder, precision="float32", classes=classes)
    return Classification().run(model, batches_of(model, classes, labels, cuts=cuts)), model


def rows_of(labels: list[Any]) -> list[Labelled]:
    return [
        Labelled(
            id=f"r{place}",
            source="rows",
            line=place,
            group="",
            content=f"text {place} " * 3,
            label=label,
            attributes={"half": "first" if 2 * place < len(labels) else "second"},
        )
        for place, label in enumerate(labels)
    ]


def batches_of(model: Any, classes: Classes, labels: list[Any], *, cuts: int = 1) -> list[Any]:
    objective = Classify.of(classes, max_length=64)
    encoded = (objective.encode(row, model.text) for row in rows_of(labels))
    samples = [sample for sample in encoded if isinstance(sample, Sample)]
    size = -(-len(samples) // cuts)
    return [objective.collate(samples[start : start + size], "cpu") for start in range(0, len(samples), size)]


def test_the_evaluator_measures_a_network_whatever_the_batches(folder: Path) -> None:
    labels = list("abcabcabca")
    found, model = run(folder, "single_label", labels)
    again, _ = run(folder, "single_label", labels, cuts=3)
    assert found.scores.keys() == again.scores.keys()
    for name, score in found.scores.items():
        assert isinstance(score, Score) and score.value == pytest.approx(again.scores[name].value, abs=1e-6)
        assert score.signature == again.scores[name].signature and score.count == 10
    answers = answers_of(found.items)
    assert isinstance(answers, Single) and answers.names == ("a", "b", "c")
    shares = np.stack([found.items[f"probability.{name}"] for name in "abc"], axis=1)
    assert np.allclose(shares.sum(1), 1.0, atol=1e-6)
    wrong = {sample["id"] for sample in found.samples}
    assert len(wrong) == sum(answers.errors() > 0)
    assert all(sample["prompt"].startswith("text") for sample in found.samples)
    assert all(sample["prediction"] != sample["reference"] for sample in found.samples)
    assert not model.network.training


def test_the_share_of_right_answers_has_an_interval_even_where_it_is_all(folder: Path) -> None:
    found, _ = run(folder, "single_label", list("abcabcabca"))
    taken = [sample["prediction"] for sample in found.samples]
    assert taken
    score = found.scores["accuracy"]
    low, high = statistics.wilson(round(score.value * 10), 10)
    assert (score.low, score.high) == (low, high)


def test_several_labels_and_numbers_are_measured_too(folder: Path) -> None:
    many, _ = run(folder, "multi_label", [("a",), ("b", "c"), (), ("a", "b"), ("c",), ("a",)])
    assert {"label.a", "probability.c"} <= set(many.items) and "mcc" not in many.scores
    numbers, _ = run(folder, "regression", [0.5, 1.5, -2.0, 3.0])
    assert list(numbers.scores) == ["pearson", "spearman", "mean_absolute_error"]
    assert set(numbers.items) == {"label", "prediction"}


def test_a_temperature_of_other_rows_and_slices_are_measured_too(folder: Path) -> None:
    labels = list("abcabcabca" * 3)
    plain, model = run(folder, "single_label", labels)
    classes = Classes(names=("a", "b", "c"), problem="single_label")
    batches, held = batches_of(model, classes, labels), batches_of(model, classes, list("cab" * 7))
    evaluator = Classification(slices=("half",))
    found = evaluator.run(model, batches, examples=rows_of(labels), validation=held)
    added = {"temperature", "scaled_ece", "scaled_brier", "scaled_log_loss"}
    parts = {name for name in found.scores if name.startswith("slice_")}
    assert set(found.scores) == set(plain.scores) | added | parts
    assert all(found.scores[name].value == plain.scores[name].value for name in ("ece", "brier", "log_loss"))
    assert found.scores["temperature"].count == 21 and found.items == plain.items
    assert {name.partition(".")[2] for name in parts} == {"half=first", "half=second"} and len(parts) == 10
    fitted = fit_temperature(logits_of(answers := said(model, held)), answers.truth_N)
    assert found.scores["temperature"].value == fitted.value
    with pytest.raises(RecipeError, match="no text has the attribute"):
        Classification(slices=("third",)).run(model, batches, examples=rows_of(labels))


def said(model: Any, batches: list[Any]) -> Single:
    answers = answers_of(Classification().run(model, batches).items)
    assert isinstance(answers, Single)
    return answers


def test_nothing_to_score_and_no_classifier_are_errors(folder: Path, tmp_path: Path) -> None:
    model = load(folder, precision="float32", classes=Classes(names=("a", "b"), problem="single_label"))
    with pytest.raises(DataError, match="no labelled text"):
        Classification().run(model, [])
    from tiny import tiny_model

    with pytest.raises(RecipeError, match="is no classifier"):
        Classification().run(load(tiny_model(tmp_path)), [])
