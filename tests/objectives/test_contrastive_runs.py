"""Pictures and texts in whole runs: what is learnt, cached, saved and read back, and which recipes are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from towers import pictures, tiny_vision

from mingshi import run
from mingshi.data.formats import DataSource
from mingshi.errors import Preempted
from mingshi.recipe import Recipe, parse
from mingshi.run import execute
from mingshi.use import measure, open_model, usual_evaluators


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


def recipe(tmp_path: Path, encoder: Path, **stage: Any) -> Recipe:
    tower = tmp_path / "tower"
    if not tower.exists():
        tiny_vision(tower)
    values = {
        "data": [{"path": str(pictures(tmp_path / "train"))}],
        "objective": {"kind": "contrastive", "vision": str(tower), "width": 16, **stage.pop("objective", {})},
        "adapter": {"kind": "last-layers", "blocks": 0},
        "optim": {"learning_rate": 1e-2},
        "batch": 12,
        "epochs": 20,
        "validation": 0.2,
        **stage,
    }
    named = {"model": str(encoder), "output": str(tmp_path / "run"), "precision": "float32", "seed": 1}
    tests = [{"path": str(pictures(tmp_path / "test", 18, start=36))}]
    evals = [{"kind": "retrieval"}, {"kind": "zero-shot"}]
    return parse({**named, "stages": [values], "test": tests, "evals": evals})


def value(outcome: Any, name: str, when: str = "after") -> float:
    found: float = outcome.scores[when][name].value
    return found


def test_frozen_towers_learn_by_their_maps_alone_and_the_folder_scores_the_same(encoder: Path, tmp_path: Path) -> None:
    outcome = execute(recipe(tmp_path, encoder))
    assert value(outcome, "retrieval.image_to_text_r1") > value(outcome, "retrieval.image_to_text_r1", "before")
    assert value(outcome, "retrieval.image_to_text_r5") > 0.6
    assert value(outcome, "retrieval.gallery_images") == 18
    assert len(list((tmp_path / "cache" / "companions" / "features").glob("*.npy"))) >= 4
    again = measure(
        open_model(outcome.folder),
        DataSource(path=str(tmp_path / "test" / "rows-36.jsonl")),
        usual_evaluators(open_model(outcome.folder)),
    )
    for name, score in again.scores["retrieval"].scores.items():
        assert score.value == pytest.approx(value(outcome, f"retrieval.{name}"), abs=1e-6)


def test_a_resumed_run_is_the_run_that_was_never_stopped(encoder: Path, tmp_path: Path) -> None:
    """The maps and the learnt scale go on from where they stood; a saved pair is trained on without naming a tower."""
    whole = execute(recipe(tmp_path, encoder, epochs=3, checkpoint=1))
    values = recipe(tmp_path, encoder, epochs=3, checkpoint=1).model_dump(mode="json")
    values |= {"output": str(tmp_path / "again")}
    honest = run.train

    def cut_short(stage: Any, *, start: int = 0) -> Any:
        for step in honest(stage, start=start):
            yield step
            if step.number == 3:
                raise Preempted("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "train", cut_short)
        with pytest.raises(Preempted):
            execute(parse(values))
    again = execute(parse(values), resume=True)
    assert [line["loss"] for line in again.record.steps] == [line["loss"] for line in whole.record.steps]
    values["stages"] = [values["stages"][0] | {"objective": {"kind": "contrastive", "width": 16}}]
    further = execute(parse(values | {"model": str(again.folder / "model"), "output": str(tmp_path / "further")}))
    found = value(further, "retrieval.image_to_text_mrr", "before")
    assert found == pytest.approx(value(again, "retrieval.image_to_text_mrr"), abs=1e-6)
