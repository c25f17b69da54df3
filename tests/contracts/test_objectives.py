"""What every objective keeps to, over the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import work
from tiny import tiny_model

from mingshi.data.plan import micro_batches
from mingshi.loop import train
from mingshi.model.adapters import Full
from mingshi.model.generate import generate
from mingshi.model.load import Model, load
from mingshi.objectives import OBJECTIVES
from mingshi.types import Chat, Example, Labelled, Loss, Message, Preference, Reject, Sample


def chats() -> list[Chat]:
    """Rows of many lengths: one turn and several, with and without a system message, Chinese and English."""
    made = []
    for number in range(8):
        turns = [Message(role="system", content="Be brief.")] if number % 2 else []
        for turn in range(1 + number % 3):
            turns.append(Message(role="user", content=f"第{number}问, part {turn}? " + "Really? " * (number % 4)))
            turns.append(Message(role="assistant", content=f"{number}-{turn}: " + "yes " * (number % 5) + "没有"))
        made.append(Chat(id=f"chat-{number}", source="rows", line=number + 1, group=str(number), messages=tuple(turns)))
    return made


ROWS: dict[type[Example], Callable[[], list[Any]]] = {Chat: chats}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("objectives"))


@pytest.fixture
def model(folder: Path) -> Model:
    loaded = load(folder, precision="float32")
    Full().attach(loaded, seed=0)
    return loaded


@pytest.fixture(params=OBJECTIVES)
def objective(request: Any) -> Any:
    return OBJECTIVES[request.param]()


def encoded(objective: Any, model: Model) -> list[Sample]:
    rows = [row for kind in objective.accepts for row in ROWS[kind]()]
    found: list[Sample] = []
    for row in rows:
        outcome = objective.encode(row, model.text)
        assert not isinstance(outcome, Reject), outcome
        found.extend(outcome if isinstance(outcome, list) else [outcome])
    return found


def loss_of(objective: Any, model: Model, rows: list[Sample]) -> Loss:
    torch.manual_seed(0)
    loss: Loss = objective.loss(model.network, objective.collate(rows, "cpu"), objective.companion(model))
    return loss


def gradients(objective: Any, model: Model, cuts: list[list[Sample]]) -> tuple[float, list[torch.Tensor]]:
    model.network.zero_grad(set_to_none=True)
    total = 0.0
    for rows in cuts:
        loss = loss_of(objective, model, rows)
        loss.sum.backward()
        total += float(loss.sum.detach())
    return total, [one.grad.clone() for one in model.network.parameters()]


def test_it_says_what_it_accepts_and_whether_it_may_be_cut(objective: Any) -> None:
    assert objective.accepts and set(objective.accepts) <= {Chat, Labelled, Preference}
    assert set(objective.accepts) <= set(ROWS), "give this test rows of that kind"
    assert isinstance(objective.additive, bool)
    assert OBJECTIVES[objective.kind] is type(objective)


def test_it_survives_a_recipe(objective: Any) -> None:
    assert type(objective).model_validate(objective.model_dump(mode="json")) == objective


def test_a_sample_is_whole(objective: Any, model: Model) -> None:
    for row in encoded(objective, model):
        columns = (row.source, row.target, row.weight, row.sequence)
        assert len({len(column) for column in columns}) == 1 and len(row.target) > 0
        assert int(row.segments[:, 1].sum()) == len(row.tokens)
        assert int(row.source.min()) >= 0 and int(row.source.max()) < len(row.tokens)
        assert bool((row.weight > 0).all())


def test_the_weight_of_a_batch_is_what_its_loss_is_summed_over(objective: Any, model: Model) -> None:
    rows = encoded(objective, model)
    batch = objective.collate(rows, "cpu")
    assert batch.weight == pytest.approx(sum(float(row.weight.sum()) for row in rows))
    one, two = (float(loss_of(objective, model, part).sum.detach()) for part in (rows, rows + rows))
    assert two == pytest.approx(2 * one, rel=1e-5)
    assert objective.collate(rows + rows, "cpu").weight == pytest.approx(2 * batch.weight)


@pytest.mark.parametrize("budget", [1, 90, 200])
def test_cutting_a_step_changes_nothing(objective: Any, model: Model, budget: int) -> None:
    if not objective.additive:
        pytest.skip("the loop never cuts it")
    rows = encoded(objective, model)
    cuts = [[rows[place] for place in cut] for cut in micro_batches([len(row.tokens) for row in rows], budget)]
    assert len(cuts) > 1
    agree(gradients(objective, model, cuts), gradients(objective, model, [rows]))


def test_order_changes_nothing(objective: Any, model: Model) -> None:
    rows = encoded(objective, model)
    agree(gradients(objective, model, [rows[::-1]]), gradients(objective, model, [rows]))


def agree(found: tuple[float, list[torch.Tensor]], wanted: tuple[float, list[torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    for one, other in zip(found[1], wanted[1], strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())


def test_a_batch_of_zero_weight_is_zero_and_no_nan(objective: Any, model: Model) -> None:
    rows = encoded(objective, model)[:2]
    batch = objective.collate(rows, "cpu")
    weightless = replace(batch, weights=torch.zeros_like(batch.weights), weight=0.0)
    loss = objective.loss(model.network, weightless, objective.companion(model))
    loss.sum.backward()
    assert float(loss.sum.detach()) == 0.0
    assert not any(bool(one.grad.any()) for one in model.network.parameters() if one.grad is not None)


def test_the_same_seed_gives_the_same_loss(objective: Any, model: Model) -> None:
    rows = encoded(objective, model)
    first, second = (loss_of(objective, model, rows) for _ in range(2))
    assert torch.equal(first.sum, second.sum)
    assert all(torch.equal(value, second.metrics[name]) for name, value in first.metrics.items())


def test_a_toy_batch_is_learnt(objective: Any, model: Model) -> None:
    stage = work(model.network, encoded(objective, model), batch=8, steps=40, schedule="constant", warmup=3)
    steps = list(train(with_rate(stage, objective, 1e-2)))
    assert steps[-1].loss < 0.2 * steps[0].loss


def with_rate(stage: Any, objective: Any, rate: float) -> Any:
    return replace(stage, peak=rate, objective=objective)


def test_a_model_that_learnt_eight_rows_by_heart_stops_by_itself(model: Model) -> None:
    """It writes the answer and then the token that ends it: that token was trained in its right place."""
    objective = OBJECTIVES["sft"]()
    rows = [
        Chat(
            id=str(number),
            source="rows",
            line=number,
            group=str(number),
            messages=(
                Message(role="user", content=f"Count to {number}."),
                Message(role="assistant", content=", ".join(map(str, range(1, number + 1)))),
            ),
        )
        for number in range(1, 9)
    ]
    samples = [objective.encode(row, model.text) for row in rows]
    stage = work(model.network, samples, batch=8, steps=250, schedule="constant", warmup=5)
    steps = train(with_rate(stage, objective, 1e-2))
    last = next(step for step in steps if step.loss < 0.001)  # of some 150 tokens: none may be in doubt
    assert last.number < 250
    steps.close()
    prompts = [model.template.prompt(row.messages[:1]) for row in rows]
    answers = generate(model, prompts, max_new_tokens=60)
    assert all(answer.finished for answer in answers)
    told = [model.tokenizer.decode(list(answer.tokens)) for answer in answers]
    assert told == [row.messages[1].content for row in rows]
