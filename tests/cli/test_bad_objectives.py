"""Recipes for `classify`, `dpo` and `distill` that cannot be carried out: one line each, and nothing is begun."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from .conftest import Command, Place, Said, is_one_error

ROWS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "chat": [{"prompt": f"q {number}", "completion": f"a {number}"} for number in range(6)],
    "pairs": [{"prompt": f"q {number}", "chosen": f"a {number} good", "rejected": "never"} for number in range(6)],
    "labels": [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(6)],
    "numbers": [{"text": f"text {number}", "label": number + 0.5} for number in range(6)],
    "several": [{"text": f"text {number}", "label": ["a", "b"]} for number in range(6)],
    "none": [{"text": f"text {number}", "label": []} for number in range(6)],
    "unlabelled": [{"text": f"text {number}"} for number in range(6)],
    "broken": [{"text": f"text {number}", "label": " "} for number in range(6)],
    "strange": [{"text": f"text {number}", "label": "zebra"} for number in range(6)],
}


@dataclass(frozen=True, slots=True)
class Ground:
    """Files of rows, and models that go wrong in one way each."""

    folder: Path
    model: Path
    named: Mapping[str, str]


@pytest.fixture(scope="module")
def ground(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("objectives")
    for name, rows in ROWS.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    made = {name: folder / name for name in ("other", "orphan", "homeless", "weightless", "empty", "classifier")}
    tiny_model(made["other"])
    settings = json.loads((made["other"] / "tokenizer.json").read_text())
    settings["added_tokens"][2]["content"] = "<|end|>"
    (made["other"] / "tokenizer.json").write_text(json.dumps(settings).replace("<|im_end|>", "<|end|>"))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (made["other"] / name).write_text((made["other"] / name).read_text().replace("<|im_end|>", "<|end|>"))
    for name, base in (("orphan", str(folder / "gone")), ("homeless", None)):
        shutil.copytree(place.run / "adapter", made[name])
        told = json.loads((made[name] / "adapter_config.json").read_text())
        (made[name] / "adapter_config.json").write_text(json.dumps(told | {"base_model_name_or_path": base}))
    shutil.copytree(place.model, made["weightless"])
    (made["weightless"] / "model.safetensors").unlink()
    made["empty"].mkdir()
    shutil.copytree(place.model, made["classifier"])
    told = json.loads((made["classifier"] / "config.json").read_text())
    told["architectures"] = ["LlamaForSequenceClassification"]
    (made["classifier"] / "config.json").write_text(json.dumps(told))
    named = {name: str(path) for name, path in made.items()} | {"run": str(place.run), "missing": str(folder / "gone")}
    return Ground(folder, place.model, named)


@pytest.fixture
def begin(ground: Ground, mingshi: Command, tmp_path: Path) -> Callable[..., Said]:
    """`mingshi train` (or another command) of one stage on these rows with this objective."""

    def call(rows: str, objective: Mapping[str, Any], *, command: str = "train", **more: Any) -> Said:
        stage = {"data": [{"path": str(ground.folder / f"{rows}.jsonl"), "on_bad_row": "skip"}], "steps": 1}
        stage |= {"objective": objective, "validation": 0, "adapter": {"kind": "lora", "rank": 2}}
        stage |= {name: more.pop(name) for name in ("adapter", "validation") if name in more}
        recipe = {"model": str(ground.model), "output": str(tmp_path / "run"), "stages": [stage]} | more
        file = tmp_path / "recipe.yaml"
        file.write_text(json.dumps(recipe, indent=1), encoding="utf-8")
        return mingshi(command, file)

    return call


def source(ground: Ground, name: str) -> list[dict[str, str]]:
    return [{"path": str(ground.folder / f"{name}.jsonl")}]


def nothing_began(folder: Path) -> bool:
    """No step was taken and nothing was measured, and the record says how it ended."""
    status = json.loads((folder / "run.json").read_text())["status"]
    return status == "failed" and not any((folder / name).exists() for name in ("evals.jsonl", "steps.jsonl"))


CLASSIFY: tuple[tuple[str, Mapping[str, Any], int, tuple[str, ...]], ...] = (
    ("chat", {}, 3, ("chat.jsonl:1: has no label", "Give rows with `text` and `label`.")),
    ("unlabelled", {}, 3, ("unlabelled.jsonl:1: has no label",)),
    ("none", {}, 3, ("none.jsonl: none of 6 training rows has a class",)),
    ("strange", {}, 3, ("strange.jsonl: all 6 training rows are of one class, zebra",)),
    ("labels", {"labels": ["a"]}, 2, ("objective.labels: names one class, a", "Name all classes")),
    ("strange", {"labels": ["a", "b"]}, 3, ("no row is left to train on: 6 unknown_label. Line 1:", "'zebra'", "a, b")),
    ("labels", {"problem": "regression"}, 3, ("6 unknown_label", "Line 1: the label 'a' is not a number")),
    ("several", {"problem": "single_label"}, 3, ("Line 1: the label ('a', 'b') is not one class",)),
    ("numbers", {"problem": "multi_label"}, 3, ("Line 1: the label 0.5 is not a class or a list of them",)),
    ("labels", {"pooling": "first"}, 2, ("objective.pooling is first", "sees nothing", "Use last or mean")),
    ("labels", {"max_length": 3, "too_long": "drop"}, 3, ("6 too_long. Line 1: ", "Raise objective.max_length")),
)


@pytest.mark.parametrize(("rows", "fields", "code", "words"), CLASSIFY)
def test_classes_that_cannot_be_learnt(
    rows: str, fields: Mapping[str, Any], code: int, words: Sequence[str], begin: Callable[..., Said], tmp_path: Path
) -> None:
    said = begin(rows, {"kind": "classify", "max_length": 64, **fields})
    assert is_one_error(said, code, words) and nothing_began(tmp_path / "run")


def test_rows_that_were_all_rejected_are_named(begin: Callable[..., Said], tmp_path: Path) -> None:
    said = begin("broken", {"kind": "classify"})
    lines = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert said.code == 3 and "broken.jsonl:1: label: an empty label" in lines[0], said
    assert lines[-1].endswith("broken.jsonl: no row is left to train on. Mend these rows.")
    assert nothing_began(tmp_path / "run")


@pytest.mark.parametrize("role", ["test", "validation"])
@pytest.mark.parametrize(("rows", "words"), [("strange", "'zebra'"), ("numbers", "0.5")])
def test_files_to_measure_on_of_which_nothing_can_be_used_stop_the_run(
    role: str, rows: str, words: str, ground: Ground, begin: Callable[..., Said], tmp_path: Path
) -> None:
    said = begin("labels", {"kind": "classify", "max_length": 64}, **{role: source(ground, rows)})
    purpose = "be scored" if role == "test" else "validate on"
    assert is_one_error(said, 3, (f"{rows}.jsonl: no row is left to {purpose}: 6 unknown_label", words))
    assert nothing_began(tmp_path / "run")


# Teachers and references

BESIDE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("missing", ("gone: ", "there is no such folder. Check the path.")),
    ("other", ("has another tokenizer than",)),
    ("orphan", ("gone: ", "no such folder, and the adapter", "orphan needs it")),
    ("homeless", ("adapter_config.json: ", "base_model_name_or_path is empty")),
    ("weightless", ("weightless: ", "holds no weights (*.safetensors)")),
    ("empty", ("empty: ", "no config.json that can be read")),
    ("classifier", ("is a classifier",)),
    ("run", ("run: ", "a run's folder, not a model's. Name what it trained: ", "adapter.")),
)


@pytest.mark.parametrize(("name", "words"), BESIDE, ids=[name for name, _ in BESIDE])
def test_a_teacher_or_reference_is_found_before_anything_starts(
    name: str, words: Sequence[str], ground: Ground, begin: Callable[..., Said], tmp_path: Path
) -> None:
    """Also where it is the second teacher, and though the test set would be measured first."""
    teachers = [{"model": str(ground.model)}, {"model": ground.named[name]}]
    said = begin("chat", {"kind": "distill", "teachers": teachers}, test=source(ground, "chat"))
    assert said.code == 4 and "Traceback" not in said.err and nothing_began(tmp_path / "run")
    line = said.err.splitlines()[-1]
    assert line.startswith("error: ") and all(word in line for word in ("stages.0.objective.teachers.1.model", *words))
    shutil.rmtree(tmp_path / "run")
    said = begin("pairs", {"kind": "dpo", "reference": ground.named[name]}, test=source(ground, "pairs"))
    line = said.err.splitlines()[-1]
    assert said.code == 4 and nothing_began(tmp_path / "run")
    assert line.startswith("error: ") and all(word in line for word in ("stages.0.objective.reference", *words))


def test_all_teachers_that_are_wrong_are_told_at_once_and_by_plan_too(
    ground: Ground, begin: Callable[..., Said]
) -> None:
    teachers = [{"model": ground.named[name]} for name in ("missing", "other")]
    said = begin("chat", {"kind": "distill", "teachers": teachers}, command="plan")
    lines = said.err.splitlines()
    assert said.code == 4 and said.out == "" and lines[-1] == "2 problems"
    assert "objective.teachers.0.model" in lines[0] and "objective.teachers.1.model" in lines[1]
    assert "mingshi predict" in lines[1] and "{completion: prediction}" in lines[1]


@pytest.mark.parametrize("part", ["", "/adapter", "/model"])
def test_a_run_cannot_learn_from_what_it_is_about_to_make(
    part: str, begin: Callable[..., Said], tmp_path: Path
) -> None:
    said = begin("chat", {"kind": "distill", "teachers": [{"model": f"{tmp_path}/run{part}"}]})
    assert is_one_error(said, 4, ("teachers.0.model", "what this very run makes", "Make two recipes"))


# Pairs, adapters, models


def test_pairs_of_which_none_is_short_enough_say_how_long_the_first_is(
    begin: Callable[..., Said], tmp_path: Path
) -> None:
    said = begin("pairs", {"kind": "dpo", "max_length": 5})
    words = ("pairs.jsonl: no row is left to train on: 6 too_long. Line 1: ", "over max_length 5", "Raise")
    assert is_one_error(said, 3, words) and nothing_began(tmp_path / "run")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"adapter": {"rank": 2}}, ("stages.0.adapter: has no `kind`. Give it one of full, lora",)),
        ({"adapter": {"kind": "lorra"}}, ("stages.0.adapter: there is no kind 'lorra'. Did you mean 'lora'?",)),
        ({"evals": [{"limit": 3}]}, ("evals.0: has no `kind`", "perplexity")),
        ({"model": ""}, ("model: is empty",)),
    ],
)
def test_a_recipe_that_names_no_kind_or_model(
    more: Mapping[str, Any], words: Sequence[str], begin: Callable[..., Said], tmp_path: Path
) -> None:
    assert is_one_error(begin("chat", {"kind": "sft"}, **more), 2, words) and not (tmp_path / "run").exists()


def test_an_empty_name_of_a_teacher_or_reference(begin: Callable[..., Said]) -> None:
    assert is_one_error(begin("chat", {"kind": "distill", "teachers": [{"model": ""}]}), 2, ("model: is empty",))
    assert is_one_error(begin("pairs", {"kind": "dpo", "reference": ""}), 2, ("reference: is empty",))


def test_a_run_folder_is_no_model_and_its_model_is_named(ground: Ground, begin: Callable[..., Said]) -> None:
    said = begin("chat", {"kind": "sft"}, model=ground.named["run"])
    assert is_one_error(said, 4, ("a run's folder, not a model's", f"{ground.named['run']}/adapter"))


def test_a_classifier_trains_no_language_model(begin: Callable[..., Said], tmp_path: Path) -> None:
    assert begin("labels", {"kind": "classify", "max_length": 64}).code == 0
    (tmp_path / "run").rename(tmp_path / "classified")
    said = begin("chat", {"kind": "sft"}, model=str(tmp_path / "classified" / "adapter"))
    assert is_one_error(said, 2, ("model: ", "is a classifier, and the objective sft trains a language model"))
