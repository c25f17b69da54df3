"""The figures of a run: what is drawn, what its legend and notes say, and the table of the numbers behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mingshi.report.numbers import figure
from mingshi.report.plots import Frame, Point, Scale, histogram, scale
from mingshi.report.summary import Interval, Record, Stage, number, smoothed, whole
from mingshi.report.words import Both, plain, word

ROWS_AT_MOST = 200  # of a table behind a figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A drawing with its words; `rows` under `columns` are the numbers that it shows."""

    title: Both
    drawing: Markup
    legend: Sequence[tuple[str, Both]] = ()  # style and meaning
    notes: Sequence[Both] = ()
    columns: Sequence[Both] = ()
    rows: Sequence[Sequence[str]] = ()
    thinning: Both | None = None  # says so where `rows` are not all of them


def loss_figure(stage: Stage) -> Figure:
    """Training loss, raw and smoothed, and the validation points; the best step is marked."""
    points = series(stage, "loss")
    means, window = smoothed([loss for _, loss in points], [number(step.get("trained")) for step in stage.steps])
    curve = [(x, mean) for (x, _), mean in zip(points, means, strict=True)]
    measured = (*stage.validation, *stage.sample)
    frame = Frame(across=steps_scale(stage), up=_loss_scale(points, curve, measured))
    broken = [int(x) for x, loss in points if not math.isfinite(loss)]
    parts = [frame.curve(points, "raw")]
    if stage.best is not None and len(stage.validation) > 1:  # of one point nothing is the best
        parts.append(frame.upright(stage.best, "best", word("curves.best", step=f"{stage.best:,}")))
    legend = [("raw", word("curves.raw"))]
    if len(points) > 10:
        parts.append(frame.curve(curve, "smooth"))
        legend.append(("smooth", word("curves.smooth", window=window)))
    for style, course in (("sample", stage.sample), ("validation", stage.validation)):
        if course:
            legend.append((style, word(f"curves.{style}")))
            parts += _measured(frame, course, style)
    if broken:
        parts.append(frame.upright(broken[0], "broken", word("curves.broken", step=f"{broken[0]:,}")))
    columns, rows, thinning = _loss_table(stage, means)
    return Figure(
        title=word("curves.loss" if stage.metric == "natspertoken" else "curves.plain"),
        drawing=frame.draw(*parts, height=280),
        legend=legend,
        notes=_loss_notes(stage, frame, points),
        thinning=thinning,
        columns=columns,
        rows=rows,
    )


def small_figures(stage: Stage) -> list[Figure]:
    """Learning rate, gradient norm and speed over the same steps."""
    named = [("learning_rate", "curves.rate"), ("gradient_norm", "curves.norm"), ("speed", "curves.speed")]
    made = []
    for name, title in named:
        points = series(stage, name)
        finite = [value for _, value in points if math.isfinite(value)]
        if not finite:
            continue
        logs = name == "gradient_norm"
        up = scale(finite, floor=None if logs and max(finite) > 30 * min(finite) > 0 else 0.0, logs=logs)
        frame = Frame(across=steps_scale(stage), up=up, marks_across=3, marks_up=3)
        made.append(Figure(title=word(title), drawing=frame.draw(frame.curve(points, "smooth"), height=110)))
    return made


def length_figure(lengths: Sequence[int], *, limit: int | None, dropped: int, samples: int) -> Figure:
    """How long the samples are, and where the cut-off falls.

    `lengths` are of the samples that are used, or evenly spaced quantiles of them where there are more `samples`;
    `dropped` is how many were left out for their length.
    """
    each = max(1.0, samples / len(lengths))
    drawing, bins = histogram(lengths, limit=limit, each=each)
    middle, high = (int(value) for value in np.percentile(lengths, [50, 95], method="inverted_cdf"))
    notes = [word("lengths.middle", median=f"{middle:,}", high=f"{high:,}", longest=f"{max(lengths):,}")]
    if limit is not None:
        touching = round(each * sum(length >= limit for length in lengths))
        notes.append(word("lengths.touch" if touching else "lengths.free", limit=f"{limit:,}", count=f"{touching:,}"))
        if dropped:
            notes.append(word("lengths.dropped", limit=f"{limit:,}", count=f"{dropped:,}"))
    if each > 1:
        notes.append(word("lengths.thinned", count=f"{len(lengths):,}", samples=f"{samples:,}"))
    return Figure(
        title=word("lengths.title"),
        drawing=drawing,
        notes=notes,
        columns=[word("lengths.from"), word("lengths.to"), word("lengths.samples")],
        rows=[[f"{first:,}", f"{last:,}", f"{count:,}"] for first, last, count in bins],
    )


def series(stage: Stage, name: str) -> list[Point]:
    """One field of every step; `speed` is tokens per second."""
    if name == "speed":
        pairs = ((number(step.get("tokens")), number(step.get("seconds"))) for step in stage.steps)
        values = [tokens / seconds if seconds > 0 else math.nan for tokens, seconds in pairs]
    else:
        values = [number(step.get(name)) for step in stage.steps]
    return [(float(whole(step.get("number"))), value) for step, value in zip(stage.steps, values, strict=True)]


def steps_scale(stage: Stage) -> Scale:
    return Scale(low=0, high=1.02 * max([1, *(whole(step.get("number")) for step in stage.steps)]))


def _loss_scale(points: Sequence[Point], curve: Sequence[Point], validation: Sequence[tuple[float, Interval]]) -> Scale:
    """Holds the smoothed curve, the validation points and nearly all raw losses: a spike shall not flatten the rest."""
    finite = [loss for _, loss in points if math.isfinite(loss)]
    ends = [float(end) for end in np.percentile(finite, [0.5, 99])] if finite else []
    return scale([*ends, *(mean for _, mean in curve), *(loss.value for _, loss in validation)])


def _measured(frame: Frame, points: Sequence[tuple[float, Interval]], style: str) -> list[Markup]:
    spans = [(step, max(loss.low, frame.up.low), min(loss.high, frame.up.high)) for step, loss in points if loss.known]
    places = [(step, loss.value) for step, loss in points]
    drawn = [frame.curve(places, f"{style} between"), frame.whiskers(spans, style), frame.dots(places, style)]
    if len(places) == 1:  # alone it is no curve: its number says more
        drawn.append(frame.label(places[0], plain(figure(places[0][1])), style))
    return drawn


def gap_figure(stage: Stage) -> Figure | None:
    """Held-out loss less the loss on training rows, wherever both were measured."""
    seen = dict(stage.sample)
    gaps = [(step, loss.less(seen[step])) for step, loss in stage.validation if step in seen]
    if not gaps:
        return None
    ends = [number for _, gap in gaps for number in (gap.value, gap.low, gap.high)]
    frame = Frame(across=steps_scale(stage), up=scale([0.0, *ends]), marks_up=3)
    return Figure(
        title=word("gap.title"),
        legend=[("gap", word("gap.legend"))],
        drawing=frame.draw(frame.level(0.0, "zero"), *_measured(frame, gaps, "gap"), height=130),
        columns=[word("curves.step"), word("data.validation"), word("data.train-sample"), word("gap.title")],
        rows=[[f"{step:,.0f}", *map(_cell, (dict(stage.validation)[step], seen[step], gap))] for step, gap in gaps],
    )


def _cell(loss: Interval) -> str:
    value, low, high = (figure(number, 4) for number in (loss.value, loss.low, loss.high))
    return f"{value} ({low}, {high})" if loss.known else value


def _loss_notes(stage: Stage, frame: Frame, points: Sequence[Point]) -> list[Both]:
    notes = []
    last = whole(stage.steps[-1].get("number"))
    if stage.best is not None and (stage.stopped_early or stage.best < last):
        notes.append(
            word("curves.early" if stage.stopped_early else "curves.kept", best=f"{stage.best:,}", steps=f"{last:,}")
        )
    outside = sum(math.isfinite(loss) and not frame.up.holds(loss) for _, loss in points)
    if outside:
        notes.append(word("curves.outside", count=f"{outside:,}"))
    return notes


def _loss_table(stage: Stage, means: Sequence[float]) -> tuple[list[Both], list[list[str]], Both | None]:
    """Columns, rows and, where not every step is among them, a note that says so."""
    validation = {int(step): loss.value for step, loss in stage.validation}
    every = math.ceil(len(stage.steps) / ROWS_AT_MOST)
    best = {stage.best, *validation}
    rows = []
    for index, (step, mean) in enumerate(zip(stage.steps, means, strict=True)):
        place = whole(step.get("number"))
        if index % every == 0 or place in best or index == len(stage.steps) - 1:
            rows.append([f"{place:,}", *_step_cells(step), figure(mean, 4), figure(validation.get(place), 4)])
    columns = [
        word("curves.step"),
        word("curves.epoch"),
        word("curves.rate"),
        word("curves.norm"),
        word("curves.speed"),
        word("curves.raw"),
        word("curves.smooth", window=smoothed([1.0] * len(means), [1.0] * len(means))[1]),
        word("data.validation"),
    ]
    note = word("page.every", every=every, total=f"{len(stage.steps):,}") if every > 1 else None
    return columns, rows, note


def _step_cells(step: Record) -> list[str]:
    seconds = number(step.get("seconds"))
    return [
        figure(number(step.get("epoch")), 2),
        figure(number(step.get("learning_rate"))),
        figure(number(step.get("gradient_norm")), 3),
        figure(number(step.get("tokens")) / seconds if seconds > 0 else None, 0),
        figure(number(step.get("loss")), 4),
    ]


def speed_facts(steps: Sequence[Record]) -> tuple[int, int, float]:
    """Tokens read, tokens trained and seconds spent over all steps."""
    seconds = [number(step.get("seconds")) for step in steps]
    return (
        sum(whole(step.get("tokens")) for step in steps),
        sum(whole(step.get("trained")) for step in steps),
        math.fsum(value for value in seconds if math.isfinite(value)),
    )
