"""What checks see of an example, whatever its format; and what a check is."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from mingshi.types import Captioned, Chat, Choices, Example, Finding, Labelled, Message, Preference, Reject

Split = Literal["train", "validation", "test", "production"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "production")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One example as texts."""

    split: Split
    source: str  # the file
    line: int  # 1-based
    id: str
    group: str
    prompt: str  # what is given: the text of a labelled row, or all turns before the last answer, a line each
    answer: str  # what is wanted: the last answer, the chosen one, or a picture's captions; "" of a labelled row
    system: str = ""  # the system turn, which many rows share; not in `prompt`
    label: str | None = None  # of a labelled row; several are joined by ", "
    turns: int = 1  # messages without the system's; 1 of a labelled row
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All that the row itself says."""
        return f"{self.prompt}\n{self.answer}" if self.prompt and self.answer else self.prompt or self.answer

    @property
    def place(self) -> dict[str, Any]:
        """How findings name the row."""
        return {"source": self.source, "line": self.line}


@dataclass(slots=True)
class Places:
    """Rows that a finding names, as numbers: of a million rows every one may be named."""

    splits: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)  # of the first ones: where, and what is to be seen
    _names: dict[str, int] = field(default_factory=dict)  # files, numbered
    _sources: array[int] = field(default_factory=lambda: array("I"))
    _lines: array[int] = field(default_factory=lambda: array("I"))

    def add(self, row: Row | Reject, split: Split, text: str, *, shown: int) -> None:
        """One more row; `text` is kept of the first `shown`."""
        self.splits[split] += 1
        self._sources.append(self._names.setdefault(row.source, len(self._names)))
        self._lines.append(row.line)
        if len(self.examples) < shown:
            self.examples.append({"source": row.source, "line": row.line, "text": text})

    def told(self) -> list[dict[str, Any]]:
        """Source and line of each."""
        names = list(self._names)
        return [
            {"source": names[source], "line": line} for source, line in zip(self._sources, self._lines, strict=True)
        ]


class Check(Protocol):
    """Rows in, one by one, split by split in the order of SPLITS; findings out. Memory per row is bounded: some
    numbers, never the texts, which a reader of the findings can look up by file and line."""

    def add(self, row: Row) -> None: ...

    def findings(self) -> list[Finding]: ...


def rows_of(examples: Iterable[Example | Reject], split: Split) -> Iterator[Row | Reject]:
    """Each example as a row; rejects are passed on."""
    for example in examples:
        yield example if isinstance(example, Reject) else row_of(example, split)


def row_of(example: Example, split: Split) -> Row:
    system, prompt, answer, label = _texts(example)
    return Row(
        split=split,
        source=example.source,
        line=example.line,
        id=example.id,
        group=example.group,
        prompt=prompt,
        answer=answer,
        system=system,
        label=label,
        turns=_turns(example),
        attributes=example.attributes,
    )


def _turns(example: Example) -> int:
    match example:
        case Preference(prompt=prompt, chosen=chosen):
            messages = (*prompt, *chosen)
        case Choices(prompt=prompt):
            return sum(each.role != "system" for each in prompt) + 1
        case Chat(messages=messages):
            pass
        case _:
            return 1
    return sum(each.role != "system" for each in messages)


def _texts(example: Example) -> tuple[str, str, str, str | None]:
    """System, prompt, answer and label."""
    match example:
        case Labelled(content=content, label=label):
            return "", content, "", ", ".join(label) if isinstance(label, tuple) else str(label)
        case Captioned(texts=texts):
            return "", "", "\n".join(texts), None
        case Preference(prompt=prompt, chosen=chosen):
            system, given = _given(prompt)
            return system, given, _lines(chosen), None
        case Choices(prompt=prompt, choices=choices, answer=answer):
            system, given = _given(prompt)
            return system, given, choices[answer], None
        case Chat(messages=messages):
            last = max(
                (place for place, each in enumerate(messages) if each.role == "assistant"), default=len(messages)
            )
            system, given = _given(messages[:last])
            return system, given, _lines(messages[last:]), None
    return "", "", "", None


def _given(messages: Sequence[Message]) -> tuple[str, str]:
    """The system turns, and all others."""
    system = [each for each in messages if each.role == "system"]
    return _lines(system), _lines([each for each in messages if each.role != "system"])


def _lines(messages: Sequence[Message]) -> str:
    return "\n".join(each.content for each in messages)
