"""A search from its file to its best recipe, with processes that are made up; see test_search_real.py for real ones."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from mingshi.errors import Preempted, RecipeError
from mingshi.recipe import read_recipe
from mingshi.workflows import compare_child, search_trial
from mingshi.workflows.search import search
from mingshi.workflows.search_file import SearchPlan, read_search
from mingshi.workflows.search_told import described

FAKE = Path(__file__).with_name("fake_search.py")
RECIPE = """\
recipe: # of a toy
  model: tiny
  stages:
    - data: [{path: train.jsonl}]
      validation: [{path: validation.jsonl}]
      epochs: 9 # nine times through
  test: [{path: test.jsonl}]
"""
SPACE = """\
space:
  stages.0.optim.learning_rate: {low: 1e-5, high: 9e-3, log: true}
  stages.0.batch: {choices: [8, 16]}
"""
SMALL = "trials: 9\nagain: {trials: 2, seeds: [1, 2]}\n"


class Lines:
    """A display that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, items: Any, total: int | None, label: str) -> Any:
        return iter(items)

    def step(self, step: Any, steps: int) -> None:
        """Not told."""


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    for name in ("train", "validation", "test", "more"):
        Path(f"{name}.jsonl").write_text(name)
    monkeypatch.setattr(compare_child, "POLL", 0.02)
    monkeypatch.setattr(compare_child, "train_command", lambda file: [sys.executable, str(FAKE), "train", str(file)])
    monkeypatch.setattr(search_trial, "plan_command", lambda file: [sys.executable, str(FAKE), "plan", str(file)])
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return prepared(tmp_path, monkeypatch)


def plan_of(place: Path, text: str = "", *, head: str = f"output: out\n{SMALL}") -> SearchPlan:
    path = place / "search.yaml"
    path.write_text(head + (text or RECIPE + SPACE))
    return read_search(path)


def made(place: Path) -> list[str]:
    """Runs that were trained to their end, in order."""
    return [line.split()[0] for line in (place / "made.txt").read_text().splitlines()]


def slowed(place: Path, seconds: float) -> None:
    (place / "orders.json").write_bytes(orjson.dumps({"slow": seconds}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any], list[str]]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = prepared(tmp_path_factory.mktemp("finished"), monkeypatch)
        display = Lines()
        slowed(folder, 0.005)
        told = search(plan_of(folder, head="output: out\ntrials: 18\n"), display=display, language="zh")
        yield folder, told, display.said


def test_the_planted_rate_is_found_at_a_part_of_the_tokens(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, told, said = finished
    assert told["code"] == 0 and len(told["trials"]) == 18
    rate = told["best"]["point"]["stages.0.optim.learning_rate"]
    assert 1e-4 < rate < 1e-3
    assert told["tokens"]["share"] < 0.5
    assert {trial["state"] for trial in told["trials"]} == {"done", "pruned"}
    assert told["rungs"] == [1600, 4800, 14400]
    assert max(told["importance"], key=told["importance"].__getitem__) == "stages.0.optim.learning_rate"
    assert any("goes on" in line for line in said) and any("waits" in line or "pruned" in line for line in said)


def test_every_score_is_that_of_the_whole_run_at_that_place(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    """The schedule is the whole one from the beginning: no trial was shortened."""
    folder, told, _ = finished
    for trial in told["trials"]:
        recipe = read_recipe(folder / "out" / "trials" / f"{trial['trial']:04d}" / "recipe.yaml")
        assert recipe.stages[0].epochs == 9 and recipe.seed == 0
        assert recipe.test == ()
        batch, rate = recipe.stages[0].batch, recipe.stages[0].optim.learning_rate
        assert {"stages.0.optim.learning_rate": rate, "stages.0.batch": batch} == trial["point"]


def test_trials_that_are_over_keep_their_record_alone(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    folder, told, _ = finished
    for trial in told["trials"]:
        run = folder / "out" / "trials" / f"{trial['trial']:04d}" / "run"
        assert (run / "run.json").is_file() and not (run / "checkpoints").exists() and not (run / "adapter").exists()


def test_the_best_are_run_again_under_new_seeds_and_they_alone_read_the_test_rows(
    finished: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, told, _ = finished
    again = [path for path in made(folder) if "again" in path]
    assert len(again) == len(set(again)) == 9
    assert [row["seeds"] for row in told["again"]] == [[1, 2, 3]] * 3
    means = [row["mean"] for row in told["again"]]
    assert means == sorted(means) and told["best"]["trial"] == told["again"][0]["trial"]
    assert told["tested"]["rows"][0]["scores"]["perplexity.nats_per_token"]["value"] > 0
    assert any(note["note"] in ("curse", "held") for note in told["notes"])


def test_the_best_recipe_is_ready_to_run_and_says_what_it_is(
    finished: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, told, _ = finished
    recipe = read_recipe(folder / "out" / "best.yaml")
    best = told["best"]
    assert recipe.stages[0].optim.learning_rate == best["point"]["stages.0.optim.learning_rate"]
    assert recipe.stages[0].batch == best["point"]["stages.0.batch"]
    assert recipe.stages[0].evaluate == best["evaluate"]
    assert recipe.test and recipe.output == "out/best" and not (folder / "out" / "best").exists()
    text = (folder / "out" / "best.yaml").read_text()
    assert "nine times through" in text and "believe this one" in text and "(8 | 16)" in text


def test_the_folder_holds_the_table_the_page_and_lines_in_both_languages(
    finished: tuple[Path, dict[str, Any], list[str]],
) -> None:
    folder, told, _ = finished
    assert orjson.loads((folder / "out" / "search.json").read_bytes())["best"]["trial"] == told["best"]["trial"]
    page = (folder / "out" / "report.html").read_text()
    assert '<html lang="zh-CN">' in page and "最佳试验重训" in page and "out/trials/0003/recipe.yaml" in page
    assert any("under new seeds" in line for line in described(told, language="en"))
    assert any("换新种子" in line for line in described(told, language="zh"))


def test_one_worker_finds_the_same_again(place: Path, finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    told = search(plan_of(place, head="output: out\ntrials: 18\nagain: null\n"))
    assert [trial["point"] for trial in told["trials"]] == [trial["point"] for trial in finished[1]["trials"]]
    assert [trial["scores"] for trial in told["trials"]] == [trial["scores"] for trial in finished[1]["trials"]]
    assert [note["note"] for note in told["notes"] if note["loud"]] == ["lucky"]


def test_a_search_goes_on_where_a_signal_ended_it(place: Path) -> None:
    slowed(place, 0.02)
    plan = plan_of(place)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(Preempted):
        search(plan, workers=2)
    timer.join()
    with pytest.raises(RecipeError, match="--resume"):
        search(plan)
    slowed(place, 0.0)
    told = search(plan, resume=True, workers=2)
    assert told["code"] == 0 and len(told["trials"]) == 9
    assert len(made(place)) == len(set(made(place)))
    before = made(place)
    assert search(plan, resume=True)["best"] == told["best"]
    assert made(place) == before  # there was nothing left to do


def forked(plan: SearchPlan) -> int:
    """The search in a process of its own; gives its number."""
    number = os.fork()
    if number:
        return number
    code = 1
    try:
        search(plan, resume=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def test_workers_that_are_killed_lose_no_trial_and_double_none(place: Path) -> None:
    """Four processes on one search; every so often one is killed with -9 and another begun."""
    slowed(place, 0.01)
    plan = plan_of(place, head="output: out\ntrials: 12\nagain: {trials: 2, seeds: [1, 2]}\n")
    drawn, crew, killed, codes = random.Random(1), [forked(plan) for _ in range(4)], 0, []
    deadline = time.monotonic() + 60
    while crew and time.monotonic() < deadline:
        time.sleep(0.25)
        for number in list(crew):
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                crew.remove(number)
                codes.append(os.waitstatus_to_exitcode(status))
        if crew and killed < 8:
            number = drawn.choice(crew)
            os.kill(number, signal.SIGKILL)
            os.waitpid(number, 0)
            crew.remove(number)
            killed += 1
            crew.append(forked(plan))
    assert not crew and killed == 8 and set(codes) == {0}
    told = orjson.loads((place / "out" / "search.json").read_bytes())
    assert [trial["trial"] for trial in told["trials"]] == list(range(12))
    assert {trial["state"] for trial in told["trials"]} <= {"done", "pruned"}
    ended = made(place)
    assert len(ended) == len(set(ended))
    assert {path for path in ended if "again" in path} == {
        f"out/again/trial-{row['trial']:04d}/seed-{seed}/run" for row in told["again"] for seed in (1, 2)
    }
    for trial in told["trials"]:  # each is judged once at a rung, by the score of that place
        assert len(trial["scores"]) == len(set(trial["scores"])) <= 3


def test_a_trial_that_diverges_is_told_with_its_reason_and_never_chosen(place: Path) -> None:
    space = "space: {stages.0.optim.learning_rate: {low: 1e-4, high: 1.0, log: true}}\n"
    told = search(plan_of(place, RECIPE + space, head="output: out\ntrials: 12\nagain: null\n"))
    failed = [trial for trial in told["trials"] if trial["state"] == "failed"]
    assert failed and all("not finite" in trial["reason"] and trial["scores"] == [] for trial in failed)
    assert told["best"]["point"]["stages.0.optim.learning_rate"] < 1e-2
    late = [trial["point"]["stages.0.optim.learning_rate"] for trial in told["trials"][10:]]
    assert all(rate < 0.1 for rate in late)  # the sampler took the failed ones as bad
    assert any(note["note"] == "failed" and note["loud"] for note in told["notes"])
    page = (place / "out" / "report.html").read_text()
    assert page.count("failed: the loss is not finite") == page.count("失败：the loss is not finite") == len(failed)


def test_a_search_that_cannot_begin_ends_at_once(place: Path) -> None:
    space = "space: {stages.0.optim.learning_rate: {low: 0.1, high: 1.0, log: true}}\n"
    with pytest.raises(Exception, match="have all failed") as caught:
        search(plan_of(place, RECIPE + space))
    assert "not finite" in str(caught.value)


def test_another_search_in_its_folder_is_refused_and_so_is_a_folder_of_other_things(place: Path) -> None:
    search(plan_of(place, head="output: out\ntrials: 3\nagain: null\n"))
    with pytest.raises(RecipeError, match=r"space\.stages\.0\.batch\.choices\.1"):
        search(plan_of(place, RECIPE + SPACE.replace("[8, 16]", "[8, 32]")), resume=True)
    (place / "other").mkdir()
    (place / "other" / "letter.txt").write_text("mine")
    with pytest.raises(RecipeError, match="holds no search"):
        search(plan_of(place, head="output: other\n"), resume=True)
    assert [path.name for path in (place / "other").iterdir()] == ["letter.txt"]


def test_more_trials_may_be_asked_for_later(place: Path) -> None:
    search(plan_of(place, head="output: out\ntrials: 4\nagain: null\n"))
    told = search(plan_of(place, head="output: out\ntrials: 8\nagain: null\n"), resume=True)
    assert len(told["trials"]) == 8


def test_without_pruning_every_trial_is_trained_whole_and_a_small_space_is_tried_once(place: Path) -> None:
    space = "space: {stages.0.batch: {choices: [8, 16, 32]}, stages.0.epochs: {low: 1, high: 2, step: 1}}\n"
    head = "output: out\ntrials: 50\nsampler: random\npruning: null\nagain: null\nmetric: accuracy\n"
    told = search(plan_of(place, RECIPE.replace("      epochs: 9 # nine times through\n", "") + space, head=head))
    points = [tuple(trial["point"].values()) for trial in told["trials"]]
    assert len(points) == len(set(points)) == 6
    assert {trial["state"] for trial in told["trials"]} == {"done"} and told["higher_is_better"]
    assert told["tokens"]["share"] == pytest.approx(1.0)


def test_a_metric_that_is_not_measured_is_refused_by_name(place: Path) -> None:
    with pytest.raises(RecipeError, match=r"no 'macro_f1' is measured.*nats_per_token, accuracy"):
        search(plan_of(place, head="output: out\nmetric: macro_f1\n"))
