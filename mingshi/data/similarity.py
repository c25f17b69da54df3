"""How alike two texts are, by what it takes to type one into the other."""

from __future__ import annotations

from collections import Counter


def edit_distance(first: str, second: str) -> int:
    """Levenshtein's distance: insertions, deletions and substitutions of characters.

    Myers' bit vectors (1999) as Hyyrö wrote them down (2003). A column of the table is two integers of `len(first)`
    bits, so a character of `second` costs a handful of operations on them: two texts of 2,000 characters take
    milliseconds.
    """
    if len(first) < len(second):
        first, second = second, first
    if not second:
        return len(first)
    places: dict[str, int] = {}
    for index, character in enumerate(first):
        places[character] = places.get(character, 0) | 1 << index
    full, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    rises, falls, distance = full, 0, len(first)
    for character in second:
        match = places.get(character, 0)
        equal = (((match & rises) + rises) ^ rises) | match | falls
        up, down = falls | ~(equal | rises) & full, rises & equal
        distance += bool(up & last) - bool(down & last)
        up, down = (up << 1 | 1) & full, down << 1 & full
        rises, falls = down | ~(equal | up) & full, up & equal
    return distance


def similarity(first: str, second: str) -> float:
    """1 for equal texts, 0 where nothing stays: `1 - distance / length of the longer`."""
    return 1 - edit_distance(first, second) / (max(len(first), len(second)) or 1)


def nearly_equal(first: str, second: str, *, above: float) -> bool:
    """Is the similarity greater than `above`? Most pairs are told apart by their letters, before any table is made."""
    longest = max(len(first), len(second))
    allowed = (1 - above) * longest
    if abs(len(first) - len(second)) > allowed:
        return False
    letters, others = Counter(first), Counter(second)
    if max((letters - others).total(), (others - letters).total()) > allowed:  # each takes an edit of its own
        return False
    return similarity(first, second) > above
