"""A trained classifier's outcomes by group, and what becomes of its answers when he is she."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mingshi.data.formats import DataSource
from mingshi.display import Silent
from mingshi.errors import DataError, RecipeError
from mingshi.workflows import groups as module
from mingshi.workflows.groups import Grouping, described, groups

MODEL: Any = SimpleNamespace(name="tiny", classes=SimpleNamespace(problem="single_label", names=("bad", "good")))


def write(path: Path, rows: list[dict[str, Any]]) -> DataSource:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSource(path=str(path))


@pytest.fixture
def source(tmp_path: Path) -> DataSource:
    """Half of each group is good; the model below takes every man for good and every fourth woman."""
    rows = [
        {
            "text": f"{'he' if place % 2 else 'she'} made film {place}",
            "label": "good" if place // 2 % 2 else "bad",
            "who": "m" if place % 2 else "w",
        }
        for place in range(80)
    ]
    return write(tmp_path / "rows.jsonl", [*rows, {"text": "a film", "label": "bad", "who": "other"}])


@pytest.fixture(autouse=True)
def by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def classified(_: object, rows: list[Any], __: Silent) -> list[dict[str, Any]]:
        shares = [0.9 if row.content.startswith("he") else 0.6 if row.line % 8 == 1 else 0.4 for row in rows]
        said = [{"bad": 1 - share, "good": share} for share in shares]
        return [{"prediction": max(one, key=lambda name: one[name]), "probabilities": one} for one in said]

    monkeypatch.setattr(module, "classified", classified)


def test_each_group_has_its_outcomes_and_small_ones_are_not_compared(source: DataSource) -> None:
    found = groups(MODEL, source, Grouping(protected=("who", "mentions"), positive="good"))
    who = found["attributes"]["who"]
    assert {name: group["rows"] for name, group in who["groups"].items()} == {"m": 40, "w": 40, "other": 1}
    assert who["groups"]["m"]["outcomes"]["good"]["selection"]["value"] == 1.0
    assert who["groups"]["w"]["outcomes"]["good"]["selection"]["value"] == 0.25
    assert who["not_compared"] == {"other": 1}
    assert who["gaps"]["good"]["demographic_parity_difference"]["value"] == pytest.approx(0.75)
    assert who["gaps"]["good"]["demographic_parity_ratio"]["value"] == pytest.approx(0.25)
    assert set(found["attributes"]["mentions"]["groups"]) == {"female", "male", "neither"}
    assert found["rows"] == 81 and found["positive"] == ["good"]


def test_a_swap_says_whom_the_model_prefers(source: DataSource) -> None:
    swaps = groups(MODEL, source, Grouping(protected=("who",)))["swaps"]
    assert swaps["changed"]["count"] == 80 and swaps["texts"] == 81
    assert swaps["changed"]["value"] == pytest.approx((40 + 30) / 80), "no man was on a line of the fourth women"
    shift = swaps["shifts"]["good"]
    assert shift["low"] <= shift["value"] <= shift["high"] < -0.3


def test_a_person_reads_every_number(source: DataSource) -> None:
    lines = list(described(groups(MODEL, source, Grouping(protected=("who",)))))
    assert any(line.startswith("who m  accuracy  0.5000") for line in lines)
    assert any("demographic_parity_difference of good  0.7500" in line for line in lines)
    assert "who other: 1 rows, too few to be compared" in lines
    assert any(line.startswith("swaps  another class when he is she  0.8750") for line in lines)


@pytest.mark.parametrize(
    ("wanted", "kind", "told"),
    [
        (Grouping(protected=("who",), positive="fine"), RecipeError, "--positive fine.*bad, good"),
        (Grouping(protected=("age", "town")), DataError, "(?s)age: is in no row.*town: is in no row"),
    ],
)
def test_what_cannot_be_compared_is_told(
    source: DataSource, wanted: Grouping, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        groups(MODEL, source, wanted)


def test_only_a_classifier_of_single_labels_has_groups(source: DataSource) -> None:
    several: Any = SimpleNamespace(name="tiny", classes=SimpleNamespace(problem="multi_label", names=("a", "b")))
    with pytest.raises(RecipeError, match="does not choose one class"):
        groups(several, source, Grouping(protected=("who",)))
