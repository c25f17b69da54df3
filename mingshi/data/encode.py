"""Encoded samples on disk: flat memory-mapped columns, a ledger of every row, and a key made of all that shaped them.

A cache folder holds one `.npy` file for each column, `rejects.jsonl`, and `manifest.json` (the ledger, and size and
SHA-256 of every other file), written last. A folder that does not match its manifest is made again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import IO, Any, Protocol, final

import numpy as np
import orjson

from mingshi.data.ledger import Ledger
from mingshi.data.mismatch import mismatch
from mingshi.data.row_problem import RowProblem
from mingshi.data.staging import DAMAGED, staging
from mingshi.errors import DataError, Problem, ResourceError
from mingshi.types import Example, Reject, Sample

Progress = Callable[[Iterable[Any], int | None, str], Iterable[Any]]  # (items, how many if known, what is done)

LookAhead = Callable[[Sequence[Any]], Callable[[], None]]

AT_ONCE = 64  # rows that are looked at ahead: the fewer, the less is held; beyond a few dozen nothing is gained
THREADS = 2  # one computes while the other waits for the template's process
_BUFFER = 1 << 20  # bytes held for each column before they are written

# A column's file: its type, and how many numbers make one entry. `…_ends` hold where each sample's entries begin and
# end, one number more than there are samples.
_COLUMNS: Mapping[str, tuple[type[np.generic], int]] = {
    "tokens": (np.int32, 1),
    "segments": (np.int32, 3),
    "source": (np.int32, 1),
    "target": (np.int32, 1),
    "weight": (np.float32, 1),
    "sequence": (np.int32, 1),
    "labels": (np.float32, 1),
    "images": (np.uint8, 1),
    "ids": (np.uint8, 1),
    "token_ends": (np.int64, 1),
    "segment_ends": (np.int64, 1),
    "prediction_ends": (np.int64, 1),
    "label_ends": (np.int64, 1),
    "image_ends": (np.int64, 1),
    "id_ends": (np.int64, 1),
}
_ENDS = {"token_ends": "tokens", "segment_ends": "segments", "prediction_ends": "target"}
_ENDS |= {"label_ends": "labels", "image_ends": "images", "id_ends": "ids"}
_MANIFEST = "manifest.json"
_REJECTS = "rejects.jsonl"


class Encoder(Protocol):
    """The part of an objective that makes samples."""

    @property
    def kind(self) -> str: ...

    @property
    def accepts(self) -> tuple[type[Example], ...]: ...

    def encode(self, example: Example, model: Any) -> Sample | Reject | list[Sample]: ...


@final
class Encoded:
    """Samples of a cache folder, read where they lie; arrays are read-only views that live as long as this does."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]):
        self.folder = folder
        self._ledger: Mapping[str, Any] = manifest["ledger"]
        self._columns = {
            name: np.asarray(np.load(_file(folder, name), mmap_mode="r", allow_pickle=False)) for name in _COLUMNS
        }

    def __len__(self) -> int:
        return len(self._columns["token_ends"]) - 1

    def __getitem__(self, index: int) -> Sample:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        place = index % len(self)
        predictions = self._range("prediction_ends", place)
        return Sample(
            tokens=self._columns["tokens"][self._range("token_ends", place)],
            segments=self._columns["segments"][self._range("segment_ends", place)],
            source=self._columns["source"][predictions],
            target=self._columns["target"][predictions],
            weight=self._columns["weight"][predictions],
            sequence=self._columns["sequence"][predictions],
            labels=self._columns["labels"][self._range("label_ends", place)],
            image=self._columns["images"][self._range("image_ends", place)].tobytes().decode(),
            id=self._columns["ids"][self._range("id_ends", place)].tobytes().decode(),
        )

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample, `[samples] int64`."""
        return np.diff(self._columns["token_ends"])

    @property
    def trained(self) -> np.ndarray:
        """Predictions of each sample, `[samples] int64`."""
        return np.diff(self._columns["prediction_ends"])

    @property
    def ids(self) -> list[str]:
        """The id of each sample."""
        text = self._columns["ids"].tobytes()
        ends = self._columns["id_ends"].tolist()
        return [text[start:end].decode() for start, end in pairwise(ends)]

    @property
    def rejects(self) -> list[Reject]:
        """Every row that was read and not used."""
        return self.first_rejects(None)

    def first_rejects(self, count: int | None) -> list[Reject]:
        """So many of them, or all: of a million bad rows a report shows the first few."""
        with (self.folder / _REJECTS).open("rb") as file:
            return [Reject(**orjson.loads(line)) for line in islice(file, count)]

    def ledger(self) -> dict[str, Any]:
        """Rows in and out: `rows = used + sum of rejected`, in all and for each source.

        `{"rows", "used", "samples", "rejected": {reason: count}, "sources": {source: {"rows", "used", "samples",
        "rejected": {reason: {"count", "lines": the first five}}}}}`; a row may give several samples.
        """
        return dict(self._ledger)

    def _range(self, ends: str, place: int) -> slice:
        start, end = self._columns[ends][place : place + 2].tolist()
        return slice(start, end)


def encode(
    examples: Iterable[Example | Reject],
    *,
    objective: Encoder,
    model: Any,
    key: str,
    folder: Path | None = None,
    progress: Progress | None = None,
    ahead: LookAhead | None = None,
) -> Encoded:
    """The samples of `examples`, from the cache `folder/key` if it is whole, else made and kept there.

    Without a folder they are kept in a temporary one that goes with the result. The examples are read one at a time and
    only if they are needed, and what they give is written as it comes: memory does not grow with rows. Rejects among
    the examples go into the ledger, as do those of the objective. Several samples of one row get the ids `id#1`,
    `id#2` … `ahead` is given some rows in a thread of its own while those before them are encoded, and what it returns
    is called when their turn comes. Raises DataError where the objective does not take this kind of example,
    ResourceError on a full disk.
    """
    rows = examples if ahead is None else _looked_ahead(examples, ahead)
    shown = rows if progress is None else progress(rows, None, "encode")
    if folder is None:
        temporary = Path(tempfile.mkdtemp(prefix="mingshi-"))
        encoded = _made(shown, objective, model, key=key, parent=temporary)
        weakref.finalize(encoded, shutil.rmtree, temporary, ignore_errors=True)
        return encoded
    return opened(folder / key, key=key) or _made(shown, objective, model, key=key, parent=folder)


def opened(folder: Path, *, key: str) -> Encoded | None:
    """The cache in this folder, or None if there is none, or one that is not what its manifest says."""
    try:
        manifest = orjson.loads((folder / _MANIFEST).read_bytes())
        if manifest["key"] != key or manifest["files"] != _fingerprints(folder):
            return None
        return Encoded(folder, manifest)
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Writing


def _made(examples: Iterable[Example | Reject], objective: Encoder, model: Any, *, key: str, parent: Path) -> Encoded:
    try:
        with staging(parent, key) as made:
            ledger = Ledger()
            with _Writer(made) as writer:
                for example in examples:
                    _take(example, objective, model, ledger=ledger, writer=writer)
            manifest = {"key": key, "ledger": ledger.told(), "files": _fingerprints(made)}
            (made / _MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
            return _published(made, parent / key, key=key)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            mend = "Free some space, or set another folder for the cache."
            raise ResourceError(Problem(file=str(parent), what="the disk is full", mend=mend)) from error
        raise


def _looked_ahead(examples: Iterable[Example | Reject], ahead: LookAhead) -> Iterator[Example | Reject]:
    """The same rows in the same order, and an error of the file after the rows before it: they may have others."""
    source = iter(examples)
    waiting: deque[tuple[list[Example | Reject], Future[Callable[[], None]]]] = deque()
    failed: Exception | None = None
    ended = False
    with ThreadPoolExecutor(THREADS) as threads:
        while waiting or not ended:
            if not ended:
                chunk, failed = _chunk(source)
                ended = failed is not None or not chunk
                waiting.append((chunk, threads.submit(ahead, [row for row in chunk if isinstance(row, Example)])))
            if ended or len(waiting) > THREADS:
                rows, found = waiting.popleft()
                found.result()()
                yield from rows
    if failed is not None:
        raise failed


def _chunk(source: Iterator[Example | Reject]) -> tuple[list[Example | Reject], Exception | None]:
    """The next rows, and what ended them early."""
    chunk: list[Example | Reject] = []
    try:
        for row in islice(source, AT_ONCE):
            chunk.append(row)
    except Exception as error:
        return chunk, error
    return chunk, None


def _published(made: Path, final_folder: Path, *, key: str) -> Encoded:
    """Rename into place. No fsync: what a power cut tears is found by its hash and made again."""
    if theirs := opened(final_folder, key=key):  # another process was quicker: the same key, so the same samples
        return theirs
    damaged = made.with_name(made.name + DAMAGED)
    with suppress(FileNotFoundError):
        os.replace(final_folder, damaged)
    shutil.rmtree(damaged, ignore_errors=True)
    try:
        os.replace(made, final_folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    encoded = opened(final_folder, key=key)
    if encoded is None:
        raise ResourceError(
            Problem(file=str(final_folder), what="what was written cannot be read back", mend="Check the disk.")
        )
    return encoded


def _take(example: Example | Reject, objective: Encoder, model: Any, *, ledger: Ledger, writer: _Writer) -> None:
    outcome = example if isinstance(example, Reject) else samples_of(example, objective, model)
    if isinstance(outcome, Reject):
        ledger.reject(outcome)
        writer.reject(outcome)
        return
    ledger.use(example.source, len(outcome))
    for sample in outcome:
        writer.append(sample)


def samples_of(example: Example, objective: Encoder, model: Any) -> list[Sample] | Reject:
    """What one row gives; DataError where the objective does not take this kind."""
    if not isinstance(example, objective.accepts):
        raise mismatch(example, objective.accepts, objective=objective.kind)
    try:
        outcome = objective.encode(example, model)
    except RowProblem as problem:
        return Reject(source=example.source, line=example.line, reason=problem.reason, detail=problem.detail)
    if isinstance(outcome, Sample):
        return [replace(outcome, id=example.id)]
    if isinstance(outcome, Reject):
        return outcome
    if not outcome:
        detail = "this row gives no sample. Give it an answer to train."
        return Reject(source=example.source, line=example.line, reason="no_samples", detail=detail)
    return [replace(sample, id=f"{example.id}#{number}") for number, sample in enumerate(outcome, start=1)]


@final
class _Writer:
    """All columns of a cache, appended to sample by sample."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._columns: dict[str, _Column] = {}
        self._files = ExitStack()

    def __enter__(self) -> _Writer:
        with ExitStack() as opened_here:  # closes them if one cannot be opened
            self._rejects = opened_here.enter_context((self._folder / _REJECTS).open("wb"))
            for name, (kind, width) in _COLUMNS.items():
                column = self._columns[name] = _Column(_file(self._folder, name), kind, width)
                opened_here.callback(column.close)
                if name in _ENDS:
                    column.append([0])
            self._files = opened_here.pop_all()
        return self

    def __exit__(self, *problem: object) -> None:
        self._files.close()

    def append(self, sample: Sample) -> None:
        for name in ("tokens", "segments", "source", "target", "weight", "sequence", "labels"):
            self._columns[name].append(getattr(sample, name))  # the columns are named after the fields
        for name, word in (("images", sample.image), ("ids", sample.id)):
            self._columns[name].append(np.frombuffer(word.encode(), dtype=np.uint8))
        for name, of in _ENDS.items():
            self._columns[name].append([self._columns[of].length])

    def reject(self, reject: Reject) -> None:
        self._rejects.write(orjson.dumps(asdict(reject)) + b"\n")


@final
class _Column:
    """One `.npy` file that grows: its header, which has room for any length, is written again at the end."""

    def __init__(self, path: Path, kind: type[np.generic], width: int):
        self.length = 0
        self._kind = np.dtype(kind)
        self._width = width
        self._file: IO[bytes] = path.open("wb", buffering=_BUFFER)
        self._write_header()

    def append(self, values: Any) -> None:
        array = np.ascontiguousarray(values, dtype=self._kind)
        self._file.write(array.tobytes())
        self.length += array.size // self._width

    def close(self) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def _write_header(self) -> None:
        shape = (self.length,) if self._width == 1 else (self.length, self._width)
        header = {"descr": np.lib.format.dtype_to_descr(self._kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file, header)


def _file(folder: Path, column: str) -> Path:
    return folder / f"{column}.npy"


def _fingerprints(folder: Path) -> dict[str, list[Any]]:
    """Size and SHA-256 of every file but the manifest."""
    names = [*(_file(folder, column).name for column in _COLUMNS), _REJECTS]
    return {name: [(folder / name).stat().st_size, _sha256(folder / name)] for name in names}


# Keys


def cache_key(*, files: Sequence[Path | str], parts: Mapping[str, str]) -> str:
    """A name for what encoding these files would give: SHA-256 over their names and bytes, the parts, and our code.

    `parts` names what else shapes a sample: how the files are read, the template, the tokenizer, the objective's
    settings, the split. A file's name is in it because ids and ledger carry it. Raises DataError for a missing file.
    """
    told: dict[str, Any] = {"parts": dict(parts), "code": code_version()}
    try:
        told["files"] = [[str(path), _sha256(Path(path))] for path in files]
    except OSError as error:
        what = f"cannot be read ({error.strerror})"
        raise DataError(Problem(file=str(error.filename), what=what, mend="Check the path.")) from error
    return hashlib.sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def code_version() -> str:
    """SHA-256 of the modules that shape samples: all of `data` and `objectives`, and the types."""
    package = Path(__file__).resolve().parent.parent
    sources = [package / "types.py", *(package / "data").rglob("*.py"), *(package / "objectives").rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(f"{path.relative_to(package).as_posix()}\0{_sha256(path)}\n".encode())
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
