"""A user's own words that mean the same: one on each line, its synonyms after it, tabs between them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mingshi.checks.tabbed import tabbed_lines

Lexicon = Mapping[str, tuple[str, ...]]  # by the word in lower case


def read_lexicon(path: Path) -> Lexicon:
    """Lines of `word<TAB>synonym<TAB>synonym…`. Raises DataError where the file holds others, or none.

    Read in one direction: a line for `film` says nothing of `movie`. A word that comes again adds to its synonyms.
    """
    found: dict[str, dict[str, None]] = {}
    lines = tabbed_lines(
        path,
        fits=lambda cells: len(cells) > 1 and len(cells[0].split()) == 1 and cells[0] not in cells[1:],
        what="one word with other words for it, tabs between them",
        example="word<TAB>synonym",
    )
    for word, *synonyms in lines:
        found.setdefault(word.lower(), {}).update(dict.fromkeys(synonyms))
    return {word: tuple(synonyms) for word, synonyms in found.items()}
