"""Strategies for several skills, from the file to the page, on networks of a few thousand weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from tiny import tiny_model

from mingshi.errors import Preempted, RecipeError
from mingshi.model.load import read_saved
from mingshi.recipe import Recipe
from mingshi.record import Run, read_run
from mingshi.report.skills import render
from mingshi.resume import finished as run_that_is_done
from mingshi.run import execute
from mingshi.workflows import skills as workflow
from mingshi.workflows.compare_child import Failure
from mingshi.workflows.skills import skills
from mingshi.workflows.skills_file import Skills, read_skills
from mingshi.workflows.skills_told import described

FILE = """\
model: tiny
output: out
seeds: [0]
general: fox
skills:
  - {name: count, data: [{path: count.jsonl}], validation: {path: count-v.jsonl}, test: {path: count-t.jsonl},
     eval: {kind: generation, metrics: [exact_match], max_new_tokens: 4}, metric: generation.exact_match}
  - {name: fox, data: [{path: fox.jsonl}], validation: {path: fox-v.jsonl}, test: {path: fox-t.jsonl},
     eval: {kind: generation, metrics: [exact_match], max_new_tokens: 4}, metric: generation.exact_match}
  - {name: greet, data: [{path: greet.jsonl}], validation: {path: greet-v.jsonl}, test: {path: greet-t.jsonl},
     eval: {kind: perplexity}}
training: {adapter: {kind: lora, rank: 2}, batch: 4, optim: {warmup: 0}}
strategies:
  - alone
  - multi_task
  - sequential
  - mixed_sequential
  - {kind: dmt, k: [0.5, 0.25]}
  - {kind: experts_first, ratio: {count: 1, fox: 2, greet: 1}}
  - {kind: merge, method: average}
  - {kind: merge, method: ties, scale: [0.5, 1]}
  - {kind: merge, method: svd, rank: 1}
  - distill
"""
ANSWERS = {"count": "one two three", "fox": "The quick brown fox jumps over the lazy dog.", "greet": "Say hello."}


class Trainer:
    """Trains in this process; may be told to end before the n-th training, or to fail one."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.stop_at, self.fails = -1, ""

    def __call__(self, recipe: Recipe, *, file: Path, log: Path, stop: Any) -> Run:
        folder = Path(recipe.output)
        if (done := run_that_is_done(folder, recipe.model_dump(mode="json"))) is not None:
            return done
        if len(self.made) == self.stop_at:
            raise Preempted("stopped in the middle of a run", "Go on with --resume.")
        if self.fails and self.fails in str(folder):
            raise Failure(5, "the loss is not finite")
        self.made.append("/".join(folder.parts[-2:]))
        execute(recipe)
        return read_run(folder)


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINGSHI_CACHE", str(folder / "cache"))
    tiny_model(folder / "tiny")
    for name, answer in ANSWERS.items():
        for part, rows in (("", range(12)), ("-v", range(12, 16)), ("-t", range(16, 22))):
            lines = [orjson.dumps({"instruction": f"{name} {number}?", "output": answer}) for number in rows]
            Path(f"{name}{part}.jsonl").write_bytes(b"\n".join(lines))
    Path("skills.yaml").write_text(FILE)
    trainer = Trainer()
    monkeypatch.setattr(workflow, "trained", trainer)
    return trainer


@dataclass(frozen=True, slots=True)
class Finished:
    folder: Path
    told: dict[str, Any]
    made: Sequence[str]
    resumed: Sequence[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Carried out whole, but for a kill in the middle."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("skills")
        trainer = prepared(folder, monkeypatch)
        trainer.stop_at = 6
        with pytest.raises(Preempted):
            skills(read_skills(Path("skills.yaml")))
        before = list(trainer.made)
        trainer.stop_at = -1
        told = skills(read_skills(Path("skills.yaml")), resume=True, language="zh")
        yield Finished(folder, told, before, trainer.made[len(before) :])


def row(told: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in told["rows"] if one["name"] == name)


def test_experts_are_trained_once_and_what_was_done_is_not_done_again(finished: Finished) -> None:
    assert finished.told["code"] == 0
    assert finished.made == [f"{name}/seed-0" for name in ("alone-count", "alone-fox", "alone-greet")] + [
        f"{name}/seed-0" for name in ("multi_task", "sequential", "mixed_sequential")
    ]
    assert finished.resumed == [
        f"{name}/seed-0" for name in ("dmt-k0.5", "dmt-k0.25", "experts_first", "distill-route")
    ]
    assert [one["name"] for one in finished.told["rows"]] == [
        *("multi_task", "sequential", "mixed_sequential", "dmt-k0.5", "dmt-k0.25", "experts_first"),
        *("merge-average", "merge-ties-x0.5", "merge-ties-x1", "merge-svd", "distill-route"),
        *("alone-count", "alone-fox", "alone-greet"),
    ]


def test_the_stages_of_a_strategy_are_stages_of_a_recipe(finished: Finished) -> None:
    recipe = read_run(finished.folder / "out/runs/dmt-k0.25/seed-0").run["recipe"]
    first, second = recipe["stages"]
    assert [source["path"] for source in first["data"]] == ["count.jsonl", "greet.jsonl"]
    weights = {source["path"]: source["weight"] for source in second["data"]}
    assert weights == pytest.approx({"count.jsonl": 0.25, "fox.jsonl": 1.0, "greet.jsonl": 0.25}, rel=1e-4)
    start = read_run(finished.folder / "out/runs/experts_first/seed-0").run["recipe"]
    chosen = finished.told["starts"]["0"]["chosen"]
    assert start["model"] == f"out/runs/alone-{chosen}/seed-0/adapter"
    taught = read_run(finished.folder / "out/runs/distill-route/seed-0").run["recipe"]["stages"][0]["objective"]
    assert [one["model"] for one in taught["teachers"]] == [
        f"out/runs/alone-{name}/seed-0/adapter" for name in ("count", "fox", "greet")
    ]


def test_every_strategy_reads_about_one_budget_and_what_differs_is_told(finished: Finished) -> None:
    told = finished.told
    budget = told["budget"]
    for one in told["rows"]:
        if one["kind"] not in ("alone", "merge"):
            own = sum(sum(stage["tokens"].values()) for stage in one["stages"])
            begun = [
                told["skills"][place]["share"] for place, name in enumerate(ANSWERS) if name in one["starts"].values()
            ]
            assert own + sum(begun) == pytest.approx(budget)
            assert one["read"] == pytest.approx(budget, rel=0.25)  # a dozen rows in steps of four
    assert row(told, "merge-ties-x1")["trained"] == [] and row(told, "merge-ties-x1")["spent"] > 0
    assert row(told, "merge-average")["read"] == sum(row(told, f"alone-{name}")["read"] for name in ANSWERS)
    notes = {note["note"]: note["loud"] for note in told["notes"]}
    assert notes["tokens"] and notes["seeds"] and not notes["part"]


def test_what_each_came_to_stands_in_the_table_and_on_the_page(finished: Finished) -> None:
    told = finished.told
    first, other = (row(told, name)["scores"]["greet.perplexity.nats_per_token"] for name in ("multi_task", "dmt-k0.5"))
    assert "against" not in first and other["against"]["value"] == pytest.approx(other["value"] - first["value"])
    assert other["change"]["value"] < 0 and told["mean"] is None  # nats have no mean with shares
    assert sum(row(told, "distill-route")["teachers"].values()) == pytest.approx(1, abs=1e-6)
    assert 0 < row(told, "merge-svd")["truncation"] < 1
    page = (finished.folder / "out/report.html").read_text()
    assert page == render(told, title="out", language="zh")
    assert 'lang="zh-CN"' in page and "DMT，k = 0.5" in page and "best expert, then mixture" in page
    assert orjson.loads((finished.folder / "out/skills.json").read_bytes())["rows"][0]["name"] == "multi_task"
    for language in ("en", "zh"):
        lines = described(told, language=language)
        assert any("DMT" in line and "0.25" in line for line in lines) and lines[-1].startswith(("-", "!"))


def test_experts_stay_and_other_weights_do_not(finished: Finished) -> None:
    runs = finished.folder / "out/runs"
    assert read_saved(runs / "alone-fox/seed-0/adapter")["kind"] == "adapter"
    assert not list(runs.glob("multi_task/*/adapter")) and not list(runs.glob("merge-*/*/model"))


def test_a_strategy_that_fails_is_told_and_so_is_what_needed_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = prepared(tmp_path, monkeypatch)
    trainer.fails = "alone-fox"
    strategies = FILE.partition("strategies:")[0] + "strategies: [multi_task, merge]\n"
    Path("skills.yaml").write_text(strategies)
    told = skills(read_skills(Path("skills.yaml")))
    assert told["code"] == 5 and row(told, "multi_task")["seeds"] == [0]
    assert row(told, "alone-fox")["failures"][0]["error"] == "the loss is not finite"
    assert "needs alone-fox" in row(told, "merge-average")["failures"][0]["error"]
    assert "merge-average" in render(told, title="out") or "experts merged" in render(told, title="out")
    with pytest.raises(RecipeError, match="is not empty"):
        skills(read_skills(Path("skills.yaml")))
    Path("skills.yaml").write_text(strategies.replace("rank: 2", "rank: 3"))
    with pytest.raises(RecipeError, match="rank"):
        skills(read_skills(Path("skills.yaml")), resume=True)


def test_skills_are_a_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, monkeypatch)
    told = read_skills(Path("skills.yaml"))
    assert Skills.model_validate(told.model_dump(mode="json")) == told
