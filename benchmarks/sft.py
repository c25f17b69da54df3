"""LoRA fine-tuning side by side with TRL: `python -m benchmarks.sft`.

Both sides get the same token ids, masks and LoRA weights and take the same optimiser steps. Each measurement is a
process of its own; the sides take turns, round by round, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, answer, peer_python
from benchmarks.machine import Usage, facts, threads
from benchmarks.roof import limit
from benchmarks.summary import Summary, comparison, faults, note, summarise, table
from benchmarks.task import BATCH, SETTINGS, Outcome, Task
from mingshi.model.assets import asset_folder

WORK = ROOT / "build" / "benchmarks"
QUIET = 0.3  # load for each processor above which a measurement is refused


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks.sft", description=str(__doc__).splitlines()[0])
    line.add_argument("--model", type=Path, default=asset_folder("smollm2-135m"), help="a folder in the Hub's layout")
    line.add_argument("--data", type=Path, default=ROOT / "data" / "docstrings" / "train.jsonl", help="JSON lines")
    line.add_argument("--steps", type=int, default=20, help="optimiser steps timed, of 16 examples each")
    line.add_argument("--warm-up", type=int, default=3, help="steps run before them")
    line.add_argument("--rounds", type=int, default=3)
    line.add_argument("--peer", action="append", choices=list(SETTINGS), help="may be repeated; all if not given")
    line.add_argument("--without-ours", action="store_true", help="measure the peers alone")
    line.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a peer's setting")
    line.add_argument("--force", action="store_true", help="measure on a busy machine too")
    line.add_argument("--json", action="store_true", help="print the report as JSON on standard output")
    line.add_argument("--note", type=Path, help="write the report as a markdown page")
    return line


def changed(setting: str, changes: list[str]) -> dict[str, Any]:
    """A peer's setting with `name=value` changes, the values in JSON or plain text."""
    values = asdict(SETTINGS[setting])
    for change in changes:
        name, _, text = change.partition("=")
        if name not in values:
            raise SystemExit(f"--set {change}: no such setting; there are {', '.join(values)}")
        values[name] = text if isinstance(values[name], str) else json.loads(text)
    return values


def prepare(chosen: argparse.Namespace) -> tuple[Task, dict[str, Any]]:
    """Rows and LoRA weights for both sides, made by this project."""
    for place, mend in ((chosen.model, "scripts/fetch"), (chosen.data, "scripts/docstrings.py")):
        if not place.exists():
            raise SystemExit(f"{place} is missing. Make it with {mend}, or name another.")
    request = {
        "model": str(chosen.model),
        "data": str(chosen.data),
        "folder": str(WORK),
        "count": (chosen.warm_up + chosen.steps) * BATCH,
    }
    made = answer(sys.executable, "benchmarks.prepare", json.dumps(request), allocator=False, log=WORK / "prepare.log")
    task = Task(
        model=str(chosen.model),
        rows=made.pop("rows"),
        adapter=made.pop("adapter"),
        warm_up=chosen.warm_up,
        steps=chosen.steps,
    )
    return task, made


def measure(side: str, task: Task, changes: list[str]) -> tuple[Outcome, float]:
    """One side in a fresh process, and the share of the machine that others used meanwhile."""
    before, given = Usage.now(), json.dumps(asdict(task))
    log = WORK / f"{side}.log"
    if side == "ours":
        result = answer(sys.executable, "benchmarks.ours", given, allocator=True, log=log)
    else:
        setting = changed(side, changes)
        result = answer(
            peer_python(),
            "benchmarks.peers.trl_sft",
            given,
            json.dumps(setting),
            allocator=setting["allocator"],
            log=log,
        )
    return Outcome(**result), Usage.now().others_since(before)


def rounds(chosen: argparse.Namespace, task: Task) -> tuple[dict[str, list[Outcome]], float]:
    """Every side, in turns, and the largest share of the machine that others used."""
    names = ([] if chosen.without_ours else ["ours"]) + (chosen.peer or list(SETTINGS))
    sides: dict[str, list[Outcome]] = {name: [] for name in names}
    busiest = 0.0
    for number in range(chosen.rounds):
        for name in names:
            outcome, others = measure(name, task, chosen.set)
            sides[name].append(outcome)
            busiest = max(busiest, others)
            rate = sum(outcome.real[task.warm_up :]) / sum(outcome.seconds[task.warm_up :])
            print(
                f"round {number + 1} of {chosen.rounds}: {name}: {rate:.1f} real tokens/s, "
                f"rows {outcome.fingerprint}, others used {others:.0%} of the machine",
                file=sys.stderr,
            )
    return sides, busiest


def refuse_if_busy(force: bool) -> None:
    """End here if others are at work: the figures would not mean anything."""
    load = os.getloadavg()[0]
    if load > QUIET * threads() and not force:
        raise SystemExit(f"the load is {load:.2f} on {threads()} processors. Wait, or measure all the same: --force")


def report(chosen: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Summary], dict[str, list[Outcome]]]:
    """Everything measured, as it is printed with --json; the summaries and outcomes it was made from."""
    machine, (task, made) = facts(), prepare(chosen)
    roof = answer(sys.executable, "benchmarks.roof", task.model, allocator=True, log=WORK / "roof.log")
    sides, busiest = rounds(chosen, task)
    summaries = {name: summarise(outcomes, task.warm_up) for name, outcomes in sides.items()}
    everything = {
        "machine": machine | {"largest share used by others": f"{busiest:.0%}"},
        "task": asdict(task) | {"model": chosen.model.name, "rounds": chosen.rounds},
        "rows": made,
        "roof": roof | {"real_tokens_a_second": limit(roof, made["trained_share"])},
        "faults": faults(sides, made["fingerprint"]),
        "summaries": {name: asdict(summary) for name, summary in summaries.items()},
        "sides": {name: [asdict(outcome) for outcome in outcomes] for name, outcomes in sides.items()},
    }
    return everything, summaries, sides


def main(words: list[str] | None = None) -> int:
    """Measure and print; 1 if the sides did not do the same work."""
    chosen = parser().parse_args(words)
    refuse_if_busy(chosen.force)
    WORK.mkdir(parents=True, exist_ok=True)
    everything, summaries, sides = report(chosen)
    rendered = table(summaries, everything["roof"]["real_tokens_a_second"])
    sentences = [*everything["faults"], *comparison(summaries, sides)]
    if chosen.note:
        chosen.note.write_text(note(everything, rendered, sentences, datetime.date.today()))
    print(json.dumps(everything) if chosen.json else "\n".join([rendered, *sentences]))
    return 1 if everything["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
