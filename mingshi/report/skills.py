"""One HTML file that tells a mixture of skills: the matrix in colour, a table for each skill, the trade over k, tokens.

Everything that came from data or recipes is escaped by construction, as in page.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mingshi.report.compare_names import Table, in_words, number
from mingshi.report.numbers import duration, figure, p_value, share
from mingshi.report.page import environment
from mingshi.report.skills_plots import bars_figure, matrix_figure, trade_figure
from mingshi.report.skills_words import row_name, said
from mingshi.report.words import Both, plain

Told = Mapping[str, Any]


def write_skills(folder: Path, told: Told, *, language: str = "en") -> Path:
    """Write the folder's `report.html`, whole or not at all, and return that file's path."""
    path = folder / "report.html"
    draft = folder / f".report.{os.getpid()}.html"
    draft.write_text(render(told, title=folder.resolve().name, language=language), encoding="utf-8")
    draft.replace(path)
    return path


def render(told: Told, *, title: str, language: str = "en") -> str:
    """The page, opening in `language` (en or zh). Equal results give equal bytes."""
    columns = columns_of(told)
    return (
        environment()
        .get_template("skills.html")
        .render(
            language=language,
            said=said,
            title=title,
            about=about(told),
            notes=[(note["loud"], Both(note["said"]["en"], note["said"]["zh"])) for note in told["notes"]],
            matrix=matrix_figure(told, columns),
            tables=[metric_table(told, name, heading) for name, heading in columns],
            costs=costs_table(told),
            bars=bars_figure(told),
            stages=stages_table(told),
            trade=trade_figure(told, columns),
            again=again_table(told),
            starts=starts(told),
            remarks=remarks(told),
        )
    )


def about(told: Told) -> Both:
    budget, seeds = f"{told['budget']:,.0f}", ", ".join(map(str, told["seeds"]))
    return said("about", {"model": told["model"], "general": told["general"], "budget": budget, "seeds": seeds})


def columns_of(told: Told) -> list[tuple[str, Both]]:
    """What is shown of every strategy: the mean where there is one, and each skill's headline, with its name."""
    found = [(told["mean"], said("mean"))] if told["mean"] else []
    return found + [(skill["metric"], in_words(skill["metric"])) for skill in told["skills"]]


def metric_table(told: Told, name: str, heading: Both) -> Table:
    head = [said(key) for key in ("strategy", "value", "against", "p", "differs")]
    rows = [[said("base"), number(told["base"].get(name)), *[plain("")] * 3]]
    for row in told["rows"]:
        score = row["scores"].get(name)
        if score is None:
            rows.append([row_name(row), said("failed"), *[plain("")] * 3])
            continue
        against = score.get("against")
        tested = [plain(""), plain("")]
        if against is not None:
            claim = {True: "yes", False: "no", None: "unclaimed"}[against["differs"]]
            tested = [plain(p_value(against["p_holm"])), said(claim)]
        rows.append([row_name(row), number(score), number(against, signed=True), *tested])
    return Table(caption=heading, name=name, head=head, rows=rows)


def costs_table(told: Told) -> Table:
    """Tokens as measured, by stage and in all, and time; with and without what the experts took."""
    head = [said(key) for key in ("strategy", "stages", "read", "spent", "time", "whole_time")]
    rows = []
    for row in told["rows"]:
        if not row["seeds"]:
            rows.append([row_name(row), said("failed"), *[plain("")] * 4])
            continue
        parts = plain(" + ".join(f"{tokens:,.0f}" for tokens in row["trained"]) or "–")
        counts = [plain(f"{row[key]:,.0f}") for key in ("read", "spent")]
        times = [duration(row[key]) for key in ("seconds", "spent_seconds")]
        rows.append([row_name(row), parts, *counts, *times])
    return Table(caption=said("costs"), head=head, rows=rows, notes=[said("counted")])


def stages_table(told: Told) -> Table:
    """Each stage's share of each skill: rows, passes and planned tokens."""
    head = [said(key) for key in ("strategy", "stage", "skill", "rows", "passes", "wanted")]
    head[1] = said("stages")
    rows = []
    for row in told["rows"]:
        for place, stage in enumerate(row["stages"], start=1):
            number_of = place + (row["kind"] == "experts_first")
            for skill, tokens in stage["tokens"].items():
                cells = [plain(f"{stage['rows'][skill]:,.0f}"), plain(f"{stage['passes'][skill]:.3f}")]
                heading = [row_name(row), said("stage", {"number": number_of}), plain(skill)]
                rows.append([*heading, *cells, plain(f"{tokens:,.0f}")])
    return Table(caption=said("tokens"), head=head, rows=rows)


def again_table(told: Told) -> Table | None:
    """For each k: the specialised rows and tokens that the second stage reads again."""
    rows = []
    for row in sorted((one for one in told["rows"] if one["kind"] == "dmt"), key=lambda one: -one["k"]):
        second = row["stages"][-1]
        special = [name for name in second["tokens"] if name != told["general"]]
        counts = [sum(second[part][name] for name in special) for part in ("rows", "tokens")]
        rows.append([plain(f"{row['k']:.4g}"), *(plain(f"{count:,.0f}") for count in counts)])
    head = [said(key) for key in ("k", "specialised", "wanted")]
    return Table(caption=said("trade"), head=head, rows=rows) if rows else None


def starts(told: Told) -> list[Table]:
    """For each seed: every expert on validation rows, and which was taken."""
    tables = []
    for seed, start in told["starts"].items():
        skills = list(next(iter(start["scores"].values())))
        rows = [
            [
                plain(name),
                *(plain(figure(scores.get(skill), 4)) for skill in skills),
                plain(figure(start["means"][name], 4)),
            ]
            for name, scores in start["scores"].items()
        ]
        heading = said("start", {"seed": seed, "chosen": start["chosen"], "favours": start["favours"]})
        head = [said("expert"), *(plain(skill) for skill in skills), said(f"by_{start['by']}")]
        tables.append(Table(caption=heading, head=head, rows=rows))
    return tables


def remarks(told: Told) -> list[Both]:
    """Which expert taught how much, and what a chosen rank lost."""
    found = []
    for row in told["rows"]:
        if row["teachers"]:
            shares = [(name, share(part, 1.0)) for name, part in row["teachers"].items()]
            listed = Both(*(", ".join(f"{name} {part[side]}" for name, part in shares) for side in (0, 1)))
            found.append(said("teachers", {"name": row_name(row), "shares": listed}))
        if row["truncation"] is not None:
            found.append(said("truncation", {"name": row_name(row), "share": share(row["truncation"], 1.0)}))
    return found
