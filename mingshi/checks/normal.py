"""What copies of a text share: its letters, digits and signs, whatever their width and case."""

from __future__ import annotations

import unicodedata
from functools import cache
from itertools import chain

DROPPED = {"P", "Z"}  # first letters of Unicode's general categories: punctuation, separators
HIDDEN = {"Cc", "Cf"}  # line ends and other controls, characters without a shape


@cache
def dropped() -> dict[int, None]:
    """Every character that is dropped."""
    found: dict[int, None] = {}
    for code in chain(range(0x20000), range(0xE0000, 0xE0200)):  # no plane in between has one
        category = unicodedata.category(chr(code))
        if category[0] in DROPPED or category in HIDDEN:
            found[code] = None
    return found | {ord(each): None for each in "~`^|´¨"}  # symbols to Unicode, punctuation to whoever types them


def normalised(text: str) -> str:
    """NFKC, case folded, without punctuation, white space and invisible characters; may be empty."""
    return unicodedata.normalize("NFKC", text).casefold().translate(dropped())
