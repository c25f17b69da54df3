"""Schedules at chosen points, float32 masters, and an optimiser's state taken out and put back."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mingshi.optim import Optim, Optimiser, learning_rate

PEAK = 2e-4


def rate(step: int, steps: int = 100, **fields: Any) -> float:
    return learning_rate(Optim(**fields), peak=PEAK, step=step, steps=steps)


def test_warm_up_rises_in_equal_parts_to_the_peak() -> None:
    assert [rate(step, warmup=4) / PEAK for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_share_and_a_number_of_warm_up_steps_are_the_same(schedule: str) -> None:
    for step in range(100):
        assert rate(step, warmup=0.1, schedule=schedule) == rate(step, warmup=10, schedule=schedule)


@pytest.mark.parametrize(
    ("schedule", "halfway", "last"),
    [
        ("cosine", 0.5, 0.5 * (1 + math.cos(math.pi * 0.99))),
        ("linear", 0.5, 0.01),
        ("constant", 1.0, 1.0),
    ],
)
def test_each_schedule_at_its_beginning_middle_and_end(schedule: str, halfway: float, last: float) -> None:
    points = [rate(step, warmup=0, schedule=schedule) / PEAK for step in (0, 50, 99)]
    assert points == pytest.approx([1.0, halfway, last], rel=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_ends_at_the_share_that_was_asked_for(schedule: str) -> None:
    assert rate(50, warmup=0, schedule=schedule, final=0.2) == pytest.approx(0.6 * PEAK, rel=1e-12)
    assert rate(10**6 - 1, steps=10**6, warmup=0, schedule=schedule, final=0.2) == pytest.approx(0.2 * PEAK, rel=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("warmup", [0, 0.05, 0.999, 3, 5000])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_every_rate_is_above_zero_and_none_above_the_peak(schedule: str, warmup: float, steps: int) -> None:
    rates = [rate(step, steps, schedule=schedule, warmup=warmup) for step in range(steps)]
    assert all(0 < one <= PEAK for one in rates)


def narrow(count: int = 8) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(count, count, dtype=torch.bfloat16))


def test_a_thousand_tiny_updates_of_a_bfloat16_weight_are_not_lost() -> None:
    """Each is far below half a unit in the last place of bfloat16 at 1, where 1 - 1e-5 is 1."""
    parameter = narrow()
    optimiser = Optimiser([("weight", parameter)], Optim(weight_decay=0.0))
    for _ in range(1000):
        parameter.grad = torch.ones_like(parameter)
        optimiser.gather()
        optimiser.step(rate=1e-5, norm=optimiser.gradient_norm())
        optimiser.clear()
    (weight,) = optimiser.weights
    assert weight.master.dtype == torch.float32 and parameter.dtype == torch.bfloat16
    assert bool(((weight.master - 0.99).abs() < 1e-4).all())
    assert torch.equal(parameter, weight.master.bfloat16()) and float(parameter[0, 0].detach()) != 1.0


def test_gradients_of_bfloat16_streams_are_summed_in_float32() -> None:
    """256 + 1 is 256 in bfloat16."""
    parameter = narrow(1)
    optimiser = Optimiser([("weight", parameter)], Optim())
    for value in (256.0, *[1.0] * 64):
        parameter.grad = torch.full_like(parameter, value)
        optimiser.gather()
        assert parameter.grad is None
    assert float(optimiser.weights[0].master.grad) == 320.0
    assert optimiser.gradient_norm() == 320.0


def test_float32_weights_are_their_own_masters() -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    (weight,) = Optimiser([("weight", parameter)], Optim()).weights
    assert weight.master is parameter


def test_a_weight_that_does_not_train_is_not_held() -> None:
    frozen = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    assert [one.name for one in Optimiser([("a", frozen), ("b", narrow())], Optim()).weights] == ["b"]


def test_decay_shrinks_matrices_and_leaves_vectors() -> None:
    matrix, vector = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    optimiser = Optimiser([("matrix", matrix), ("vector", vector)], Optim(weight_decay=0.5))
    for one in (matrix, vector):
        one.grad = torch.zeros_like(one)
    optimiser.step(rate=0.1, norm=0.0)
    assert matrix.flatten().tolist() == pytest.approx([0.95] * 4)
    assert vector.tolist() == [1.0, 1.0]


def trained(dtype: torch.dtype, steps: range, optimiser: Optimiser | None = None) -> Optimiser:
    parameters = [torch.nn.Parameter(torch.ones(4, 4, dtype=dtype)), torch.nn.Parameter(torch.ones(4, dtype=dtype))]
    optimiser = optimiser or Optimiser(zip(("matrix", "vector"), parameters, strict=True), Optim(weight_decay=0.1))
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for weight in optimiser.weights:
            weight.parameter.grad = torch.randn(weight.parameter.shape, generator=generator).to(dtype)
        optimiser.gather()
        optimiser.step(rate=1e-2, norm=optimiser.gradient_norm())
        optimiser.clear()
    return optimiser


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_restored_it_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    whole = trained(dtype, range(6))
    half = trained(dtype, range(3))
    saved = {kind: {name: one.clone() for name, one in values.items()} for kind, values in half.tensors().items()}
    fresh = trained(dtype, range(0))
    fresh.restore(saved)
    trained(dtype, range(3, 6), fresh)
    for one, other in zip(fresh.weights, whole.weights, strict=True):
        assert torch.equal(one.master, other.master) and torch.equal(one.parameter, other.parameter)
    found, wanted = fresh.tensors(), whole.tensors()
    assert found["optimizer"].keys() == wanted["optimizer"].keys()
    assert len(found["optimizer"]) == 6  # two moments and a count for each
    assert all(torch.equal(one, wanted["optimizer"][name]) for name, one in found["optimizer"].items())


def test_what_was_restored_from_is_left_alone() -> None:
    half = trained(torch.float32, range(3))
    saved = {kind: {name: one.clone() for name, one in values.items()} for kind, values in half.tensors().items()}
    kept = {kind: {name: one.clone() for name, one in values.items()} for kind, values in saved.items()}
    fresh = trained(torch.float32, range(0))
    fresh.restore(saved)
    trained(torch.float32, range(3, 6), fresh)
    assert all(torch.equal(one, kept[kind][name]) for kind, values in saved.items() for name, one in values.items())


def test_clearing_forgets_every_gradient() -> None:
    parameter = narrow()
    optimiser = Optimiser([("weight", parameter)], Optim())
    parameter.grad = torch.ones_like(parameter)
    optimiser.gather()
    optimiser.clear()
    assert parameter.grad is None and optimiser.weights[0].master.grad is None
