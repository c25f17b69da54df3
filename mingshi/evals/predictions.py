"""Rows of predictions that exist already: what was predicted, and what it should have been."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from mingshi.data.formats import fields
from mingshi.data.formats.rows import BadRow, Row, file_rows
from mingshi.errors import DataError, Problem
from mingshi.types import Reject

Need = Literal["reference", "label"]

COLUMNS = ("prediction", "reference", "label", "id", "group")
PROBABILITIES = "probabilities"  # in a row of `mingshi predict` with a classifier, whose reference is a label
LISTED = 20  # problems named in one error


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One row; a text and its references, or a class and the true one, or both."""

    line: int
    prediction: str
    references: tuple[str, ...]
    label: str | None
    id: str | None
    group: str | None  # rows of one group are resampled together
    classified: bool  # by a classifier


def read_items(path: str, *, columns: Mapping[str, str] | None = None, needs: Collection[Need] = ()) -> Iterator[Any]:
    """An `Item` or a `Reject` for every row in order; `columns` gives our name of a field and the file's own.

    Where a label is needed, a single reference is one. Raises DataError for a file that cannot be read at all.
    """
    ours = {theirs: name for name, theirs in (columns or {}).items()}
    for row in file_rows(path):
        if isinstance(row, Reject):
            yield row
            continue
        try:
            kept = {name: value for name, value in row.fields.items() if name not in (columns or {}) or name in ours}
            renamed = {ours.get(name, name): value for name, value in kept.items()}
            yield _item(Row(source=row.source, line=row.line, fields=renamed), needs)
        except BadRow as bad:
            yield bad.reject(row.source, row.line)


def require_good(rejects: list[Reject], bad: int, total: int, path: str) -> None:
    """DataError that names the first bad rows and how many there are, if there are any."""
    if not bad:
        return
    problems = []
    for each in rejects:
        what, stop, mend = each.detail.partition(". ")
        problem = Problem(file=each.source, line=each.line, what=what if stop else each.detail, mend=mend)
        problems.append(problem)
    mend = "Mend them, or go on without them: --on-bad-row skip."
    raise DataError([*problems, Problem(file=path, what=f"{bad} of {total} rows cannot be used", mend=mend)])


def _item(row: Row, needs: Collection[Need]) -> Item:
    names = fields.present(row.fields)
    if "prediction" not in names:
        raise _missing("prediction", names, 'Write "" where the model said nothing.')
    references = _references(row)
    label = _named(row, "label")
    classified = PROBABILITIES in names
    if label is None and len(references) == 1 and ("label" in needs or classified):
        label = references[0]
    if "label" in needs and label is None:
        raise _missing("label", names, "Give the true class of the row.")
    if not references and (label is None or "reference" in needs):
        raise _missing("reference", names, "Give a text or a list of texts, or a `label`.")
    return Item(
        line=row.line,
        prediction=_word(row.fields["prediction"], "prediction"),
        references=references,
        label=label,
        id=_named(row, "id"),
        group=_named(row, "group"),
        classified=classified,
    )


def _references(row: Row) -> tuple[str, ...]:
    value = row.fields.get("reference")
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        return (_word(value, "reference"),)
    if not value:
        raise BadRow("empty_list", "the list is empty", mend="Give at least one text.", field="reference")
    return tuple(_word(each, "reference") for each in value)


def _named(row: Row, name: str) -> str | None:
    value = fields.given(row, name)
    return None if value is None else _word(value, name)


def _word(value: Any, name: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return fields.word(value, name)


def _missing(name: str, names: Collection[str], mend: str) -> BadRow:
    strangers = sorted(set(names).difference(COLUMNS))
    near = next((each for each in strangers if fields.nearest(each, [name])), None)
    if near is not None:
        mend = f"Rename {near[:30]!r} to {name!r}, or say --column {name}={near[:30]}."
    return BadRow("missing_field", f"no {name!r}", mend=mend)
