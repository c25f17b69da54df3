"""Several sources in one epoch, by weight: index arithmetic, no rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mingshi.errors import RecipeError

_GOLDEN = 0x9E3779B97F4A7C15


def mix(sizes: Sequence[int], weights: Sequence[float], *, seed: int, epoch: int) -> np.ndarray:
    """The rows of one epoch, `[rows] int64`: row `r` of source `s` is `sum(sizes[:s]) + r`.

    A source of weight `w` gives every row `floor(w)` times, and `round(size (w - floor(w)))` rows once more. Those are
    the next ones of an order that depends on the seed alone: within an epoch none comes twice, and `1 / w` epochs of a
    weight below one show them all. The sources are interleaved evenly (a rehearsal source is not the epoch's tail).
    The number of rows is the same in every epoch. Raises RecipeError for a weight that is negative or not finite, and
    where no row is left.
    """
    if len(sizes) != len(weights):
        raise RecipeError(f"{len(weights)} weights for {len(sizes)} sources", "Give each source one weight.")
    for weight in weights:
        if not (math.isfinite(weight) and weight >= 0):
            raise RecipeError(f"a source cannot weigh {weight}", "Give a weight of 0 or more.")
    starts = np.cumsum([0, *sizes[:-1]])
    parts = [
        start + _drawn(size, weight, seed=seed, source=source, epoch=epoch)
        for source, (start, size, weight) in enumerate(zip(starts, sizes, weights, strict=True))
    ]
    rows = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if not len(rows):
        raise RecipeError("no row is left to train on", "Give a source with rows a weight above 0.")
    places = np.concatenate([(np.arange(len(part)) + 0.5) / max(1, len(part)) for part in parts])
    interleaved: np.ndarray = rows[np.argsort(places, kind="stable")]
    return interleaved


def _drawn(size: int, weight: float, *, seed: int, source: int, epoch: int) -> np.ndarray:
    times = math.floor(weight)
    extra = round(size * (weight - times))
    every = np.tile(np.arange(size, dtype=np.int64), times)
    if not extra:
        return every
    order = np.argsort(_hashes(size, seed=seed, source=source), kind="stable")
    window = (np.arange(extra) + epoch * extra) % size
    return np.concatenate([every, np.sort(order[window]).astype(np.int64)])


def _hashes(size: int, *, seed: int, source: int) -> np.ndarray:
    """splitmix64 of each row: the same on every machine and in every version of numpy."""
    start = (seed * 0xD1B54A32D192ED03 + source * 0x8CB92BA72F3D8DD7) % 2**64
    state = np.uint64(start) + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
