"""Which of how many processes this one is, as `torchrun` and `accelerate launch` say it in the environment."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from mingshi.errors import Problem, RecipeError

# What `accelerate launch` hands on of its own settings, and where Mingshi is told the same.
DIVIDED = (
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)
FIRST_WORDS = 1.5  # seconds in which process 0 says what is wrong; a launcher ends all when one has ended
NO = ("", "no", "false", "0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One process among several, on one machine or more."""

    number: int  # of all processes, from 0
    count: int
    local: int  # number among those of this machine: the number of its device
    beside: int  # how many processes this machine has

    def __str__(self) -> str:
        return f"process {self.number} of {self.count}"


def place() -> Place | None:
    """This process's place; None where it is the only one."""
    if int(os.environ.get("WORLD_SIZE") or 1) < 2 or "RANK" not in os.environ:
        return None
    count = int(os.environ["WORLD_SIZE"])
    number = int(os.environ["RANK"])
    local = int(os.environ.get("LOCAL_RANK") or number)
    return Place(number=number, count=count, local=local, beside=int(os.environ.get("LOCAL_WORLD_SIZE") or count))


def onlooking() -> bool:
    """Is this a process that leaves speaking and writing to another?"""
    mine = place()
    return mine is not None and mine.number > 0


def met() -> bool:
    """Has this process joined the others already?"""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and bool(distributed.is_initialized())


def refuse_unsuitable(command: str) -> None:
    """RecipeError names what several processes cannot do here, and settings of a launcher that would be passed over."""
    mine = place()
    if mine is None:
        return
    problems = []
    if command != "train":
        what = f"`mingshi {command}` is the work of one process, and was started as {mine.count}"
        problems.append(Problem(what=what, mend="Start it without torchrun or accelerate; they are for train."))
    for name in DIVIDED:
        if os.environ.get(name, "").lower() not in NO:
            what = f"{name} asks for a network divided among processes, which belongs to the recipe"
            mend = "Start it with torchrun, or without this setting, and say `shard: always` in the recipe's stage."
            problems.append(Problem(what=what, mend=mend))
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "").lower().rpartition(".")[2]  # or PrecisionType.NO
    if precision not in NO:
        what = f"accelerate asks for mixed precision {precision}, which belongs to the recipe"
        problems.append(Problem(what=what, mend="Leave it out, and say `precision: bf16` in the recipe."))
    if problems and mine.number > 0:
        time.sleep(FIRST_WORDS)
        raise SystemExit(RecipeError.exit_code)  # process 0 says it for all
    if problems:
        raise RecipeError(problems)


def threads(mine: Place) -> int | None:
    """How many threads this process may compute with: its share of the cores; None where a person has said."""
    if "OMP_NUM_THREADS" in os.environ and not _set_by_launcher():
        return None
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)
    return max(1, cores // mine.beside)


def _set_by_launcher() -> bool:
    """torchrun and accelerate set OMP_NUM_THREADS where it is not set; what they were started with tells."""
    try:
        began = Path(f"/proc/{os.getppid()}/environ").read_bytes()
    except OSError:
        return False
    launched = "TORCHELASTIC_RUN_ID" in os.environ
    return launched and not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in began.split(b"\0"))
