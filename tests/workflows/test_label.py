"""Self-training from the file to the page, on encoders of a few thousand weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoders import tiny_encoder

from mingshi.data.formats import DataSource
from mingshi.display import Silent
from mingshi.errors import DataError, Preempted, RecipeError
from mingshi.recipe import Recipe
from mingshi.record import Run, read_run
from mingshi.report.label import render
from mingshi.resume import finished as run_that_is_done
from mingshi.run import execute
from mingshi.use import classified, open_model, predict
from mingshi.workflows import label as workflow
from mingshi.workflows.label import label
from mingshi.workflows.label_file import Labelling, read_labelling
from mingshi.workflows.label_head import encoded
from mingshi.workflows.label_told import described

FILE = """\
model: tiny
output: out
seeds: {path: seeds.jsonl}
unlabelled: {path: texts.jsonl}
gold: {path: gold.jsonl}
training: {adapter: {kind: full}, optim: {learning_rate: 5.0e-3, warmup: 0}, batch: 8, steps: 40, max_length: 32}
parts: [0.4, 0.8]
seed_weight: 2
error: 0.1
confidence: 0.9
"""
HEAD = FILE.replace("{adapter: {kind: full}", "{student: head, adapter: {kind: full}")
WORDS = {"fox": "the quick brown fox", "count": "one two three four"}


class Trainer:
    """Trains in this process; may be told to end before the n-th training."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.stop_at = -1

    def __call__(self, recipe: Recipe, *, file: Path, log: Path, stop: Any) -> Run:
        folder = Path(recipe.output)
        if (done := run_that_is_done(folder, recipe.model_dump(mode="json"))) is not None:
            return done
        if len(self.made) == self.stop_at:
            raise Preempted("stopped in the middle of a run", "Go on with --resume.")
        self.made.append(folder.parent.name)
        execute(recipe)
        return read_run(folder)


def rows(kind: str, numbers: range, *, labels: bool = True) -> list[dict[str, str]]:
    """Texts that their words give away, no two alike."""
    found = []
    for number in numbers:
        name = ("fox", "count")[number % 2]
        row = {"text": f"{WORDS[name]} {kind} {number}"}
        found.append(row | {"label": name} if labels else row)
    return found


def written(name: str, rows: list[dict[str, str]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MINGSHI_CACHE", str(folder / "cache"))
    tiny_encoder(folder / "tiny")
    written("seeds.jsonl", rows("seed", range(12)))
    written("texts.jsonl", [*rows("text", range(60), labels=False), *rows("seed", range(2), labels=False)])
    written("gold.jsonl", rows("gold", range(80)))
    Path("label.yaml").write_text(FILE)
    trainer = Trainer()
    monkeypatch.setattr(workflow, "trained", trainer)
    return trainer


@dataclass(frozen=True, slots=True)
class Finished:
    folder: Path
    told: dict[str, Any]
    made: list[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """Carried out whole, but for a kill before the second round."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("label")
        trainer = prepared(folder, monkeypatch)
        trainer.stop_at = 2
        with pytest.raises(Preempted):
            label(read_labelling(Path("label.yaml")))
        trainer.stop_at = -1
        told = label(read_labelling(Path("label.yaml")), resume=True, language="zh")
        yield Finished(folder, told, trainer.made)


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_rounds_go_on_where_they_stopped(finished: Finished) -> None:
    assert finished.made == ["0", "1", "2"]
    assert [one["number"] for one in finished.told["rounds"]] == [0, 1, 2]
    assert finished.told["reason"] == "rounds"


def test_what_was_killed_and_resumed_is_what_was_not(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path, monkeypatch)
    assert label(read_labelling(Path("label.yaml"))) == finished.told
    for name in ("labelled.jsonl", "to_label.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (finished.folder / "out" / name).read_bytes()


def test_every_row_is_labelled_or_left_for_a_person(finished: Finished) -> None:
    given, left = (lines(finished.folder / "out" / name) for name in ("labelled.jsonl", "to_label.jsonl"))
    assert len(given) == finished.told["labelled"] and len(left) == finished.told["to_label"]
    assert sorted(row["line"] for row in (*given, *left)) == list(range(1, 61)), "copies of seeds are left out"
    assert finished.told["copies"] == 2
    threshold = finished.told["certificate"]["threshold"]
    assert given and all(row["confidence"] >= threshold for row in given)
    assert [row["label"] for row in given] == [("count" if row["line"] % 2 == 0 else "fox") for row in given]
    leads = [max(row["likely"].values()) for row in left]
    assert leads == sorted(leads) and all(row["label"] == "" for row in left)


def test_a_student_begins_at_the_base_and_is_trained_on_what_the_round_before_was_sure_of(finished: Finished) -> None:
    out = finished.folder / "out"
    recipe = read_run(out / "rounds/2/run").run["recipe"]
    assert recipe["model"] == "tiny"
    sources = recipe["stages"][0]["data"]
    assert [(source["path"], source["weight"]) for source in sources] == [
        ("seeds.jsonl", 2.0),
        ("out/rounds/2/labelled.jsonl", 1.0),
    ]
    taken = [one["trained_on"] for one in finished.told["rounds"]]
    assert taken[0] == 0 < taken[1] < taken[2] == len(lines(out / "rounds/2/labelled.jsonl"))


def test_the_certifying_half_chooses_nothing(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its labels turned round, rounds, thresholds and temperatures are what they were; the certificate goes."""
    monkeypatch.chdir(finished.folder)
    told = Labelling.model_validate({**read_labelling(Path("label.yaml")).model_dump(), "output": "turned"})
    rows = workflow.read_rows(told)
    half = workflow._halves(rows, told.seed)
    turned = [
        {"text": row.content, "label": str(row.label) if chooses else ("fox" if row.label == "count" else "count")}
        for row, chooses in zip(rows.gold, half, strict=True)
    ]
    written("gold-turned.jsonl", turned)
    Path("turned.yaml").write_text(FILE.replace("gold.jsonl", "gold-turned.jsonl").replace(": out", ": turned"))
    monkeypatch.setattr(workflow, "_halves", lambda rows, seed: half)
    monkeypatch.setattr(workflow, "trained", Trainer())
    again = label(read_labelling(Path("turned.yaml")))
    assert again["rounds"] == finished.told["rounds"] and again["best"] == finished.told["best"]
    assert again["certificate"] is None and again["labelled"] == 0


def test_a_teacher_of_shuffled_labels_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = prepared(tmp_path, monkeypatch)
    labels = np.random.default_rng(3).permutation([row["label"] for row in rows("seed", range(12))])
    written(
        "seeds.jsonl",
        [row | {"label": str(name)} for row, name in zip(rows("seed", range(12)), labels, strict=True)],
    )
    told = label(read_labelling(Path("label.yaml")))
    assert told["reason"] == "guesses" and trainer.made == ["0"]
    assert told["labelled"] == 0 and told["to_label"] == 60
    assert "no better than" in " ".join(described(told, language="en"))


def test_nothing_sure_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, monkeypatch)
    Path("label.yaml").write_text(FILE.replace("parts: [0.4, 0.8]", "parts: [0.4, 0.8]\nfloor: 0.99"))
    monkeypatch.setattr(workflow.rules, "taken", lambda shares, **_: (np.zeros(len(shares), dtype=bool), []))
    told = label(read_labelling(Path("label.yaml")))
    assert told["reason"] == "none_sure" and len(told["rounds"]) == 1


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_page_and_the_lines_say_the_same(finished: Finished, language: str) -> None:
    page = render(finished.told, title="out", language=language)
    assert page == render(finished.told, title="out", language=language)
    text = "\n".join(described(finished.told, language=language))
    for number in (f"{finished.told['labelled']}", f"{finished.told['to_label']}"):
        assert number in page and number in text
    assert (finished.folder / "out/report.html").read_text() == render(finished.told, title="out", language="zh")


# A head as the student


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("head")
        trainer = prepared(folder, monkeypatch)
        Path("label.yaml").write_text(HEAD)
        yield Finished(folder, label(read_labelling(Path("label.yaml"))), trainer.made)


def test_a_head_needs_no_run_and_its_model_gives_the_labels_that_were_given(headed: Finished) -> None:
    assert headed.made == [] and headed.told["trained"] == "model"
    model = open_model(headed.folder / "out/model")
    given = lines(headed.folder / "out/labelled.jsonl")
    (headed.folder / "texts-given.jsonl").write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in given))
    found = list(predict(model, DataSource(path=str(headed.folder / "texts-given.jsonl"))))
    assert given and [row["prediction"] for row in found] == [row["label"] for row in given]


def test_the_model_saved_is_the_head_that_was_solved(headed: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standardising is folded into its weights: before the temperature, probabilities agree."""
    monkeypatch.chdir(headed.folder)
    told = read_labelling(Path("label.yaml"))
    rows = workflow.read_rows(told)
    made = encoded(told, rows, Silent())
    solved = made.solve([0, 1] * 6, np.empty(0, np.int64), [], weight=1.0)
    made.save(solved, headed.folder / "again" / "model")
    again = open_model(headed.folder / "again" / "model")
    found = [row["probabilities"] for row in classified(again, [*rows.unlabelled, *rows.gold], Silent())]
    np.testing.assert_allclose(
        [[one[name] for name in rows.classes] for one in found], made.shares(solved), rtol=1e-4, atol=1e-6
    )


def test_a_seed_counts_as_often_as_it_is_told(headed: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(headed.folder)
    told = read_labelling(Path("label.yaml"))
    made = encoded(told, workflow.read_rows(told), Silent())
    seeds, places = [0, 1] * 6, np.arange(10)
    once, thrice = (made.solve(seeds, places, [1] * 10, weight=weight) for weight in (1.0, 3.0))
    believed = []
    for solved in (once, thrice):
        logits_RC = made.seeds_RW @ solved.weight_CW.T + solved.bias_C
        believed.append(float((logits_RC[np.arange(12), seeds] - logits_RC[np.arange(12), np.array(seeds) ^ 1]).mean()))
    assert believed[1] > believed[0]


def test_a_head_of_more_layers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, monkeypatch)
    tiny_encoder(tmp_path / "two", family="distilbert")
    Path("two.yaml").write_text(HEAD.replace("model: tiny", "model: two"))
    with pytest.raises(RecipeError, match="more than one layer"):
        label(read_labelling(Path("two.yaml")))


# What is wrong with files


def refused(error: type[Exception], **changes: list[dict[str, str]]) -> str:
    for name, found in changes.items():
        written(f"{name}.jsonl", found)
    with pytest.raises(error) as raised:
        label(read_labelling(Path("label.yaml")))
    return str(raised.value)


def test_rows_that_do_not_fit_are_refused_with_their_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, monkeypatch)
    good = {name: rows(name, range(80)) for name in ("seeds", "gold")}
    few = refused(RecipeError, gold=good["gold"][:30])
    assert "15 certify" in few and "22 are needed" in few and "Label 14 more rows" in few
    assert "no row of count" in refused(RecipeError, gold=[row for row in good["gold"] if row["label"] == "fox"])
    assert "the class 'fox' alone" in refused(RecipeError, seeds=good["seeds"][:1], gold=good["gold"])
    shared = refused(DataError, seeds=good["gold"][:4], gold=good["gold"])
    assert "gold.jsonl" in shared and "line 1 of seeds.jsonl" in shared
    also = refused(DataError, seeds=good["seeds"][:8], texts=good["gold"][:2])
    assert "2 of its rows are gold too" in also and "lines 1, 2" in also
    assert "no row that the seeds do not have" in refused(RecipeError, texts=good["seeds"][:8])
    assert not Path("out").exists(), "nothing was begun"


def test_the_file_is_checked_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, monkeypatch)
    for old, new, what in (
        ("parts: [0.4, 0.8]", "parts: [0.8, 0.4]", "Let them rise"),
        ("error: 0.1", "eror: 0.1", "Did you mean 'error'"),
        ("steps: 40", "step: 40", "Did you mean 'steps'"),
        ("seeds: {path: seeds.jsonl}\n", "", "seeds"),
        ("seeds.jsonl", "gone.jsonl", "gone.jsonl"),
    ):
        Path("wrong.yaml").write_text(FILE.replace(old, new))
        with pytest.raises(RecipeError, match=what):
            read_labelling(Path("wrong.yaml"))


def test_a_folder_that_holds_something_else_is_left_alone(finished: Finished, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.folder)
    with pytest.raises(RecipeError, match="--resume"):
        label(read_labelling(Path("label.yaml")))
    Path("other.yaml").write_text(FILE.replace("error: 0.1", "error: 0.2"))
    with pytest.raises(RecipeError, match="error"):
        label(read_labelling(Path("other.yaml")), resume=True)
