"""What the benchmark of large files does, on a small one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model

from benchmarks import data


@pytest.fixture
def request_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path))  # is set by what is tested, and put back after it
    monkeypatch.setattr(data, "BROKEN", 20)
    data.write(tmp_path / "rows.jsonl", 60, 0)
    model = tiny_model(tmp_path / "model")
    request = {"rows": str(tmp_path / "rows.jsonl"), "folder": str(tmp_path), "model": str(model)}
    return request | {"validation": 0.2, "seed": 0, "steps": 5}


def test_rows_are_the_same_for_a_seed() -> None:
    assert list(data.rows(30, 0)) == list(data.rows(30, 0)) != list(data.rows(30, 1))
    assert len({row["instruction"] for row in data.rows(30, 0)}) == 30


def test_both_processes_count_every_row_and_find_the_same(request_of: dict[str, Any]) -> None:
    first, second = data.run(request_of), data.run(request_of)
    assert data.faults(first, second, 60) == []
    assert first["samples"] + first["validation"] == 57 and len(second["seeks"]) == 5
    assert "| rows | 60 |" in data.table(first, second, 60)
    assert [path.name for path in (Path(request_of["folder"]) / "encoded").glob(".*")] == []


def test_lost_rows_and_other_samples_are_named() -> None:
    told = {"ledger": [{"rows": 9, "used": 9, "rejected": {}}], "tokens": 5}
    assert not data.faults(told, told, 9)
    assert len(data.faults(told, told | {"tokens": 6}, 10)) == 2
    assert len(data.faults(told, told, data.BROKEN)) == 2
