"""How much of the full budget halving needs, on the real curves of tiny networks that learn real sentences.

Every point that a search proposes is trained whole, once, and its record kept. A trial that halving stops is that
record up to where it was stopped, bit for bit what a stopped run holds: its schedule is that of the whole run. So what
halving lost is known, and not only what it found. About five minutes for each seed:

    ./scripts/check --slow tests/workflows/test_search_budget.py -s
"""

from __future__ import annotations

import hashlib
import inspect
import math
import shutil
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from tiny import tiny_model

from mingshi.errors import Preempted
from mingshi.recipe import Recipe
from mingshi.record import Run, read_run
from mingshi.run import execute
from mingshi.signals import Asked
from mingshi.workflows import search as searching
from mingshi.workflows import search_opening
from mingshi.workflows.search_file import read_search, trial_recipe
from mingshi.workflows.search_space import written
from mingshi.workflows.search_trial import Size, course_of

MODULES = (
    *("argparse", "collections", "datetime", "functools", "inspect", "itertools", "json", "logging", "math", "os"),
    *("pathlib", "random", "re", "shutil", "socket", "statistics", "string", "subprocess", "tarfile", "zipfile"),
)
SEEDS = (0, 1, 2)  # of the sampler
TRIALS, ROWS, EPOCHS = 27, 240, 4
SEARCH = """\
output: {output}
trials: {trials}
seed: {seed}
pruning: {pruning}
again: null
recipe:
  model: model
  stages:
    - data: [{{path: train.jsonl, format: instruct}}]
      validation: [{{path: validation.jsonl, format: instruct}}]
      objective: {{kind: sft, max_length: 256, too_long: drop}}
      adapter: {{kind: full}}
      optim: {{schedule: cosine}}
      epochs: {epochs}
space:
  stages.0.optim.learning_rate: {{low: 1e-4, high: 1e-1, log: true}}
  stages.0.optim.warmup: {{low: 0.0, high: 0.2}}
  stages.0.optim.weight_decay: {{low: 1e-3, high: 1.0, log: true}}
  stages.0.batch: {{choices: [4, 8, 16]}}
"""


def sentences() -> list[dict[str, str]]:
    """Names of Python's own functions and the first sentences that are said of them, in an order without a pattern."""
    rows = {}
    for name in MODULES:
        for member, value in inspect.getmembers(__import__(name), callable):
            said = (inspect.getdoc(value) or "").partition("\n")[0]
            if not member.startswith("_") and 20 < len(said) < 100:
                rows[said] = {"instruction": f"{name}.{member}", "input": "", "output": said}
    return sorted(rows.values(), key=lambda row: hashlib.sha256(row["output"].encode()).digest())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budget")
    tiny_model(folder / "model")
    rows = sentences()
    write(folder / "train.jsonl", rows[:ROWS])
    write(folder / "validation.jsonl", rows[ROWS : ROWS + 80])
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> Whole:
    return Whole(place / "runs")


class Whole:
    """Runs that were trained to their end, each once, and what halving sees of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs: dict[str, Run] = {}

    def run(self, recipe: Recipe) -> Run:
        recipe = measured(recipe)
        key = written(recipe.model_dump(mode="json", exclude={"output"}))
        if key not in self.runs:
            output = self.folder / f"{len(self.runs)}"
            execute(recipe.model_copy(update={"output": str(output)}))
            self.runs[key] = read_run(output)
            assert len(self.runs[key].steps) == length(recipe)
            for name in ("checkpoints", "model"):
                shutil.rmtree(output / name, ignore_errors=True)
        return self.runs[key]

    def size(self, recipe: Recipe, *, folder: Path) -> Size:
        run = self.run(recipe)
        return Size(steps=len(run.steps), tokens=sum(step["tokens"] for step in run.steps))

    def trained(self, recipe: Recipe, *, stop: Asked, **_: Any) -> Run:
        """The record of a run as it grows, to its end or to where it is stopped."""
        assert recipe.stages[0].evaluate in ("epoch", measured(recipe).stages[0].evaluate)
        run, folder = self.run(recipe), Path(recipe.output)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(run.folder / "data.json", folder / "data.json")
        places = sorted({line["step"] for line in run.evals if line["data"] == "validation" and line["step"] > 0})
        for place in places:
            status = "done" if place == places[-1] else "running"
            (folder / "run.json").write_bytes(orjson.dumps({**run.run, "status": status}))
            write(folder / "steps.jsonl", [step for step in run.steps if step["number"] <= place])
            write(folder / "evals.jsonl", [line for line in run.evals if line["step"] <= place])
            if status == "running" and stop.requested:
                raise Preempted("stopped", "Go on.")
        return read_run(folder)

    def score(self, recipe: Recipe) -> float:
        """What the whole run came to."""
        run = self.run(recipe)
        found = course_of(run, recipe, metric="nats_per_token").score_at(len(run.steps))
        assert found is not None
        return found


def write(path: Path, lines: Sequence[Any]) -> None:
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))


def length(recipe: Recipe) -> int:
    return math.ceil(ROWS / recipe.stages[0].batch) * EPOCHS


def measured(recipe: Recipe) -> Recipe:
    """Nine times in a whole run: the first of them is the first rung."""
    stage = recipe.stages[0].model_copy(update={"evaluate": round(length(recipe) / 9)})
    return recipe.model_copy(update={"stages": (stage,)})


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_halving_comes_within_a_hundredth_of_the_best_at_two_fifths_of_the_tokens(
    seed: int, place: Path, whole: Whole, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setattr(searching, "trained", whole.trained)
    monkeypatch.setattr(search_opening, "size_of", whole.size)
    told, plans = {}, {}
    for name, pruning in (("whole", "null"), ("halving", "{}")):
        text = SEARCH.format(output=f"{name}-{seed}", trials=TRIALS, seed=seed, pruning=pruning, epochs=EPOCHS)
        Path(f"{name}.yaml").write_text(text)
        plans[name] = read_search(Path(f"{name}.yaml"))
        told[name] = searching.search(plans[name])
    full, found, share = told["whole"], told["halving"]["best"]["chosen"], told["halving"]["tokens"]["share"]
    own = [whole.score(trial_recipe(plans["halving"].recipe_at(trial["point"]))) for trial in told["halving"]["trials"]]
    best = full["best"]["chosen"]
    with capsys.disabled():
        print(
            f"\nseed {seed}: whole {best:.4f} at {full['tokens']['read']:,} tokens; halving {found:.4f} at {share:.1%} "
            f"({found / best - 1:+.2%}); the best of its own trials, had all been trained whole, {min(own):.4f} "
            f"({found / min(own) - 1:+.2%}); the middle of them {statistics.median(own):.4f}"
        )
    assert full["tokens"]["share"] == 1.0 and share <= 0.4
    assert found <= 1.01 * best and found <= 1.01 * min(own)
    assert statistics.median(own) > 1.02 * min(own)  # a trial drawn by chance would not do
