"""Preference pairs as token ids, on disk and as a fingerprint. Standard library alone: the peer reads them too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain, cycle, islice
from pathlib import Path

from benchmarks.rows import Row, fingerprint

BETWEEN = -1  # no token: where one text of a pair ends and the other begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A prompt and two answers to it; every token of an answer is a target, and none of the prompt's."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """The prompt once, and both answers."""
        return len(self.prompt_ids) + self.trained

    @property
    def written(self) -> int:
        """Both texts, each with the prompt."""
        return len(self.prompt_ids) + self.tokens

    @property
    def trained(self) -> int:
        """Tokens that are targets."""
        return len(self.chosen_ids) + len(self.rejected_ids)

    @property
    def longest(self) -> int:
        """Tokens of the longer of the two texts."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    def texts(self) -> tuple[Row, Row]:
        """The prompt with the chosen answer, and with the rejected one."""
        prompt = [0] * len(self.prompt_ids)
        chosen, rejected = (
            Row(tokens=(*self.prompt_ids, *answer), mask=(*prompt, *[1] * len(answer)))
            for answer in (self.chosen_ids, self.rejected_ids)
        )
        return chosen, rejected


def lengthened(pairs: Sequence[Pair]) -> list[Pair]:
    """The same answers, each pair's behind a prompt twice as long as one of them in the mean.

    A prompt is cut out of all answers' text, read one after another, so that no two begin alike but by chance.
    """
    text = chain.from_iterable((*pair.chosen_ids, *pair.rejected_ids) for pair in cycle(pairs))
    return [replace(pair, prompt_ids=tuple(islice(text, pair.trained))) for pair in pairs]


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write JSON lines."""
    path.write_text("\n".join(json.dumps(asdict(pair)) for pair in pairs) + "\n")


def read_pairs(path: Path) -> list[Pair]:
    """Read what `write_pairs` wrote."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    return [Pair(**{name: tuple(tokens) for name, tokens in record.items()}) for record in records]


def pairs_fingerprint(pairs: Iterable[tuple[Row, Row]]) -> str:
    """Hash of the chosen and the rejected text of each pair, with their masks; in whatever order the pairs are."""
    return fingerprint(map(_joined, pairs))


def _joined(texts: tuple[Row, Row]) -> tuple[list[int], list[int]]:
    chosen, rejected = texts
    return [*chosen.tokens, BETWEEN, *rejected.tokens], [*chosen.mask, 0, *rejected.mask]
