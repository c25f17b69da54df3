"""Texts drawn from topics, in words or in Chinese characters."""

from __future__ import annotations

import numpy as np

WORDS = 2000
TOPICS = 6


def vocabulary(chinese: bool) -> list[str]:
    if chinese:
        return [chr(0x4E00 + 7 * place % 3000) + chr(0x5E00 + 11 * place % 3000) for place in range(WORDS)]
    return [f"w{place}" for place in range(WORDS)]


def topics() -> np.ndarray:
    """Shares of words `[TOPICS, WORDS]`: what all share, Zipf's law, and 60 words that each topic likes."""
    generator = np.random.default_rng(7)
    common = 1 / (np.arange(WORDS) + 5.0)
    common /= common.sum()
    found = []
    for _ in range(TOPICS):
        own = np.zeros(WORDS)
        own[generator.choice(np.arange(100, WORDS), 60, replace=False)] = 1 / 60
        found.append(0.7 * common + 0.3 * own)
    return np.array(found)


def texts(count: int, generator: np.random.Generator, *, new: float = 0.0, chinese: bool = False) -> list[str]:
    """`new` is the share of texts of the last topic, which else is not there."""
    words, shares = vocabulary(chinese), topics()
    found = []
    for _ in range(count):
        topic = TOPICS - 1 if generator.random() < new else int(generator.integers(TOPICS - 1))
        drawn = generator.choice(WORDS, int(generator.integers(10, 50)), p=shares[topic])
        found.append(("" if chinese else " ").join(words[word] for word in drawn))
    return found
