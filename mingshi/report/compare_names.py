"""What people call the metrics of a comparison, and which of them they look at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mingshi.directions import plain_name
from mingshi.report.compare_words import compared
from mingshi.report.numbers import figure
from mingshi.report.summary import metric_name
from mingshi.report.words import WORDS, Both, plain

MAIN = ("accuracy", "rougel", "natspertoken", "macrof1", "rewardaccuracy", "promptstrict", "meanabsoluteerror")
KINDS = (
    *("perplexity", "generation", "classification", "preference", "choice", "instructions", "judge"),
    *("retrieval", "zero-shot"),
)  # of measuring

Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A caption, the names of the columns, and the cells; `name` is the metric's in the record."""

    caption: Both
    head: Sequence[Both]
    rows: Sequence[Sequence[Both]]
    name: str = ""
    notes: Sequence[Both] = ()


def main_metrics(told: Told) -> list[str]:
    """The metrics that a person looks at first: of the test set, then of each task."""
    return [name for name in _metrics(told) if is_main(name)]


def other_metrics(told: Told) -> list[str]:
    return [name for name in _metrics(told) if not is_main(name)]


def is_main(name: str) -> bool:
    return plain_name(name.rpartition(".")[2]) in MAIN


def of_test(name: str) -> bool:
    """Was it measured on the test set? Scores of a task begin with the task's name."""
    parts = name.split(".")
    return parts[0] in KINDS and not (len(parts) > 2 and parts[1] in KINDS)


def in_words(name: str) -> Both:
    """A score's name in words: the metric, after the name of the task where it is one's."""
    task, metric = ("", name.partition(".")[2]) if of_test(name) else _of_task(name)
    said = metric_name(_plain(metric), metric)
    return Both(f"{task}: {said.en}", f"{task}：{said.zh}") if task else said


def caption(name: str, higher: bool | None) -> Both:
    """The name with its unit, and with the direction that is better where the house knows it."""
    said, parts = in_words(name), []
    if (unit := _unit(name)) is not None:
        parts.append(Both(unit.en.strip(), unit.zh.strip()))
    if higher is not None:
        parts.append(compared("higher" if higher else "lower"))
    if not parts:
        return said
    return Both(
        f"{said.en} ({'; '.join(part.en for part in parts)})", f"{said.zh}（{'，'.join(part.zh for part in parts)}）"
    )


def amount(name: str, value: float | None, *, signed: bool = False) -> Both:
    """A number of a metric, with its unit."""
    shown, unit = figure(value, 4, signed=signed), _unit(name)
    return Both(f"{shown}{unit.en}", f"{shown}{unit.zh}") if unit is not None else plain(shown)


def number(score: Told | None, *, signed: bool = False) -> Both:
    """A score with its interval, where it has one."""
    if score is None or score["value"] is None:
        return plain("")
    value = figure(score["value"], 4, signed=signed)
    if score["low"] is None or score["high"] is None:
        return plain(value)
    low, high = (figure(score[end], 4, signed=signed) for end in ("low", "high"))
    span = compared("to", {"low": low, "high": high})
    return Both(f"{value} ({span.en})", f"{value}（{span.zh}）")


def _of_task(name: str) -> tuple[str, str]:
    task, _, rest = name.partition(".")
    return task, rest.partition(".")[2]


def _plain(metric: str) -> str:
    """As the house's words are keyed: `f1.positive` keeps the class, which is data."""
    base, dot, label = metric.partition(".")
    return plain_name(base) + dot + label


def _unit(name: str) -> Both | None:
    return WORDS.get(f"unit.{plain_name(name.rpartition('.')[2])}")


def _metrics(told: Told) -> list[str]:
    return list(dict.fromkeys(name for row in told["rows"] for name in row["scores"]))
