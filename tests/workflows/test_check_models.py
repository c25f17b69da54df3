"""`mingshi check` with an encoder and a scorer: what they find stands among the findings and on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from encoders import tiny_encoder
from tiny import tiny_model

from mingshi.data.formats import DataSource
from mingshi.errors import ModelError
from mingshi.report.health import render
from mingshi.report.words_health import message
from mingshi.workflows.check import Health, check


def written(path: Path, rows: list[dict[str, Any]]) -> DataSource:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return DataSource(path=str(path), on_bad_row="skip")


def asked(start: int, count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Say {number * 7919 % 997}, {number} times", "output": f"{number} it is, and {number % 7}"}
        for number in range(start, start + count)
    ]


def test_both_are_asked_and_their_findings_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINGSHI_CACHE", str(tmp_path / "cache"))
    sources = {
        "train": [written(tmp_path / "train.jsonl", asked(0, 70))],
        "test": [written(tmp_path / "test.jsonl", asked(70, 60))],
    }
    wanted = Health(encoder=str(tiny_encoder(tmp_path / "encoder")), scorer=str(tiny_model(tmp_path / "scorer")))
    told = check(sources, wanted, output=tmp_path / "health")  # type: ignore[arg-type]
    found = [one for one in told["findings"] if one["check"] == "scored"]
    assert {one["evidence"]["split"] for one in found} == {"train", "test"}
    assert (tmp_path / "health" / "report.html").is_file()
    assert list((tmp_path / "cache" / "companions" / "features").glob("*.npy"))
    assert list((tmp_path / "cache" / "companions" / "scored").glob("*.npy"))


@pytest.mark.parametrize("field", ["encoder", "scorer"])
def test_a_model_that_is_not_there_is_said(field: str, tmp_path: Path) -> None:
    train = written(tmp_path / "train.jsonl", asked(0, 3))
    with pytest.raises(ModelError):
        check({"train": [train]}, Health.model_validate({field: str(tmp_path / "none")}))


def finding(check: str, kind: str, evidence: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    told = {"severity": "warning", "count": 3, "message": "three", "remedy": "Read them.", "rows": rows}
    return {"check": check, "kind": kind, "evidence": evidence, **told}


SCORED = {"source": "a.jsonl", "line": 3, "text": "Why? Because.", "difficulty": 1.25, "probability": 0.4}
SUSPECT = {"source": "a.jsonl", "line": 4, "text": "fine", "label": "bad", "suggested": "good"}
SUSPECT |= {"probability": 0.1, "probability_suggested": 0.9}
LABELS: dict[str, Any] = {"split": "train", "accuracy": 0.8, "dropped": None}
SPLIT = {"split": "train", "of": 70, "scorer": "tiny", "median": 0.99}
ACROSS = {"from": "train", "to": "test", "of": 60}
PAIRS = [{side: {"source": "a.jsonl", "line": 1, "text": "a <b>", "spans": [[0, 1]]} for side in ("first", "second")}]


@pytest.mark.parametrize(
    ("one", "chinese"),
    [
        (finding("labels", "suspect", LABELS | {"precision_at_most": 0.7}, [SUSPECT]), "至多约 70%"),
        (finding("labels", "suspect", LABELS | {"precision_at_most": None}, [SUSPECT]), "至多约 —"),
        (finding("semantic", "near", ACROSS | {"pairs": PAIRS}, [{"source": "a", "line": 1}]), "近得不像偶然"),
        (finding("scored", "unhelped", SPLIT, [SCORED]), "答非所问"),
        (finding("scored", "easy", SPLIT, [SCORED]), "学不到什么"),
        (finding("scored", "not_helped", SPLIT, []), "tiny 用不上训练集的 70 行"),
    ],
)
def test_the_page_tells_them_in_both_languages(one: dict[str, Any], chinese: str) -> None:
    assert chinese in message(one).zh and message(one).en == "three"
    page = render({"findings": [one], "splits": {"train": {"files": [{"path": "a.jsonl"}], "used": 70}}})
    assert chinese in page
    assert ("Why? Because." in page and "1.25" in page) == (one["rows"] == [SCORED])
    assert "</mark> <b>" not in page
