"""A comparison as lines for a person, in English or Chinese."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from mingshi.report.both import Both
from mingshi.report.compare import forgotten
from mingshi.report.compare_names import caption, in_words, main_metrics
from mingshi.report.compare_scale import about, steps, verdicts
from mingshi.report.compare_words import compared
from mingshi.report.numbers import p_value
from mingshi.workflows.score_told import table


def described(told: Mapping[str, Any], *, language: str) -> list[str]:
    """What each method takes, a table for each of the main metrics, what was forgotten, what must be noted."""

    def said(both: Both) -> str:
        return both.zh if language == "zh" else both.en

    def word(key: str, values: Mapping[str, object] | None = None) -> str:
        return said(compared(key, values))

    scaled = told["scale"] is not None
    seeds = {"model": told["model"], "seeds": ", ".join(map(str, told["seeds"]))}
    lines = [said(line) for line in about(told)] if scaled else [word("model", seeds)]
    lines += ["", *_takes(told, word)]
    for name in main_metrics(told):
        lines += ["", _heading(told, name, said), *(_scaled if scaled else _metric)(told, name, word)]
        lines += [said(verdict) for verdict in verdicts(told, name)] if scaled else []
    lines += _forgotten(told, word)
    lines += [""] if told["notes"] else []
    for note in told["notes"]:
        lines.append(f"{'!' if note['loud'] else '-'} {note['said'][language]}")
    return lines


def _takes(told: Mapping[str, Any], word: Any) -> list[str]:
    priced = told["price"] is not None
    head = [word(key) for key in ("method", "trains", "time", "speed", "memory", "rate")]
    cells = [[*head, word("cost" if priced else "core_hours")]]
    for row in told["rows"]:
        if not row["seeds"]:
            cells.append([row["name"], word("failed"), "", "", "", "", ""])
            continue
        memory = f"{row['memory_bytes'] / 1e9:.2f} GB" if row["memory_bytes"] else ""
        cells.append(
            [
                row["name"],
                f"{row['trainable'] / row['parameters']:.2%}",
                f"{row['seconds']:.0f} s",
                f"{row['tokens_per_second']:,.0f}",
                memory,
                ", ".join(f"{rate:.3g}" for rate in row["rates"]),
                f"{row['cost'] if priced else row['core_hours']:.3g}",
            ]
        )
    return table(cells)


def _heading(told: Mapping[str, Any], name: str, said: Callable[[Both], str]) -> str:
    higher = next(row["scores"][name]["higher_is_better"] for row in told["rows"] if name in row["scores"])
    return f"{said(caption(name, higher))}  {name}"


def _metric(told: Mapping[str, Any], name: str, word: Any) -> list[str]:
    head = [word("method"), word("value"), word("interval"), word("change"), word("interval")]
    head += [word("against", {"first": told["first"]}), word("interval"), word("p"), word("differs")]
    cells = [head]
    if name in told["base"]:
        cells.append([word("base"), *_number(told["base"][name], ".4f", word), *[""] * 6])
    for row in told["rows"]:
        score = row["scores"].get(name)
        if score is None:
            continue
        spans = [*_number(score, ".4f", word), *_number(score["change"], "+.4f", word)]
        cells.append([row["name"], *spans, *_tested(score.get("against"), word)])
    return table(cells)


def _scaled(told: Mapping[str, Any], name: str, word: Any) -> list[str]:
    """Each model's score by the amount of data: from the base model, and from the amount before."""
    head = [word("scale.cell"), word("value"), word("interval"), word("scale.gain"), word("interval")]
    cells = [[*head, word("scale.step"), word("interval"), word("scale.p"), word("differs")]]
    scores = {row["name"]: row["scores"].get(name) for row in told["rows"]}
    for model in told["scale"]["models"]:
        if name in model["base"]:
            place = word("scale.base", {"model": model["name"]})
            cells.append([place, *_number(model["base"][name], ".4f", word), *[""] * 6])
        before = steps(model, name)
        for cell in model["cells"]:
            if (score := scores[cell["row"]]) is not None:
                place = word("scale.place", {"model": model["name"], "rows": f"{cell['rows']:,}"})
                spans = [*_number(score, ".4f", word), *_number(score["change"], "+.4f", word)]
                cells.append([place, *spans, *_tested(before.get(cell["rows"]), word)])
    return table(cells)


def _tested(pair: Mapping[str, Any] | None, word: Any) -> list[str]:
    """A difference, its interval, its p-value for all of its tests together, and whether it is one."""
    claim = "" if pair is None else word({True: "yes", False: "no", None: "unclaimed"}[pair["differs"]])
    p = "" if pair is None or pair["p_holm"] is None else p_value(pair["p_holm"])
    return [*_number(pair, "+.4f", word), p, claim]


def _number(score: Mapping[str, Any] | None, form: str, word: Any) -> list[str]:
    """The value and its interval."""
    if score is None or score["value"] is None or not math.isfinite(score["value"]):
        return ["", ""]
    if score["low"] is None or score["high"] is None:
        return [f"{score['value']:{form}}", word("none")]
    return [
        f"{score['value']:{form}}",
        word("to", {"low": f"{score['low']:{form}}", "high": f"{score['high']:{form}}"}),
    ]


def _forgotten(told: Mapping[str, Any], word: Any) -> list[str]:
    lines = []
    for name in forgotten(told["rows"]):
        cells = [[word("method"), word("lost"), word("won"), word("retained")]]
        for row in told["rows"]:
            found = row.get("forgetting", {}).get(name[0], {}).get(name[1])
            if found is not None:
                parts = [found["lost"], found["won"]]
                retained = "" if found["retained"] is None else f"{found['retained']:.1%}"
                cells.append([row["name"], *("" if part is None else f"{part:.1f}" for part in parts), retained])
        lines += ["", word("forgetting", {"name": in_words(".".join(name))}), *table(cells)]
    return lines
