"""The one owner of checkpoints: a folder that can be seen is whole, and an old one goes only when the new one stands.

    stage → write, fsync → hash → manifest, fsync → fsync folder → rename → fsync parent → verify → retire older ones

Nothing is ever changed in place. Only safetensors and JSON are written or read. The manifest names every file with its
size and sha256 and carries a seal over itself, so that one flipped bit anywhere is found before a weight is used.
Checkpoints are ordered by step, never by a clock.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mingshi.errors import MingshiError, ModelError, Problem, ResourceError

FORMAT = 1
MANIFEST, STATE, TENSORS = "manifest.json", "state.json", ".safetensors"
REPLACED = ".replaced"  # a step that is being saved again keeps its older folder under this suffix until the new stands

_LOG = logging.getLogger("mingshi.checkpoint")
_PUBLISHED = re.compile(rf"step-(\d{{8,}})({re.escape(REPLACED)})?")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_STEM = re.compile(r"[a-z][a-z0-9_-]*")
_RUN = re.compile(r"[A-Za-z0-9]+")
_MANIFEST_LIMIT = 1 << 20  # bytes; a manifest is a few hundred
_MEND = "Resume from another checkpoint."


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Checkpoint:
    """What was saved, with every hash checked."""

    path: Path
    run: str
    step: int
    tensors: Mapping[str, Mapping[str, torch.Tensor]]  # by file stem, then by name; on the processor
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Which files make a checkpoint: size in bytes and sha256 by file name."""

    run: str
    step: int
    files: Mapping[str, tuple[int, str]]


def save(
    folder: Path,
    *,
    run: str,
    step: int,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    state: Mapping[str, Any],
    keep: int = 2,
    best: int | None = None,
    resumed: int | None = None,
) -> Path:
    """Publish `tensors` (file stem → name → tensor) and `state` (JSON) as `folder/step-<step>`, then retire older ones.

    `step` counts over the whole run: a folder holds one line of steps. Kept are the `keep` newest, `best` and
    `resumed`. Checkpoints beyond `step` belong to a continuation that was given up, and are retired as well.
    Only one process may save into a folder; `Record`'s lock sees to that.
    Raises `ResourceError` if the disk refuses (the staging folder is removed, earlier checkpoints are intact) and
    `ModelError` if what was written does not read back.
    """
    if not _RUN.fullmatch(run) or step < 0 or keep < 1 or not all(map(_STEM.fullmatch, tensors)):
        raise MingshiError(f"not a checkpoint: run {run!r}, step {step}, keep {keep}, files {list(tensors)}")
    payload = _state_bytes(state)
    target = folder / f"step-{step:08d}"
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True)
            _sync(folder.parent)
        _sweep(folder, run)
        with _staging(folder, run) as staging:
            _fill(staging, run=run, step=step, tensors=tensors, state=payload)
            _publish(staging, target, run)
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else (error.strerror or str(error))
        mend = "Earlier checkpoints are intact: put the disk right, then go on with `--resume`."
        what = f"the checkpoint of step {step} was not written: {reason}"
        raise ResourceError(Problem(file=str(folder), what=what, mend=mend)) from error
    try:
        verify(target)
    except ModelError:
        with suppress(OSError):
            _discard(target, run)
        raise
    _retire(folder, run=run, step=step, keep=keep, wanted={step, best, resumed})
    return target


def tidy(folder: Path, *, run: str, step: int, keep: int = 2, best: int | None = None) -> None:
    """What a save that was killed after its last rename had still to do: sweep, and retire older checkpoints."""
    _sweep(folder, run)
    _retire(folder, run=run, step=step, keep=keep, wanted={step, best})


def load(path: Path) -> Checkpoint:
    """Read a checkpoint after checking every file of it; `ModelError` names what is missing or damaged."""
    manifest = verify(path)
    try:
        state = orjson.loads((path / STATE).read_bytes())
        stems = [name.removesuffix(TENSORS) for name in manifest.files if name.endswith(TENSORS)]
        tensors = {stem: load_file(path / f"{stem}{TENSORS}") for stem in stems}
    except (OSError, ValueError, SafetensorError) as error:
        raise _damaged(path, f"it verifies but cannot be read: {error}") from error
    return Checkpoint(path=path, run=manifest.run, step=manifest.step, tensors=tensors, state=state)


def latest(folder: Path, *, run: str) -> tuple[Path | None, tuple[str, ...]]:
    """The checkpoint of `run` with the highest step among those that verify, and a note for each one passed over."""
    notes: list[str] = []
    for step, path in sorted(_candidates(folder), key=lambda candidate: (-candidate[0], candidate[1].name)):
        try:
            manifest = _read_manifest(path)
            if manifest.run != run:
                raise _damaged(path, "it belongs to another run")
            if manifest.step != step:
                raise _damaged(path, f"its name says step {step}, its manifest step {manifest.step}")
            verify(path)
        except ModelError as error:
            notes.append(f"checkpoint {path.name} passed over: {error}")
            _LOG.warning(notes[-1])
            continue
        return path, tuple(notes)
    return None, tuple(notes)


def verify(path: Path) -> Manifest:
    """Check the size and sha256 of every file; `ModelError` lists each one that is missing, damaged or not plain."""
    manifest = _read_manifest(path)
    found = (_file_problem(path / name, *entry) for name, entry in manifest.files.items())
    if problems := [problem for problem in found if problem]:
        raise ModelError(problems)
    return manifest


def ensure_space(folder: Path, *, bytes: int, keep: int = 2) -> None:
    """Refuse with `ResourceError` unless `keep + 1` checkpoints of `bytes` fit: the kept ones and one in writing."""
    place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free, needed = shutil.disk_usage(place).free, (keep + 1) * bytes
    if free < needed:
        what = f"{needed / 1e9:.2f} GB are needed for {keep} kept checkpoints and one in writing; {free / 1e9:.2f} free"
        mend = "Free some space, choose another `output` or keep fewer."
        raise ResourceError(Problem(file=str(folder), what=what, mend=mend))


def _state_bytes(state: Mapping[str, Any]) -> bytes:
    """The state as JSON; refused where JSON would change it (not-a-number, tuples, keys that are not text)."""
    try:
        payload = orjson.dumps(dict(state), option=orjson.OPT_INDENT_2)
    except TypeError as error:
        raise MingshiError(f"the state of a checkpoint is not JSON: {error}") from error
    back = orjson.loads(payload)
    if changed := [name for name, value in state.items() if back[name] != value]:
        raise MingshiError(f"the state of a checkpoint would not read back unchanged: {', '.join(changed)}")
    return payload


@contextmanager
def _staging(folder: Path, run: str) -> Iterator[Path]:
    """A new folder of a unique name, locked while it is in use and removed if the disk refuses."""
    staging = folder / f".staging-{run}-{secrets.token_hex(8)}"
    try:
        staging.mkdir()
        with _claim(staging):
            yield staging
    except BaseException:
        with suppress(OSError):
            _remove(staging)
        raise


def _fill(
    staging: Path, *, run: str, step: int, tensors: Mapping[str, Mapping[str, torch.Tensor]], state: bytes
) -> None:
    """Write every file and make it durable, the manifest last."""
    _write_bytes(staging / STATE, state)
    mode = stat.S_IMODE((staging / STATE).stat().st_mode)
    for stem, mapping in tensors.items():
        _write_tensors(staging / f"{stem}{TENSORS}", _storable(mapping))
        os.chmod(staging / f"{stem}{TENSORS}", mode)  # safetensors makes 0600; the user's umask decides instead
    names = [STATE, *(f"{stem}{TENSORS}" for stem in tensors)]
    for name in names:
        _sync(staging / name)
    files = {name: ((staging / name).stat().st_size, _hash_file(staging / name)) for name in names}
    _write_bytes(staging / MANIFEST, _manifest_bytes(Manifest(run=run, step=step, files=files)))
    _sync(staging / MANIFEST)
    _sync(staging)


def _storable(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Contiguous tensors on the processor of which no two share memory, as safetensors asks."""
    owners: set[int] = set()
    storable: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().to("cpu").contiguous()
        if plain.untyped_storage().data_ptr() in owners:
            plain = plain.clone()
        owners.add(plain.untyped_storage().data_ptr())
        storable[name] = plain
    return storable


def _publish(staging: Path, target: Path, run: str) -> None:
    """Give the staged folder its name; a folder of the same step steps aside and can still be found meanwhile."""
    aside = target.with_name(target.name + REPLACED)
    if os.path.lexists(target):
        if _owner(target) != run:  # damaged, or not ours: never deleted
            os.rename(target, target.with_name(f"{target.name}.in-the-way-{secrets.token_hex(4)}"))
        elif os.path.lexists(aside):  # a killed replacement: the folder that stepped aside had been proven
            _discard(target, run)
        else:
            os.rename(target, aside)
    try:
        os.rename(staging, target)
    except OSError:
        with suppress(OSError):
            os.rename(aside, target)
        raise
    _sync(target.parent)


def _manifest_bytes(manifest: Manifest) -> bytes:
    """The one way to write a manifest: sorted, indented, sealed with the sha256 of all that is not the seal."""
    files = {name: {"bytes": size, "sha256": digest} for name, (size, digest) in manifest.files.items()}
    fields = {"format": FORMAT, "run": manifest.run, "step": manifest.step, "files": files}
    option = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    seal = hashlib.sha256(orjson.dumps(fields, option=option)).hexdigest()
    return orjson.dumps({**fields, "seal": seal}, option=option)


def _read_manifest(path: Path) -> Manifest:
    file = path / MANIFEST
    try:
        _require_plain(file)
        with file.open("rb") as stream:
            raw = stream.read(_MANIFEST_LIMIT)
    except OSError as error:
        raise _damaged(file, f"this is not a whole checkpoint: {error.strerror}") from error
    try:
        fields = orjson.loads(raw)
        version = fields["format"]
        if isinstance(version, int) and version > FORMAT:
            what = f"checkpoint format {version} is newer than {FORMAT}, the newest that can be read here"
            raise ModelError(Problem(file=str(file), what=what, mend="Use a newer mingshi."))
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in fields["files"].items()}
        manifest = Manifest(run=str(fields["run"]), step=int(fields["step"]), files=files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(file, "the manifest is damaged: it cannot be parsed") from error
    if raw != _manifest_bytes(manifest) or not all(map(_FILE_NAME.fullmatch, files)):
        raise _damaged(file, "the manifest is damaged: its seal does not match")
    return manifest


def _file_problem(file: Path, size: int, digest: str) -> Problem | None:
    try:
        _require_plain(file)
        actual = file.stat().st_size
        if actual != size:
            return Problem(file=str(file), what=f"damaged: {actual} bytes, {size} were written", mend=_MEND)
        if _hash_file(file) != digest:
            return Problem(file=str(file), what="damaged: its sha256 is not what was written", mend=_MEND)
    except OSError as error:
        return Problem(file=str(file), what=f"cannot be read: {error.strerror}", mend=_MEND)
    return None


def _require_plain(file: Path) -> None:
    """A link or a device in a checkpoint was not put there by `save`, and is not followed."""
    if not stat.S_ISREG(file.lstat().st_mode):
        raise OSError(errno.EINVAL, "it is not a plain file")


def _hash_file(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _damaged(path: Path, what: str) -> ModelError:
    return ModelError(Problem(file=str(path), what=what, mend=_MEND))


def _candidates(folder: Path) -> list[tuple[int, Path]]:
    """Step and path of every real folder that is named like a checkpoint."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [(int(match[1]), folder / name) for name in names if (match := _PUBLISHED.fullmatch(name))]


def _retire(folder: Path, *, run: str, step: int, keep: int, wanted: set[int | None]) -> None:
    """Remove what is neither among the newest nor wanted. A failure here costs space, not the run: it is logged."""
    ours = [(number, path) for number, path in _candidates(folder) if _owner(path) == run]
    newest = sorted({number for number, _ in ours if number <= step}, reverse=True)[:keep]
    for number, path in ours:
        doubled = path.name.endswith(REPLACED) and path.with_name(path.name.removesuffix(REPLACED)).exists()
        if (number in newest or number in wanted) and not doubled:
            continue
        try:
            _discard(path, run)
        except OSError as error:
            _LOG.warning("old checkpoint %s could not be removed: %s", path.name, error.strerror)


def _sweep(folder: Path, run: str) -> None:
    """Put right what a killed process of this run left: a step halfway through its replacement, staging, trash."""
    for _, path in _candidates(folder):
        original = path.with_name(path.name.removesuffix(REPLACED))
        if not os.path.lexists(original) and _owner(path) == run:
            os.rename(path, original)
    for path in folder.iterdir():
        if path.name.startswith((f".staging-{run}-", f".trash-{run}-")):
            with suppress(OSError), _claim(path):
                _remove(path)


@contextmanager
def _claim(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder in use; it goes with the process. Without locks nothing is written or swept."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _owner(path: Path) -> str | None:
    """The run whose manifest the folder bears, or None: a folder without one is nobody's, and stays."""
    try:
        return None if path.is_symlink() else _read_manifest(path).run
    except ModelError:
        return None


def _discard(path: Path, run: str) -> None:
    """Take a checkpoint out of sight in one rename, then delete it; one that holds anything else is left alone."""
    known = {*_read_manifest(path).files, MANIFEST}
    with os.scandir(path) as entries:
        foreign = [entry.name for entry in entries if entry.name not in known or entry.is_dir(follow_symlinks=False)]
    if foreign:
        raise OSError(errno.ENOTEMPTY, f"it also holds {foreign[0]}")
    trash = path.with_name(f".trash-{run}-{secrets.token_hex(8)}")
    os.rename(path, trash)
    _sync(path.parent)
    _remove(trash)


def _remove(folder: Path) -> None:
    for name in os.listdir(folder):
        os.unlink(folder / name)
    os.rmdir(folder)


def _write_bytes(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)


def _write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    try:
        save_file(tensors, path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
