"""Greedy answers to prompts, side by side with transformers' `generate`: `python -m benchmarks generate`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from benchmarks.environment import ROOT
from benchmarks.side_by_side import Contest, Peer, Sides, compete
from benchmarks.summary import GIB, Spread, Told, markdown
from benchmarks.task import GENERATE_SETTINGS, Answered, GenerateTask

METHOD = """Medians over rounds, lowest and highest in brackets; the warm-up's prompts are not timed.

All sides take the likeliest token each time, in bfloat16. Where two tokens are nearly as likely, rounding decides, and
rounding depends on which rows share a batch: from there on two answers differ. `like ours` is how many answers are the
same to the end, and how far the others go together."""

ALIKE = 0.5  # of the answers whose first token is ours: below it a side answers other prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateSummary:
    """One side over all rounds."""

    token_rate: Spread  # new tokens a second
    prompt_rate: Spread  # prompts a second
    seconds: Spread  # of the timed pass
    peak: Spread  # GiB ever resident
    loaded: Spread  # GiB resident before the first prompt
    tokens: int  # generated, first round
    same: float  # share of answers that are ours
    together: float  # share of our tokens that an answer begins with, mean


def summarise(outcomes: Sequence[Answered], ours: Answered | None) -> GenerateSummary:
    """All rounds of one side."""
    first = outcomes[0]
    pairs = list(zip(ours.answers, first.answers, strict=True)) if ours is not None else []
    return GenerateSummary(
        token_rate=Spread.of([outcome.rate(1) for outcome in outcomes]),
        prompt_rate=Spread.of([len(outcome.answers) / outcome.seconds[1] for outcome in outcomes]),
        seconds=Spread.of([outcome.seconds[1] for outcome in outcomes]),
        peak=Spread.of([outcome.peak_bytes / GIB for outcome in outcomes]),
        loaded=Spread.of([outcome.loaded_bytes / GIB for outcome in outcomes]),
        tokens=first.real[1],
        same=statistics.mean(one == other for one, other in pairs) if pairs else 1.0,
        together=statistics.mean(_common(one, other) / max(1, len(one)) for one, other in pairs) if pairs else 1.0,
    )


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def table(summaries: Mapping[str, GenerateSummary]) -> str:
    """A column for each side."""
    sides = list(summaries.values())
    return markdown(
        summaries,
        [
            ("new tokens a second", [side.token_rate.text(1) for side in sides]),
            ("prompts a second", [side.prompt_rate.text(2) for side in sides]),
            ("seconds", [side.seconds.text(1) for side in sides]),
            ("peak memory, GiB", [side.peak.text(2) for side in sides]),
            ("memory before the first prompt, GiB", [side.loaded.text(2) for side in sides]),
            ("new tokens", [f"{side.tokens:,}" for side in sides]),
            ("answers like ours", [f"{side.same:.0%}" for side in sides]),
            ("tokens like ours from the beginning", [f"{side.together:.0%}" for side in sides]),
        ],
    )


def faults(sides: Sides, expected: str) -> list[str]:
    """What makes the comparison void: other prompts, no answers, other answers from their first token on."""
    found = []
    ours = sides["ours"][0].answers if "ours" in sides else None
    for name, outcomes in sides.items():
        for outcome in outcomes:
            if outcome.fingerprint != expected:
                found.append(f"{name} answered other prompts ({outcome.fingerprint}, not {expected})")
            if not outcome.real[1]:
                found.append(f"{name} generated nothing")
            pairs = list(zip(ours, outcome.answers, strict=True)) if ours is not None else []
            if pairs and statistics.mean(one[:1] == other[:1] for one, other in pairs) < ALIKE:
                found.append(f"{name} begins most answers with another token than ours")
    return found


def tell(sides: Sides, task: GenerateTask, fingerprint: str, _: float) -> Told:
    """What the outcomes come to."""
    ours = sides["ours"][0] if "ours" in sides else None
    summaries = {name: summarise(outcomes, ours) for name, outcomes in sides.items()}
    sentences = [
        f"{name}: {summaries['ours'].token_rate.median / side.token_rate.median:.2f} times its new tokens a second, "
        f"{summaries['ours'].prompt_rate.median / side.prompt_rate.median:.2f} times its prompts a second, "
        f"{summaries['ours'].peak.median / side.peak.median:.2f} of its peak memory, {side.same:.0%} of its answers "
        f"are ours"
        for name, side in summaries.items()
        if "ours" in summaries and name != "ours"
    ]
    return Told(
        summaries=summaries,
        table=table(summaries),
        sentences=sentences,
        faults=faults(sides, fingerprint),
        method=METHOD,
    )


CONTEST = Contest(
    name="generate",
    title="Answers to prompts, side by side with transformers",
    about="Answer prompts greedily, side by side with transformers' generate.",
    examples="prompts",
    data=ROOT / "data" / "docstrings" / "train.jsonl",
    made_by="scripts/docstrings.py",
    longest=1024,
    ours="benchmarks.ours_generate",
    peers={
        name: Peer("benchmarks.peers.transformers_generate", setting) for name, setting in GENERATE_SETTINGS.items()
    },
    task=GenerateTask,
    outcome=Answered,
    tell=tell,
    options={"new_tokens": {"type": int, "default": 64, "help": "the most tokens of an answer"}},
    roof=False,
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    return compete(CONTEST, words)


if __name__ == "__main__":
    sys.exit(main())
