"""The pictures of a comparison: quality against cost, forgetting against gain, each method's search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from mingshi.directions import plain_name
from mingshi.report.compare_names import in_words, of_test
from mingshi.report.compare_words import compared
from mingshi.report.curves import Figure
from mingshi.report.numbers import figure
from mingshi.report.plots import Frame, Scale, scale
from mingshi.report.summary import metric_name
from mingshi.report.words import Both, plain

Told = Mapping[str, Any]
Spot = tuple[str, float, tuple[float, float, float]]  # name, across, (value, low, high) up


def cost_figures(told: Told, names: Sequence[str]) -> list[Figure]:
    """A dot for each method: what a metric came to, by what a run cost."""
    priced = told["price"] is not None
    unit = compared("cost" if priced else "core_hours")
    made = []
    for name in names:
        spots = [
            (row["name"], row["cost"] if priced else row["core_hours"], span)
            for row in told["rows"]
            if (span := span_of(row["scores"].get(name))) is not None
        ]
        base = span_of(told["base"].get(name))
        if spots:
            heading = compared("by_cost", {"name": in_words(name), "unit": unit})
            made.append(_scatter(heading, spots, unit, in_words(name), level=base[0] if base is not None else None))
    return made


def forgetting_figures(told: Told, names: Sequence[str]) -> list[Figure]:
    """A dot for each method: what it gained on the test set, and what became of a task; up and right are better."""
    test = next((name for name in names if of_test(name)), None)
    made = []
    for name in (name for name in names if not of_test(name)):
        if test is None:
            break
        spots = []
        for row in told["rows"]:
            gain, kept = (_gain(row["scores"].get(each)) for each in (test, name))
            if gain is not None and kept is not None:
                spots.append((row["name"], gain[0], kept))
        if spots:
            heading = compared("trade", {"test": in_words(test), "task": in_words(name)})
            across, up = (compared("gain", {"name": in_words(each)}) for each in (test, name))
            made.append(_scatter(heading, spots, across, up, level=0.0))
    return made


def search_figures(told: Told) -> list[Figure]:
    """The validation score of every learning rate that was tried, by method; the one chosen is marked."""
    made = []
    for row in told["rows"]:
        search = row["search"]
        tries = [(one["rate"], span) for one in (search or {}).get("tries", ()) if (span := span_of(one)) is not None]
        if len(tries) < 2:
            continue
        rates = [rate for rate, _ in tries]
        across = Scale(low=min(rates) / 1.3, high=max(rates) * 1.3, logarithmic=True)
        frame = Frame(across=across, up=scale(ends([span for _, span in tries])), marks_across=3, marks_up=3)
        best = next(one["rate"] for one in search["tries"] if one["factor"] == search["chosen"])
        parts = [
            frame.upright(best, "best", plain(figure(best))),
            frame.curve([(rate, span[0]) for rate, span in tries], "between validation"),
            frame.whiskers([(rate, *span[1:]) for rate, span in tries], "validation"),
            frame.dots([(rate, span[0]) for rate, span in tries], "validation"),
        ]
        name, headline = row["name"], metric_name(plain_name(search["headline"]), search["headline"])
        made.append(
            Figure(
                title=Both(f"{name}: {headline.en}", f"{name}：{headline.zh}"),
                drawing=frame.draw(*parts, height=130),
                columns=[compared("rate"), headline],
                rows=[[figure(rate), told_span(span)] for rate, span in tries],
            )
        )
    return made


def _scatter(heading: Both, spots: Sequence[Spot], across: Both, up: Both, *, level: float | None) -> Figure:
    everything = ends([span for *_, span in spots]) + ([] if level is None else [level])
    frame = Frame(across=scale([x for _, x, _ in spots], margin=0.2), up=scale(everything, margin=0.12))
    parts: list[Markup] = [] if level is None else [frame.level(level, "zero")]
    parts.append(frame.whiskers([(x, *span[1:]) for _, x, span in spots], "gap"))
    parts.append(frame.dots([(x, span[0]) for _, x, span in spots], "gap"))
    parts += [frame.label((x, span[0]), plain(name), "gap") for name, x, span in spots]
    return Figure(
        title=heading,
        drawing=frame.draw(*parts, height=260),
        columns=[compared("method"), across, up],
        rows=[[name, figure(x), told_span(span)] for name, x, span in spots],
    )


def span_of(score: Told | None) -> tuple[float, float, float] | None:
    """Value, low and high; the value alone where no interval is known."""
    if score is None or score["value"] is None:
        return None
    value = float(score["value"])
    known = score["low"] is not None and score["high"] is not None
    return (value, float(score["low"]), float(score["high"])) if known else (value, value, value)


def _gain(score: Told | None) -> tuple[float, float, float] | None:
    """The change from the base, turned so that up is better."""
    span = span_of(score["change"]) if score is not None else None
    if span is None or score is None or score["higher_is_better"] is None:
        return None
    return span if score["higher_is_better"] else (-span[0], -span[2], -span[1])


def ends(spans: Sequence[tuple[float, float, float]]) -> list[float]:
    return [value for span in spans for value in span if math.isfinite(value)]


def told_span(span: tuple[float, float, float]) -> str:
    value, low, high = (figure(each) for each in span)
    return value if low == high else f"{value} ({low} – {high})"
