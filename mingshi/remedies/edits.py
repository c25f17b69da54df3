"""Small changes of a text that a label survives: words swapped, left out, put in, or replaced.

Wei and Zou 2019 (EDA: Easy data augmentation techniques for boosting performance on text classification tasks), and of
punctuation Karimi, Rossi and Prati 2021 (AEDA). Numbers and words that negate are neither moved, left out nor replaced.
On top of a large pretrained model such changes are worth little: measure with and without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mingshi.checks.bias_swaps import in_case_of
from mingshi.remedies.lexicon import Lexicon
from mingshi.remedies.pieces import is_guarded, is_ideographic, is_word, pieces

Edit = Callable[[str, np.random.Generator], str | None]  # None: this text cannot be changed so

STRENGTH = 0.1  # share of a text's words that change, at least one
MARKS = (".", ";", "?", ":", "!", ",")
WIDE_MARKS = ("。", "；", "？", "：", "！", "，")
MARKED = 3  # of so many words at most one gets a mark before it


def swap(text: str, generator: np.random.Generator, *, strength: float = STRENGTH) -> str | None:
    """Two words change places, as often as the strength says."""
    found = pieces(text)
    places = _movable(found)
    if len({found[place] for place in places}) < 2:
        return None
    for _ in range(_times(len(places), strength)):
        one, other = generator.choice(places, 2, replace=False)
        found[one], found[other] = found[other], found[one]
    return "".join(found)


def delete(text: str, generator: np.random.Generator, *, strength: float = STRENGTH) -> str | None:
    """Words are left out, never all, each with a space beside it."""
    found = pieces(text)
    places = _movable(found)
    if sum(map(is_word, found)) < 2 or not places:
        return None
    gone = generator.choice(places, min(_times(len(places), strength), len(places), _words(found) - 1), replace=False)
    for place in gone.tolist():
        _without_space(found, place)
        found[place] = ""
    return "".join(found).strip()


def insert(text: str, generator: np.random.Generator, *, lexicon: Lexicon, strength: float = STRENGTH) -> str | None:
    """A synonym of one of the text's words is put behind any of them."""
    found = pieces(text)
    known = [synonyms for piece in found if (synonyms := _synonyms(piece, lexicon))]
    words = [place for place, piece in enumerate(found) if is_word(piece)]
    if not known:
        return None
    for _ in range(_times(len(words), strength)):
        synonym = str(generator.choice(known[int(generator.integers(len(known)))]))
        place = int(generator.choice(words))
        found[place] += synonym if is_ideographic(synonym) else f" {synonym}"
    return "".join(found)


def synonym(text: str, generator: np.random.Generator, *, lexicon: Lexicon, strength: float = STRENGTH) -> str | None:
    """Words that the lexicon knows are replaced, their case kept."""
    found = pieces(text)
    known = [place for place, piece in enumerate(found) if _synonyms(piece, lexicon)]
    if not known:
        return None
    count = min(len(known), _times(_words(found), strength))
    for place in generator.choice(known, count, replace=False).tolist():
        chosen = str(generator.choice(_synonyms(found[place], lexicon)))
        found[place] = in_case_of(chosen, found[place])
    return "".join(found)


def punctuate(text: str, generator: np.random.Generator) -> str | None:
    """Marks are put before words, up to one for three of them: AEDA."""
    found = pieces(text)
    words = [place for place, piece in enumerate(found) if is_word(piece)]
    if not words:
        return None
    count = int(generator.integers(1, max(1, len(words) // MARKED) + 1))
    for place in generator.choice(words, count, replace=False).tolist():
        wide = is_ideographic(found[place])
        mark = str(generator.choice(WIDE_MARKS if wide else MARKS))
        found[place] = f"{mark}{found[place]}" if wide else f"{mark} {found[place]}"
    return "".join(found)


def _movable(found: Sequence[str]) -> list[int]:
    return [place for place, piece in enumerate(found) if is_word(piece) and not is_guarded(piece)]


def _words(found: Sequence[str]) -> int:
    return sum(map(is_word, found))


def _times(words: int, strength: float) -> int:
    return max(1, round(strength * words))


def _synonyms(piece: str, lexicon: Lexicon) -> tuple[str, ...]:
    return () if not is_word(piece) or is_guarded(piece) else lexicon.get(piece.lower(), ())


def _without_space(found: list[str], place: int) -> None:
    """One space less, where a word that stands between two is left out."""
    if is_ideographic(found[place]):
        return
    if place and found[place - 1].endswith(" "):
        found[place - 1] = found[place - 1][:-1]
    elif place + 1 < len(found) and found[place + 1].startswith(" "):
        found[place + 1] = found[place + 1][1:]
