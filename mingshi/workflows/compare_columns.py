"""What runs measured, item by item, and means and differences of it over seeds and items.

Letters: `S` seeds, `N` items.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mingshi.directions import is_better_higher, score_name
from mingshi.evals import statistics
from mingshi.record import Run
from mingshi.types import Score


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """One metric of one run: a value for each item, and what each weighs; neither where it is no mean over items."""

    value: float
    signature: str
    higher: bool | None
    values_N: np.ndarray | None = None
    weights_N: np.ndarray | None = None


Measured = Mapping[int, Mapping[str, Mapping[str, Column]]]  # seed -> before or after -> metric


def columns(run: Run, when: str) -> dict[str, Column]:
    """Every metric that a run measured before or after its training, by its name."""
    return columns_of(run.evals, when)


def columns_of(evals: Iterable[Mapping[str, Any]], when: str) -> dict[str, Column]:
    """The same of lines as evals.jsonl has them."""
    found = {}
    for entry in evals:
        if entry["when"] == when:
            for metric, score in entry["scores"].items():
                name = score_name(entry["data"], entry["kind"], metric)
                values_N, weights_N = _items(metric, entry["items"])
                higher = is_better_higher(metric)
                found[name] = Column(score["value"], score["signature"], higher, values_N, weights_N)
    return found


def _items(metric: str, items: Mapping[str, Any]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Each item's own value, and its weight where that is not one for all."""
    if metric in items:
        return np.asarray(items[metric], np.float64), None
    if f"{metric}.sum" in items:
        sums_N, weights_N = (np.asarray(items[f"{metric}.{part}"], np.float64) for part in ("sum", "weight"))
        return sums_N / np.where(weights_N > 0, weights_N, 1.0), weights_N
    names = [name for name in items if name.startswith("probability.")]
    if metric == "accuracy" and "label" in items and names:
        likeliest_N = np.argmax([np.asarray(items[name], np.float64) for name in names], axis=0)
        return (likeliest_N == np.asarray(items["label"], np.float64)).astype(np.float64), None
    return None, None


def stacked(measured: Measured, name: str, when: str, seeds: Sequence[int]) -> list[Column]:
    found = [measured[seed][when].get(name) for seed in seeds]
    return [column for column in found if column is not None and column.values_N is not None]


def paired(first: Sequence[Column], second: Sequence[Column] | None) -> tuple[Score, float] | None:
    """The mean over seeds and items, or the difference of two; None if they were not measured on the same items."""
    every = [*first, *(second or ())]
    if not first or (second is not None and len(second) != len(first)):
        return None
    if len({column.signature for column in every}) > 1:
        return None
    first_SN, second_SN = (
        None if side is None else np.stack([column.values_N for column in side if column.values_N is not None])
        for side in (first, second)
    )
    assert first_SN is not None
    return statistics.crossed(first_SN, second_SN, weights_N=first[0].weights_N, signature=first[0].signature)


def as_dict(score: Score, p: float | None = None) -> dict[str, Any]:
    """Numbers under their names, null where there is none."""
    told = {"value": finite(score.value), "low": finite(score.low), "high": finite(score.high), "count": score.count}
    return told if p is None else told | {"p": finite(p)}


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def base_scores(measured: Mapping[str, Measured]) -> dict[str, dict[str, Any]]:
    """The untrained model, by what any of the rows measured of it first."""
    for found in measured.values():
        for times in found.values():
            base = {}
            for name, column in times["before"].items():
                scored = paired([column], None) if column.values_N is not None else None
                told = {"value": finite(column.value), "low": None, "high": None, "count": 0}
                base[name] = as_dict(scored[0]) if scored is not None else told
            return base
    return {}
