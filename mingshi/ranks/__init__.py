"""Several processes train as one: each takes its share of a step, and all make the same update.

Order of samples, dropout and learning rate are functions of the seed and the step, never of the process. Process 0
alone writes and speaks. Where there is one process, `Alone` stands in: its calls do nothing, and nothing is imported.
"""

from __future__ import annotations

from mingshi.ranks.alone import ALONE, Alone, Onlooker, Ranks
from mingshi.ranks.place import FIRST_WORDS, met, onlooking, place, refuse_unsuitable

__all__ = [
    "ALONE",
    "FIRST_WORDS",
    "Alone",
    "Onlooker",
    "Ranks",
    "met",
    "onlooking",
    "opened",
    "place",
    "refuse_unsuitable",
    "share",
]


def opened(device: str) -> Ranks:
    """What joins this process to the others that its environment speaks of; a context. `device` is the recipe's."""
    mine = place()
    if mine is None:
        return ALONE
    from mingshi.ranks.together import Together

    return Together(mine, device)


def share(sizes: list[int], count: int) -> list[list[int]]:
    """Places `0 … len(sizes) - 1` for each of `count` processes, so that the sums of sizes are near each other.

    Largest first, each to whoever has least (Graham 1969): at most a third over the best there is.
    """
    loads = [0] * count
    shares: list[list[int]] = [[] for _ in range(count)]
    for place_ in sorted(range(len(sizes)), key=lambda one: (-sizes[one], one)):
        least = min(range(count), key=lambda one: (loads[one], one))
        shares[least].append(place_)
        loads[least] += sizes[place_]
    return [sorted(one) for one in shares]
