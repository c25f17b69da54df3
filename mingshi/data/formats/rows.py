"""Files as rows, each with its line, and the words in which a bad row is described.

A row that cannot be used becomes a `Reject` with its line and the rest of the file goes on. A file that cannot be read
at all (another encoding, a broken array, no rows) is a `DataError`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mingshi.data.formats.array_text import BrokenArray, elements
from mingshi.errors import DataError, Problem
from mingshi.types import Reject

if TYPE_CHECKING:
    from _csv import Reader as CsvReader  # the type has no public name in 3.11

LONGEST_LINE = 64 << 20  # bytes: one longer line is a damaged file, and would be held in memory whole
HEAD = 1 << 16  # bytes looked at to tell the encoding
_NOT_FINITE = re.compile(r"-?(NaN|Infinity)")


class BadRow(Exception):
    """A row that cannot be used: a short code for the ledger, and a sentence for a person."""

    def __init__(self, reason: str, what: str, *, mend: str = "", field: str = ""):
        Exception.__init__(self, what)
        self.reason = reason
        head = f"{field}: " if field else ""
        self.detail = f"{head}{what}. {mend}".strip()

    def reject(self, source: str, line: int) -> Reject:
        """The same as a value, with its place."""
        return Reject(source=source, line=line, reason=self.reason, detail=self.detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one line says, not yet understood."""

    source: str  # the file, as the recipe names it
    line: int  # 1-based; in Parquet and in memory, the row
    fields: Mapping[str, Any]


Raw = Row | Reject


def file_rows(name: str) -> Iterator[Raw]:
    """Every row of a file, in order; blank lines are not rows. No file is held in memory whole."""
    path = Path(name)
    reader = _reader(path, name)
    try:
        _check_encoding(path, name)
        empty = True
        for row in reader(path, name):
            empty = False
            yield row
    except OSError as error:
        raise _file_error(name, f"cannot be read ({error.strerror or error})") from error
    if empty:
        raise _file_error(name, "holds no rows", "Give it at least one row, or take it out of `data`.")


def row_count(name: str) -> int | None:
    """How many rows a file seems to hold, for a progress bar; None where only reading them all would tell."""
    path = Path(name)
    kind = path.suffix.lower()
    if kind == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            with pyarrow.parquet.ParquetFile(path) as table:
                return int(table.metadata.num_rows)
        except (pyarrow.ArrowException, OSError):
            return None  # reading it says what is wrong
    if kind not in (".jsonl", ".txt"):
        return None
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(partial(file.read, HEAD), b""))


def _reader(path: Path, name: str) -> Callable[[Path, str], Iterator[Raw]]:
    if not path.exists():
        raise _file_error(name, "no such file", "Check the path; it is looked up from the current folder.")
    if path.is_dir():
        return _folder_reader(path, name)
    if not path.is_file():
        raise _file_error(name, "is not a file", "Name the files in it one by one.")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise _file_error(
            name, f"cannot tell what a {path.suffix or 'nameless'} file holds", f"Use {', '.join(READERS)}."
        )
    return reader


def _folder_reader(path: Path, name: str) -> Callable[[Path, str], Iterator[Raw]]:
    """Pictures with their captions: what a folder as a whole can be."""
    from mingshi.data.formats.folder import described_by, folder_rows, holds_pictures

    if not holds_pictures(path):
        raise _file_error(name, "is not a file", "Name the files in it one by one.")
    said = described_by(path)
    return folder_rows if said is None else lambda folder, name: READERS[said.suffix](said, name)


def _file_error(name: str, what: str, mend: str = "", line: int | None = None) -> DataError:
    return DataError(Problem(file=name, line=line, what=what, mend=mend))


# Encodings


def _check_encoding(path: Path, name: str) -> None:
    """Refuse a file that is plainly not UTF-8, once, rather than each of its lines."""
    if path.suffix.lower() == ".parquet" or path.is_dir():
        return
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or head.count(0) > len(head) // 4:
        raise _file_error(name, "is UTF-16, not UTF-8", f"Convert it: iconv -f UTF-16 -t UTF-8 {name} > new.")
    if not head.isascii() and not _is_utf8(head) and _is_gbk(head):
        raise _file_error(name, "is GBK (GB18030), not UTF-8", f"Convert it: iconv -f GB18030 -t UTF-8 {name} > new.")


def _is_utf8(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and len(head) == HEAD  # a character cut by the end of the head
    return True


def _is_gbk(head: bytes) -> bool:
    """Whether it reads as common Chinese: other bytes read as GB18030 give characters outside GB 2312."""
    try:
        text = head[: len(head) - len(head) % 2].decode("gb18030")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("gb18030")
    foreign = [character for character in text if not character.isascii()]
    common = "".join(foreign).encode("gb2312", "ignore")
    return len(foreign) >= 2 and len(common) / 2 >= 0.9 * len(foreign)


def _decoded(raw: bytes, offset: int) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place = f"byte {offset + error.start} of the file"
        what = f"not valid UTF-8 at {place} (0x{raw[error.start]:02x})"
        raise BadRow("bad_utf8", what, mend="Save the file as UTF-8.") from error


# Lines


def _lines(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number, byte offset and bytes of each line; a line over `LONGEST_LINE` comes cut, one byte over."""
    offset = 0
    with path.open("rb") as file:
        if file.read(3) == b"\xef\xbb\xbf":
            offset = 3
        file.seek(offset)
        number = 0
        while raw := file.readline(LONGEST_LINE + 1):
            number += 1
            yield number, offset, raw
            offset += len(raw)
            while len(raw) > LONGEST_LINE and not raw.endswith(b"\n"):
                raw = file.readline(LONGEST_LINE + 1)
                offset += len(raw)


def _line_rows(path: Path, name: str, parse: Callable[[str], Mapping[str, Any]]) -> Iterator[Raw]:
    for number, offset, raw in _lines(path):
        if raw.isspace():
            continue
        try:
            if len(raw) > LONGEST_LINE:
                what = f"the line is over {LONGEST_LINE >> 20} MiB long"
                raise BadRow("too_long_line", what, mend="Write one row on each line.")
            yield Row(source=name, line=number, fields=parse(_decoded(raw, offset)))
        except BadRow as bad:
            yield bad.reject(name, number)


def _text_rows(path: Path, name: str) -> Iterator[Raw]:
    """Each line of a plain text file is a row with a `text`."""
    return _line_rows(path, name, lambda line: {"text": line.rstrip("\r\n")})


# JSON


def _json_rows(path: Path, name: str) -> Iterator[Raw]:
    """One object on each line, or one array of objects: told by the first character, not by the ending."""
    first = next((raw for _, _, raw in _lines(path) if not raw.isspace()), b"").strip()[:2]
    if first.startswith(b"["):
        yield from _array_rows(path, name)
    elif first == b"{":
        mend = f"Write a list of rows, [...], or one row on each line: jq -c . {name} > new.jsonl."
        raise _file_error(name, "holds a JSON object spread over several lines", mend, line=1)
    else:
        yield from _line_rows(path, name, _json_object)


def _json_object(text: str, place: str = "column {}") -> Mapping[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        where = place.format(error.pos + 1)
        if _NOT_FINITE.match(text, error.pos):
            raise BadRow(
                "not_finite", f"NaN or Infinity at {where} is not JSON", mend="Write a value or null."
            ) from error
        raise BadRow("bad_json", f"invalid JSON at {where}: {error.msg}") from error
    if not isinstance(value, dict):
        raise BadRow("not_an_object", "the row is not an object", mend='Write it as {"field": value, …}.')
    return value


def _array_rows(path: Path, name: str) -> Iterator[Raw]:
    """The elements of one array, each named by the line on which it starts."""
    with path.open("rb") as file:
        try:
            for line, text in elements(file):
                try:
                    yield Row(source=name, line=line, fields=_json_object(text, "character {} of the row"))
                except BadRow as bad:
                    yield bad.reject(name, line)
        except BrokenArray as broken:
            raise _file_error(name, broken.what, broken.mend, line=broken.line) from broken


# Tables


def _table_rows(path: Path, name: str, *, delimiter: str) -> Iterator[Raw]:
    """Rows of a CSV or TSV file whose first line names the columns; quoted cells may hold line breaks."""
    csv.field_size_limit(LONGEST_LINE)  # the module's own limit is 128 KiB a cell
    broken: dict[int, BadRow] = {}
    records = _records(csv.reader(_csv_lines(path, broken), delimiter=delimiter, strict=True), broken)
    header: list[str] | None = None
    for line, cells in records:
        if isinstance(cells, BadRow):
            if header is None:
                raise _file_error(name, cells.detail, line=line)
            yield cells.reject(name, line)
        elif header is None:
            header = _header(cells, name, line)
        elif len(cells) != len(header):
            what = f"{len(cells)} cells under {len(header)} columns"
            mend = "Quote cells that hold the separator, quotes or line breaks."
            yield BadRow("wrong_cells", what, mend=mend).reject(name, line)
        else:
            yield Row(source=name, line=line, fields=dict(zip(header, cells, strict=True)))


def _records(reader: CsvReader, broken: dict[int, BadRow]) -> Iterator[tuple[int, list[str] | BadRow]]:
    """The first line of each record that is not blank, and its cells or what is wrong with it."""
    while True:
        line = reader.line_num + 1
        cells: list[str] | BadRow
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            cells = BadRow("bad_csv", f"not a table row ({error})", mend='Double the quotes inside a cell: "".')
        for number in range(line, reader.line_num + 1):
            cells = broken.pop(number, cells)
        if cells:
            yield line, cells


def _csv_lines(path: Path, broken: dict[int, BadRow]) -> Iterator[str]:
    for number, offset, raw in _lines(path):
        try:
            yield _decoded(raw, offset)
        except BadRow as bad:
            broken[number] = bad
            yield raw.decode(errors="replace")


def _header(cells: list[str], name: str, line: int) -> list[str]:
    header = [cell.strip() for cell in cells]
    twice = sorted({cell for cell in header if header.count(cell) > 1})
    if twice:
        raise _file_error(name, f"two columns are named {twice[0][:40]!r}", "Give each its own name.", line=line)
    return header


def _parquet_rows(path: Path, name: str) -> Iterator[Raw]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=256):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(source=name, line=number, fields=fields)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise _file_error(name, "is not a Parquet file, or is damaged", "Write or download it again.") from error


READERS: Mapping[str, Callable[[Path, str], Iterator[Raw]]] = {
    ".jsonl": _json_rows,
    ".json": _json_rows,
    ".csv": partial(_table_rows, delimiter=","),
    ".tsv": partial(_table_rows, delimiter="\t"),
    ".parquet": _parquet_rows,
    ".txt": _text_rows,
}
