"""Classification in whole runs: what is learnt, saved and read back, and which recipes are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoders import body
from transformers import pipeline

from mingshi.cli import app
from mingshi.data.formats import DataSource
from mingshi.errors import ModelError, RecipeError
from mingshi.model import export
from mingshi.objectives import Classify
from mingshi.prepare import settled
from mingshi.recipe import Recipe, parse
from mingshi.run import execute
from mingshi.use import Conversation, measure, open_model, predict, usual_evaluators

GOOD = ("good", "great", "lovely")
BAD = ("bad", "awful", "dull")


def reviews(count: int) -> list[dict[str, Any]]:
    return [
        {
            "text": f"{(GOOD if place % 3 else BAD)[place % 7 % 3]} thing number {place}",
            "label": ["no", "yes"][bool(place % 3)],
        }
        for place in range(count)
    ]


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def recipe(tmp_path: Path, model: Path, **stage: Any) -> Recipe:
    data = write(tmp_path / "train.jsonl", reviews(48))
    test = write(tmp_path / "test.jsonl", reviews(70)[48:])
    values = {
        "objective": {"kind": "classify", "max_length": 64, **stage.pop("objective", {})},
        "data": [{"path": data}],
        "optim": {"learning_rate": 5e-3},
        "batch": 8,
        "epochs": 8,
        "validation": 0.2,
        **stage,
    }
    named = {"model": str(model), "output": str(tmp_path / "run"), "precision": "float32", "seed": 1}
    return parse({**named, "stages": [values], "test": [{"path": test}]})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


def scores_of(folder: Path, texts: list[str]) -> list[float]:
    told = pipeline("text-classification", str(folder))(texts, top_k=None)
    return [entry["score"] for row in told for entry in row if entry["label"] == "yes"]


def test_a_run_ends_in_a_folder_that_a_pipeline_reads_with_the_same_scores(encoder: Path, tmp_path: Path) -> None:
    outcome = execute(recipe(tmp_path, encoder, adapter={"kind": "full"}))
    assert outcome.scores["after"]["classification.accuracy"].value == 1.0
    assert outcome.scores["difference"]["classification.macro_f1"].value > 0
    assert "pipeline_tag: text-classification" in (outcome.folder / "model" / "README.md").read_text()
    model = open_model(outcome.folder)
    answers = list(predict(model, DataSource(path=str(tmp_path / "test.jsonl"))))
    assert [answer["prediction"] for answer in answers] == [answer["reference"] for answer in answers]
    texts = [line["text"] for line in reviews(70)[48:]]
    shares = [answer["probabilities"]["yes"] for answer in answers]
    assert scores_of(outcome.folder / "model", texts) == pytest.approx(shares, abs=1e-5)
    again = measure(model, DataSource(path=str(tmp_path / "test.jsonl")), usual_evaluators(model))
    assert again.scores["classification"].scores["accuracy"].value == 1.0
    with pytest.raises(ModelError, match="is a classifier and writes nothing"):
        Conversation(model).ask("Hello?")


@pytest.mark.parametrize(("weight", "answer"), [(1.0, "yes"), (5.0, "no")])
def test_the_weights_of_a_file_decide_what_is_learnt(encoder: Path, tmp_path: Path, weight: float, answer: str) -> None:
    """Every text has both labels, and two of three say yes."""
    values = recipe(tmp_path, encoder, epochs=4, validation=0).model_dump(mode="json")
    labels = [("yes", 1.0), ("no", weight), ("yes", 1.0)]
    lines = [
        {"text": f"thing {place}", "label": name, "row_weight": own} for place in range(16) for name, own in labels
    ]
    write(tmp_path / "train.jsonl", lines)
    outcome = execute(parse(values))
    answers = predict(open_model(outcome.folder), DataSource(path=str(tmp_path / "test.jsonl")))
    assert {each["prediction"] for each in answers} == {answer}


def test_groups_of_a_trained_classifier_are_compared_by_the_command(
    encoder: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = execute(recipe(tmp_path, encoder, epochs=1)).folder
    people = [{**line, "text": f"he made a {line['text']}", "who": "mw"[at % 2]} for at, line in enumerate(reviews(40))]
    data = write(tmp_path / "people.jsonl", people)
    capsysbinary.readouterr()
    assert app(["eval", str(folder), data, "--protected", "who", "--json"], standalone_mode=False) in (None, 0)
    found = json.loads(capsysbinary.readouterr().out)
    assert found["groups"]["attributes"]["who"]["groups"]["m"]["rows"] == 20
    assert found["groups"]["swaps"]["changed"]["count"] == 40 and found["used"] == 40
    assert app(["eval", str(folder), data, "--protected", "who"], standalone_mode=False) in (None, 0)
    assert b"who m  accuracy" in capsysbinary.readouterr().out


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_an_adapter_is_read_back_with_its_labels_and_merges_into_what_a_pipeline_reads(
    tmp_path: Path, family: str
) -> None:
    base = body(tmp_path / "base", family)
    fields = {"class_weights": "balanced", "focal": 1.0, "sampling": "balanced"}
    outcome = execute(recipe(tmp_path, base, adapter={"kind": "lora", "rank": 4}, objective=fields, epochs=16))
    saved = outcome.folder / "adapter"
    with pytest.raises((OSError, ValueError)):
        pipeline("text-classification", str(saved))  # it would not know the labels
    texts = ["great thing number 7", "dull thing number 9"]
    source = DataSource(path=write(tmp_path / "new.jsonl", [{"text": text} for text in texts]))
    answers = list(predict(open_model(outcome.folder), source))
    assert [answer["prediction"] for answer in answers] == ["yes", "no"] and "reference" not in answers[0]
    proof = export.merge(saved, tmp_path / "merged", precision=torch.float32)
    assert proof.agreement == 1.0 and proof.kl < 1e-6 and proof.positions == 5
    shares = [answer["probabilities"]["yes"] for answer in answers]
    assert scores_of(tmp_path / "merged", texts) == pytest.approx(shares, abs=1e-5)


def test_another_pooling_is_saved_whole_and_kept_from_transformers(encoder: Path, tmp_path: Path) -> None:
    chosen = recipe(tmp_path, encoder, adapter={"kind": "lora", "rank": 4}, objective={"pooling": "mean"})
    outcome = execute(chosen)
    assert "It pools by `mean`" in (outcome.folder / "model" / "README.md").read_text()
    with pytest.raises(ValueError, match="mingshi_classifier"):
        pipeline("text-classification", str(outcome.folder / "model"))
    (answer, *_) = predict(open_model(outcome.folder), DataSource(path=str(tmp_path / "test.jsonl")))
    assert answer["prediction"] == answer["reference"]


def test_a_frozen_body_learns_by_its_head_alone(encoder: Path, tmp_path: Path) -> None:
    stage = {"adapter": {"kind": "last-layers", "blocks": 0}, "epochs": 30, "objective": {"pooling": "mean"}}
    outcome = execute(recipe(tmp_path, encoder, **stage))
    losses = [step["loss"] for step in outcome.record.steps]
    assert losses[-1] < 0.5 * losses[0]
    assert len(list((tmp_path / "cache" / "companions" / "features").glob("*.npy"))) == 2


def test_numbers_and_several_labels_run_too(encoder: Path, tmp_path: Path) -> None:
    for name, label in (("numbers", lambda place: place % 3 / 2), ("labels", lambda place: ["x", "y"][: place % 3])):
        lines = [
            {"text": " ".join(["up"] * (place % 3) or ["down"]) + f" {place}", "label": label(place)}
            for place in range(48)
        ]
        place = tmp_path / name
        place.mkdir()
        chosen = recipe(place, encoder, adapter={"kind": "full"})
        write(place / "train.jsonl", lines)
        write(place / "test.jsonl", lines[:20])
        outcome = execute(chosen)
        found = {metric: score.value for metric, score in outcome.scores["after"].items()}
        assert found["classification.pearson" if name == "numbers" else "classification.micro_f1"] > 0.9
        (answer, *_) = predict(open_model(outcome.folder), DataSource(path=str(place / "test.jsonl")))
        assert isinstance(answer["prediction"], float if name == "numbers" else list)


def test_held_out_rows_do_not_make_a_class(encoder: Path, tmp_path: Path) -> None:
    """A class that only validation or test has is unknown: its rows are rejected, and the ledger says where."""
    chosen = recipe(tmp_path, encoder, adapter={"kind": "full"}, epochs=1)
    odd = {"text": "neither", "label": "maybe"}
    write(tmp_path / "test.jsonl", [*reviews(8), odd])
    outcome = execute(chosen)
    ledger = next(entry for entry in outcome.record.data["sources"] if entry["role"] == "test")
    assert ledger["rejected"] == {"unknown_label": 1} and ledger["examples"][0]["line"] == 9
    assert outcome.model.classes is not None and outcome.model.classes.names == ("no", "yes")


def test_stages_share_the_labels_of_all(tmp_path: Path) -> None:
    first = write(tmp_path / "one.jsonl", [{"text": f"t{place}", "label": "ab"[place % 2]} for place in range(8)])
    second = write(tmp_path / "two.jsonl", [{"text": f"t{place}", "label": "cb"[place % 2]} for place in range(9)])
    stages = [
        {"data": [{"path": path}], "validation": 0, "objective": {"kind": "classify", "class_weights": weights}}
        for path, weights in ((first, None), (second, {"c": 2.0}))
    ]
    found = settled(parse({"model": "x", "output": "y", "stages": stages}))
    objectives = [stage.objective for stage in found.stages]
    assert [one.labels for one in objectives if isinstance(one, Classify)] == [("a", "b", "c")] * 2
    assert found.template == "none"


def test_a_recipe_that_cannot_be_carried_out_is_refused_at_once() -> None:
    sft, classify = {"kind": "sft"}, {"kind": "classify"}
    source = [{"path": "rows.jsonl"}]

    def told(*objectives: dict[str, Any], **fields: Any) -> str:
        stages = [{"data": source, "objective": objective} for objective in objectives]
        with pytest.raises(RecipeError) as caught:
            parse({"model": "x", "output": "y", "stages": stages, **fields})
        return str(caught.value)

    assert "need different heads" in told(sft, classify, test=[])
    assert "without turns" in told(classify, template="turns")
    assert "give all the same problem" in told({**classify, "labels": ["a"]}, {**classify, "labels": ["b"]})
    assert "classification" in told(classify, evals=[{"kind": "perplexity"}])


def test_a_length_that_the_network_has_no_positions_for_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"max_length is 512, and .* reads 130 tokens"):
        execute(recipe(tmp_path, encoder, adapter={"kind": "full"}, objective={"max_length": 512}))
