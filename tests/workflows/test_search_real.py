"""A search with real processes: the recipe that is shown, at toy size, ended by `kill -9` in its middle."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from ruamel.yaml import YAML
from tiny import ROWS, tiny_model

from mingshi.recipe import read_recipe
from mingshi.record import read_run
from mingshi.workflows.search_file import read_search

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("search_*.yaml"))
DATA = Path("data/docstrings")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty, but for a few rows where the recipes look for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    DATA.mkdir(parents=True)
    for name, rows in (("train", ROWS[:24]), ("validation", ROWS[24:30]), ("test", ROWS[30:])):
        (DATA / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_a_search_that_is_shown_is_valid(path: Path) -> None:
    plan = read_search(path)
    assert plan.base.model == "smollm2-135m" and plan.told.output.startswith("runs/")
    assert plan.space.start(plan.base) is not None, "the recipe as it stands is a trial"
    assert plan.told.again is not None and plan.told.again.trials == 3
    assert path.read_text().startswith("# ")


def toy(path: Path, model: Path) -> Path:
    """The same search of a tiny model: two trials, judged once before their end, the better one again."""
    values = YAML(typ="safe").load(path.read_text())
    values |= {"trials": 2, "pruning": {"factor": 2, "rungs": 1}, "again": {"trials": 1, "seeds": [1]}}
    values["recipe"]["model"] = str(model)
    values["space"]["stages.0.adapter.rank"] = {"choices": [2, 4]}  # its layers have no room for more than 16
    values["recipe"]["stages"][0]["adapter"]["rank"] = 4
    written = Path(path.name)
    with written.open("w") as stream:
        YAML(typ="safe").dump(values, stream)
    return written


def test_a_recipe_searches_and_goes_on_after_a_kill(place: Path) -> None:
    path = toy(ROOT / "recipes" / "search_docstrings.yaml", tiny_model(place / "tiny"))
    output = Path("runs/search-docstrings")
    command = [sys.executable, "-m", "mingshi", "search", str(path), "--json"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 600  # of a machine that is busy
    while not (output / "trials" / "0000" / "run" / "evals.jsonl").exists():
        if first.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    _, said = first.communicate()
    assert first.returncode == -signal.SIGKILL and (output / "trials" / "0000" / "run").is_dir(), said
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = orjson.loads(done.stdout)
    assert [trial["state"] for trial in told["trials"]].count("done") == 1 and len(told["trials"]) == 2
    assert told["again"][0]["seeds"] == [1]  # and a toy may be trained whole before it hears that it should stop
    for trial in told["trials"]:
        run = read_run(output / "trials" / f"{trial['trial']:04d}" / "run")
        numbers = [step["number"] for step in run.steps]
        assert numbers == list(range(1, len(numbers) + 1)), "no step is lost, and none is taken twice"
        assert {source["role"] for source in run.data["sources"]} == {"train", "validation"}
    best = read_recipe(output / "best.yaml")
    assert best.test and best.output == f"{output}/best"
    assert (output / "report.html").is_file()
