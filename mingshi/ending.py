"""How a command that failed ends: a line on standard error for each thing wrong, and an exit code."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from types import FrameType

from mingshi.errors import MingshiError, Preempted, Problem, RecipeError, ResourceError
from mingshi.ranks import FIRST_WORDS, met, onlooking, place

READER_LEFT = 141  # what a shell sees of a command that SIGPIPE ended
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)


def failed(error: Exception, *, debug: bool = False) -> int:
    """Say what went wrong, in one line for each problem, and give the exit code. `debug` shows where as well."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still held back has nowhere to go
        return READER_LEFT
    if onlooking() and not met():
        time.sleep(FIRST_WORDS)  # where process 0 has said the same, the launcher ends this one meanwhile
    if debug:
        traceback.print_exception(error)
    known = error if isinstance(error, MingshiError) else _known(error)
    if known is None:
        first = str(error).splitlines()[0] if str(error) else ""
        _say(f"{_head()}a fault of ours: {type(error).__name__}: {first[:300]}. --debug shows where.")
        return MingshiError.exit_code
    for problem in known.problems:
        _say(f"{_head()}{problem}")
    if len(known.problems) > 1:
        _say(f"{len(known.problems)} problems")
    return known.exit_code


def _head() -> str:
    """Which process speaks, where it is not the one that speaks for all."""
    return f"error: {place()}: " if onlooking() else "error: "


def _known(error: Exception) -> MingshiError | None:
    """What libraries raise over things that are not our fault, in our words."""
    complaint = getattr(error, "format_message", None)  # click's, whose types typer keeps to itself
    if complaint is not None:
        what, _, near = str(complaint()).partition(" Did you mean ")
        return RecipeError(what, f"Did you mean {near}" if near else "See mingshi --help.")
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return ResourceError("the memory does not suffice", "Use a smaller model, or shorter or fewer rows at once.")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    problem = Problem(file=str(error.filename or ""), what=os.strerror(error.errno).lower())
    if error.errno in NO_ROOM:
        return ResourceError(problem)
    return RecipeError(problem) if error.filename is not None else None


def _say(line: str) -> None:
    from mingshi.terminal import harmless

    print(harmless(line), file=sys.stderr)


def leave_on_request() -> None:
    """Until a run looks out for signals itself there is nothing to save: SIGTERM ends the process, resumable."""
    signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    if not onlooking():
        os.write(2, b"error: stopped by a signal. Go on with --resume.\n")
    os._exit(Preempted.exit_code)
