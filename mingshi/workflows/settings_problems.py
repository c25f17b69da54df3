"""What pydantic finds wrong with a file of settings, as problems with their line, field and mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from mingshi.errors import Problem
from mingshi.yaml_text import line_of

Parts = Mapping[str, Sequence[type[BaseModel]]]  # by top-level key, what its settings may be


def problem_of(detail: Mapping[str, Any], values: Any, file: str, whole: type[BaseModel], parts: Parts) -> Problem:
    """`detail` is one of `ValidationError.errors()`, `values` what the file said, `whole` what it should be."""
    place = list(_place(detail, values))
    what, mend = str(detail["msg"]).removeprefix("Value error, "), ""
    field = ".".join(map(str, place))
    if detail["type"] == "extra_forbidden":
        kinds = parts.get(str(place[0]), (whole,)) if len(place) > 1 else (whole,)
        known = [name for kind in kinds for name in kind.model_fields]
        close = difflib.get_close_matches(str(place[-1]), known, n=1, cutoff=0.5)
        what = f"unknown key {str(place[-1])!r}"
        mend = f"Did you mean {close[0]!r}?" if close else ""
    elif detail["type"] == "missing":
        what, mend = "is missing", f"Add `{place[-1]}: …`."
    elif detail["type"] == "union_tag_invalid":
        what = f"there is no kind {detail['ctx']['tag']!r}"
        mend = f"Known are {detail['ctx']['expected_tags']}."
    elif detail["type"] == "value_error":
        what, _, mend = what.partition(". ")
        if not field:
            field, _, what = what.partition(": ")
    return Problem(file=file, line=line_of(values, place), field=field, what=what, mend=mend)


def _place(detail: Mapping[str, Any], values: Any) -> Iterator[Any]:
    """The keys as the file has them: pydantic's place also names the branch of a union."""
    node, last = values, len(detail["loc"]) - 1
    for number, key in enumerate(detail["loc"]):
        listed = isinstance(node, Sequence) and isinstance(key, int) and key < len(node)
        if listed or (isinstance(node, Mapping) and key in node):
            node = node[key]
        elif number < last or detail["type"] != "missing":
            continue
        yield key
