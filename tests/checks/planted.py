"""Texts with a realistic distribution of words, and copies of them with known damage."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from itertools import accumulate

from mingshi.checks.rows import Row, Split

VOCABULARY = 8000
HAN = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
FULL_WIDTH = str.maketrans({chr(code): chr(code + 0xFEE0) for code in range(0x21, 0x7F)} | {".": "。", ",": ","})


class Language:
    """Sentences of words that are as frequent as their rank says (Zipf)."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)
        make = self._chinese if name == "zh" else self._english
        self.words = [make() for _ in range(VOCABULARY)]
        self.weights = list(accumulate(1 / (rank + 3) for rank in range(VOCABULARY)))
        self.space, self.stops = ("", "，。？！") if name == "zh" else (" ", ",.?!")

    def _chinese(self) -> str:
        return "".join(self.random.choice(HAN[: self.random.choice((300, 1000, 3000))]) for _ in range(self.length()))

    def length(self) -> int:
        return self.random.choice((1, 2, 2, 2, 3))

    def _english(self) -> str:
        size = self.random.choice((2, 3, 4, 5, 5, 6, 7, 8, 10))
        return "".join(self.random.choice("etaoinshrdlu" if place % 2 else "aeioutrnsbcdfg") for place in range(size))

    def text(self, letters: int) -> str:
        """About as many letters, with punctuation."""
        parts, size = [], 0
        while size < letters:
            count = self.random.randint(5, 12)
            sentence = self.space.join(self.random.choices(self.words, cum_weights=self.weights, k=count))
            parts.append(sentence + self.random.choice(self.stops))
            size += len(sentence)
        return self.space.join(parts)

    def edited(self, text: str, every: int = 25) -> str:
        """One character of every 25 replaced, left out or put in, at places of chance."""
        letters = list(text)
        for start in range(0, len(text), every):
            end = min(start + every, len(text))
            place = self.random.randrange(start, end)
            if end - start < every and self.random.random() > (end - start) / every:
                continue
            other = self.random.choice(HAN) if self.name == "zh" else self.random.choice(string.ascii_lowercase)
            letters[place] = self.random.choice((other, "", letters[place] + other))
        return "".join(letters)

    def dressed(self, text: str) -> str:
        """Of another width, case and punctuation."""
        text = text.translate(FULL_WIDTH) if self.random.random() < 0.5 else text.upper()
        return self.random.choice((f"  {text}", text.replace("，", " ; "), f"“{text}”", text + "……", f"\ufeff{text}"))

    def embedded(self, text: str) -> str:
        """In the middle of a longer text."""
        return f"{self.text(300)}{self.space}{text}{self.space}{self.text(400)}"


Damage = Callable[[str], str]


def row(text: str, line: int, split: Split = "train", *, answer: str = "", label: str | None = None) -> Row:
    return Row(
        split=split,
        source=f"{split}.jsonl",
        line=line,
        id=str(line),
        group="",
        prompt=text,
        answer=answer,
        label=label,
    )
