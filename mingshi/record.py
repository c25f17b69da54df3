"""The run folder: what was asked, what happened, and with what.

    run.json        status, recipe as resolved, versions, code, machine, summary; rewritten whole, in one rename
    steps.jsonl     one line a step, raw values; evals.jsonl: one line an evaluation; both are only appended to
    data.json       fingerprints and the row ledger;  findings.json: what the checks saw
    lock            held while the run lives; the kernel lets go of it with the process, however that ends

Whatever is written is redacted and holds no absolute path, so the folder can be shown and moved.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import orjson

from mingshi import provenance
from mingshi.errors import DataError, MingshiError, Problem, RecipeError, ResourceError
from mingshi.provenance import fingerprint_file, hash_folder, recordable, resume_conflicts

if TYPE_CHECKING:
    from mingshi.types import Scores, Step

__all__ = ["Line", "Record", "Run", "fingerprint_file", "hash_folder", "list_runs", "read_run", "resume_conflicts"]

FORMAT = 1
RUN, STEPS, EVALS, LOCK = "run.json", "steps.jsonl", "evals.jsonl", "lock"
STATUSES = ("running", "done", "stopped", "diverged", "failed", "preempted", "refused")

_NUMBERS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_PATIENCE = 0.5  # seconds: somebody listing runs holds the lock for an instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder as it was read; empty where a file is not there yet."""

    folder: Path
    status: str  # as run.json says, or "interrupted": it says running, but nobody holds the lock
    run: Mapping[str, Any]
    data: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    evals: Sequence[Mapping[str, Any]]
    findings: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One run in a list of runs."""

    id: str
    folder: Path
    status: str
    model: str
    started: str
    seconds: float
    loss: float | None  # of the last step
    scores: Mapping[str, float]  # "data.evaluator.metric": value, the latest of each
    fit: Sequence[str | None] = ()  # for each stage, whether it overfits


@final
class Record:
    """The writing side of a run folder, for one process at a time: a context, which lets the folder go at its end.

    A run that ends without `finish` shows as interrupted.
    """

    def __init__(self, folder: Path, *, lock: int, fields: dict[str, Any], resumed: bool):
        self.folder, self.resumed = folder, resumed
        self.id: str = fields["id"]
        self.fields = fields  # what run.json says
        self._lock = lock
        self._began = time.monotonic() - float(fields["seconds"])
        self._secrets = provenance.secrets_in_environment()

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *failure: object) -> None:
        os.ftruncate(self._lock, 0)
        os.close(self._lock)

    @classmethod
    def create(cls, folder: Path, *, recipe: Mapping[str, Any], command: Sequence[str], resume: bool) -> Record:
        """Take a run folder: a new one, or with `resume` one that an earlier process left (or none yet).

        Raises `RecipeError` if the folder is in use, holds a run and `resume` is not asked for, holds something that
        is not a run, or was begun with another recipe; the last names every field that differs.
        """
        _refuse_foreign(folder)
        lock = _take_lock(folder)
        try:
            before = _before(folder, resume=resume)
            occasion = {"at": _now(), "command": provenance.redact_command(command), "code": provenance.code()}
            occasion |= {"versions": provenance.versions(), "machine": provenance.machine()}
            if before and (problems := resume_conflicts(before["recipe"], recipe)):
                raise RecipeError(problems)
            again = {"status": "running", "finished": None, "resumes": [*before.get("resumes", []), occasion]}
            fields = before | again if before else _new_fields(recipe, occasion)
            record = cls(folder, lock=lock, fields=fields, resumed=bool(before))
            record.update()
            return record
        except BaseException:
            os.close(lock)
            raise

    def write_step(self, step: Step, *, stage: int) -> None:
        """Append one step, as it was: a loss that is not a number is written as such."""
        _append(self.folder / STEPS, {"stage": stage, **recordable(step, secrets=self._secrets)})

    def write_eval(self, *, stage: int, step: int, when: str, data: str, kind: str, scores: Scores) -> None:
        """Append what an evaluator measured, and put its scores into run.json.

        `when` is before, during or after the training, `data` names the rows. In a resumed run, what is measured
        again replaces what was measured before.
        """
        what = recordable(
            {"stage": stage, "step": step, "when": when, "data": data, "kind": kind}, secrets=self._secrets
        )
        line = what | recordable(scores, secrets=self._secrets)
        lines = _read_lines(self.folder / EVALS) if self.resumed else []
        again = [what.items() <= other.items() for other in lines]
        if any(again):
            both = zip(again, lines, strict=True)
            _replace(self.folder / EVALS, b"".join(_line(line if same else other) for same, other in both))
        else:
            _append(self.folder / EVALS, line)
        self.update(scores={**self.fields["scores"], **_values(line)})

    def write_json(self, name: str, value: Any) -> None:
        """Write data.json, findings.json or the like, whole or not at all."""
        if not name.endswith(".json") or Path(name).name != name or name == RUN:
            raise MingshiError(f"{name!r} is not a file that a record may write")
        _replace(self.folder / name, _line(recordable(value, secrets=self._secrets), indent=True))

    def update(self, **fields: Any) -> None:  # keywords: the fields of run.json are open
        """Set fields of run.json (model, device, parent, summary …) and rewrite it."""
        if taken := {"id", "format", "created"}.intersection(fields):
            raise MingshiError(f"run.json: {', '.join(sorted(taken))} cannot be changed")
        seconds = round(time.monotonic() - self._began, 3)
        self.fields = {**self.fields, **recordable(fields, secrets=self._secrets), "seconds": seconds}
        _replace(self.folder / RUN, _line(self.fields, indent=True))

    def truncate_after(self, stage: int, step: int) -> None:
        """Forget what was logged after the checkpoint a run goes on from, later stages included, and half lines."""
        _keep_lines(self.folder / STEPS, lambda line: (line["stage"], line["number"]) <= (stage, step))
        kept = _keep_lines(self.folder / EVALS, lambda line: (line["stage"], line["step"]) <= (stage, step))
        self.update(scores={name: value for line in kept for name, value in _values(line).items()})

    def finish(self, status: str, summary: Mapping[str, Any]) -> None:
        """Write how the run ended."""
        if status not in STATUSES:
            raise MingshiError(f"{status!r} is not a status: {', '.join(STATUSES)}")
        self.update(status=status, finished=_now(), summary=summary)


def read_run(folder: Path) -> Run:
    """Read a run folder, also while it is being written: half a last line is left out.

    Raises `RecipeError` if it is not a run folder and `DataError` if run.json is damaged or newer than this version.
    """
    if not (folder / RUN).is_file():
        what = "not a run folder: run.json is missing"
        raise RecipeError(Problem(file=str(folder), what=what, mend="`mingshi runs` lists the runs."))
    run = _read_json(folder / RUN)
    return Run(
        folder=folder,
        status=_status(folder, run),
        run=run,
        data=_read_json(folder / "data.json", absent={}),
        steps=[_numbers(line) for line in _read_lines(folder / STEPS)],
        evals=[line | {"scores": _numbers(line["scores"])} for line in _read_lines(folder / EVALS)],
        findings=_read_json(folder / "findings.json", absent=[]),
    )


def list_runs(root: Path) -> list[Line]:
    """Every run in `root` and up to three folders below it, oldest first; one that cannot be read is listed as such."""
    lines = [_summarise(folder) for folder in _run_folders(root, depth=3)]
    return sorted(lines, key=lambda line: (line.started, str(line.folder)))


def _take_lock(folder: Path) -> int:
    """The descriptor of the lock, held until it is closed or the process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        what = f"cannot be used: {error.strerror}"
        raise RecipeError(Problem(file=str(folder), field="output", what=what)) from error
    deadline = time.monotonic() + _PATIENCE
    while not _locked(lock, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            owner = os.pread(lock, 500, 0).decode(errors="replace").strip()
            os.close(lock)
            what = f"is in use by another run ({owner or 'which is just starting'})"
            mend = "Wait, or choose another `output`."
            raise RecipeError(Problem(file=str(folder), field="output", what=what, mend=mend))
        time.sleep(0.02)
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n".encode(), 0)
    return lock


def _locked(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _refuse_foreign(folder: Path) -> None:
    """A folder of other things is left exactly as it is: not even a lock is put into it."""
    if not folder.is_dir() or (folder / RUN).exists():
        return
    if others := sorted({entry.name for entry in folder.iterdir()} - {LOCK, f".{RUN}.new"}):
        what = f"holds files that are not a run's ({others[0]})"
        raise RecipeError(Problem(file=str(folder), field="output", what=what, mend="Choose another `output`."))


def _before(folder: Path, *, resume: bool) -> dict[str, Any]:
    """What run.json says of the run that is to be resumed; empty for a new one."""
    if not (folder / RUN).exists():
        return {}
    before: dict[str, Any] = _read_json(folder / RUN)
    if not resume:
        status = "interrupted" if before["status"] == "running" else before["status"]
        mend = "Go on with it by `--resume`, or choose another `output`."
        raise RecipeError(Problem(file=str(folder), field="output", what=f"holds a run already ({status})", mend=mend))
    return before


def _new_fields(recipe: Mapping[str, Any], occasion: Mapping[str, Any]) -> dict[str, Any]:
    plain = recordable(recipe)
    fields = {
        "format": FORMAT,
        "id": uuid.uuid4().hex,
        "status": "running",
        "created": occasion["at"],
        "finished": None,
    }
    fields |= {"seconds": 0.0, "command": occasion["command"], "recipe": plain, "seed": plain.get("seed")}
    fields |= {"model": {"name": plain.get("model")}, "parent": None}
    fields |= {name: occasion[name] for name in ("versions", "code", "machine")}
    return fields | {"scores": {}, "summary": {}}


def _status(folder: Path, run: Mapping[str, Any]) -> str:
    """A run that says it is running while nobody holds its lock was interrupted."""
    if run["status"] != "running":
        return str(run["status"])
    try:
        lock = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return "interrupted"
    try:
        return "interrupted" if _locked(lock, fcntl.LOCK_SH) else "running"
    finally:
        os.close(lock)


def _summarise(folder: Path) -> Line:
    try:
        run = _read_json(folder / RUN)
    except DataError:
        return Line(id="", folder=folder, status="unreadable", model="", started="", seconds=0, loss=None, scores={})
    last = _numbers(_last_line(folder / STEPS))
    return Line(
        id=run["id"],
        folder=folder,
        status=_status(folder, run),
        model=str((run.get("model") or {}).get("name", "")),
        started=run["created"],
        seconds=run["seconds"],
        loss=last.get("loss"),
        scores=_numbers(run.get("scores", {})),
        fit=[fit and fit["verdict"] for fit in run.get("fit", ())],
    )


def _run_folders(root: Path, depth: int) -> Iterator[Path]:
    if (root / RUN).is_file():
        yield root
    elif depth >= 0 and root.is_dir():
        for folder in sorted(root.iterdir()):
            if folder.is_dir() and not folder.is_symlink():
                yield from _run_folders(folder, depth - 1)


def _values(line: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{line['data']}.{line['kind']}.{name}": score["value"] for name, score in line["scores"].items()}


def _numbers(value: Any) -> Any:
    """The reverse of how numbers that are not finite are written, in a tree without free text."""
    if isinstance(value, Mapping):
        return {key: _numbers(inner) for key, inner in value.items()}
    return _NUMBERS.get(value, value) if isinstance(value, str) else value


def _read_json(path: Path, absent: Any = None) -> Any:
    if absent is not None and not path.exists():
        return absent
    try:
        value = orjson.loads(path.read_bytes())
        version = value["format"] if path.name == RUN else FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(Problem(file=str(path), what="is damaged and cannot be read", mend="Restore it.")) from error
    if version > FORMAT:
        what = f"run record format {version} is newer than {FORMAT}, the newest that can be read here"
        raise DataError(Problem(file=str(path), what=what, mend="Use a newer mingshi."))
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Whole lines only: what follows the last newline was being written."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [line for line in map(_parse, whole) if line]


def _keep_lines(path: Path, wanted: Callable[[Mapping[str, Any]], bool]) -> list[dict[str, Any]]:
    kept = [line for line in _read_lines(path) if wanted(line)]
    data = b"".join(map(_line, kept))
    if path.exists() and path.read_bytes() != data:
        _replace(path, data)
    return kept


def _last_line(path: Path, tail: int = 1 << 16) -> dict[str, Any]:
    if not path.exists():
        return {}
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - tail))
        whole = stream.read().split(b"\n")[:-1]
    return _parse(whole[-1]) if whole else {}


def _parse(line: bytes) -> dict[str, Any]:
    try:
        return dict(orjson.loads(line))
    except (ValueError, TypeError):
        return {}


def _append(path: Path, value: Mapping[str, Any]) -> None:
    """One unbuffered write for one line: a process that dies leaves whole lines, and at most half of the last."""
    line = _line(value)
    try:
        with path.open("ab", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            if stream.write(line) != len(line):
                stream.truncate(size)
                raise OSError(errno.ENOSPC, "the disk is full")
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ResourceError:
    what = f"cannot be written: {error.strerror}"
    return ResourceError(Problem(file=str(path), what=what, mend="Put the disk right, then go on with `--resume`."))


def _line(value: Any, *, indent: bool = False) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | (orjson.OPT_INDENT_2 if indent else 0))


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, also through a loss of power."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise _unwritable(path, error) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
