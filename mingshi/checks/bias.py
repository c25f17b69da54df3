"""Do training labels go with attributes of people? How far, how surely, and whether something else explains it.

A label distribution that differs between groups is not wrong by itself. It is told with its size, beside what is left
of it among rows of one file and of like length, and never changed without being asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from mingshi.checks import bias_tests
from mingshi.checks.balance import are_numbers
from mingshi.checks.bias_mentions import group_of
from mingshi.checks.bias_tests import Independence
from mingshi.checks.rows import Row
from mingshi.evals import statistics
from mingshi.types import Finding, Score

FEWEST = 10  # rows of a group; a smaller one is not compared
MOST_GROUPS = 50  # of an attribute: with more it names people and no groups
MOST_CELLS = 1000  # groups times labels: of more, strata are not tested, for their covariance takes the square
LEVEL = 0.05
FOUR_FIFTHS = 0.8
EXPLAINED = 0.5  # the share of the log odds ratio that may be left within strata where they explain it
CONFOUNDERS = ("source", "length")

Key = tuple[tuple[str, ...], str, str, int]  # values of all attributes, label, source, step of length


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """One attribute, or two together: rows by stratum, group and label."""

    name: str
    groups: Sequence[str]
    labels: Sequence[str]
    strata: Mapping[str, np.ndarray]  # confounder -> [K, G, L]
    small: Mapping[str, int]  # groups that are not compared, and their rows

    @property
    def counts_GL(self) -> np.ndarray:
        counts: np.ndarray = self.strata[CONFOUNDERS[0]].sum(axis=0)
        return counts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judged:
    """A table and what its tests say, p-values for all tests of all attributes together."""

    table: _Table
    overall: Independence
    p: float
    p_within: Mapping[str, float]  # confounder -> p-value inside its strata


class Bias:
    """Labels of train by group of each attribute, and of each two attributes. `mentions` is an attribute of every row:
    whom its text speaks of, unless the rows say it themselves."""

    def __init__(self, attributes: Sequence[str], *, seed: int = 0) -> None:
        self._attributes = tuple(dict.fromkeys(attributes))
        self._seed = seed
        self._counts = Counter[Key]()

    def add(self, row: Row) -> None:
        if row.split == "train" and row.label is not None and self._attributes:
            values = tuple(group_of(row.attributes, row.text, name) for name in self._attributes)
            self._counts[values, row.label, row.source, len(row.text).bit_length()] += 1

    def findings(self) -> list[Finding]:
        if not self._attributes or not self._counts:
            return []
        if are_numbers({label for _, label, _, _ in self._counts}):
            return [_numbers(self._counts.total())]
        found, tables = [], []
        sets = [(place,) for place in range(len(self._attributes))]
        for chosen in (*sets, *combinations(range(len(self._attributes)), 2)):
            name = " x ".join(self._attributes[place] for place in chosen)
            table = _table(name, chosen, self._counts)
            if len(table.groups) > MOST_GROUPS:
                found += [_too_many(table)] if len(chosen) == 1 else []
            elif len(table.groups) > 1 and len(table.labels) > 1:
                tables.append(table)
            elif len(chosen) == 1:
                found.append(_one_group(table))
        judged = _judge(tables, self._seed)
        summary = [_summary(judged)] if judged else []
        return [*summary, *found, *(finding for each in judged for finding in _told(each))]


def _table(name: str, chosen: Sequence[int], counts: Mapping[Key, int]) -> _Table:
    sizes, labels = Counter[str](), Counter[str]()
    cells: dict[str, Counter[tuple[object, str, str]]] = {confounder: Counter() for confounder in CONFOUNDERS}
    strata_of: dict[str, Callable[[str, int], object]] = {
        "source": lambda source, length: source,
        "length": lambda source, length: length,
    }
    for (values, label, source, length), count in counts.items():
        group = " x ".join(values[place] for place in chosen)
        sizes[group] += count
        labels[label] += count
        for confounder, stratum in strata_of.items():
            cells[confounder][stratum(source, length), group, label] += count
    groups = sorted(group for group, size in sizes.items() if size >= FEWEST)
    small = {group: size for group, size in sizes.items() if size < FEWEST}
    named = sorted(labels)
    return _Table(name, groups, named, {key: _array(found, groups, named) for key, found in cells.items()}, small)


def _array(cells: Mapping[tuple[Any, str, str], int], groups: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Counts `[K, G, L]` of the groups that are compared."""
    strata = {stratum: place for place, stratum in enumerate(sorted({stratum for stratum, _, _ in cells}))}
    rows = {group: place for place, group in enumerate(groups)}
    columns = {label: place for place, label in enumerate(labels)}
    counts = np.zeros((len(strata), len(groups), len(labels)))
    for (stratum, group, label), count in cells.items():
        if group in rows:
            counts[strata[stratum], rows[group], columns[label]] += count
    return counts


def _judge(tables: Sequence[_Table], seed: int) -> list[_Judged]:
    """Holm's correction is over attributes, their pairs, and the tests inside strata alike."""
    overall = [bias_tests.independence(table.counts_GL, seed=seed) for table in tables]
    p_values = [each.p for each in overall]
    for table in tables:
        for confounder in CONFOUNDERS:
            several = len(table.strata[confounder]) > 1 and table.counts_GL.size <= MOST_CELLS
            p_values.append(bias_tests.within_strata(table.strata[confounder])[1] if several else math.nan)
    together = statistics.holm(p_values)
    judged = []
    for place, table in enumerate(tables):
        start = len(tables) + place * len(CONFOUNDERS)
        within = dict(zip(CONFOUNDERS, together[start : start + len(CONFOUNDERS)], strict=True))
        judged.append(_Judged(table=table, overall=overall[place], p=together[place], p_within=within))
    return judged


def _told(judged: _Judged) -> list[Finding]:
    contrast = _contrast(judged.table)
    if judged.p <= LEVEL:
        explained = [name for name in CONFOUNDERS if _explains(judged, contrast, name)]
        return [_confounded(judged, contrast, explained[0]) if explained else _differs(judged, contrast)]
    masked = [name for name, p in judged.p_within.items() if p <= LEVEL]
    return [_masked(judged, contrast, masked[0])] if masked else []


# The two groups that are furthest apart


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contrast:
    """The label whose shares differ most surely, and the groups with its largest and its smallest share."""

    label: str
    most: str
    least: str
    gap: Score
    ratio: float  # the smallest share over the largest
    odds: float
    within: Mapping[str, Score]  # confounder -> the odds ratio that its strata have in common


def _contrast(table: _Table) -> _Contrast:
    counts = table.counts_GL
    sizes = counts.sum(axis=1)
    shares = counts / sizes[:, None]
    overall = counts.sum(axis=0) / counts.sum()
    high, low = (
        shares.argmax(axis=0),
        len(shares) - 1 - shares[::-1].argmin(axis=0),
    )  # two groups, even if all are alike
    columns = np.arange(len(table.labels))
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(overall * (1 - overall) * (1 / sizes[high] + 1 / sizes[low]))
        sure = np.nan_to_num((shares[high, columns] - shares[low, columns]) / spread)
        ratios = np.nan_to_num(shares[low, columns] / shares[high, columns], nan=1.0)
    label = int(np.lexsort((ratios, -sure.round(9)))[0])  # of two labels, both equally sure, the one of the worse ratio
    most, least = int(high[label]), int(low[label])
    pairs = {key: _pair(strata, most, least, label) for key, strata in table.strata.items()}
    whole = next(iter(pairs.values())).sum(axis=0) + 0.5
    name = f"{table.name}|label:{table.labels[label]}"
    return _Contrast(
        label=table.labels[label],
        most=table.groups[most],
        least=table.groups[least],
        gap=bias_tests.share_gap(
            (int(counts[most, label]), int(sizes[most])),
            (int(counts[least, label]), int(sizes[least])),
            signature=f"gap|{name}",
        ),
        ratio=float(ratios[label]),
        odds=float(whole[0, 0] * whole[1, 1] / (whole[0, 1] * whole[1, 0])),
        within={
            key: bias_tests.common_odds(pair, signature=f"odds|{name}|within:{key}") for key, pair in pairs.items()
        },
    )


def _pair(strata_KGL: np.ndarray, most: int, least: int, label: int) -> np.ndarray:
    """`[K, 2, 2]`: two groups, and one label or another."""
    chosen = strata_KGL[:, [most, least]]
    there = chosen[:, :, label]
    pair: np.ndarray = np.stack([there, chosen.sum(axis=2) - there], axis=2)
    return pair


def _explains(judged: _Judged, contrast: _Contrast, confounder: str) -> bool:
    """Is there nothing left inside the strata: neither a sure difference nor one half as large, or so in direction?"""
    p, odds = judged.p_within[confounder], contrast.within[confounder]
    if not math.isfinite(p) or p <= LEVEL or not math.isfinite(odds.value):
        return False
    return odds.low <= 1 <= odds.high and abs(math.log(odds.value)) <= EXPLAINED * abs(math.log(contrast.odds))


# Findings


def _differs(judged: _Judged, contrast: _Contrast) -> Finding:
    turned = [name for name in CONFOUNDERS if judged.p_within[name] <= LEVEL and contrast.within[name].high < 1]
    beside = f"; among rows of one {turned[0]} it is the other way round" if turned else ""
    return Finding(
        check="bias",
        kind="reversed" if turned else "labels",
        severity="warning" if contrast.ratio < FOUR_FIFTHS or turned else "note",
        count=int(judged.table.counts_GL.sum()),
        message=f"{_gap(judged.table, contrast)}{beside}",
        remedy="Decide whether the difference is meant. If not, weigh the rows (mingshi balance FILE --how weights "
        f"--protected {_protected(judged.table)}), and measure each group (mingshi eval RUN FILE --protected "
        f"{_protected(judged.table)}); equal shares can cost calibration.",
        evidence=_evidence(judged, contrast),
    )


def _confounded(judged: _Judged, contrast: _Contrast, confounder: str) -> Finding:
    return Finding(
        check="bias",
        kind="confounded",
        severity="note",
        count=int(judged.table.counts_GL.sum()),
        message=f"{_gap(judged.table, contrast)}; but it goes with the {confounder}: among rows of one {confounder} "
        f"the odds ratio is {_odds(contrast.within[confounder])}, and {contrast.odds:.2f} over all",
        remedy=f"Balance the groups over each {confounder} rather than weigh labels.",
        evidence={**_evidence(judged, contrast), "confounder": confounder},
    )


def _masked(judged: _Judged, contrast: _Contrast, confounder: str) -> Finding:
    odds = contrast.within[confounder]
    told = f" (odds ratio {_odds(odds)} for {contrast.label})" if math.isfinite(odds.value) else ""
    return Finding(
        check="bias",
        kind="masked",
        severity="warning",
        count=int(judged.table.counts_GL.sum()),
        message=f"Over all rows labels do not go with {judged.table.name}, but among rows of one {confounder} they "
        f"do{told}",
        remedy=f"Look at the groups for each {confounder} by itself.",
        evidence={**_evidence(judged, contrast), "confounder": confounder},
    )


def _gap(table: _Table, contrast: _Contrast) -> str:
    counts = table.counts_GL[:, table.labels.index(contrast.label)] / table.counts_GL.sum(axis=1)
    most, least = counts[table.groups.index(contrast.most)], counts[table.groups.index(contrast.least)]
    return (
        f"Labels go with {table.name}: {contrast.label} is {most:.1%} of {contrast.most} and {least:.1%} of "
        f"{contrast.least}, {100 * contrast.gap.value:.1f} points apart (from {100 * contrast.gap.low:.1f} to "
        f"{100 * contrast.gap.high:.1f})"
    )


def _protected(table: _Table) -> str:
    """The first attribute: of two together, each is balanced by itself."""
    return table.name.partition(" x ")[0]


def _odds(score: Score) -> str:
    return f"{score.value:.2f} (from {score.low:.2f} to {score.high:.2f})"


def _evidence(judged: _Judged, contrast: _Contrast) -> dict[str, Any]:
    return {
        **_cells(judged),
        "contrast": {
            "label": contrast.label,
            "most": contrast.most,
            "least": contrast.least,
            "gap": _interval(contrast.gap),
            "ratio": contrast.ratio,
            "odds": contrast.odds,
            "odds_within": {name: _interval(score) for name, score in contrast.within.items()},
        },
    }


def _cells(judged: _Judged) -> dict[str, Any]:
    """Each group's labels with Wilson's intervals, and the tests."""
    table, counts = judged.table, judged.table.counts_GL
    groups = {}
    for group, row in zip(table.groups, counts, strict=True):
        total = int(row.sum())
        shares = {
            label: _interval(statistics.rate(int(count), total, signature="share"))
            for label, count in zip(table.labels, row, strict=True)
        }
        groups[group] = {"rows": total, "labels": shares}
    ratios = bias_tests.impact_ratios(counts)
    return {
        "attribute": table.name,
        "groups": groups,
        "not_compared": dict(table.small),
        "g": judged.overall.g,
        "p": judged.overall.p,
        "p_holm": judged.p,
        "p_within": dict(judged.p_within),
        "exact": judged.overall.exact,
        "cramers_v": judged.overall.cramers_v,
        "log_ratio": bias_tests.largest_log_ratio(counts),
        "impact_ratios": dict(zip(table.labels, ratios.tolist(), strict=True)),
    }


def _interval(score: Score) -> dict[str, float]:
    return {"value": score.value, "low": score.low, "high": score.high}


def _summary(judged: Sequence[_Judged]) -> Finding:
    names = ", ".join(each.table.name for each in judged)
    return Finding(
        check="bias",
        kind="summary",
        severity="note",
        count=max(int(each.table.counts_GL.sum()) for each in judged),
        message=f"Labels of train were compared between the groups of {names}",
        evidence={"attributes": [_cells(each) for each in judged]},
    )


def _numbers(rows: int) -> Finding:
    return Finding(
        check="bias",
        kind="numbers",
        severity="note",
        count=rows,
        message="The labels are numbers: shares of classes cannot be compared between groups",
        remedy="Cut the numbers into classes for this check.",
    )


def _too_many(table: _Table) -> Finding:
    return Finding(
        check="bias",
        kind="too_many_groups",
        severity="warning",
        count=len(table.groups),
        message=f"{table.name} has {len(table.groups)} groups of {FEWEST} rows or more: too many to compare",
        remedy=f"Put the values of {table.name} together into at most {MOST_GROUPS}.",
    )


def _one_group(table: _Table) -> Finding:
    told = table.groups[0] if table.groups else "none"
    return Finding(
        check="bias",
        kind="one_group",
        severity="warning",
        count=int(table.counts_GL.sum()),
        message=f"{table.name} was not compared: its groups of {FEWEST} rows or more are {told} alone"
        if len(table.labels) > 1
        else f"{table.name} was not compared: all rows have one label",
        remedy=f"Look whether the rows have a field {table.name}, or name it with --column.",
        evidence={"not_compared": dict(table.small)},
    )
