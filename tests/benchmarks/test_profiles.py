"""Lengths of rows that are cut out of others."""

from __future__ import annotations

import math
import statistics

import pytest

from benchmarks.profiles import DENSE, LONGEST, MEAN, SHORTEST, SIGMAS, cut, lengths
from benchmarks.rows import Row, trained_share

ROWS = [Row(tokens=tuple(range(100 * n, 100 * n + 80)), mask=(0,) * 60 + (1,) * 20) for n in range(50)]


@pytest.mark.parametrize("profile", SIGMAS)
def test_lengths_are_log_normal_and_the_same_each_time(profile: str) -> None:
    drawn = lengths(profile, 4000, seed=0)
    assert drawn == lengths(profile, 4000, seed=0) != lengths(profile, 4000, seed=1)
    assert min(drawn) >= SHORTEST and max(drawn) <= LONGEST
    assert statistics.stdev(map(math.log, drawn)) == pytest.approx(SIGMAS[profile], rel=0.05)
    assert statistics.mean(drawn) == pytest.approx(MEAN, rel=0.05)


def test_dense_rows_are_all_as_long_as_can_be() -> None:
    made = cut(ROWS, DENSE, 3, seed=0)
    assert [len(row.tokens) for row in made] == [LONGEST] * 3


def test_cut_rows_are_the_text_of_the_others_one_after_another() -> None:
    made = cut(ROWS, "wide", 10, seed=0)
    text = [token for row in ROWS * 3 for token in row.tokens]
    joined = [token for row in made for token in row.tokens]
    assert joined == text[: len(joined)]
    assert trained_share(made) == pytest.approx(trained_share(ROWS), abs=0.01)
    assert all(row.mask[-1] == 1 and row.mask[0] == 0 for row in made)
