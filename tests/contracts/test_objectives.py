"""What every objective keeps to, over the table of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import work
from tiny import tiny_model
from towers import draw, tiny_vision

from mingshi.data.plan import micro_batches
from mingshi.display import Silent
from mingshi.loop import train
from mingshi.model.adapters import Full
from mingshi.model.generate import generate
from mingshi.model.load import Model, load
from mingshi.objectives import OBJECTIVES, Classify, Contrastive
from mingshi.types import Captioned, Chat, Example, Labelled, Loss, Message, Preference, Reject, Sample


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


def preferences() -> list[Preference]:
    """Pairs of many lengths: the better answer is now the longer and now the shorter, after one turn or several."""
    made = []
    for number in range(8):
        prompt = [Message(role="user", content=f"第{number}问? " + "Really? " * (number % 4))]
        if number % 3 == 0:
            prompt = [*prompt, Message(role="assistant", content="Which?"), Message(role="user", content="That one.")]
        better, worse = "yes " * (1 + number % 5), f"没有 {number} " * (1 + number % 2)
        answers = [(Message(role="assistant", content=text),) for text in (better, worse)]
        made.append(
            Preference(
                id=f"pair-{number}",
                source="rows",
                line=number + 1,
                group=str(number),
                prompt=tuple(prompt),
                chosen=answers[0],
                rejected=answers[1],
            )
        )
    return made


def labelled() -> list[Labelled]:
    """Texts of many lengths in three classes, of which one is rare."""
    return [
        Labelled(
            id=f"text-{number}",
            source="rows",
            line=number + 1,
            group=str(number),
            content=f"第{number}段, " + "really " * (1 + 3 * (number % 4)),
            label=["a", "b", "c", "a"][number % 4],
        )
        for number in range(8)
    ]


def captioned() -> list[Captioned]:
    """Pictures with captions of many lengths; the working folder holds the pictures."""
    made = []
    for number in range(8):
        path = Path(f"{number}.png")
        draw(path, ["red", "blue", "green", "black"][number % 4], ["disc", "bar"][number % 2], shift=number // 4)
        texts = (f"第{number}张, " + "really " * (number % 4), *(["又一句话"] if number == 3 else []))
        made.append(
            Captioned(id=path.stem, source="rows", line=number + 1, group=path.stem, image=str(path), texts=texts)
        )
    return made


ROWS: dict[type[Example], Callable[[], list[Any]]] = {
    Captioned: captioned,
    Chat: chats,
    Labelled: labelled,
    Preference: preferences,
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("objectives"))


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_vision(tmp_path_factory.mktemp("tower"))


@pytest.fixture
def model(folder: Path, request: pytest.FixtureRequest) -> Model:
    """With the head that the test's objective needs."""
    wanted = request.getfixturevalue("objective") if "objective" in request.fixturenames else None
    classes = wanted.classes(seed=0) if isinstance(wanted, Classify) else None
    pair = wanted.pair(seed=0) if isinstance(wanted, Contrastive) else None
    loaded = load(folder, precision="float32", classes=classes, pair=pair)
    Full().attach(loaded, seed=0)
    return loaded


@pytest.fixture(params=OBJECTIVES)
def objective(request: Any, folder: Path, tower: Path) -> Any:
    """With the fields that have no default, and with what training rows decide, where they decide something."""
    needed = {"distill": {"teachers": ({"model": str(folder)},), "alpha": 0.1}, "contrastive": {"vision": str(tower)}}
    made = OBJECTIVES[request.param](**needed.get(request.param, {}))
    return made.settled(labelled()) if isinstance(made, Classify) else made


def encoded(objective: Any, model: Model) -> list[Sample]:
    rows = [row for kind in objective.accepts for row in ROWS[kind]()]
    found: list[Sample] = []
    for row in rows:
        outcome = objective.encode(row, model.text)
        assert not isinstance(outcome, Reject), outcome
        found.extend(outcome if isinstance(outcome, list) else [outcome])
    return [replace(sample, row=place) for place, sample in enumerate(found)]


@pytest.fixture
def beside(objective: Any, model: Model, tmp_path: Path) -> Any:
    """The objective's companion for all rows, made before anything moves."""
    rows = encoded(objective, model)
    return objective.companion(model, rows, folder=tmp_path, budget=4096, display=Silent())


def loss_of(objective: Any, model: Model, rows: list[Sample], beside: Any) -> Loss:
    torch.manual_seed(0)
    loss: Loss = objective.loss(model.network, objective.collate(rows, "cpu"), beside)
    return loss


def gradients(objective: Any, model: Model, cuts: list[list[Sample]], beside: Any) -> tuple[float, list[torch.Tensor]]:
    model.network.zero_grad(set_to_none=True)
    total = 0.0
    for rows in cuts:
        loss = loss_of(objective, model, rows, beside)
        loss.sum.backward()
        total += float(loss.sum.detach())
    return total, [one.grad.clone() for one in model.network.parameters()]


def test_it_says_what_it_accepts_and_whether_it_may_be_cut(objective: Any) -> None:
    assert objective.accepts and set(objective.accepts) <= {Captioned, Chat, Labelled, Preference}
    assert set(objective.accepts) <= set(ROWS), "give this test rows of that kind"
    assert isinstance(objective.additive, bool) and isinstance(objective.higher_is_better, bool)
    assert objective.max_length > 1
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
        assert row.labels.dtype == np.float32


def test_the_weight_of_a_batch_is_what_its_loss_is_summed_over(objective: Any, model: Model, beside: Any) -> None:
    rows = encoded(objective, model)
    batch = objective.collate(rows, "cpu")
    assert batch.parts.shape == (len(rows),) and batch.rows == tuple(range(len(rows)))
    assert batch.weight == pytest.approx(float(batch.parts.double().sum()))
    one, two = (float(loss_of(objective, model, part, beside).sum.detach()) for part in (rows, rows + rows))
    assert two == pytest.approx(2 * one, rel=1e-5)
    assert objective.collate(rows + rows, "cpu").weight == pytest.approx(2 * batch.weight)


def test_what_it_measures_of_samples_does_not_depend_on_the_batch(objective: Any, model: Model, beside: Any) -> None:
    rows = encoded(objective, model)
    model.network.eval()
    with torch.no_grad():
        together = objective.measure(model.network, objective.collate(rows, "cpu"), beside)
        alone = [objective.measure(model.network, objective.collate([row], "cpu"), beside) for row in rows]
    assert next(iter(together)) == objective.headline
    for name, values in together.items():
        assert values.shape == (len(rows),)
        assert values.tolist() == pytest.approx([float(one[name]) for one in alone], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("budget", [1, 90, 200])
def test_cutting_a_step_changes_nothing(objective: Any, model: Model, beside: Any, budget: int) -> None:
    if not objective.additive:
        pytest.skip("the loop never cuts it")
    rows = encoded(objective, model)
    cuts = [[rows[place] for place in cut] for cut in micro_batches([len(row.tokens) for row in rows], budget)]
    assert len(cuts) > 1
    agree(gradients(objective, model, cuts, beside), gradients(objective, model, [rows], beside))


def test_order_changes_nothing(objective: Any, model: Model, beside: Any) -> None:
    rows = encoded(objective, model)
    agree(gradients(objective, model, [rows[::-1]], beside), gradients(objective, model, [rows], beside))


def agree(found: tuple[float, list[torch.Tensor]], wanted: tuple[float, list[torch.Tensor]]) -> None:
    assert found[0] == pytest.approx(wanted[0], rel=1e-6)
    for one, other in zip(found[1], wanted[1], strict=True):
        assert float((one - other).norm()) <= 1e-5 * float(other.norm())


def test_a_batch_of_zero_weight_is_zero_and_no_nan(objective: Any, model: Model, beside: Any) -> None:
    rows = encoded(objective, model)[:2]
    batch = objective.collate(rows, "cpu")
    nothing = {"weights": torch.zeros_like(batch.weights), "parts": torch.zeros_like(batch.parts), "weight": 0.0}
    loss = objective.loss(model.network, replace(batch, **nothing), beside)
    loss.sum.backward()
    assert float(loss.sum.detach()) == 0.0
    assert not any(bool(one.grad.any()) for one in model.network.parameters() if one.grad is not None)


def test_the_same_seed_gives_the_same_loss(objective: Any, model: Model, beside: Any) -> None:
    rows = encoded(objective, model)
    first, second = (loss_of(objective, model, rows, beside) for _ in range(2))
    assert torch.equal(first.sum, second.sum)
    assert all(torch.equal(value, second.metrics[name]) for name, value in first.metrics.items())


def test_a_toy_batch_is_learnt(objective: Any, model: Model, beside: Any) -> None:
    stage = work(model.network, encoded(objective, model), batch=8, steps=40, schedule="constant", warmup=3)
    steps = list(train(replace(with_rate(stage, objective, 1e-2), companion=beside)))
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
    last = next(step for step in steps if step.loss < 0.003)
    assert last.number < 250
    steps.close()
    prompts = [model.template.prompt(row.messages[:1]) for row in rows]
    answers = generate(model, prompts, max_new_tokens=60)
    assert all(answer.finished for answer in answers)
    told = [model.tokenizer.decode(list(answer.tokens)) for answer in answers]
    assert told == [row.messages[1].content for row in rows]
