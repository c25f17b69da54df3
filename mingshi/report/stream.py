"""Stages that learn one after another, as plain values for a page: heat map, lines, gates, and what was remembered."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson
from markupsafe import Markup

from mingshi.directions import is_better_higher, plain_name
from mingshi.record import Run
from mingshi.report.curves import Figure
from mingshi.report.marks import visible_text
from mingshi.report.numbers import figure
from mingshi.report.plots import Frame, Scale, scale
from mingshi.report.summary import Record, interval, metric_name, number, several, table, whole
from mingshi.report.words import Both, plain, word

MEMORY = "memory.jsonl"
TASKS_AT_MOST = 12
LINES_AT_MOST = 40  # of gates, of stages, of what was remembered
SHOWN = 12  # remembered rows
SIZE = 64, 34  # pixels of a cell
GUTTER, HEAD = 150, 24  # pixels left of the cells and above them
LETTERS = 9  # of a task's name above its column
LEVELS = 8  # of colour
STYLES = ("series", "series second", "series third", "series fourth")


def stream(run: Run) -> dict[str, Any] | None:
    """The parts of the section that only several stages have; None where there are none."""
    told = table(run.run.get("forgetting"))
    rows = several(told.get("matrix"))[:LINES_AT_MOST]
    memory = _memory(run)
    gates = [said for gate in several(run.run.get("gates"))[:LINES_AT_MOST] for said in _gate(gate)]
    figures = _figures(told, rows) if len(rows) > 2 else []
    if not (memory or gates or figures):
        return None
    return {"figures": figures, "gates": gates, "memory": memory}


# The matrix


def _figures(told: Record, rows: Sequence[Record]) -> list[Figure]:
    """The heat map, and the lines of the tasks that share a metric."""
    metrics = {str(task): str(metric) for task, metric in table(told.get("metrics")).items()}
    names = list(metrics)[:TASKS_AT_MOST]
    taught = {name: table(table(told.get("tasks")).get(name)).get("stage") for name in names}
    found = [_heat(rows, {name: metrics[name] for name in names}, taught)]
    for metric in dict.fromkeys(metrics[name] for name in names):
        found.append(_lines(rows, [name for name in names if metrics[name] == metric], metric))
    return found


def _heat(rows: Sequence[Record], metrics: Mapping[str, str], taught: Mapping[str, object]) -> Figure:
    width, height = SIZE
    spans = {metric: _span(rows, [task for task in metrics if metrics[task] == metric]) for metric in metrics.values()}
    parts = []
    for column, (task, metric) in enumerate(metrics.items()):
        left = GUTTER + width * column
        parts.append(_text(_short(task), left + width / 2, 15, "middle"))
        stage = taught[task]
        for row, line in enumerate(rows):
            top = HEAD + height * row
            if column == 0:
                parts.append(_label(row, GUTTER - 10, top + height / 2 + 4))
            value = number(table(line.get(task)).get("value"))
            if not math.isfinite(value):
                continue
            level = _level(value, spans[metric], metric)
            known = not isinstance(stage, int) or row > stage
            parts.append(_CELL.format(f"{'hit' if known else 'miss'} heat{level}", left, top, width - 2, height - 2))
            dark = "over" if level > LEVELS // 2 else ""
            parts.append(_text(figure(value, 2), left + width / 2 - 1, top + height / 2 + 4, "middle", style=dark))
            if row - 1 == stage:
                parts.append(_FRAME.format(left + 1, top + 1, width - 4, height - 4))
    drawing = _DRAWING.format(GUTTER + width * len(metrics), HEAD + height * len(rows), Markup("").join(parts))
    legend = [("hit", word("stream.taught")), ("miss", word("stream.untaught"))]
    return Figure(title=word("stream.map"), drawing=drawing, legend=legend, notes=[word("stream.darker")])


def _span(rows: Sequence[Record], tasks: Sequence[str]) -> tuple[float, float]:
    values = [number(table(row.get(task)).get("value")) for row in rows for task in tasks]
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    return min(finite), max(finite)


def _level(value: float, span: tuple[float, float], metric: str) -> int:
    """0 for the worst of a metric to `LEVELS` for the best."""
    low, high = span
    share = (value - low) / (high - low) if high > low else 1.0
    worse_higher = is_better_higher(metric.partition(".")[2]) is False
    return round(LEVELS * (1 - share if worse_higher else share))


def _lines(rows: Sequence[Record], tasks: Sequence[str], metric: str) -> Figure:
    """Each task's scores from before the first stage to after the last, with their intervals."""
    points: dict[str, list[tuple[float, float]]] = {task: [] for task in tasks}
    spans: dict[str, list[tuple[float, float, float]]] = {task: [] for task in tasks}
    for done, row in enumerate(rows):
        for task in tasks:
            if (found := interval(row.get(task))) is not None:
                points[task].append((float(done), found.value))
                spans[task] += [(float(done), found.low, found.high)] if found.known else []
    values = [value for line in points.values() for _, value in line]
    values += [end for line in spans.values() for _, low, high in line for end in (low, high)]
    last = len(rows) - 1
    across = Scale(low=-0.1, high=last + 0.1, marks=tuple(float(done) for done in range(last + 1)))
    frame = Frame(across=across, up=scale(values))
    parts, legend = [], []
    for place, task in enumerate(tasks):
        style = STYLES[place % len(STYLES)] + (" base" if place >= len(STYLES) else "")
        parts += [frame.whiskers(spans[task], style), frame.curve(points[task], style), frame.dots(points[task], style)]
        legend.append((style, plain(task, 40)))
    name = metric.partition(".")[2]
    title = word("stream.lines", metric=metric_name(plain_name(name), name))
    return Figure(title=title, drawing=frame.draw(*parts, height=200), legend=legend, notes=[word("stream.across")])


_CELL = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')
_FRAME = Markup('<rect class="framed" x="{}" y="{}" width="{}" height="{}"/>')
_DRAWING = Markup('<div class="kept"><svg class="matrix" width="{}" height="{}" aria-hidden="true">{}</svg></div>')
_TEXT = Markup('<text class="{}" x="{:g}" y="{:g}" text-anchor="{}">{}</text>')


def _text(said: str, x: float, y: float, anchor: str, *, style: str = "") -> Markup:
    return _TEXT.format(style, x, y, anchor, said)


def _label(row: int, x: float, y: float) -> Markup:
    """When a row was measured, in both languages at one place."""
    said = word("kept.before") if row == 0 else word("kept.after", number=row)
    return Markup('<text x="{:g}" y="{:g}" text-anchor="end">{}</text>').format(x, y, _spans(said))


def _spans(said: Both) -> Markup:
    return Markup('<tspan class="en">{}</tspan><tspan class="zh">{}</tspan>').format(said.en, said.zh)


def _short(name: str) -> str:
    shown = visible_text(name.replace("\n", " "))
    return shown if len(shown) <= LETTERS else f"{shown[: LETTERS - 1]}…"


# Gates


def _gate(gate: Record) -> list[tuple[str, Both]]:
    """What a gate said: (how grave, sentence)."""
    stage, forget = whole(gate.get("stage")) + 1, figure(number(gate.get("forget")))
    if not gate.get("refused"):
        return [("good", word("stream.passed", number=stage, forget=forget))]
    said = []
    for fall in several(gate.get("falls")):
        if fall.get("refused"):
            name = str(fall.get("metric")).partition(".")[2]
            told = {"task": str(fall.get("task")), "metric": metric_name(plain_name(name), name)}
            found = _spelt(fall.get("fall"))
            said.append(("error", word("stream.refused", number=stage, fall=found, forget=forget, **told)))
    return said


def _spelt(score: object) -> str:
    found = interval(score)
    if found is None:
        return "–"
    value, low, high = (figure(part, 3) for part in (found.value, found.low, found.high))
    return f"{value} ({low}, {high})" if found.known else value


# Memory


def _memory(run: Run) -> dict[str, Any] | None:
    """How many rows of which task each stage rehearsed, and a few of them; None where nothing was remembered."""
    rows = _remembered(run)
    if not rows:
        return None
    counts = Counter((whole(row.get("stage")), str(row.get("task"))) for row in rows)
    own = Counter((whole(row.get("stage")), str(row.get("task"))) for row in rows if row.get("answer"))
    return {
        "counts": [
            (word("stream.stage", number=stage + 1), task, figure(count), figure(own[stage, task]))
            for (stage, task), count in list(counts.items())[:LINES_AT_MOST]
        ],
        "examples": [_example(row) for row in rows[:: max(1, len(rows) // SHOWN)][:SHOWN]],
        "others": max(0, len(rows) - SHOWN),
    }


def _remembered(run: Run) -> list[Record]:
    """The lines of `memory.jsonl` that can be read."""
    path = run.folder / MEMORY
    found = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with suppress(ValueError):
            found.append(table(orjson.loads(line)))
    return [row for row in found if row]


def _example(row: Record) -> tuple[str, str, str]:
    why = "; ".join(str(part) for part in (row.get("why"), row.get("kept")) if part)
    said = " → ".join(str(part) for part in (row.get("text"), row.get("answer")) if part)
    return f"{row.get('source')}:{row.get('line')}", why, said
