"""The confusion matrix as a picture and as a table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from mingshi.report.curves import Figure
from mingshi.report.marks import visible_text
from mingshi.report.numbers import figure
from mingshi.report.words import plain, word

GUTTER = 190  # pixels left of the cells, for names
LABEL = 160  # pixels of them that a name has; a wide character takes 12, another one 7
LEVELS = 8  # of colour
WRITTEN = 12  # classes at most for counts to be written into the cells
SIZES = ((WRITTEN, 44), (25, 24), (50, 15))  # classes at most, and pixels of a cell


def matrix_figure(names: Sequence[str], counts_KK: np.ndarray) -> Figure:
    """`counts_KK`: how many of a true class (rows) were taken for each (columns). The table has the same numbers."""
    kinds = len(names)
    size = next((pixels for most, pixels in SIZES if kinds <= most), SIZES[-1][1])
    shares_KK = counts_KK / np.maximum(counts_KK.sum(1, keepdims=True), 1)
    parts = []
    for row, name in enumerate(names):
        middle = 20 + size * row + size / 2 + 4
        parts.append(_text(f"{_short(name)} {row + 1}", GUTTER - 8, middle, "end"))
        parts.append(_text(f"{row + 1}", GUTTER + size * row + size / 2, 13, "middle", kinds=kinds))
        for column in range(kinds):
            level = int(np.ceil(LEVELS * shares_KK[row, column]))
            style = f"{'hit' if row == column else 'miss'} heat{level}"
            corner = GUTTER + size * column, 20 + size * row
            parts.append(_CELL.format(style, *corner, size - 1, size - 1))
            if kinds <= WRITTEN and counts_KK[row, column]:
                dark = "over" if level > LEVELS // 2 else ""
                said = figure(int(counts_KK[row, column]))
                parts.append(_text(said, corner[0] + size / 2, middle, "middle", style=dark))
    drawing = _DRAWING.format(GUTTER + size * kinds, 24 + size * kinds, Markup("").join(parts))
    numbered = [plain(f"{place + 1} {name}", 40) for place, name in enumerate(names)]
    return Figure(
        title=word("classes.matrix"),
        drawing=drawing,
        legend=[("hit", word("classes.right")), ("miss", word("classes.wrong"))],
        notes=[word("classes.across")],
        columns=[word("classes.name"), *numbered],
        rows=[
            [name.en, *(figure(int(count)) for count in counts_K)]
            for name, counts_K in zip(numbered, counts_KK, strict=True)
        ],
    )


_CELL = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')
_DRAWING = Markup('<div class="kept"><svg class="matrix" width="{}" height="{}" aria-hidden="true">{}</svg></div>')
_TEXT = Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>')


def _text(said: str, x: float, y: float, anchor: str, *, style: str = "", kinds: int = 0) -> Markup:
    """A text; of many columns' numbers, each is set small."""
    return _TEXT.format(style or ("small" if kinds > SIZES[1][0] else ""), x, y, anchor, said)


def _short(name: str) -> str:
    """As much of a name as the gutter holds, what cannot be seen as a mark."""
    kept, room = "", LABEL
    for letter in visible_text(name.replace("\n", " ")):
        room -= 12 if letter > "\u2e7f" else 7
        if room < 12:
            return f"{kept}…"
        kept += letter
    return kept
