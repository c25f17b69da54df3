"""What the rows are: how many of each class, source and language, how many turns, how long. Told where it matters."""

from __future__ import annotations

import heapq
import math
import re
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mingshi.checks.rows import SPLITS, Row, Split
from mingshi.types import Finding

FEW = 10  # rows of a class: with fewer it is hardly learnt, and never measured
DOMINANT = 0.9  # share of a class from which on always guessing it looks good
LONG = 20  # times the median
SHORTEST_LONG = 200  # characters: what is shorter is never too long
MANY_VALUES = 20  # different numbers from which on a label is a number and no class
NAMED = 100  # classes and sources in a table, the most frequent first
ROWS = 20  # named in a finding
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)

SCRIPTS: dict[str, re.Pattern[str]] = {
    "Latin": re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff]"),
    "Chinese": re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003347f]"),
    "kana": re.compile("[\u3041-\u30ff\uff66-\uff9d]"),
    "Hangul": re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]"),
    "Cyrillic": re.compile("[\u0400-\u052f]"),
    "Arabic": re.compile("[\u0600-\u06ff\u0750-\u077f]"),
    "Devanagari": re.compile("[\u0900-\u097f]"),
    "Greek": re.compile("[\u0370-\u03ff]"),
    "Hebrew": re.compile("[\u0590-\u05ff]"),
    "Thai": re.compile("[\u0e00-\u0e7f]"),
}
JAPANESE = 0.1  # of the letters are kana: the Chinese ones are then Japanese too
FULL = ("Chinese", "kana", "Hangul")  # scripts whose characters say as much as some letters
LETTERS = 3  # that a character of theirs is counted as


@dataclass(slots=True)
class _Seen:
    """One split as numbers."""

    rows: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    letters: Counter[str] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    texts: array[int] = field(default_factory=lambda: array("I"))  # characters, as the next two
    prompts: array[int] = field(default_factory=lambda: array("I"))
    answers: array[int] = field(default_factory=lambda: array("I"))
    longest: list[tuple[int, str, int]] = field(default_factory=list)  # a heap: length, file, minus its line


class Balance:
    """Counts of every split, and findings on classes and lengths."""

    def __init__(self) -> None:
        self._seen: dict[Split, _Seen] = {}

    def add(self, row: Row) -> None:
        seen = self._seen.setdefault(row.split, _Seen())
        seen.rows += 1
        seen.sources[row.source] += 1
        if row.label is not None:
            seen.labels[row.label] += 1
        letters = scripts(row.text)
        seen.letters.update(letters)
        seen.languages[language(letters)] += 1
        seen.turns[row.turns] += 1
        seen.texts.append(len(row.text))
        seen.prompts.append(len(row.prompt))
        if row.answer:
            seen.answers.append(len(row.answer))
        told = (len(row.text), row.source, -row.line)
        if len(seen.longest) < ROWS:
            heapq.heappush(seen.longest, told)
        else:
            heapq.heappushpop(seen.longest, told)

    def findings(self) -> list[Finding]:
        found = [_summary(self._seen)] if self._seen else []
        for split, seen in self._seen.items():
            classes = {} if are_numbers(seen.labels) else seen.labels
            if split == "train":
                found += [*_few(split, classes), *_dominant(split, classes), *_alone(split, classes)]
            found += _long(split, seen)
        return found + _unknown(self._seen)


def are_numbers(labels: Collection[str]) -> bool:
    """Are these the numbers of a regression? Readers write them with a point, and there are many."""

    def number(label: str) -> bool:
        try:
            float(label)
        except ValueError:
            return False
        return not label.lstrip("+-").isdigit()

    return len(labels) > MANY_VALUES and all(map(number, labels))


def scripts(text: str) -> dict[str, int]:
    """Letters of each script that occurs."""
    if text.isascii():
        found = {"Latin": sum(map(str.isalpha, text))}
    else:
        found = {name: len(pattern.findall(text)) for name, pattern in SCRIPTS.items()}
    return {name: count for name, count in found.items() if count}


def language(letters: Mapping[str, int]) -> str:
    """The script that says most of the text; Japanese is told by its kana."""
    if not letters:
        return "none"
    total = sum(letters.values())
    if letters.get("kana", 0) >= JAPANESE * total:
        return "Japanese"
    return max(letters, key=lambda name: letters[name] * (LETTERS if name in FULL else 1))


def effective_classes(counts: Iterable[int]) -> float:
    """How many classes of equal size would be as uncertain: the exponential of the entropy; 0 without rows."""
    counted = np.array([count for count in counts if count], np.float64)
    if not len(counted):
        return 0.0
    shares = counted / counted.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def lengths(counts: Iterable[int]) -> dict[str, float]:
    """Quantiles, their names in per cent, and the mean."""
    column = np.fromiter(counts, np.float64)
    if not len(column):
        return {}
    values = np.quantile(column, QUANTILES)
    told = {f"{100 * share:g}": float(value) for share, value in zip(QUANTILES, values, strict=True)}
    return {**told, "mean": float(column.mean())}


def histogram(counts: Iterable[int]) -> list[tuple[int, int]]:
    """Rows by length, in steps of half an octave: (from this length on, rows), none left out in between."""
    column = np.fromiter(counts, np.float64)
    if not len(column):
        return []
    steps = np.floor(2 * np.log2(np.maximum(column, 1))).astype(int)
    totals = np.bincount(steps)
    first = int(steps.min())
    return [(math.ceil(2 ** (step / 2)), int(totals[step])) for step in range(first, len(totals))]


def _summary(found: Mapping[Split, _Seen]) -> Finding:
    rows = {split: seen.rows for split, seen in found.items()}
    told = ", ".join(f"{count} of {split}" for split, count in rows.items())
    return Finding(
        check="balance",
        kind="summary",
        severity="note",
        count=sum(rows.values()),
        message=f"Rows: {told}",
        evidence={"splits": {split: _tables(seen) for split, seen in found.items()}},
    )


def _tables(seen: _Seen) -> dict[str, Any]:
    tables: dict[str, Any] = {
        "rows": seen.rows,
        "sources": dict(seen.sources.most_common(NAMED)),
        "languages": dict(seen.languages.most_common()),
        "letters": dict(seen.letters.most_common()),
        "turns": {str(turns): count for turns, count in sorted(seen.turns.items())},
        "characters": {"prompt": lengths(seen.prompts), "answer": lengths(seen.answers)},
        "histogram": {"prompt": histogram(seen.prompts), "answer": histogram(seen.answers)},
        "all_characters": sum(seen.texts),
    }
    if are_numbers(seen.labels):
        values = np.repeat([float(label) for label in seen.labels], list(seen.labels.values()))
        quantiles = np.quantile(values, QUANTILES)
        tables["numbers"] = {
            f"{100 * share:g}": float(value) for share, value in zip(QUANTILES, quantiles, strict=True)
        }
    elif seen.labels:
        counts = list(seen.labels.values())
        tables["classes"] = dict(seen.labels.most_common(NAMED))
        tables["number_of_classes"] = len(counts)
        tables["imbalance"] = max(counts) / min(counts)
        tables["effective_classes"] = effective_classes(counts)
    return tables


def _few(split: Split, classes: Mapping[str, int]) -> list[Finding]:
    few = {label: count for label, count in classes.items() if count < FEW}
    if not few:
        return []
    told = ", ".join(f"{label} ({count})" for label, count in list(few.items())[:5])
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    return [
        Finding(
            check="balance",
            kind="few",
            severity="warning",
            count=len(few),
            message=f"{len(few)} of {len(classes)} classes of {split} have fewer than {FEW} rows: {told}{more}",
            remedy="Find more rows of them, put them together with a class near to them, or leave them out.",
            evidence={"split": split, "classes": few},
        )
    ]


def _dominant(split: Split, classes: Mapping[str, int]) -> list[Finding]:
    total = sum(classes.values())
    if len(classes) < 2 or total < FEW:
        return []
    label = max(classes, key=lambda name: classes[name])
    share = classes[label] / total
    if share <= DOMINANT:
        return []
    return [
        Finding(
            check="balance",
            kind="dominant",
            severity="warning",
            count=classes[label],
            message=f"{share:.1%} of the labelled rows of {split} are {label}: who always guesses it is right as often",
            remedy="Judge by macro F1 or by each class, never by accuracy; weigh or resample the classes.",
            evidence={"split": split, "label": label, "share": share, "imbalance": total / min(classes.values())},
        )
    ]


def _alone(split: Split, classes: Mapping[str, int]) -> list[Finding]:
    if len(classes) != 1:
        return []
    ((label, count),) = classes.items()
    return [
        Finding(
            check="balance",
            kind="one_class",
            severity="error",
            count=count,
            message=f"All labelled rows of {split} are {label}: there is nothing to tell apart",
            remedy="Add rows of the other classes, or look whether the label was read from the right field.",
            evidence={"split": split, "label": label},
        )
    ]


def _long(split: Split, seen: _Seen) -> list[Finding]:
    """Rows much longer than half of the rows: most often files, logs or pages that were read as one row."""
    both = np.array(seen.texts, np.float64)
    median = float(np.median(both))
    limit = max(LONG * median, SHORTEST_LONG)
    count = int((both > limit).sum())
    rows = [
        {"source": source, "line": -line, "characters": length}
        for length, source, line in sorted(seen.longest, reverse=True)
        if length > limit
    ]
    if not count or not rows:
        return []
    return [
        Finding(
            check="balance",
            kind="long",
            severity="warning" if count > 0.01 * seen.rows else "note",
            count=count,
            message=f"{count} rows of {split} are more than {LONG} times as long as the median of "
            f"{median:.0f} characters; the longest has {rows[0]['characters']}",
            rows=rows,
            remedy="Look whether they are single rows; they are cut at the longest length or left out.",
            evidence={"split": split, "median": median, "limit": limit},
        )
    ]


def _unknown(found: Mapping[Split, _Seen]) -> list[Finding]:
    """Classes that are asked for and were never taught."""
    taught = found["train"].labels if "train" in found else Counter[str]()
    if not taught or are_numbers(taught):
        return []
    unknown = {
        split: {label: count for label, count in found[split].labels.items() if label not in taught}
        for split in SPLITS
        if split in found
    }
    return [
        Finding(
            check="balance",
            kind="unknown_class",
            severity="error",
            count=sum(labels.values()),
            message=f"{sum(labels.values())} rows of {split} have a class that no row of train has: "
            + ", ".join(list(labels)[:5]),
            remedy="Add such rows to train, or mend the labels that are written in two ways.",
            evidence={"split": split, "classes": labels},
        )
        for split, labels in unknown.items()
        if labels
    ]
