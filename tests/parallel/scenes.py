"""Recipes of tiny runs, and how they are run as several processes (see driver.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from tiny import ROWS, tiny_model

from mingshi.recipe import parse, write_recipe
from mingshi.record import Run, read_run

ROOT = Path(__file__).parents[2]
LORA = {"kind": "lora", "rank": 4, "dropout": 0.2}
FULL = {"kind": "full"}
ADALORA = {"kind": "adalora", "rank": 4}
PREFERENCES = [
    {"prompt": f"Say the number {number}.", "chosen": f"It is {number}. " + "one " * (number % 4), "rejected": "No."}
    for number in range(24)
]


def place_in(folder: Path) -> Path:
    tiny_model(folder / "model")
    for name, rows in (("rows", ROWS), ("test", ROWS[:6]), ("pairs", PREFERENCES)):
        (folder / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return folder


def sft(place: Path, *, adapter: Mapping[str, Any], steps: int = 8, **more: Any) -> dict[str, Any]:
    """Steps of several streams each."""
    stage = {"data": [{"path": str(place / "rows.jsonl")}], "adapter": adapter, "batch": 8, "steps": steps}
    stage |= {"validation": 0.2, "evaluate": 4, "checkpoint": 2, "optim": {"learning_rate": 0.01}} | more
    return {"stages": [stage], "test": [{"path": str(place / "test.jsonl")}], "evals": [{"kind": "perplexity"}]}


def dpo(place: Path) -> dict[str, Any]:
    stage = {"data": [{"path": str(place / "pairs.jsonl"), "format": "preference"}], "objective": {"kind": "dpo"}}
    stage |= {"adapter": LORA | {"dropout": 0.0}, "batch": 8, "steps": 4, "optim": {"learning_rate": 0.01}}
    return {"stages": [stage | {"validation": 0.2}]}


def written(place: Path, name: str, values: Mapping[str, Any]) -> str:
    """The recipe as a file; its run folder has its name."""
    common = {"model": str(place / "model"), "output": str(place / name), "seed": 7, "stream": 128}
    common |= {"precision": "float32"}
    write_recipe(parse(common | dict(values)), place / f"{name}.yaml")
    return str(place / f"{name}.yaml")


def environment(place: Path) -> dict[str, str]:
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "MINGSHI_ALLOCATOR": "off"}
    settings |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MINGSHI_CACHE": str(place / "cache")}
    return {**os.environ, **settings}


def play(place: Path, scenes: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Play the scenes one after another; exit codes and seconds by name."""
    (place / "scenes.json").write_text(json.dumps(scenes))
    command = [sys.executable, str(Path(__file__).with_name("driver.py")), str(place / "scenes.json")]
    subprocess.run(command, check=True, cwd=ROOT, env=environment(place))
    return {scene["name"]: json.loads((place / f"{scene['name']}.json").read_text()) for scene in scenes}


def selected(request: pytest.FixtureRequest, *names: str) -> set[tuple[Any, ...]]:
    """The values of these parameters in the selected tests of a module: only their scenes need be played."""
    module = request.node.nodeid
    specs = [
        item.callspec.params
        for item in request.session.items
        if item.nodeid.startswith(f"{module}::") and isinstance(item, pytest.Function) and "callspec" in vars(item)
    ]
    return {tuple(spec[name] for name in names) for spec in specs if set(names) == set(spec)}


def said(place: Path, name: str, number: int) -> str:
    return (place / f"{name}.{number}.err").read_text()


def run_of(place: Path, name: str) -> Run:
    return read_run(place / name)
