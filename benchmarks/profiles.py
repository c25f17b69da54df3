"""How long the rows of a benchmark are: as they come, or cut out of them in lengths of another kind.

Standard library alone: the driver reads the names.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import chain, cycle, islice

from benchmarks.rows import Row, trained_share

AS_THEY_ARE = "docstrings"
SIGMAS = {"narrow": 0.4, "wide": 0.8}  # of the logarithms of lengths
DENSE = "dense"
PROFILES = (AS_THEY_ARE, *SIGMAS, DENSE)
LONG_PROMPTS = "long-prompts"  # of pairs

MEAN = 300  # tokens
SHORTEST, LONGEST = 16, 2048


def lengths(profile: str, count: int, *, seed: int) -> list[int]:
    """Log-normal with a mean of `MEAN` tokens, from `SHORTEST` to `LONGEST`; all of them `LONGEST` where dense."""
    if profile == DENSE:
        return [LONGEST] * count
    sigma, drawn = SIGMAS[profile], random.Random(f"{profile} {seed}")
    middle = math.log(MEAN) - sigma**2 / 2
    return [max(SHORTEST, min(LONGEST, round(drawn.lognormvariate(middle, sigma)))) for _ in range(count)]


def cut(rows: Sequence[Row], profile: str, count: int, *, seed: int) -> list[Row]:
    """Rows of a profile's lengths, cut one after another out of these rows' text.

    As large a part of each as of the rows that it is cut from is trained, at its end. No two begin alike, other than
    by chance: there is nothing to share.
    """
    share = trained_share(rows)
    text = chain.from_iterable(row.tokens for row in cycle(rows))
    made = []
    for length in lengths(profile, count, seed=seed):
        answer = max(1, round(share * length))
        made.append(Row(tokens=tuple(islice(text, length)), mask=(0,) * (length - answer) + (1,) * answer))
    return made
