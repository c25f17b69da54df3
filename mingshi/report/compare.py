"""One HTML file that tells a comparison: tables, quality against cost, forgetting against gain, the searches.

Everything that came from data or recipes is escaped by construction, as in page.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mingshi.report.compare_names import Table, caption, in_words, is_main, main_metrics, number, other_metrics
from mingshi.report.compare_plots import cost_figures, forgetting_figures, search_figures
from mingshi.report.compare_scale import scale_page
from mingshi.report.compare_words import compared
from mingshi.report.numbers import duration, figure, p_value, share
from mingshi.report.page import environment
from mingshi.report.words import Both, plain

Told = Mapping[str, Any]


def write_comparison(folder: Path, told: Told, *, language: str = "en") -> Path:
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
        .get_template("compare.html")
        .render(
            language=language,
            said=compared,
            title=title,
            notes=[(note["loud"], Both(note["said"]["en"], note["said"]["zh"])) for note in told["notes"]],
            takes=takes_table(told),
            forgotten=forgotten_tables(told),
            searches=search_figures(told),
            **(_of_rows(told) if told["scale"] is None else scale_page(told)),
        )
    )


def _of_rows(told: Told) -> dict[str, Any]:
    """What the page says of methods; of amounts of data, see compare_scale.py."""
    main = main_metrics(told)
    return {
        "kicker": compared("title"),
        "about": [compared("model", {"model": told["model"], "seeds": ", ".join(map(str, told["seeds"]))})],
        "verdicts": [],
        "curves": [],
        "tables": [metric_table(told, name) for name in main],
        "others": [metric_table(told, name) for name in other_metrics(told)],
        "how": compared("how"),
        "costs": cost_figures(told, main),
        "trades": forgetting_figures(told, main),
    }


# Tables


def takes_table(told: Told) -> Table:
    """Weights, time, speed, memory, learning rate and cost of each method."""
    priced = told["price"] is not None
    keys = ("method", "trains", "time", "speed", "memory", "rate", "cost" if priced else "core_hours")
    rows = [[plain(row["name"]), *_takes(row, priced)] for row in told["rows"]]
    return Table(caption=compared("takes"), head=[compared(key) for key in keys], rows=rows)


def _takes(row: Told, priced: bool) -> list[Both]:
    if not row["seeds"]:
        return [compared("failed"), *[plain("")] * 5]
    memory = f"{row['memory_bytes'] / 1e9:.2f} GB" if row["memory_bytes"] else "–"
    return [
        share(row["trainable"], row["parameters"], decimals=2),
        duration(row["seconds"]),
        plain(f"{row['tokens_per_second']:,.0f}"),
        plain(memory),
        plain(", ".join(figure(rate) for rate in row["rates"])),
        plain(figure(row["cost"] if priced else row["core_hours"])),
    ]


def metric_table(told: Told, name: str) -> Table:
    """One metric of all methods: value, change from the base model, difference from the first row."""
    higher = next(row["scores"][name]["higher_is_better"] for row in told["rows"] if name in row["scores"])
    head = [compared("method"), compared("value"), compared("change"), compared("against", {"first": told["first"]})]
    head += [compared("p"), compared("differs")]
    rows = []
    if name in told["base"]:
        rows.append([compared("base"), number(told["base"][name]), *[plain("")] * 4])
    for row in told["rows"]:
        score = row["scores"].get(name)
        if score is not None:
            against = score.get("against")
            tested = [plain(""), plain("")]
            if against is not None:
                claim = {True: "yes", False: "no", None: "unclaimed"}[against["differs"]]
                tested = [plain(p_value(against["p_holm"])), compared(claim)]
            cells = [number(score), number(score["change"], signed=True), number(against, signed=True)]
            rows.append([plain(row["name"]), *cells, *tested])
    return Table(caption=caption(name, higher), name=name, head=head, rows=rows)


def forgotten(rows: Sequence[Told]) -> list[tuple[str, str]]:
    """Task and metric, where items can be lost or won."""
    found = dict.fromkeys(
        (task, metric)
        for row in rows
        for task, metrics in row.get("forgetting", {}).items()
        for metric in metrics
        if is_main(metric)
    )
    return list(found)


def forgotten_tables(told: Told) -> list[Table]:
    tables = []
    for task, metric in forgotten(told["rows"]):
        rows = []
        for row in told["rows"]:
            found = row.get("forgetting", {}).get(task, {}).get(metric)
            if found is not None:
                kept = plain("") if found["retained"] is None else share(found["retained"], 1.0)
                counts = [plain("" if found[part] is None else figure(found[part], 1)) for part in ("lost", "won")]
                rows.append([plain(row["name"]), *counts, kept])
        head = [compared(key) for key in ("method", "lost", "won", "retained")]
        name = f"{task}.{metric}"
        tables.append(Table(caption=compared("forgetting", {"name": in_words(name)}), name=name, head=head, rows=rows))
    return tables
