"""The verdict on a stage: planted states are told apart, with noise, and the numbers behind it are what they say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mingshi.checks.fit import SAMPLE, Fit, Losses, apart, fits, judge, unrest
from mingshi.evals import statistics
from mingshi.types import Score

from .curves import Curve, decay, losses, turning

Made = Callable[[int], Fit | None]


def planted(validation: Curve, training: Curve, **options: Any) -> Made:
    def make(seed: int) -> Fit | None:
        wide = {"spread": options["spread"]} if "spread" in options else {}
        shared = {name: value for name, value in options.items() if name != "spread"}
        return judge(losses(validation, seed=seed, **shared, **wide), losses(training, seed=seed, rows=1, **shared))

    return make


STATES: dict[str, tuple[str, str, Made]] = {
    "healthy": ("healthy", "falls", planted(decay(1.85, 6), decay(1.80, 6))),
    "healthy, few rows": ("healthy", "falls", planted(decay(1.9, 5), decay(1.86, 5), items=30)),
    "healthy, measured twice": ("healthy", "falls", planted(decay(1.9, 5), decay(1.86, 5), points=2)),
    "overfitting": ("overfitting", "rises", planted(turning(0.4, 0.12, decay(1.85, 8)), decay(1.2, 3))),
    "overfitting, badly": ("overfitting", "rises", planted(turning(0.3, 0.5, decay(1.85, 8)), decay(0.6, 3))),
    "overfitting from the first epoch": (
        "overfitting",
        "rises",
        planted(turning(0.34, 0.2, decay(1.9, 9)), decay(0.9, 3), points=4),
    ),
    "learning by heart": ("overfitting", "flat", planted(decay(1.85, 10), decay(1.1, 2.5))),
    "learning by heart from the start": ("overfitting", "flat", planted(decay(2.599, 1), decay(1.6, 3), spread=0.0)),
    "underfitting, still falling": ("underfitting", "falling", planted(decay(1.6, 1.5), decay(1.58, 1.5))),
    "underfitting, nothing learnt": ("underfitting", "learnt_nothing", planted(decay(2.595, 2), decay(2.59, 2))),
    "diverging": (
        "diverging",
        "training_rises",
        planted(turning(0.3, 1.0, decay(2, 6)), turning(0.3, 1.0, decay(2, 6))),
    ),
    "diverging, a little": (
        "diverging",
        "both_rise",
        planted(turning(0.3, 0.1, decay(2, 6)), turning(0.3, 0.1, decay(2, 6))),
    ),
    "too few rows": ("too_small", "few_rows", planted(decay(1.85, 6), decay(1.80, 6), items=12)),
    "rows too unlike": ("too_small", "wide", planted(decay(2.58, 6), decay(1.6, 3), items=25, spread=40.0)),
}
SEEDS = 8


@pytest.mark.parametrize(("verdict", "because", "make"), STATES.values(), ids=STATES)
def test_a_planted_state_is_told_nine_times_in_ten(verdict: str, because: str, make: Made) -> None:
    found = Counter((fit.verdict, fit.because) for fit in map(make, range(SEEDS)) if fit is not None)
    right = sum(count for (named, _), count in found.items() if named == verdict)
    assert found.total() == SEEDS and right >= 0.8 * SEEDS, found
    assert found[verdict, because] >= 0.75 * SEEDS, found


def test_over_all_planted_states_nine_verdicts_in_ten_are_right() -> None:
    made = [(verdict, make(seed)) for verdict, _, make in STATES.values() for seed in (20, 21, 22)]
    right = [fit.verdict == verdict for verdict, fit in made if fit is not None]
    assert len(right) == len(made) and sum(right) >= 0.9 * len(right)


@pytest.mark.parametrize("unrest_share", [0.001, 0.003, 0.006])
def test_healthy_stages_are_called_overfitting_less_than_once_in_twenty(unrest_share: float) -> None:
    make = planted(decay(1.85, 6), decay(1.80, 6), items=60, unrest=unrest_share)
    found = Counter(fit.verdict for fit in map(make, range(100, 120)) if fit is not None)
    assert found["overfitting"] + found["diverging"] <= 1, found


def test_overfitting_is_dated_by_the_lowest_validation_loss() -> None:
    make = planted(turning(0.4, 0.12, decay(1.85, 8)), decay(1.2, 3))
    dates = [fit.since for fit in map(make, range(SEEDS)) if fit is not None]
    assert all(date is not None and 150 <= date <= 250 for date in dates)  # of 500 steps, 200 is true


def test_a_single_bad_measurement_at_the_end_is_a_blip() -> None:
    validation, training = (losses(decay(to, 6), seed=5, rows=rows) for rows, to in enumerate((1.85, 1.8)))
    last = validation[-1]
    spike = Losses(step=last.step, sums=[1.03 * total for total in last.sums], weights=last.weights)
    fit = judge([*validation[:-1], spike], training)
    assert fit is not None and fit.verdict == "healthy"


def test_a_loss_that_is_not_finite_is_diverging_and_needs_no_interval() -> None:
    validation, training = (losses(decay(1.8, 6), seed=1, rows=rows) for rows in (0, 1))
    broken = Losses(step=500, sums=[float("nan")] * 60, weights=training[-1].weights)
    fit = judge(validation, [*training[:-1], broken])
    assert fit is not None and (fit.verdict, fit.because, fit.evidence) == ("diverging", "not_finite", {})
    fit = judge(validation, training, diverged=True)
    assert fit is not None and fit.verdict == "diverging" and fit.evidence


def test_the_evidence_is_the_paired_change_and_the_gap() -> None:
    validation, training = (losses(decay(to, 6), seed=2, rows=rows) for rows, to in enumerate((1.9, 1.7)))
    fit = judge(validation, training)
    assert fit is not None
    first, last = validation[0], validation[-1]
    expected = statistics.ratio_difference((first.sums, first.weights), (last.sums, last.weights), signature="")
    told = fit.evidence["validation_change"]
    assert (told.value, told.low, told.high) == (expected.value, expected.low, expected.high)
    assert fit.evidence["gap"].value == pytest.approx(validation[-1].value - training[-1].value)
    grown = (validation[-1].value - validation[0].value) - (training[-1].value - training[0].value)
    assert fit.evidence["gap_grown"].value == pytest.approx(grown)
    assert (fit.first, fit.last, fit.items) == (0, 500, 60)


def test_the_interval_of_a_gap_holds_the_truth_about_as_often_as_it_says() -> None:
    chance = np.random.default_rng(0)
    held = 0
    for _ in range(150):
        one, other = chance.gamma(2.0, 0.5, 40), chance.gamma(3.0, 0.5, 60)
        gap = apart(*(statistics.mean(column.tolist(), signature="") for column in (one, other)))
        held += gap.low <= 1.0 - 1.5 <= gap.high
    assert 134 <= held <= 150


def test_the_unrest_of_a_course_is_estimated_whatever_its_bend() -> None:
    chance = np.random.default_rng(0)
    course = 1.8 + 0.6 * np.exp(-6 * np.linspace(0, 1, 40))
    found = [unrest((course + chance.normal(0, 0.01, 40)).tolist()) for _ in range(50)]
    assert np.mean(found) == pytest.approx(0.01, rel=0.2)
    assert unrest(course.tolist()) < 0.001 and unrest([2.0, 1.9, 1.8, 1.7]) == 0.0


# From records


def record(
    made: list[Losses], data: str, *, stage: int = 0, metric: str = "nats_per_token", sign: int = 1
) -> list[Any]:
    return [
        {
            "stage": stage,
            "step": each.step,
            "when": "during",
            "data": data,
            "kind": "perplexity",
            "scores": {},
            "items": {f"{metric}.sum": [sign * total for total in each.sums], f"{metric}.weight": list(each.weights)},
        }
        for each in made
    ]


STAGE = {"headline": "nats_per_token", "higher_is_better": False}


def overfitted() -> tuple[list[Losses], list[Losses]]:
    return losses(turning(0.4, 0.3, decay(1.85, 8)), seed=3), losses(decay(1.0, 3), seed=3, rows=1)


def test_records_give_the_same_verdict_as_their_numbers() -> None:
    validation, training = overfitted()
    (told,) = fits(record(validation, "validation") + record(training, SAMPLE), [STAGE])
    fit = judge(validation, training)
    assert told is not None and fit is not None
    assert (told["verdict"], told["since"], told["because"]) == (fit.verdict, fit.since, fit.because)
    assert told["evidence"]["gap"]["value"] == fit.evidence["gap"].value
    assert Score(**told["evidence"]["gap"]) == fit.evidence["gap"]


def test_a_headline_that_is_better_higher_is_turned_round() -> None:
    validation, training = overfitted()
    lines = record(validation, "validation", metric="accuracy", sign=-1)
    lines += record(training, SAMPLE, metric="accuracy", sign=-1)
    (told,) = fits(lines, [{"headline": "accuracy", "higher_is_better": True}])
    assert told is not None and told["verdict"] == "overfitting"


def test_each_stage_has_its_own_verdict_and_one_not_measured_in_both_ways_has_none() -> None:
    validation, _ = overfitted()
    healthy = [losses(decay(to, 6), seed=2, rows=rows) for rows, to in enumerate((1.9, 1.86))]
    lines = record(validation, "validation") + record(healthy[0], "validation", stage=1)
    lines += record(healthy[1], SAMPLE, stage=1) + record(healthy[0], "validation", stage=2)
    assert [told and told["verdict"] for told in fits(lines, [STAGE] * 4)] == [None, "healthy", None, None]


def test_only_the_stage_that_was_running_diverged() -> None:
    healthy = [losses(decay(to, 6), seed=2, rows=rows) for rows, to in enumerate((1.9, 1.86))]
    lines = [
        line
        for stage in (0, 1)
        for rows in (0, 1)
        for line in record(healthy[rows], "validation" if not rows else SAMPLE, stage=stage)
    ]
    verdicts = [told and told["verdict"] for told in fits(lines, [STAGE, STAGE, STAGE], diverged=True)]
    assert verdicts == ["healthy", "diverging", None]


def test_steps_measured_in_one_way_only_are_left_out_and_nan_is_read() -> None:
    validation, training = overfitted()
    lines = record(validation, "validation") + record(training[:-1], SAMPLE)
    (told,) = fits(lines, [STAGE])
    assert told is not None and told["last"] == training[-2].step
    lines[-1]["items"]["nats_per_token.sum"][0] = "NaN"
    (told,) = fits(lines, [STAGE])
    assert told is not None and told["because"] == "not_finite"
