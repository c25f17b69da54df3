"""LoRA fine-tuning side by side with TRL: `python -m benchmarks.sft`."""

from __future__ import annotations

import sys

from benchmarks.environment import ROOT
from benchmarks.side_by_side import Contest, Sides, compete
from benchmarks.summary import Told, comparison, faults, summarise, table
from benchmarks.task import SETTINGS, Outcome, Task


def tell(sides: Sides, task: Task, fingerprint: str, limit: float) -> Told:
    """What the outcomes come to."""
    summaries = {name: summarise(outcomes, task.warm_up) for name, outcomes in sides.items()}
    return Told(
        summaries=summaries,
        table=table(summaries, limit),
        sentences=comparison(summaries, sides),
        faults=faults(sides, fingerprint),
    )


CONTEST = Contest(
    name="sft",
    title="LoRA fine-tuning",
    about="LoRA fine-tuning side by side with TRL.",
    examples="rows",
    data=ROOT / "data" / "docstrings" / "train.jsonl",
    made_by="scripts/docstrings.py",
    longest=1024,
    ours="benchmarks.ours",
    peer="benchmarks.peers.trl_sft",
    task=Task,
    settings=SETTINGS,
    outcome=Outcome,
    tell=tell,
)


if __name__ == "__main__":
    sys.exit(compete(CONTEST))
