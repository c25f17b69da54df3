"""A stage that forgets is refused: its weights are put back, and everybody is told."""

from __future__ import annotations

import math
from pathlib import Path

import orjson
import pytest
import torch
from encoders import tiny_encoder
from lesson_streams import classifying, labelled

from mingshi.continual.gate import falls
from mingshi.errors import Refused
from mingshi.model.load import load
from mingshi.recipe import parse
from mingshi.record import read_run
from mingshi.report.page import write_report
from mingshi.run import execute
from mingshi.types import Score, Scores


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    labelled(tmp_path)
    return tmp_path


def measured(values: list[float], name: str = "rougeL") -> Scores:
    mean = sum(values) / len(values)
    score = Score(value=mean, low=math.nan, high=math.nan, count=len(values), signature=name)
    return Scores(scores={name: score}, items={name: values})


def rising(count: int, wrong: int) -> Scores:
    return measured([0.0] * wrong + [1.0] * (count - wrong))


def test_a_fall_is_told_from_the_best_so_far_and_refused_if_it_is_sure() -> None:
    history = [{"a": rising(100, 50)}, {"a": rising(100, 5)}, {"a": rising(100, 10)}, {"a": rising(100, 25)}]
    (fall,) = falls(history, {"a": "generation.rougeL"}, allowed=0.05)
    assert fall.since == 1 and fall.refused and fall.fall.value == pytest.approx(0.2)
    assert 0.05 < fall.fall.low < 0.2 < fall.fall.high
    (allowed,) = falls(history, {"a": "generation.rougeL"}, allowed=0.21)
    assert not allowed.refused


def test_a_fall_that_may_be_chance_is_let_through() -> None:
    (fall,) = falls([{"a": rising(10, 1)}, {"a": rising(10, 2)}], {"a": "generation.rougeL"}, allowed=0.05)
    assert fall.fall.value == pytest.approx(0.1) and fall.fall.low <= 0 and not fall.refused


def test_of_nats_a_rise_is_a_fall_and_what_fell_everywhere_alike_is_sure() -> None:
    history = [{"a": measured([1.0, 2.0, 3.0], "loss")}, {"a": measured([1.5, 2.5, 3.5], "loss")}]
    (fall,) = falls(history, {"a": "x.loss"}, allowed=0.05)
    assert fall.fall.value == pytest.approx(0.5) and fall.refused
    (better,) = falls(history[::-1], {"a": "x.loss"}, allowed=0.05)
    assert better.fall.value == pytest.approx(-0.5) and not better.refused
    assert falls(history, {"a": "x.length"}, allowed=0.0) == [] or "length" not in history[0]["a"].scores


def alone(encoder: Path) -> dict[str, torch.Tensor]:
    """What the first stage leaves by itself."""
    values = classifying(encoder, output="alone")
    values |= {"stages": values["stages"][:1], "tasks": values["tasks"][:1]}
    found = execute(parse(values)).model.network.state_dict()
    return {name: tensor.clone() for name, tensor in found.items()}


@pytest.mark.parametrize("adapter", [{"kind": "full"}, {"kind": "lora", "rank": 4}])
def test_a_stage_that_forgets_ends_the_run_with_the_weights_before_it(
    encoder: Path, place: Path, adapter: dict[str, object]
) -> None:
    made = classifying(encoder, {}, {"gate": {"forget": 0.1}, "adapter": adapter, "optim": {"learning_rate": 1e-2}})
    with pytest.raises(Refused, match=r"stages.1.gate: first: classification.accuracy fell by") as caught:
        execute(parse(made))
    assert caught.value.exit_code == 7
    run = read_run(place / "run")
    assert run.status == "refused" and "fell by" in run.run["summary"]["error"]
    (gate,) = run.run["gates"]
    assert gate["refused"] and gate["stage"] == 1 and gate["falls"][0]["since"] == 1
    matrix = run.run["forgetting"]["matrix"]
    assert matrix[2] == matrix[1], "the run ended with the weights that the first stage left"
    wanted, saved = alone(encoder), load(str(place / "run" / "model"), precision="float32").network.state_dict()
    assert all(torch.equal(saved[name], wanted[name]) for name in wanted)
    with pytest.raises(Refused):
        execute(parse(made), resume=True)
    assert read_run(place / "run").run["gates"] == run.run["gates"]
    page = write_report(place / "run").read_text(encoding="utf-8")
    assert "Refused" in page and "已拒绝" in page


def test_a_run_may_go_on_past_a_refused_stage(encoder: Path, place: Path) -> None:
    made = classifying(encoder, {}, {"gate": {"forget": 0.1, "then": "go-on"}})
    third = made["stages"][0] | {"steps": 1, "epochs": None}
    outcome = execute(parse(made | {"stages": [*made["stages"], third]}))
    assert outcome.status == "done" and outcome.record.run["gates"][0]["refused"]
    matrix = outcome.record.run["forgetting"]["matrix"]
    assert matrix[2] == matrix[1] and len(matrix) == 4
    refused = [line for line in outcome.record.evals if line["when"] == "during" and line["stage"] == 1]
    assert refused and refused[0]["scores"]["accuracy"]["value"] < matrix[1]["first"]["value"], "what it had done"


def test_a_stage_that_keeps_what_there_was_passes(encoder: Path, place: Path) -> None:
    made = classifying(encoder, {}, {"gate": {"forget": 0.1}, "data": [{"path": "first.jsonl"}]})
    made["tasks"] = made["tasks"][:1]
    outcome = execute(parse(made))
    assert outcome.status == "done" and not outcome.record.run["gates"][0]["refused"]
    after = [line for line in outcome.record.evals if line["when"] == "after"]
    assert len(after) == 1, "measured once, and told as the last"
    assert orjson.dumps(after[0]["scores"]) == orjson.dumps(
        next(line for line in outcome.record.evals if line["stage"] == 1 and line["when"] == "during")["scores"]
    )
