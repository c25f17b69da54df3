"""`mingshi score`: predictions that exist already, scored without the model that made them; or two files of them.

survey (every row is looked at, nothing is computed) → score (rows in chunks, added up) → intervals and tests. Memory
does not grow with the rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from typing import Any, Literal

import numpy as np

from mingshi.display import Display, Silent
from mingshi.errors import DataError, Problem
from mingshi.evals import scoring, statistics
from mingshi.evals.predictions import LISTED, Item, read_items, require_good
from mingshi.evals.scoring import CHUNK, SHARES, Digest, MetricName, Sample, Scoring, scores_of
from mingshi.evals.tallies import Classes, Places, Tally
from mingshi.types import Reject, Score, Settings

Row = tuple[Item, ...]  # the same item in each file


class Predictions(Settings):
    """Files of predictions, and how to read them."""

    paths: tuple[str, ...]
    """One file, or two that are compared: the first less the second."""
    columns: Mapping[str, str] = {}
    """Our field name and the files' own."""
    on_bad_row: Literal["error", "skip"] = "error"


@dataclass(slots=True)
class Survey:
    """What one reading of the files has shown."""

    read: int = 0
    used: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    sample: Sample = field(default_factory=Sample)  # of the references


def score(source: Predictions, wanted: Scoring | None = None, *, display: Display | None = None) -> dict[str, Any]:
    """Scores with intervals of a file, and of a second one with paired differences.

    `{"metrics": {name: Score}, "rows", "read", "used", "rejected"}`; with classes also `confusion`, and with a second
    file `other` (its metrics) and `paired`. Raises DataError for rows that cannot be used, RecipeError for metrics that
    cannot be computed.
    """
    display, wanted = display or Silent(), wanted or Scoring()
    if not wanted.metrics:
        wanted = wanted.model_copy(update={"metrics": _usual(source)})
    survey = _surveyed(source, wanted.metrics, display)
    encoder = scoring.encoder_of(
        wanted.bertscore,
        references=lambda: _references(source, wanted, survey, display),
        sample=survey.sample,
        seed=wanted.seed,
    )
    known: dict[str, int] = {}
    chinese = scoring.is_chinese(survey.sample.texts)
    sides = [scoring.tallies(wanted, chinese=chinese, known_classes=known, encoder=encoder) for _ in source.paths]
    places, digest = Places(), Digest()
    rows = display.track(_good(_rows(source, wanted.metrics)), survey.used, "score")
    while chunk := list(islice(rows, CHUNK)):
        where = [places.of(row[0].group) for row in chunk]
        for row in chunk:
            digest.add(row[0])
        for side, tallies in enumerate(sides):
            for tally in tallies:
                tally.add([row[side] for row in chunk], where)
    same = digest.signature()
    told = [scores_of(tallies, places, rows=survey.used, same=same, seed=wanted.seed) for tallies in sides]
    report: dict[str, Any] = {"metrics": told[0], "rows": survey.used, "read": survey.read, "used": survey.used}
    report["rejected"] = dict(survey.rejected)
    if places.clustered:
        report["resampled"] = places.count  # groups, or handfuls of groups
    for tally in sides[0]:
        if isinstance(tally, Classes) and tally.every:
            report["confusion"] = {"classes": tally.classes(), "counts": tally.confusion().tolist()}
    if len(sides) > 1:
        report |= {"other": told[1], "paired": _paired(sides[0], sides[1], places, survey.used, same, wanted.seed)}
    return report


# Rows


def _usual(source: Predictions) -> tuple[MetricName, ...]:
    items = read_items(source.paths[0], columns=source.columns)
    first = next((item for item in islice(items, CHUNK) if isinstance(item, Item)), None)
    return scoring.usual_metrics(first) if first is not None else scoring.OF_TEXTS


def _rows(source: Predictions, metrics: Sequence[MetricName]) -> Iterator[Row | Reject]:
    """The same row of every file, or why it cannot be used."""
    needs = scoring.needs_of(metrics)
    files = [read_items(path, columns=source.columns, needs=needs) for path in source.paths]
    for each in zip_longest(*files):
        lacking = next((path for path, item in zip(source.paths, each, strict=True) if item is None), None)
        if lacking is not None:
            mend = "Give two files of the same items, in the same order."
            raise DataError(Problem(file=lacking, what="has fewer rows than the file it is compared with", mend=mend))
        bad = next((item for item in each if isinstance(item, Reject)), None)
        if bad is None and len(each) > 1:
            _require_same(source.paths, each[0], each[1])
        yield bad or each


def _require_same(paths: Sequence[str], first: Item, second: Item) -> None:
    """DataError where the two rows are not about the same item."""
    for name, one, other in (
        ("id", first.id, second.id),
        ("reference", first.references, second.references),
        ("label", first.label, second.label),
    ):
        if one != other and not (name == "id" and None in (one, other)):
            what = f"another item than line {first.line} of {paths[0]}"
            mend = "Sort both files alike, and leave out what only one of them has."
            raise DataError(Problem(file=paths[1], line=second.line, field=name, what=what, mend=mend))


def _good(rows: Iterator[Row | Reject]) -> Iterator[Row]:
    return (row for row in rows if not isinstance(row, Reject))


def _surveyed(source: Predictions, metrics: Sequence[MetricName], display: Display) -> Survey:
    """Read every row once; DataError where one cannot be used and that is not to be passed over."""
    survey, rejects = Survey(), list[Reject]()
    for row in display.track(_rows(source, metrics), None, "read"):
        survey.read += 1
        if isinstance(row, Reject):
            survey.rejected[row.reason] += 1
            if len(rejects) < LISTED:
                rejects.append(row)
            continue
        survey.used += 1
        if row[0].references:
            survey.sample.add(row[0].references[0])
    if source.on_bad_row == "error":
        require_good(rejects, survey.rejected.total(), survey.read, source.paths[0])
    scoring.require_rows(survey.used, source.paths[0])
    return survey


def _references(source: Predictions, wanted: Scoring, survey: Survey, display: Display) -> Iterator[str]:
    """Of every row that is used, all of them."""
    rows = display.track(_good(_rows(source, wanted.metrics)), survey.used, "weigh tokens")
    return (text for row in rows for text in row[0].references)


# Numbers


def _paired(
    first: Sequence[Tally], second: Sequence[Tally], places: Places, rows: int, same: str, seed: int
) -> dict[str, dict[str, Any]]:
    """First less second of every metric but those of single classes: interval, p-value, and the same after Holm."""
    told: dict[str, dict[str, Any]] = {}
    for one, other in zip(first, second, strict=True):
        mine, theirs = one.columns(places.count), other.columns(places.count)
        names = one.names()
        signatures = [f"difference of {one.signature(name)}|{same}" for name in names]
        found = statistics.compared(mine, theirs, one.values, signatures=signatures, seed=seed)
        for column, (name, (change, p)) in enumerate(zip(names, found, strict=True)):
            if isinstance(one, Classes) and "." in name:
                continue
            test = "paired randomisation"
            if name in SHARES and not places.clustered and places.items == places.count:
                right = (_right(tally, sums, column) for tally, sums in ((one, mine), (other, theirs)))
                gaps_N = np.subtract(*right)
                p, test = statistics.mcnemar(int((gaps_N > 0).sum()), int((gaps_N < 0).sum())), "exact McNemar"
            told[name] = {**as_dict(replace(change, count=rows)), "p": p, "test": test}
    for each, adjusted in zip(told.values(), statistics.holm([each["p"] for each in told.values()]), strict=True):
        each |= {"p_holm": adjusted, "differs": adjusted < 1 - statistics.LEVEL}
    return told


def _right(tally: Tally, columns_NK: np.ndarray, column: int) -> np.ndarray:
    """A share's value of each item by itself."""
    return tally.values(columns_NK)[:, column]


def as_dict(score: Score) -> dict[str, Any]:
    """A score's numbers under their names."""
    return {
        "value": score.value,
        "low": score.low,
        "high": score.high,
        "count": score.count,
        "signature": score.signature,
    }
