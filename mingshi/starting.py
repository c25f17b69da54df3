"""How a command starts: its allocator, its signals, its output."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from mingshi.ending import leave_on_request
from mingshi.errors import RecipeError
from mingshi.ranks import refuse_unsuitable

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
PR_SET_PDEATHSIG = 1  # linux/prctl.h
HEAVY = ("train", "eval", "predict", "chat", "merge", "pairs")  # commands that compute


def prepare(arguments: Sequence[str]) -> None:
    """Set the process up for a command and its words; one that computes may start again, with another allocator."""
    if arguments[0] == "train":
        leave_on_request()
        _end_with(os.environ.get("MINGSHI_PARENT", ""))
    if arguments[0] in HEAVY:
        _restart_with_allocator()
    for word in arguments:
        if not word.isascii() and any("\udc80" <= character <= "\udcff" for character in word):
            raise RecipeError(f"{word!a} is not UTF-8: it could not be recorded", "Rename it.")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    refuse_unsuitable(arguments[0])
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # an answer may hold what a terminal's encoding does not


def _end_with(parent: str) -> None:
    """Have the kernel send SIGTERM once the process of this number is gone, so that a run saves and stops with it."""
    if not sys.platform.startswith("linux") or not parent.isdecimal():
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(parent):  # it was quicker
        signal.raise_signal(signal.SIGTERM)


def _restart_with_allocator() -> None:
    """glibc returns large buffers to the system at once and faults them in anew, which costs a multiple of the work.

    Its thresholds are read when a process starts, so the process starts again, once. MINGSHI_ALLOCATOR=off leaves it.
    """
    if not sys.platform.startswith("linux") or os.environ.get("MINGSHI_ALLOCATOR") == "off":
        return
    if any(name in os.environ for name in ALLOCATOR):
        return
    os.environ.update(ALLOCATOR)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # heard by the new process
    os.execv(sys.executable, [sys.executable, "-m", "mingshi", *sys.argv[1:]])
