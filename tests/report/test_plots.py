"""Figures show the numbers they are given: scales, thinning, smoothing, bins."""

from __future__ import annotations

import math
import random
import re

import pytest

from mingshi.report.curves import length_figure
from mingshi.report.plots import POINTS_AT_MOST, Frame, Scale, histogram, scale, strip, thinned, tick
from mingshi.report.summary import smoothed


@pytest.mark.parametrize(
    ("low", "high", "marks"),
    [(0, 240, [0, 50, 100, 150, 200]), (1.55, 2.6, [1.6, 1.8, 2.0, 2.2, 2.4, 2.6]), (-3, 3, [-2, 0, 2])],
)
def test_ticks_are_round_numbers_inside_the_scale(low: float, high: float, marks: list[float]) -> None:
    found = Scale(low=low, high=high).ticks(6 if high != 3 else 3)
    assert found == pytest.approx(marks)


def test_a_logarithmic_scale_ticks_at_powers_of_ten() -> None:
    made = scale([0.2, 5000.0], logs=True)
    assert made.logarithmic and made.ticks(4) == pytest.approx([1, 10, 100, 1000])
    assert made.place(math.sqrt(made.low * made.high)) == pytest.approx(0.5)


def test_equal_values_still_have_a_scale() -> None:
    for value in (0.0, 3.0, -2.0):
        made = scale([value, value])
        assert made.low < value < made.high


def test_labels_of_ticks_are_short() -> None:
    assert [tick(value) for value in (250, 1500, 20_000, 2.5e6, 0.30000000000000004, -0.5, 2e-4, 0)] == [
        *("250", "1,500", "20k", "2.5M", "0.3", "−0.5", "2×10⁻⁴", "0")
    ]


def test_a_point_is_drawn_where_its_numbers_are() -> None:
    frame = Frame(across=Scale(low=0, high=200), up=Scale(low=1, high=3))
    assert frame.spot((50, 2.5)) == ("25.00%", "25.00%")
    assert 'd="M250.0 250.0L500.0 1000.0"' in frame.curve([(50, 2.5), (100, 1.0)], "raw")


def test_a_curve_breaks_where_it_is_not_finite() -> None:
    frame = Frame(across=Scale(low=0, high=4), up=Scale(low=0, high=1))
    points = [(0, 0.0), (1, 1.0), (2, math.nan), (3, math.inf), (4, 0.5)]
    assert 'd="M0.0 1000.0L250.0 0.0M1000.0 500.0"' in frame.curve(points, "raw")


def test_thinning_keeps_the_highest_and_the_lowest_point_and_the_order() -> None:
    chance = random.Random(0)
    points = [(float(step), chance.gauss(0, 1)) for step in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    points[12_345] = (12_345.0, -99.0)
    kept = thinned(points)
    assert len(kept) <= POINTS_AT_MOST + 2
    assert points[54_321] in kept and points[12_345] in kept
    assert [x for x, _ in kept] == sorted(x for x, _ in kept)


def test_the_smoothed_loss_is_the_mean_of_the_windows_tokens() -> None:
    means, window = smoothed([1.0, 4.0, 7.0, 2.0], [1, 2, 1, 6])
    assert window == 3
    assert means == pytest.approx([1.0, (1 + 8 + 7) / 4, (8 + 7 + 12) / 9, 2.0])


def test_a_loss_that_is_not_finite_counts_nothing_in_its_window() -> None:
    means, _ = smoothed([1.0, math.nan, 3.0, 5.0, 5.0], [1, 1, 1, 1, 1])
    assert math.isnan(means[1]) and means[2] == pytest.approx(4.0) and means[0] == 1.0


def test_a_histogram_counts_every_sample_once() -> None:
    chance = random.Random(2)
    lengths = [chance.randint(1, 700) for _ in range(999)] + [5000]
    _, bins = histogram(lengths, limit=512)
    assert sum(count for _, _, count in bins) == 1000
    assert [last + 1 for _, last, _ in bins[:-1]] == [first for first, _, _ in bins[1:]]
    assert bins[-1][0] <= 5000 <= bins[-1][1]


def test_a_thinned_histogram_is_scaled_to_all_samples_and_says_so() -> None:
    made = length_figure([10] * 30 + [500] * 10, limit=500, dropped=7, samples=4000)
    assert sum(int(row[2].replace(",", "")) for row in made.rows) == 4000
    said = " ".join(note.en for note in made.notes)
    assert "may have lost their end: 1,000." in said and "longer than 500 tokens: 7." in said
    assert "Drawn from 40 evenly spaced quantiles of the 4,000 samples." in said


def test_a_cut_off_far_to_the_right_is_told_and_not_drawn() -> None:
    made = length_figure([10, 20, 30], limit=4096, dropped=0, samples=3)
    assert 'class="cut' not in made.drawing
    assert "No sample reaches the cut-off of 4,096 tokens." in [note.en for note in made.notes]


def test_whiskers_of_one_strip_share_a_scale() -> None:
    drawn = strip((2.0, 1.0, 3.0), (5.0, 4.0, 6.0))
    places = [float(value) for value in re.findall(r'cx="([\d.]+)%"', drawn)]
    ends = [float(value) for value in re.findall(r'x[12]="([\d.]+)%"', drawn)]
    assert places[0] == pytest.approx(sum(ends[:2]) / 2, abs=0.02) and places[1] == pytest.approx(
        sum(ends[2:]) / 2, abs=0.02
    )
    assert places[0] < places[1] and min(ends) >= 0 and max(ends) <= 100
