"""A search as lines for a person, in English or Chinese."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mingshi.report.both import Both
from mingshi.report.compare_names import caption, main_metrics
from mingshi.report.search import about, again_table, saved, verdict
from mingshi.report.search_plots import short
from mingshi.report.search_words import said
from mingshi.workflows.score_told import table


def described(told: Mapping[str, Any], *, language: str) -> list[str]:
    """The best again, what it came to on the test rows, what mattered, what the search read, what must be noted."""

    def word(both: Both) -> str:
        return both.zh if language == "zh" else both.en

    lines = [word(about(told)), word(verdict(told)), word(saved(told))]
    if told["again"]:
        again = again_table(told)
        cells = [[word(one) for one in again.head], *([word(one) for one in row] for row in again.rows)]
        lines += ["", word(again.caption), *table(cells)]
    tested = told["tested"]
    for name in main_metrics(tested) if tested is not None else ():
        higher = next(row["scores"][name]["higher_is_better"] for row in tested["rows"] if name in row["scores"])
        cells = [[word(said("trial")), word(said("mean")), ""]]
        for row in tested["rows"]:
            score = row["scores"].get(name)
            if score is not None and score["value"] is not None:
                known = score["low"] is not None and score["high"] is not None
                ends = {"low": f"{score['low']:.4f}", "high": f"{score['high']:.4f}"} if known else None
                cells.append([row["name"], f"{score['value']:.4f}", word(said("to", ends)) if ends else ""])
        lines += ["", f"{word(said('tested'))}: {word(caption(name, higher))}", *table(cells)]
    if told["importance"]:
        order = sorted(told["importance"].items(), key=lambda pair: -pair[1])
        lines += ["", f"{word(said('mattered'))}: " + ", ".join(f"{short(path)} {part:.2f}" for path, part in order)]
    lines += [""] if told["notes"] else []
    for note in told["notes"]:
        lines.append(f"{'!' if note['loud'] else '-'} {note['said'][language]}")
    return lines
