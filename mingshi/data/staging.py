"""Hidden folders in which a cache is made before it is renamed into its place.

Whoever writes one holds its lock, which goes with the process: a folder whose lock is free was left by a process that
was killed, and the next one to write removes it.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

QUIET = 60.0  # seconds without a change before a folder may count as left: one just made has no lock yet
DAMAGED = "-damaged"  # ends the name of a published folder on its way out
_NAME = re.compile(rf"\.\w{{16}}-\d+-[0-9a-f]{{8}}({DAMAGED})?")


@contextmanager
def staging(parent: Path, key: str) -> Iterator[Path]:
    """An empty folder for this block alone, gone at its end if it has not been renamed; OSError as the disk says."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = parent / f".{key[:16]}-{os.getpid()}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        with _claim(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove what killed processes left. Where there are no locks, nothing is."""
    for path in parent.iterdir():
        if _NAME.fullmatch(path.name):
            with suppress(OSError):
                if time.time() - _changed(path) > QUIET:
                    with _claim(path) as ours:
                        if ours:
                            shutil.rmtree(path)


@contextmanager
def _claim(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder; False where another process has it, or where the file system knows none."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _changed(folder: Path) -> float:
    """When the folder or a file in it was last written."""
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
