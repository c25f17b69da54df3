"""Texts with their labels: one class, several classes, or a number."""

from __future__ import annotations

import math
from typing import Any

from mingshi.data.formats.fields import Format, Layout, given, origin, text, word
from mingshi.data.formats.rows import BadRow, Row
from mingshi.types import Labelled

ROW_WEIGHT = "row_weight"


def read_labelled(row: Row) -> Labelled:
    """A row with `text` and `label`, and, where some rows are to count for more than others, a `row_weight`.

    Text, whole numbers and booleans name a class; a number with a point is a number; a list names several classes, or
    none. What a table holds is always text.
    """
    content = text(row.fields["text"], "text")
    if not content.strip():
        raise BadRow("empty_text", "an empty text", mend="Take the row out.", field="text")
    label, weight = _label(row.fields["label"]), _weight(given(row, ROW_WEIGHT))
    return Labelled(**origin(row, [content]), content=content, label=label, weight=weight)


def _weight(value: Any) -> float:
    """How much a row counts; a table holds it as text."""
    if value is None:
        return 1.0
    try:
        weight = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        mend = "Write a number, or take the row out."
        raise BadRow("wrong_weight", "not a number above 0", mend=mend, field=ROW_WEIGHT)
    return weight


def _label(value: Any) -> str | float | tuple[str, ...]:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise BadRow("not_finite", "NaN or infinite", mend="Write a number.", field="label")
        return value
    if isinstance(value, list | tuple):
        return tuple(_name(item, f"label[{index}]") for index, item in enumerate(value))
    return _name(value, "label")


def _name(value: Any, field: str) -> str:
    name = str(value).lower() if isinstance(value, bool) else word(value, field).strip()
    if not name:
        raise BadRow("empty_answer", "an empty label", mend="Write the class, or take the row out.", field=field)
    return name


FORMAT: Format = (Layout(needs=("text", "label"), may=(ROW_WEIGHT,), read=read_labelled),)
