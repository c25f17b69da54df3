"""What a stage may say of the stages before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from mingshi.model.adapters import Bias, Full, LastLayers, Lora
from mingshi.objectives import Classify, Sft
from mingshi.types import Objective, Settings

BUDGET = 0.05  # of the earlier rows
HELD_ADAPTERS = (Full, LastLayers, Bias, Lora)


class Rehearsal(Settings):
    """Rows of the stages before, mixed into this one's: as many of each stage as of any other.

    They are encoded as their own stage encoded them, so their templates and system prompts are remembered too. Every
    batch has its share of them, and each comes once an epoch unless `ratio` says otherwise. The epoch is longer by as
    much: give `steps` to compare with a stage that does not rehearse. Which rows, and why, stands in `memory.jsonl`.
    """

    budget: float | None = Field(default=None, gt=0, le=1)
    """Share of the earlier stages' training rows; 0.05 where neither this nor `rows` is given."""
    rows: int | None = Field(default=None, ge=1)
    """How many rows."""
    choose: Literal["random", "kmeans", "herding", "k_centre"] = "random"
    """The others look at mean last states, of length one, of the model as the stage before left it. kmeans: the rows
    nearest to as many centres. herding: row by row the one that brings their mean nearest to that of all, in each
    class apart. k_centre: always the row farthest from those that are chosen, the sparsest 5 % left out."""
    ratio: float | None = Field(default=None, gt=0, lt=1)
    """Share of what an epoch trains (tokens of answers; rows of a classifier) that is remembered."""
    answers: Literal["given", "own"] = "given"
    """own: what the model as the stage before left it answers, greedily, to the remembered prompts; the given answer
    where its own is empty, unfinished or repeats itself."""
    max_new_tokens: int = Field(default=256, ge=1)
    """Of its own answers; a longer one counts as unfinished."""

    @model_validator(mode="after")
    def _one_size(self) -> Rehearsal:
        if self.budget is not None and self.rows is not None:
            raise ValueError("budget and rows are both given. Keep one of them.")
        return self

    def size(self, earlier: int) -> int:
        """How many of so many earlier rows are remembered: one at least."""
        share = self.budget if self.budget is not None else BUDGET
        return min(earlier, self.rows if self.rows is not None else max(1, round(share * earlier)))


class Ewc(Settings):
    """Elastic weight consolidation (Kirkpatrick et al. 2017, equation 3): weights that earlier stages need move less.

    `strength / 2 * sum F (w - w before)^2`, F the diagonal of the earlier rows' Fisher information for each trained
    token (or row of a classifier). At a strength of 1 all that was trained before counts as much as what is now.
    """

    kind: Literal["ewc"] = "ewc"
    strength: float = Field(default=1.0, gt=0)
    rows: int = Field(default=256, ge=1)
    """Earlier rows that the information is estimated on, of each stage as many as of any other."""


class Previous(Settings):
    """Learning without forgetting (Li and Hoiem 2016): on its new rows the model stays near what it said before.

    `weight * T^2 * KL(before || now)` is added to each trained token's loss, or to each row's of a classifier. It
    holds what the new rows touch, and nothing else.
    """

    kind: Literal["previous"] = "previous"
    weight: float = Field(default=1.0, gt=0)
    temperature: float = Field(default=2.0, gt=0)


Hold = Annotated[Ewc | Previous, Field(discriminator="kind")]


class Gate(Settings):
    """Refuse a stage after which a task is worse than it has ever been by more than is allowed.

    Looked at are the tasks of this stage and of those before it, and those that no stage teaches, each by its metric in
    the matrix. A task has fallen where the paired difference from its best measurement so far is larger than `forget`
    and, by its 95 % interval, is a fall at all.
    """

    forget: float = Field(default=0.05, ge=0)
    """In the metric's own unit: 0.05 are five points of accuracy, or 0.05 nats a token."""
    then: Literal["end", "go-on"] = "end"
    """A refused stage's weights are put back. end: they are saved, and the run ends with exit code 7; go-on: the next
    stage goes on from them."""


class Lesson(Protocol):
    """The part of a stage that is looked at here."""

    @property
    def objective(self) -> Objective: ...

    @property
    def adapter(self) -> Settings: ...

    @property
    def rehearsal(self) -> Rehearsal | None: ...

    @property
    def hold(self) -> Ewc | Previous | None: ...

    @property
    def gate(self) -> Gate | None: ...


def require_lessons(stages: Sequence[Lesson], *, tasks: int) -> None:
    """ValueError for a stage that asks for what its recipe does not give it."""
    for number, stage in enumerate(stages):
        for name, asked in (("rehearsal", stage.rehearsal), ("hold", stage.hold)):
            if asked is not None and number == 0:
                raise ValueError(f"stages.0.{name}: there is no stage before the first. Leave it out.")
        if stage.rehearsal is not None:
            _require_rows(stages[:number], stage, stage.rehearsal, place=f"stages.{number}.rehearsal")
        if isinstance(stage.hold, Ewc):
            _require_elastic(stages[: number + 1], place=f"stages.{number}.hold")
        if isinstance(stage.hold, Previous):
            _require_objective([stage], place=f"stages.{number}.hold")
        if stage.gate is not None and not tasks:
            raise ValueError(f"stages.{number}.gate: there is nothing that could be forgotten. Give the recipe tasks.")


def _require_rows(before: Sequence[Lesson], stage: Lesson, rehearsal: Rehearsal, *, place: str) -> None:
    kind = stage.objective.kind
    if other := next((one.objective.kind for one in before if one.objective.kind != kind), None):
        raise ValueError(f"{place}: rows of {other} cannot be trained by {kind}. Rehearse within one objective.")
    if rehearsal.answers == "own" and not isinstance(stage.objective, Sft):
        raise ValueError(f"{place}.answers: {kind} is not taught by answers. Use `given`.")


def _require_elastic(stages: Sequence[Lesson], *, place: str) -> None:
    _require_objective(stages, place=place)
    adapter = stages[-1].adapter
    if not isinstance(adapter, HELD_ADAPTERS) or (
        isinstance(adapter, Lora) and (adapter.dora or adapter.start != "zero")
    ):
        raise ValueError(f"{place}: ewc holds plain weights. Take the adapter full, last-layers, bias or plain lora.")


def _require_objective(stages: Sequence[Lesson], *, place: str) -> None:
    for stage in stages:
        one = stage.objective
        if not isinstance(one, Sft) and not (isinstance(one, Classify) and one.problem in ("auto", "single_label")):
            raise ValueError(f"{place}: needs distributions over tokens or classes. Use sft, or classify of one label.")
