"""Estimated against measured memory: short runs of recipes, each in a process of its own.

    python -m benchmarks.memory recipes/docstrings.yaml OUTPUT --stream 2048 4096 --set stages.0.batch=48

Prints a line of a table for each stream budget: what `mingshi plan` would have said and what the process took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SHORT = ("stages.0.steps=3", "stages.0.epochs=null", "stages.0.validation=0", "evals=[]", "test=[]")
PARTS = ("weights", "optimiser", "activations", "other", "total")


def line(recipe: str, output: Path, *, stream: int, sets: Sequence[str]) -> str:
    """One run of three steps as a row of the table; gigabytes."""
    settings = [*SHORT, f"stream={stream}", f"output={output}", *sets]
    command = [sys.executable, "-m", "mingshi", "train", recipe, *(word for one in settings for word in ("--set", one))]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (entry,) = json.loads((output / "run.json").read_text(encoding="utf-8"))["memory"]
    estimate, measured = entry["estimate"], entry["measured"]
    numbers = [f"{estimate[name] / 1e9:.2f}" for name in PARTS]
    off = estimate["total"] / measured - 1
    return f"| {' | '.join([str(stream), *numbers, f'{measured / 1e9:.2f}', f'{off:+.0%}'])} |"


def main(words: Sequence[str]) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("output", type=Path, help="a folder that is not there yet")
    parser.add_argument("--stream", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--set", dest="sets", action="append", default=[])
    told = parser.parse_args(words)
    print(f"| stream | {' | '.join(PARTS)} | measured | estimate off by |")
    print("|" + "---|" * (len(PARTS) + 3))
    for stream in told.stream:
        print(line(told.recipe, told.output / str(stream), stream=stream, sets=told.sets), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
