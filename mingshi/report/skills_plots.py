"""The pictures of a mixture of skills: the matrix of strategies and skills, scores over k, bars of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mingshi.report.compare_plots import ends, span_of, told_span
from mingshi.report.compare_scale import STYLES
from mingshi.report.curves import Figure
from mingshi.report.marks import visible_html
from mingshi.report.numbers import figure
from mingshi.report.plots import Frame, Scale, scale
from mingshi.report.skills_words import row_name, said
from mingshi.report.words import Both, plain

GUTTER, CELL, LINE = 240, 108, 30  # pixels: of the names, of a cell's width, of its height
LEVELS = 8  # of colour
BAR = 420  # pixels of the longest bar
Told = Mapping[str, Any]
Columns = Sequence[tuple[str, Both]]

_RECT = Markup('<rect class="{}" x="{:g}" y="{:g}" width="{:g}" height="{:g}"/>')
_TEXT = Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>')
_DRAWING = Markup('<div class="kept"><svg class="matrix" width="{:g}" height="{:g}" aria-hidden="true">{}</svg></div>')


def matrix_figure(told: Told, columns: Columns) -> Figure:
    """A row for each strategy and a column for each skill, the darker the better within a column."""
    named: list[tuple[Both, Mapping[str, Any]]] = [(said("base"), told["base"])]
    named += [(row_name(row), row["scores"]) for row in told["rows"]]
    parts, rows = [], [[name.en] for name, _ in named]
    for place, (name, _) in enumerate(named):
        parts.append(_both(name, GUTTER - 10, 36 + LINE * place + LINE / 2 + 4, "end"))
    for column, (metric, heading) in enumerate(columns):
        left = GUTTER + CELL * column
        parts.append(_both(_narrow(heading), left + CELL / 2, 20, "middle"))
        spans = [span_of(scores.get(metric)) for _, scores in named]
        turned = any((row["scores"].get(metric) or {}).get("higher_is_better") is False for row in told["rows"])
        values = [None if span is None else -span[0] if turned else span[0] for span in spans]
        levels = _levels(values)
        for place, (span, level) in enumerate(zip(spans, levels, strict=True)):
            top = 36 + LINE * place
            rows[place].append("–" if span is None else told_span(span))
            if span is not None:
                parts.append(_RECT.format(f"hit heat{level}", left, top, CELL - 1, LINE - 1))
                style = "over" if level >= LEVELS // 2 else ""
                shown = Markup("{}").format(figure(span[0], 3))
                parts.append(_TEXT.format(style, left + CELL / 2, top + LINE / 2 + 4, "middle", shown))
    drawing = _DRAWING.format(GUTTER + CELL * len(columns), 40 + LINE * len(named), Markup("").join(parts))
    headings = [said("strategy"), *(heading for _, heading in columns)]
    return Figure(title=said("matrix"), drawing=drawing, notes=[said("shade")], columns=headings, rows=rows)


def _levels(values: Sequence[float | None]) -> list[int]:
    """0 for the worst to LEVELS for the best."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    if high <= low:
        return [1 if value is not None else 0 for value in values]
    return [0 if value is None else round(LEVELS * (value - low) / (high - low)) for value in values]


def _narrow(heading: Both) -> Both:
    """The skill's name, without the metric's: as much as a cell is wide."""
    english, chinese = heading.en.partition(":")[0], heading.zh.partition("：")[0]
    return Both(*(text if len(text) < 16 else f"{text[:14]}…" for text in (english, chinese)))


def _both(text: Both, x: float, y: float, anchor: str) -> Markup:
    """A text in both languages at one place; the page's style shows one of them."""
    if text.en == text.zh:
        return _TEXT.format("", x, y, anchor, visible_html(text.en))
    return _TEXT.format("en", x, y, anchor, visible_html(text.en)) + _TEXT.format(
        "zh", x, y, anchor, visible_html(text.zh)
    )


def trade_figure(told: Told, columns: Columns) -> Figure | None:
    """Each skill's score by k, on an axis of powers; None where fewer than two k were tried."""
    rows = sorted((row for row in told["rows"] if row["kind"] == "dmt"), key=lambda row: row["k"])
    known = [row["k"] for row in rows if row["seeds"]]
    if len(known) < 2:
        return None
    skills = [(metric, heading) for metric, heading in columns if metric != told["mean"]]
    curves = []
    for metric, heading in skills:
        spots = [(row["k"], span) for row in rows if (span := span_of(row["scores"].get(metric))) is not None]
        curves.append((heading, spots))
    across = Scale(low=min(known) / 1.3, high=max(known) * 1.3, logarithmic=True, marks=tuple(known))
    frame = Frame(across=across, up=scale(ends([span for _, spots in curves for _, span in spots])))
    parts, legend, cells = [], [], []
    for number, (heading, spots) in enumerate(curves):
        style = STYLES[number % len(STYLES)]
        apart = 1 + 0.02 * (number - (len(curves) - 1) / 2)  # so that whiskers do not hide each other
        spread = [(k * apart, span) for k, span in spots]
        parts.append(frame.curve([(k, span[0]) for k, span in spread], style))
        parts.append(frame.whiskers([(k, *span[1:]) for k, span in spread], style))
        parts.append(frame.dots([(k, span[0]) for k, span in spread], style))
        legend.append((style, heading))
        cells += [[f"{k:.4g}", heading.en, told_span(span)] for k, span in spots]
    return Figure(
        title=said("trade_figure"),
        drawing=frame.draw(*parts, height=280),
        legend=legend,
        columns=[said("k"), said("skill"), said("value")],
        rows=cells,
    )


def bars_figure(told: Told) -> Figure:
    """What each strategy was to train, stage after stage, in the skills' colours."""
    names = [skill["name"] for skill in told["skills"]]
    styles = {name: STYLES[number % len(STYLES)] for number, name in enumerate(names)}
    shares = {skill["name"]: skill["share"] for skill in told["skills"]}
    rows = [row for row in told["rows"] if row["kind"] not in ("alone",)]
    parts, cells = [], []
    for place, row in enumerate(rows):
        top = 6 + LINE * place
        parts.append(_both(row_name(row), GUTTER - 10, top + LINE / 2 + 2, "end"))
        left = float(GUTTER)
        for number, stage in enumerate(_stages(row, shares)):
            for skill, tokens in stage.items():
                width = BAR * tokens / told["budget"]
                parts.append(_RECT.format(styles[skill], left, top, max(width - 0.5, 0.5), LINE - 10))
                left += width
                cells.append([row["name"], str(number + 1), skill, f"{tokens:,.0f}"])
            left += 4
    drawing = _DRAWING.format(GUTTER + BAR + 40, 12 + LINE * len(rows), Markup("").join(parts))
    heads = [said("strategy"), said("stages"), said("skill"), said("wanted")]
    legend = [(styles[name], plain(name)) for name in names]
    return Figure(title=said("tokens"), drawing=drawing, legend=legend, columns=heads, rows=cells)


def _stages(row: Told, shares: Mapping[str, float]) -> list[Mapping[str, float]]:
    """With what a start, or the experts that are merged, had read."""
    own = [stage["tokens"] for stage in row["stages"]]
    if row["kind"] == "merge":
        return [{name: tokens} for name, tokens in shares.items()]
    begun = next(iter(row["starts"].values()), None)
    return [{begun: shares[begun]}, *own] if begun else own
