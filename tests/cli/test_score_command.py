"""`mingshi score` as it is typed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from .conftest import Command, Place, is_one_error

ROWS = [
    {"id": str(number), "prediction": f"the number {number % 5}", "reference": f"a number {number % 7}"}
    for number in range(30)
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in ROWS))
    return path


def test_json_is_the_scores_alone(mingshi: Command, rows: Path) -> None:
    said = mingshi("score", rows, "--metrics", "rouge,exact_match", "--json")
    report = orjson.loads(said.out)
    assert said.code == 0 and said.err == ""
    assert report.keys() == {"metrics", "rows", "read", "used", "rejected"} and report["rows"] == 30
    assert list(report["metrics"]) == ["rouge1", "rouge2", "rougeL", "rougeLsum", "exact_match"]
    found = report["metrics"]["rougeL"]
    assert found.keys() == {"value", "low", "high", "count", "signature"}
    assert 0 < found["low"] < found["value"] < found["high"] < 1
    assert found["signature"].startswith("rougeL|tok:cjk-char|stem:no|rouge_score:0.1.2|items:")


def test_a_person_reads_a_table_in_either_language(mingshi: Command, rows: Path) -> None:
    english = mingshi("score", rows, "--metrics", "rouge", "--lang", "en").out.splitlines()
    assert english[0] == "30 rows read = 30 used" and english[2].split()[:2] == ["metric", "value"]
    chinese = mingshi("score", rows, "--metrics", "rouge", "--lang", "zh", "--paired", rows).out
    assert "读入 30 行 = 使用 30 行" in chinese and "95% 置信区间" in chinese and "配对随机化检验" in chinese


def test_csv_with_labels_gives_classes_and_their_confusion(mingshi: Command, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("prediction,label\n好,好\n坏,好\n坏,坏\n", encoding="utf-8")
    report = orjson.loads(mingshi("score", path, "--json").out)
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert report["confusion"] == {"classes": ["坏", "好"], "counts": [[1, 0], [1, 1]]}
    assert "真实类别" in mingshi("score", path, "--lang", "zh").out


def test_json_arrays_and_parquet_score_as_json_lines_do(mingshi: Command, rows: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "out.json").write_bytes(orjson.dumps(ROWS))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "out.parquet")
    told = [mingshi("score", path, "--metrics", "rouge", "--json").out for path in (rows, *tmp_path.glob("out.[jp]*"))]
    assert len(told) >= 3 and len(set(told)) == 1


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--metrics", "rogue"), 2, ("--metrics rogue", "rouge")),
        (("--metrics", "bertscore"), 2, ("bertscore needs an encoder",)),
        (("--layer", "2"), 2, ("of BERTScore's encoder",)),
        (("--column", "text=x"), 2, ("--column text=x", "prediction")),
        (("--column", "prediction=answr", "--on-bad-row", "skip"), 3, ("no row can be used",)),
        (("--metrics", "accuracy", "--paired", "absent.jsonl"), 3, ("absent.jsonl", "no such file")),
        (("--lang", "fr"), 2, ("--lang fr", "en or zh")),
    ],
)
def test_a_mistake_is_one_line(
    mingshi: Command, rows: Path, options: Sequence[str], code: int, words: Sequence[str]
) -> None:
    assert is_one_error(mingshi("score", rows, *options), code, words)


def test_eval_measures_what_is_asked_and_nothing_that_makes_no_sense(place: Place, mingshi: Command) -> None:
    few = ("--limit", 2, "--max-new-tokens", 4)
    told = orjson.loads(mingshi("eval", place.run, place.rows, *few, "--metrics", "token_f1,length", "--json").out)
    written = {name for name in told["metrics"] if name.startswith("generation.")}
    asked = {"token_f1", "normalised_match", "length", "length_ratio"}
    assert written == {f"generation.{name}" for name in asked | {"empty", "unfinished", "no_room", "repetition"}}
    assert told["metrics"]["generation.length"].keys() == {"value", "low", "high", "count", "signature"}
    for wrong, word in (
        (("--metrics", "accuracy"), "accuracy"),
        (("--metrics", "rogue"), "no metric of ours"),
        (("--metrics", "bertscore"), "needs an encoder"),
        (("--metrics", "rouge", "--no-generation"), "none are asked for"),
    ):
        assert is_one_error(mingshi("eval", place.run, place.rows, *wrong), 2, [word])
