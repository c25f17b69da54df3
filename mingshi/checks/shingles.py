"""Texts as sets of numbers: pieces of a few letters for likeness, runs of words for quotation.

Pieces are made of letters in every language. Pieces of words know nothing of Chinese and miss misspelt English: one
edit in 25 characters spoils every fourth word, and with it most runs of three. Runs are of words, or of characters
in scripts without spaces between words, which say with one character about what others say with two or three letters:
a run takes its length from the script of its first, so a mixed text is cut by both rules.

Letters: `N` characters or words of one text, `K` pieces or runs.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from mingshi.checks.normal import dropped

PIECE = 4  # letters
CONTEXT = (10, 20)  # characters of a script without spaces, or letters: long enough to be a phrase
WORDS_8, WORDS_13 = (13, 8), (21, 13)  # such characters, or words, of a run: a word is about 1.6 characters

_WIDE = (  # first and last of scripts that are written without spaces, and of Hangul, whose signs are syllables
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAFF),
    (0x1B000, 0x1B16F),
    (0x20000, 0x3FFFF),
)
_HIDDEN, _BETWEEN, _LETTER, _SIGN = range(4)  # no shape; space or punctuation; part of a word; a word of its own
_PRIME = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_PRIME, -1, 1 << 64)


@dataclass(frozen=True, slots=True, eq=False)
class Words:
    """The words of a text; a character of a script without spaces is one."""

    hashes: np.ndarray  # [N] uint64
    wide: np.ndarray  # [N] bool: such a character
    starts: np.ndarray  # [N]: where each begins, as a share of the text's length


def letter_shingles(normal: str) -> tuple[np.ndarray, np.ndarray]:
    """`[K]` uint32 both: the pieces of a text that `normalised` gave, sorted, each once, and the phrase in which each
    stands first: a hash of what begins with it, or 0 close to the end."""
    codes = _codes(normal)
    values, wide = codes.astype(np.uint64), _table()[codes] == _SIGN
    hashes, _ = _mixed(values, wide, PIECE, PIECE)
    contexts = np.zeros_like(hashes)
    phrases, starts = _mixed(values, wide, *CONTEXT)
    contexts[starts] = phrases
    pieces, first = np.unique(hashes, return_index=True)
    return pieces, contexts[first]


def word_shingles(words: Words, lengths: tuple[int, int] = WORDS_8) -> tuple[np.ndarray, np.ndarray]:
    """`[K]` uint32 and `[K]`: the runs of words in their order, and the word with which each begins."""
    return _mixed(words.hashes, words.wide, *lengths)


def one_edit_keys(normal: str, salt: int) -> tuple[np.ndarray, np.ndarray]:
    """`[N]` and `[N + 1]` uint64: texts with a key in common are one edit apart, and the other way round.

    Two texts share a key of the first kind if they differ in one character at most. One text's last key of the second
    kind is among another's first ones if that one has one character more. Keys of different `salt` are different.
    """
    codes = _codes(normal).astype(np.uint64)
    count = len(codes)
    sums = _sums(codes)
    without = sums[:-1] + (sums[-1] - sums[1:]) * np.uint64(_INVERSE)  # [N]: each character left out in turn
    lengths = np.uint64(count - 1) + np.arange(count, dtype=np.uint64) * np.uint64(64)
    salted = np.uint64(salt)
    replaced = _stirred(without + _stirred(lengths + salted))
    whole = np.append(without + np.uint64(count - 1), sums[-1:] + np.uint64(count))
    return replaced, _stirred(whole + _stirred(np.array([salt], dtype=np.uint64)))


def words_of(text: str) -> Words:
    """What `normalised` keeps, cut where it drops something, and around each character of a script without spaces."""
    codes = _codes(unicodedata.normalize("NFKC", text).casefold())
    kinds = _table()[codes]
    places = np.flatnonzero(kinds != _HIDDEN)
    codes, kinds = codes[places], kinds[places]
    letter = kinds == _LETTER
    begins = letter.copy()
    begins[1:] &= ~letter[:-1]
    ends = letter.copy()
    ends[:-1] &= ~letter[1:]
    wide = kinds == _SIGN
    starts, last = np.flatnonzero(begins | wide), np.flatnonzero(ends | wide)
    sums = _sums(codes.astype(np.uint64))
    hashes = (sums[last + 1] - sums[starts]) * _powers(len(sums), _INVERSE)[starts]
    return Words(_stirred(hashes), wide[starts], places[starts] / (places[-1] + 1 if len(places) else 1))


def _mixed(values_N: np.ndarray, wide_N: np.ndarray, wide: int, narrow: int) -> tuple[np.ndarray, np.ndarray]:
    """Runs of `wide` or of `narrow` values, by the kind of their first, and where each begins."""
    sums = _sums(values_N)
    count = len(values_N)
    lengths = np.where(wide_N, wide, narrow)
    starts = np.arange(count)
    starts = starts[starts + lengths <= count]
    hashes = (sums[starts + lengths[starts]] - sums[starts]) * _powers(len(sums), _INVERSE)[starts]
    return (_stirred(hashes) >> np.uint64(32)).astype(np.uint32), starts


def _sums(values_N: np.ndarray) -> np.ndarray:
    """`[N + 1]`: a polynomial's running sums modulo 2^64; a difference of two, brought down, hashes what is between."""
    sums = np.zeros(len(values_N) + 1, dtype=np.uint64)
    np.cumsum(values_N * _powers(len(values_N), _PRIME), out=sums[1:])
    return sums


def _powers(count: int, base: int) -> np.ndarray:
    return np.asarray(_table_of_powers(max(1024, 1 << count.bit_length()), base)[:count])


@lru_cache(maxsize=8)
def _table_of_powers(count: int, base: int) -> np.ndarray:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.asarray(np.multiply.accumulate(factors))


def _stirred(values: np.ndarray) -> np.ndarray:
    """Every bit of the result depends on every bit of the value (the finaliser of MurmurHash3)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return np.asarray(values ^ (values >> np.uint64(33)))


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@cache
def _table() -> np.ndarray:
    """The kind of every character."""
    kinds = np.full(0x110000, _LETTER, dtype=np.uint8)
    for first, last in _WIDE:
        kinds[first : last + 1] = _SIGN
    for code in dropped():
        kinds[code] = _HIDDEN if unicodedata.category(chr(code)) == "Cf" else _BETWEEN
    return kinds
