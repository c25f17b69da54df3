"""What a run finds in its rows before the first step, and what it does not look for twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from mingshi import health
from mingshi.display import Silent
from mingshi.provenance import fingerprint_file
from mingshi.recipe import Recipe, parse
from mingshi.types import Finding


def row(number: int) -> dict[str, Any]:
    subject = ("ferry", "violin", "garden", "laptop", "harbour")[number % 5]
    return {"prompt": f"What of the {subject} on day {number * 7919 % 10007}?", "completion": f"Rest {number * 31}."}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    train, test = [row(number) for number in range(40)], [row(number) for number in range(40, 50)]
    train[3] = test[5]
    train[7] = {**train[6], "completion": "Something else."}
    written("train.jsonl", train)
    written("test.jsonl", test)
    return tmp_path


def written(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in rows))


def recipe(**stage: Any) -> Recipe:
    told = {"data": [{"path": "train.jsonl"}], "validation": 0, **stage}
    return parse({"model": "m", "output": "o", "stages": [told], "test": [{"path": "test.jsonl"}]})


def found(told: Recipe) -> list[Finding]:
    files = {source.path for stage in told.stages for source in stage.data} | {source.path for source in told.test}
    ledger = [{**fingerprint_file(Path(name)), "role": "train", "rows": 50} for name in sorted(files)]
    return health.findings(told, ledger, Silent())


def test_leaks_and_contradictions_are_found_the_worst_first(place: Path) -> None:
    told = found(recipe())
    assert [one.severity for one in told] == sorted((one.severity for one in told), key=health.SEVERITIES.index)
    kinds = {f"{one.check}.{one.kind}": one for one in told}
    assert kinds["leakage.equal"].severity == "error"
    assert [(each["source"], each["line"]) for each in kinds["leakage.equal"].rows] == [("train.jsonl", 4)]
    assert {each["line"] for each in kinds["contradictions.answers"].rows} == {7, 8}


def test_what_was_found_is_not_looked_for_again_until_something_changes(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = found(recipe())
    monkeypatch.setattr(health, "_looked", lambda told, display: pytest.fail("looked again"))
    assert found(recipe()) == first
    assert found(recipe(batch=3)) == first
    monkeypatch.setattr(health, "_looked", lambda told, display: [])
    assert found(recipe(validation=0.2)) == []
    written("test.jsonl", [row(60)])
    assert found(recipe()) == []


def test_rows_held_out_of_the_same_file_are_compared_with_it(place: Path) -> None:
    twins = [row(number) for number in range(60)]
    for number in range(30):  # the same text, with an id of its own: nothing keeps the two on one side
        twins[number + 30] = {**twins[number], "id": f"twin {number}", "group": f"group {number}"}
    written("train.jsonl", twins)
    leaks = [one for one in found(recipe(validation=0.5)) if one.check == "leakage"]
    assert any(one.evidence["to"] == "validation" for one in leaks)


def test_a_file_of_two_stages_is_not_compared_with_itself(place: Path) -> None:
    stage = {"data": [{"path": "train.jsonl"}], "validation": 0}
    told = parse({"model": "m", "output": "o", "stages": [stage, stage], "test": [{"path": "test.jsonl"}]})
    assert found(told) == found(recipe())


def test_of_too_many_rows_it_only_says_how_to_look(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MOST", 99)
    (note,) = found(recipe())
    assert (note.severity, note.count) == ("note", 100)
    assert "mingshi check train.jsonl --test test.jsonl" in note.remedy
