"""Every adapter through a whole run that is stopped halfway, resumed, and published."""

from __future__ import annotations

import importlib.util
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from tiny import ROWS, tiny_model

from mingshi import execute
from mingshi.display import Silent
from mingshi.errors import Preempted
from mingshi.model import export
from mingshi.model.adapters import ADAPTERS
from mingshi.recipe import Recipe, parse
from mingshi.record import read_run
from mingshi.types import Step
from mingshi.use import open_model

CASES: dict[str, dict[str, Any]] = {kind: {"kind": kind} for kind in ADAPTERS} | {
    "adalora": {"kind": "adalora", "rank": 2, "every": 2},
    "pissa": {"kind": "lora", "start": "pissa", "rank": 4, "dropout": 0.1},
}
needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (mingshi[qlora])"
)
MARKS = {"qlora": needs_bitsandbytes}


@dataclass(frozen=True)
class Ends(Silent):
    """Asks the run to stop after a step."""

    after: int

    def step(self, step: Step, steps: int) -> None:
        if step.number == self.after:
            signal.raise_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("place")
    tiny_model(place / "model")
    (place / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    return place


def recipe(place: Path, case: str, output: Path) -> Recipe:
    stage = {
        "data": [{"path": str(place / "rows.jsonl")}],
        "adapter": CASES[case],
        "optim": {"learning_rate": 0.01},
        "validation": 0.2,
        "evaluate": 3,
        "steps": 8,
        "batch": 8,
    }
    told = {"model": str(place / "model"), "output": str(output), "stages": [stage], "precision": "float32"}
    return parse(told | {"seed": 3, "stream": 256, "evals": []})


def history(file: Path) -> list[dict[str, Any]]:
    lines = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "time")} for line in lines]


@pytest.mark.parametrize("case", [pytest.param(case, marks=MARKS.get(case, ())) for case in CASES if case != "bias"])
def test_stopped_and_resumed_it_publishes_the_same_bytes(
    case: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(place / "cache"))
    whole = execute(recipe(place, case, tmp_path / "whole"))
    broken = recipe(place, case, tmp_path / "broken")
    with pytest.raises(Preempted):
        execute(broken, display=Ends(4))
    resumed = execute(broken, resume=True)

    name = "model" if case in ("full", "last-layers") else "adapter"
    (first,), (second,) = ([*(run.folder / name).glob("*.safetensors")] for run in (whole, resumed))
    assert first.read_bytes() == second.read_bytes()
    for file in ("steps.jsonl", "evals.jsonl"):
        assert history(whole.folder / file) == history(resumed.folder / file) != []
    record = read_run(whole.folder)
    assert 0 < record.run["model"]["trainable"] <= record.run["model"]["parameters"] * 1.5
    assert all(check.passed for check in export.verify(whole.folder / name))
    model = open_model(whole.folder)
    assert model.quantised == (case == "qlora") and whole.generate("Say the number 3.", max_new_tokens=3) is not None
