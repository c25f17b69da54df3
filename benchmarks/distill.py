"""Distillation with a cached teacher, side by side with a loop that asks it at each step: `benchmarks distill`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.environment import ROOT
from benchmarks.side_by_side import Contest, Peer, Sides, compete
from benchmarks.summary import GIB, Spread, Told, faults, markdown, peers
from benchmarks.task import LOOP_SETTINGS, DistillOutcome, DistillTask

METHOD = """Medians over rounds, lowest and highest in brackets; warm-up steps are not timed.

The seconds of all epochs have the teacher in them, on every side: where it is asked before the first step, its pass
over the timed rows is added, and none of it came from an earlier run; where each step asks it, it is in the step's
time. No model's loading is in it. Rows are grouped by length, on both sides alike, so that the loop pads little and the
curves can be compared."""

NEAR = 0.02  # how far the sides' first losses may be apart, as a part of them: both are rounded to bfloat16


@dataclass(frozen=True, slots=True, kw_only=True)
class DistillSummary:
    """One side over all rounds."""

    all_epochs: Spread  # seconds, the teacher's pass included
    later_epochs: Spread  # seconds of one epoch once the teacher was asked
    teacher: Spread  # seconds of the teacher's pass before the first step
    first_step: Spread  # seconds
    peak: Spread  # GiB ever resident
    loaded: Spread  # GiB resident before the first step
    padding: float  # tokens computed, with padding, over tokens read
    sharing: float  # tokens read over tokens there
    first_loss: float  # of the first step: no weight has moved
    epoch_losses: tuple[float, ...]  # mean loss of each epoch's steps, first round
    smallest_gradient: float
    change: float


def summarise(outcomes: Sequence[DistillOutcome], task: DistillTask) -> DistillSummary:
    """All rounds of one side."""
    first, timed = outcomes[0], slice(task.warm_up, None)

    def spread(value: Callable[[DistillOutcome], float]) -> Spread:
        return Spread.of([value(outcome) for outcome in outcomes])

    def teacher(outcome: DistillOutcome) -> float:
        return outcome.teacher_seconds * task.steps / (task.warm_up + task.steps)

    epochs = [slice(start, start + task.steps) for start in range(task.warm_up, len(first.losses), task.steps)]
    return DistillSummary(
        all_epochs=spread(lambda outcome: sum(outcome.seconds[timed]) + teacher(outcome)),
        later_epochs=spread(lambda outcome: sum(outcome.seconds[epochs[-1]])),
        teacher=spread(teacher),
        first_step=spread(lambda outcome: outcome.seconds[0]),
        peak=spread(lambda outcome: outcome.peak_bytes / GIB),
        loaded=spread(lambda outcome: outcome.loaded_bytes / GIB),
        padding=sum(first.processed[timed]) / sum(first.read[timed]),
        sharing=sum(first.read[timed]) / sum(first.written[timed]),
        first_loss=first.losses[0],
        epoch_losses=tuple(statistics.mean(first.losses[epoch]) for epoch in epochs),
        smallest_gradient=min(min(outcome.gradient_norms) for outcome in outcomes),
        change=min(outcome.change for outcome in outcomes),
    )


def table(summaries: Mapping[str, DistillSummary], task: DistillTask) -> str:
    """A column for each side."""
    sides = list(summaries.values())
    losses = [
        (f"mean loss, epoch {number + 1}", [f"{side.epoch_losses[number]:.4f}" for side in sides])
        for number in range(task.epochs)
    ]
    return markdown(
        summaries,
        [
            (f"seconds of {task.epochs} epochs, the teacher included", [side.all_epochs.text(1) for side in sides]),
            ("seconds of the teacher's pass before them", [side.teacher.text(1) for side in sides]),
            ("seconds of a later epoch", [side.later_epochs.text(1) for side in sides]),
            ("seconds, first step", [side.first_step.text(2) for side in sides]),
            ("peak memory, GiB", [side.peak.text(2) for side in sides]),
            ("memory before the first step, GiB", [side.loaded.text(2) for side in sides]),
            ("tokens computed, with padding, over tokens read", [f"{side.padding:.2f}" for side in sides]),
            ("tokens read over tokens there", [f"{side.sharing:.2f}" for side in sides]),
            ("first loss", [f"{side.first_loss:.4f}" for side in sides]),
            *losses,
            ("smallest gradient norm", [f"{side.smallest_gradient:.3g}" for side in sides]),
            ("largest change of a weight", [f"{side.change:.3g}" for side in sides]),
        ],
    )


def comparison(summaries: Mapping[str, DistillSummary], sides: Sides) -> list[str]:
    """A sentence for each peer."""
    sentences = []
    for name, curves in peers(sides):
        ours, peer = summaries["ours"], summaries[name]
        sentences.append(
            f"{name}: {peer.all_epochs.median / ours.all_epochs.median:.2f} times its speed over all epochs, "
            f"{peer.later_epochs.median / ours.later_epochs.median:.2f} times once the teacher was asked, "
            f"{ours.peak.median / peer.peak.median:.2f} of its peak memory, mean loss of the last epoch "
            f"{ours.epoch_losses[-1]:.4f} against {peer.epoch_losses[-1]:.4f} ({curves})"
        )
    return sentences


def first_losses(sides: Sides) -> list[str]:
    """Sides whose first loss, before any weight has moved, is not ours."""
    if "ours" not in sides:
        return []
    ours = sides["ours"][0].losses[0]
    firsts = {name: outcomes[0].losses[0] for name, outcomes in sides.items()}
    return [
        f"{name} began with a loss of {loss:.4f}, not {ours:.4f}"
        for name, loss in firsts.items()
        if not abs(loss - ours) <= NEAR * ours
    ]


def tell(sides: Sides, task: DistillTask, fingerprint: str, _: float) -> Told:
    """What the outcomes come to."""
    summaries = {name: summarise(outcomes, task) for name, outcomes in sides.items()}
    return Told(
        summaries=summaries,
        table=table(summaries, task),
        sentences=comparison(summaries, sides),
        faults=[*faults(sides, fingerprint), *first_losses(sides)],
        method=METHOD,
    )


CONTEST = Contest(
    name="distill",
    title="Distillation, side by side with a plain loop",
    about="Distil a model into its first layers, with a cached teacher and with one that is asked at each step.",
    examples="rows",
    data=ROOT / "data" / "docstrings" / "train.jsonl",
    made_by="scripts/docstrings.py",
    longest=1024,
    ours="benchmarks.ours_distill",
    peers={name: Peer("benchmarks.peers.plain_distill", setting) for name, setting in LOOP_SETTINGS.items()},
    task=DistillTask,
    outcome=DistillOutcome,
    tell=tell,
    options={"layers": {"type": int, "default": 15, "help": "layers of the student"}},
    roof=False,
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    return compete(CONTEST, words)


if __name__ == "__main__":
    sys.exit(main())
