"""What every benchmark against a peer does: prepare, measure in turns, report.

Both sides get the same token ids, masks and weights and take the same optimiser steps. Each measurement is a
process of its own; the sides take turns, round by round, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from benchmarks.environment import OWN, ROOT, answer, peer_python
from benchmarks.machine import Usage, facts, threads
from benchmarks.roof import limit
from benchmarks.summary import Told, note
from benchmarks.task import Measured
from mingshi.model.assets import asset_folder

WORK = ROOT / "build" / "benchmarks"
QUIET = 0.3  # load for each processor above which a measurement is refused

Sides = Mapping[str, Sequence[Any]]  # outcomes by side, one a round; what they are decides the contest


@dataclass(frozen=True, slots=True)
class Peer:
    """Another program that carries a task out."""

    module: str
    setting: Any  # a dataclass of task.py
    environment: str = OWN  # of environment.ENVIRONMENTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One benchmark: what is done, by which modules, and how it is told."""

    name: str  # of the command, and of what `prepare` makes
    title: str  # of a note
    about: str  # one sentence for --help
    examples: str  # what a step takes: rows, pairs, prompts
    data: Path
    made_by: str  # the command that makes the data
    longest: int  # tokens of one text; longer ones are left out
    ours: str  # the module that measures this project
    peers: Mapping[str, Peer]
    task: Any  # a dataclass of task.py
    outcome: type[Measured]
    tell: Callable[[Sides, Any, str, float], Told]  # outcomes, task, fingerprint, real tokens a second at the limit
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # more of the command line, for `prepare`
    roof: bool = True  # whether the matrix products' limit is measured


def parser(contest: Contest) -> argparse.ArgumentParser:
    """The command line."""
    usual = {one.name: one.default for one in fields(contest.task)}
    line = argparse.ArgumentParser(prog=f"python -m benchmarks {contest.name}", description=contest.about)
    line.add_argument("--model", type=Path, default=asset_folder("smollm2-135m"), help="a folder in the Hub's layout")
    line.add_argument("--data", type=Path, default=contest.data, help="rows of a format that this project reads")
    line.add_argument("--batch", type=int, default=usual["batch"], help=f"{contest.examples} of an optimiser step")
    line.add_argument("--steps", type=int, default=usual["steps"], help="optimiser steps timed")
    line.add_argument("--warm-up", type=int, default=usual["warm_up"], help="steps run before them")
    line.add_argument("--rounds", type=int, default=3)
    for name, told in contest.options.items():
        line.add_argument(f"--{name.replace('_', '-')}", **told)
    line.add_argument("--peer", action="append", choices=list(contest.peers), help="may be repeated; all if not given")
    line.add_argument("--without-ours", action="store_true", help="measure the peers alone")
    line.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="change a peer's setting")
    line.add_argument("--force", action="store_true", help="measure on a busy machine too")
    line.add_argument("--json", action="store_true", help="print the report as JSON on standard output")
    line.add_argument("--note", type=Path, help="write the report as a markdown page")
    return line


def changed(setting: Any, changes: Sequence[str], *, batch: int) -> dict[str, Any]:
    """A peer's setting with `name=value` changes, the values in JSON or plain text; no micro-batch over a batch."""
    values = asdict(setting)
    for change in changes:
        name, _, text = change.partition("=")
        if name not in values:
            raise SystemExit(f"--set {change}: no such setting; there are {', '.join(values)}")
        values[name] = text if isinstance(values[name], str) else json.loads(text)
    values["micro_batch"] = min(values["micro_batch"], batch)
    if batch % values["micro_batch"]:
        raise SystemExit(f"a batch of {batch} is not made of micro-batches of {values['micro_batch']}")
    return values


def prepare(contest: Contest, chosen: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The task, whose rows and weights are made by this project for both sides, and what is told of them."""
    for place, mend in ((chosen.model, "scripts/fetch"), (chosen.data, contest.made_by)):
        if not place.exists():
            raise SystemExit(f"{place} is missing. Make it with {mend}, or name another.")
    request = {
        "model": str(chosen.model),
        "data": str(chosen.data),
        "folder": str(WORK / contest.name),
        "count": (chosen.warm_up + chosen.steps) * chosen.batch,
        "batch": chosen.batch,
        "kind": contest.name,
        "longest": contest.longest,
        **_chosen(contest, chosen),
    }
    made = answer(sys.executable, "benchmarks.prepare", json.dumps(request), allocator=False, log=WORK / "prepare.log")
    counts = {"warm_up": chosen.warm_up, "steps": chosen.steps, "batch": chosen.batch}
    return contest.task(**{"model": str(chosen.model)} | counts | made["task"]), made["told"]


def measure(contest: Contest, side: str, task: Any, changes: Sequence[str]) -> tuple[Any, float]:
    """One side in a fresh process, and the share of the machine that others used meanwhile."""
    before, given = Usage.now(), json.dumps(asdict(task))
    log = WORK / f"{side}.log"
    if side == "ours":
        result = answer(sys.executable, contest.ours, given, allocator=True, log=log)
    else:
        peer = contest.peers[side]
        setting = changed(peer.setting, changes, batch=task.batch)
        words = (peer.module, given, json.dumps(setting))
        result = answer(peer_python(peer.environment), *words, allocator=setting["allocator"], log=log)
    return contest.outcome(**result), Usage.now().others_since(before)


def rounds(contest: Contest, chosen: argparse.Namespace, task: Any) -> tuple[dict[str, list[Any]], float]:
    """Every side, in turns, and the largest share of the machine that others used."""
    names = ([] if chosen.without_ours else ["ours"]) + (chosen.peer or list(contest.peers))
    sides: dict[str, list[Any]] = {name: [] for name in names}
    busiest = 0.0
    for number in range(chosen.rounds):
        for name in names:
            outcome, others = measure(contest, name, task, chosen.set)
            sides[name].append(outcome)
            busiest = max(busiest, others)
            print(
                f"round {number + 1} of {chosen.rounds}: {name}: {outcome.rate(task.warm_up):.1f} real tokens/s, "
                f"{contest.examples} {outcome.fingerprint}, others used {others:.0%} of the machine",
                file=sys.stderr,
            )
    return sides, busiest


def refuse_if_busy(force: bool) -> None:
    """End here if others are at work: the figures would not mean anything."""
    load = os.getloadavg()[0]
    if load > QUIET * threads() and not force:
        raise SystemExit(f"the load is {load:.2f} on {threads()} processors. Wait, or measure all the same: --force")


def report(contest: Contest, chosen: argparse.Namespace) -> tuple[dict[str, Any], Told]:
    """Everything measured, as it is printed with --json, and what is told of it."""
    machine, (task, made) = facts(), prepare(contest, chosen)
    roof, highest = {}, math.nan
    if contest.roof:
        roof = answer(sys.executable, "benchmarks.roof", task.model, allocator=True, log=WORK / "roof.log")
        highest = limit(roof, made["trained_share"], whole=not task.adapter)
        roof |= {"real_tokens_a_second": highest}
    sides, busiest = rounds(contest, chosen, task)
    told = contest.tell(sides, task, made["fingerprint"], highest)
    everything = {
        "machine": machine | {"largest share used by others": f"{busiest:.0%}"},
        "task": asdict(task) | {"model": chosen.model.name, "rounds": chosen.rounds},
        "rows": made | _chosen(contest, chosen),
        "roof": roof,
        "faults": told.faults,
        "summaries": {name: asdict(summary) for name, summary in told.summaries.items()},
        "sides": {name: [asdict(outcome) for outcome in outcomes] for name, outcomes in sides.items()},
    }
    return everything, told


def _chosen(contest: Contest, chosen: argparse.Namespace) -> dict[str, Any]:
    return {name: vars(chosen)[name] for name in contest.options}


def compete(contest: Contest, words: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if the sides did not do the same work."""
    chosen = parser(contest).parse_args(words)
    refuse_if_busy(chosen.force)
    WORK.mkdir(parents=True, exist_ok=True)
    everything, told = report(contest, chosen)
    if chosen.note:
        chosen.note.write_text(note(contest.title, everything, told, datetime.date.today()))
    print(json.dumps(everything) if chosen.json else "\n".join([told.table, *told.faults, *told.sentences]))
    return 1 if told.faults else 0
