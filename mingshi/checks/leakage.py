"""Rows that are on both sides of a split, or several times on one: equal, nearly equal, or one inside another.

Two readings: the first keeps numbers of each row (`add`), the second (`again`, the same rows in the same order) looks
for held-out questions inside training rows, compares long texts that may be near, and keeps the texts to show. A row
is told once, under the first of `KINDS` that holds of it. Production rows are not looked at: a model may have seen
what it will meet.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
from pydantic import Field

from mingshi.checks.leakage_contained import Containment, Hit, Index, Questions
from mingshi.checks.leakage_near import SHORT, SHORTEST, Common, Pairs, Shorts, Sketches, commonplace, jaccard
from mingshi.checks.leakage_pairs import NONE, across, inside, near_across, near_inside, new
from mingshi.checks.leakage_told import SHOWN, Found, Kind, Passages, Places, Scope, findings_of
from mingshi.checks.normal import normalised
from mingshi.checks.rows import SPLITS, Row, Split
from mingshi.checks.shingles import letter_shingles, words_of
from mingshi.errors import DataError, Problem
from mingshi.types import Finding, Settings

KINDS: tuple[Kind, ...] = ("equal", "normalised", "near", "prompt", "contained", "short", "group")
BETWEEN: tuple[tuple[Split, Split], ...] = (("train", "test"), ("train", "validation"), ("validation", "test"))
WITHIN: tuple[Split, ...] = ("train", "validation", "test")
WANTED = SHOWN + 10  # pairs of each finding whose texts are kept: some may turn out not to be near
CONFIRMED = 20_000  # long texts that are compared whole; of others their similarity stays an estimate
_SIGNS = re.compile(r"(?<=\d)\s*([-./:*^%])\s*(?=\d)")  # 3.5 is not 35, nor 5 - 3 53; 1,000 is 1000


class LeakageSettings(Settings):
    """What counts as a leak."""

    near: float = Field(default=0.45, ge=0.3, le=1)
    """Share of the uncommon pieces that two texts must have in common: 0.45 is about one edit in ten characters."""
    containment: Containment = "8-grams"
    """What of a question inside a training row is a leak: half of its runs of 8 words, or any run of 13."""


@dataclass(slots=True)
class _Columns:
    """Numbers of each row."""

    splits: array[int] = field(default_factory=lambda: array("B"))
    sources: array[int] = field(default_factory=lambda: array("I"))
    lines: array[int] = field(default_factory=lambda: array("I"))
    texts: array[int] = field(default_factory=lambda: array("Q"))  # hashes, also below
    normals: array[int] = field(default_factory=lambda: array("Q"))
    prompts: array[int] = field(default_factory=lambda: array("Q"))
    groups: array[int] = field(default_factory=lambda: array("Q"))
    labels: array[int] = field(default_factory=lambda: array("Q"))


@dataclass(slots=True)
class _Second:
    """What the second reading works with, and what it gathers."""

    classes_N: np.ndarray  # of equal normalised texts
    near: Pairs  # of classes
    short: np.ndarray  # [K, 2], of classes
    common: Common  # what is left out of their pieces
    index: Index
    wanted: set[int]  # rows whose texts are to be kept
    unsure: set[int]  # classes whose pieces are to be compared whole
    whole: dict[int, np.ndarray] = field(default_factory=dict)  # those pieces
    passages: Passages = field(default_factory=Passages)
    next: int = 0  # the row that `again` is given


class Leakage:
    """Leaks between splits, and repetitions inside each."""

    def __init__(self, settings: LeakageSettings | None = None) -> None:
        self._settings = settings or LeakageSettings()
        self._columns = _Columns()
        self._names: dict[str, int] = {}  # files, numbered
        self._seen: set[int] = set()  # hashes of normalised texts
        self._sketches = Sketches()
        self._sketched = array("I")  # the row of each sketch
        self._shorts = Shorts()
        self._questions = Questions(self._settings.containment)
        self._asking = array("I")  # the row of each question
        self._asked = Counter[int]()  # how many held-out rows have a prompt
        self._second: _Second | None = None

    @property
    def needs_again(self) -> bool:
        """Are the rows to be read once more, into `again`?"""
        return len(self._columns.lines) > 0

    def add(self, row: Row) -> None:
        if row.split == "production" or not (normal := _normal(row.text)):
            return
        columns, number = self._columns, len(self._columns.lines)
        signs, question = _signs(row.text, normal), row.prompt or row.answer
        key = _hash(normal + signs)
        prompt = key if question == row.text else _question_hash(question)
        columns.splits.append(SPLITS.index(row.split))
        columns.sources.append(self._names.setdefault(row.source, len(self._names)))
        columns.lines.append(row.line)
        columns.texts.append(_hash(row.text))
        columns.normals.append(key)
        columns.prompts.append(prompt)
        columns.groups.append(_hash(row.group))
        columns.labels.append(_hash(row.label) if row.label is not None else 0)
        if key not in self._seen:
            self._seen.add(key)
            if len(normal) >= SHORT:
                self._sketches.add(normal)
                self._sketched.append(number)
            elif len(normal) >= SHORTEST:
                self._shorts.add(normal, signs, number)
        if row.split != "train":
            if not self._asked[prompt]:
                self._questions.add(words_of(question))
                self._asking.append(number)
            self._asked[prompt] += 1

    def again(self, row: Row) -> None:
        """Raises DataError where the rows are not those of the first reading."""
        if row.split == "production" or not (normal := _normal(row.text)):
            return
        second = self._prepared()
        number, columns = second.next, self._columns
        second.next += 1
        if number == len(columns.lines) or columns.texts[number] != _hash(row.text):
            what = "changed between two readings"
            raise DataError(Problem(what=what, mend="Check it again.", file=row.source, line=row.line))
        if second.classes_N[number] in second.unsure:
            pieces, phrases = letter_shingles(normal)
            second.whole[int(second.classes_N[number])] = pieces[second.common.rare(pieces, phrases)]
        if row.split == "train":
            for hit in second.index.look(number, words_of(row.text)):
                second.passages.quote(hit, self._asking[hit.question], row.text)
        if number in second.wanted or number in second.passages.questions:
            second.passages.keep(number, row.text, row.prompt or row.answer)

    def findings(self) -> list[Finding]:
        """After the second reading; after the first one alone, without what it looks for."""
        if not self.needs_again:
            return []
        second = self._prepared()
        near = _confirmed(second, self._settings.near)
        hits = second.index.hits()
        columns = self._columns
        found = [
            Found(kind, scope, pairs, _likeness(pairs[:WANTED], second.classes_N, near) if kind == "near" else [])
            for kind, scope, pairs in self._pairs(second, near, hits)
        ]
        places = Places(list(self._names), columns.sources, columns.lines, columns.splits)
        return findings_of(found, places, second.passages)

    def _prepared(self) -> _Second:
        """What the first reading found; its sketches are not needed any more."""
        if self._second is not None:
            return self._second
        classes = np.unique(np.asarray(self._columns.normals), return_inverse=True)[1]
        near, common = self._sketches.pairs(above=self._settings.near)
        near = replace(near, texts=classes[np.asarray(self._sketched, dtype=np.int64)[near.texts]])
        short = classes[self._shorts.pairs()]
        self._seen, self._sketches, self._shorts = set(), Sketches(), Shorts()
        prompts = np.asarray(self._columns.prompts)[np.asarray(self._asking, dtype=np.int64)]
        times = np.array([self._asked[int(prompt)] for prompt in prompts], dtype=np.int64)
        index = self._questions.index(times <= commonplace(self._asked.total()))
        unsure = set(near.texts[~near.known].ravel()[:CONFIRMED].tolist())
        second = self._second = _Second(classes, near, short, common, index, set(), unsure)
        for _, _, pairs in self._pairs(second, near, []):
            second.wanted.update(pairs[:WANTED].ravel().tolist())
        return second

    def _pairs(self, second: _Second, near: Pairs, hits: list[Hit]) -> Iterator[tuple[Kind, Scope, np.ndarray]]:
        """Pairs of rows by kind, of each two splits and of each split."""
        rows = {split: np.flatnonzero(np.asarray(self._columns.splits) == SPLITS.index(split)) for split in WITHIN}
        keys = {
            "equal": np.asarray(self._columns.texts),
            "normalised": np.asarray(self._columns.normals),
            "prompt": np.asarray(self._columns.prompts),
            "group": np.asarray(self._columns.groups),
        }
        labels = np.asarray(self._columns.labels)
        telling = self._telling(keys["prompt"], keys["group"])
        classes = {"near": near.texts[np.argsort(near.similarity)], "short": second.short}
        for first, other in BETWEEN:
            told = np.zeros(len(labels), dtype=bool)
            for kind in KINDS:
                if kind in classes:
                    pairs = near_across(second.classes_N, classes[kind], rows[first], rows[other])
                elif kind == "contained":
                    pairs = self._containing(hits, keys["prompt"], rows[other]) if first == "train" else NONE
                else:
                    pairs = across(keys[kind], rows[first], rows[other][telling[kind][rows[other]]])
                if len(pairs := new(pairs, told, inside=False)):
                    yield kind, (first, other), pairs
        for split in WITHIN:
            told = np.zeros(len(labels), dtype=bool)
            for kind in ("equal", "normalised", "near", "short"):
                if kind in classes:
                    pairs = near_inside(second.classes_N, labels, classes[kind], rows[split])
                else:
                    pairs = inside(keys[kind] ^ labels, rows[split])
                if len(pairs := new(pairs, told, inside=True)):
                    yield kind, (split, split), pairs

    def _telling(self, prompts: np.ndarray, groups: np.ndarray) -> dict[Kind, np.ndarray]:
        """Rows that a shared key says something about, bool by kind. A prompt of many held-out rows is a template; a
        group of one prompt is that prompt's."""
        most = commonplace(self._asked.total())
        templates = np.array([key for key, times in self._asked.items() if times > most], dtype=np.uint64)
        _, one_of_each = np.unique(groups ^ (prompts * np.uint64(3)), return_index=True)
        named, prompts_of = np.unique(groups[one_of_each], return_counts=True)
        everything = np.ones(len(prompts), dtype=bool)
        return {
            "equal": everything,
            "normalised": everything,
            "prompt": ~np.isin(prompts, templates),
            "group": np.isin(groups, named[prompts_of > 1]) & (groups != 0),
        }

    def _containing(self, hits: list[Hit], prompts: np.ndarray, held: np.ndarray) -> np.ndarray:
        """`[K, 2]`: each training row with the held-out row whose question it has most of, and the other way round."""
        first = {int(prompts[row]): int(row) for row in held[::-1]}
        asked, asking = {}, {}
        for hit in sorted(hits, key=lambda hit: hit.share):
            key = int(prompts[self._asking[hit.question]])
            if key in first:
                asked[hit.row], asking[key] = first[key], hit.row
        back = [(asking[int(prompts[row])], int(row)) for row in held if int(prompts[row]) in asking]
        return np.unique([*asked.items(), *back], axis=0) if asked else NONE


def _confirmed(second: _Second, above: float) -> Pairs:
    """Pairs that are near, those of long texts by all of their pieces where both are at hand."""
    near, whole = second.near, second.whole
    similarity = near.similarity.copy()
    for place in np.flatnonzero(~near.known):
        first, other = (whole.get(int(each)) for each in near.texts[place])
        if first is not None and other is not None:
            similarity[place] = jaccard(first, other)
    kept = similarity >= above
    return Pairs(near.texts[kept], similarity[kept], near.known[kept])


def _likeness(pairs_K2: np.ndarray, classes_N: np.ndarray, near: Pairs) -> list[float]:
    """The similarity of each pair of rows."""
    found = []
    for pair in classes_N[pairs_K2]:
        same = (near.texts == pair).all(axis=1) | (near.texts == pair[::-1]).all(axis=1)
        found.append(float(near.similarity[same].max(initial=0)))
    return found


def _normal(text: str) -> str:
    """Of a text of punctuation alone, that."""
    return normalised(text) or text.strip()


def _signs(text: str, normal: str) -> str:
    """What the numbers of a text have in them that normalisation drops."""
    if not any(map(str.isdigit, normal)):
        return ""
    return "".join(_SIGNS.findall(unicodedata.normalize("NFKC", text)))


def _question_hash(text: str) -> int:
    normal = _normal(text)
    return _hash(normal + _signs(text, normal))


def _hash(text: str) -> int:
    if not text:
        return 0
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())
