"""A new file of rows with its lineage beside it: both are there, or neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson


def lineage_of(output: Path) -> Path:
    return output.with_name(f"{output.stem}.lineage.json")


def write_rows(
    output: Path, rows: Iterable[Mapping[str, Any]], lineage: Callable[[int], Mapping[str, Any]]
) -> Mapping[str, Any]:
    """Write rows as JSON lines, and beside them what `lineage` says once they are counted, which is returned.

    Nothing of an earlier file is touched before all is written; what `rows` or `lineage` raises leaves it as it was.
    """
    draft = output.with_name(f".{output.name}-{os.getpid()}")
    count = 0
    try:
        with draft.open("wb") as file:
            for fields in rows:
                file.write(orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE))
                count += 1
            file.flush()
            os.fsync(file.fileno())
        told = lineage(count)
        lineage_of(output).write_bytes(orjson.dumps(told, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS))
        os.replace(draft, output)
    finally:
        draft.unlink(missing_ok=True)
    return told
