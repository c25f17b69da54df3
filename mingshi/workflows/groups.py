"""How a trained classifier serves the groups that rows speak of, and whether it answers for whom a text speaks of.

Two looks at one model: outcomes of each group on rows with labels, and the same texts with he and she (or a user's own
pairs, such as names) changed for one another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mingshi.checks.bias import FEWEST, MOST_GROUPS
from mingshi.checks.bias_mentions import NAME as MENTIONS
from mingshi.checks.bias_mentions import group_of
from mingshi.checks.bias_outcomes import Outcomes, gaps, outcomes
from mingshi.checks.bias_probes import counterfactuals, probed
from mingshi.checks.bias_swaps import Swaps, our_swaps, read_swaps
from mingshi.data.formats import DataSource, read
from mingshi.display import Display, Silent
from mingshi.errors import DataError, Problem, RecipeError
from mingshi.evaluate import as_json, told
from mingshi.model.load import Model
from mingshi.types import Labelled, Score, Settings
from mingshi.use import classified

RATES = ("selection", "true_positive", "false_positive", "false_negative")


class Grouping(Settings):
    """What groups are compared by."""

    protected: tuple[str, ...]
    """Attributes of the rows; `mentions` is whom a text speaks of."""
    positive: str | None = None
    """The class that is the good outcome; where none is named, of two classes the second, of more each in turn."""
    pairs: str | None = None
    """A file of words to be swapped, besides our own pronouns."""
    seed: int = 0


def groups(model: Model, source: DataSource, wanted: Grouping, *, display: Display | None = None) -> dict[str, Any]:
    """Outcomes of each group with intervals, the gaps between groups as fairlearn defines them, and a swap's effect.

    Groups of fewer than ten rows are shown and not compared. Raises RecipeError for a model that does not choose one
    class of several, or a class that it does not have; DataError for rows without the attribute.
    """
    display = display or Silent()
    positives = _positives(model, wanted)
    swaps = read_swaps(Path(wanted.pairs), ours=True) if wanted.pairs else our_swaps()
    names = tuple(name for name in wanted.protected if name != MENTIONS)
    source = source.model_copy(update={"attributes": tuple(dict.fromkeys((*source.attributes, *names)))})
    rows = [row for row in read(source) if isinstance(row, Labelled) and isinstance(row.label, str)]
    _require(rows, names, source.path)
    answers = list(classified(model, rows, display))
    said = [str(answer["prediction"]) for answer in answers]
    truth = [str(row.label) for row in rows]
    compared = {}
    for name in wanted.protected:
        whose = [group_of(row.attributes, row.content, name) for row in rows]
        if len(set(whose)) > MOST_GROUPS:
            what = f"has {len(set(whose))} groups: too many to compare"
            raise DataError(Problem(file=source.path, field=name, what=what, mend=f"Make at most {MOST_GROUPS}."))
        compared[name] = _compared(truth, said, whose, positives, wanted.seed)
    shares = [dict(answer["probabilities"]) for answer in answers]
    return {
        "rows": len(rows),
        "positive": list(positives),
        "attributes": compared,
        "swaps": _swapped(model, rows, shares, swaps, display),
    }


def _positives(model: Model, wanted: Grouping) -> tuple[str, ...]:
    if model.classes is None or model.classes.problem != "single_label":
        what = f"{model.name} does not choose one class of several: groups cannot be compared"
        raise RecipeError(what, "Leave --protected out, or give it such a classifier.")
    names = model.classes.names
    if wanted.positive is not None and wanted.positive not in names:
        raise RecipeError(f"--positive {wanted.positive}: no class of {model.name}", f"It has {', '.join(names)}.")
    if wanted.positive is not None:
        return (wanted.positive,)
    return names[1:] if len(names) == 2 else names


def _require(rows: Sequence[Labelled], names: Sequence[str], path: str) -> None:
    if not rows:
        what, mend = "no row is a text with a class", "Give rows with `text` and `label`."
        raise DataError(Problem(file=path, what=what, mend=mend))
    missing = [name for name in names if not any(name in row.attributes for row in rows)]
    if missing:
        mend = "Name a field that the rows have, or one of their `attributes`."
        raise DataError([Problem(file=path, field=name, what="is in no row", mend=mend) for name in missing])


def _compared(
    truth: Sequence[str], said: Sequence[str], whose: Sequence[str], positives: Sequence[str], seed: int
) -> dict[str, Any]:
    """By group its rows, accuracy and rates of each positive class; the gaps; and the groups that are too small."""
    sizes = Counter(whose)
    small = {group: size for group, size in sorted(sizes.items()) if size < FEWEST}
    places = [place for place, group in enumerate(whose) if group not in small]
    kept = [[column[place] for place in places] for column in (truth, said, whose)]
    each = {positive: outcomes(truth, said, whose, positive=positive) for positive in positives}
    first = each[positives[0]]
    return {
        "groups": {
            group: {
                "rows": sizes[group],
                "accuracy": as_json(first[group].accuracy),
                "outcomes": {positive: _rates(found[group]) for positive, found in each.items()},
            }
            for group in first
        },
        "gaps": {
            positive: {name: as_json(score) for name, score in gaps(*kept, positive=positive, seed=seed).items()}
            for positive in (positives if len(sizes) - len(small) > 1 else ())
        },
        "not_compared": small,
    }


def _rates(found: Outcomes) -> dict[str, Any]:
    scores = (found.selection, found.true_positive, found.false_positive, found.false_negative)
    return {name: as_json(score) for name, score in zip(RATES, scores, strict=True)}


def _swapped(
    model: Model, rows: Sequence[Labelled], shares: Sequence[Mapping[str, float]], swaps: Swaps, display: Display
) -> dict[str, Any]:
    """The texts that have a counterfactual, asked about again in it."""
    others = counterfactuals([row.content for row in rows], swaps)
    asked = [replace(rows[other.place], content=other.text) for other in others]
    after = [dict(answer["probabilities"]) for answer in classified(model, asked, display)] if asked else []
    probe = probed(others, [shares[other.place] for other in others], after, texts=len(rows))
    return {
        "texts": probe.texts,
        "changed": as_json(probe.changed),
        "shifts": {name: as_json(score) for name, score in probe.shifts.items()},
    }


def described(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a person."""
    for name, compared in found["attributes"].items():
        for group, one in compared["groups"].items():
            yield f"{name} {group}  accuracy  {_told(one['accuracy'])}"
            for positive, rates in one["outcomes"].items():
                yield from (f"{name} {group}  {rate} of {positive}  {_told(rates[rate])}" for rate in RATES)
        for positive, scores in compared["gaps"].items():
            yield from (f"{name}  {gap} of {positive}  {_told(score)}" for gap, score in scores.items())
        for group, size in compared["not_compared"].items():
            yield f"{name} {group}: {size} rows, too few to be compared"
    swaps = found["swaps"]
    if not swaps["changed"]["count"]:
        yield "swaps: no text holds a word of a pair"
        return
    yield f"swaps  another class when he is she  {_told(swaps['changed'])}"
    for label, score in swaps["shifts"].items():
        if score["count"]:
            yield f"swaps  probability of {label}, of her less of him  {_told(score)}"


def _told(score: Mapping[str, Any]) -> str:
    return told(Score(**score))
