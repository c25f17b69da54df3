"""Task vectors merged tensor by tensor: equal to peft's where it has the same, and to the sums that define them."""

from __future__ import annotations

import pytest
import torch
from peft.utils import merge_utils

from mingshi.model.merging import LowRank, Merge, dare, merged, nearest, side_by_side, ties, total, trim, truncated

WEIGHTS = [1.0, 0.5, 2.0]


def tasks(*shape: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape or (24, 17), generator=generator) for _ in WEIGHTS]


@pytest.mark.parametrize("density", [0.2, 0.7])
def test_ties_is_pefts(density: float) -> None:
    expected = merge_utils.ties(tasks(), torch.tensor(WEIGHTS), density)
    torch.testing.assert_close(ties(tasks(), WEIGHTS, density=density), expected)


@pytest.mark.parametrize("density", [0.1, 0.5])
def test_dare_is_pefts_under_the_same_seed(density: float) -> None:
    torch.manual_seed(7)
    expected = merge_utils.dare_linear(tasks(), torch.tensor(WEIGHTS), density)
    generator = torch.Generator().manual_seed(7)
    torch.testing.assert_close(dare(tasks(), WEIGHTS, density=density, generator=generator), expected)


def test_arithmetic_and_average_are_weighted_sums() -> None:
    expected = merge_utils.task_arithmetic(tasks(), torch.tensor(WEIGHTS))
    torch.testing.assert_close(total(tasks(), WEIGHTS), expected)
    generator = torch.Generator()
    scaled = merged(tasks(), Merge(method="arithmetic", weights=tuple(WEIGHTS), scale=0.5), generator)
    torch.testing.assert_close(scaled, 0.5 * expected)
    soup = merged(tasks(), Merge(method="average", weights=tuple(WEIGHTS)), generator)
    torch.testing.assert_close(soup, expected / sum(WEIGHTS))
    torch.testing.assert_close(merged(tasks(), Merge(method="average"), generator), torch.stack(tasks()).mean(0))


def test_a_trimmed_tensor_keeps_its_largest_numbers() -> None:
    task = torch.tensor([[0.1, -3.0], [2.0, -0.2], [0.0, 1.0]])
    assert torch.equal(trim(task, 0.5), torch.tensor([[0.0, -3.0], [2.0, 0.0], [0.0, 1.0]]))
    assert trim(task, 1.0) is task


@pytest.mark.parametrize("method", ["ties", "dare"])
def test_vectors_are_averaged_instead_of_trimmed(method: str) -> None:
    how = Merge.model_validate({"method": method, "weights": WEIGHTS, "scale": 2.0})
    expected = 2 * total(tasks(9), [weight / sum(WEIGHTS) for weight in WEIGHTS])
    torch.testing.assert_close(merged(tasks(9), how, torch.Generator()), expected)


def updates() -> list[LowRank]:
    generator = torch.Generator().manual_seed(2)
    ranks = (2, 4, 3)
    return [
        LowRank(torch.randn(rank, 20, generator=generator), torch.randn(30, rank, generator=generator))
        for rank in ranks
    ]


def test_updates_side_by_side_are_their_weighted_sum() -> None:
    joined = side_by_side(updates(), WEIGHTS)
    assert joined.rank == 9
    expected = total([update.dense() for update in updates()], WEIGHTS)
    assert float((joined.dense() - expected).norm() / expected.norm()) < 1e-6


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_a_truncated_update_is_the_nearest_of_its_rank_and_tells_what_it_lost(rank: int) -> None:
    joined = side_by_side(updates(), WEIGHTS)
    cut, lost, whole = truncated(joined, rank)
    other, *norms = nearest(joined.dense(), rank)
    dense = joined.dense().double()
    values = torch.linalg.svdvals(dense)
    assert cut.rank == other.rank == rank
    torch.testing.assert_close(cut.dense(), other.dense(), atol=1e-4, rtol=1e-4)
    assert lost == pytest.approx(float((dense - cut.dense()).square().sum()), abs=1e-6 * whole)
    assert lost == pytest.approx(float(values[rank:].square().sum()), abs=1e-6 * whole)
    assert norms == pytest.approx([lost, whole], rel=1e-4, abs=1e-4) and whole == pytest.approx(
        float(dense.norm()) ** 2
    )


@pytest.mark.parametrize(
    "told",
    [
        {"method": "cat", "density": 0.5},
        {"method": "cat", "rank": 4},
        {"method": "average", "weights": [1.0, -1.0]},
        {"method": "ties", "density": 0.0},
    ],
)
def test_settings_that_would_not_be_heeded_are_refused(told: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"density|rank|weights"):
        Merge.model_validate(told)
