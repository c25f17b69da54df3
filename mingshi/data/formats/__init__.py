"""Rows of files and of memory, read as Examples.

`FORMATS` is the table of what can be read. A new format is a module with a `FORMAT` (see `fields.Layout`) and a line
here; where the format is "auto", the first one in the table that understands the first rows is taken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from itertools import chain, islice
from typing import Any, Literal

from pydantic import Field, field_validator

from mingshi.data.formats import answers, captions, chat, choices, constrained, instruct, labelled, preference
from mingshi.data.formats.fields import COMMON, Format, layout, nearest, present
from mingshi.data.formats.rows import BadRow, Raw, Row, file_rows
from mingshi.errors import DataError, Problem
from mingshi.types import Example, Reject, Settings

__all__ = ["FORMATS", "DataSource", "FormatName", "detect", "read", "read_rows"]

FormatName = Literal[
    "auto", "answers", "captions", "chat", "choices", "constrained", "instruct", "labelled", "preference"
]

FORMATS: Mapping[str, Format] = {
    "choices": choices.FORMAT,  # the first: its rows have all that a question with one answer has
    "preference": preference.FORMAT,
    "answers": answers.FORMAT,
    "chat": chat.FORMAT,
    "captions": captions.FORMAT,  # before labelled: a picture's row may have a text and a label too
    "labelled": labelled.FORMAT,
    "instruct": instruct.FORMAT,
    "constrained": constrained.FORMAT,  # the last: rows that have an answer too are there to be trained on
}

LOOKED_AT = 20  # first rows, to tell the format
LISTED = 20  # problems named in one error


def _known(layouts: Iterable[Format]) -> set[str]:
    return {*COMMON, *(name for form in layouts for each in form for name in (*each.needs, *each.may))}


class DataSource(Settings):
    """A file of rows, and how to read it."""

    path: str
    """A .jsonl, .json, .csv, .tsv, .parquet or .txt file, or a folder of pictures."""
    format: FormatName = "auto"
    """What the rows are; "auto" looks at the first ones."""
    weight: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """How many times each row is seen in an epoch; a fraction draws that share of the rows."""
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many rows."""
    columns: Mapping[str, str] = Field(default_factory=dict)
    """Our field name and the file's own, for files that name theirs otherwise."""
    attributes: tuple[str, ...] = ()
    """Columns that say something about a row, such as whom it speaks of; besides those in its own `attributes`."""
    on_bad_row: Literal["error", "skip"] = "error"
    """Stop at rows that cannot be used, or count them and go on."""

    @field_validator("columns")
    @classmethod
    def _check_columns(cls, columns: Mapping[str, str]) -> Mapping[str, str]:
        known = _known(FORMATS.values())
        for name in columns:
            if name not in known:
                near = nearest(name, known)
                raise ValueError(f"no field is named {name!r}" + (f". Did you mean {near!r}?" if near else ""))
        twice = sorted({theirs for theirs in columns.values() if list(columns.values()).count(theirs) > 1})
        if twice:
            raise ValueError(f"column {twice[0]!r} is given to two fields. A column can fill one.")
        return columns


def read(source: DataSource) -> Iterator[Example | Reject]:
    """The Examples of a file in order, and a Reject for each row that cannot be used.

    With `on_bad_row="error"` no Reject comes out: the file is read to its end, and then DataError names the first 20
    bad rows and how many there are. Either way `rows read = Examples + Rejects`.
    """
    rows = _renamed(islice(file_rows(source.path), source.limit), source.columns)
    rows = _gathered(rows, source.attributes) if source.attributes else rows
    yield from _examples(rows, source.path, form=source.format, on_bad_row=source.on_bad_row)


def read_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    format: FormatName = "auto",
    name: str = "rows",
    columns: Mapping[str, str] | None = None,
    on_bad_row: Literal["error", "skip"] = "error",
) -> Iterator[Example | Reject]:
    """The same for rows in memory; a row's line is its place in the list, from 1, and its source is `name`."""
    raw = _renamed(_numbered(rows, name), columns or {})
    yield from _examples(raw, name, form=format, on_bad_row=on_bad_row)


def detect(path: str, *, columns: Mapping[str, str] | None = None) -> tuple[str, str]:
    """The format of a file and a sentence that says why; DataError where no format knows the columns."""
    head = list(islice(_renamed(file_rows(str(path)), columns or {}), LOOKED_AT))
    return _detected(head, str(path))


# Rows


def _numbered(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Raw]:
    line = 0
    for line, fields in enumerate(rows, start=1):
        if isinstance(fields, Mapping):
            yield Row(source=name, line=line, fields=fields)
        else:
            what = f"the row is a {type(fields).__name__}, not a dictionary"
            yield Reject(source=name, line=line, reason="not_an_object", detail=what)
    if not line:
        raise DataError(Problem(file=name, what="holds no rows", mend="Give it at least one row."))


def _renamed(rows: Iterable[Raw], columns: Mapping[str, str]) -> Iterator[Raw]:
    """Rows under our names. A column that is missing is then reported as the field that it would have been."""
    ours = {theirs: name for name, theirs in columns.items()}
    for row in rows:
        if ours and isinstance(row, Row):
            kept = {name: value for name, value in row.fields.items() if name not in columns or name in ours}
            row = replace(row, fields={ours.get(name, name): value for name, value in kept.items()})
        yield row


def _gathered(rows: Iterable[Raw], names: Sequence[str]) -> Iterator[Raw]:
    """Rows with these columns among their attributes, where they do not say otherwise."""
    for row in rows:
        own = row.fields.get("attributes") if isinstance(row, Row) else ""
        if isinstance(row, Row) and (own is None or isinstance(own, Mapping)):
            found = {name: row.fields[name] for name in names if row.fields.get(name) not in (None, "")}
            row = replace(row, fields={**row.fields, "attributes": {**found, **(own or {})}})
        yield row


def _examples(rows: Iterator[Raw], name: str, *, form: str, on_bad_row: str) -> Iterator[Example | Reject]:
    if form == "auto":
        head = list(islice(rows, LOOKED_AT))
        form, _ = _detected(head, name)
        rows = chain(head, rows)
    understood = _unique(_understood(rows, FORMATS[form]))
    yield from understood if on_bad_row == "skip" else _all_good(understood, name)


def _understood(rows: Iterable[Raw], form: Format) -> Iterator[Example | Reject]:
    for row in rows:
        if isinstance(row, Reject):
            yield row
            continue
        try:
            yield layout(present(row.fields), form).read(row)
        except BadRow as bad:
            yield bad.reject(row.source, row.line)


def _unique(examples: Iterable[Example | Reject]) -> Iterator[Example | Reject]:
    """An id that comes a second time gets its line: ids are kept as 8-byte hashes, the one thing that grows here."""
    seen: set[bytes] = set()
    for example in examples:
        if isinstance(example, Example):
            digest = blake2b(example.id.encode(), digest_size=8).digest()
            if digest in seen:
                example = replace(example, id=f"{example.id}~{example.line}")
            seen.add(digest)
        yield example


def _all_good(examples: Iterable[Example | Reject], name: str) -> Iterator[Example]:
    problems: list[Problem] = []
    bad = total = 0
    for example in examples:
        total += 1
        if isinstance(example, Reject):
            bad += 1
            if len(problems) < LISTED:
                problems.append(_problem(example))
        elif not bad:
            yield example
    if bad:
        mend = "Mend them, or go on without them: `on_bad_row: skip` in a recipe, `--on-bad-row skip` elsewhere."
        raise DataError([*problems, Problem(file=name, what=f"{bad} of {total} rows cannot be used", mend=mend)])


def _problem(reject: Reject) -> Problem:
    what, stop, mend = reject.detail.partition(". ")
    return Problem(file=reject.source, line=reject.line, what=what if stop else reject.detail, mend=mend)


# Detection


def _detected(head: list[Raw], name: str) -> tuple[str, str]:
    rows = [row for row in head if isinstance(row, Row)]
    if not rows:
        raise DataError([_problem(row) for row in head if isinstance(row, Reject)])
    columns = [present(row.fields) for row in rows]
    votes = Counter(match for names in columns if (match := _match(names)))
    if not votes:
        raise _unknown_columns(columns[0], name, rows[0].line)
    form, needs = max(votes, key=lambda match: (votes[match], -list(FORMATS).index(match[0])))
    passed_over = sorted(frozenset().union(*columns) - _known([FORMATS[form]]))
    why = f"{votes[form, needs]} of the first {len(head)} rows have {' and '.join(needs)}"
    unused = f"; not used: {', '.join(passed_over[:8])}" if passed_over else ""
    return form, f"{name} is read as {form}: {why}{unused}."


def _match(names: frozenset[str]) -> tuple[str, tuple[str, ...]] | None:
    pairs = ((name, each.needs) for name, form in FORMATS.items() for each in form)
    return next(((name, needs) for name, needs in pairs if names.issuperset(needs)), None)


def _unknown_columns(names: frozenset[str], name: str, line: int) -> DataError:
    known = _known(FORMATS.values())
    near = [(column, word) for column in sorted(names) if (word := nearest(column, known - names))]
    there = ", ".join(repr(column[:30]) for column in sorted(names)[:8]) or "none"
    hints = ", ".join(f"{word}: {column[:30]}" for column, word in near[:4])
    mend = f"Nearest: say columns: {{{hints}}}." if near else "Say which they are: columns: {our field: their column}."
    what = f"no format has these columns: {there}"
    return DataError(Problem(file=name, line=line, what=what, mend=mend))
