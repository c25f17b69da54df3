"""How long a command takes to start: `python -m benchmarks startup`.

Timed are `mingshi --help`, and `mingshi train` from its start to its first finished step; then it is ended. A run
that is not timed comes first, so that caches are warm: rows are encoded, and the untrained model is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from benchmarks.environment import ROOT
from benchmarks.side_by_side import WORK, refuse_if_busy

RECIPE = ROOT / "recipes" / "docstrings.yaml"
PROGRAM = (sys.executable, "-m", "mingshi")
LOOK = 0.01  # seconds between two looks for the first step
LONGEST = 600.0  # seconds to wait for it
NOT_A_USERS = ("PYTHONDONTWRITEBYTECODE",)  # compiled modules are kept, as they are for a user


def seconds_of_help() -> float:
    """Wall seconds of `mingshi --help`."""
    began = time.perf_counter()
    subprocess.run([*PROGRAM, "--help"], cwd=ROOT, env=_variables(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def seconds_to_step(recipe: Path, words: Sequence[str] = ()) -> tuple[float, float]:
    """Wall seconds from the start of `mingshi train` to the end of its first step, and those of the step alone.

    Raises RuntimeError where the command ends before, or does not get there.
    """
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, (WORK / "startup.log").open("w+b") as log:
        output = Path(folder) / "run"
        command = [*PROGRAM, "train", str(recipe), "--output", str(output), *words]
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, env=_variables(), stdout=subprocess.DEVNULL, stderr=log)
        try:
            step = _first_step(process, output / "steps.jsonl", began, log)
            return time.perf_counter() - began, step
        finally:
            process.kill()
            process.wait()


def _first_step(process: subprocess.Popen[bytes], path: Path, began: float, log: IO[bytes]) -> float:
    while not (path.is_file() and b"\n" in path.read_bytes()):
        if process.poll() is not None or time.perf_counter() - began > LONGEST:
            log.seek(0)
            raise RuntimeError(f"no step was finished:\n{log.read().decode(errors='replace')[-2000:]}")
        time.sleep(LOOK)
    return float(json.loads(path.read_bytes().splitlines()[0])["seconds"])


def _variables() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    return {name: value for name, value in kept.items() if name not in NOT_A_USERS}


def measure(recipe: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round, after one that is not timed."""
    found: dict[str, list[float]] = {"--help": [], "start to first finished step": [], "the first step alone": []}
    for number in range(rounds + 1):
        seconds = [seconds_of_help(), *seconds_to_step(recipe)]
        if not number:
            continue
        for values, value in zip(found.values(), seconds, strict=True):
            values.append(value)
        told = ", ".join(f"{name} {value:.2f} s" for name, value in zip(found, seconds, strict=True))
        print(f"round {number} of {rounds}: {told}", file=sys.stderr)
    return found


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print medians."""
    line = argparse.ArgumentParser(prog="python -m benchmarks startup", description="Time to help and to a first step.")
    line.add_argument("--recipe", type=Path, default=RECIPE)
    line.add_argument("--rounds", type=int, default=5)
    line.add_argument("--force", action="store_true", help="measure on a busy machine too")
    line.add_argument("--json", action="store_true")
    chosen = line.parse_args(words)
    refuse_if_busy(chosen.force)
    found = measure(chosen.recipe, chosen.rounds)
    if chosen.json:
        print(json.dumps(found))
        return 0
    for name, values in found.items():
        print(f"{name:30} {statistics.median(values):6.2f} s ({min(values):.2f} to {max(values):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
