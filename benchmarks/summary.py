"""From outcomes to the numbers that are reported, as values, a table and a dated note."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.task import Outcome

GIB = 2**30
PLACES = ("rows", "adapter", "teacher")  # folders of the machine that measured: not for a page
CURVES = {"losses": "loss of each step", "margins": "reward margin of each step"}
METHOD = "Medians over rounds, lowest and highest in brackets; warm-up steps are not timed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is said of a benchmark's outcomes."""

    summaries: Mapping[str, Any]  # a dataclass for each side
    table: str
    sentences: Sequence[str]
    faults: Sequence[str]
    method: str = METHOD


@dataclass(frozen=True, slots=True)
class Spread:
    """A median and the range around it, over rounds."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> Spread:
        """From one value a round."""
        return Spread(statistics.median(values), min(values), max(values))

    def text(self, digits: int) -> str:
        """`median (low to high)`."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f} to {self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One side over all rounds. Rates are over the timed steps' total seconds, never per padded token."""

    real_rate: Spread  # tokens a second that are not padding
    trained_rate: Spread  # tokens a second that count in the loss
    step_seconds: Spread  # median step of each round
    first_step: Spread  # seconds, the first step alone
    peak: Spread  # GiB ever resident
    loaded: Spread  # GiB resident before the first step
    padding: float  # tokens computed, with padding, over tokens read
    sharing: float  # tokens read over tokens there: below 1 where beginnings in common are read once
    mean_loss: float  # over the timed steps' trained tokens, first round
    smallest_gradient: float  # norm; 0 would mean that nothing was trained
    change: float  # largest change of a trained weight


def summarise(outcomes: Sequence[Outcome], warm_up: int) -> Summary:
    """All rounds of one side."""
    first = outcomes[0]
    return Summary(
        real_rate=Spread.of([outcome.rate(warm_up) for outcome in outcomes]),
        trained_rate=Spread.of(
            [sum(outcome.trained[warm_up:]) / sum(outcome.seconds[warm_up:]) for outcome in outcomes]
        ),
        step_seconds=Spread.of([statistics.median(outcome.seconds[warm_up:]) for outcome in outcomes]),
        first_step=Spread.of([outcome.seconds[0] for outcome in outcomes]),
        peak=Spread.of([outcome.peak_bytes / GIB for outcome in outcomes]),
        loaded=Spread.of([outcome.loaded_bytes / GIB for outcome in outcomes]),
        padding=sum(first.processed[warm_up:]) / sum(first.read[warm_up:]),
        sharing=sum(first.read[warm_up:]) / sum(first.written[warm_up:]),
        mean_loss=mean_loss(first, warm_up),
        smallest_gradient=min(min(outcome.gradient_norms) for outcome in outcomes),
        change=min(outcome.change for outcome in outcomes),
    )


def mean_loss(outcome: Outcome, warm_up: int) -> float:
    """Loss per trained token over the timed steps: the same tokens on every side, in whatever order."""
    pairs = list(zip(outcome.losses, outcome.trained, strict=True))[warm_up:]
    return sum(loss * count for loss, count in pairs) / sum(count for _, count in pairs)


def curve_distance(one: Outcome, other: Outcome) -> float | None:
    """Largest relative difference of two loss curves; None where steps do not hold the same tokens."""
    if (one.real, one.trained) != (other.real, other.trained):
        return None
    return max(abs(a - b) / b for a, b in zip(one.losses, other.losses, strict=True))


def faults(sides: Mapping[str, Sequence[Outcome]], expected: str) -> list[str]:
    """What makes the comparison void: other rows, no gradient, no change, a missing step."""
    found = []
    for name, outcomes in sides.items():
        for outcome in outcomes:
            if outcome.fingerprint != expected:
                found.append(f"{name} trained on other tokens or masks ({outcome.fingerprint}, not {expected})")
            if not all(norm > 0 for norm in outcome.gradient_norms):
                found.append(f"{name} had a step without a gradient")
            if not outcome.change > 0:
                found.append(f"{name} changed no weight")
            if len({len(outcome.seconds), len(outcome.losses), len(outcome.real)}) > 1:
                found.append(f"{name} measured {len(outcome.seconds)} steps but logged {len(outcome.losses)}")
    return found


def table(summaries: Mapping[str, Summary], limit: float) -> str:
    """A markdown table, a column for each side. Medians over rounds, with lowest and highest in brackets."""
    rows: list[tuple[str, list[str]]] = [
        ("real tokens a second", [side.real_rate.text(1) for side in summaries.values()]),
        ("trained tokens a second", [side.trained_rate.text(1) for side in summaries.values()]),
        ("share of the matrix-product limit", [f"{side.real_rate.median / limit:.0%}" for side in summaries.values()]),
        ("seconds a step", [side.step_seconds.text(2) for side in summaries.values()]),
        ("seconds, first step", [side.first_step.text(2) for side in summaries.values()]),
        ("peak memory, GiB", [side.peak.text(2) for side in summaries.values()]),
        ("memory before the first step, GiB", [side.loaded.text(2) for side in summaries.values()]),
        ("tokens computed, with padding, over tokens read", [f"{side.padding:.2f}" for side in summaries.values()]),
        ("tokens read over tokens there", [f"{side.sharing:.2f}" for side in summaries.values()]),
        ("mean loss of the timed steps", [f"{side.mean_loss:.4f}" for side in summaries.values()]),
        ("smallest gradient norm", [f"{side.smallest_gradient:.3g}" for side in summaries.values()]),
        ("largest change of a weight", [f"{side.change:.3g}" for side in summaries.values()]),
    ]
    return markdown(summaries, rows)


def markdown(names: Iterable[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """A table with a column for each name and a row for each label."""
    columns = list(names)
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    return "\n".join(lines + [f"| {label} | {' | '.join(cells)} |" for label, cells in rows])


def peers(sides: Mapping[str, Sequence[Outcome]]) -> Iterator[tuple[str, str]]:
    """Every other side than ours, and how close its loss curve is to ours; none where ours was not measured."""
    if "ours" not in sides:
        return
    for name, outcomes in sides.items():
        if name != "ours":
            distance = curve_distance(sides["ours"][0], outcomes[0])
            curves = "examples in another order" if distance is None else f"curves within {distance:.2%} of each other"
            yield name, curves


def comparison(summaries: Mapping[str, Summary], sides: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """A sentence for each peer: how many times the speed, what part of the memory, how close the losses."""
    sentences = []
    for name, curves in peers(sides):
        ours, peer = summaries["ours"], summaries[name]
        sentences.append(
            f"{name}: {ours.real_rate.median / peer.real_rate.median:.2f} times its real tokens a second, "
            f"{ours.peak.median / peer.peak.median:.2f} of its peak memory, mean loss {ours.mean_loss:.4f} "
            f"against {peer.mean_loss:.4f} ({curves})"
        )
    return sentences


def note(title: str, report: Mapping[str, Any], told: Told, date: datetime.date) -> str:
    """A markdown page: what was measured, on what, the table, every side's settings and curves."""
    parts = [
        f"# {title} ({date.isoformat()})",
        _listing("Machine", report["machine"]),
        _listing("Task", {name: value for name, value in report["task"].items() if name not in PLACES}),
        _listing("Rows", report["rows"]),
        _listing("Matrix-product limit", report["roof"]) if report["roof"] else "",
        f"## Results\n\n{told.method}\n\n{told.table}",
        "\n".join(f"* {sentence}" for sentence in [*told.faults, *told.sentences]),
    ]
    for name, outcomes in report["sides"].items():
        listing = _listing(name, outcomes[0]["settings"] | outcomes[0]["versions"])
        curves = [(label, outcomes[0][curve]) for curve, label in CURVES.items() if curve in outcomes[0]]
        told_curves = [f"* {label}: {', '.join(f'{value:.4f}' for value in values)}" for label, values in curves]
        parts.append("\n".join([listing, *told_curves]))
    return "\n\n".join(filter(None, parts)) + "\n"


def _listing(title: str, values: Mapping[str, Any]) -> str:
    return f"## {title}\n\n" + "\n".join(f"* {name}: {value}" for name, value in values.items())
