"""One HTML file that tells a search: the best again, how it was found, what mattered, every trial.

Everything that came from data or recipes is escaped by construction, as in page.py.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mingshi.directions import plain_name
from mingshi.report.compare import metric_table
from mingshi.report.compare_names import Table, main_metrics, other_metrics
from mingshi.report.numbers import figure, share
from mingshi.report.page import environment
from mingshi.report.search_plots import (
    cell,
    curves_figure,
    history_figure,
    importance_figure,
    parallel_figure,
    short,
    slice_figures,
)
from mingshi.report.search_words import said
from mingshi.report.summary import metric_name
from mingshi.report.words import Both, plain

Told = Mapping[str, Any]


def write_search(folder: Path, told: Told, *, language: str = "en") -> Path:
    """Write the folder's `report.html`, whole or not at all, and return that file's path."""
    path = folder / "report.html"
    draft = folder / f".report.{os.getpid()}.html"
    draft.write_text(render(told, title=folder.resolve().name, language=language), encoding="utf-8")
    draft.replace(path)
    return path


def render(told: Told, *, title: str, language: str = "en") -> str:
    """The page, opening in `language` (en or zh). Equal results give equal bytes."""
    drawn = [history_figure(told), curves_figure(told)]
    tested = told["tested"]
    return (
        environment()
        .get_template("search.html")
        .render(
            language=language,
            said=said,
            title=title,
            about=about(told),
            verdict=verdict(told),
            saved=saved(told),
            ready=said("ready", {"command": told["best"]["command"]}) if told["best"] is not None else None,
            notes=[(note["loud"], Both(note["said"]["en"], note["said"]["zh"])) for note in told["notes"]],
            again=again_table(told) if told["again"] else None,
            tested=[metric_table(tested, name) for name in main_metrics(tested)] if tested is not None else [],
            others=[metric_table(tested, name) for name in other_metrics(tested)] if tested is not None else [],
            course=[one for one in drawn if one is not None],
            mattered=[one for one in (importance_figure(told), parallel_figure(told)) if one is not None],
            slices=slice_figures(told),
            trials=trials_table(told),
        )
    )


def metric_of(told: Told) -> Both:
    """The metric's name with the direction that is better."""
    name = metric_name(plain_name(told["metric"]), told["metric"].replace("_", " "))
    way = said("higher" if told["higher_is_better"] else "lower")
    return Both(f"{name.en} ({way.en})", f"{name.zh}（{way.zh}）")


def about(told: Told) -> Both:
    values = {"model": told["model"], "count": len(told["trials"]), "sampler": told["sampler"], "seed": told["seed"]}
    return said("about", values | {"metric": metric_of(told)})


def verdict(told: Told) -> Both:
    best = told["best"]
    if best is None:
        return said("none")
    name = metric_name(plain_name(told["metric"]), told["metric"].replace("_", " "))
    again = best["again"] is not None
    values = {"trial": best["trial"], "metric": name, "score": figure(best["again" if again else "chosen"], 4)}
    return said("verdict.again" if again else "verdict", values)


def saved(told: Told) -> Both:
    """What the trials read, beside training all of them whole."""
    tokens = told["tokens"]
    part = share(tokens["read"], tokens["whole"], decimals=0)
    return said("saved", {"read": f"{tokens['read']:,}", "whole": f"{tokens['whole']:,}", "share": part})


def again_table(told: Told) -> Table:
    """The best trials under new seeds, the best mean first."""
    fields = list(told["space"])
    seeds = sorted({seed for row in told["again"] for seed in row["seeds"]})
    head = [said("trial"), *(plain(short(path)) for path in fields), said("chosen")]
    head += [said("seed", {"seed": seed}) for seed in seeds] + [said("mean")]
    rows = []
    for row in told["again"]:
        of_seed = dict(zip(row["seeds"], row["values"], strict=False))
        rows.append(
            [
                plain(str(row["trial"])),
                *(plain(cell(row["point"][path]), 200) for path in fields),
                plain(figure(row["chosen"], 4)),
                *(plain(figure(of_seed.get(seed), 4)) for seed in seeds),
                _mean(row),
            ]
        )
    return Table(caption=said("again"), head=head, rows=rows, notes=[said("again.how")])


def _mean(row: Told) -> Both:
    if row["mean"] is None or row["low"] is None:
        return plain(figure(row["mean"], 4))
    span = said("to", {"low": figure(row["low"], 4), "high": figure(row["high"], 4)})
    return Both(f"{figure(row['mean'], 4)} ({span.en})", f"{figure(row['mean'], 4)}（{span.zh}）")


def _state(row: Told) -> Both:
    """How a trial ended, and why where it failed."""
    state = said(f"state.{row['state']}")
    reason = plain(row["reason"], 200).en
    return Both(f"{state.en}: {reason}", f"{state.zh}：{reason}") if row["state"] == "failed" else state


def trials_table(told: Told) -> Table:
    """Every trial: what it tried, its score at each rung, what it read, and how to run it by itself."""
    fields = list(told["space"])
    head = [said("trial"), said("state"), *(plain(short(path)) for path in fields)]
    head += [said("at", {"tokens": f"{tokens:,}"}) for tokens in told["rungs"]]
    head += [said("tokens"), said("command")]
    rows = []
    for row in told["trials"]:
        scores = [figure(score, 4) for score in row["scores"]]
        scores += [""] * (len(told["rungs"]) - len(scores))
        rows.append(
            [
                plain(str(row["trial"])),
                _state(row),
                *(plain(cell(row["point"][path]), 200) for path in fields),
                *map(plain, scores),
                plain(f"{row['tokens']:,}"),
                plain(row["command"], 400),
            ]
        )
    return Table(caption=said("trials"), head=head, rows=rows)
