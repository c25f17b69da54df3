"""Repairs: what goes, what is relabelled, what stays byte for byte, and what is refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from mingshi.errors import DataError, RecipeError
from mingshi.workflows.repair import repair

ROWS = [{"text": f"text {number}", "label": "good" if number % 2 else "bad", "extra": number} for number in range(6)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    return path


def found(data: Path, *findings: tuple[str, str, list[int]], sha: str | None = None) -> Path:
    """A findings.json that names these lines."""
    told = {
        "splits": {"train": {"files": [{"path": str(data), "sha256": sha or sha256(data.read_bytes()).hexdigest()}]}},
        "findings": [
            {"check": check, "kind": kind, "rows": [{"source": str(data), "line": line} for line in lines]}
            for check, kind, lines in findings
        ],
    }
    path = data.with_name("findings.json")
    path.write_bytes(orjson.dumps(told))
    return path


def rows_of(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_rows_go_by_check_or_by_kind_and_the_lineage_adds_up(data: Path, tmp_path: Path) -> None:
    findings = found(data, ("leakage", "equal", [1, 3]), ("leakage", "near", [3, 4]), ("wording", "empty", [6]))
    before = data.read_bytes()
    told = repair(data, tmp_path / "new.jsonl", findings=findings, drop=["leakage.equal", "wording"])
    assert rows_of(tmp_path / "new.jsonl") == [ROWS[1], ROWS[3], ROWS[4]] and data.read_bytes() == before
    assert told["dropped"] == {"leakage.equal": 2, "wording.empty": 1}
    assert told["rows"] == {"read": 6, "written": 3, "relabelled": 0}
    lineage = orjson.loads((tmp_path / "new.lineage.json").read_bytes())
    assert (
        lineage["source"]["sha256"] == sha256(before).hexdigest()
        and lineage["lines"]["dropped"]["6"] == "wording.empty"
    )


def test_only_labels_that_a_person_accepted_are_changed(data: Path, tmp_path: Path) -> None:
    review = tmp_path / "suspects.jsonl"
    said = [(1, True), (2, False), (3, None)]
    lines = [{"source": str(data), "line": line, "suggested": "new", "accept": accept} for line, accept in said]
    lines.append({"source": str(tmp_path / "other.jsonl"), "line": 4, "suggested": "new", "accept": True})
    review.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    told = repair(data, tmp_path / "new.jsonl", review=review)
    assert rows_of(tmp_path / "new.jsonl") == [{**ROWS[0], "label": "new"}, *ROWS[1:]]
    assert told["lines"]["relabelled"] == {1: {"from": "bad", "to": "new"}}
    with pytest.raises(DataError, match="is not there"):
        repair(data, tmp_path / "newer.jsonl", review=review, label="sentiment")
    assert not (tmp_path / "newer.jsonl").exists() and not list(tmp_path.glob(".newer*"))


@pytest.mark.parametrize(
    ("change", "words"),
    [({"accept": "yes"}, "neither true, false nor null"), ({"line": ...}, "line: is missing. Give it the suspects")],
)
def test_an_answer_that_is_none_is_refused(data: Path, tmp_path: Path, change: dict[str, Any], words: str) -> None:
    row = {"source": str(data), "line": 1, "suggested": "new", "accept": True} | change
    review = tmp_path / "suspects.jsonl"
    review.write_bytes(orjson.dumps({name: value for name, value in row.items() if value is not ...}))
    with pytest.raises(DataError, match=words):
        repair(data, tmp_path / "new.jsonl", review=review)


def test_what_does_not_fit_the_file_is_refused(data: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.jsonl"
    findings = found(data, ("leakage", "equal", [1]))
    with pytest.raises(RecipeError, match=r"no finding 'leakge'.*leakage"):
        repair(data, new, findings=findings, drop=["leakge"])
    with pytest.raises(RecipeError, match="nothing is to be repaired"):
        repair(data, new, findings=findings)
    with pytest.raises(RecipeError, match="needs the findings"):
        repair(data, new, drop=["leakage"])
    with pytest.raises(RecipeError, match="is the file of the rows"):
        repair(data, data, findings=findings, drop=["leakage"])
    with pytest.raises(DataError, match="has changed since it was checked"):
        repair(data, new, findings=found(data, ("leakage", "equal", [1]), sha="0" * 64), drop=["leakage"])
    every = found(data, ("leakage", "equal", [1, 2, 3, 4, 5, 6]))
    with pytest.raises(DataError, match="no row would be left"):
        repair(data, new, findings=every, drop=["leakage"])
    other = tmp_path / "other.jsonl"
    other.write_bytes(data.read_bytes())
    with pytest.raises(DataError, match="is not about"):
        repair(other, new, findings=every, drop=["leakage"])
    others = found(data, ("drift", "words", [1]), ("leakage", "near", []))
    with pytest.raises(RecipeError, match="says what a file is like, not which of its rows are wrong"):
        repair(data, new, findings=others, drop=["drift.words"])
    with pytest.raises(RecipeError, match="it names no row of"):
        repair(data, new, findings=others, drop=["leakage"])
    every.write_text("[]")
    with pytest.raises(DataError, match="holds no findings"):
        repair(data, new, findings=every, drop=["leakage"])
    assert not new.exists()
