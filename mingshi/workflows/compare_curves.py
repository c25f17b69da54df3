"""How much data: each model's scores by amount, and from which amount on more rows add nothing that can be shown.

A curve's points are amounts of the same rows under the same seeds, measured on the same items, and the base model is
the amount 0. Every two amounts are compared in pairs (statistics.crossed). The tests go up the curve, as a fixed
sequence does (Maurer, Hothorn and Lehmacher 1995): whether any larger amount is better than the base, by Holm; if one
is, whether any is better than the smallest amount; and so on. Where nothing is gained beyond an amount, its own few
tests alone can say otherwise, so the curve is said to rise beyond it in at most 5 %, without a correction for those
before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mingshi.evals import statistics
from mingshi.record import Run
from mingshi.report.both import Both
from mingshi.report.compare_names import amount, in_words
from mingshi.report.compare_words import compared, noted
from mingshi.report.numbers import figure
from mingshi.workflows.compare_columns import Measured, as_dict, base_scores, paired, stacked
from mingshi.workflows.comparison import FEWEST_SEEDS, Method, Plan

Pair = dict[str, Any]  # `from` and `to`, amounts, and their difference with its interval and test


def scale_told(plan: Plan, measured: Mapping[str, Measured], runs: Mapping[str, Mapping[int, Run]]) -> dict[str, Any]:
    """The amounts, how long each was trained, and each model's curves by metric."""
    stage = plan.methods[0].recipe.stages[0]
    by_model: dict[str, list[Method]] = {}
    for method in plan.methods:
        if method.cell is not None:
            by_model.setdefault(method.cell.label, []).append(method)
    return {
        "steps": stage.steps,
        "epochs": None if stage.steps is not None else stage.epochs or 1.0,
        "models": [_model(label, methods, measured, runs) for label, methods in by_model.items()],
    }


def _model(
    label: str, methods: Sequence[Method], measured: Mapping[str, Measured], runs: Mapping[str, Mapping[int, Run]]
) -> dict[str, Any]:
    mine = {method.name: measured[method.name] for method in methods if method.name in measured}
    found = {method.cell.rows: mine[method.name] for method in methods if method.cell and method.name in mine}
    names = dict.fromkeys(name for times in found.values() for one in times.values() for name in one["after"])
    cells = [
        {"rows": method.cell.rows, "used": _used(runs.get(method.name, {})), "row": method.name}
        for method in methods
        if method.cell is not None
    ]
    curves = {name: curve(found, name) for name in names}
    for name, one in curves.items():
        if one["verdict"] is not None:
            one["verdict"]["said"] = _said(label, name, one)
    return {
        "name": label,
        "model": methods[0].recipe.model,
        "base": base_scores(mine),
        "cells": cells,
        "curves": curves,
    }


def _used(runs: Mapping[int, Run]) -> int | None:
    """Rows that were trained on; fewer than the amount where some could not be used."""
    for run in runs.values():
        used = [entry.get("used") for entry in run.data.get("sources", ()) if entry["role"] == "train"]
        return int(used[0]) if used and used[0] is not None else None
    return None


def unused(scale: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A note for each model that was trained on fewer rows than asked for."""
    notes = []
    for model in scale["models"]:
        fewer = [cell for cell in model["cells"] if cell["used"] is not None and cell["used"] < cell["rows"]]
        if fewer:
            told = ", ".join(f"{cell['used']:,}/{cell['rows']:,}" for cell in fewer)
            notes.append(noted("used", {"name": model["name"], "used": told}))
    return notes


def curve(found: Mapping[int, Measured], name: str) -> dict[str, Any]:
    """Every pair of amounts, the smaller first, and the verdict; none without items or a direction that is better."""
    first = next(one["after"][name] for times in found.values() for one in times.values() if name in one["after"])
    amounts = [0, *sorted(found)]
    pairs = []
    for place, few in enumerate(amounts):
        for many in amounts[place + 1 :]:
            pair = _pair(found, few, many, name)
            if pair is not None:
                pairs.append(pair)
    _adjust(pairs, first.higher)
    whole = len(amounts) > 2 and len(pairs) == len(amounts) * (len(amounts) - 1) // 2
    told = verdict(pairs, higher=first.higher) if whole and first.higher is not None else None
    return {"higher_is_better": first.higher, "signature": first.signature, "pairs": pairs, "verdict": told}


def _pair(found: Mapping[int, Measured], few: int, many: int, name: str) -> Pair | None:
    """The score at `many` rows less that at `few`, on the seeds that both have; 0 rows are the base model."""
    seeds = sorted(set(found[many]) & set(found[few])) if few else sorted(found[many])
    less = stacked(found[few], name, "after", seeds) if few else stacked(found[many], name, "before", seeds)
    difference = paired(stacked(found[many], name, "after", seeds), less)
    return None if difference is None else {"from": few, "to": many, "seeds": len(seeds), **as_dict(*difference)}


def _adjust(pairs: Sequence[Pair], higher: bool | None) -> None:
    """Corrected p-values: by Holm for the pairs that begin at one amount, and not below the best of those before it."""
    sign, before = {True: 1.0, False: -1.0, None: 0.0}[higher], 0.0
    for few in sorted({pair["from"] for pair in pairs}):
        mine = [pair for pair in pairs if pair["from"] == few]
        corrected = statistics.holm([math.nan if pair["p"] is None else pair["p"] for pair in mine])
        for pair, p in zip(mine, corrected, strict=True):
            pair["p_holm"] = max(before, p) if math.isfinite(p) else None
            known = pair["p_holm"] is not None and pair["p_holm"] < 1 - statistics.LEVEL
            pair["differs"] = known if pair["seeds"] >= FEWEST_SEEDS else None
        better = [pair["p_holm"] for pair in mine if pair["p_holm"] is not None and (_gain(pair, sign) > 0 or not sign)]
        before = max(before, min(better, default=1.0))


def verdict(pairs: Sequence[Pair], *, higher: bool) -> dict[str, Any]:
    """What the pairs of a curve come to: `kind`, the amount `rows` that it is about, and what is left beyond it.

    `rows` is the first amount over which no larger one is told apart as better. It is the base model's, 0 (`nothing`);
    or the largest (`rising`: the last step still helped); or one between (`enough`), which must itself be told apart
    from the base, else the gain is there but where it ends cannot be said (`open`). Too few seeds: `unclaimed`.
    `most` is the largest gain that the intervals of larger amounts over this one leave possible, in the metric's unit,
    and `worse` are the larger amounts that are told apart as worse.
    """
    amounts = sorted({pair[end] for pair in pairs for end in ("from", "to")})
    if any(pair["differs"] is None for pair in pairs):
        seeds = min(pair["seeds"] for pair in pairs)
        return {"kind": "unclaimed", "rows": None, "most": None, "worse": [], "seeds": seeds}
    sign = 1.0 if higher else -1.0
    told = {(pair["from"], pair["to"]): _gain(pair, sign) for pair in pairs if pair["differs"]}
    last = amounts[-1]
    rows = next(
        few for few in amounts if few == last or all(told.get((few, many), 0.0) <= 0 for many in amounts if many > few)
    )
    kind = "nothing" if rows == 0 else "rising" if rows == last else "enough"
    if kind == "enough" and told.get((0, rows), 0.0) <= 0:
        kind = "open"
    ends = [_end(pair, sign) for pair in pairs if pair["from"] == rows]
    return {
        "kind": kind,
        "rows": rows,
        "most": max(0.0, *ends) if ends else None,
        "worse": [many for many in amounts if many > rows and told.get((rows, many), 0.0) < 0],
    }


def _gain(pair: Pair, sign: float) -> float:
    return sign * (pair["value"] or 0.0)


def _end(pair: Pair, sign: float) -> float:
    """The largest gain that the interval leaves possible; that which was measured, where there is no interval."""
    end = pair["high"] if sign > 0 else pair["low"]
    return _gain(pair, sign) if end is None else sign * end


def _said(label: str, name: str, told: Mapping[str, Any]) -> dict[str, str]:
    """The verdict as a sentence in both languages."""
    found, pairs = told["verdict"], told["pairs"]
    values: dict[str, object] = {
        "model": label,
        "metric": in_words(name),
        "rows": f"{found['rows']:,}" if found["rows"] else "",
    }
    values |= {"most": amount(name, found["most"]), "fewest": FEWEST_SEEDS, "count": found.get("seeds")}
    if found["kind"] == "rising":
        step = [pair for pair in pairs if pair["to"] == found["rows"]][-1]
        values |= {part: figure(step[part], 4, signed=True) for part in ("low", "high")}
        values |= {"before": f"{step['from']:,}", "value": amount(name, step["value"], signed=True)}
    said = compared(f"verdict.{found['kind']}", values)
    if found["worse"]:
        worse = compared("verdict.worse", {"rows": ", ".join(f"{rows:,}" for rows in found["worse"])})
        said = Both(said.en + worse.en, said.zh + worse.zh)
    return {"en": said.en, "zh": said.zh}
