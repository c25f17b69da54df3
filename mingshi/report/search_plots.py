"""The pictures of a search: history, curves, importance, slices, parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from markupsafe import Markup

from mingshi.report.curves import Figure
from mingshi.report.marks import visible_html
from mingshi.report.numbers import figure
from mingshi.report.plots import Frame, Scale, scale
from mingshi.report.search_words import said
from mingshi.report.words import Both, plain

Told = Mapping[str, Any]
Row = Mapping[str, Any]

STYLES = {"done": "gap", "pruned": "before", "open": "before"}  # of dots
CURVES = {"done": "smooth", "pruned": "raw", "open": "raw"}
INSIDE = 0.9  # of the scores that a frame holds at least; a few that are far off would flatten all others
LINE, GUTTER, BAR = 28, 300, 420  # pixels: of a bar's line, of the names, of the longest bar

_TEXT = Markup('<text x="{}" y="{}" dy="{}" text-anchor="{}">{}</text>')
_BAR = Markup('<rect class="series" x="{}" y="{:g}" width="{:.1f}" height="{:g}"/>')


def short(path: str) -> str:
    """`stages.0.optim.learning_rate` as a heading: what tells it from the others."""
    parts = path.split(".")
    return ".".join(parts[2:]) if parts[0] == "stages" and parts[1] == "0" and len(parts) > 2 else path


def history_figure(told: Told) -> Figure | None:
    """A dot for each trial in its order, and the best of those that were trained to their end."""
    rows = [row for row in told["trials"] if row["score"] is not None and row["state"] != "failed"]
    if not rows:
        return None
    up = _up([row["score"] for row in rows], told)
    frame = Frame(across=scale([float(row["trial"]) for row in rows], margin=0.03), up=up)
    best, course = None, []
    for row in told["trials"]:
        if row["state"] == "done" and (best is None or _better(told, row["score"], best)):
            best = row["score"]
        if best is not None:
            course.append((float(row["trial"]), best))
    parts = [frame.curve(course, "smooth")]
    for state in ("open", "pruned", "done"):
        spots = [(float(row["trial"]), _inside(row["score"], up)) for row in rows if row["state"] == state]
        parts.append(frame.dots(spots, STYLES[state]))
    columns = [said("trial"), said("state"), said("score")]
    return Figure(
        title=said("history"),
        drawing=frame.draw(*parts, height=260),
        legend=[("gap", said("whole")), ("before", said("stopped")), ("smooth", said("so.far"))],
        notes=[said("history.note")],
        columns=columns,
        rows=[[str(row["trial"]), row["state"], figure(row["score"], 4)] for row in rows],
    )


def curves_figure(told: Told) -> Figure | None:
    """Every trial's validation scores by trained tokens, the stopped ones quiet, the best one on top."""
    rows = [row for row in told["trials"] if row["curve"] and row["state"] != "failed"]
    if not rows:
        return None
    up = _up([value for row in rows for _, value in row["curve"]], told)
    end = max(told["rungs"][-1], *(tokens for row in rows for tokens, _ in row["curve"]))
    frame = Frame(across=Scale(low=0, high=end * 1.02), up=up)
    best = told["best"]["trial"] if told["best"] is not None else None
    parts = [frame.upright(tokens, "zero") for tokens in told["rungs"]]
    for row in sorted(rows, key=lambda row: (row["trial"] == best, row["state"] == "done")):
        style = "series second" if row["trial"] == best else CURVES[row["state"]]
        spots = [(float(tokens), _inside(value, up)) for tokens, value in row["curve"]]
        parts.append(frame.curve(spots, style))
        if len(spots) == 1:
            parts.append(frame.dots(spots, STYLES[row["state"]]))
    return Figure(
        title=said("curves"),
        drawing=frame.draw(*parts, height=300),
        legend=[("series second", said("best")), ("smooth", said("whole")), ("raw", said("stopped"))],
        notes=[said("curves.note")],
        columns=[said("trial"), said("tokens"), said("score")],
        rows=[[str(row["trial"]), f"{tokens:,}", figure(value, 4)] for row in rows for tokens, value in row["curve"]][
            :200
        ],
    )


def importance_figure(told: Told) -> Figure | None:
    """A bar for each field, the longest first."""
    found = sorted(told["importance"].items(), key=lambda pair: -pair[1])
    if not found:
        return None
    parts = []
    for place, (path, share) in enumerate(found):
        middle = LINE * place + LINE / 2
        parts.append(_TEXT.format(GUTTER - 10, f"{middle:g}", "4", "end", visible_html(short(path))))
        parts.append(_BAR.format(GUTTER, middle - 8, max(1.0, BAR * share), 16))
        shown = figure(share, 2)
        parts.append(_TEXT.format(f"{GUTTER + 8 + max(1.0, BAR * share):.1f}", f"{middle:g}", "4", "start", shown))
    drawing = Markup('<div class="kept"><svg width="{}" height="{}" aria-hidden="true">{}</svg></div>').format(
        GUTTER + BAR + 60, LINE * len(found), Markup("").join(parts)
    )
    rows = [[path, figure(share, 3)] for path, share in found]
    return Figure(
        title=said("importance"),
        drawing=drawing,
        notes=[said("importance.note")],
        columns=[said("field"), said("share")],
        rows=rows,
    )


def slice_figures(told: Told) -> list[Figure]:
    """For each field the score of every trial by what the field was."""
    rows = [row for row in told["trials"] if row["score"] is not None and row["state"] != "failed"]
    made = []
    for path, axis in told["space"].items() if rows else ():
        up = _up([row["score"] for row in rows], told)
        across, notes = _across(axis)
        frame = Frame(across=across, up=up, marks_across=3, marks_up=3)
        parts = []
        for state in ("open", "pruned", "done"):
            spots = [
                (place_of(axis, row["point"][path]), _inside(row["score"], up)) for row in rows if row["state"] == state
            ]
            parts.append(frame.dots(spots, STYLES[state]))
        cells = [[str(row["trial"]), cell(row["point"][path]), figure(row["score"], 4)] for row in rows]
        made.append(
            Figure(
                title=said("slice", {"field": short(path)}),
                drawing=frame.draw(*parts, height=150),
                notes=notes,
                columns=[said("trial"), plain(short(path)), said("score")],
                rows=cells,
            )
        )
    return made


def parallel_figure(told: Told) -> Figure | None:
    """A line for each trial through all of its fields to its score."""
    rows = [row for row in told["trials"] if row["score"] is not None and row["state"] != "failed"]
    axes = list(told["space"].items())
    if len(axes) < 2 or len(rows) < 2:
        return None
    up = _up([row["score"] for row in rows], told)
    frame = Frame(across=Scale(low=-0.06, high=len(axes) + 0.06), up=Scale(low=-0.04, high=1.04))
    best = told["best"]["trial"] if told["best"] is not None else None
    parts = []
    for row in sorted(rows, key=lambda row: (row["trial"] == best, row["state"] == "done")):
        places = [_across(axis)[0].place(place_of(axis, row["point"][path])) for path, axis in axes]
        score = up.place(_inside(row["score"], up))
        spots = [*places, score if told["higher_is_better"] else 1 - score]
        style = "series second" if row["trial"] == best else CURVES[row["state"]]
        parts.append(frame.curve([(float(at), place) for at, place in enumerate(spots)], style))
    names = [plain(short(path).rpartition(".")[2]) for path, _ in axes] + [said("score")]
    parts += [frame.upright(at, "zero", name) for at, name in enumerate(names)]
    drawing = Markup('<div class="plot"><svg width="100%" height="240" aria-hidden="true">{}</svg></div>').format(
        Markup("").join(parts)
    )
    return Figure(
        title=said("parallel"),
        drawing=drawing,
        legend=[("series second", said("best")), ("smooth", said("whole")), ("raw", said("stopped"))],
        notes=[said("parallel.note")],
    )


def place_of(axis: Told, value: Any) -> float:
    """Where a value of a field is drawn: a number where it is one, else its place in the list."""
    if "choices" not in axis:
        return float(value)
    numbers = _numbers(axis)
    return float(value) if numbers else float(axis["choices"].index(written(value)))


def _across(axis: Told) -> tuple[Scale, list[Both]]:
    if "choices" not in axis:
        low, high = float(axis["low"]), float(axis["high"])
        if axis["log"]:
            return Scale(low=low / 1.15, high=high * 1.15, logarithmic=True, marks=_ends(low, high)), []
        air = 0.04 * (high - low)
        return Scale(low=low - air, high=high + air), []
    numbers = _numbers(axis)
    if numbers and min(numbers) > 0:
        marks = tuple(sorted(numbers))
        return Scale(low=marks[0] / 1.3, high=marks[-1] * 1.3, logarithmic=True, marks=marks), []
    values = numbers or [float(place) for place in range(len(axis["choices"]))]
    air = 0.2 * (max(values) - min(values))
    notes = [] if numbers else [plain("; ".join(f"{place}: {told}" for place, told in enumerate(axis["choices"])))]
    return Scale(low=min(values) - air, high=max(values) + air, marks=tuple(sorted(values))), notes


def _ends(low: float, high: float) -> tuple[float, ...]:
    """Marks of a stretch of magnitudes: its powers of ten, or its ends where it holds fewer than two."""
    powers = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
    return tuple(powers) if len(powers) > 1 else (low, high)


def _numbers(axis: Told) -> list[float]:
    """The choices as numbers, where all are."""
    try:
        return [float(told) for told in axis["choices"]]
    except ValueError:
        return []


def written(value: Any) -> str:
    """As JSON, in one order."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def cell(value: Any) -> str:
    return figure(value) if isinstance(value, int | float) and not isinstance(value, bool) else written(value)


def _up(values: Sequence[float], told: Told) -> Scale:
    """A scale that holds the better scores; a few of the worst may lie beyond it."""
    order = sorted((value for value in values if math.isfinite(value)), reverse=bool(told["higher_is_better"]))
    held = order[: max(2, math.ceil(INSIDE * len(order)))]
    return scale(held, margin=0.08)


def _inside(value: float, up: Scale) -> float:
    return min(up.high, max(up.low, value))


def _better(told: Told, one: float, other: float) -> bool:
    return one > other if told["higher_is_better"] else one < other
