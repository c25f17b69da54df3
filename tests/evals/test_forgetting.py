"""What was lost and won between two measurements, against counts and formulas that a reader can check."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mingshi.errors import RecipeError
from mingshi.evals import statistics
from mingshi.evals.classification import answers_of
from mingshi.evals.forgetting import changes, transfers
from mingshi.types import Score, Scores


def shares(values: list[float], *, name: str = "accuracy", chance: float | None = None) -> Scores:
    items = {name: values} | ({"chance": [chance] * len(values)} if chance is not None else {})
    value = sum(values) / len(values)
    score = Score(value=value, low=math.nan, high=math.nan, count=len(values), signature=name)
    return Scores(scores={name: score}, items=items)


def ratios(sums: list[float], weights: list[float]) -> Scores:
    items = {"nats_per_token.sum": sums, "nats_per_token.weight": weights}
    return Scores(scores={"nats_per_token": statistics.ratio(sums, weights, signature="nats")}, items=items)


def test_lost_and_won_items_are_counted_where_the_mean_stands_still() -> None:
    """A mean that did not move hides that everything changed."""
    before = [1.0] * 30 + [0.0] * 30
    change = changes(shares(before), shares(before[::-1]))["accuracy"]
    assert change.difference.value == 0 and change.better is None
    assert (change.lost, change.won, change.p_value) == (30, 30, 1.0)


def test_a_planted_loss_is_found_with_mcnemars_exact_value() -> None:
    before = [1.0] * 80 + [0.0] * 20
    after = [0.0] * 12 + [1.0] * 68 + [1.0] * 2 + [0.0] * 18
    change = changes(shares(before), shares(after))["accuracy"]
    assert (change.lost, change.won) == (12, 2) and change.better is False
    # Two of fourteen coins: (1 + 14 + 91) / 2^14, both sides.
    assert change.p_value == pytest.approx(2 * 106 / 2**14)
    assert change.difference.value == pytest.approx(-0.1)


def test_what_is_retained_is_corrected_for_chance() -> None:
    """From 0.75 to 0.5 where a guess is right in 0.25: half of what was there is left, not two thirds."""
    before, after = [1.0] * 75 + [0.0] * 25, [1.0] * 50 + [0.0] * 50
    kept = changes(shares(before, chance=0.25), shares(after, chance=0.25))["accuracy"].retained
    assert kept is not None and kept.value == pytest.approx(0.5)
    assert kept.low < 0.5 < kept.high
    plain = changes(shares(before), shares(after))["accuracy"].retained
    assert plain is not None and plain.value == pytest.approx(2 / 3)


def test_where_nothing_stood_above_chance_nothing_can_be_retained() -> None:
    guessing = [1.0] * 26 + [0.0] * 74
    assert changes(shares(guessing, chance=0.25), shares([0.0] * 100, chance=0.25))["accuracy"].retained is None


def test_losses_of_form_are_told_apart() -> None:
    before, after = [0.0] * 50, [1.0] * 20 + [0.0] * 30
    change = changes(shares(before, name="unfinished"), shares(after, name="unfinished"))["unfinished"]
    assert change.format and change.retained is None and (change.lost, change.won) == (20, 0) and change.better is False
    assert not changes(shares(before), shares(after))["accuracy"].format


def test_of_a_sum_over_a_sum_each_items_own_ratio_is_compared() -> None:
    change = changes(ratios([10.0, 20.0, 9.0], [10, 10, 3]), ratios([9.0, 30.0, 9.0], [10, 10, 3]))["nats_per_token"]
    assert (change.lost, change.won) == (1, 1) and change.retained is None


def test_other_items_are_not_compared() -> None:
    one = Scores(scores={"accuracy": statistics.mean([1.0], signature="a")}, items={"accuracy": [1.0]})
    other = Scores(scores={"accuracy": statistics.mean([1.0], signature="b")}, items={"accuracy": [1.0]})
    with pytest.raises(RecipeError, match="not measured alike"):
        changes(one, other)


def matrix(values: list[list[float]], *, count: int = 400) -> list[dict[str, Scores]]:
    """Rows of before and after each stage, columns of tasks a, b, …: shares of `count` items that are right."""
    return [
        {
            task: shares([1.0] * round(share * count) + [0.0] * (count - round(share * count)))
            for task, share in zip("abc", row, strict=False)
        }
        for row in values
    ]


def test_transfers_are_those_of_the_paper() -> None:
    """Three tasks, each taught by its stage: ACC, BWT and FWT by hand."""
    rows = matrix([[0.1, 0.2, 0.3], [0.8, 0.3, 0.3], [0.6, 0.9, 0.5], [0.5, 0.7, 0.8]])
    metrics, taught = dict.fromkeys("abc", "choice.accuracy"), {"a": 0, "b": 1, "c": 2}
    (found,) = transfers(rows, metrics, taught)
    assert found.average is not None and found.backward is not None and found.forward is not None
    assert found.average.value == pytest.approx((0.5 + 0.7 + 0.8) / 3)
    assert found.backward.value == pytest.approx(((0.5 - 0.8) + (0.7 - 0.9)) / 2)
    assert found.forward.value == pytest.approx(((0.3 - 0.2) + (0.5 - 0.3)) / 2)
    assert found.forgetting is not None
    assert found.forgetting.value == pytest.approx(((0.8 - 0.5) + (0.9 - 0.7)) / 2)
    assert found.forgetting.low < 0.25 < found.forgetting.high


def test_forgetting_is_from_the_best_that_a_task_was_since_its_own_stage() -> None:
    rows = matrix([[0.99, 0.2, 0.3], [0.5, 0.3, 0.3], [0.7, 0.9, 0.5], [0.6, 0.95, 0.8]])
    (found,) = transfers(rows, dict.fromkeys("abc", "choice.accuracy"), {"a": 0, "b": 1, "c": 2})
    assert found.forgetting is not None and found.backward is not None
    assert found.forgetting.value == pytest.approx(((0.7 - 0.6) + (0.9 - 0.95)) / 2), "0.99 was before it was taught"
    assert found.backward.value == pytest.approx((0.1 + 0.05) / 2)


def classified(right: list[int]) -> Scores:
    """A classifier of two classes, right where it says so."""
    label = [place % 2 for place in range(len(right))]
    second = [float(one if hit else 1 - one) * 0.8 + 0.1 for one, hit in zip(label, right, strict=True)]
    items = {"label": label, "probability.no": [1 - share for share in second], "probability.yes": second}
    answers = answers_of(items)
    values = answers.measure(np.ones((1, len(right))))[0].tolist()
    scores = {
        name: Score(value=value, low=0, high=1, count=len(right), signature=name)
        for name, value in zip(answers.metrics(), values, strict=True)
    }
    return Scores(scores=scores, items=items)


def test_a_classifiers_items_are_counted_and_averaged_as_any_shares_are() -> None:
    before, after = [1] * 70 + [0] * 30, [1] * 50 + [0] * 40 + [1] * 10
    change = changes(classified(before), classified(after))["accuracy"]
    assert (change.lost, change.won) == (20, 10) and change.p_value == pytest.approx(statistics.mcnemar(10, 20))
    plain = [{"a": shares([float(one) for one in row])} for row in (before, after, after)]
    ours = [{"a": classified(row)} for row in (before, after, after)]
    metrics, taught = {"a": "classification.accuracy"}, {"a": 0}
    (found,), (wanted,) = transfers(ours, metrics, taught), transfers(plain, metrics, taught)
    assert found.average is not None and wanted.average is not None
    assert (found.average.value, found.average.low) == pytest.approx((wanted.average.value, wanted.average.low))
    assert found.backward is not None and found.backward.value == 0


def test_what_is_no_mean_of_items_has_an_interval_by_the_jackknife() -> None:
    """Of macro-F1 it is about as wide as the bootstrap's."""
    generator = np.random.default_rng(1)
    scores = classified((generator.random(300) < 0.8).astype(int).tolist())
    (found,) = transfers([{"a": scores}] * 2, {"a": "classification.macro_f1"}, {"a": 0})
    assert found.average is not None and found.average.value == pytest.approx(scores.scores["macro_f1"].value)
    answers = answers_of(scores.items)
    column = answers.metrics().index("macro_f1")
    drawn = statistics.measured(
        lambda counts_RN: answers.measure(counts_RN)[:, [column]], 300, signatures=["macro_f1"], seed=0
    )[0]
    assert found.average.high - found.average.low == pytest.approx(drawn.high - drawn.low, rel=0.15)


def test_a_transfer_of_nats_is_positive_where_they_fall() -> None:
    rows = [{"a": ratios([value * 10] * 5, [10.0] * 5)} for value in (3.0, 2.0, 2.5)]
    (found,) = transfers(rows, {"a": "perplexity.nats_per_token"}, {"a": 0})
    assert found.backward is not None and found.backward.value == pytest.approx(-0.5)
    assert found.average is not None and found.average.value == pytest.approx(2.5)
    assert found.forward is None


def test_tasks_of_different_metrics_have_no_average_together() -> None:
    rows = [{"a": shares([1.0, 0.0]), "b": ratios([2.0, 2.0], [1.0, 1.0])} for _ in range(3)]
    found = transfers(rows, {"a": "choice.accuracy", "b": "perplexity.nats_per_token"}, {"a": 0, "b": 1})
    assert [one.metric for one in found] == ["choice.accuracy", "perplexity.nats_per_token"]


def test_the_interval_of_an_average_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    truth, covered = {"a": 0.7, "b": 0.4}, 0
    for _ in range(400):
        row = {task: shares((generator.random(150) < share).astype(float).tolist()) for task, share in truth.items()}
        (found,) = transfers([row, row], dict.fromkeys("ab", "choice.accuracy"), {"a": 0, "b": 0})
        score = found.average
        assert isinstance(score, Score)
        covered += score.low <= 0.55 <= score.high
    assert 0.92 <= covered / 400 <= 0.975
    assert not math.isnan(score.low)
