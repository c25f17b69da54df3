"""Which samples make a step, and how a step is cut: pure functions, so that a resumed run seeks."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import sample

from mingshi.data.plan import Plan, make_plan, micro_batches, pack
from mingshi.types import Sample


def plan(rows: int, batch: int, **fields: object) -> Plan:
    values = {"seed": 0, "epochs": 1.0, "steps": None} | fields
    return make_plan(rows=rows, mixture=lambda epoch: np.arange(rows), batch=batch, **values)  # type: ignore[arg-type]


@given(rows=st.integers(1, 50), batch=st.integers(1, 12), seed=st.integers(0, 2**31 - 1))
def test_every_epoch_holds_every_row_once(rows: int, batch: int, seed: int) -> None:
    made = plan(rows, batch, seed=seed, epochs=2.0)
    for epoch in range(2):
        first = epoch * made.steps_per_epoch
        steps = [made.indices(step) for step in range(first, first + made.steps_per_epoch)]
        assert sorted(np.concatenate(steps).tolist()) == list(range(rows))
        assert all(len(step) == batch for step in steps[:-1]) and 1 <= len(steps[-1]) <= batch


def test_epochs_differ_and_so_do_seeds() -> None:
    made = plan(40, 40, epochs=2.0)
    orders = [made.indices(0), made.indices(1), plan(40, 40, seed=1).indices(0)]
    assert len({order.tobytes() for order in orders}) == 3


@given(steps=st.lists(st.integers(0, 29), min_size=1, max_size=12))
def test_a_step_does_not_depend_on_which_steps_were_asked_for_before(steps: list[int]) -> None:
    made = plan(17, 5, epochs=8.0)
    for step in steps:
        assert np.array_equal(made.indices(step), plan(17, 5, epochs=8.0).indices(step))


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"), [(1.0, None, 4), (None, None, 4), (2.5, None, 10), (0.01, None, 1), (None, 7, 7)]
)
def test_steps_are_as_asked_for(epochs: float | None, steps: int | None, expected: int) -> None:
    assert plan(16, 4, epochs=epochs, steps=steps).steps == expected


@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=40), budget=st.integers(1, 200))
def test_streams_hold_every_sample_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    cuts = micro_batches(lengths, budget)
    assert sorted(place for cut in cuts for place in cut) == list(range(len(lengths)))
    for cut in cuts:
        assert sum(lengths[place] for place in cut) <= budget or len(cut) == 1


@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=40), budget=st.integers(1, 200))
def test_no_two_streams_would_fit_into_one(lengths: list[int], budget: int) -> None:
    sums = sorted(sum(lengths[place] for place in cut) for cut in micro_batches(lengths, budget))
    assert len(sums) < 2 or sums[0] + sums[1] > budget


def best_fit_decreasing(lengths: list[int], budget: int) -> list[list[int]]:
    """By its definition: every stream is looked at for every sample."""
    bins: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        left = [budget - sum(lengths[other] for other in chosen) for chosen in bins]
        fitting = [index for index in range(len(bins)) if left[index] >= lengths[place]]
        if fitting:
            bins[min(fitting, key=lambda index: (left[index], index))].append(place)
        else:
            bins.append([place])
    return [sorted(chosen) for chosen in bins]


@given(lengths=st.lists(st.integers(0, 90), min_size=1, max_size=40), budget=st.integers(1, 200))
def test_streams_are_those_of_best_fit_decreasing(lengths: list[int], budget: int) -> None:
    assert micro_batches(lengths, budget) == best_fit_decreasing(lengths, budget)


def test_a_hundred_thousand_samples_are_cut_in_a_moment() -> None:
    lengths = np.random.default_rng(0).integers(20, 400, 100_000).tolist()
    before = time.process_time()
    cuts = micro_batches(lengths, 4096)
    assert time.process_time() - before < 5  # looking at every stream for every sample takes minutes
    assert sum(lengths) / (4096 * len(cuts)) > 0.99


def branching(name: str) -> Sample:
    """A prompt with two answers."""
    tokens = np.arange(10, 20, dtype=np.int32)
    return Sample(
        tokens=tokens,
        segments=np.array([[0, 4, -1], [4, 3, 0], [7, 3, 0]], dtype=np.int32),
        source=np.array([3, 4, 3, 7], dtype=np.int32),
        target=np.array([14, 15, 17, 18], dtype=np.int32),
        weight=np.array([1.0, 0.5, 1.0, 0.25], dtype=np.float32),
        sequence=np.array([0, 0, 1, 1], dtype=np.int32),
        id=name,
    )


def test_a_packed_stream_moves_every_place_with_its_sample() -> None:
    parts = [sample(6, seed=0, name="a"), branching("b"), branching("c"), sample(3, seed=1, name="d")]
    batch = pack(parts, device="cpu")
    assert batch.ids == ("a", "b", "c", "d")
    assert batch.tokens.tolist() == [token for part in parts for token in part.tokens.tolist()]
    assert batch.segments.tolist() == [
        [0, 6, -1], [6, 4, -1], [10, 3, 1], [13, 3, 1], [16, 4, -1], [20, 3, 4], [23, 3, 4], [26, 3, -1]
    ]  # fmt: skip
    assert batch.positions.tolist() == [
        *range(6), *range(4), *range(4, 7), *range(4, 7), *range(4), *range(4, 7), *range(4, 7), *range(3)
    ]  # fmt: skip
    starts = np.repeat([0, 6, 16, 26], [len(part.source) for part in parts])
    assert batch.source.tolist() == (np.concatenate([part.source for part in parts]) + starts).tolist()
    assert batch.target.tolist() == [target for part in parts for target in part.target.tolist()]
    assert sorted(set(batch.sequence.tolist())) == list(range(6))
    assert batch.weight == float(batch.weights.double().sum())


def test_a_sample_without_predictions_keeps_its_place() -> None:
    empty = np.empty(0, dtype=np.int32)
    silent = replace(
        sample(5, seed=0, name="silent"), source=empty, target=empty, sequence=empty, weight=empty.astype(np.float32)
    )
    batch = pack([silent, sample(4, seed=1, name="spoken")], device="cpu")
    assert batch.sequence.tolist() == [1] * len(batch.target)
    assert int(batch.source.min()) >= 5
    alone = pack([silent], device="cpu")
    assert alone.weight == 0.0 and len(alone.tokens) == 5 and len(alone.target) == 0


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(2, 30), min_size=1, max_size=6))
def test_no_prediction_reaches_into_another_sample(lengths: list[int]) -> None:
    parts = [sample(length, seed=number) for number, length in enumerate(lengths)]
    batch = pack(parts, device="cpu")
    ends = np.cumsum(lengths)
    owner = np.searchsorted(ends, batch.source.numpy(), side="right")
    assert np.array_equal(owner, batch.sequence.numpy())
    tokens = batch.tokens.numpy()
    assert np.array_equal(tokens[batch.source.numpy() + 1], batch.target.numpy())
