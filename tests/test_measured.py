"""A measurement is recalled only if nothing that it depends on has changed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mingshi import measured
from mingshi.evals import Perplexity
from mingshi.model.load import load
from mingshi.types import Score, Scores
from tests.tiny import tiny_model

LEDGER = [{"sha256": "aa", "rows": 3, "used": 3}]
SCORES = Scores(
    scores={"rougeL": Score(value=0.5, low=math.nan, high=math.nan, count=1, signature="s")},
    items={"rougeL": [0.5]},
    samples=[{"prompt": "问", "prediction": "答"}],
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))


def test_a_measurement_comes_back_as_it_was(tmp_path: Path) -> None:
    name = measured.key(load(tiny_model(tmp_path / "model")), LEDGER, (Perplexity(), 0))
    assert measured.recall(name) is None
    measured.remember(name, SCORES)
    recalled = measured.recall(name)
    assert recalled is not None
    assert recalled.items == SCORES.items
    assert recalled.samples == SCORES.samples
    assert recalled.scores["rougeL"].value == 0.5
    assert math.isnan(recalled.scores["rougeL"].low)


def test_other_weights_data_and_settings_have_other_names(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path / "model"))
    names = {
        measured.key(model, LEDGER, (Perplexity(), 0)),
        measured.key(model, LEDGER, (Perplexity(), 1)),
        measured.key(model, [{"sha256": "bb", "rows": 3, "used": 3}], (Perplexity(), 0)),
        measured.key(load(tiny_model(tmp_path / "other", seed=1)), LEDGER, (Perplexity(), 0)),
        measured.key(load(tmp_path / "model", template="alpaca"), LEDGER, (Perplexity(), 0)),
    }
    assert None not in names
    assert len(names) == 5


def test_a_model_that_was_changed_is_always_measured(tmp_path: Path) -> None:
    model = load(tiny_model(tmp_path / "model"))
    model.changed = True
    assert measured.key(model, LEDGER, (Perplexity(), 0)) is None


def test_a_damaged_file_is_as_good_as_none(tmp_path: Path) -> None:
    measured.remember("name", SCORES)
    (tmp_path / "cache" / "measured" / "name.json").write_text('{"scores": {"rougeL": {"value"')
    assert measured.recall("name") is None
