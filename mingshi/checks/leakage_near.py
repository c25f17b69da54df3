"""Pairs of texts that are nearly the same, of a million texts that are kept as numbers.

Of each text its pieces are kept as hashes, the `KEPT` smallest ones of a long text (Broder's bottom sketch, 1997): of
two texts, the pieces below both limits are a sample of all, and stay one when pieces are taken out. Two kinds are,
when all texts are known: what stands in phrases that many texts have, such as templates, and what one text in fifty
has in any phrase. MinHash in bands finds candidates: `BANDS` of `SLOTS` slots miss 7 % of pairs of Jaccard similarity
0.45, 1.6 % of 0.5 and none of 0.6. The similarity of a candidate is exact where both texts are kept whole, else it is
estimated, for a second reading to confirm.

Texts that are shorter than `SHORT` characters have too few pieces: they are near if they are one edit apart and have
the same digits.

Letters: `E` texts, `P` pieces of all texts, `K` pairs.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass, field
from zlib import crc32

import numpy as np
from rensa import RMinHash

from mingshi.checks.shingles import letter_shingles, one_edit_keys

SHORT, SHORTEST = 20, 10  # characters without spaces and punctuation: fewer than this are compared by edits, or not
KEPT = 256  # pieces of a text
FEWEST = 8  # pieces of a text, besides those of templates, to compare it by
BANDS, SLOTS = 64, 4
SLACK = 0.1  # three standard errors of an estimate from `KEPT` pieces
NEIGHBOURS = 100  # texts of a band that a text is compared with
SEED = 20

_CHUNK = 4096  # texts or pairs at a time
_PART = 1 << 24  # pieces at a time
_DIGITS = re.compile(r"\d+")
_ALL = np.uint64(1) << np.uint64(32)


def commonplace(texts: int) -> int:
    """A phrase that more texts than this have is a template or a set phrase."""
    return max(20, min(100, texts // 100))


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """What many texts have, sorted."""

    pieces: np.ndarray
    phrases: np.ndarray

    def rare(self, pieces: np.ndarray, phrases: np.ndarray) -> np.ndarray:
        """Which pieces stay, bool."""
        return np.asarray(~(_among(pieces, self.pieces) | _among(phrases, self.phrases)))


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """Candidates: which texts, by number, how similar, and whether that is known."""

    texts: np.ndarray  # [K, 2] int64, the earlier first
    similarity: np.ndarray  # [K]
    known: np.ndarray  # [K] bool: False: an estimate


@dataclass(slots=True)
class Sketches:
    """Pieces of the texts added so far, of all texts one after another, sorted in each."""

    pieces: array[int] = field(default_factory=lambda: array("I"))
    phrases: array[int] = field(default_factory=lambda: array("I"))
    ends: array[int] = field(default_factory=lambda: array("Q"))  # of each text
    whole: array[int] = field(default_factory=lambda: array("B"))  # 1: all pieces of the text are kept

    def add(self, normal: str) -> None:
        pieces, phrases = letter_shingles(normal)
        self.pieces.frombytes(pieces[:KEPT].tobytes())
        self.phrases.frombytes(phrases[:KEPT].tobytes())
        self.ends.append(len(self.pieces))
        self.whole.append(len(pieces) <= KEPT)

    def pairs(self, *, above: float) -> tuple[Pairs, Common]:
        """Pairs of similarity `above` at least, and what was left out. The pieces are given up."""
        ends = np.asarray(self.ends, dtype=np.int64)
        limits = np.full(len(ends), _ALL, dtype=np.uint64)
        cut = np.flatnonzero(np.asarray(self.whole) == 0)
        pieces, phrases = np.asarray(self.pieces, dtype=np.uint32), np.asarray(self.phrases, dtype=np.uint32)
        limits[cut] = pieces[ends[cut] - 1]
        common = Common(_common(pieces, max(20, len(ends) // 50)), _common(phrases, commonplace(len(ends))))
        pieces, ends = _without(common, pieces, phrases, ends)
        self.pieces, self.phrases = array("I"), array("I")
        candidates = _candidates(*_signatures(pieces, ends))
        similarity = _similarities(pieces, ends, limits, candidates)
        known = (limits[candidates] == _ALL).all(axis=1)
        kept = similarity >= np.where(known, above, above - SLACK)
        return Pairs(candidates[kept], similarity[kept], known[kept]), common


@dataclass(slots=True)
class Shorts:
    """Keys of short texts, two of which have one in common if they are one edit apart."""

    keys: array[int] = field(default_factory=lambda: array("Q"))
    owners: array[int] = field(default_factory=lambda: array("I"))
    longer: array[int] = field(default_factory=lambda: array("B"))  # 1: the key of a text without a character

    def add(self, normal: str, signs: str, owner: int) -> None:
        """`signs`: what its numbers have in them, besides digits."""
        numbers = "".join(_DIGITS.findall(normal)) + signs
        replaced, whole = one_edit_keys(normal, crc32(numbers.encode()))
        count = len(normal)
        self.keys.frombytes(replaced.tobytes() + whole.tobytes())
        self.owners.extend([owner] * (2 * count + 1))
        self.longer.extend([0] * count + [1] * count + [2])

    def pairs(self) -> np.ndarray:
        """`[K, 2]`: the owners, the earlier first."""
        keys, owners = np.asarray(self.keys, dtype=np.uint64), np.asarray(self.owners, dtype=np.int64)
        kinds = np.asarray(self.longer)
        order = np.argsort(keys, kind="stable")
        keys, owners, kinds = keys[order], owners[order], kinds[order]
        found = [np.empty((0, 2), dtype=np.int64)]
        most = commonplace(len(np.unique(owners)))
        crowded = _crowded(keys, most)
        for step in range(1, most):
            same = np.flatnonzero((keys[step:] == keys[:-step]) & ~crowded[:-step])
            if not len(same):
                break
            first, second = kinds[same], kinds[same + step]
            apart = same[((first == 0) & (second == 0)) | (first + second == 3)]
            found.append(np.stack([owners[apart], owners[apart + step]], axis=1))
        return _once(np.concatenate(found))


def jaccard(first: np.ndarray, second: np.ndarray) -> float:
    """Of two texts' pieces, each once."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / max(1, len(first) + len(second) - shared)


def _without(
    common: Common, pieces_P: np.ndarray, phrases_P: np.ndarray, ends_E: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rare pieces, and where each text ends among them."""
    kept, ends, count = [pieces_P[:0]], np.zeros_like(ends_E), 0
    for first in range(0, len(pieces_P), _PART):
        chunk = pieces_P[first : first + _PART]
        rare = common.rare(chunk, phrases_P[first : first + _PART])
        here = np.flatnonzero((ends_E > first) & (ends_E <= first + len(chunk)))
        ends[here] = count + np.cumsum(rare)[ends_E[here] - first - 1]
        kept.append(chunk[rare])
        count += len(kept[-1])
    return np.concatenate(kept), ends


def _common(pieces: np.ndarray, most: int) -> np.ndarray:
    """Hashes that are there more than `most` times, sorted, without 0; a range at a time, to copy little."""
    parts = len(pieces) // _PART + 1
    found = []
    for part in range(parts):
        low, high = (part << 32) // parts, ((part + 1) << 32) // parts - 1
        chunks = (pieces[at : at + _PART] for at in range(0, max(1, len(pieces)), _PART))
        inside = np.concatenate([chunk[(chunk >= low) & (chunk <= high)] for chunk in chunks])
        inside.sort()
        found.append(np.unique(inside[most:][inside[most:] == inside[: len(inside) - most]]))
    every = np.concatenate(found)
    return every[every > 0]


def _among(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Which values a sorted table has."""
    if not len(table):
        return np.zeros(len(values), dtype=bool)
    places = np.searchsorted(table, values)
    places[places == len(table)] = 0
    return np.asarray(table[places] == values)


def _signatures(pieces_P: np.ndarray, ends_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the texts with enough pieces, and `[BANDS, E]` uint32: one key of each of their bands."""
    texts, columns = [np.empty(0, dtype=np.int64)], [np.empty((BANDS, 0), dtype=np.uint32)]
    factors = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F], dtype=np.uint64)
    counts_E = np.diff(ends_E, prepend=0)
    for first in range(0, len(ends_E), _CHUNK):
        counts = counts_E[first : first + _CHUNK]
        enough = counts >= FEWEST
        if not enough.any():
            continue
        begin = int(ends_E[first - 1]) if first else 0
        values = pieces_P[begin : begin + int(counts.sum())][np.repeat(enough, counts)].astype(np.uint64)
        offsets = np.concatenate([[0], np.cumsum(counts[enough])]).astype(np.uint64)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(values, offsets, BANDS * SLOTS, SEED).to_rows()
        slots = np.array(rows, dtype=np.uint64).reshape(-1, BANDS, SLOTS)
        keys = (slots * factors).sum(axis=2)
        columns.append(((keys ^ (keys >> np.uint64(31))) * factors[0] >> np.uint64(16)).astype(np.uint32).T)
        texts.append(first + np.flatnonzero(enough))
    return np.concatenate(texts), np.concatenate(columns, axis=1)


def _candidates(texts_E: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """`[K, 2]`: texts that share a band."""
    found = np.empty((0, 2), dtype=np.int64)
    for band in keys:
        order = np.argsort(band, kind="stable")
        ordered = band[order]
        pairs = [found]
        for step in range(1, NEIGHBOURS):
            same = np.flatnonzero(ordered[step:] == ordered[:-step])
            if not len(same):
                break
            pairs.append(np.stack([texts_E[order[same]], texts_E[order[same + step]]], axis=1))
        found = _once(np.concatenate(pairs))
    return found


def _similarities(pieces_P: np.ndarray, ends_E: np.ndarray, limits_E: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """`[K]`: Jaccard's similarity of each pair, of the pieces up to what both texts keep."""
    counts_E = np.diff(ends_E, prepend=0)
    results = np.zeros(len(pairs))
    for first in range(0, len(pairs), _CHUNK):
        chunk = pairs[first : first + _CHUNK]
        limit = limits_E[chunk].min(axis=1)
        marked = []
        for texts in chunk.T:
            counts = counts_E[texts]
            owners = np.repeat(np.arange(len(chunk), dtype=np.uint64), counts)
            values = pieces_P[np.arange(counts.sum()) + np.repeat(ends_E[texts] - np.cumsum(counts), counts)]
            marked.append(((owners << np.uint64(32)) | values)[values <= limit[owners]])
        both = np.concatenate(marked)
        both.sort()
        size = np.bincount((both >> np.uint64(32)).astype(np.int64), minlength=len(chunk))
        twice = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
        shared = np.bincount(twice.astype(np.int64), minlength=len(chunk))
        results[first : first + len(chunk)] = shared / np.maximum(1, size - shared)
    return results


def _crowded(ordered: np.ndarray, most: int) -> np.ndarray:
    """Which keys, of sorted ones, more than `most` have."""
    _, places, counts = np.unique(ordered, return_inverse=True, return_counts=True)
    return np.asarray(counts[places] > most)


def _once(pairs: np.ndarray) -> np.ndarray:
    """Each pair once, the earlier text first, sorted."""
    low, high = pairs.min(axis=1), pairs.max(axis=1)
    apart = low != high
    codes = np.unique((low[apart] << 32) | high[apart])
    return np.stack([codes >> 32, codes & 0xFFFFFFFF], axis=1)
