"""Recipes as people write them: every mistake at once, each with its line, its field and its mend."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROWS, tiny_model

import mingshi
from mingshi.continual import Ewc, Gate, Previous, Rehearsal
from mingshi.data.formats import DataSource
from mingshi.data.named_templates import TEXTS
from mingshi.errors import RecipeError
from mingshi.evals import EVALS, Generation, Perplexity
from mingshi.evals.judge import Judging
from mingshi.model.adapters import ADAPTERS, Full, Lora
from mingshi.objectives import OBJECTIVES, Dpo, Sft
from mingshi.objectives.distill import Cache, Teacher
from mingshi.optim import Optim
from mingshi.recipe import EarlyStopping, Recipe, Stage, parse, read_recipe, write_recipe
from mingshi.tasks import Task
from mingshi.types import Settings
from mingshi.yaml_text import apply

PACKAGE = Path(mingshi.__file__).parent
GOOD = "model: m\noutput: o\nstages:\n  - data: [{path: a.jsonl}]\n"

MISTAKES = """\
model: 7
outptu: runs/a
seed: -1
precision: fp16
device: gpu
stream: 12
stages:
  - data:
      - {pth: a.jsonl}
      - path: b.jsonl
        format: alpaca
        weight: -1
        columns: {instructoin: question}
    validation: 2.0
    objective:
      kind: sft
      too_lng: drop
    adapter:
      kind: lora
      rank: 0
      dropuot: 0.1
    optim:
      learning_rate: fast
      schedule: cosin
      warmup: no
      betas: [0.9]
    batch: 0
    evaluate: never
    early_stopping: {patience: 0}
  - data: []
    adapter: {kind: lorra}
test: x.jsonl
evals: [{kind: perplexity, limit: 3}, {kind: generate}]
keep: .inf
"""

# line, field, and words that the message has
FOUND = [
    (None, "output", "is missing"),
    (1, "model", "valid string"),
    (2, "outptu", "Did you mean 'output'?"),
    (3, "seed", "greater than or equal to 0"),
    (4, "precision", "'bf16'"),
    (5, "device", "'cuda'"),
    (6, "stream", "128"),
    (9, "stages.0.data.0.path", "is missing"),
    (9, "stages.0.data.0.pth", "Did you mean 'path'?"),
    (11, "stages.0.data.1.format", "'instruct'"),
    (12, "stages.0.data.1.weight", "greater than or equal to 0"),
    (13, "stages.0.data.1.columns", "Did you mean 'instruction'?"),
    (14, "stages.0.validation", "a list or less than 1"),
    (17, "stages.0.objective.too_lng", "Did you mean 'too_long'?"),
    (20, "stages.0.adapter.rank", "greater than or equal to 1"),
    (21, "stages.0.adapter.dropuot", "Did you mean 'dropout'?"),
    (23, "stages.0.optim.learning_rate", "Not 'fast'"),
    (24, "stages.0.optim.schedule", "'cosine'"),
    (25, "stages.0.optim.warmup", "Not 'no'"),
    (26, "stages.0.optim.betas.1", "is missing"),
    (27, "stages.0.batch", "greater than or equal to 1"),
    (28, "stages.0.evaluate", "'epoch' or a valid integer"),
    (29, "stages.0.early_stopping.patience", "greater than or equal to 1"),
    (30, "stages.1.data", "is empty"),
    (31, "stages.1.adapter", "'lora'"),
    (32, "test", "a list"),
    (33, "evals.0.limit", "Known keys: kind"),
    (33, "evals.1", "'generation'"),
    (34, "keep", "finite number"),
]


def refused(text: str, folder: Path, *, sets: tuple[str, ...] = ()) -> RecipeError:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_recipe(file, sets=sets)
    return caught.value


def test_all_mistakes_of_a_recipe_are_told_at_once_each_once_with_line_and_field(tmp_path: Path) -> None:
    error = refused(MISTAKES, tmp_path)
    assert [(problem.line, problem.field) for problem in error.problems if problem.field != "keep"] == [
        (line, field) for line, field, _ in FOUND if field != "keep"
    ]
    for problem in error.problems:
        words = next(words for _, field, words in FOUND if field == problem.field)
        line = str(problem)
        assert words in line and line.startswith(str(tmp_path / "recipe.yaml"))
        assert "\n" not in line and len(line) < 300 and line.endswith((".", "?"))
    assert len(FOUND) >= 20 and error.exit_code == 2


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("model: m\nmodel: n\n", 2, "duplicate key"),
        ("stages:\n  - data: []\n    batch: 1\n    batch: 2\n", 4, "duplicate key"),
        ("model: m\n\tseed: 1\n", 2, "not YAML"),
        ("model: [a\nseed: 1\n", 2, "not YAML"),
        ("model: m\n---\nmodel: n\n", 2, "not YAML"),
        ("model: &a m\noutput: *a\n", None, "aliases are not used"),
        ("- model: m\n", None, "keys and values"),
        ("", None, "keys and values"),
        ("just words", None, "keys and values"),
        ("a: " + "[" * 5000 + "]" * 5000, 1, "nests too deep"),
        ("x" * (2 << 20), None, "Is it the data?"),
    ],
)
def test_what_is_not_a_recipe_is_refused_in_one_line(text: str, line: int | None, words: str, tmp_path: Path) -> None:
    (problem,) = refused(text, tmp_path).problems
    assert words in str(problem) and problem.line == line and "\n" not in str(problem)


def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "gbk.yaml").write_bytes("model: 模型\n".encode("gbk"))
    for name, words in (("gbk.yaml", "is not UTF-8 text"), ("none.yaml", "no such recipe"), (".", "Is a directory")):
        with pytest.raises(RecipeError, match=words):
            read_recipe(tmp_path / name)


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    text = f"model: !!python/object/apply:os.mkdir [{canary}]\noutput: o\nstages: []\n"
    assert "model" in {problem.field for problem in refused(text, tmp_path).problems}
    assert not canary.exists()


def test_numbers_and_words_are_what_yaml_1_2_says(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "model: no\noutput: 名师/run\nstages:\n"
        "  - {data: [{path: yes}], optim: {learning_rate: 1e-5, epsilon: 1e-8}, batch: 0o10}\n",
        encoding="utf-8",
    )
    recipe = read_recipe(file)
    assert (recipe.model, recipe.stages[0].data[0].path) == ("no", "yes")
    assert recipe.output == "名师/run" and recipe.stages[0].batch == 8
    assert recipe.stages[0].optim.learning_rate == 1e-5


@pytest.mark.parametrize("number", ["1e400", ".inf", "-.inf", ".nan", "99999999999999999999", "1e20"])
def test_numbers_that_nothing_can_be_counted_by_are_refused(number: str, tmp_path: Path) -> None:
    text = GOOD + f"    batch: {number}\n    optim: {{learning_rate: {number}}}\n"
    fields = {problem.field for problem in refused(text, tmp_path).problems}
    assert fields == {"stages.0.batch", "stages.0.optim.learning_rate"}


# --set


def changed(*sets: str) -> dict[str, Any]:
    values: dict[str, Any] = {"model": "m", "stages": [{"data": [{"path": "a"}]}, {"data": [{"path": "b"}]}]}
    apply(values, sets)
    return values


def test_set_reaches_lists_nested_keys_and_keys_that_are_not_there_yet() -> None:
    assert changed("model=other")["model"] == "other"
    assert changed("stages.1.data.0.path=c.jsonl")["stages"][1]["data"][0]["path"] == "c.jsonl"
    assert changed("stages.0.optim.learning_rate=1e-4")["stages"][0]["optim"] == {"learning_rate": 1e-4}
    assert changed("stages.0.optim.betas=[0.9, 0.95]")["stages"][0]["optim"] == {"betas": [0.9, 0.95]}
    assert changed("stages.0.data.0={path: d, weight: 2}")["stages"][0]["data"][0] == {"path": "d", "weight": 2}
    assert changed("seed=1", "seed=2")["seed"] == 2
    assert changed("template=a=b")["template"] == "a=b"
    assert changed("stages.0.early_stopping=")["stages"][0]["early_stopping"] is None


@pytest.mark.parametrize(
    "assignment",
    ["seed", "=1", ".seed=1", "a..b=1", "stages.9.batch=1", "stages.x.batch=1", "model.x=1", "model.x.y=1", "seed=[1"],
)
def test_a_set_that_leads_nowhere_is_refused_and_named(assignment: str) -> None:
    with pytest.raises(RecipeError) as caught:
        changed(assignment)
    (problem,) = caught.value.problems
    assert "--set" in str(problem) and assignment.partition("=")[0] in str(problem)


def test_what_is_set_is_checked_like_what_is_written(tmp_path: Path) -> None:
    error = refused(GOOD, tmp_path, sets=("stages.0.batch=0", "stages.0.optim.lerning_rate=1"))
    told = {problem.field: str(problem) for problem in error.problems}
    assert set(told) == {"stages.0.batch", "stages.0.optim.lerning_rate"}
    assert "Did you mean 'learning_rate'?" in told["stages.0.optim.lerning_rate"]


# Conditions that join two fields


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("    epochs: 1\n    steps: 5\n", "epochs and steps are both given. Keep one of them."),
        ("    validation: 0\n    early_stopping: {}\n", "early_stopping needs a validation set."),
    ],
)
def test_fields_that_contradict_each_other_are_refused(lines: str, words: str, tmp_path: Path) -> None:
    (problem,) = refused(GOOD + lines, tmp_path).problems
    assert words in str(problem) and problem.line == 4


# Writing


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda text: "\x00" not in text)
awkward = st.sampled_from(
    ["1e-5", "no", "null", "~", "0o7", "1_0", "=", "a: b", "# x", " x ", "2020-01-01", "-", "é\n", "¾\x85"]
)


@given(path=texts | awkward, clip=st.none() | st.floats(1e-300, 1e15), seed=st.integers(0, 2**31 - 1))
def test_a_recipe_that_is_written_reads_back_equal(
    path: str, clip: float | None, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stage = Stage(data=(DataSource(path=path, columns={"prompt": path}),), optim=Optim(clip=clip), epochs=None)
    recipe = Recipe(model=path, output=path, seed=seed, stages=(stage, stage), evals=(Perplexity(), Generation()))
    file = tmp_path_factory.mktemp("written") / "recipe.yaml"
    write_recipe(recipe, file)
    assert read_recipe(file) == recipe


def test_every_recipe_of_the_house_can_be_read() -> None:
    files = sorted((PACKAGE.parent / "recipes").glob("*.yaml"))
    several = ("compare_", "label_", "scale_", "search_", "skills")  # of more than one run
    files = [file for file in files if not file.name.startswith(several)]
    assert files and all(read_recipe(file).stages for file in files)


# Every field is read by something (an option that is accepted and ignored is a lie)


CORE = (Recipe, Stage, DataSource, EarlyStopping, Optim)
PARTS = (*CORE, Rehearsal, Ewc, Previous, Gate)
SETTINGS = (*PARTS, Judging, Task, Teacher, Cache, *OBJECTIVES.values(), *ADAPTERS.values(), *EVALS.values())
TAG = "kind"  # read by pydantic, to tell a union's branches apart


def subclasses(kind: type[Settings]) -> Iterator[type[Settings]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_no_settings_are_left_out_here() -> None:
    # options of a command, not of a recipe
    commands = ("mingshi.workflows.", "mingshi.checks.", "mingshi.evals.scoring", "mingshi.evals.judge_files")
    commands += ("mingshi.model.merging",)
    known = {each for each in subclasses(Settings) if each.__module__.startswith("mingshi.")}
    assert set(SETTINGS) == {each for each in known if not each.__module__.startswith(commands)}


def test_every_field_of_a_recipe_is_read_somewhere() -> None:
    """By its name, as an attribute, in a module of ours."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    read = {node.attr for node in nodes if isinstance(node.ctx, ast.Load)}
    unread = {f"{kind.__name__}.{name}" for kind in SETTINGS for name in kind.model_fields if name not in read | {TAG}}
    assert not unread


def test_every_field_of_a_recipe_is_read_by_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, of the very objects: names like `path` are read of many other things."""
    read: set[str] = set()

    def noted(self: Settings, name: str) -> Any:
        kind = type(self)
        if name in kind.model_fields:
            read.add(f"{kind.__name__}.{name}")
        return object.__getattribute__(self, name)

    tiny_model(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    (tmp_path / "held.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS[:6]))
    source, held = ({"path": str(tmp_path / f"{name}.jsonl")} for name in ("rows", "held"))
    pairs = [{"prompt": "Say it.", "chosen": "It is. " * (1 + number), "rejected": "No."} for number in range(8)]
    (tmp_path / "pairs.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in pairs))
    preferences = {"data": [{"path": str(tmp_path / "pairs.jsonl")}], "steps": 1, "batch": 4}
    objectives = [{"max_length": 50}, {"loss_type": "simpo"}]
    full = {"data": [source], "adapter": {"kind": "full"}, "steps": 2, "early_stopping": {}, "batch": 4}
    lora = {"data": [source], "steps": 2, "batch": 4, "objective": {"max_length": 24, "too_long": "truncate"}}
    recipe = parse(
        {
            "model": str(tmp_path / "model"),
            "output": str(tmp_path / "run"),
            "stages": [*(preferences | {"objective": {"kind": "dpo"} | each} for each in objectives), full, lora],
            "test": [{**held, "limit": 4}],
            "tasks": [{"name": "more", "data": [held], "evals": [{"kind": "perplexity"}], "stage": 0}],
            "evals": [{"kind": "perplexity"}, {"kind": "generation", "max_new_tokens": 4}],
        }
    )
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Settings, "__getattribute__", noted, raising=False)
    mingshi.execute(recipe)
    monkeypatch.undo()
    known = (*CORE, Task, Sft, Dpo, Full, Lora, Perplexity, Generation)
    declared = {f"{kind.__name__}.{name}" for kind in known for name in kind.model_fields if name != TAG}
    assert declared - read == set()


def test_defaults_can_be_said_aloud() -> None:
    """Every default is itself a value that the field would accept."""
    recipe = parse({"model": "m", "output": "o", "stages": [{"data": [{"path": "a"}]}]})
    assert parse(recipe.model_dump(mode="json")) == recipe
    assert math.isfinite(recipe.stages[0].optim.warmup)


def test_the_templates_that_a_recipe_may_name_are_those_that_there_are() -> None:
    assert get_args(Recipe.model_fields["template"].annotation) == ("auto", "own", *TEXTS)


def test_a_metric_that_is_given_as_an_evaluator_is_told_where_it_belongs(tmp_path: Path) -> None:
    error = refused(GOOD + "evals: [{kind: rouge}]\n", tmp_path)
    assert "{kind: generation, metrics: [rouge]}" in str(error)
