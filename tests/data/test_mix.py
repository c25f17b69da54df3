"""How often each row of each source is seen in an epoch, and that nothing else matters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as values

from mingshi.data.mix import mix
from mingshi.errors import RecipeError


def counts(sizes: list[int], weights: list[float], *, seed: int = 0, epoch: int = 0) -> list[np.ndarray]:
    rows = np.bincount(mix(sizes, weights, seed=seed, epoch=epoch), minlength=sum(sizes))
    return np.split(rows, np.cumsum(sizes)[:-1])


def test_weight_one_is_each_row_once() -> None:
    rows = mix([5], [1.0], seed=3, epoch=2)
    assert rows.tolist() == [0, 1, 2, 3, 4] and rows.dtype == np.int64
    assert sorted(mix([3, 4], [1.0, 1.0], seed=0, epoch=0)) == list(range(7))


@given(
    sources=values.lists(values.tuples(values.integers(0, 50), values.floats(0, 4)), min_size=1, max_size=4),
    seed=values.integers(-3, 2**40),
    epoch=values.integers(0, 9),
)
def test_each_row_comes_floor_or_ceiling_times_and_the_total_is_exact(
    sources: list[tuple[int, float]], seed: int, epoch: int
) -> None:
    sizes, weights = [size for size, _ in sources], [weight for _, weight in sources]
    totals = [size * int(weight) + round(size * (weight - int(weight))) for size, weight in sources]
    if not sum(totals):
        with pytest.raises(RecipeError, match="no row is left"):
            mix(sizes, weights, seed=seed, epoch=epoch)
        return
    for seen, weight, total in zip(counts(sizes, weights, seed=seed, epoch=epoch), weights, totals, strict=True):
        assert seen.sum() == total
        assert np.isin(seen, [int(weight), int(weight) + 1]).all()


def test_the_ratio_of_sources_is_within_one_percent() -> None:
    own, rehearsal = counts([9973, 5021], [1.0, 0.137])
    assert rehearsal.sum() / own.sum() == pytest.approx(5021 * 0.137 / 9973, rel=0.01)


def test_a_fraction_draws_other_rows_each_epoch_until_all_were_seen() -> None:
    epochs = [counts([100], [0.25], epoch=epoch)[0] for epoch in range(4)]
    assert all(seen.sum() == 25 for seen in epochs)
    assert (np.sum(epochs, axis=0) == 1).all()
    assert not np.array_equal(counts([100], [0.25], seed=1)[0], epochs[0])


def test_a_small_source_is_spread_over_the_epoch() -> None:
    rows = mix([1000, 100], [1.0, 1.0], seed=0, epoch=0)
    places = np.flatnonzero(rows >= 1000)
    assert np.diff(places).max() <= 12 and places[0] < 12 and places[-1] >= len(rows) - 12


def test_the_order_is_the_same_every_time_and_on_every_machine() -> None:
    assert mix([8, 4], [0.5, 1.5], seed=5, epoch=1).tolist() == PINNED


PINNED = [8, 1, 9, 4, 10, 11, 5, 9, 6, 11]


def test_weight_zero_leaves_a_source_out() -> None:
    assert mix([3, 2], [0.0, 1.0], seed=0, epoch=0).tolist() == [3, 4]


@pytest.mark.parametrize("weight", [-0.5, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight: float) -> None:
    with pytest.raises(RecipeError, match="cannot weigh"):
        mix([3], [weight], seed=0, epoch=0)
