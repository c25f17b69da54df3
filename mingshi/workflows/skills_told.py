"""A mixture of skills as lines for a person, in English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mingshi.report.both import Both
from mingshi.report.numbers import p_value
from mingshi.report.skills import about, columns_of, remarks
from mingshi.report.skills_words import row_name, said
from mingshi.workflows.score_told import table


def described(told: Mapping[str, Any], *, language: str) -> list[str]:
    """What each strategy took, a table for each skill, which start was chosen, and what must be noted."""

    def word(both: Both) -> str:
        return both.zh if language == "zh" else both.en

    lines = [word(about(told)), "", *_costs(told, word)]
    for metric, heading in columns_of(told):
        lines += ["", word(heading), *_metric(told, metric, word)]
    for seed, start in told["starts"].items():
        values = {"seed": seed, "chosen": start["chosen"], "favours": start["favours"]}
        lines += ["", word(said("start", values))]
    lines += [word(remark) for remark in remarks(told)]
    lines += [""] if told["notes"] else []
    for note in told["notes"]:
        lines.append(f"{'!' if note['loud'] else '-'} {note['said'][language]}")
    return lines


def _costs(told: Mapping[str, Any], word: Any) -> list[str]:
    cells = [[word(said(key)) for key in ("strategy", "read", "spent", "time", "whole_time")]]
    for row in told["rows"]:
        if not row["seeds"]:
            cells.append([word(row_name(row)), word(said("failed")), "", "", ""])
            continue
        counts = [f"{row[key]:,.0f}" for key in ("read", "spent")]
        times = [f"{row[key]:.0f} s" for key in ("seconds", "spent_seconds")]
        cells.append([word(row_name(row)), *counts, *times])
    return table(cells)


def _metric(told: Mapping[str, Any], metric: str, word: Any) -> list[str]:
    keys = ("strategy", "value", "interval", "against", "interval", "p", "differs")
    cells = [[word(said(key)) for key in keys]]
    if metric in told["base"]:
        cells.append([word(said("base")), *_number(told["base"][metric], ".4f", word), *[""] * 4])
    for row in told["rows"]:
        score = row["scores"].get(metric)
        if score is None:
            continue
        against = score.get("against")
        tested = ["", ""]
        if against is not None:
            claim = {True: "yes", False: "no", None: "unclaimed"}[against["differs"]]
            tested = ["" if against["p_holm"] is None else p_value(against["p_holm"]), word(said(claim))]
        cells.append([word(row_name(row)), *_number(score, ".4f", word), *_number(against, "+.4f", word), *tested])
    return table(cells)


def _number(score: Mapping[str, Any] | None, form: str, word: Any) -> list[str]:
    """The value and its interval."""
    if score is None or score["value"] is None:
        return ["", ""]
    if score["low"] is None or score["high"] is None:
        return [f"{score['value']:{form}}", ""]
    ends = {"low": f"{score['low']:{form}}", "high": f"{score['high']:{form}}"}
    return [f"{score['value']:{form}}", word(said("to", ends))]
