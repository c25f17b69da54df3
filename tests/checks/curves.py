"""Losses of made-up stages: curves with the unrest of an optimiser, and items that differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mingshi.checks.fit import Losses

Curve = Callable[[np.ndarray], np.ndarray]  # progress from 0 to 1 -> loss in nats per token

START = 2.6


def decay(to: float, rate: float, *, start: float = START) -> Curve:
    return lambda progress: to + (start - to) * np.exp(-rate * progress)


def turning(at: float, rise: float, fall: Curve) -> Curve:
    """Falls like `fall` up to a share of the steps, then rises by so many nats until the end."""

    def curve(progress: np.ndarray) -> np.ndarray:
        after = np.clip((progress - at) / (1 - at), 0, 1)
        return fall(np.minimum(progress, at)) + rise * after**1.5

    return curve


def losses(
    curve: Curve,
    *,
    seed: int,
    rows: int = 0,
    items: int = 60,
    points: int = 11,
    unrest: float = 0.003,
    spread: float = 0.6,
) -> list[Losses]:
    """Measurements of one set at evenly spaced steps, the first before the first of 500.

    An item has its own level, its own share in every change, and noise of its own at each step. The optimiser's
    unrest, a share of the loss, is common to all items of a step, and to all sets of rows of one stage (`seed`).
    """
    chance = np.random.default_rng([seed, rows])
    progress = np.linspace(0, 1, points)
    course = curve(progress)
    tokens = chance.integers(10, 120, items).astype(float)
    level = chance.lognormal(0, 0.35, items)
    level *= tokens.sum() / (tokens * level).sum()
    share = chance.normal(1, spread, items)
    jitter = np.concatenate([[0.0], np.random.default_rng(seed).normal(0, unrest, points - 1)])
    made = []
    for place, at in enumerate(progress):
        change = course[place] * (1 + jitter[place]) - course[0]
        means = level * course[0] + share * change + chance.normal(0, 0.02, items)
        made.append(Losses(step=round(500 * at), sums=(means * tokens).tolist(), weights=tokens.tolist()))
    return made
