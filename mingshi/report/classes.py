"""A classifier's classes as plain values for its run's page: each class, what it was taken for, whether its
probabilities come true, and parts of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mingshi.evals import slices, statistics
from mingshi.evals.calibration import Bin, reliability
from mingshi.evals.classes import Multi, Single, answers_of, tempered
from mingshi.record import Run
from mingshi.report.classes_matrix import matrix_figure
from mingshi.report.curves import Figure
from mingshi.report.numbers import figure, p_value
from mingshi.report.plots import Frame, Point, Scale
from mingshi.report.summary import Comparison, Record, interval, number, table, whole
from mingshi.report.words import Both, plain, word

CLASSES_AT_MOST = 50
SETS_AT_MOST = 4  # of rows that were classified: the test set and tasks
HERE_ALONE = ("sliceaccuracy", "slicemacrof1", "sliceaccuracygap", "slicemacrof1gap", "slicep")
OF_CLASSES = ("rocauc", "averageprecision")


def is_told_here(entry: Comparison) -> bool:
    """Whether a metric is left to this section, where the table of all scores would only be longer by it."""
    base, _, label = entry.metric.partition(".")
    return base in HERE_ALONE or (base in OF_CLASSES and label != "")


def classes(run: Run) -> list[dict[str, Any]]:
    """The section's parts for each set of rows that was classified, the test set first."""
    lines: dict[str, Record] = {}
    for line in run.evals:
        if line.get("kind") == "classification" and line.get("when") in ("before", "after"):
            lines[str(line.get("data"))] = line  # the last
    found = []
    for data in sorted(lines, key=lambda name: name != "test"):
        answers = _answers(lines[data])
        if answers is not None:
            found.append(_told(data, answers, table(lines[data].get("scores"))))
    return found[:SETS_AT_MOST]


def _answers(line: Record) -> Single | Multi | None:
    """What was classified; None for numbers, and for a record that is damaged."""
    items = table(line.get("items"))
    if not any(str(name).startswith("probability.") for name in items):
        return None
    try:
        answers = answers_of(items)
    except (KeyError, TypeError, ValueError):
        return None
    if not isinstance(answers, Single | Multi) or not len(answers) or answers.shares_NK.ndim != 2:
        return None
    sound = len(answers) == len(answers.shares_NK) and ((answers.shares_NK >= 0) & (answers.shares_NK <= 1)).all()
    if isinstance(answers, Single) and sound:
        sound = ((answers.truth_N >= 0) & (answers.truth_N < len(answers.names))).all()
    return answers if sound else None


def _told(data: str, answers: Single | Multi, scores: Record) -> dict[str, Any]:
    if isinstance(answers, Single):
        taken_NK = answers.shares_NK.argmax(1)[:, None] == np.arange(len(answers.names))
    else:
        taken_NK = answers.shares_NK > 0.5
    true_K, taken_K = answers.wins_NK.sum(0), taken_NK.sum(0)
    frequent = np.sort(np.argsort(-true_K, kind="stable")[:CLASSES_AT_MOST]).tolist()
    matrix = None
    if isinstance(answers, Single):
        counts_KK = answers.confusion(np.ones((1, len(answers))))[0].astype(np.int64)
        matrix = matrix_figure([answers.names[place] for place in frequent], counts_KK[np.ix_(frequent, frequent)])
    many = len(answers.names) > len(frequent)
    return {
        "data": plain(data),
        "rows": [_row(place, answers.names[place], true_K, taken_K, scores) for place in frequent],
        "fewer": word("classes.fewer", shown=len(frequent), count=len(answers.names)) if many else None,
        "matrix": matrix,
        "reliability": _reliability(answers, scores),
        "slices": [_slice(one) for one in slices.recorded(scores)],
    }


def _row(place: int, name: str, true_K: np.ndarray, taken_K: np.ndarray, scores: Record) -> dict[str, Any]:
    return {
        "number": place + 1,
        "name": name,
        "count": figure(int(true_K[place])),
        "taken": figure(int(taken_K[place])),
        "rates": [_spelt(scores.get(f"{rate}.{name}")) for rate in ("precision", "recall", "f1", "average_precision")],
    }


def _spelt(score: object, *, signed: bool = False) -> tuple[str, str]:
    """A score and its interval; a dash where there is none."""
    found = interval(score)
    if found is None:
        return "–", ""
    value, low, high = (figure(part, 3, signed=signed) for part in (found.value, found.low, found.high))
    return value, f"({low}, {high})" if found.known else ""


def _slice(one: slices.Slice) -> dict[str, Any]:
    gap, p = interval(one.accuracy_gap), number(one.p.get("value"))
    sure = p < 1 - statistics.LEVEL and gap is not None
    return {
        "name": one.name,
        "count": figure(whole(one.accuracy.get("count"))),
        "cells": [_spelt(one.accuracy), _spelt(one.accuracy_gap, signed=True)],
        "judgement": "open" if not sure or gap is None else "worse" if gap.value < 0 else "better",
        "p": p_value(p),
        "f1": [_spelt(one.macro_f1), _spelt(one.macro_f1_gap, signed=True)],
    }


# Probabilities


def _reliability(answers: Single | Multi, scores: Record) -> Figure:
    """Bins of equally many decisions, and, where a temperature was fitted, those of the probabilities it gives."""
    bins = reliability(*answers.decisions())
    frame = Frame(across=Scale(low=0, high=1), up=Scale(low=0, high=1), marks_across=5, marks_up=5)
    parts = [frame.curve([(0.0, 0.0), (1.0, 1.0)], "raw")]
    if isinstance(answers, Single):  # several decisions of one text say less than as many texts
        spans = [(one.share, *statistics.wilson(one.frequency * one.count, one.count)) for one in bins]
        parts.append(frame.whiskers(spans, "validation"))
    parts += [frame.curve(_points(bins), "validation between"), frame.dots(_points(bins), "validation")]
    legend = [("raw", word("classes.ideal")), ("validation", word("classes.plain"))]
    notes = [word("classes.axes"), word("classes.error", error=" ".join(_spelt(scores.get("ece"))))]
    fitted = interval(scores.get("temperature"))
    rows = _rows("classes.plain", bins)
    if fitted is not None and fitted.value > 0:
        warmed = reliability(*tempered(answers, fitted.value).decisions())
        parts += [frame.curve(_points(warmed), "sample between"), frame.dots(_points(warmed), "sample")]
        legend.append(("sample", word("classes.scaled")))
        notes.append(_warmed(scores))
        rows += _rows("classes.scaled", warmed)
    columns = [word("classes.probability"), word("classes.frequency"), word("classes.count")]
    return Figure(
        title=word("classes.reliability"),
        drawing=frame.draw(*parts, height=300),
        legend=legend,
        notes=notes,
        columns=[plain(""), *columns],
        rows=rows,
    )


def _points(bins: Sequence[Bin]) -> list[Point]:
    return [(one.share, one.frequency) for one in bins]


def _rows(key: str, bins: Sequence[Bin]) -> list[list[Any]]:
    return [[word(key), figure(one.share, 3), figure(one.frequency, 3), figure(one.count)] for one in bins]


def _warmed(scores: Mapping[str, Any]) -> Both:
    temperature = scores.get("temperature")
    return word(
        "classes.warmed",
        temperature=" ".join(_spelt(temperature)),
        count=whole(table(temperature).get("count")),
        error=" ".join(_spelt(scores.get("scaled_ece"))),
    )
