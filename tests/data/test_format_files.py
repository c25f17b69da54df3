"""Files of rows: which are read, which are refused, and that no row of a damaged one goes missing."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mingshi.data import formats
from mingshi.data.encode import Encoded, encode
from mingshi.data.formats import DataSource, detect, read, rows
from mingshi.errors import DataError
from mingshi.types import Example, Reject, Sample

FIXTURES = Path(__file__).parent / "fixtures"
GOOD = {"instruction": "Name a colour.", "output": "Blue."}


class Words:
    """An objective that takes every row: a token for each character."""

    kind = "any"
    accepts = (Example,)

    def encode(self, example: Example, model: Any) -> Sample:
        tokens = np.arange(len(example.id), dtype=np.int32)
        none = np.zeros(0, dtype=np.int32)
        segments = np.array([[0, len(tokens), -1]], dtype=np.int32)
        return Sample(
            tokens=tokens, segments=segments, source=none, target=none, weight=none.astype(np.float32), sequence=none
        )


def encoded(path: Path) -> Encoded:
    source = DataSource(path=str(path), on_bad_row="skip")
    return encode(read(source), objective=Words(), model=None, key="k")


LINE = json.dumps(GOOD).encode()
CORPORA: dict[str, tuple[str, bytes, int, dict[str, list[int]]]] = {
    "broken JSON": ("a.jsonl", b"\n".join([LINE, b'{"instruction": "q"', LINE]), 3, {"bad_json": [2]}),
    "a trailing comma": ("a.jsonl", b"\n".join([LINE, LINE[:-1] + b",}"]), 2, {"bad_json": [2]}),
    "invalid UTF-8": (
        "a.jsonl",
        b"\n".join([LINE, b'{"instruction": "caf\xe9", "output": "x"}']),
        2,
        {"bad_utf8": [2]},
    ),
    "byte order mark and blank lines": ("a.jsonl", b"\xef\xbb\xbf\n" + LINE + b"\n\r\n \n" + LINE + b"\r\n", 2, {}),
    "rows that are no objects": (
        "a.jsonl",
        b"\n".join([LINE, b"3", b'"text"', b"null"]),
        4,
        {"not_an_object": [2, 3, 4]},
    ),
    "NaN in lines": ("a.jsonl", LINE + b'\n{"instruction": NaN, "output": "x"}', 2, {"not_finite": [2]}),
    "lone surrogates": ("a.jsonl", LINE + b'\n{"instruction": "\\ud800", "output": "x"}', 2, {"bad_json": [2]}),
    "deep nesting": ("a.jsonl", LINE + b'\n{"instruction": ' + b"[" * 5000 + b"]" * 5000 + b"}", 2, {"bad_json": [2]}),
    "columns that change": (
        "a.jsonl",
        LINE + b'\n{"question": "q", "answer": "a"}\n{"foo": 1}',
        3,
        {"missing_field": [3]},
    ),
    "wrong types": ("a.jsonl", LINE + b'\n{"instruction": [1], "output": {"a": 2}}', 2, {"wrong_type": [2]}),
    "lines in .json": ("a.json", LINE + b"\n" + LINE, 2, {}),
    "an array in .jsonl": ("a.jsonl", b"[" + LINE + b",\n" + LINE + b"]", 2, {}),
    "an array with bad elements": (
        "a.json",
        b"[\n  " + LINE + b',\n\n  3,\n  {\n    "instruction": NaN\n  },\n ' + LINE + b"\n]\n",
        4,
        {"not_an_object": [4], "not_finite": [5]},
    ),
    "ragged CSV": ("a.csv", b"text,label\na,b\nc\nd,e,f\n\ng,h\n", 4, {"wrong_cells": [3, 4]}),
    "stray quotes in CSV": ("a.csv", b'text,label\n"a"b,c\n"x\ny",z\n', 2, {"bad_csv": [2]}),
    "invalid UTF-8 in CSV": ("a.csv", b"text,label\ncaf\xe9,x\nb,y\n", 2, {"bad_utf8": [2]}),
    "invalid UTF-8 in text": ("a.txt", b"one\ntw\xff\nthree\n", 3, {"bad_utf8": [2]}),
    "empty cells in TSV": ("a.tsv", b"text\tlabel\na\t\n\tb\nc\td\n", 3, {"empty_answer": [2], "empty_text": [3]}),
}


@pytest.mark.parametrize("case", CORPORA)
def test_every_row_of_a_malformed_file_is_used_or_rejected_by_reason(case: str, tmp_path: Path) -> None:
    name, content, count, reasons = CORPORA[case]
    path = tmp_path / name
    path.write_bytes(content)
    ledger = encoded(path).ledger()
    account = ledger["sources"][str(path)]
    assert {reason: told["lines"] for reason, told in account["rejected"].items()} == reasons
    assert ledger["rows"] == count == ledger["used"] + sum(ledger["rejected"].values())
    assert (account["rows"], account["used"]) == (ledger["rows"], ledger["used"])


def test_a_byte_that_is_not_utf8_is_found_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    content = b"\xef\xbb\xbf" + LINE + b'\n{"instruction": "caf\xe9", "output": "x"}'
    path.write_bytes(content)
    reject = list(read(DataSource(path=str(path), on_bad_row="skip")))[1]
    assert isinstance(reject, Reject) and f"byte {content.index(0xE9)} of the file (0xe9)" in reject.detail


def test_a_line_that_is_too_long_is_rejected_and_the_next_one_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 1000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINE + b"\n" + b"x" * 5000 + b"\n" + LINE)
    outcomes = list(read(DataSource(path=str(path), on_bad_row="skip")))
    assert [getattr(outcome, "reason", "read") for outcome in outcomes] == ["read", "too_long_line", "read"]
    assert [outcome.line for outcome in outcomes] == [1, 2, 3]


CHINESE = json.dumps({"instruction": "请介绍一下自己。", "output": "我是一个语言模型。"}, ensure_ascii=False)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\n \n", "holds no rows"),
        ("a.json", b"[]", "holds no rows"),
        ("a.csv", b"text,label\n", "holds no rows"),
        ("a.jsonl", CHINESE.encode("gbk"), "is GBK"),
        ("a.csv", f"text,label\n{'春眠不觉晓' * 20000},x".encode("gb18030"), "is GBK"),
        ("a.jsonl", CHINESE.encode("utf-16"), "is UTF-16"),
        ("a.jsonl", LINE.decode().encode("utf-16-be"), "is UTF-16"),
        ("a.json", b"[" + LINE + b", {", "broken in the row that starts at column"),
        ("a.json", b"[" + LINE + b" " + LINE + b"]", "neither a comma"),
        ("a.json", b"[" + LINE + b",]", "broken"),
        ("a.json", b"[" + LINE + b"] x", "text after the array's end"),
        ("a.json", b'[{"a": "\xff"}]', "byte 8 of the file"),
        ("a.json", b'{\n "a": 1\n}', "several lines"),
        ("a.csv", b"text,text\na,b\n", "two columns are named 'text'"),
        ("a.parquet", b"PAR1 no", "not a Parquet file"),
        ("a.xlsx", b"x", "cannot tell what a .xlsx file holds"),
        ("a.jsonl", b'{"intruction": "a", "outptu": "b"}', "instruction: intruction, output: outptu"),
        ("a.jsonl", b"{}", "no format has these columns: none"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_a_mend(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for reading in (lambda: detect(str(path)), lambda: list(read(DataSource(path=str(path), on_bad_row="skip")))):
        with pytest.raises(DataError) as caught:
            reading()
        assert says in str(caught.value) and str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.jsonl", "no such file"), (tmp_path, "is not a file")):
        with pytest.raises(DataError, match=says):
            list(read(DataSource(path=str(path))))


def test_latin_and_damaged_utf8_files_are_not_taken_for_chinese() -> None:
    assert not rows._is_gbk("Café, naïve, über, señor".encode("latin-1"))
    assert not rows._is_gbk(CHINESE.encode()[:-1] + b"\xff")
    assert rows._is_gbk(CHINESE.encode("gb18030"))


def test_detection_says_what_it_saw_and_what_it_will_not_use(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({**GOOD, "topic": "x"}) for _ in range(30)))
    assert detect(str(path)) == (
        "instruct",
        f"{path} is read as instruct: 20 of the first 20 rows have instruction and output; not used: topic.",
    )


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("w") as file:
        for number in range(4000):
            file.write(json.dumps({"instruction": f"{number} " + "x" * 2000, "output": "y"}) + "\n")
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(DataSource(path=str(path)))) == 4000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 4


def test_importing_the_formats_imports_neither_torch_nor_arrow() -> None:
    code = "import sys, mingshi.data.formats; sys.exit(bool({'torch', 'transformers', 'pyarrow'} & set(sys.modules)))"
    root = Path(formats.__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
