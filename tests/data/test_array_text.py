"""A JSON array is read in pieces, whatever its rows are and wherever the pieces end."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as values

from mingshi.data.formats import array_text as module
from mingshi.data.formats.array_text import BrokenArray, elements
from mingshi.data.formats.rows import Row, file_rows, row_count

ROWS = [{"text": '诗 "[{]}" \\ \n,', "n": -1.5e-7}, 12.5, 1e5, 0, None, True, [], [[{}], 1], {}, "𝄞", -12]
Read = Callable[[bytes, int], list[tuple[int, str]]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """All elements, in blocks of so many bytes."""

    def run(content: bytes, block: int) -> list[tuple[int, str]]:
        monkeypatch.setattr(module, "BLOCK", block)
        return list(elements(io.BytesIO(content)))

    return run


@pytest.mark.parametrize("block", [*range(1, 12), 1 << 20])
@pytest.mark.parametrize("indent", [None, 0, 3])
@pytest.mark.parametrize("head", ["", "\ufeff", " \n\n "])
def test_elements_are_those_of_the_whole_text(block: int, indent: int | None, head: str, read: Read) -> None:
    text = head + json.dumps(ROWS, indent=indent, ensure_ascii=False) + "\n"
    found = read(text.encode(), block)
    assert [json.loads(element) for _, element in found] == ROWS
    lines = text.split("\n")
    assert all(lines[line - 1].lstrip("\ufeff [")[:1] == element[:1] for line, element in found[:1])
    if indent is not None:
        assert all(lines[line - 1].lstrip().startswith(element.split("\n")[0]) for line, element in found)


NUMBERS = values.one_of(values.integers(), values.floats(allow_nan=False, allow_infinity=False))


@given(rows=values.lists(values.one_of(NUMBERS, values.text(max_size=9)), max_size=9), block=values.integers(1, 9))
def test_no_cut_changes_a_number_or_a_text(rows: list[object], block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = list(elements(io.BytesIO(json.dumps(rows).encode())))
    assert [json.loads(element) for _, element in found] == rows


@pytest.mark.parametrize("block", [1, 2, 5, 1 << 20])
@pytest.mark.parametrize(
    ("content", "told", "line"),
    [
        (b'[{"a": 1},\n {"a": }]', "row that starts at column 2 (Expecting value: line 2 column 8)", 2),
        (b'[{"a": 1},\n {"a": 1}', "neither a comma nor the array's end", 2),
        (b'[{"a": 1}\n {"a": 1}]', "neither a comma nor the array's end", 1),
        (b'[{"a": 1},]', "row that starts at column 11 (Expecting value: line 1 column 11)", 1),
        (b'[{"a": 1}]\n\n[', "text after the array's end", 3),
        (b"[", "row that starts at column 2", 1),
        (b'[{"a": "\xff"}]', "not valid UTF-8 at byte 8 of the file (0xff)", None),
        (b'\xef\xbb\xbf[{"a": "\xe8\xaf', "not valid UTF-8 at byte 11 of the file (0xe8)", None),
        (b"[" + b"[" * 100_000, "row that starts at column 2", 1),
    ],
)
def test_what_is_broken_is_told_with_its_place(
    content: bytes, told: str, line: int | None, block: int, read: Read
) -> None:
    if len(content) > 1000 and block < 1000:
        block = 1000
    with pytest.raises(BrokenArray) as caught:
        read(content, block)
    assert told in caught.value.what and caught.value.mend
    assert caught.value.line == line


def test_memory_is_that_of_a_row_not_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "x" * 1000}] * 20_000, indent=1))
    monkeypatch.setattr(module, "BLOCK", 1 << 16)
    tracemalloc.start()
    try:
        assert sum(isinstance(row, Row) for row in file_rows(str(path))) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 2 << 20  # of a file of 20 MB
    finally:
        tracemalloc.stop()


def test_a_broken_array_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST", 1 << 12)
    monkeypatch.setattr(module, "BLOCK", 1 << 10)
    file = io.BytesIO(b'[{"a": 1}, {"b": \x27' + b"x" * (1 << 20))
    with pytest.raises(BrokenArray):
        list(elements(file))
    assert file.tell() < 1 << 14


def test_rows_are_counted_before_they_are_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    lines, table, other = tmp_path / "a.jsonl", tmp_path / "a.parquet", tmp_path / "a.csv"
    lines.write_text('{"text": "a"}\n' * 7)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a"] * 5}), table)
    other.write_text("text\na\n")
    assert [row_count(str(path)) for path in (lines, table, other)] == [7, 5, None]
    table.write_bytes(b"PAR1 no table")
    assert row_count(str(table)) is None
