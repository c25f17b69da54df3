"""The elements of a JSON array, one at a time: a file of any size in the memory of its longest row."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, final

BLOCK = 1 << 20  # bytes read at once
LONGEST = 64 << 20  # characters of one element: an array that is broken is not read to its end
_BLANK = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class BrokenArray(Exception):
    """What is wrong with the array, how to mend it, and the line where that can be told."""

    def __init__(self, what: str, mend: str, line: int | None = None):
        Exception.__init__(self, what)
        self.what = what
        self.mend = mend
        self.line = line


def elements(file: IO[bytes]) -> Iterator[tuple[int, str]]:
    """The line on which each element starts, and its text; BrokenArray where the file is not one array of UTF-8."""
    window = _Window(file)
    while window.character(0) not in "[":
        window.go(1)
    window.go(window.after_blank(1))
    more = window.character(0) != "]"
    while more:
        line = window.line
        end = window.end_of_value()
        yield line, window.text[window.place : window.place + end]
        comma = window.after_blank(end)
        more = window.character(comma) == ","
        if not more and window.character(comma) != "]":
            raise BrokenArray("after this row there is neither a comma nor the array's end", "Add it.", line)
        window.go(window.after_blank(comma + 1) if more else comma)
    window.go(window.after_blank(1))
    if window.character(0):
        raise BrokenArray("there is text after the array's end", "Take it out.", window.line)


@final
class _Window:
    """The part of a file that is looked at, read on when it is needed. Positions count from `place`."""

    def __init__(self, file: IO[bytes]):
        self.text = ""
        self.place = 0
        self.line = 1  # of `place`, as is the column
        self.column = 1
        self._file = file
        self._bytes = 0  # read so far
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()

    def character(self, position: int) -> str:
        """One character, or nothing at the end of the file."""
        while self.place + position >= len(self.text):
            if not self._read_on():
                return ""
        return self.text[self.place + position]

    def after_blank(self, position: int) -> int:
        """The first position from this one on that is not blank."""
        while True:
            match = _BLANK.match(self.text, self.place + position)
            position = match.end() - self.place if match else position
            if self.place + position < len(self.text) or not self._read_on():
                return position

    def end_of_value(self) -> int:
        """Where the JSON value at `place` ends. The standard library finds it."""
        while True:
            try:
                _, end = _DECODER.raw_decode(self.text, self.place)
            except (ValueError, RecursionError) as error:
                broken = isinstance(error, RecursionError) or len(self.text) - self.place > LONGEST
                if broken or not self._read_on():
                    raise self._broken(error) from error
            else:
                if end + 2 < len(self.text) or not self._read_on():  # of `1.5` or `1e+5` a block may end after the 1
                    return end - self.place

    def go(self, position: int) -> None:
        """Move `place` there."""
        place = self.place + position
        self.line, self.column = self._told(place)
        self.place = place

    def _told(self, place: int) -> tuple[int, int]:
        """Line and column of a place further on."""
        last = self.text.rfind("\n", self.place, place)
        column = place - last if last >= 0 else self.column + place - self.place
        return self.line + self.text.count("\n", self.place, place), column

    def _broken(self, error: Exception) -> BrokenArray:
        why = str(error)[:80]
        if isinstance(error, json.JSONDecodeError):
            line, column = self._told(error.pos)
            why = f"{error.msg}: line {line} column {column}"
        what = f"the array is broken in the row that starts at column {self.column} ({why})"
        return BrokenArray(what, "Mend or complete it.", self.line)

    def _read_on(self) -> bool:
        """Another block, or as much again as is held: a long value is not looked at too often. False at the end."""
        raw = self._file.read(max(BLOCK, len(self.text) - self.place))
        self._bytes += len(raw)
        try:
            more = self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            at = self._bytes - len(error.object) + error.start
            what = f"not valid UTF-8 at byte {at} of the file (0x{error.object[error.start]:02x})"
            raise BrokenArray(what, "Save the file as UTF-8.") from error
        if not raw:
            return False
        self.text, self.place = self.text[self.place :] + more, 0
        return True
