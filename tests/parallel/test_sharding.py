"""A base that processes share out trains the same adapter as a whole one, and each process holds its part alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from networks import network, samples, work
from parallel.scenes import LORA, place_in, play, said, selected, sft, written
from parallel.test_equality import assert_same
from torch.distributed import destroy_process_group, init_process_group
from torch.testing._internal.distributed.fake_pg import FakeStore

from mingshi.loop import _batches, draws
from mingshi.memory import Account, Estimate
from mingshi.ranks import ALONE
from mingshi.recipe import parse
from mingshi.sharding import blocks, divided, fitted, held_bytes, obstacles, share_out

ANSWERS = [{"kind": "generation", "max_new_tokens": 8}]
SHARED = {"shard": "always", "checkpoint": 5}
RECIPES = {
    "lora": lambda place: sft(place, adapter=LORA | {"dropout": 0.0}, **SHARED),
    # One row a step: with dropout nothing of it can be shared out, and a process has nothing of its own to do.
    "single": lambda place: sft(place, adapter=LORA, batch=1, steps=4, **SHARED),
    "answers": lambda place: sft(place, adapter=LORA | {"dropout": 0.0}, steps=4, **SHARED) | {"evals": ANSWERS},
    "adalora": lambda place: sft(place, adapter={"kind": "adalora", "rank": 4}, **SHARED),
    "ia3": lambda place: sft(place, adapter={"kind": "ia3"}, **SHARED),
}
SAID = "The base is shared out"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place_in(tmp_path_factory.mktemp("sharding"))


@pytest.fixture(scope="module")
def ended(place: Path, request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    scenes: list[dict[str, Any]] = []
    for name, count in sorted(selected(request, "name", "count")):
        for each in (1, count):
            recipe = written(place, f"{name}-{each}", RECIPES[name](place))
            scenes.append({"name": f"{name}-{each}", "count": each, "recipe": recipe})
    for (how,) in sorted(selected(request, "how")):
        recipe = written(place, f"lora-{how}", RECIPES["lora"](place))
        fault = {"process": 1, "where": "step", "at": 2, "how": how}
        scenes.append({"name": f"lora-{how}", "count": 2, "recipe": recipe, "fault": fault})
        if how == "term":
            scenes.append({"name": "lora-resumed", "count": 1, "recipe": recipe, "words": ["--resume"]})
            if "lora-1" not in [scene["name"] for scene in scenes]:
                whole = written(place, "lora-1", RECIPES["lora"](place))
                scenes.append({"name": "lora-1", "count": 1, "recipe": whole})
    return play(place, scenes)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("lora", 2),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in [("single", 2), ("answers", 2), ("adalora", 2), ("ia3", 4)]
        ),
    ],
)
def test_a_shared_base_gives_the_losses_and_the_adapter_of_a_whole_one(
    name: str, count: int, place: Path, ended: dict[str, dict[str, Any]]
) -> None:
    assert ended[f"{name}-1"]["codes"] == [0], said(place, f"{name}-1", 0)
    assert ended[f"{name}-{count}"]["codes"] == [0] * count, said(place, f"{name}-{count}", 0)
    assert SAID in said(place, f"{name}-{count}", 0)
    assert SAID not in said(place, f"{name}-1", 0)
    assert_same(place, f"{name}-1", f"{name}-{count}")


@pytest.mark.parametrize("how", ["term", pytest.param("kill", marks=pytest.mark.slow)])
def test_what_two_began_one_goes_on_with_and_a_killed_process_ends_the_other(
    how: str, place: Path, ended: dict[str, dict[str, Any]]
) -> None:
    if how == "kill":
        assert ended["lora-kill"]["codes"][0] == 6, said(place, "lora-kill", 0)
        assert "process 1 of 2 failed: it is gone without a word" in said(place, "lora-kill", 0)
        return
    assert ended["lora-term"]["codes"] == [75, 75], said(place, "lora-term", 0)
    assert ended["lora-resumed"]["codes"] == [0], said(place, "lora-resumed", 0)
    assert "Resuming after step 3 of 8" in said(place, "lora-resumed", 0)
    assert_same(place, "lora-1", "lora-term")


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_all_go_through_a_shared_base_equally_often_and_what_is_added_weighs_nothing(dropout: float) -> None:
    net = network("llama", attention_dropout=dropout)
    rows = samples([30, 20, 12])
    plain = work(net, rows, batch=3, budget=32)
    given: list[list[Any]] = []
    for number in range(4):
        ranks: Any = SimpleNamespace(count=4, number=number, divided=True)
        shared = replace(plain, ranks=ranks)
        given.append([batch for batch, _ in _batches(shared, rows, 0, 32, scattered=not draws(net))])
    assert {len(batches) for batches in given} == {1}
    weights = [float(batch.weights.sum()) for batches in given for batch in batches]
    assert weights == [batch.weight for batches in given for batch in batches]
    assert sum(weights) == sum(float(row.weight.sum()) for row in rows)
    assert weights.count(0.0) == (1 if dropout == 0 else 2)


@pytest.fixture
def pretended() -> Iterator[SimpleNamespace]:
    """The first of two processes, without the second."""
    init_process_group("fake", store=FakeStore(), rank=0, world_size=2)
    yield SimpleNamespace(count=2, divide=lambda follow: lambda: None)
    destroy_process_group()


def test_each_of_two_processes_holds_half_of_every_block(pretended: Any) -> None:
    whole = network("llama").requires_grad_(False)
    inside = sum(one.nbytes for block in blocks(whole) for one in block.parameters())
    everything = sum(one.nbytes for one in whole.parameters())
    share_out(whole, "cpu", pretended)
    assert held_bytes(whole) == everything - inside // 2
    assert sum(one.numel() * one.element_size() for one in whole.parameters()) == everything
    assert whole.dtype == torch.float32


@pytest.mark.parametrize(
    ("shard", "needed", "count", "shared"),
    [
        ("auto", 500, 2, True),  # half of 1,000 bytes is not enough
        ("auto", 400, 2, False),
        ("auto", 500, 1, False),
        ("always", 1, 2, True),
        ("never", 5000, 2, False),
    ],
)
def test_a_base_is_shared_out_where_it_does_not_fit_into_one(
    shard: str, needed: int, count: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimate = Estimate(weights=needed, optimiser=0, activations=0, other=0, stream=4096, largest=4096)
    account: Any = SimpleNamespace(at=lambda budget: estimate, longest=128)
    monkeypatch.setattr("mingshi.memory.accounts_of", lambda *given, **named: [account])
    monkeypatch.setattr("mingshi.memory.free_bytes", lambda device: 1000)
    monkeypatch.setattr("mingshi.sharding.divided", lambda one, among: one)
    done: list[str] = []
    monkeypatch.setattr("mingshi.sharding.share_out", lambda *given: done.append("shared"))
    display = SimpleNamespace(say=done.append)
    ranks: Any = SimpleNamespace(count=count, first=True, told=lambda work: work(), agree=lambda *given: None)
    values = {"model": "m", "output": "o", "stages": [{"data": [{"path": "rows.jsonl"}], "shard": shard}]}
    model: Any = SimpleNamespace(network=network("llama"), adapter=None, text=None)
    record: Any = SimpleNamespace(fields={})
    recipe = fitted(parse(values), model, [], record, display, interpreter=0, ranks=ranks)  # type: ignore[arg-type]
    assert ("shared" in done) == shared
    assert recipe.budget == 4096


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ({"adapter": {"kind": "full"}}, "full changes the base"),
        ({"adapter": {"kind": "qlora"}}, "qlora changes the base"),
        ({"adapter": {"kind": "lora", "dora": True}}, "whole weights as they begin"),
        ({"objective": {"kind": "dpo"}, "evals": []}, "more than one network"),
    ],
)
def test_what_cannot_be_shared_out_is_named(stage: dict[str, Any], words: str) -> None:
    kept = {name: value for name, value in stage.items() if name != "evals"}
    values = {"model": "m", "output": "o", "evals": [], "stages": [{"data": [{"path": "rows.jsonl"}], **kept}]}
    (problem,) = obstacles(parse(values))
    assert words in problem.what


def test_the_estimate_of_a_shared_base_is_its_part_and_what_is_gathered() -> None:
    net = network("llama", num_hidden_layers=12).requires_grad_(False)
    block = sum(one.nbytes for one in blocks(net)[0].parameters())
    account = Account(
        network=net,
        stage=None,  # type: ignore[arg-type]
        prepared=None,  # type: ignore[arg-type]
        weights=1_000_000,
        masters=0,
        gradients=0,
        interpreter=0,
        device="cpu",
    )
    assert divided(account, 4).weights == 1_000_000 - 12 * block + 12 * -(-block // 4) + 3 * block
    assert not ALONE.divided
