"""The table of strategies by skills: scores with intervals, paired tests against multi-task, tokens and time.

A score is a mean over seeds and items, both of which were drawn (statistics.crossed); p-values of a skill hold for all
strategies together (Holm). Letters: `N` items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mingshi.report.skills_words import noted
from mingshi.workflows.compare_columns import Column, as_dict, columns_of, finite, paired
from mingshi.workflows.compare_table import against_first, scored
from mingshi.workflows.comparison import FEWEST_SEEDS
from mingshi.workflows.skills_file import FIRST, Skills
from mingshi.workflows.skills_measure import Done, headlines
from mingshi.workflows.skills_recipes import Counted, Row, after_start, passes, shared

FORMAT = 1
ALL = "all.skills.mean"  # over skills, each of which counts alike

Found = Mapping[str, Mapping[int, Done]]  # row -> seed
Starts = Mapping[int, Mapping[str, Any]]


def tabulated(
    told: Skills,
    counts: Mapping[str, Counted],
    rows: Sequence[Row],
    *,
    base: Done,
    found: Found,
    starts: Starts,
    failures: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    """What `skills.json` holds; the first of `rows` is what the others are tested against."""
    named = headlines(told, base.test)
    before = _columns(base, named)
    measured = {
        name: {seed: {"before": before, "after": _columns(done, named)} for seed, done in seeds.items()}
        for name, seeds in found.items()
    }
    share = shared(told, counts)
    table = []
    for row in rows:
        done = found.get(row.name, {})
        entry = _row(told, counts, row, done, starts) | {"failures": list(failures.get(row.name, ()))}
        entry["scores"] = scored(measured.get(row.name, {}))
        table.append(entry)
    if table[0]["scores"]:
        against_first(table, measured)
    _add_spent(table, found)
    scores = {name: _alone(column) for name, column in before.items()}
    return {
        "format": FORMAT,
        "model": told.model,
        "seeds": list(told.seeds),
        "general": told.last,
        "first": FIRST,
        "budget": sum(share.values()),
        "skills": [
            {
                "name": skill.name,
                "metric": f"{skill.name}.{named[skill.name]}",
                "rows": counts[skill.name].rows,
                "tokens": counts[skill.name].tokens,
                "share": share[skill.name],
            }
            for skill in told.skills
        ],
        "mean": ALL if ALL in before else None,
        "base": scores,
        "rows": table,
        "starts": {str(seed): dict(start) for seed, start in starts.items()},
        "notes": _notes(told, table),
    }


def _columns(done: Done, named: Mapping[str, str]) -> dict[str, Column]:
    """Every metric, and the mean of the skills' headlines where those are shares that are better the higher."""
    found = columns_of(done.test, "after")
    chosen = [found[f"{skill}.{metric}"] for skill, metric in named.items() if f"{skill}.{metric}" in found]
    values = [column.values_N for column in chosen if column.values_N is not None and column.weights_N is None]
    fit = len(values) == len(named) and all(column.higher for column in chosen)
    if fit and all((each_N >= 0).all() and (each_N <= 1).all() for each_N in values):
        weights_N = np.concatenate([np.full(len(each_N), 1 / len(each_N)) for each_N in values])
        mean = float(np.mean([each_N.mean() for each_N in values]))
        signature = "|".join(column.signature for column in chosen)
        found[ALL] = Column(mean, signature, True, np.concatenate(values), weights_N)
    return found


def _alone(column: Column) -> dict[str, Any]:
    scores = paired([column], None) if column.values_N is not None else None
    plain = {"value": finite(column.value), "low": None, "high": None, "count": 0}
    return as_dict(scores[0]) if scores is not None else plain


def _row(
    told: Skills, counts: Mapping[str, Counted], row: Row, found: Mapping[int, Done], starts: Starts
) -> dict[str, Any]:
    """What a strategy was to read and what it read, means over its seeds."""
    every = list(found.values())
    stages = list(row.stages)
    if row.kind == "experts_first" and starts:
        stages = [after_start(told, counts, row, next(iter(starts.values()))["chosen"])]
    return {
        "name": row.name,
        "kind": row.kind,
        "k": row.k,
        "scale": row.scale,
        "seeds": sorted(found),
        "stages": [
            {
                "tokens": dict(tokens),
                "passes": passes(counts, tokens),
                "rows": {name: times * counts[name].rows for name, times in passes(counts, tokens).items()},
            }
            for tokens in stages
        ],
        "trained": [float(np.mean(parts)) for parts in zip(*(done.trained for done in every), strict=True)],
        "seconds": float(np.mean([done.seconds for done in every])) if every else None,
        "starts": {str(seed): done.start for seed, done in found.items() if done.start},
        "truncation": _mean([done.truncation for done in every if done.truncation is not None]),
        "teachers": _teachers(told, every),
    }


def _teachers(told: Skills, every: Sequence[Done]) -> dict[str, float]:
    taught = [done.teachers for done in every if done.teachers]
    names = [skill.name for skill in told.skills]
    return dict(zip(names, np.mean(taught, axis=0).tolist(), strict=True)) if taught else {}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _add_spent(table: Sequence[dict[str, Any]], found: Found) -> None:
    """`read`: the tokens that a model was trained on, those of its start or of its parts with it; `spent`: tokens and
    seconds with all that had to be trained for it, the experts that were not taken too."""
    experts = {row["name"]: row for row in table if row["kind"] == "alone"}
    for row in table:
        own, of_experts = sum(row["trained"]), sum(sum(one["trained"]) for one in experts.values())
        needs = row["kind"] in ("experts_first", "merge", "distill")
        row["read"] = own
        if row["kind"] == "merge":
            row["read"] = of_experts if row["seeds"] else 0.0
        if row["kind"] == "experts_first" and row["seeds"]:
            begun = [sum(found[f"alone-{row['starts'][str(seed)]}"][seed].trained) for seed in row["seeds"]]
            row["read"] = own + float(np.mean(begun))
        seconds = sum(one["seconds"] or 0.0 for one in experts.values()) if needs else 0.0
        row["spent"] = own + (of_experts if needs else 0.0)
        row["spent_seconds"] = None if row["seconds"] is None else row["seconds"] + seconds


# What must be said


def _notes(told: Skills, table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    notes = []
    whole = {row["name"]: row["read"] for row in table if row["kind"] != "alone" and row["seeds"]}
    if whole and max(whole.values()) > (1 + told.slack) * min(whole.values()):
        least, most = min(whole, key=whole.__getitem__), max(whole, key=whole.__getitem__)
        about = {"least": least, "most": most, "low": f"{whole[least]:,.0f}", "high": f"{whole[most]:,.0f}"}
        notes.append(noted("tokens", about, loud=True))
    if len(told.seeds) < FEWEST_SEEDS:
        notes.append(noted("seeds", {"count": len(told.seeds), "fewest": FEWEST_SEEDS}, loud=True))
    for row in table:
        for failure in row["failures"]:
            notes.append(noted("failed", {"name": row["name"], **failure}, loud=True))
    for row in table:
        if row["kind"] == "dmt" and (often := row["stages"][-1]["passes"][told.last]) < 1:
            notes.append(noted("part", {"name": row["name"], "general": told.last, "share": f"{often:.0%}"}))
    return notes
