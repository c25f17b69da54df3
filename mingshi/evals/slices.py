"""Whether a classifier does worse on some texts than on the rest: by where they were read, or by an attribute.

Letters: `N` items, `R` resamples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import fisher_exact

from mingshi.errors import DataError, RecipeError
from mingshi.evals import statistics
from mingshi.evals.classes import RATED, Multi, Single
from mingshi.types import Example, Score

FEWEST = 10  # texts of a slice, and of the rest
MOST = 50  # slices by one column, the largest
SOURCE = "source"
ACCURACY, MACRO_F1 = RATED.index("accuracy"), RATED.index("macro_f1")


def slices_of(examples: Iterable[Example], by: Sequence[str], ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Which of these texts are in each slice, `[N]` by `column=value`, the largest slice of a column first.

    A column is `source`, the file that a text was read from, or the name of an attribute; texts without it are in no
    slice. RecipeError for a column that no text has, DataError where two texts of one id are in different slices.
    """
    wanted, found = set(ids), dict[str, Mapping[str, str]]()
    for example in examples:
        if example.id in wanted:
            told = {**example.attributes, SOURCE: example.source}
            values = {name: told[name] for name in by if name in told}
            if found.setdefault(example.id, values) != values:
                what = f"two texts have the id {example.id}, and are of different slices"
                raise DataError(what, "Give every row an id of its own.")
    masks: dict[str, np.ndarray] = {}
    for name in by:
        column = [found.get(one, {}).get(name) for one in ids]
        counts = Counter(value for value in column if value is not None)
        if not counts:
            mend = "Slice by `source`, or by an attribute: name its column in the source's `attributes`."
            raise RecipeError(f"slices: no text has the attribute {name!r}", mend)
        for value, count in sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:MOST]:
            if FEWEST <= count <= len(ids) - FEWEST:
                masks[f"{name}={value}"] = np.array([other == value for other in column])
    return masks


def sliced(answers: Single | Multi, masks: Mapping[str, np.ndarray], *, same: str, seed: int) -> dict[str, Score]:
    """For each slice accuracy and macro F1, each by itself and less that of the rest; and the p-value of the accuracy's
    difference (Fisher's exact test), which holds for all slices together (Holm 1979).

    `same` is the end of every signature, and `count` of every score the texts of the slice.
    """
    told: dict[str, Score] = {}
    p_values = []
    for name, inside_N in masks.items():
        right_N = answers.errors() == 0
        table = [[int((right_N & side_N).sum()), int((~right_N & side_N).sum())] for side_N in (inside_N, ~inside_N)]
        p_values.append(float(fisher_exact(table).pvalue))
        right, count = table[0][0], sum(table[0])
        accuracy = f"slice_accuracy.{name}"
        told[accuracy] = statistics.rate(right, count, signature=f"{accuracy}|{same}")
        names = [f"{metric}.{name}" for metric in ("slice_macro_f1", "slice_accuracy_gap", "slice_macro_f1_gap")]
        signatures = [f"{one}|{same}" for one in names]
        scores = statistics.measured(_gaps(answers, inside_N), len(answers), signatures=signatures, seed=seed)
        told |= {one: replace(score, count=count) for one, score in zip(names, scores, strict=True)}
    for name, p_value in zip(masks, statistics.holm(p_values), strict=True):
        count, signature = int(masks[name].sum()), f"slice_p.{name}|{same}"
        told[f"slice_p.{name}"] = Score(value=p_value, low=math.nan, high=math.nan, count=count, signature=signature)
    return told


def _gaps(answers: Single | Multi, inside_N: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The slice's macro F1, and by how much its accuracy and macro F1 are above the rest's, `[R, 3]`.

    Macro F1 is the mean over the classes that texts of that side have or are taken for.
    """
    sides = [(_part(answers, side_N), side_N) for side_N in (inside_N, ~inside_N)]

    def measure(counts_RN: np.ndarray) -> np.ndarray:
        first_RM, rest_RM = (_drawn(part, counts_RN[:, side_N]) for part, side_N in sides)
        gaps_RM = first_RM - rest_RM
        return np.stack([first_RM[:, MACRO_F1], gaps_RM[:, ACCURACY], gaps_RM[:, MACRO_F1]], axis=1)

    return measure


def _drawn(part: Single | Multi, counts_RN: np.ndarray) -> np.ndarray:
    """The metrics of `RATED`, `[R, M]`; nan where none of these texts was drawn."""
    return np.where(counts_RN.sum(1, keepdims=True) > 0, part.rated(counts_RN), math.nan)


def _part(answers: Single | Multi, inside_N: np.ndarray) -> Single | Multi:
    """The answers to some of the texts."""
    if isinstance(answers, Single):
        return Single(answers.names, answers.truth_N[inside_N], answers.shares_NK[inside_N])
    return Multi(answers.names, answers.truth_NK[inside_N], answers.shares_NK[inside_N])


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What was recorded of one slice; a score that is not there is empty."""

    name: str
    accuracy: Mapping[str, Any]
    accuracy_gap: Mapping[str, Any]
    macro_f1: Mapping[str, Any]
    macro_f1_gap: Mapping[str, Any]
    p: Mapping[str, Any]


def recorded(scores: Mapping[str, Any]) -> list[Slice]:
    """The slices of an evaluation's scores as they stand in a run's record."""
    prefix = "slice_accuracy."
    names = [name.removeprefix(prefix) for name in scores if name.startswith(prefix)]
    parts = ("accuracy", "accuracy_gap", "macro_f1", "macro_f1_gap", "p")
    return [Slice(name=name, **{part: scores.get(f"slice_{part}.{name}", {}) for part in parts}) for name in names]
