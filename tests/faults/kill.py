"""Real runs in processes of their own, killed at random moments of their life, and what must be true afterwards.

A moment is a phase, recognised from what the process has written, and a random while after its beginning. So the kills
fall on every part of a run, whatever the machine's speed: uniform ones would nearly all hit the import of torch.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from mingshi import checkpoint
from mingshi.record import read_run

ROOT = Path(__file__).parents[2]
TIME_LIMIT = 120.0  # seconds for one process
WEIGHTS = ("adapter/adapter_model.safetensors", "model/model.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a process ended: its exit code (minus the signal's number), whether we signalled it, and what it said."""

    code: int
    signalled: bool
    said: str
    output: str
    seconds_to_die: float = 0.0


class Process:
    """`mingshi train` under way."""

    def __init__(self, recipe: Path, run: Path, words: Sequence[str] = ()):
        self.recipe, self.run, self.began = recipe, run, time.monotonic()
        command = [sys.executable, "-m", "mingshi", "train", str(recipe), *words]
        with self._said.open("wb") as errors, self._output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=ROOT, env=environment())

    @property
    def _said(self) -> Path:
        return self.recipe.with_suffix(".err")

    @property
    def _output(self) -> Path:
        return self.recipe.with_suffix(".out")

    def said(self) -> str:
        return self._said.read_text(encoding="utf-8")

    def ended(self, *, signalled: bool = False, since: float = 0.0) -> Ended:
        code = self.process.wait(timeout=TIME_LIMIT)
        return Ended(
            code=code,
            signalled=signalled,
            said=self.said(),
            output=self._output.read_text(encoding="utf-8"),
            seconds_to_die=time.monotonic() - since,
        )

    def age(self) -> float:
        return time.monotonic() - self.began

    def steps(self) -> int:
        """Steps on record, once the record is this process's own."""
        file = self.run / "steps.jsonl"
        return file.read_bytes().count(b"\n") if "weights train" in self.said() and file.exists() else -1

    def writes(self, pattern: str) -> bool:
        return any(self.run.glob(pattern))


Reached = Callable[[Process], bool]


@dataclass(frozen=True, slots=True)
class Moment:
    """A phase that has begun, and how many seconds later the signal comes."""

    phase: str
    reached: Reached
    delay: float


def starting(chance: random.Random) -> Moment:
    after = chance.uniform(0.3, 4.0)
    return Moment("starting", lambda process: process.age() > after, 0.0)


def evaluating(chance: random.Random) -> Moment:
    return Moment("evaluating", lambda process: "test  " in process.said(), chance.uniform(0, 0.15))


def stepping(chance: random.Random, step: int) -> Moment:
    return Moment(f"stepping {step}", lambda process: process.steps() >= step, chance.uniform(0, 0.03))


def saving(chance: random.Random, step: int) -> Moment:
    def reached(process: Process) -> bool:
        done = process.steps()
        return done >= step and (done > step + 4 or process.writes("checkpoints/*/.staging-*"))

    return Moment(f"saving after {step}", reached, chance.uniform(0, 0.006))


def publishing(chance: random.Random) -> Moment:
    def reached(process: Process) -> bool:
        return "after " in process.said()

    return Moment("publishing", reached, chance.uniform(0, 0.12))


def schedule(chance: random.Random, *, kills: int, steps: int) -> list[Moment]:
    """Moments of every phase in an order in which each can be reached: later ones lie behind later checkpoints."""
    places = sorted(chance.sample(range(1, steps - 6), kills - 3))
    moments = [chance.choice((stepping, saving))(chance, place) for place in places]
    for early in (starting, evaluating):
        moments.insert(chance.randrange(len(moments) + 1), early(chance))
    return [*moments, publishing(chance)]


def environment() -> dict[str, str]:
    """One thread, as bit-for-bit repetition asks for the same number each time; and no network."""
    settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return {**os.environ, **settings}


def signal_at(process: Process, moment: Moment, number: signal.Signals) -> Ended:
    """Send the signal at that moment, unless the process has ended by then."""
    while process.process.poll() is None:
        if process.age() > TIME_LIMIT:
            process.process.kill()
            raise AssertionError(f"{moment.phase} was not reached in {TIME_LIMIT} s: {process.said()}")
        if moment.reached(process):
            time.sleep(moment.delay)
            since = time.monotonic()
            process.process.send_signal(number)
            return process.ended(signalled=True, since=since)
        time.sleep(0.0005)
    return process.ended()


def to_its_end(recipe: Path, run: Path, *words: str) -> Ended:
    ended = Process(recipe, run, words).ended()
    assert ended.code == 0, ended.said
    return ended


# What must be true


def stands(run: Path) -> int:
    """Check that every checkpoint that can be seen is whole, and give the step of the one that a resume would choose.

    Stages come one after another: the number grows with them.
    """
    record = run / "run.json"
    if not record.exists():
        return 0
    name = orjson.loads(record.read_bytes())["id"]
    read_run(run)
    place = 0
    for stage in sorted((run / "checkpoints").glob("stage-*")):
        seen = sorted(stage.glob("step-*"))
        for path in seen:
            assert checkpoint.verify(path).run == name
        chosen, notes = checkpoint.latest(stage, run=name)
        assert not notes
        if chosen is not None:
            assert checkpoint.load(chosen).step == max(int(path.name[5:13]) for path in seen)
            place = 10_000 * int(stage.name[6:]) + checkpoint.load(chosen).step
    return place


def history(run: Path) -> dict[str, Any]:
    """All that must not depend on how often a run was killed: numbers, ids, weights, and the names in its folder."""
    recorded = read_run(run)
    return {
        "steps": [{name: value for name, value in line.items() if name != "seconds"} for line in recorded.steps],
        "evals": [orjson.dumps(line) for line in recorded.evals],  # as text: a NaN is equal to itself
        "scores": recorded.run["scores"],
        "summary": recorded.run["summary"],
        "status": recorded.run["status"],
        "data": recorded.data,
        "weights": {name: _hash(run / name) for name in WEIGHTS if (run / name).exists()},
        "files": sorted(str(path.relative_to(run)) for path in run.rglob("*")),
    }


def assert_equal_histories(killed: Mapping[str, Any], whole: Mapping[str, Any], *, told: str) -> None:
    """Names the first place in which they differ."""
    for name, value in whole.items():
        if isinstance(value, list):
            for place, (mine, theirs) in enumerate(zip(killed[name], value, strict=False)):
                assert mine == theirs, f"{told}: {name}[{place}]"
        assert killed[name] == value, f"{told}: {name}"
    assert whole["weights"] and whole["steps"]


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
