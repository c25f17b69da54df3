"""What preferences are compared with: computed once, kept, and never asked again; and whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from objectives.preferences import ROWS, companion, encoded
from tiny import tiny_model

from mingshi import run
from mingshi.display import Silent
from mingshi.errors import ModelError, Preempted
from mingshi.model import reference as module
from mingshi.model.adapters import Lora
from mingshi.model.load import Model, load
from mingshi.model.logprob import token_log_probabilities
from mingshi.model.reference import reference_log_probabilities
from mingshi.objectives import Dpo
from mingshi.recipe import parse

LN2 = math.log(2)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Predictions of every reference pass, one entry a stream."""
    seen: list[int] = []

    def counted(network: Any, batch: Any) -> torch.Tensor:
        seen.append(len(batch.target))
        return token_log_probabilities(network, batch)

    monkeypatch.setattr(module, "token_log_probabilities", counted)
    return seen


def test_what_is_kept_is_what_the_network_says_and_is_computed_once(
    model: Model, folder: Path, tmp_path: Path, passes: list[int]
) -> None:
    samples = encoded(model.text)
    first = companion(Dpo(), model, samples, tmp_path)
    assert sum(passes) == sum(len(sample.target) for sample in samples) and len(passes) > 1
    with torch.no_grad():
        online = token_log_probabilities(model.network, Dpo().collate(samples, "cpu"))
    passes.clear()
    other = load(folder, precision="float32")
    Lora(rank=8).attach(other, seed=3)  # computes the same as the bare network: another beta or rank costs no pass
    again = companion(Dpo(beta=0.5, loss_type="ipo"), other, samples, tmp_path)
    assert passes == []
    rows = range(len(samples))
    assert torch.equal(again.of(rows, "cpu"), first.of(rows, "cpu"))
    assert torch.allclose(again.of(rows, "cpu"), online, atol=1e-5)
    backwards = again.of([3, 0], "cpu")
    assert torch.equal(backwards, torch.cat([again.of([3], "cpu"), again.of([0], "cpu")]))


def test_other_weights_and_other_samples_are_asked_anew(model: Model, tmp_path: Path, passes: list[int]) -> None:
    samples = encoded(model.text)
    companion(Dpo(), model, samples, tmp_path)
    passes.clear()
    companion(Dpo(), model, samples[1:], tmp_path)
    assert len(passes) > 0
    passes.clear()
    with torch.no_grad():
        model.network.model.layers[1].mlp.up_proj.weight[0, 0] += 1e-3
    companion(Dpo(), model, samples, tmp_path)
    assert len(passes) > 0


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [flip, cut, empty, Path.unlink])
def test_a_damaged_file_is_made_again(
    damage: Callable[[Path], None], model: Model, tmp_path: Path, passes: list[int]
) -> None:
    samples = encoded(model.text)
    first = companion(Dpo(), model, samples, tmp_path)
    (kept,) = (tmp_path / "reference").iterdir()
    damage(kept)
    passes.clear()
    again = companion(Dpo(), model, samples, tmp_path)
    assert len(passes) > 0
    assert torch.equal(again.of([0, 5], "cpu"), first.of([0, 5], "cpu"))


def test_the_reference_knows_no_dropout_and_leaves_the_mode_as_it_was(model: Model, tmp_path: Path) -> None:
    samples = encoded(model.text)
    plain = companion(Dpo(), model, samples, tmp_path / "plain")
    Lora(rank=4, dropout=0.5).attach(model, seed=0)
    with torch.no_grad():
        for name, one in model.network.named_parameters():
            one.add_(0.1 if "lora_B" in name else 0.0)
    model.network.train()
    model.network.config.attention_dropout = 0.5
    first, second = (companion(Dpo(), model, samples, tmp_path / name) for name in ("one", "two"))
    assert torch.equal(first.of([0, 1], "cpu"), second.of([0, 1], "cpu"))
    assert not torch.equal(first.of([0, 1], "cpu"), plain.of([0, 1], "cpu"))
    assert model.network.training


def test_a_named_model_is_the_reference_where_one_is_named(
    model: Model, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = tiny_model(tmp_path_factory.mktemp("other"), seed=5)
    samples = encoded(model.text)
    found = companion(Dpo(reference=str(place)), model, samples, tmp_path)
    other = load(place, precision="float32")
    with torch.no_grad():
        online = token_log_probabilities(other.network, Dpo().collate(samples, "cpu"))
    assert torch.allclose(found.of(range(len(samples)), "cpu"), online, atol=1e-5)


def test_a_reference_that_reads_otherwise_is_refused(model: Model, tmp_path: Path) -> None:
    place = tiny_model(tmp_path / "other")
    tokenizer = load(place).tokenizer
    tokenizer.add_tokens(["extraordinary"])
    tokenizer.save_pretrained(place)
    with pytest.raises(ModelError, match="another tokenizer"):
        companion(Dpo(reference=str(place)), model, encoded(model.text), tmp_path)


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_losses_without_a_reference_ask_none(name: str, model: Model, tmp_path: Path, passes: list[int]) -> None:
    assert companion(Dpo(loss_type=name), model, encoded(model.text), tmp_path) is None
    assert passes == [] and list(tmp_path.iterdir()) == []


def test_a_full_disk_costs_a_pass_and_no_run(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    samples = encoded(model.text)
    found = reference_log_probabilities(model.network, samples, folder=tmp_path, budget=99, display=Silent())
    assert len(found.of([0], "cpu")) == len(samples[0].target)
    assert list(tmp_path.iterdir()) == []


# Runs


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    told = [
        {
            "prompt": [{"role": one.role, "content": one.content} for one in example.prompt],
            "chosen": example.chosen[0].content,
            "rejected": example.rejected[0].content,
        }
        for example in ROWS
    ]
    chats = [{"messages": [*one["prompt"], {"role": "assistant", "content": one["chosen"]}]} for one in told]
    for name, rows in (("pairs", told[:8]), ("held", told[8:10]), ("test", told[10:]), ("chats", chats)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    return tmp_path


def stage(**fields: Any) -> dict[str, Any]:
    plain = {
        "data": [{"path": "pairs.jsonl", "format": "preference"}],
        "validation": [{"path": "held.jsonl", "format": "preference"}],
        "objective": {"kind": "dpo"},
        "adapter": {"kind": "lora", "rank": 4},
        "optim": {"learning_rate": 1e-2},
        "batch": 4,
        "epochs": 3,
    }
    return plain | fields


def carried_out(base: Path, *stages: dict[str, Any], **fields: Any) -> Any:
    values = {"model": str(base), "output": "run", "precision": "float32", "stages": list(stages or [stage()])}
    return run.execute(parse(values | fields))


def test_after_a_stage_of_plain_fine_tuning_nothing_is_preferred_yet(folder: Path, place: Path) -> None:
    plain = {"data": [{"path": "chats.jsonl", "format": "chat"}], "adapter": {"kind": "lora", "rank": 4}}
    plain |= {"optim": {"learning_rate": 1e-2}, "batch": 4, "epochs": 2, "validation": 0.0}
    outcome = carried_out(folder, plain, stage(optim={"learning_rate": 1e-3}))
    first = next(step for step in outcome.record.steps if step["stage"] == 1)
    assert first["loss"] == pytest.approx(LN2, abs=1e-5)
    assert abs(first["metrics"]["reward_margin"]) < 1e-5 and first["metrics"]["kl"] < 1e-8
    last = outcome.record.steps[-1]
    assert last["loss"] < LN2 and last["metrics"]["reward_accuracy"] > 0.5 and last["metrics"]["kl"] > 0


def test_later_epochs_and_later_runs_make_no_pass(folder: Path, place: Path, passes: list[int]) -> None:
    first = carried_out(folder)
    whole = sum(passes)
    passes.clear()
    second = carried_out(folder, stage(adapter={"kind": "full"}, optim={"learning_rate": 1e-4}), output="second")
    assert passes == []
    assert first.record.run["status"] == second.record.run["status"] == "done"
    assert first.record.steps[0]["loss"] == pytest.approx(LN2, abs=1e-5)
    model = load(folder, precision="float32")
    assert whole == sum(len(sample.target) for sample in encoded(model.text, ROWS[:10]))


def test_validation_follows_the_loss_with_intervals_and_keeps_the_best(folder: Path, place: Path) -> None:
    outcome = carried_out(folder, stage(early_stopping={"patience": 2}))
    told = [line for line in outcome.record.evals if line["data"] == "validation"]
    assert {line["kind"] for line in told} == {"dpo"} and len(told) >= 2
    assert next(iter(told[0]["scores"])) == "loss" and "reward_accuracy" in told[0]["scores"]
    assert all(line["scores"]["loss"]["count"] == 2 for line in told)
    (summary,) = outcome.record.run["summary"]["stages"]
    losses = {line["step"]: line["scores"]["loss"]["value"] for line in told}
    assert summary["best_value"] == min(losses.values()) == losses[summary["best_step"]]


def test_a_resumed_run_is_the_run_that_was_never_stopped(folder: Path, place: Path) -> None:
    """Its reference is the network before any step, not the one that was restored."""
    whole = carried_out(folder, output="whole")
    values = whole.record.run["recipe"] | {"output": "run", "model": str(folder)}
    values["stages"] = [values["stages"][0] | {"checkpoint": 1}]
    recipe = parse(values)
    honest = run.train

    def cut_short(stage: Any, *, start: int = 0) -> Any:
        for step in honest(stage, start=start):
            yield step
            if step.number == 3:
                raise Preempted("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", cut_short)
        with pytest.raises(Preempted):
            run.execute(recipe)
    again = run.execute(recipe, resume=True)
    assert [line["loss"] for line in again.record.steps] == [line["loss"] for line in whole.record.steps]
