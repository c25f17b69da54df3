"""Teachers run once: what they say of every sample is kept on disk, and their networks go before the student trains.

Kept is the last hidden state of each prediction, from which the teacher's own head makes its whole distribution again,
exactly; or, where disk is short, a few tokens of that distribution.

Letters: `N` samples, `M` predictions, `W` a teacher's hidden width, `V` vocabulary, `D` kept tokens.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np
import orjson
import torch
from safetensors.torch import load_file, save_file

from mingshi.data.plan import micro_batches, pack
from mingshi.errors import Problem, ResourceError
from mingshi.model.divergence import AT_ONCE, Few, logits
from mingshi.model.generate import inference
from mingshi.model.load import Model, Precision, load
from mingshi.model.logprob import Head, chunks, head_of, log_probabilities, prediction_states
from mingshi.model.others import template_beside
from mingshi.types import Batch, Sample

if TYPE_CHECKING:
    from mingshi.display import Display

FORMAT = 2
MANIFEST = "manifest.json"  # the hash of every other file
TOGETHER = 2048  # samples that streams are packed from at a time: the packing compares each with every stream
ENOUGH = 1024  # predictions whose surprise tells whether a teacher knows the answers at all
SPARE = 1.05  # of the disk: what is written beside the columns is small

_TYPES: Mapping[str, tuple[np.dtype[Any], torch.dtype]] = {  # numpy has no bfloat16: its bits travel as integers
    "bfloat16": (np.dtype(np.int16), torch.bfloat16),
    "float16": (np.dtype(np.float16), torch.float16),
    "float32": (np.dtype(np.float32), torch.float32),
    "float64": (np.dtype(np.float64), torch.float64),
    "int32": (np.dtype(np.int32), torch.int32),
}
Columns = Mapping[str, tuple[str, int]]  # name → type, values a row


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked of a teacher about every sample."""

    keep: Literal["hidden", "top-k", "sampled"]
    count: int  # tokens kept of each distribution, where hidden states are not
    temperature: float  # of those distributions
    everywhere: bool  # at every position, not at the predictions alone
    vocabulary: int  # the student's
    surprise: bool  # of every sample, and not of a few alone


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Kept:
    """One teacher's answers, read where they lie."""

    columns: Mapping[str, np.ndarray]  # memory maps over the rows of all samples, one sample after another
    types: Columns
    ends: np.ndarray  # [N + 1] int64: where each sample's rows begin and end
    nats: np.ndarray  # [N] float64: the teacher's mean surprise at a token of each sample's answer; nan: not asked
    head: Head | None  # None where tokens were kept
    vocabulary: int  # tokens that teacher and student both have

    def few(self, samples: Sequence[int], device: str) -> Few:
        """The tokens kept of each distribution: with their probabilities and a bucket, or drawn, each worth as much."""
        tokens_MD = self.rows("tokens", samples, device).long()
        constant_M = self.rows("constant", samples, device)[:, 0]
        if "probabilities" not in self.columns:
            equal_MD = torch.full(tokens_MD.shape, 1 / tokens_MD.shape[1], device=device)
            return Few(tokens_MD=tokens_MD, probabilities_MD=equal_MD, rest_M=None, constant_M=constant_M)
        probabilities_MD = self.rows("probabilities", samples, device)
        rest_M = (1 - probabilities_MD.sum(dim=1)).clamp(min=0)
        return Few(tokens_MD=tokens_MD, probabilities_MD=probabilities_MD, rest_M=rest_M, constant_M=constant_M)

    def rows(self, column: str, samples: Sequence[int], device: str) -> torch.Tensor:
        """A column at the rows of these samples, in their order."""
        pieces = [self.columns[column][self.ends[sample] : self.ends[sample + 1]] for sample in samples]
        return torch.from_numpy(np.concatenate(pieces)).view(_TYPES[self.types[column][0]][1]).to(device)


def ask(
    name: str,
    samples: Sequence[Sample],
    question: Question,
    *,
    weights: Any,
    student: Model,
    folder: Path,
    budget: int,
    display: Display,
) -> Kept:
    """What a teacher says of every sample: from `folder` if it was asked before, else asked now and kept there.

    `weights` is what names the teacher's weights. ResourceError where the disk cannot hold its answers.
    """
    teacher = [FORMAT, weights, str(student.network.dtype)]
    asked: list[Any] = [question.keep, question.everywhere, question.surprise]
    if question.keep != "hidden":
        asked += [question.count, question.temperature, question.vocabulary]
    head_key, key = _sha256([teacher]), _sha256([teacher, asked, _digest(samples)])
    pupil = _Teacher(name, student)
    try:
        place = _entry(
            folder / key, lambda staging: _write(pupil, samples, question, staging, budget=budget, display=display)
        )
        head_place = None
        if question.keep == "hidden":
            head_place = _entry(folder / head_key, lambda staging: _write_head(pupil.model, staging))
    finally:
        pupil.leave()
    return _open(place, head_place, student.device)


class _Teacher:
    """A model that is loaded when it is first needed."""

    def __init__(self, name: str, student: Model):
        self.name = name
        self._student = student
        self._model: Model | None = None

    @property
    def model(self) -> Model:
        if self._model is None:
            precision: Precision = "bf16" if self._student.network.dtype == torch.bfloat16 else "float32"
            template = template_beside(self.name, self._student.text, role="teacher")
            self._model = load(self.name, precision=precision, device=self._student.device, template=template)
        return self._model

    def leave(self) -> None:
        """Give its memory back."""
        self._model = None


def _write(
    teacher: _Teacher,
    samples: Sequence[Sample],
    question: Question,
    folder: Path,
    *,
    budget: int,
    display: Display,
) -> None:
    """Run the teacher over all samples, in packed streams, and write what is to be kept."""
    network = teacher.model.network
    head = head_of(network)
    vocabulary = min(question.vocabulary, len(head.weight))
    counts = [len(sample.tokens) if question.everywhere else len(sample.source) for sample in samples]
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    types = _columns(question, network.dtype, head.weight.shape[1], vocabulary)
    _make_room(folder, teacher.name, rows=int(ends[-1]), types=types, display=display)
    nats, surprised = np.full(len(samples), np.nan), 0
    generator = torch.Generator(head.weight.device).manual_seed(0)
    streams = list(_streams([len(sample.tokens) for sample in samples], budget))
    with inference(network), _files(folder, types) as files:
        for places in display.track(streams, len(streams), f"teacher {teacher.name}"):
            batch = pack([samples[place] for place in places], device=teacher.model.device)
            asked = everywhere(batch) if question.everywhere else batch
            hidden_MW = prediction_states(network, asked)
            if question.surprise or surprised < ENOUGH:
                nats[places] = _surprise(hidden_MW, asked, head)
                surprised += len(batch.target)
            answers = _answers(hidden_MW, head, question, vocabulary, generator)
            _scatter(files, answers, places, ends, types)
    np.save(folder / "ends.npy", ends, allow_pickle=False)
    np.save(folder / "nats.npy", nats, allow_pickle=False)
    told = {"types": types, "vocabulary": vocabulary}
    (folder / "answers.json").write_bytes(orjson.dumps(told))
    known = nats[~np.isnan(nats)]
    if len(known):
        display.say(f"Teacher {teacher.name}: {known.mean():.4f} nats a token, mean of {len(known)} samples")


def everywhere(batch: Batch) -> Batch:
    """The same stream with a prediction at each position; what those that are not the batch's own predict is not said.

    Their targets are token 0, and their weights zero. A sample's rows are all of its positions, in their order.
    """
    places_T = torch.arange(len(batch.tokens), device=batch.tokens.device)
    lengths_N = torch.from_numpy(batch.segments[:, 1].astype(np.int64)).to(places_T.device)
    return replace(
        batch,
        source=places_T,
        target=torch.zeros_like(places_T).index_copy(0, batch.source, batch.target),
        weights=torch.zeros(len(places_T), device=places_T.device).index_copy(0, batch.source, batch.weights),
        sequence=torch.repeat_interleave(lengths_N),
    )


def _surprise(hidden_MW: torch.Tensor, batch: Batch, head: Head) -> np.ndarray:
    """`[N]`: mean nats of a token of each sample's answer."""
    own_U = batch.weights.nonzero()[:, 0]
    nats_U = -log_probabilities(hidden_MW[own_U], batch.target[own_U], head) * batch.weights[own_U]
    sums_N = torch.zeros_like(batch.parts).index_add(0, batch.sequence[own_U], nats_U)
    means: np.ndarray = (sums_N / batch.parts).nan_to_num().double().cpu().numpy()  # a sample may weigh nothing
    return means


def _streams(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    for first in range(0, len(lengths), TOGETHER):
        for cut in micro_batches(lengths[first : first + TOGETHER], budget):
            yield [first + place for place in cut]


def _columns(question: Question, dtype: torch.dtype, width: int, vocabulary: int) -> Columns:
    kept = min(question.count, vocabulary - 1)  # the bucket is never empty
    if question.keep == "hidden":
        return {"hidden": (str(dtype).removeprefix("torch."), width)}
    if question.keep == "top-k":
        return {"tokens": ("int32", kept), "probabilities": ("float32", kept), "constant": ("float32", 1)}
    return {"tokens": ("int32", question.count), "constant": ("float32", 1)}


def _answers(
    hidden_MW: torch.Tensor, head: Head, question: Question, vocabulary: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The columns of these rows: the states themselves, or tokens, their probabilities, and the constant.

    The constant is the part of a row's divergence that the student does not enter. Drawn tokens stand for `1 / D` each
    (Anshumann et al. 2025, Sparse Logit Sampling), and their expected cross-entropy is the whole distribution's.
    """
    if question.keep == "hidden":
        return {"hidden": hidden_MW}
    pieces: dict[str, list[torch.Tensor]] = {}
    for rows in chunks(len(hidden_MW), AT_ONCE * len(head.weight)):
        log_p_CV = (logits(head, hidden_MW[rows])[:, :vocabulary] / question.temperature).log_softmax(dim=1)
        p_CV = log_p_CV.exp()
        if question.keep == "top-k":
            top = p_CV.topk(min(question.count, vocabulary - 1), dim=1)
            rest_C = p_CV.scatter(1, top.indices, 0.0).sum(dim=1)
            constant_C = torch.xlogy(top.values, top.values).sum(dim=1) + torch.xlogy(rest_C, rest_C)
            found = {"tokens": top.indices.int(), "probabilities": top.values, "constant": constant_C[:, None]}
        else:
            drawn_CD = p_CV.multinomial(question.count, replacement=True, generator=generator)
            found = {"tokens": drawn_CD.int(), "constant": (p_CV * log_p_CV).sum(dim=1, keepdim=True)}
        for column, values in found.items():
            pieces.setdefault(column, []).append(values)
    return {column: torch.cat(values) for column, values in pieces.items()}


# Disk


def _make_room(folder: Path, name: str, *, rows: int, types: Columns, display: Display) -> None:
    """Say what the answers will take; ResourceError where it is not there."""
    needed = sum(rows * _stride(*kind) for kind in types.values())
    free = shutil.disk_usage(folder).free
    display.say(f"Teacher {name}: {rows:,} rows of {needed // max(rows, 1):,} bytes, {_size(needed)} on disk")
    if needed * SPARE > free:
        what = f"what {name} says takes {_size(needed)}, and {_size(free)} are free"
        mend = "Free some space, move the cache with MINGSHI_CACHE, or set objective.cache.keep to top-k or sampled."
        raise ResourceError(Problem(file=str(folder.parent), what=what, mend=mend))


def _stride(kind: str, width: int) -> int:
    return _TYPES[kind][0].itemsize * width


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


@contextmanager
def _files(folder: Path, types: Columns) -> Iterator[Mapping[str, IO[bytes]]]:
    with ExitStack() as opened:
        yield {name: opened.enter_context((folder / f"{name}.bin").open("wb")) for name in types}


def _scatter(
    files: Mapping[str, IO[bytes]],
    answers: Mapping[str, torch.Tensor],
    places: Sequence[int],
    ends: np.ndarray,
    types: Columns,
) -> None:
    """Each sample's rows where they belong: streams come in another order than samples."""
    counts = [int(ends[place + 1] - ends[place]) for place in places]
    for name, values in answers.items():
        kind, width = types[name]
        numbers, bits = _TYPES[kind]
        rows = values.to(bits).contiguous().cpu().view(torch.int16 if bits == torch.bfloat16 else bits).numpy()
        for place, mine in zip(places, np.split(rows, np.cumsum(counts)[:-1]), strict=True):
            files[name].seek(int(ends[place]) * _stride(kind, width))
            files[name].write(mine.astype(numbers, copy=False).tobytes())


def _write_head(model: Model, folder: Path) -> None:
    head = head_of(model.network)
    tensors = {"weight": head.weight.detach().contiguous().cpu()}
    if head.bias is not None:
        tensors["bias"] = head.bias.detach().contiguous().cpu()
    save_file(tensors, folder / "head.safetensors")
    (folder / "head.json").write_bytes(orjson.dumps({"softcap": head.softcap, "scale": head.scale}))


def _read_head(folder: Path, device: str) -> Head:
    tensors = load_file(folder / "head.safetensors", device=device)
    return Head(weight=tensors["weight"], bias=tensors.get("bias"), **orjson.loads((folder / "head.json").read_bytes()))


def _open(place: Path, head_place: Path | None, device: str) -> Kept:
    told = orjson.loads((place / "answers.json").read_bytes())
    ends = np.load(place / "ends.npy", allow_pickle=False)
    columns = {
        name: np.memmap(place / f"{name}.bin", dtype=_TYPES[kind][0], mode="r", shape=(int(ends[-1]), width))
        for name, (kind, width) in told["types"].items()
    }
    return Kept(
        columns=columns,
        types={name: (kind, width) for name, (kind, width) in told["types"].items()},
        ends=ends,
        nats=np.load(place / "nats.npy", allow_pickle=False),
        head=None if head_place is None else _read_head(head_place, device),
        vocabulary=told["vocabulary"],
    )


def _entry(place: Path, write: Callable[[Path], None]) -> Path:
    """A folder of the cache, written elsewhere and renamed when it is whole; one that is there, and whole, stays."""
    if _whole(place):
        return place
    staging = place.with_name(f".{place.name[:16]}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        staging.mkdir(parents=True)
        write(staging)
        hashes = {path.name: _file_sha256(path) for path in sorted(staging.iterdir())}
        (staging / MANIFEST).write_bytes(orjson.dumps(hashes))
        shutil.rmtree(place, ignore_errors=True)  # there, and not whole
        with suppress(OSError):  # another process was quicker: the same key, and so the same answers
            os.replace(staging, place)
        if not _whole(place):
            what = "what was written cannot be read back"
            raise ResourceError(Problem(file=str(place), what=what, mend="Check the disk."))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what, mend = "the disk is full", "Free some space, or move the cache with MINGSHI_CACHE."
        raise ResourceError(Problem(file=str(place.parent), what=what, mend=mend)) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return place


def _whole(place: Path) -> bool:
    try:
        hashes = orjson.loads((place / MANIFEST).read_bytes())
        return all(_file_sha256(place / name) == expected for name, expected in hashes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256(value: Any) -> str:
    return hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _digest(samples: Sequence[Sample]) -> str:
    """Of all that a teacher is shown, and asked about."""
    digest = hashlib.sha256()
    for sample in samples:
        for column in (sample.tokens, sample.segments, sample.source, sample.target, sample.weight):
            digest.update(len(column).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()
