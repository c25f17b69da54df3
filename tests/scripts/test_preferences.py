"""The preference demonstrations are converted whole, and no prompt is on two sides."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mingshi.data.formats import DataSource, read
from mingshi.model.assets import MANIFEST
from mingshi.types import Preference
from scripts.preferences import BEGINNING, main


def row(question: str, number: int) -> dict[str, object]:
    """One turn, or two after a system message."""
    asked = {"from": "human", "value": question}
    more = [{"from": "gpt", "value": "Which?"}, {"from": "human", "value": "The first."}]
    turns = [asked] if number % 2 else [{"from": "system", "value": "Be brief."}, asked, *more]
    answers = {name: {"from": "gpt", "value": f"{name} {number}"} for name in ("chosen", "rejected")}
    return {"conversations": turns, **answers}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path))
    place = tmp_path / "assets" / "llamafactory"
    place.mkdir(parents=True)
    rows = [row("x" * BEGINNING + str(number) if number < 6 else f"Question {number}?", number) for number in range(40)]
    (place / "dpo_en_demo.json").write_text(json.dumps(rows))
    assert main(["english"]) == 4
    assert "./scripts/fetch llamafactory" in capsys.readouterr().err
    (place / MANIFEST).write_text("{}")
    assert main(["english", "--output", str(tmp_path / "out"), "--validation", "4", "--test", "8"]) == 0
    return tmp_path / "out"


def test_every_row_is_on_one_side_and_is_read_as_a_preference(made: Path) -> None:
    sides = {side: list(read(DataSource(path=str(made / f"{side}.jsonl")))) for side in ("train", "validation", "test")}
    assert all(isinstance(one, Preference) for rows in sides.values() for one in rows)
    assert sum(map(len, sides.values())) == 40
    assert 4 <= len(sides["validation"]) <= 9 and 8 <= len(sides["test"]) <= 13
    openings = {
        side: {next(turn.content for turn in one.prompt if turn.role == "user")[:BEGINNING] for one in rows}
        for side, rows in sides.items()
    }
    shared = [
        openings[one] & openings[other]
        for one, other in (("train", "test"), ("train", "validation"), ("validation", "test"))
    ]
    assert shared == [set()] * 3
    told = [one for rows in sides.values() for one in rows]
    assert {len(one.prompt) for one in told} == {1, 4}
    assert sorted(one.chosen[0].content for one in told) == sorted(f"chosen {number}" for number in range(40))


def test_the_same_rows_are_cut_the_same_way(made: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["english", "--output", str(again), "--validation", "4", "--test", "8"]) == 0
    for path in made.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
