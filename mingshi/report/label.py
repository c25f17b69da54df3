"""One HTML file that tells a self-training: what is labelled at which error, each round, and the classes.

Everything that came from data or settings is escaped by construction, as in page.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mingshi.report.compare_names import Table
from mingshi.report.curves import Figure
from mingshi.report.label_words import said
from mingshi.report.numbers import share
from mingshi.report.page import environment
from mingshi.report.plots import Frame, scale
from mingshi.report.words import Both, plain

Told = Mapping[str, Any]


def write_label(folder: Path, told: Told, *, language: str = "en") -> Path:
    """Write the folder's `report.html`, whole or not at all, and return that file's path."""
    path = folder / "report.html"
    draft = folder / f".report.{os.getpid()}.html"
    draft.write_text(render(told, title=folder.resolve().name, language=language), encoding="utf-8")
    draft.replace(path)
    return path


def render(told: Told, *, title: str, language: str = "en") -> str:
    """The page, opening in `language` (en or zh). Equal results give equal bytes."""
    return (
        environment()
        .get_template("label.html")
        .render(
            language=language,
            said=said,
            title=title,
            about=about(told),
            verdict=verdict(told),
            loud=told["certificate"] is None,
            notes=notes(told),
            rounds=rounds_table(told),
            curve=curve(told),
            tested=tested_table(told),
            classes=classes_table(told),
        )
    )


def about(told: Told) -> Both:
    counts = {name: f"{sum(told[name].values()):,}" for name in ("seeds", "gold")}
    return said("about", {"model": told["model"], "unlabelled": f"{told['unlabelled']:,}", **counts})


def verdict(told: Told) -> Both:
    """What was labelled, and how sure that is."""
    asked = {"error": _percent(told["error"]), "confidence": _percent(told["confidence"])}
    found = told["certificate"]
    if found is None:
        return said("uncertified", asked)
    values = {"count": f"{told['labelled']:,}", "share": _percent(told["labelled"] / told["unlabelled"])}
    counts = {"wrong": found["wrong"], "known": found["count"], "bound": _percent(found["bound"])}
    return said("certified", asked | values | counts)


def notes(told: Told) -> list[Both]:
    """Why it ended, which model was kept, what is left over."""
    right = told["accuracy"]
    spelt = {name: _percent(right[name]) for name in ("value", "low", "high")}
    found = [
        said(f"reason.{told['reason']}"),
        said("accuracy", {"round": told["best"], "count": right["count"], **spelt}),
    ]
    if told["certificate"] is not None:
        found.append(said("holds"))
    if told["copies"]:
        found.append(said("copies", {"count": f"{told['copies']:,}"}))
    if told["to_label"]:
        found.append(said("queue", {"count": f"{told['to_label']:,}", "file": "to_label.jsonl"}))
    return found


def rounds_table(told: Told) -> Table:
    names = told["classes"]
    head = [said(key) for key in ("round", "trained_on", "right", "temperature", "changed")]
    head += [said("of_class", {"name": name}) for name in names] + [said("threshold", {"name": name}) for name in names]
    rows = []
    for one in told["rounds"]:
        heading = _round(one["number"], kept=one["number"] == told["best"])
        changed = plain("–") if one["changed"] is None else _percent(one["changed"])
        cells = [
            plain(f"{one['trained_on']:,}"),
            _percent(one["accuracy"]),
            plain(f"{one['temperature']:.2f}"),
            changed,
        ]
        counts = [f"{one['by_class'][name]:,}" for name in names]
        counts += [f"{value:.3f}" for value in one["thresholds"]] or ["–"] * len(names)
        rows.append([heading, *cells, *map(plain, counts)])
    return Table(caption=said("rounds"), head=head, rows=rows)


def _round(number: int, *, kept: bool) -> Both:
    if number == 0:
        return said("kept_first" if kept else "first")
    return said("kept", {"number": number}) if kept else plain(str(number))


def curve(told: Told) -> Figure | None:
    """Errors and their bound by the share of the certifying rows that is as sure."""
    tested = [one for one in told["tested"] if one["count"]]
    if not tested:
        return None
    whole = told["accuracy"]["count"]
    found = [(one["count"] / whole, one["wrong"] / one["count"]) for one in tested]
    bounds = [(one["count"] / whole, one["bound"]) for one in tested]
    heights = [value for _, value in (*found, *bounds)]
    across = scale([0.0, *(place for place, _ in found)], floor=0.0)
    frame = Frame(across=across, up=scale([*heights, told["error"]], floor=0.0))
    styles = (("series", said("found")), ("series second", said("bound")))
    parts = [frame.level(told["error"], "series base")]
    for (style, _), points in zip(styles, (found, bounds), strict=True):
        parts += [frame.curve(points, style), frame.dots(points, style)]
    columns = [said(key) for key in ("covered", "found", "bound")]
    rows = [
        [f"{place:.3f}", f"{one:.4f}", f"{bound:.4f}"] for (place, one), (_, bound) in zip(found, bounds, strict=True)
    ]
    return Figure(
        title=said("curve"),
        drawing=frame.draw(*parts, height=240),
        legend=list(styles),
        notes=[said("allowed")],
        columns=columns,
        rows=rows,
    )


def tested_table(told: Told) -> Table | None:
    rows = [
        [
            plain(f"{one['threshold']:.4f}"),
            plain(f"{one['count']:,}"),
            plain(f"{one['wrong']:,}"),
            _percent(one["bound"]),
            said("yes" if one["passed"] else "no"),
        ]
        for one in told["tested"]
    ]
    head = [said(key) for key in ("least", "known", "wrong", "bound", "passed")]
    return Table(caption=said("certificate"), head=head, rows=rows) if rows else None


def classes_table(told: Told) -> Table:
    last = next(one for one in told["rounds"] if one["number"] == told["best"])
    head = [said(key) for key in ("class", "seeds", "gold", "predicted_all", "labelled")]
    rows = []
    for place, name in enumerate(told["classes"]):
        counts = [told["seeds"][name], told["gold"][name], last["predicted"][place], told["labelled_by_class"][name]]
        rows.append([plain(name), *(plain(f"{count:,}") for count in counts)])
    return Table(caption=said("classes"), head=head, rows=rows)


def _percent(value: float) -> Both:
    return share(value, 1.0)
