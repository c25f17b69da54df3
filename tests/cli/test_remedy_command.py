"""`mingshi balance` and `mingshi augment` as they are typed."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from .conftest import Command, is_one_error

ROWS = [
    {
        "text": f"{'he' if number % 2 else 'she'} took road {number} over the hill",
        "label": "good" if number < 15 else "bad",
    }
    for number in range(20)
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    return path


def test_json_is_the_lineage_alone(mingshi: Command, rows: Path, tmp_path: Path) -> None:
    said = mingshi("balance", rows, "--output", tmp_path / "even.jsonl", "--how", "over", "--json")
    assert said.code == 0 and said.err == ""
    report = orjson.loads(said.out)
    assert [one["after"] for one in report["classes"]] == [15, 15]
    lineage = orjson.loads((tmp_path / "even.lineage.json").read_bytes())
    assert report.pop("output") and report.pop("lineage") and report == lineage


def test_a_person_reads_what_was_done_in_either_language(mingshi: Command, rows: Path, tmp_path: Path) -> None:
    words = ("augment", rows, "--methods", "swap,counterfactual", "--until", "even", "--output", tmp_path / "new.jsonl")
    english = mingshi(*words, "--lang", "en").out
    assert english.startswith(f"30 rows written to {tmp_path / 'new.jsonl'}, of 20 read\n  bad: 5 → 15\n")
    assert " by swap" in english and "lineage  " in english
    chinese = mingshi(*words, "--lang", "zh").out
    assert "读入 20 行，写出 30 行" in chinese and "来历" in chinese


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("balance", "--how", "over", "--cap", "0.5"), 2, ("--cap 0.5",)),
        (("balance", "--how", "over", "--until", "soon"), 2, ("--until soon", "even, independent")),
        (("augment", "--methods", "swop", "--each", "1"), 2, ("no method swop",)),
        (("augment", "--methods", "swap", "--each", "1", "--text-field", "words"), 3, ("--text-field",)),
    ],
)
def test_mistakes_are_told_in_a_line(
    mingshi: Command, rows: Path, tmp_path: Path, words: tuple[str, ...], code: int, told: tuple[str, ...]
) -> None:
    said = mingshi(words[0], rows, "--output", tmp_path / "new.jsonl", *words[1:])
    assert is_one_error(said, code, told) and not (tmp_path / "new.jsonl").exists()
