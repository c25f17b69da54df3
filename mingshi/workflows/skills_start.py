"""Which expert a mixture starts from: the one that does best on all skills' validation rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mingshi.directions import is_better_higher

Scores = Mapping[str, Mapping[str, float]]  # expert -> skill -> value on validation rows


def chosen(scores: Scores, named: Mapping[str, str]) -> dict[str, Any]:
    """The best expert, by what it was chosen, and the skill that it is furthest ahead of the others in.

    Shares (all values between 0 and 1, higher is better) are averaged over skills. Other metrics have no common unit:
    experts are then ranked in each skill, and the mean rank counts, the lowest being the best. Of equals the first is
    taken.
    """
    names, skills = list(scores), list(named)
    values_ES = np.array([[scores[name].get(skill, np.nan) for skill in skills] for name in names])
    better_S = np.array(
        [-1.0 if is_better_higher(named[skill].rpartition(".")[2]) is False else 1.0 for skill in skills]
    )
    shares = bool((better_S > 0).all() and (values_ES >= 0).all() and (values_ES <= 1).all())
    signed_ES = np.where(np.isnan(values_ES), -np.inf, values_ES * better_S)
    ranks_ES = np.array(
        [[(signed_ES[:, s] > signed_ES[e, s]).sum() + 1 for s in range(len(skills))] for e in range(len(names))]
    )
    means_E = values_ES.mean(axis=1) if shares else -ranks_ES.mean(axis=1)
    best = int(np.argmax(means_E))
    others_ES = np.delete(values_ES, best, axis=0)
    ahead_S = (values_ES[best] - others_ES.mean(axis=0)) * better_S
    return {
        "chosen": names[best],
        "by": "mean" if shares else "rank",
        "means": {name: float(abs(mean)) for name, mean in zip(names, means_E, strict=True)},
        "favours": skills[int(np.nanargmax(ahead_S))] if np.isfinite(ahead_S).any() else names[best],
        "ahead": {skill: float(lead) for skill, lead in zip(skills, ahead_S, strict=True)},
        "scores": {name: dict(found) for name, found in scores.items()},
    }
