"""Where each message's text lies in a rendered chat.

A template may trim, reorder, fold or drop what it is given, and contents may repeat or look like headers, so looking
for a content in the text proves nothing. Instead the chat is rendered a second time with a private character before
and after each content. If taking these out gives the first text again, they say where the contents lie.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mingshi.data.literal import PRIVATE
from mingshi.data.row_problem import RowProblem

Kind = Literal["content", "reasoning", "argument"]

THINKING = re.compile(r"(</?think>)")  # assistants write these on purpose: templates read them, tokenizers know them
_FIRST_MARK = 0xF0000
_MOST_PIECES = 32_000
_MARK = re.compile("[\U000f0000-\U000fffff]")


@dataclass(frozen=True, slots=True)
class Piece:
    """A text that the chat brings in. `message` is its index, -1 for the tools."""

    number: int
    message: int
    kind: Kind
    controls: bool  # it contains the text of a control token


@dataclass(frozen=True, slots=True)
class Region:
    """Characters of the rendered chat that come from one piece."""

    start: int
    end: int
    piece: Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """What the marks say. `reach` is from the first to the last mark of a message, torn pieces included."""

    whole: Sequence[Region]  # in order; they do not overlap
    reach: Mapping[int, tuple[int, int]]
    torn: Sequence[Piece]  # a template cut them: where their text went is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How marks are written: as far out as possible, unless a template trims, parses or compares what it is given."""

    tight: bool = False  # inside a text's outer spaces
    calls: bool = True  # in names and arguments of tool calls as well
    answers_only: bool = False


MANNERS = (
    Manner(),
    Manner(tight=True),
    Manner(tight=True, calls=False),
    Manner(tight=True, calls=False, answers_only=True),
)


@dataclass(slots=True, kw_only=True)
class Marker:
    """Writes marks into a conversation and remembers what each stands for."""

    controls: re.Pattern[str]
    manner: Manner
    pieces: list[Piece] = field(default_factory=list)

    def conversation(self, dictionaries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The messages, as templates see them, with marks in them."""
        return [
            {key: self._field(index, dictionary["role"], key, value) for key, value in dictionary.items()}
            for index, dictionary in enumerate(dictionaries)
        ]

    def suspicious(self, message: int, value: Any) -> Any:
        """Marks only in texts that could forge a control token."""
        return map_texts(value, lambda text: self._mark(message, "argument", text) if self._controls(text) else text)

    def _field(self, index: int, role: str, key: str, value: Any) -> Any:
        if key == "role" or (self.manner.answers_only and role != "assistant"):
            return value
        if key == "content":
            return self._content(index, role, value)
        if key in ("reasoning_content", "thinking"):
            return self._mark(index, "reasoning", value)
        if key == "tool_calls" and self.manner.calls:
            return [self._call(index, call) for call in value]
        return self.suspicious(index, value)

    def _content(self, index: int, role: str, text: str) -> str:
        """An assistant's think tags are left bare: templates look for them, and tokenizers know them."""
        pieces = THINKING.split(text) if role == "assistant" else [text]
        return "".join(
            piece if number % 2 else self._mark(index, "content", piece) for number, piece in enumerate(pieces)
        )

    def _call(self, index: int, call: Mapping[str, Any]) -> dict[str, Any]:
        marked: dict[str, Any] = {}
        for key, value in call.items():
            if key == "function" and isinstance(value, Mapping):
                marked[key] = self._call(index, value)
            elif key in ("name", "arguments"):
                marked[key] = map_texts(value, lambda text: self._mark(index, "argument", text))
            else:
                marked[key] = self.suspicious(index, value)
        return marked

    def _controls(self, text: str) -> bool:
        return self.controls.search(text) is not None

    def _mark(self, message: int, kind: Kind, text: str) -> str:
        body = text.strip() if self.manner.tight else text
        if not body:
            return text
        number = len(self.pieces)
        if number == _MOST_PIECES:
            raise RowProblem("mask_unverified", f"more than {_MOST_PIECES} texts in one conversation")
        self.pieces.append(Piece(number, message, kind, self._controls(text)))
        start = text.index(body)
        first, last = chr(_FIRST_MARK + 2 * number), chr(_FIRST_MARK + 2 * number + 1)
        return text[:start] + first + body + last + text[start + len(body) :]


def map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A copy of JSON-like data with its texts changed; keys stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_texts(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [map_texts(item, change) for item in value]
    return value


def refuse_private(value: Any, controls: re.Pattern[str]) -> None:
    """Raises RowProblem for characters that marks are made of, and for names that would forge a control token."""
    if isinstance(value, str):
        if PRIVATE.search(value):
            raise RowProblem("private_characters", "a text has characters from U+F0000 up. Replace or remove them")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            refuse_private(key, controls)
            if isinstance(key, str) and controls.search(key):
                raise RowProblem("control_text", "the name of a field contains a control token. Rename the field")
            refuse_private(item, controls)
    elif isinstance(value, (list, tuple)):
        for item in value:
            refuse_private(item, controls)


def remove_marks(text: str) -> str:
    """The text as it is without them."""
    return _MARK.sub("", text)


def dropped_messages(pieces: Sequence[Piece], regions: Regions) -> set[int]:
    """Messages whose content, or whose tool calls, a template leaves out. Leaving out thoughts is its business."""
    written = {region.piece.number for region in regions.whole} | {piece.number for piece in regions.torn}
    kept = {(pieces[number].message, pieces[number].kind) for number in written}
    brought = {(piece.message, piece.kind) for piece in pieces if piece.kind != "reasoning" and piece.message >= 0}
    return {message for message, _ in brought - kept}


def read_marks(text: str, pieces: Sequence[Piece]) -> Regions:
    """Where the pieces lie, in characters of the text without marks."""
    events = [
        (found.start() - count, *divmod(ord(found.group()) - _FIRST_MARK, 2))
        for count, found in enumerate(_MARK.finditer(text))
    ]
    whole: list[Region] = []
    torn: list[Piece] = []
    reach: dict[int, tuple[int, int]] = {}
    index = 0
    while index < len(events):
        start, number, closes = events[index]
        piece = pieces[number]
        end, *after = events[index + 1] if index + 1 < len(events) else (start, -1, -1)
        if not closes and after == [number, 1]:
            whole.append(Region(start, end, piece))
            index += 2
        else:
            torn.append(piece)
            end = start
            index += 1
        first, last = reach.get(piece.message, (start, end))
        reach[piece.message] = (min(first, start), max(last, end))
    return Regions(whole=whole, reach=reach, torn=torn)
