"""The file of a comparison: what it comes to, and what is said of a wrong one before anything is trained."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest
from tiny import ROWS

from mingshi.errors import RecipeError
from mingshi.workflows.comparison import Search, of_recipes, read_comparison

RECIPES = Path(__file__).parents[2] / "recipes"
BASE = """\
model: tiny
output: elsewhere
stages:
  - data: [{path: train.jsonl}]
    validation: [{path: validation.jsonl}]
    adapter: {kind: lora, rank: 4}
    steps: 6
test: [{path: test.jsonl}]
"""
FILE = """\
base: base.yaml
output: out
rows:
  - {name: lora}
  - {name: full, set: {stages.0.adapter: {kind: full}}}
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, rows in (("train", ROWS[:24]), ("validation", ROWS[24:30]), ("test", ROWS[30:])):
        (tmp_path / f"{name}.jsonl").write_bytes(b"\n".join(map(orjson.dumps, rows)))
    (tmp_path / "here").mkdir()
    (tmp_path / "here/base.yaml").write_text(BASE)
    return tmp_path


def said(place: Path, text: str) -> str:
    (place / "here/comparison.yaml").write_text(text)
    with pytest.raises(RecipeError) as error:
        read_comparison(place / "here/comparison.yaml")
    return str(error.value)


def test_rows_are_changes_to_the_base_that_lies_beside_the_file(place: Path) -> None:
    (place / "here/comparison.yaml").write_text(FILE)
    plan = read_comparison(place / "here/comparison.yaml")
    assert [method.name for method in plan.methods] == ["lora", "full"]
    assert plan.methods[0].recipe.stages[0].adapter.model_dump()["rank"] == 4
    assert [method.rates() for method in plan.methods] == [[2e-4], [2e-5]]
    assert plan.seeds == (0, 1, 2) and plan.search == Search(rates=(0.3, 1.0, 3.0), share=0.33, seed=1000)


def test_assignments_may_be_a_list_or_a_mapping(place: Path) -> None:
    rows = "rows:\n  - {name: a, set: ['stages.0.adapter={kind: full}', stages.0.batch=4]}\n"
    rows += "  - {name: b, set: {stages.0.adapter: {kind: full}, stages.0.batch: 4, stages.0.optim.clip: 0.5}}\n"
    (place / "here/comparison.yaml").write_text(f"base: base.yaml\noutput: out\n{rows}")
    first, second = (method.recipe.stages[0] for method in read_comparison(place / "here/comparison.yaml").methods)
    assert first.adapter == second.adapter and first.batch == second.batch == 4
    assert second.optim.clip == 0.5


def test_recipes_are_rows_too(place: Path) -> None:
    (place / "full.yaml").write_text(BASE.replace("kind: lora, rank: 4", "kind: full"))
    plan = of_recipes([place / "here/base.yaml", place / "full.yaml"], output=Path("out"), seeds=2, search=None)
    assert [method.name for method in plan.methods] == ["base", "full"]
    assert plan.seeds == (0, 1) and plan.search is None
    with pytest.raises(RecipeError, match="two rows are called 'base'"):
        of_recipes([place / "here/base.yaml"] * 2, output=Path("out"), seeds=2, search=None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("output: out", "ouput: out", ("comparison.yaml:2: ouput: unknown key 'ouput'. Did you mean 'output'?",)),
        (
            "{name: lora}",
            "{name: lora, sets: []}",
            ("comparison.yaml:4: rows.0.sets: unknown key", "Did you mean 'set'"),
        ),
        ("{name: full,", "{name: LORA,", ("two rows are called 'lora'",)),
        ("{name: lora}", "{name: ../lora}", ("comparison.yaml:4: rows.0.name: '../lora' is no name for a row",)),
        ("base: base.yaml\n", "", ("neither `base` nor `recipe` is given. Give one of them.",)),
        ("base: base.yaml", "base: other.yaml", ("here/other.yaml: there is no such recipe",)),
        ("output: out", "output: out\nseeds: []", ("seeds: is too short",)),
        ("output: out", "output: out\nseeds: [1, 1]", ("seeds: a seed is given twice",)),
        ("output: out", "output: out\nseeds: [1000]", ("search.seed: the search's seed, 1000, is one of the",)),
        ("output: out", "output: out\nsearch: {rates: [1, 1]}", ("a rate is given twice",)),
        ("output: out", "output: out\nsearch: {rate: 1}", ("unknown key 'rate'. Did you mean 'rates'?",)),
        ("kind: full", "kind: ful", ("base.yaml (row full)", "there is no kind 'ful'. Did you mean 'full'?")),
        ("stages.0.adapter: {", "stages.4.adapter: {", ("--set stages.4.adapter: there is no such place",)),
        ("{kind: full}", "{kind: full}, test: [{path: train.jsonl}]", ("rows.full: is not measured as row lora is",)),
        ("{kind: full}", "{kind: full}, stages.0.validation: 0", ("rows.full: its last stage has no validation rows",)),
    ],
)
def test_a_wrong_file_is_told_where_and_how(place: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    assert old in FILE
    found = said(place, FILE.replace(old, new))
    assert all(word in found for word in words), found


def test_no_rows(place: Path) -> None:
    assert "rows: is too short" in said(place, "base: base.yaml\noutput: out\nrows: []\n")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("path: test.jsonl", "path: train.jsonl", "is tested on and also trained on"),
        ("path: test.jsonl", "path: validation.jsonl", "is tested on and also what the weights are chosen by"),
        ("path: test.jsonl", "path: nowhere.jsonl", "nowhere.jsonl: test: cannot be read (No such file"),
        ("test: [{path: test.jsonl}]\n", "", "has neither `test` nor `tasks`"),
        ("    steps: 6", "    steps: 6\n    optim: {learning_rate: 1.0e-4}", "is the same for every row"),
    ],
)
def test_a_base_that_would_make_it_unfair_is_refused(place: Path, old: str, new: str, words: str) -> None:
    (place / "here/base.yaml").write_text(BASE.replace(old, new))
    assert words in said(place, FILE)


HOUSE = sorted([*RECIPES.glob("compare_*.yaml"), *RECIPES.glob("scale_*.yaml")])


@pytest.mark.parametrize("path", HOUSE, ids=lambda path: path.stem)
def test_a_recipe_of_the_house_is_valid(place: Path, path: Path) -> None:
    for name in re.findall(r"path: (data/[^,}]+)", path.read_text()):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(f'{{"of": "{name}"}}\n' * 400)
    plan = read_comparison(path)
    assert len(plan.methods) >= 2 and plan.output.is_relative_to("runs") and path.read_text().startswith("# ")
