"""Fine-tuning side by side with TRL and Unsloth: `python -m benchmarks sft`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from benchmarks.environment import ROOT
from benchmarks.profiles import AS_THEY_ARE, PROFILES
from benchmarks.side_by_side import Contest, Peer, Sides, compete
from benchmarks.summary import Told, comparison, faults, summarise, table
from benchmarks.task import SETTINGS, UNSLOTH_SETTINGS, Outcome, Task


def tell(sides: Sides, task: Task, fingerprint: str, limit: float) -> Told:
    """What the outcomes come to."""
    summaries = {name: summarise(outcomes, task.warm_up) for name, outcomes in sides.items()}
    return Told(
        summaries=summaries,
        table=table(summaries, limit),
        sentences=comparison(summaries, sides),
        faults=faults(sides, fingerprint),
    )


OPTIONS = {
    "adapter": {"choices": ("lora", "full"), "default": "lora", "help": "what trains"},
    "profile": {"choices": PROFILES, "default": AS_THEY_ARE, "help": "lengths of the rows: cut to them from the data"},
}

CONTEST = Contest(
    name="sft",
    title="Fine-tuning, side by side with TRL and Unsloth",
    about="Fine-tuning with LoRA, or of all weights, side by side with TRL and Unsloth.",
    examples="rows",
    data=ROOT / "data" / "docstrings" / "train.jsonl",
    made_by="scripts/docstrings.py",
    longest=1024,
    ours="benchmarks.ours",
    peers={name: Peer("benchmarks.peers.trl_sft", setting, "trl") for name, setting in SETTINGS.items()}
    | {name: Peer("benchmarks.peers.unsloth_sft", one, "unsloth") for name, one in UNSLOTH_SETTINGS.items()},
    task=Task,
    outcome=Outcome,
    tell=tell,
    options=OPTIONS,
)


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    return compete(CONTEST, words)


if __name__ == "__main__":
    sys.exit(main())
