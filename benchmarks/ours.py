"""This project's side: `python -m benchmarks.ours TASK`, TASK as JSON. Prints one JSON line, an `Outcome`."""

from __future__ import annotations

import contextlib
import json
import sys

from benchmarks.task import Outcome, Task


def run_ours(task: Task) -> Outcome:
    """Train `task` through the public interface.

    For the comparison to hold: LoRA on every linear layer but the head, started from `task.adapter` (a PEFT folder:
    rank, alpha and weights); `task.rows` in file order (rows.read_rows), `task.batch` a step, for warm_up + steps
    steps; AdamW (0.9, 0.999, 1e-8, decay 0), constant `task.learning_rate`, `task.clip`; no evaluation, no checkpoint.
    `seconds` are from one step's end to the next, the first from the start of training; `loaded_bytes` is
    resident_bytes() before the first step, `peak_bytes` resident_bytes("VmHWM") after the last; `fingerprint` is made
    from what was collated; `processed` equals `real` where nothing is padded.
    """
    raise NotImplementedError("the engine is wired in here")


def main() -> None:
    """Read the task from the command line."""
    task = Task(**json.loads(sys.argv[1]))
    with contextlib.redirect_stdout(sys.stderr):
        outcome = run_ours(task)
    print(outcome.dumps())


if __name__ == "__main__":
    main()
