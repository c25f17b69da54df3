"""What `mingshi plan` and `mingshi train` do for a search, without a network: scores that follow from the recipe.

The validation loss falls with the steps and is the lower the nearer the learning rate is to 3e-4; a rate above 1e-2
diverges. It stops where it is asked to, goes on from there, and refuses a folder that another process trains in.
`orders.json` beside the recipes may hold: {"slow": seconds a step}.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from ruamel.yaml import YAML

SAMPLES, TOKENS = 80, 1600
HALF = 0.05


def orders() -> dict:
    path = Path("orders.json")
    return json.loads(path.read_text()) if path.exists() else {}


def steps_of(stage: dict) -> int:
    epoch = math.ceil(SAMPLES / stage["batch"])
    return stage["steps"] or max(1, round(epoch * (stage["epochs"] or 1)))


def samples_of(stage: dict, number: int) -> int:
    """How many rows a step reads: the last one of an epoch what is left."""
    place = (number - 1) % math.ceil(SAMPLES / stage["batch"])
    return min(stage["batch"], SAMPLES - place * stage["batch"])


def value(recipe: dict, step: int, steps: int) -> float:
    stage = recipe["stages"][0]
    far = abs(math.log10((stage["optim"]["learning_rate"] or 2e-5) / 3e-4))
    batch = 0.01 * abs(math.log2(stage["batch"] / 16))
    luck = 0.01 * math.sin(recipe["seed"] + 1)
    return 1.0 + 0.5 * far + batch + luck + math.exp(-3 * step / steps)


def line(step: int, number: float) -> dict:
    score = {"value": number, "low": number - HALF, "high": number + HALF, "count": 8, "signature": "nats|x"}
    other = score | {"value": 1 / number, "signature": "accuracy|x"}
    items = {"nats_per_token.sum": [number] * 8, "nats_per_token.weight": [1.0] * 8}
    head = {"stage": 0, "step": step, "when": "during", "data": "validation", "kind": "perplexity", "samples": []}
    return head | {"scores": {"nats_per_token": score, "accuracy": other}, "items": items}


def write(folder: Path, recipe: dict, status: str, error: str = "") -> None:
    run = {"format": 1, "id": "x", "status": status, "created": "2026", "seconds": 1.0, "recipe": recipe}
    run |= {"model": {"name": "tiny", "trainable": 10, "parameters": 1000}, "machine": {"threads": 2}}
    run |= {"summary": {"error": error} if error else {}, "scores": {}, "seed": recipe["seed"], "memory": []}
    draft = folder / ".run.json.new"
    draft.write_text(json.dumps(run))
    draft.replace(folder / "run.json")


def plan(recipe: dict) -> int:
    print(json.dumps({"stages": [{"samples": SAMPLES, "tokens": TOKENS, "steps": steps_of(recipe["stages"][0])}]}))
    return 0


def train(recipe: dict) -> int:
    folder, told = Path(recipe["output"]), orders()
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("error: in use by another run", file=sys.stderr)
        return 2
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    parent, stage = int(os.environ["MINGSHI_PARENT"]), recipe["stages"][0]
    steps = steps_of(stage)
    every = stage["evaluate"] if stage["evaluate"] != "epoch" else math.ceil(SAMPLES / stage["batch"])
    if recipe["test"] and "again" not in folder.parts:
        print("error: a trial reads the test rows", file=sys.stderr)
        return 3
    for name in ("checkpoints", "adapter"):
        (folder / name).mkdir(exist_ok=True)
    stages = [{"headline": "nats_per_token", "higher_is_better": False}]
    sources = [{"role": "train", "sha256": "a", "path": "train.jsonl", "used": 9}]
    (folder / "data.json").write_text(json.dumps({"sources": sources, "stages": stages}))
    steps_file = folder / "steps.jsonl"
    done = steps_file.read_text().split("\n")[:-1] if steps_file.exists() else []
    write(folder, recipe, "running")
    if (stage["optim"]["learning_rate"] or 0) > 1e-2:
        write(folder, recipe, "diverged", "the loss is not finite")
        print("error: the loss is not finite. Lower the learning rate.", file=sys.stderr)
        return 5
    for number in range(len(done) + 1, steps + 1):
        time.sleep(told.get("slow", 0.0))
        with steps_file.open("a") as stream:
            step = {
                "stage": 0,
                "number": number,
                "tokens": TOKENS * samples_of(stage, number) // SAMPLES,
                "trained": 4,
                "seconds": 0.1,
            }
            stream.write(json.dumps(step) + "\n")
        if number % every == 0 or number == steps:
            with (folder / "evals.jsonl").open("a") as stream:
                stream.write(json.dumps(line(number, value(recipe, number, steps))) + "\n")
        if asked or os.getppid() != parent:
            write(folder, recipe, "preempted")
            return 75
    if recipe["test"]:
        with (folder / "evals.jsonl").open("a") as stream:
            for when, at in (("before", 0), ("after", steps)):
                stream.write(json.dumps(line(at, value(recipe, at, steps)) | {"when": when, "data": "test"}) + "\n")
    write(folder, recipe, "done")
    with Path("made.txt").open("a") as stream:
        stream.write(f"{folder} {len(done)}\n")
    return 0


if __name__ == "__main__":
    with Path(sys.argv[2]).open() as told_recipe:
        told = YAML(typ="safe").load(told_recipe.read())
    sys.exit(plan(told) if sys.argv[1] == "plan" else train(told))
