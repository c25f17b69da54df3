"""`mingshi pairs` as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from .conftest import Command, is_one_error

ROWS = [
    {
        "prompt": f"Question {number}?",
        "answers": [f"Yes, {'so ' * (number % 7)}it is.", "No way at all."],
        "ranks": [1, 2],
    }
    for number in range(40)
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    return path


def test_pairs_are_written_and_the_ledger_is_told(mingshi: Command, rows: Path, tmp_path: Path) -> None:
    said = mingshi("pairs", rows, "--output", tmp_path / "out", "--no-balance")
    assert said.code == 0, said
    lines = said.out.splitlines()
    assert lines[0] == "rows     40 read = 40 used"
    assert any(line.startswith("warning: the longer answer is the chosen one") for line in lines)
    assert lines[-2:] == [f"train    {tmp_path / 'out' / 'train.jsonl'}", f"test     {tmp_path / 'out' / 'test.jsonl'}"]


def test_json_is_the_report_alone(mingshi: Command, rows: Path, tmp_path: Path) -> None:
    said = mingshi("pairs", rows, "--output", tmp_path / "out", "--no-balance", "--json")
    report = orjson.loads(said.out)
    assert said.code == 0 and said.err == ""
    assert report["pairs"]["considered"] == 40 == report["pairs"]["train"] + report["pairs"]["test"]
    assert {"folder": report["folder"], **orjson.loads((tmp_path / "out" / "pairs.json").read_bytes())} == report


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--take", "first"), 2, ("--take first", "'best-worst', 'all' or 'adjacent'")),
        (("--per-prompt", "0"), 2, ("--per-prompt 0", "greater than or equal to 1")),
        (("--test", "1"), 2, ("--test 1", "less than 1")),
        (("--judge", "smollm2-135m"), 2, ("--judge is given, and there is no --model",)),
        (("--score", "judge"), 2, ("--score is given, and there is no --model",)),
        (("--margin", "9"), 3, ("none of 40 pairs is left", "40 under_margin")),
    ],
)
def test_a_mistake_is_one_line(
    mingshi: Command, rows: Path, tmp_path: Path, options: Sequence[str], code: int, words: Sequence[str]
) -> None:
    assert is_one_error(mingshi("pairs", rows, "--output", tmp_path / "out", *options), code, words)
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(mingshi: Command, rows: Path, tmp_path: Path) -> None:
    assert is_one_error(mingshi("pairs", rows, "--output", tmp_path), 2, ("is there already", "Choose another"))
