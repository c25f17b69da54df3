"""Rehearsal in whole runs: what is remembered is told, every batch has its share, and a resumed run ends alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from encoders import tiny_encoder
from lesson_streams import answering, classifying, conversations, labelled
from tiny import tiny_model

from mingshi.continual.remembered import MEMORY, Memory, interleaved, read_memory
from mingshi.continual.selection import unfit
from mingshi.continual.settings import Rehearsal
from mingshi.data.plan import make_plan
from mingshi.errors import DataError, RecipeError
from mingshi.model.load import Model
from mingshi.recipe import parse
from mingshi.record import read_run
from mingshi.run import execute
from mingshi.types import Sample


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    labelled(tmp_path)
    conversations(tmp_path)
    return tmp_path


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def memory(folder: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in (folder / MEMORY).read_bytes().splitlines()]


def sample(trained: int, row: int) -> Sample:
    columns = np.arange(trained, dtype=np.int32)
    return Sample(
        tokens=columns,
        segments=np.array([[0, trained, -1]], np.int32),
        source=columns,
        target=columns,
        weight=np.ones(trained, np.float32),
        sequence=np.zeros(trained, np.int32),
        id=str(row),
    )


# Order


@pytest.mark.parametrize("ratio", [None, 0.5, 0.02])
def test_every_batch_has_its_share_and_an_epoch_all_rows(ratio: float | None) -> None:
    plan = make_plan(rows=90, mixture=lambda epoch: np.arange(90), batch=10, seed=3, epochs=4, steps=None)
    remembered = Memory([sample(2, row) for row in range(10)])
    own = np.full(90, 4)
    mixed = interleaved(plan, remembered, own=own, ratio=ratio, steps=None, epochs=4)
    theirs = {None: 10, 0.5: 180, 0.02: 4}[ratio]
    assert mixed.rows == 90 + theirs and mixed.steps == mixed.steps_per_epoch * 4
    epochs = [
        [mixed.indices(epoch * mixed.steps_per_epoch + step) for step in range(mixed.steps_per_epoch)]
        for epoch in range(4)
    ]
    assert sorted(row for step in epochs[0] for row in step if row < 90) == list(range(90))
    assert epochs[0][0].tolist() != epochs[1][0].tolist()
    for epoch in epochs:
        counts = [int((step >= 90).sum()) for step in epoch if len(step) == 10]
        assert max(counts) - min(counts) <= 1
    seen = np.bincount([row - 90 for epoch in epochs for step in epoch for row in step if row >= 90], minlength=10)
    assert seen.sum() == 4 * theirs and seen.max() - seen.min() <= (1 if ratio != 0.5 else 0), "in turn"
    again = interleaved(plan, remembered, own=own, ratio=ratio, steps=None, epochs=4)
    assert again.indices(17).tolist() == mixed.indices(17).tolist(), "a step is found without those before it"


def test_a_budget_is_a_share_or_a_number() -> None:
    assert Rehearsal().size(1000) == 50 and Rehearsal().size(3) == 1
    assert Rehearsal(budget=0.5).size(9) == 4 and Rehearsal(rows=7).size(5) == 5


# Runs


@pytest.mark.parametrize("choose", ["random", "kmeans", "herding", "k_centre"])
def test_what_is_remembered_is_written_down_and_trained(encoder: Path, place: Path, choose: str) -> None:
    values = classifying(encoder, {}, {"rehearsal": {"rows": 10, "choose": choose}})
    outcome = execute(parse(values))
    rows = memory(outcome.folder)
    assert len({row["row"] for row in rows}) == 10
    assert {(row["stage"], row["taught"], row["task"], row["source"]) for row in rows} == {
        (1, 0, "first", "first.jsonl")
    }
    lines = (place / "first.jsonl").read_bytes().splitlines()
    assert all(orjson.loads(lines[row["line"] - 1])["text"] == row["text"] for row in rows)
    if choose == "herding":
        assert sum("of good" in row["why"] for row in rows) == 5, "of each class as many"
    run = read_run(outcome.folder)
    assert run.data["stages"][1]["remembered"] == 10 and run.data["stages"][1]["steps"] == 28
    trained = [name for line in run.steps if line["stage"] == 1 for name in line["ids"]]
    assert len(trained) == 4 * 70


def test_a_later_stage_remembers_as_much_of_each(encoder: Path, place: Path) -> None:
    values = classifying(encoder)
    third = values["stages"][0] | {"rehearsal": {"rows": 9, "ratio": 0.5}, "steps": 2, "epochs": None}
    second = values["stages"][1] | {"rehearsal": {"budget": 0.1}}
    outcome = execute(parse(values | {"stages": [values["stages"][0], second, third]}))
    rows = memory(outcome.folder)
    assert [sum(row["stage"] == 2 and row["taught"] == taught for row in rows) for taught in (0, 1)] == [4, 5]
    assert sum(row["stage"] == 1 for row in rows) == 6
    batches = [line["ids"] for line in read_run(outcome.folder).steps if line["stage"] == 2]
    assert [len(batch) for batch in batches] == [10, 10]


@pytest.mark.parametrize("kind", ["herding", "own"])
def test_a_run_that_was_stopped_ends_bit_for_bit_alike(
    encoder: Path, base: Path, place: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = classifying(encoder, {}, {"rehearsal": {"rows": 12, "choose": "herding"}})
    if kind == "own":
        rehearsal = {"rows": 6, "answers": "own", "max_new_tokens": 8, "choose": "kmeans"}
        made = answering(base, {"epochs": 6}, {"rehearsal": rehearsal})
    whole = execute(parse(made | {"output": "whole"}))
    seen = [line for line in read_run(whole.folder).steps if line["stage"] == 1]
    at = len(read_run(whole.folder).steps) - len(seen) // 2
    with monkeypatch.context() as patched:
        patched.setattr("mingshi.loop.learning_rate", _stopping(at))
        with pytest.raises(RuntimeError, match="killed"):
            execute(parse(made))
    before = (place / "run" / MEMORY).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("mingshi.lessons.chosen", _never)
        patched.setattr("mingshi.lessons.own_answers", _never)
        again = execute(parse(made), resume=True)
    assert (place / "run" / MEMORY).read_bytes() == before == (whole.folder / MEMORY).read_bytes()
    assert [(line["loss"], line["ids"]) for line in again.record.steps] == [
        (line["loss"], line["ids"]) for line in whole.record.steps
    ]
    assert again.record.data == whole.record.data
    found, wanted = weights(again.model), weights(whole.model)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def _never(*given: Any, **named: Any) -> Any:
    raise AssertionError("chosen again")


def _stopping(at: int) -> Any:
    from mingshi.optim import learning_rate

    calls = [0]

    def counted(*given: Any, **named: Any) -> float:
        calls[0] += 1
        if calls[0] > at:
            raise RuntimeError("killed")
        return learning_rate(*given, **named)

    return counted


def test_rows_that_are_no_longer_there_are_refused(encoder: Path, place: Path) -> None:
    made = classifying(encoder, {}, {"rehearsal": {"rows": 4}})
    execute(parse(made))
    rows = memory(place / "run")
    rows[0]["id"] = "another"
    (place / "run" / MEMORY).write_bytes(b"\n".join(map(orjson.dumps, rows)))
    run = orjson.loads((place / "run" / "run.json").read_bytes())
    (place / "run" / "run.json").write_bytes(orjson.dumps(run | {"status": "failed"}))
    with pytest.raises(DataError, match="no longer 'another'"):
        execute(parse(made), resume=True)
    (place / "run" / MEMORY).write_bytes(b"{half")
    with pytest.raises(DataError, match="damaged"):
        read_memory(place / "run", 1)


# Own answers


def test_its_own_answers_stand_in_the_place_of_the_given_ones(base: Path, place: Path) -> None:
    rehearsal = {"rows": 8, "answers": "own", "max_new_tokens": 48}
    first = {"adapter": {"kind": "full"}, "optim": {"learning_rate": 5e-3}, "epochs": 25}
    outcome = execute(parse(answering(base, first, {"rehearsal": rehearsal})))
    rows = memory(outcome.folder)
    assert len(rows) == 8 and all((row["answer"] is None) == bool(row["kept"]) for row in rows)
    assert any(row["answer"] for row in rows), {row["kept"] for row in rows}
    assert all(len(row["answer"]) < 200 for row in rows if row["answer"])


@pytest.mark.parametrize(
    ("answer", "finished", "flaw"),
    [
        ("It is blue.", True, ""),
        ("  ", True, "its own is empty"),
        ("It is blue", False, "its own is unfinished"),
        ("one two three " * 8, True, "its own repeats itself"),
        ("好的好的好的好的好的好的", True, "its own repeats itself"),
        ("好", True, ""),
    ],
)
def test_an_answer_that_teaches_nothing_is_not_taken(answer: str, finished: bool, flaw: str) -> None:
    assert unfit(answer, finished=finished) == flaw


# Recipes


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ({"rehearsal": {}}, {}, "no stage before the first"),
        ({"hold": {"kind": "ewc"}}, {}, "no stage before the first"),
        ({}, {"rehearsal": {"budget": 0.1, "rows": 3}}, "budget and rows are both given"),
        ({}, {"rehearsal": {"answers": "own"}}, "not taught by answers"),
        ({}, {"hold": {"kind": "ewc"}, "adapter": {"kind": "adalora"}}, "ewc holds plain weights"),
        ({}, {"hold": {"kind": "ewc"}, "adapter": {"kind": "lora", "dora": True}}, "ewc holds plain weights"),
    ],
)
def test_what_a_recipe_cannot_ask_for(
    encoder: Path, place: Path, first: dict[str, Any], second: dict[str, Any], what: str
) -> None:
    with pytest.raises(RecipeError, match=what):
        parse(classifying(encoder, first, second))


def test_rows_of_another_objective_are_refused(base: Path, place: Path) -> None:
    preference = {"objective": {"kind": "dpo"}, "rehearsal": {}}
    with pytest.raises(RecipeError, match="rows of sft cannot be trained by dpo"):
        parse(answering(base, {}, preference))


def test_a_gate_needs_tasks(base: Path, place: Path) -> None:
    with pytest.raises(RecipeError, match="nothing that could be forgotten"):
        parse(answering(base, {}, {"gate": {}}))
