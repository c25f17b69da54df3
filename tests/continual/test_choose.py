"""Few rows that stand for many, against their definitions spelt out over all subsets or all rows."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from mingshi.continual.choose import densities, herding, k_centre, kmeans, quotas, random_rows


def features(count: int, width: int = 5, *, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(count, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    ("sizes", "total", "shares"),
    [
        ([10, 10, 10], 9, [3, 3, 3]),
        ([2, 10, 10], 12, [2, 5, 5]),
        ([1, 2, 30], 33, [1, 2, 30]),
        ([5, 5], 99, [5, 5]),
        ([4, 9], 3, [1, 2]),
        ([], 3, []),
    ],
)
def test_quotas_are_as_even_as_the_sizes_allow(sizes: list[int], total: int, shares: list[int]) -> None:
    assert quotas(sizes, total) == shares


@pytest.mark.parametrize("seed", range(3))
def test_herding_is_greedy_by_its_definition(seed: int) -> None:
    rows = features(30, seed=seed).astype(np.float64)
    mean, chosen = rows.mean(0), list[int]()
    for number in range(1, 9):
        left = [row for row in range(30) if row not in chosen]
        away = [np.linalg.norm(mean - (rows[row] + rows[chosen].sum(0)) / number) for row in left]
        chosen.append(left[int(np.argmin(away))])
    assert herding(features(30, seed=seed), 8) == chosen


def test_herding_follows_the_mean_better_than_chance() -> None:
    rows = features(200)
    away = [np.linalg.norm(rows.mean(0) - rows[random_rows(200, 10, seed=seed)].mean(0)) for seed in range(50)]
    assert np.linalg.norm(rows.mean(0) - rows[herding(rows, 10)].mean(0)) < min(away)


def test_k_centre_is_farthest_first_among_rows_that_are_no_outliers() -> None:
    cloud = np.eye(1, 5, dtype=np.float32) + 0.4 * features(38)
    rows = np.concatenate([cloud / np.linalg.norm(cloud, axis=1, keepdims=True), -np.eye(2, 5, dtype=np.float32)])
    sparsest = set(np.argsort(densities(rows.astype(np.float64)), kind="stable")[:2].tolist())
    assert sparsest == {38, 39}
    inside = [row for row in range(40) if row not in sparsest]
    exact = rows.astype(np.float64)
    chosen = [min(inside, key=lambda row: np.linalg.norm(exact[row] - exact.mean(0)))]
    while len(chosen) < 7:
        reach = {row: min(np.linalg.norm(exact[row] - exact[one]) for one in chosen) for row in inside}
        chosen.append(max(reach, key=lambda row: reach[row]))
    assert k_centre(rows, 7) == chosen
    radius = max(min(np.linalg.norm(exact[row] - exact[one]) for one in chosen) for row in inside)
    best = min(
        max(min(np.linalg.norm(exact[row] - exact[one]) for one in centres) for row in inside[:12])
        for centres in itertools.combinations(inside[:12], 3)
    )
    few = k_centre(rows[inside[:12]], 3)  # twelve rows have no outliers to leave out
    found = max(min(np.linalg.norm(exact[inside[row]] - exact[inside[one]]) for one in few) for row in range(12))
    assert found <= 2 * best + 1e-9, "never worse than twice the best (Gonzalez 1985)"
    assert radius < 2


def test_all_rows_can_be_chosen_by_every_way() -> None:
    rows = features(40)
    for chosen in (herding(rows, 40), k_centre(rows, 40), kmeans(rows, 40, seed=0), random_rows(40, 99, seed=0)):
        assert sorted(chosen) == list(range(40))


def test_kmeans_takes_one_row_of_each_clear_group_and_never_one_twice() -> None:
    middles = 10 * np.eye(4, 6)
    rows = np.concatenate([middle + 0.1 * features(9, 6, seed=n) for n, middle in enumerate(middles)])
    chosen = kmeans(rows, 4, seed=3)
    assert [row // 9 for row in chosen] == [0, 1, 2, 3]
    for row in chosen:
        group = rows[row // 9 * 9 :][:9]
        away = np.linalg.norm(group - group.mean(0), axis=1)
        assert away.argmin() == row % 9, "the one nearest to its centre"
    same = np.repeat(features(3), 4, axis=0)
    assert len(set(kmeans(same, 7, seed=0))) == 7, "centres that are the same take other rows"


def test_density_is_likeness_to_the_nearest_others() -> None:
    rows = features(25).astype(np.float64)
    wanted = [np.sort(np.delete(rows @ rows[row], row))[-10:].mean() for row in range(25)]
    assert np.allclose(densities(rows), wanted)
    assert densities(rows[:1]).tolist() == [0.0]


def test_chance_is_the_seed_s_alone() -> None:
    assert random_rows(50, 5, seed=1) == random_rows(50, 5, seed=1) != random_rows(50, 5, seed=2)
    seen = np.zeros(20)
    for seed in range(2000):
        seen[random_rows(20, 5, seed=seed)] += 1
    assert abs(seen / 2000 - 0.25).max() < 5 * math.sqrt(0.25 * 0.75 / 2000)
