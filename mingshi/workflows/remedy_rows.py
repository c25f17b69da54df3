"""Files of labelled rows as remedies see them: the fields of each row, and what was understood of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mingshi.checks.bias_mentions import NAME as MENTIONS
from mingshi.data.formats import DataSource, read
from mingshi.data.formats.rows import Row, file_rows, row_count
from mingshi.display import Display
from mingshi.errors import DataError, Problem
from mingshi.remedies.weights import Cell
from mingshi.types import Labelled, Reject
from mingshi.workflows.rows_written import lineage_of

MADE_FROM = "made_from"  # the field of a new row that says which line it was made from, and how


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """How a file names what is needed."""

    text: str = "text"
    label: str = "label"
    protected: str | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """A file's rows, in their order."""

    examples: list[Labelled]
    fields: list[Mapping[str, Any]]  # of each, as the file has them
    unreadable: list[int]  # lines


def read_labelled_rows(path: Path, names: Fields, display: Display) -> Rows:
    """Held in memory whole. DataError where no row is a text with a label."""
    columns = {ours: theirs for ours, theirs in (("text", names.text), ("label", names.label)) if ours != theirs}
    attributes = () if names.protected is None else (names.protected,)
    source = DataSource(path=str(path), format="labelled", columns=columns, attributes=attributes, on_bad_row="skip")
    rows = Rows([], [], [])
    first: Reject | None = None
    both = zip(file_rows(str(path)), read(source), strict=True)
    for raw, example in display.track(both, row_count(str(path)), "read"):
        if isinstance(raw, Row) and isinstance(example, Labelled):
            rows.examples.append(example)
            rows.fields.append(raw.fields)
        else:
            first = first or (example if isinstance(example, Reject) else None)
            rows.unreadable.append(raw.line)
    if not rows.examples:
        why = f" ({first.detail.partition('. ')[0]})" if first else ""
        what, mend = f"no row is a text with a label{why}", "Name the fields: --text-field NAME, --label-field NAME."
        raise DataError(Problem(file=str(path), what=what, mend=mend))
    if names.protected not in (None, MENTIONS) and not any(names.protected in one.attributes for one in rows.examples):
        what, mend = "is in no row", "Name a field that the rows have, or one of their `attributes`."
        raise DataError(Problem(file=str(path), field=names.protected, what=what, mend=mend))
    return rows


def texts_of(paths: Sequence[Path], name: str) -> Iterator[str]:
    """The texts of files that nothing new may repeat; DataError where a file has none."""
    for path in paths:
        found = False
        for row in file_rows(str(path)):
            text = row.fields.get(name) if isinstance(row, Row) else None
            if isinstance(text, str):
                found = True
                yield text
        if not found:
            what = "no row has such a text"
            raise DataError(Problem(file=str(path), field=name, what=what, mend="Name its field: --text-field NAME."))


def made_row(
    fields: Mapping[str, Any], example: Labelled, *, line: int, by: str, changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A new row: the fields of the old one but for what changed, its group, and where it came from."""
    named = {"id": example.id} if fields.get("id") not in (None, "") else {}
    return {**fields, **(changes or {}), **named, "group": example.group, MADE_FROM: {"line": line, "by": by}}


def classes_told(before: Mapping[Cell, int], after: Mapping[Cell, int], *, grouped: bool) -> list[dict[str, Any]]:
    """Rows of each class before and after; of each group too, where there are any."""
    return [
        ({"group": group} if grouped else {})
        | {"label": label, "before": before.get((group, label), 0), "after": after.get((group, label), 0)}
        for group, label in sorted(before.keys() | after.keys())
    ]


def output_problems(output: Path, data: Path) -> list[Problem]:
    """What speaks against writing there, before any row is read."""
    what = ""
    if output.suffix != ".jsonl":
        return [Problem(file=str(output), what="rows are written as JSON lines", mend="Name it .jsonl.")]
    if not output.absolute().parent.is_dir():
        what = "its folder is not there"
    elif not os.access(output.absolute().parent, os.W_OK):
        what = "cannot be written to"
    elif output.exists() and data.exists() and output.samefile(data):
        what = "is the file of the rows"
    elif output.exists() and not lineage_of(output).is_file():
        what = "is there already, and no lineage beside it says that it was made so"
    return [Problem(file=str(output), what=what, mend="Choose another --output.")] if what else []
