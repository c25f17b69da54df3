"""Preference pairs side by side with TRL's DPOTrainer: `python -m benchmarks dpo`."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.profiles import LONG_PROMPTS
from benchmarks.side_by_side import Contest, Peer, Sides, compete
from benchmarks.summary import GIB, Spread, Told, faults, markdown, peers
from benchmarks.task import PAIR_SETTINGS, PairOutcome, PairTask, Task
from mingshi.model.assets import asset_folder

METHOD = """Medians over rounds, lowest and highest in brackets; warm-up steps are not timed.

The reference's log-probabilities are part of a first epoch, on every side: where they are computed before the first
step, the timed steps are charged with their pairs' share of that pass, none of which came from an earlier run; where
each step computes them, they are in its time. Later epochs are the steps alone. A pair's real tokens are its prompt,
counted once, and both answers. The limit of a first epoch is that of the products of training and of one more pass
forwards."""

REFERENCE = 0.5  # products of a pass forwards over those of training, forwards and to the inputs backwards
NEAR = 0.005  # how far the first loss may be from ln 2: bf16 rounds otherwise where texts are batched otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSummary:
    """One side over all rounds. Rates are over the timed steps' total seconds."""

    first_pairs: Spread  # pairs a second, the reference pass included
    later_pairs: Spread  # pairs a second once the reference is known
    first_real: Spread  # real tokens a second, the reference pass included
    later_real: Spread
    reference: Spread  # seconds a pair before the first step
    step_seconds: Spread  # median step of each round
    first_step: Spread  # seconds, the first step alone
    peak: Spread  # GiB ever resident
    loaded: Spread  # GiB resident before the first step
    computed: float  # tokens that went through the network in training, with padding, over real tokens
    sharing: float  # tokens read over those of both texts of every pair, each written out
    first_loss: float  # ln 2 where the network is its own reference
    mean_loss: float  # over the timed steps, first round
    margin: float  # mean reward margin over the timed steps, first round
    accuracy: float  # share of the timed steps' pairs whose margin is above zero, first round
    smallest_gradient: float  # norm; 0 would mean that nothing was trained
    change: float  # largest change of a trained weight


def summarise(outcomes: Sequence[PairOutcome], task: Task) -> PairSummary:
    """All rounds of one side."""
    first, timed = outcomes[0], slice(task.warm_up, None)

    def spread(value: Callable[[PairOutcome], float]) -> Spread:
        return Spread.of([value(outcome) for outcome in outcomes])

    def later(outcome: PairOutcome) -> float:
        return sum(outcome.seconds[timed])

    def whole(outcome: PairOutcome) -> float:
        return later(outcome) + outcome.reference_seconds * task.steps / (task.warm_up + task.steps)

    return PairSummary(
        first_pairs=spread(lambda outcome: task.steps * task.batch / whole(outcome)),
        later_pairs=spread(lambda outcome: task.steps * task.batch / later(outcome)),
        first_real=spread(lambda outcome: sum(outcome.real[timed]) / whole(outcome)),
        later_real=spread(lambda outcome: sum(outcome.real[timed]) / later(outcome)),
        reference=spread(lambda outcome: outcome.reference_seconds / (task.warm_up + task.steps) / task.batch),
        step_seconds=spread(lambda outcome: statistics.median(outcome.seconds[timed])),
        first_step=spread(lambda outcome: outcome.seconds[0]),
        peak=spread(lambda outcome: outcome.peak_bytes / GIB),
        loaded=spread(lambda outcome: outcome.loaded_bytes / GIB),
        computed=sum(first.processed[timed]) / sum(first.real[timed]),
        sharing=sum(first.read[timed]) / sum(first.written[timed]),
        first_loss=first.losses[0],
        mean_loss=statistics.mean(first.losses[timed]),
        margin=statistics.mean(first.margins[timed]),
        accuracy=statistics.mean(first.accuracies[timed]),
        smallest_gradient=min(min(outcome.gradient_norms) for outcome in outcomes),
        change=min(outcome.change for outcome in outcomes),
    )


def table(summaries: Mapping[str, PairSummary], limit: float) -> str:
    """A column for each side."""
    sides = list(summaries.values())
    first_limit = limit / (1 + REFERENCE)
    return markdown(
        summaries,
        [
            ("pairs a second, first epoch", [side.first_pairs.text(3) for side in sides]),
            ("pairs a second, later epochs", [side.later_pairs.text(3) for side in sides]),
            ("real tokens a second, first epoch", [side.first_real.text(1) for side in sides]),
            ("real tokens a second, later epochs", [side.later_real.text(1) for side in sides]),
            (
                "share of the matrix-product limit, first epoch",
                [f"{side.first_real.median / first_limit:.0%}" for side in sides],
            ),
            ("seconds of the reference a pair, before the first step", [side.reference.text(3) for side in sides]),
            ("seconds a step", [side.step_seconds.text(2) for side in sides]),
            ("seconds, first step", [side.first_step.text(2) for side in sides]),
            ("peak memory, GiB", [side.peak.text(2) for side in sides]),
            ("memory before the first step, GiB", [side.loaded.text(2) for side in sides]),
            ("tokens computed in a step over real tokens", [f"{side.computed:.2f}" for side in sides]),
            ("tokens read over tokens there", [f"{side.sharing:.2f}" for side in sides]),
            ("first loss (ln 2 is 0.6931)", [f"{side.first_loss:.4f}" for side in sides]),
            ("mean loss of the timed steps", [f"{side.mean_loss:.4f}" for side in sides]),
            ("mean reward margin of the timed steps", [f"{side.margin:.4f}" for side in sides]),
            ("reward accuracy of the timed steps", [f"{side.accuracy:.0%}" for side in sides]),
            ("smallest gradient norm", [f"{side.smallest_gradient:.3g}" for side in sides]),
            ("largest change of a weight", [f"{side.change:.3g}" for side in sides]),
        ],
    )


def comparison(summaries: Mapping[str, PairSummary], sides: Sides) -> list[str]:
    """A sentence for each peer: how many times the speed, what part of the memory, how close the losses."""
    sentences = []
    for name, curves in peers(sides):
        ours, peer = summaries["ours"], summaries[name]
        sentences.append(
            f"{name}: {ours.first_pairs.median / peer.first_pairs.median:.2f} times its pairs a second in a first "
            f"epoch, {ours.later_pairs.median / peer.later_pairs.median:.2f} times in later ones, "
            f"{ours.peak.median / peer.peak.median:.2f} of its peak memory, mean loss {ours.mean_loss:.4f} against "
            f"{peer.mean_loss:.4f} ({curves}), margin {ours.margin:.4f} against {peer.margin:.4f}"
        )
    return sentences


def first_losses(sides: Sides) -> list[str]:
    """Sides that do not begin where the network is its own reference."""
    firsts = {name: outcome.losses[0] for name, outcomes in sides.items() for outcome in outcomes}
    return [
        f"{name} began with a loss of {loss:.4f}, not ln 2"
        for name, loss in firsts.items()
        if not abs(loss - math.log(2)) < NEAR
    ]


def tell(sides: Sides, task: Task, fingerprint: str, limit: float) -> Told:
    """What the outcomes come to."""
    summaries = {name: summarise(outcomes, task) for name, outcomes in sides.items()}
    return Told(
        summaries=summaries,
        table=table(summaries, limit),
        sentences=comparison(summaries, sides),
        faults=[*faults(sides, fingerprint), *first_losses(sides)],
        method=METHOD,
    )


LENGTHS = "prompts as they are written, or twice as long as an answer"
AS_WRITTEN = "as-written"
OPTIONS = {"profile": {"choices": (AS_WRITTEN, LONG_PROMPTS), "default": AS_WRITTEN, "help": LENGTHS}}

CONTEST = Contest(
    name="dpo",
    title="Preference pairs with LoRA, side by side with TRL",
    about="Direct preference optimisation side by side with TRL.",
    examples="pairs",
    data=asset_folder("llamafactory") / "dpo_en_demo.json",
    made_by="scripts/fetch llamafactory",
    longest=768,
    ours="benchmarks.ours_dpo",
    peers={name: Peer("benchmarks.peers.trl_dpo", setting, "trl") for name, setting in PAIR_SETTINGS.items()},
    task=PairTask,
    outcome=PairOutcome,
    tell=tell,
    options=OPTIONS,
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    return compete(CONTEST, words)


if __name__ == "__main__":
    sys.exit(main())
