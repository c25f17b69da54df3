"""The nouns of the house: frozen values without behaviour, in the order in which a row becomes a step.

Shapes: `T` tokens in a packed stream, `S` segments, `M` predictions, `N` samples, `K` labels of each. Counts are per
value, not per batch row: nothing in this house is padded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import torch

    from mingshi.display import Display
    from mingshi.model.load import Model, Text

Network = Any  # a transformers model: its classes are made at run time and carry no types
Columns = np.ndarray  # one-dimensional, of the type that its field names
NO_LABELS = np.empty(0, dtype=np.float32)


class Settings(BaseModel):
    """Base of everything a recipe can say: frozen, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str  # system, user, assistant or tool; input: what an instruction is about, right after its user turn
    content: str
    train: bool | None = None  # None: as the objective says; True or False: this row says otherwise
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None  # a thinking model's text before its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """Something a person can read, and where it was read."""

    id: str  # unique in its source, and the same on every reading
    source: str  # the file, as the recipe names it
    line: int  # 1-based
    group: str  # rows of one group stay on one side of a split
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chat(Example):
    """A conversation, an instruction with its answer, or plain text (one assistant turn and `plain`)."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    plain: bool = False  # text to continue as it stands: no template around it


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """Something that an answer must do and that can be verified without a person, such as its number of words."""

    kind: str  # a name in the table of `evals.constraints`
    parameters: Mapping[str, int | str | tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constrained(Chat):
    """A question, and what holds of an answer that follows it."""

    constraints: tuple[Constraint, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled(Example):
    """A text and its class, its classes, or its number."""

    content: str
    label: str | float | tuple[str, ...]
    weight: float = 1.0  # how much it counts in training, beside what its class counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Example):
    """A prompt and two answers, the better one first."""

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One of several answers to a prompt, and how good somebody or something found it."""

    text: str
    score: float  # the higher, the better; a rank is a score below zero
    by: str = ""  # who or what wrote it


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Example):
    """A prompt and answers to it whose scores can be compared."""

    prompt: tuple[Message, ...]
    answers: tuple[Answer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices(Example):
    """A question and several answers to it, one of them right."""

    prompt: tuple[Message, ...]
    choices: tuple[str, ...]
    answer: int  # the right one's place among them


@dataclass(frozen=True, slots=True, kw_only=True)
class Captioned(Example):
    """A picture and what is said of it."""

    image: str  # the path of its file
    texts: tuple[str, ...]  # each says it by itself; at least one


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """A row that was read and not used, and why. `rows in = used + rejected` in every run."""

    source: str
    line: int
    reason: str  # a short code, counted in the ledger: bad_json, missing_field, no_trained_tokens, too_long …
    detail: str  # one sentence for a person: what, and the mend


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation as tokens. Token `i` is a target that counts `weights[i]`; nothing is shifted."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    reasons: tuple[str, ...]  # why each token counts or not: header, content, stop, prompt, system, tool …


class Template(Protocol):
    """The one owner of prompts and masks; training, evaluation and chat all ask it."""

    @property
    def name(self) -> str: ...

    @property
    def stop(self) -> tuple[int, ...]:
        """Tokens that end a turn; generation stops at them."""

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] = (),
        *,
        train_on: Literal["all", "last"] = "all",
    ) -> Rendered: ...

    def prompt(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> list[int]: ...

    def plain(self, text: str) -> Rendered: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """An Example encoded for one objective.

    `tokens` are those that are read: one that is only predicted is not among them.
    `segments` is `[S, 3]`: start, length, parent. A segment continues the text of its parent (-1: of nothing).
    Prediction `j` scores token `target[j]` from the hidden state at `source[j]`, an index into `tokens`.
    """

    tokens: Columns  # [T] int32
    segments: np.ndarray  # [S, 3] int32
    source: Columns  # [M] int32
    target: Columns  # [M] int32
    weight: Columns  # [M] float32
    sequence: Columns  # [M] int32: which of the sample's answers a prediction belongs to
    labels: Columns = field(default_factory=lambda: NO_LABELS)  # [K] float32: what is scored besides tokens
    image: str = ""  # the name under which its picture's pixels are kept (data/images.py); "": it has none
    id: str = ""
    row: int = -1  # its place among the stage's samples, set by the sequence that holds them


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """A packed stream of samples, on one device."""

    tokens: torch.Tensor  # [T] int64
    positions: torch.Tensor  # [T] int64, counted on from the parent's end
    segments: np.ndarray  # [S, 3] int32, on the processor: the attention's plan is made from it
    source: torch.Tensor  # [M] int64
    target: torch.Tensor  # [M] int64
    weights: torch.Tensor  # [M] float32
    sequence: torch.Tensor  # [M] int64
    labels: torch.Tensor  # [N, K] float32
    parts: torch.Tensor  # [N] float32: each sample's share of the weight
    weight: float  # what the loss of this batch is summed over
    ids: tuple[str, ...] = ()
    images: tuple[str, ...] = ()  # each sample's picture
    rows: tuple[int, ...] = ()  # each sample's place among the stage's: a companion finds by it what it stored


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loss:
    """A sum over a batch, and other sums over the same weight, by name."""

    sum: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """One meaning of training; its fields are its hyper-parameters."""

    accepts: ClassVar[tuple[type[Example], ...]]
    additive: ClassVar[bool]  # may a step be cut into micro-batches
    headline: ClassVar[str]  # the metric that decides which weights are the best, and when to stop early
    higher_is_better: ClassVar[bool]  # of the headline

    @property
    def kind(self) -> str: ...

    @property
    def max_length(self) -> int:
        """The most tokens of one sample."""

    def encode(self, example: Example, model: Text) -> Sample | Reject | list[Sample]: ...

    def collate(self, samples: Sequence[Sample], device: str) -> Batch: ...

    def companion(self, model: Model, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display) -> Any:
        """What stands beside the network while it is trained, or measured, on these samples.

        Made once a stage for each set of samples, after the adapter is attached and before any weight moves or is
        restored: the network computes what it did before the stage. What is computed is kept under `folder`, named
        after a hash of everything that it depends on, so that a later epoch or run finds it.
        """

    def loss(self, network: Network, batch: Batch, companion: Any) -> Loss: ...

    def measure(self, network: Network, batch: Batch, companion: Any) -> Mapping[str, torch.Tensor]:
        """Sums of each sample, `[N]` by metric, the headline first; a score is their sum over that of `Batch.parts`.

        Called without gradients and dropout.
        """

    def model_dump_json(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What the loop yields: one optimiser step, in raw values."""

    number: int  # 1-based, over the whole stage
    epoch: float
    loss: float  # summed over the step's weight, divided once
    learning_rate: float
    gradient_norm: float  # before clipping
    tokens: int  # real tokens read
    trained: int  # predictions scored
    seconds: float
    ids: tuple[str, ...]
    stream: int = 0  # tokens of one stream at most: what memory sufficed for
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One number and how sure it is."""

    value: float
    low: float  # 95 % interval
    high: float
    count: int  # how many items it was measured on
    signature: str  # what would have to be equal for two scores to be compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """An evaluator's answer: scores by metric name, and each item's own values for paired tests."""

    scores: Mapping[str, Score]
    items: Mapping[str, Sequence[float]] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()  # for people: prompt, prediction, reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a check saw: how bad, how often, where, and what to do."""

    check: str
    kind: str
    severity: str  # note, warning or error
    count: int
    message: str
    rows: Sequence[Mapping[str, Any]] = ()  # source and line, and what else is to be said of each
    remedy: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)  # numbers, and the texts of a few rows, for a page
