"""Every recipe is valid as it stands, and runs: with a tiny model, a few rows of the right format, and two steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from towers import COLOURS, SHAPES, draw, tiny_vision

from mingshi.model.assets import MODELS
from mingshi.recipe import Recipe, parse, read_recipe

ROOT = Path(__file__).parent.parent
COMPARISONS = ("compare_", "label_", "scale_", "search_", "skills")  # other files than recipes: see tests/workflows
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if not path.name.startswith(COMPARISONS))

INSTRUCTIONS = [
    {"instruction": f"数到{number}。", "input": "从一开始。" * (number % 2), "output": "一二三。" * (1 + number % 3)}
    for number in range(12)
]
CONVERSATIONS = [
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": f"Say {number}."},
            {"role": "assistant", "content": f"It is {number}."},
            {"role": "user", "content": "And again?"},
            {"role": "assistant", "content": f"Again {number}."},
        ]
    }
    for number in range(12)
]
PAIRS = [
    {
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"数到{number}?"}],
        "chosen": "一二三。" * (1 + number % 3),
        "rejected": f"No, {number}.",
    }
    for number in range(12)
]
REVIEWS = [
    {"text": f"第{number}本书: {'很好看' if number % 2 else 'dull'}。", "label": "好坏"[number % 2]}
    for number in range(12)
]
ENCODERS = {"all-minilm-l6-v2", "multilingual-e5-small"}
TEXTS = [{"text": f"The quick brown fox jumps over {number} lazy dogs."} for number in range(12)]

every_recipe = pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tiny import tiny_model

    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from encoders import tiny_encoder

    return tiny_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


def rows_for(source: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the format that the recipe names; texts where its file's name says so."""
    if source["format"] == "chat":
        return CONVERSATIONS
    if source["format"] == "labelled":
        return REVIEWS
    if source["format"] == "preference":
        return PAIRS
    if source["format"] == "captions":
        return [drawn(Path(source["path"]).parent, number) for number in range(12)]
    return TEXTS if "text" in Path(source["path"]).name else INSTRUCTIONS


def drawn(folder: Path, number: int) -> dict[str, Any]:
    """A row of a picture that is drawn here, and what it shows."""
    colour, shape = COLOURS[number % 6], SHAPES[number // 6 % 3]
    draw(folder / f"{number}.png", colour, shape)
    return {"image": f"{number}.png", "caption": f"{colour} {shape} {number}", "attributes": {"group": shape}}


def toy(recipe: Recipe, model: Path) -> Recipe:
    """The same recipe with a tiny model and its files written here, cut to two steps a stage and four tokens an answer.

    Everything else stays: template, objective, adapter, schedule, mixture, early stopping, evaluators.
    """
    values = recipe.model_dump(mode="json")
    values["model"] = str(model)
    sources = []
    for stage in values["stages"]:
        stage |= {"steps": 2, "epochs": None, "evaluate": 1, "batch": 4}
        if "vision" in stage["objective"]:
            stage["objective"]["vision"] = str(tiny_vision(Path("tower")))
        if "rank" in stage["adapter"]:
            stage["adapter"]["rank"] = 4  # its layers have no room for more than 16
        for teacher in stage["objective"].get("teachers", ()):
            teacher["model"] = str(model)
        sources += stage["data"] + (stage["validation"] if isinstance(stage["validation"], list) else [])
    tests = [*values["test"], *(source for task in values["tasks"] for source in task["data"])]
    for source in (*sources, *tests):
        path, rows = Path(source["path"]), rows_for(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        told = rows[1:] if source in tests else rows  # the very file that trains is refused as a test
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in told))
    for evaluator in values["evals"]:
        evaluator |= {"limit": 2, "max_new_tokens": 4} if evaluator["kind"] == "generation" else {}
    return parse(values)


@every_recipe
def test_a_recipe_is_valid_and_moves_with_the_checkout(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.model in MODELS or recipe.model.startswith("runs/")
    assert recipe.output.startswith("runs/")
    sources = [source for stage in recipe.stages for source in stage.data] + list(recipe.test)
    assert all(source.path.startswith("data/") and source.format != "auto" for source in sources)
    assert path.read_text().startswith("# ")


def test_no_two_recipes_write_to_one_folder() -> None:
    folders = [read_recipe(path).output for path in RECIPES]
    assert len(set(folders)) == len(folders) >= 5


@every_recipe
def test_a_recipe_runs(path: Path, tiny: Path, encoder: Path) -> None:
    from mingshi.run import execute

    recipe = read_recipe(path)
    recipe = toy(recipe, encoder if recipe.model in ENCODERS else tiny)
    outcome = execute(recipe)
    assert outcome.status == "done"
    steps = [(step["stage"], step["number"]) for step in outcome.record.steps]
    assert steps == [(stage, step) for stage in range(len(recipe.stages)) for step in (1, 2)]
    whole = len(recipe.stages) > 1 or recipe.stages[0].adapter.kind in ("full", "last-layers")
    assert (outcome.folder / ("model" if whole else "adapter") / "mingshi.json").is_file()
    kinds = {name.partition(".")[0] for name in outcome.scores["difference"]}
    assert kinds == {evaluator.kind for evaluator in recipe.evals} | {task.name for task in recipe.tasks}
    assert (outcome.folder / "report.html").is_file()
