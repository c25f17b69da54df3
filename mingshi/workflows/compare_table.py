"""The numbers of a comparison, out of the records of its runs.

A score of a method is that of several runs (seeds) on the same items, and both were drawn from more that there might
have been: its interval is over both (statistics.crossed). Every method is tested against the first row, and against
the untrained model, by the same.

Letters: `S` seeds, `N` items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mingshi.evals import statistics
from mingshi.record import Run
from mingshi.report.compare_words import noted
from mingshi.workflows.compare_columns import Measured, as_dict, base_scores, columns, finite, paired, stacked
from mingshi.workflows.compare_curves import scale_told, unused
from mingshi.workflows.compare_search import Try
from mingshi.workflows.compare_search import told as search_told
from mingshi.workflows.comparison import FEWEST_SEEDS, Method, Plan

SLACK = 0.01  # of the tokens: what runs may differ by and still have had one budget
FORMAT = 1

Runs = Mapping[str, Mapping[int, Run]]  # method -> seed


def tabulated(
    plan: Plan, *, runs: Runs, tries: Mapping[str, Sequence[Try]], failures: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """What `comparison.json` holds: the rows in the plan's order, the base model's scores, and what must be noted."""
    measured = {
        name: {seed: {when: columns(run, when) for when in ("before", "after")} for seed, run in found.items()}
        for name, found in runs.items()
    }
    rows = [
        _row(plan, method, runs.get(method.name, {}), tries.get(method.searched, ()), failures.get(method.name, ()))
        for method in plan.methods
    ]
    for row in rows:
        row["scores"] = scored(measured.get(row["name"], {}))
    if not plan.scaled:
        against_first(rows, measured)
    scale = scale_told(plan, measured, runs) if plan.scaled else None
    return {
        "format": FORMAT,
        "model": plan.methods[0].recipe.model,
        "seeds": list(plan.seeds),
        "first": rows[0]["name"],
        "price": plan.price,
        "base": base_scores(measured) if not plan.scaled else {},  # a scale's models have one each
        "rows": rows,
        "scale": scale,
        "notes": _notes(plan, runs, rows) + (unused(scale) if scale is not None else []),
    }


# Rows


def scored(measured: Measured) -> dict[str, dict[str, Any]]:
    """Each metric after training: the mean over seeds with its interval, each seed's own, the change from the base."""
    seeds = sorted(measured)
    told: dict[str, dict[str, Any]] = {}
    for name in measured[seeds[0]]["after"] if seeds else ():
        values = [measured[seed]["after"][name].value for seed in seeds if name in measured[seed]["after"]]
        first = measured[seeds[0]]["after"][name]
        after, before = (stacked(measured, name, when, seeds) for when in ("after", "before"))
        found = paired(after, None)
        plain = {"value": finite(float(np.mean(values))), "low": None, "high": None, "count": 0}
        change = paired(after, before)
        told[name] = {
            **(as_dict(found[0]) if found is not None else plain),
            "higher_is_better": first.higher,
            "signature": first.signature,
            "seeds": [finite(value) for value in values],
            "change": as_dict(*change) if change is not None else None,
        }
    return told


def against_first(rows: Sequence[dict[str, Any]], measured: Mapping[str, Measured]) -> None:
    """Against the first row, on the seeds that both have; p-values hold for all rows together (Holm), by metric."""
    first = rows[0]
    for name in first["scores"]:
        tests = []
        for row in rows[1:]:
            seeds = sorted(set(measured.get(row["name"], {})) & set(measured[first["name"]]))
            if name not in row["scores"]:
                continue
            mine, theirs = (stacked(measured[each], name, "after", seeds) for each in (row["name"], first["name"]))
            found = paired(mine, theirs)
            if found is not None:
                tests.append((row["scores"][name], as_dict(*found), len(seeds) >= FEWEST_SEEDS))
        p_values = [math.nan if told["p"] is None else told["p"] for _, told, _ in tests]
        for (score, told, claim), adjusted in zip(tests, statistics.holm(p_values), strict=True):
            differs = bool(adjusted < 1 - statistics.LEVEL) if claim else None
            score["against"] = told | {"p_holm": finite(adjusted), "differs": differs}


def _row(
    plan: Plan,
    method: Method,
    runs: Mapping[int, Run],
    tries: Sequence[Try],
    failures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What a method takes: weights, time, memory, learning rate; means over its runs."""
    stages = method.recipe.stages
    told_search = search_told(tries) if tries else None
    factor = 1.0 if told_search is None else told_search["chosen"]
    row: dict[str, Any] = {
        "name": method.name,
        "adapter": [stage.adapter.kind for stage in stages],
        "seeds": sorted(runs),
        "rates": None if factor is None else [rate * factor for rate in method.rates()],
        "search": told_search if method.searched == method.name else None,
        "failures": list(failures),
    }
    if not runs:
        return row
    every = list(runs.values())
    seconds = [sum(step["seconds"] for step in run.steps) for run in every]
    tokens = [sum(step["tokens"] for step in run.steps) for run in every]
    model = every[0].run["model"]
    row |= {
        "trainable": model.get("trainable"),
        "parameters": model.get("parameters"),
        "tokens": float(np.mean(tokens)),
        "trained": float(np.mean([sum(step["trained"] for step in run.steps) for run in every])),
        "seconds": float(np.mean(seconds)),
        "whole_seconds": float(np.mean([run.run["seconds"] for run in every])),
        "tokens_per_second": sum(tokens) / max(sum(seconds), 1e-9),
        "memory_bytes": max((_memory(run) for run in every), default=0) or None,
        "forgetting": _forgetting(every),
    }
    hours = row["seconds"] / 3600
    row["core_hours"] = hours * _threads(every[0])
    row["cost"] = hours * plan.price if plan.price is not None else None
    return row


def _memory(run: Run) -> int:
    return max((int(stage.get("measured") or 0) for stage in run.run.get("memory") or ()), default=0)


def _threads(run: Run) -> int:
    machine = run.run.get("machine") or {}
    return int(machine.get("threads") or machine.get("usable_cores") or 1)


def _forgetting(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """By task and metric, means over the seeds: items lost and won, and the share that is retained."""
    found: dict[str, dict[str, dict[str, list[float]]]] = {}
    for run in runs:
        for task, entry in (run.run.get("forgetting") or {}).get("tasks", {}).items():
            for metric, change in entry["metrics"].items():
                place = found.setdefault(task, {}).setdefault(metric, {"lost": [], "won": [], "retained": []})
                for name in ("lost", "won"):
                    if change.get(name) is not None:
                        place[name].append(float(change[name]))
                if change.get("retained") is not None:
                    place["retained"].append(float(change["retained"]["value"]))
    return {
        task: {
            metric: {name: float(np.mean(values)) if values else None for name, values in parts.items()}
            for metric, parts in metrics.items()
        }
        for task, metrics in found.items()
    }


# What must be said


def _notes(plan: Plan, runs: Runs, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Loud ones first: what keeps the numbers from meaning what they seem to."""
    notes = []
    tokens = {f"{name}, seed {seed}": _read(run) for name, found in runs.items() for seed, run in found.items()}
    if tokens and not plan.scaled and max(tokens.values()) > (1 + SLACK) * min(tokens.values()):
        least, most = min(tokens, key=tokens.__getitem__), max(tokens, key=tokens.__getitem__)
        notes.append(
            noted(
                "tokens",
                {"least": least, "most": most, "low": f"{tokens[least]:,}", "high": f"{tokens[most]:,}"},
                loud=True,
            )
        )
    files = {name: _files(run) for name, found in runs.items() for run in found.values()}
    other = next((name for name in files if files[name] != files.get(rows[0]["name"], files[name])), None)
    if other is not None:
        notes.append(noted("rows", {"name": other, "first": rows[0]["name"]}, loud=True))
    if len(plan.seeds) < FEWEST_SEEDS:
        notes.append(noted("seeds", {"count": len(plan.seeds), "fewest": FEWEST_SEEDS}, loud=True))
    for row in rows:
        for failure in row["failures"]:
            notes.append(
                noted("failed", {"name": row["name"], "run": failure["run"], "error": failure["error"]}, loud=True)
            )
    for row in rows:
        search = row["search"]
        if search is not None and search["edge"]:
            notes.append(noted(f"edge.{search['edge']}", {"name": row["name"], "factor": f"{search['chosen']:g}"}))
        if search is not None and (near := [one for one in search["tries"] if one["open"]]):
            factors = ", ".join(f"×{one['factor']:g}" for one in near)
            notes.append(noted("open", {"name": row["name"], "factor": f"{search['chosen']:g}", "others": factors}))
    return notes


def _read(run: Run) -> int:
    return int(sum(step["tokens"] for step in run.steps))


def _files(run: Run) -> list[str]:
    return sorted(entry["sha256"] for entry in run.data.get("sources", ()) if entry["role"] == "train")
