"""`mingshi search` as a stranger types it: what is wrong is told with its line before anything trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from mingshi.workflows import search as searching
from mingshi.workflows import search_opening
from mingshi.workflows.search_file import read_search
from mingshi.workflows.search_trial import Size

from .conftest import Command, is_one_error

RATE = "stages.0.optim.learning_rate"
TEXT = """\
output: out
trials: 4
space:
  {space}
{more}
recipe:
  model: smollm2-135m
  stages:
    - data: [{{path: train.jsonl}}]
      validation: [{{path: validation.jsonl}}]
  test: [{{path: test.jsonl}}]
"""
GOOD = f"{RATE}: {{low: 1e-5, high: 1e-3, log: true}}"
Written = Callable[..., Path]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Writes a search's file; nothing may be trained for it."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "validation", "test"):
        Path(f"{name}.jsonl").write_text(f'{{"instruction": "{name}", "output": "yes"}}\n')
    monkeypatch.setattr(searching, "_together", lambda *_: pytest.fail("began to train"))

    def write(space: str = GOOD, more: str = "") -> Path:
        path = Path("search.yaml")
        path.write_text(TEXT.format(space=space, more=more), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("stages.0.optim.learning_rat: {low: 1e-5, high: 1e-3}", ["search.yaml:4", "learning_rat", "learning_rate"]),
        ("stages.7.optim.learning_rate: {low: 1e-5, high: 1e-3}", ["search.yaml:4", "stages.7"]),
        (f"{RATE}: {{low: 1e-3, high: 1e-5}}", ["search.yaml:4", RATE, "`low` is not below `high`", "Swap"]),
        (f"{RATE}: {{low: 1e-3, high: 1e-3}}", [RATE, "`low` is not below `high`"]),
        (f"{RATE}: {{low: 0, high: 1e-3, log: true}}", [RATE, "a logarithm needs numbers above 0"]),
        (f"{RATE}: {{low: 1e-5, high: .inf}}", [f"{RATE}.high", "finite"]),
        (f"{RATE}: {{low: fast, high: 1e-3}}", ["search.yaml:4", f"{RATE}.low", "number"]),
        (f"{RATE}: {{low: 1e-5}}", [f"{RATE}.high", "is missing"]),
        (f"{RATE}: {{low: 1e-5, hgih: 1e-3, high: 1}}", ["hgih", "Known keys: low, high"]),
        (f"{RATE}: 1e-3", [RATE, "is no range and no list", "low"]),
        ("stages.0.batch: {choices: []}", ["stages.0.batch", "leaves nothing to choose"]),
        ("stages.0.batch: {choices: [8, 8]}", ["a choice is given twice"]),
        ("stages.0.batch: {low: 1, high: 8}", ["stages.0.batch", "integer"]),
        ("stages.0.batch: {low: 0, high: 8, step: 1}", ["stages.0.batch", "0"]),
        ("stages.0.objective.kind: {low: 0, high: 1}", ["stages.0.objective"]),
        ("seed: {choices: [1, 2]}", ["seed", "luck is nothing to choose by"]),
        ("test: {choices: [[], [{path: validation.jsonl}]]}", ["test", "a search reads no test rows"]),
        ("stages.0.data: {choices: [[{path: train.jsonl}], [{path: test.jsonl}]]}", ["test.jsonl", "is tested on"]),
    ],
)
def test_a_space_that_is_none_is_told_with_its_line(
    space: str, words: list[str], written: Written, mingshi: Command
) -> None:
    assert is_one_error(mingshi("search", written(space)), 2, words)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("metric: test.nats_per_token", ["metric", "better higher or lower is not known", "nats_per_token"]),
        ("again: {seeds: [0, 1]}", ["again.seeds", "the trials' own seed, 0"]),
        ("again: {trials: 0}", ["again.trials"]),
        ("pruning: {factor: 1}", ["pruning.factor"]),
        ("pruning: {rung: 1}", ["pruning.rung", "Did you mean 'rungs'?"]),
        ("sampler: grid", ["sampler", "tpe"]),
        ("worker: 4", ["worker", "unknown key"]),
        ("base: recipe.yaml", ["`base` and `recipe` are both given"]),
        ("set: [stages.0.optim.learning_rate=fast]", [RATE, "number"]),
        ("set: [stages.0.validation=0]", ["no validation rows"]),
    ],
)
def test_a_search_that_cannot_be_is_told(more: str, words: list[str], written: Written, mingshi: Command) -> None:
    assert is_one_error(mingshi("search", written(more=more)), 2, words)


def test_files_that_are_no_search_are_told(written: Written, mingshi: Command, tmp_path: Path) -> None:
    assert is_one_error(mingshi("search", "nowhere.yaml"), 2, ["nowhere.yaml"])
    Path("empty.yaml").write_text("")
    assert is_one_error(mingshi("search", "empty.yaml"), 2, ["empty.yaml"])
    Path("train.jsonl").unlink()
    assert is_one_error(mingshi("search", written()), 2, ["train.jsonl", "cannot be read"])


def test_the_space_of_a_method_fits_a_recipe_that_says_nothing_of_it(written: Written) -> None:
    path = written()
    path.write_text(
        "".join(line for line in path.read_text().splitlines(True) if "space" not in line and RATE not in line)
    )
    plan = read_search(path)
    assert {"stages.0.adapter.rank", "stages.0.batch", RATE, "stages.0.optim.warmup"} == set(plan.space.axes)
    ranks = {plan.recipe_at(point).stages[0].adapter.model_dump()["rank"] for point in plan.space.corners()}
    assert ranks == {8, 16, 32, 64} and plan.space.start(plan.base) is not None


def test_several_mistakes_are_told_at_once(written: Written, mingshi: Command) -> None:
    said = mingshi("search", written(f"{RATE}: {{low: 2, high: 1}}\n  stages.0.batch: {{choices: [8]}}"))
    assert said.code == 2 and said.out == ""
    assert [line for line in said.err.splitlines() if "learning_rate" in line]
    assert [line for line in said.err.splitlines() if "stages.0.batch" in line]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_result_is_told_in_both_languages_and_as_json(
    language: str, written: Written, mingshi: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_opening, "size_of", lambda recipe, *, folder: Size(steps=9, tokens=900))

    def judged(team: searching.Team, workers: int) -> None:
        """Four trials, each at the first rung; the best of them whole."""
        study, numbers = team.study, range(4)
        with study.held():
            for number in numbers:
                study.begin({RATE: 10.0**-3 / (number + 1)})
                study.tell(number, {"steps": [1, 3, 9], "budget": 900})
                study.judge(number, tokens=100, score=2.0 + number)
            for tokens in (300, 900):
                study.judge(0, tokens=tokens, score=100 / tokens)
            study.end(0, "done", 1 / 9)
            for number in numbers[1:]:
                study.end(number, "pruned")

    monkeypatch.setattr(searching, "_together", judged)
    path = written(more="again: null")
    said = mingshi("search", path, "--lang", language, "--json")
    told = orjson.loads(said.out)
    assert said.code == 0 and told["best"]["trial"] == 0 and told["rungs"] == [100, 300, 900]
    monkeypatch.setattr(searching, "_together", lambda *_: None)
    lines = mingshi("search", path, "--lang", language, "--resume").out
    assert ("Trial 0 is the best" if language == "en" else "第 0 号试验最佳") in lines
    assert "best.yaml" in lines and "report.html" in lines
    page = Path("out/report.html").read_text("utf-8")
    assert f'<html lang="{"en" if language == "en" else "zh-CN"}">' in page
    assert "Importance of each field" not in page and "各试验的分数" in page and "Score of every trial" in page
    again = mingshi("search", path)
    assert is_one_error(again, 2, ["holds a search already", "--resume"])
