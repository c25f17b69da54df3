"""The loop: the same numbers from the same seed, whatever the streams, and nothing moved by a step that diverges."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from networks import network, samples, work

from mingshi.errors import DivergedError
from mingshi.loop import Work, train
from mingshi.types import Sample, Step

LENGTHS = [40, 9, 33, 64, 21, 30, 5, 17, 28, 50, 12]


def trainable(family: str = "llama", **changes: Any) -> Any:
    net = network(family, **changes)
    net.requires_grad_(True)
    return net


def run(net: Any = None, *, start: int = 0, **fields: Any) -> list[Step]:
    values = {"batch": 4, "steps": 6} | fields
    return list(train(work(net or trainable(), samples(LENGTHS), **values), start=start))


def losses(steps: list[Step]) -> list[float]:
    return [step.loss for step in steps]


@pytest.mark.parametrize("budget", [64, 100, 1 << 20])
def test_the_budget_of_a_stream_changes_rounding_only(budget: int) -> None:
    wanted, found = run(budget=1), run(budget=budget)
    assert losses(found) == pytest.approx(losses(wanted), rel=1e-6)
    assert [step.tokens for step in found] == [step.tokens for step in wanted]
    assert [step.trained for step in found] == [step.trained for step in wanted]
    assert [step.ids for step in found] == [step.ids for step in wanted]


def test_the_loss_falls_and_every_step_says_what_it_was_made_of() -> None:
    steps = run(steps=12)
    assert steps[-1].loss < steps[0].loss
    assert [step.number for step in steps] == list(range(1, 13))
    assert [step.epoch for step in steps[:3]] == [1 / 3, 2 / 3, 1.0]
    assert sum(step.tokens for step in steps[:3]) == sum(LENGTHS)
    assert sorted(name for step in steps[:3] for name in step.ids) == sorted(one.id for one in samples(LENGTHS))


def test_dropout_is_the_same_for_the_same_seed_and_changes_with_it() -> None:
    shape = {"attention_dropout": 0.3}
    first, second = (run(trainable(**shape)) for _ in range(2))
    assert losses(first) == losses(second)
    torch.manual_seed(17)
    stage = replace(work(trainable(**shape), samples(LENGTHS), batch=4, steps=6), seed=1)
    assert losses(list(train(stage))) != losses(first)
    assert losses(run(trainable())) != losses(first)


def test_started_later_it_goes_on_as_if_it_had_never_stopped() -> None:
    whole = work(trainable(attention_dropout=0.3), samples(LENGTHS), batch=4, steps=6)
    wanted = list(train(whole))
    part = work(trainable(attention_dropout=0.3), samples(LENGTHS), batch=4, steps=6)
    steps = train(part)
    before = [next(steps) for _ in range(3)]
    steps.close()
    torch.manual_seed(99)
    after = list(train(part, start=3))
    assert losses(before + after) == losses(wanted)
    for one, other in zip(part.network.parameters(), whole.network.parameters(), strict=True):
        assert torch.equal(one, other)


SCRIPT = """
import sys, pathlib, orjson, torch
sys.path[:0] = [{root!r}, {tests!r}]
from networks import samples, work
from tiny import tiny_model
from mingshi.loop import train
from mingshi.model.adapters import Lora
from mingshi.model.load import load
torch.manual_seed(int(sys.argv[2]))
model = load(pathlib.Path(sys.argv[1]), precision="float32")
Lora(rank=4, dropout=0.1).attach(model, seed=7)
start = [float(one.detach().double().sum()) for one in model.network.parameters() if one.requires_grad]
steps = train(work(model.network, samples([30, 12, 25, 18, 9]), batch=2, steps=10))
print("RESULT", orjson.dumps([start, [[step.loss, step.gradient_norm] for step in steps]]).decode())
"""


def test_two_processes_with_one_seed_begin_and_go_on_alike(tmp_path: Path) -> None:
    """The same adapter before the first step and the same losses, whatever random state a process begins in."""
    from tiny import tiny_model

    folder = tiny_model(tmp_path / "model")
    tests = Path(__file__).resolve().parent
    script = SCRIPT.format(root=str(tests.parent), tests=str(tests))
    told = []
    for noise in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", script, str(folder), noise], capture_output=True, text=True, check=True, timeout=120
        )
        told.append(orjson.loads(done.stdout.split("RESULT", 1)[1]))
    assert told[0] == told[1]
    assert len(told[0][1]) == 10 and len(set(told[0][0])) > 2


def weights(stage: Work) -> list[torch.Tensor]:
    return [one.detach().clone() for one in stage.network.parameters()]


def test_a_loss_that_is_not_finite_stops_before_the_update_and_names_the_rows() -> None:
    stage = work(trainable(), samples(LENGTHS), batch=4, steps=6)
    steps = train(stage)
    next(steps)
    before = weights(stage)
    moments = {name: one.clone() for name, one in stage.optimiser.tensors()["optimizer"].items()}
    ids = tuple(stage.samples[int(index)].id for index in stage.plan.indices(1))
    stage.network.get_input_embeddings().weight.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(DivergedError) as caught:
        next(steps)
    assert caught.value.exit_code == 5
    assert all(name in str(caught.value) for name in ids) and "step 2" in str(caught.value)
    assert all(torch.equal(one, other) for one, other in zip(weights(stage), before, strict=True))
    assert all(torch.equal(one, moments[name]) for name, one in stage.optimiser.tensors()["optimizer"].items())
    assert all(one.grad is None for one in stage.network.parameters())


def test_an_infinite_loss_stops_too() -> None:
    stage = work(trainable(), samples(LENGTHS), batch=4)
    with torch.no_grad():
        stage.network.get_output_embeddings().weight[5] = math.inf
    before = weights(stage)
    with pytest.raises(DivergedError, match=r"rows? .*row-"):
        list(train(stage))
    assert all(torch.equal(one, other) for one, other in zip(weights(stage), before, strict=True))


def silent(number: int) -> Sample:
    empty = np.empty(0, dtype=np.int32)
    one = samples(LENGTHS)[number]
    return replace(one, source=empty, target=empty, sequence=empty, weight=empty.astype(np.float32))


def test_a_step_of_no_weight_is_a_loss_of_zero_and_moves_nothing() -> None:
    stage = work(trainable(), [silent(number) for number in range(4)], batch=4)
    before = weights(stage)
    (step,) = list(train(stage))
    assert (step.loss, step.trained, step.gradient_norm) == (0.0, 0, 0.0)
    assert step.tokens == sum(LENGTHS[:4])
    assert all(torch.equal(one, other) for one, other in zip(weights(stage), before, strict=True))


def test_rows_without_predictions_change_nothing_for_the_others() -> None:
    rows = [samples(LENGTHS)[number] for number in range(3)]
    alone = next(iter(train(work(trainable(), rows, batch=4))))
    beside = next(iter(train(work(trainable(), [*rows, silent(3)], batch=4))))
    assert beside.loss == pytest.approx(alone.loss, rel=1e-6)
    assert beside.gradient_norm == pytest.approx(alone.gradient_norm, rel=1e-5)


class Whole:
    """An objective that may not be cut: it only counts how it was called."""

    additive = False

    def __init__(self, inner: Any):
        self.inner, self.sizes = inner, []

    def collate(self, chosen: Any, device: str) -> Any:
        self.sizes.append(len(chosen))
        return self.inner.collate(chosen, device)

    def loss(self, net: Any, batch: Any, companion: Any) -> Any:
        return self.inner.loss(net, batch, companion)


def test_an_objective_that_is_no_sum_is_never_cut() -> None:
    stage = work(trainable(), samples(LENGTHS), batch=4, budget=1)
    whole = Whole(stage.objective)
    list(train(replace(stage, objective=whole)))
    assert whole.sizes == [4, 4, 3]
