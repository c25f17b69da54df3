"""What pictures and texts found of each other, as plain values for a run's page: queries, and how near rows are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from mingshi.record import Run
from mingshi.report.curves import Figure
from mingshi.report.numbers import figure
from mingshi.report.summary import Record, number, several
from mingshi.report.words import plain, word

QUERIES_AT_MOST = 12
FOUND_AT_MOST = 5
ROWS_AT_MOST = 24  # of the map
LEVELS = 8  # of colour
CELL = 18  # pixels

ADDRESS = re.compile(r"data:image/jpeg;base64,[A-Za-z0-9+/]+=*\Z")


def pictured(run: Run) -> dict[str, Any] | None:
    """The section's parts, of what was measured last; None for a run without pictures."""
    written = [entry for entry in run.evals if any("direction" in one for one in several(entry.get("samples")))]
    for data in ("validation", "test"):
        written = [entry for entry in written if entry.get("data") == data] or written
    if not written:
        return None
    samples = several(written[-1]["samples"])
    asked = [_query(one) for one in samples if "direction" in one]
    return {
        "queries": [one for one in asked if one["found"]][:QUERIES_AT_MOST],
        "map": next((_map(one) for one in samples if "similarity" in one and "texts" in one), None),
    }


def _query(sample: Record) -> dict[str, Any]:
    """One query and the nearest that it found, each with its place and whether it is the query's own."""
    by_picture = sample.get("direction") == "image_to_text"
    found = [
        {
            "image": address(one.get("image")),
            "text": str(one.get("text") or ""),
            "near": figure(number(one.get("similarity")), 2),
            "right": one.get("right") is True,
        }
        for one in several(sample.get("found"))[:FOUND_AT_MOST]
    ]
    said = sample.get("own" if by_picture else "text")
    image = address(sample.get("image")) if by_picture else ""
    return {"by_picture": by_picture, "image": image, "text": str(said or ""), "found": found}


def address(value: object) -> str:
    """A picture that lies in the record itself; nothing else is ever shown as one."""
    return value if isinstance(value, str) and ADDRESS.match(value) else ""


def _map(sample: Record) -> Figure | None:
    """Similarities of pictures (rows) and texts (columns): the own pairs lie on the diagonal."""
    texts: Sequence[Any] = sample["texts"] if isinstance(sample["texts"], list) else []
    names = [str(text) for text in texts[:ROWS_AT_MOST]]
    rows = sample["similarity"] if isinstance(sample["similarity"], list) else []
    near = [[number(one) for one in row[: len(names)]] for row in rows[: len(names)] if isinstance(row, list)]
    if not names or [len(row) for row in near] != [len(names)] * len(names) or not np.isfinite(near).all():
        return None
    near_KK = np.array(near)
    low, high = float(near_KK.min()), float(near_KK.max())
    level_KK = np.ceil(LEVELS * (near_KK - low) / max(high - low, 1e-9)).astype(int)
    parts = []
    for row in range(len(names)):
        middle = 20 + CELL * row + CELL / 2 + 4
        parts.append(_TEXT.format(30, middle, "end", row + 1))
        parts.append(_TEXT.format(36 + CELL * row + CELL / 2, 13, "middle", row + 1))
        for column in range(len(names)):
            style = f"{'hit' if row == column else 'miss'} heat{level_KK[row, column]}"
            parts.append(_CELL.format(style, 36 + CELL * column, 20 + CELL * row, CELL - 1, CELL - 1))
    numbered = [plain(f"{place} {name}", 40) for place, name in enumerate(names, 1)]
    return Figure(
        title=word("pictured.map"),
        drawing=_DRAWING.format(40 + CELL * len(names), 24 + CELL * len(names), Markup("").join(parts)),
        legend=[("hit", word("pictured.own")), ("miss", word("pictured.others"))],
        notes=[word("pictured.scale", low=figure(low, 2), high=figure(high, 2))],
        columns=[word("pictured.picture"), *numbered],
        rows=[
            [name.en, *(figure(float(one), 2) for one in near_K)]
            for name, near_K in zip(numbered, near_KK, strict=True)
        ],
    )


_CELL = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')
_DRAWING = Markup('<div class="kept"><svg class="matrix" width="{}" height="{}" aria-hidden="true">{}</svg></div>')
_TEXT = Markup('<text class="small" x="{:g}" y="{:g}" text-anchor="{}">{}</text>')
