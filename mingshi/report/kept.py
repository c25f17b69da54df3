"""What a run kept and forgot, as plain values for its page: tasks, the matrix of stages, the way from the start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mingshi.directions import plain_name
from mingshi.record import Run
from mingshi.report.curves import Figure, steps_scale
from mingshi.report.numbers import figure
from mingshi.report.plots import Frame, scale
from mingshi.report.summary import Record, Stage, interval, metric_name, number, several, table, whole
from mingshi.report.words import Both, word

ROWS_AT_MOST = 40
TASKS_AT_MOST = 12


def kept(run: Run) -> dict[str, Any] | None:
    """The section's parts; None for a run without tasks."""
    told = table(run.run.get("forgetting"))
    tasks = table(told.get("tasks"))
    if not tasks:
        return None
    rows = [_row(name, metric, table(change)) for name, task in tasks.items() for metric, change in _metrics(task)]
    return {
        "rows": rows[:ROWS_AT_MOST],
        "others": max(0, len(rows) - ROWS_AT_MOST),
        "fallen": [row["fallen"] for row in rows if row["fallen"] is not None],
        "matrix": _matrix(told, tasks),
        "transfers": [_transfer(table(one)) for one in several(told.get("transfer")) if table(one).get("average")],
    }


def _metrics(task: object) -> list[tuple[str, Record]]:
    return [(str(name), table(change)) for name, change in table(table(task).get("metrics")).items()]


def _row(task: str, metric: str, change: Record) -> dict[str, Any]:
    """One metric of one task. Of counts without a direction there is nothing lost or won."""
    name = metric_name(plain_name(metric.partition(".")[2]), metric.partition(".")[2])
    better = change.get("better")
    return {
        "task": task,
        "name": name,
        "form": bool(change.get("format")),
        "lost": figure(change.get("lost")),
        "won": figure(change.get("won")),
        "p": figure(change.get("p_value")),
        "retained": _spelt(change.get("retained")),
        "judgement": "open" if better is None else "better" if better else "worse",
        "fallen": _fallen(task, name) if better is False and not change.get("format") else None,
    }


def _fallen(task: str, metric: Both) -> Both:
    return word("kept.dropped", task=task, metric=metric)


def _spelt(score: object, *, signed: bool = False) -> str:
    """A score and its interval; a dash where there is none."""
    found = interval(score)
    if found is None:
        return "–"
    value, low, high = (figure(part, 3, signed=signed) for part in (found.value, found.low, found.high))
    return f"{value} ({low}, {high})" if found.known else value


def _matrix(told: Record, tasks: Mapping[str, Any]) -> dict[str, Any] | None:
    """Rows of times and columns of tasks; of one stage it would say what the table of scores says."""
    rows = several(told.get("matrix"))
    if len(rows) < 3:
        return None
    names = list(tasks)[:TASKS_AT_MOST]
    metrics = table(told.get("metrics"))
    return {
        "columns": [_column(name, str(metrics.get(name)), table(tasks[name])) for name in names],
        "rows": [
            (
                word("kept.before") if place == 0 else word("kept.after", number=place),
                [_spelt(row.get(name)) for name in names],
            )
            for place, row in enumerate(rows)
        ],
    }


def _column(task: str, metric: str, told: Record) -> tuple[str, Both, Both | None]:
    name = metric.partition(".")[2]
    taught = told.get("stage")
    by = word("kept.taught", number=whole(taught) + 1) if isinstance(taught, int) else None
    return task, metric_name(plain_name(name), name), by


def _transfer(told: Record) -> tuple[Both, list[tuple[Both, str]]]:
    name = str(told.get("metric")).partition(".")[2]
    lines = [(word("kept.average"), _spelt(told.get("average")))]
    for kind in ("backward", "forward"):
        if told.get(kind):
            lines.append((word(f"kept.{kind}"), _spelt(told.get(kind), signed=True)))
    if told.get("forgetting"):
        lines.append((word("kept.forgetting"), _spelt(told.get("forgetting"))))
    return metric_name(plain_name(name), name), lines


def divergence_figure(run: Run, stage: Stage) -> Figure | None:
    """How far the network went from where the stage began, on the rows that are held out."""
    points = _points(run.evals, stage.number)
    if not points:
        return None
    frame = Frame(
        across=steps_scale(stage), up=scale([0.0, *(value for _, value in points)]), marks_across=3, marks_up=3
    )
    drawn = (frame.curve(points, "validation between"), frame.dots(points, "validation"))
    return Figure(title=word("kept.divergence"), drawing=frame.draw(*drawn, height=110))


def _points(evals: Sequence[Record], stage: int) -> list[tuple[float, float]]:
    found = [
        (float(whole(line.get("step"))), number(table(table(line.get("scores")).get("kl")).get("value")))
        for line in evals
        if line.get("kind") == "divergence" and whole(line.get("stage")) == stage
    ]
    return [(0.0, 0.0), *sorted(found)] if found else []
