"""The file of a self-training: which rows have labels, which want them, and how sure is sure enough.

Everything that can be wrong with the file is found here, before anything is trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from mingshi.checks.normal import normalised
from mingshi.data.formats import DataSource, read
from mingshi.data.formats.questions import read_to_answer
from mingshi.errors import DataError, Problem, RecipeError
from mingshi.evals.certificate import least_rows
from mingshi.model.adapters import Adapter, Lora
from mingshi.optim import Optim
from mingshi.provenance import fingerprint_file
from mingshi.types import Chat, Example, Labelled, Reject, Settings
from mingshi.workflows.settings_problems import Parts, problem_of
from mingshi.yaml_text import load

SHOWN = 5  # places named in one error
ROLES = ("seeds", "unlabelled", "gold")


class Teaching(Settings):
    """How every round is trained: alike, and from the base model."""

    student: Literal["network", "head"] = "network"
    """head: a head over the frozen encoder, which reads every text once; of what follows it takes `max_length` and
    `device` alone."""
    adapter: Adapter = Lora()
    optim: Optim = Optim()
    batch: int = Field(default=32, ge=1)
    steps: int = Field(default=200, ge=1)
    """Optimiser steps of a round: as many on the seeds alone as later, so that rounds differ by their rows."""
    max_length: int = Field(default=256, ge=3)
    """Tokens of one text; longer ones lose their end."""
    pooling: Literal["auto", "first", "last", "mean"] = "auto"
    """What stands for a text, as for `classify`; sentence encoders are made for mean."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    stream: Literal["auto"] | Annotated[int, Field(ge=128)] = 4096
    """Tokens of one packed stream."""


class Labelling(Settings):
    """The file."""

    model: str = Field(min_length=1)
    output: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    seeds: DataSource
    """Rows with labels, to begin with."""
    unlabelled: DataSource
    """Rows that want labels; a label that they have is not looked at."""
    gold: DataSource
    """Rows with labels that are never trained on: one half chooses, the other certifies."""
    training: Teaching = Teaching()
    parts: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(default=(0.3, 0.45, 0.6, 0.75), min_length=1)
    """A round for each: which part of the rows of each predicted class is taken, the surest first."""
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.6
    """No row that is less sure than this is trained on, whatever the round."""
    seed_weight: float = Field(default=1.0, gt=0)
    """How often a row of the seeds counts for once that another does."""
    error: float = Field(default=0.05, gt=0, lt=0.5)
    """How many of the labels given may be wrong."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    """How surely no more of them are."""

    @field_validator("parts")
    @classmethod
    def _rises(cls, parts: tuple[float, ...]) -> tuple[float, ...]:
        if list(parts) != sorted(parts):
            raise ValueError("a part is smaller than the one before. Let them rise: thresholds fall slowly.")
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What the files hold: texts in their order, each with its place; `classes` are those of the seeds, sorted."""

    classes: tuple[str, ...]
    seeds: Sequence[Labelled]
    unlabelled: Sequence[Example]
    gold: Sequence[Labelled]
    copies: int  # unlabelled rows that are left out: texts that came before, or that the seeds have


PARTS: Parts = {"training": (Teaching, Optim), **dict.fromkeys(ROLES, (DataSource,))}


def read_labelling(path: Path) -> Labelling:
    """A file of a self-training; RecipeError lists what is wrong with it, and files that cannot be read."""
    values = load(path)
    try:
        told = Labelling.model_validate(values)
    except ValidationError as error:
        raise RecipeError([problem_of(one, values, str(path), Labelling, PARTS) for one in error.errors()]) from None
    fingerprints(told)
    return told


def fingerprints(told: Labelling) -> dict[str, str]:
    """By role, the hash of its file."""
    found, problems = {}, []
    for role, source in zip(ROLES, (told.seeds, told.unlabelled, told.gold), strict=True):
        try:
            found[role] = str(fingerprint_file(Path(source.path))["sha256"])
        except OSError as error:
            problems.append(Problem(file=source.path, field=role, what=f"cannot be read ({error.strerror})"))
    if problems:
        raise RecipeError(problems)
    return found


def read_rows(told: Labelling) -> Rows:
    """The rows of all three files; DataError or RecipeError says why they cannot be self-trained on."""
    seeds, gold = (list(_labelled(source)) for source in (told.seeds, told.gold))
    classes = tuple(sorted({str(row.label) for row in seeds}))
    _require_classes(told, seeds, gold, classes)
    half = len(gold) // 2
    least = least_rows(told.error, told.confidence)
    if half < least:
        what = f"has {len(gold)} rows, of which {half} certify: to certify an error of {told.error:g} with confidence "
        what += f"{told.confidence:g}, {least} are needed at least"
        mend = f"Label {2 * least - len(gold)} more rows, or raise `error`, or lower `confidence`."
        raise RecipeError(Problem(file=told.gold.path, field="gold", what=what, mend=mend))
    known = {normalised(row.content) for row in seeds}
    _require_apart(told, gold, known, seeds)
    fresh, copies = [], 0
    gold_texts = {normalised(row.content): row for row in gold}
    shared: list[Example] = []
    for row in _texts(told.unlabelled):
        text = normalised(content(row))
        if text in gold_texts:
            shared.append(row)
        elif text in known:
            copies += 1
        else:
            known.add(text)
            fresh.append(row)
    _refuse_shared(told, shared)
    if not fresh:
        what, mend = "has no row that the seeds do not have", "Give other rows."
        raise RecipeError(Problem(file=told.unlabelled.path, field="unlabelled", what=what, mend=mend))
    return Rows(classes=classes, seeds=seeds, unlabelled=fresh, gold=gold, copies=copies)


def content(row: Example) -> str:
    """The text of a row, whether it has a label or not."""
    return row.content if isinstance(row, Labelled) else row.messages[-1].content if isinstance(row, Chat) else ""


def _labelled(source: DataSource) -> Iterator[Labelled]:
    for row in read(source):
        if isinstance(row, Reject):
            continue
        if not isinstance(row, Labelled) or not isinstance(row.label, str):
            what, mend = "has no label that is one class", "Give rows with `text` and `label`."
            raise DataError(Problem(file=row.source, line=row.line, what=what, mend=mend))
        yield row


def _texts(source: DataSource) -> Iterator[Example]:
    for row in read_to_answer(source):
        if isinstance(row, Reject):
            continue
        if not isinstance(row, Labelled) and not (isinstance(row, Chat) and row.plain):
            what, mend = "is no text to be labelled", "Give rows with `text`."
            raise DataError(Problem(file=row.source, line=row.line, what=what, mend=mend))
        yield row


def _require_classes(
    told: Labelling, seeds: Sequence[Labelled], gold: Sequence[Labelled], classes: Sequence[str]
) -> None:
    problems = []
    if len(classes) < 2:
        what = f"has the class {classes[0]!r} alone" if classes else "has no rows"
        problems.append(Problem(file=told.seeds.path, field="seeds", what=what, mend="Give rows of every class."))
    counts = Counter(str(row.label) for row in gold)
    if unknown := sorted(set(counts) - set(classes)):
        what = f"has rows of {', '.join(unknown)}, of which there is no seed"
        problems.append(Problem(file=told.gold.path, field="gold", what=what, mend="Give seeds of every class."))
    if absent := sorted(set(classes) - set(counts)):
        what = f"has no row of {', '.join(absent)}"
        problems.append(Problem(file=told.gold.path, field="gold", what=what, mend="Give gold rows of every class."))
    if problems:
        raise RecipeError(problems)


def _require_apart(told: Labelling, gold: Sequence[Labelled], known: set[str], seeds: Sequence[Labelled]) -> None:
    shared = [row for row in gold if normalised(row.content) in known]
    if not shared:
        return
    places = {normalised(row.content): row.line for row in seeds}
    found = [
        Problem(
            file=row.source,
            line=row.line,
            field="gold",
            what=f"is also a seed (line {places[normalised(row.content)]} of {told.seeds.path})",
            mend="Take it out of one of them.",
        )
        for row in shared[:SHOWN]
    ]
    raise DataError(found)


def _refuse_shared(told: Labelling, shared: Sequence[Example]) -> None:
    if not shared:
        return
    what = f"{len(shared)} of its rows are gold too: they would be trained on and then vouch for themselves"
    lines = ", ".join(str(row.line) for row in shared[:SHOWN])
    mend = f"Take them out (lines {lines}{', …' if len(shared) > SHOWN else ''})."
    raise DataError(Problem(file=told.unlabelled.path, field="unlabelled", what=what, mend=mend))


def counts_of(rows: Sequence[Labelled]) -> dict[str, int]:
    """Rows of each class."""
    return dict(sorted(Counter(str(row.label) for row in rows).items()))


def plan_of(told: Labelling) -> dict[str, Any]:
    """What a folder was begun with: a resumed one must be begun with the same."""
    return {"settings": told.model_dump(mode="json"), "files": fingerprints(told)}
