"""One run of a comparison: `mingshi train` in a process of its own.

A fresh process has its own peak of memory, its own caches and its own end: what it fails by ends nothing else.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from mingshi.errors import Preempted
from mingshi.recipe import Recipe, write_recipe
from mingshi.record import RUN, Run, read_run
from mingshi.resume import finished
from mingshi.signals import Asked

POLL = 0.2  # seconds between two looks at a signal
TAIL = 4000  # bytes of a log that are read for its last words


class Failure(Exception):
    """A run that ended without a result: its exit code, and what it said."""

    def __init__(self, code: int, error: str):
        Exception.__init__(self, error)
        self.code, self.error = code, error


def trained(
    recipe: Recipe, *, file: Path, log: Path, stop: Asked, slim: bool = False, held: tuple[int, ...] = ()
) -> Run:
    """Carry the recipe out, or go on with it, or find it done; give its record.

    `file` is where the recipe is written and `log` what the process says; a `slim` run keeps its record alone, and
    none keeps its checkpoints. The process keeps the descriptors `held` open as long as it lives. Raises Failure where
    the run fails, Preempted where `stop` is asked for.
    """
    folder = Path(recipe.output)
    run = finished(folder, recipe.model_dump(mode="json"))
    if run is None:
        for path in (file, log):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_recipe(recipe, file)
        code = _awaited(file, log, stop, held)
        if stop.requested:
            raise Preempted("stopped in the middle of a run", "Go on with --resume.")
        if code != 0 or not (folder / RUN).is_file():
            raise Failure(code, _last_words(folder, log, code))
        run = read_run(folder)
    for name in ("checkpoints", *(("adapter", "model") if slim else ())):
        shutil.rmtree(folder / name, ignore_errors=True)
    return run


def train_command(file: Path) -> list[str]:
    return [sys.executable, "-m", "mingshi", "train", str(file), "--resume"]


def _awaited(file: Path, log: Path, stop: Asked, held: tuple[int, ...]) -> int:
    """The exit code of a run. A terminal's Ctrl-C is for this process, which asks the run to stop: once."""
    with log.open("ab") as stream:
        process = subprocess.Popen(
            train_command(file),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=held,
            env=os.environ | {"MINGSHI_PARENT": str(os.getpid())},  # killed with -9, it leaves no run behind
        )
        asked = False
        try:
            while True:
                try:
                    return process.wait(timeout=POLL)
                except subprocess.TimeoutExpired:
                    if stop.requested and not asked:
                        process.send_signal(signal.SIGTERM)
                        asked = True
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()


def _last_words(folder: Path, log: Path, code: int) -> str:
    """Why a run failed, by its log, else by its record."""
    with log.open("rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - TAIL))
        lines = stream.read().decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return " ".join(errors)
    if (folder / RUN).is_file() and (error := read_run(folder).run["summary"].get("error")):
        return str(error)
    if code < 0:
        return f"ended by signal {-code} ({signal.Signals(-code).name})"
    return f"ended with code {code}: {lines[-1] if lines else 'without a word'}"
