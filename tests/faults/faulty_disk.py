"""A disk that fails at its k-th operation, dies at it, or loses power at it.

Every call that changes the disk is counted. Losing power undoes what was not made durable: the bytes of a file that
was not fsynced are cut in half ("bytes"), and a name that was made or moved comes undone too unless its folder was
fsynced afterwards ("names and bytes"); removals always last. This is the unkindest order that POSIX allows.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mingshi import checkpoint


class Death(BaseException):
    """The process is gone: nothing it would do afterwards happens."""


class FaultyDisk:
    """Counts operations under `root` while armed, and makes the one numbered `at` go wrong."""

    def __init__(self, root: Path, *, at: int = 0, error: int | None = None, power_loss: str = ""):
        self.root, self.at, self.error, self.power_loss = root, at, error, power_loss
        self.count = 0
        self.dead = False
        self.trace: list[tuple[str, str]] = []  # what was done, to which name
        self._unsynced: list[tuple[int, Callable[[Path], object]]] = []  # inode of a folder, how a change in it undoes
        self._dirty: set[int] = set()  # inodes of files whose bytes are not durable

    @property
    def struck(self) -> bool:
        return self.count >= self.at

    @contextmanager
    def armed(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("mkdir", "rename", "unlink", "rmdir", "chmod", "open", "fsync"):
                patch.setattr(os, name, self._wrap(name, getattr(os, name)))
            for name in ("_write_bytes", "_write_tensors"):
                patch.setattr(checkpoint, name, self._wrap(name, getattr(checkpoint, name)))
            yield
        if self.dead and self.power_loss:
            self.lose_power()

    def _wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(target: Any, *others: Any, **options: Any) -> Any:
            if self.dead:
                raise Death
            self.count += 1
            path = Path(os.readlink(f"/proc/self/fd/{target}") if isinstance(target, int) else target)
            if self.count == self.at:
                self._strike(name, path, lambda: real(target, *others, **options))
            result = real(target, *others, **options)
            self._note(name, path, *others)
            return result

        return operation

    def _strike(self, name: str, path: Path, act: Callable[[], Any]) -> None:
        if name.startswith("_write"):  # a write stops halfway
            act()
            self._note(name, path)
            os.truncate(path, path.stat().st_size // 2)
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        self.dead = True
        raise Death

    def _undo(self, name: str, path: Path, *others: Any) -> Callable[[Path], object] | None:
        """How a name that was made or moved comes undone, given where its folder is by then."""
        if name == "mkdir":
            return lambda folder: shutil.rmtree(folder / path.name, ignore_errors=True)
        if name.startswith("_write"):
            return lambda folder: (folder / path.name).unlink(missing_ok=True)
        if name == "rename":
            return lambda folder: _move_back(folder / Path(others[0]).name, folder / path.name)
        return None

    def _note(self, name: str, path: Path, *others: Any) -> None:
        self.trace.append((name, path.name))
        if undo := self._undo(name, path, *others):
            self._unsynced.append((path.parent.stat().st_ino, undo))
        if name.startswith("_write"):
            self._dirty.add(path.stat().st_ino)
        if name == "fsync":
            inode = path.stat().st_ino
            self._dirty.discard(inode)
            self._unsynced = [change for change in self._unsynced if change[0] != inode]

    def lose_power(self) -> None:
        for file in self.root.rglob("*"):
            if file.is_file() and file.stat().st_ino in self._dirty:
                os.truncate(file, file.stat().st_size // 2)
        while self._unsynced and self.power_loss == "names and bytes":
            inode, undo = self._unsynced.pop()
            for folder in (self.root.parent, *self.root.parent.rglob("*")):
                if folder.is_dir() and folder.stat().st_ino == inode:
                    undo(folder)
                    break


def _move_back(source: Path, target: Path) -> None:
    if source.exists():
        source.rename(target)


EIO, ENOSPC = errno.EIO, errno.ENOSPC
