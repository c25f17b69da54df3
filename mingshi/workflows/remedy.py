"""`mingshi balance` and `mingshi augment`: new files with classes that are even, or labels that no group has more of.

The file itself is never changed. Beside the new one lies `<name>.lineage.json`: what it was made of, and how. A new row
says in `made_from` which line it comes from and has that line's `group`, so that a split does not part them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from mingshi.checks.balance import are_numbers
from mingshi.checks.bias_swaps import our_swaps, read_swaps
from mingshi.data.formats.labelled import ROW_WEIGHT
from mingshi.display import Display, Silent
from mingshi.errors import DataError, Problem, RecipeError
from mingshi.provenance import fingerprint_file
from mingshi.remedies import edits
from mingshi.remedies.augment import Made, Method, augmented, counterfactual, edited, wanted_rows
from mingshi.remedies.lexicon import read_lexicon
from mingshi.remedies.repeats import without_repeats
from mingshi.remedies.rewording import back_translation, paraphrase
from mingshi.remedies.weights import Cell, Goal, Way, cell_of, resampled, reweighed
from mingshi.types import Labelled, Settings
from mingshi.workflows.remedy_model import asking
from mingshi.workflows.remedy_rows import (
    Fields,
    Rows,
    classes_told,
    made_row,
    output_problems,
    read_labelled_rows,
    texts_of,
)
from mingshi.workflows.rows_written import lineage_of, write_rows

METHODS = (
    "swap",
    "delete",
    "insert",
    "synonym",
    "punctuate",
    "counterfactual",
    "paraphrase",
    "back_translation",
)
OF_LEXICON = ("insert", "synonym")
OF_MODEL = ("paraphrase", "back_translation")


class Balancing(Settings):
    """How often each row is to come."""

    how: Literal["over", "under", "sample", "weights", "once"]
    """Repeat rows; drop rows; both, so that each cell comes as often as its weight says; write the weights into the
    rows, for `classify`; or drop repeated texts."""
    until: Literal["even", "independent"] | float | None = None
    """Classes of one size, labels independent of groups, or the smallest class as a share of the largest."""
    protected: str | None = None
    """The attribute whose groups are to have labels alike."""
    text: str = "text"
    label: str = "label"
    cap: float | None = Field(default=None, ge=1)
    """How often a row may come; of a cell, one row in so many stays."""
    seed: int = Field(default=0, ge=0)


class Augmenting(Settings):
    """What new rows are made, and out of what."""

    methods: tuple[str, ...]
    until: Literal["even"] | float | None = None
    """Until classes are of one size, or the smallest is this share of the largest."""
    each: int = Field(default=0, ge=0)
    """So many new rows of every row, instead."""
    protected: str | None = None
    """With `until`: groups and labels together are to be even. A counterfactual does not keep this field."""
    lexicon: str | None = None
    """A file of synonyms."""
    pairs: str | None = None
    """A file of pairs to be swapped, besides our own pronouns."""
    model: str | None = None
    """The language model that says texts in other words."""
    held_out: tuple[str, ...] = ()
    """Files whose texts no new row may have."""
    text: str = "text"
    label: str = "label"
    strength: float = Field(default=edits.STRENGTH, gt=0, le=1)
    """The share of a text's words that change."""
    seed: int = Field(default=0, ge=0)


def balance(path: Path, output: Path, wanted: Balancing, *, display: Display | None = None) -> dict[str, Any]:
    """Write rows of `path` as often as they are to come; what was done is returned, as the lineage has it.

    Raises RecipeError for settings that contradict each other, DataError for rows that do not fit.
    """
    display = display or Silent()
    _refuse([*output_problems(output, path), *_balancing_problems(wanted)])
    source = fingerprint_file(path)
    rows = read_labelled_rows(path, Fields(text=wanted.text, label=wanted.label, protected=wanted.protected), display)
    weights: Mapping[Cell, float] = {}
    if wanted.how == "once":
        made, done = _once(rows)
    elif wanted.how == "weights":
        _require_classes(path, rows, "--how once")
        made, weights, done = _weighed(path, rows, wanted)
    else:
        _require_classes(path, rows, "--how once")
        made, done = _resampled(rows, wanted)
    before = Counter(cell_of(one, wanted.protected) for one in rows.examples)
    after = Counter(cell_of(one, wanted.protected) for one in made)
    times = Counter(one.line for one in made)
    lines = {
        "dropped": [one.line for one in rows.examples if not times[one.line]],
        "copies": {line: count - 1 for line, count in times.items() if count > 1},
        "unreadable": rows.unreadable,
    }

    def lineage(written: int) -> dict[str, Any]:
        return {
            "source": source,
            "settings": wanted.model_dump(),
            "rows": {"read": len(rows.examples) + len(rows.unreadable), "written": written},
            "classes": classes_told(before, after, grouped=wanted.protected is not None),
            **done,
            "lines": lines,
        }

    written = _copies(rows, made, weights, wanted.protected)
    told = write_rows(output, display.track(written, len(made), "write"), lineage)
    return {**told, "output": str(output), "lineage": str(lineage_of(output))}


def augment(path: Path, output: Path, wanted: Augmenting, *, display: Display | None = None) -> dict[str, Any]:
    """Write the rows of `path`, each followed by new ones made of it; what was done is returned.

    Raises RecipeError for settings that contradict each other, DataError for files that do not fit, ModelError for a
    model that is not there or writes nothing.
    """
    display = display or Silent()
    _refuse([*output_problems(output, path), *_augmenting_problems(wanted)])
    source = fingerprint_file(path)
    methods = _methods(wanted, display)
    rows = read_labelled_rows(path, Fields(text=wanted.text, label=wanted.label, protected=wanted.protected), display)
    if wanted.until is not None:
        _require_classes(path, rows, "--each")
    until = 1.0 if wanted.until == "even" else wanted.until
    made, record = augmented(
        rows.examples,
        methods,
        wanted_rows(rows.examples, wanted.protected, until=until, each=wanted.each),
        attribute=wanted.protected,
        most=None if until is not None else wanted.each,
        held_out=tuple(texts_of([Path(each) for each in wanted.held_out], wanted.text)),
        seed=wanted.seed,
        display=display,
    )
    if not made:
        why = ", ".join(f"{count} {name}" for name, count in record.dropped.items())
        raise DataError(Problem(file=str(path), what=f"nothing new could be made ({why or 'classes are even'})"))

    def lineage(written: int) -> dict[str, Any]:
        return {
            "source": source,
            "settings": wanted.model_dump(),
            "files": [fingerprint_file(Path(each)) for each in _files(wanted)],
            "rows": {
                "read": len(rows.examples) + len(rows.unreadable),
                "made": len(made),
                "written": written,
            },
            "classes": classes_told(record.before, record.after, grouped=wanted.protected is not None),
            "made": dict(record.made),
            "dropped": dict(record.dropped),
            "lacking": sum(record.lacking.values()),
            "lines": {"unreadable": rows.unreadable},
        }

    written = _with_new_rows(rows, made, wanted, methods)
    total = len(rows.examples) + len(made)
    told = write_rows(output, display.track(written, total, "write"), lineage)
    return {**told, "output": str(output), "lineage": str(lineage_of(output))}


# Balance


def _once(rows: Rows) -> tuple[list[Labelled], dict[str, Any]]:
    kept, once = without_repeats(rows.examples)
    gone = {rows.examples[place].line: kind for place, kind in once.gone.items()}
    return kept, {"repeats": dict(Counter(gone.values())), "repeated": gone}


def _weighed(path: Path, rows: Rows, wanted: Balancing) -> tuple[list[Labelled], Mapping[Cell, float], dict[str, Any]]:
    """Every row once, the weight of each cell, and how it was found; DataError where rows have weights already."""
    assert wanted.protected is not None
    heavy = next((one for one in rows.examples if one.weight != 1), None)
    if heavy is not None:
        what, mend = "has a weight already", "Weigh the file that it was made of, or leave the field out."
        raise DataError(Problem(file=str(path), line=heavy.line, field=ROW_WEIGHT, what=what, mend=mend))
    _, weighed = reweighed(rows.examples, wanted.protected)
    told = [{"group": group, "label": label, "weight": weight} for (group, label), weight in weighed.weights.items()]
    return rows.examples, weighed.weights, {"weights": told, "effective": weighed.effective}


def _resampled(rows: Rows, wanted: Balancing) -> tuple[list[Labelled], dict[str, Any]]:
    """Rows as often as they are to come, and which cells the cap held back."""
    usual: Goal = "equal" if wanted.protected is None else "independent"
    goal: Goal = usual if wanted.until is None else "equal" if wanted.until == "even" else wanted.until
    way: Way = "both" if wanted.how == "sample" else "over" if wanted.how == "over" else "under"
    made, record = resampled(
        rows.examples, wanted.protected, way=way, towards=goal, cap=wanted.cap or float("inf"), seed=wanted.seed
    )
    return made, {"capped": [{"group": group, "label": label} for group, label in record.capped]}


def _copies(
    rows: Rows, made: Sequence[Labelled], weights: Mapping[Cell, float], protected: str | None
) -> Iterator[Mapping[str, Any]]:
    """Each row as its file has it, with its weight where there are any; a copy says that it is one."""
    fields = {one.line: of_it for one, of_it in zip(rows.examples, rows.fields, strict=True)}
    seen = set[int]()
    for example in made:
        if example.line in seen:
            yield made_row(fields[example.line], example, line=example.line, by="copy")
        elif weights:
            yield {**fields[example.line], ROW_WEIGHT: weights[cell_of(example, protected)]}
        else:
            yield fields[example.line]
        seen.add(example.line)


# Augmentation


def _methods(wanted: Augmenting, display: Display) -> dict[str, Method]:
    """The methods asked for, each with the file or model that it needs."""
    lexicon = read_lexicon(Path(wanted.lexicon)) if wanted.lexicon else {}
    ask = asking(wanted.model, display) if wanted.model else None
    strength = wanted.strength
    found: dict[str, Method] = {}
    for name in dict.fromkeys(wanted.methods):
        match name:
            case "swap":
                found[name] = edited(partial(edits.swap, strength=strength))
            case "delete":
                found[name] = edited(partial(edits.delete, strength=strength))
            case "insert":
                found[name] = edited(partial(edits.insert, lexicon=lexicon, strength=strength))
            case "synonym":
                found[name] = edited(partial(edits.synonym, lexicon=lexicon, strength=strength))
            case "punctuate":
                found[name] = edited(edits.punctuate)
            case "counterfactual":
                found[name] = counterfactual(read_swaps(Path(wanted.pairs), ours=True) if wanted.pairs else our_swaps())
            case _:
                assert ask is not None
                found[name] = paraphrase(ask) if name == "paraphrase" else back_translation(ask)
    return found


def _with_new_rows(
    rows: Rows, made: Sequence[Made], wanted: Augmenting, methods: Mapping[str, Method]
) -> Iterator[Mapping[str, Any]]:
    """Each row, and behind it those that were made of it."""
    new: dict[int, list[Made]] = {}
    for one in made:
        new.setdefault(one.origin, []).append(one)
    for place, (example, fields) in enumerate(zip(rows.examples, rows.fields, strict=True)):
        yield fields
        for one in new.get(place, ()):
            kept = fields
            if methods[one.method].of_people:
                kept = {name: value for name, value in fields.items() if name not in ("attributes", wanted.protected)}
            changes = {wanted.text: one.example.content}
            yield made_row(kept, one.example, line=example.line, by=one.method, changes=changes)


def _files(wanted: Augmenting) -> list[str]:
    return [each for each in (wanted.lexicon, wanted.pairs, *wanted.held_out) if each]


# What cannot be done


def _refuse(problems: Sequence[Problem]) -> None:
    if problems:
        raise RecipeError(problems)


def _require_classes(path: Path, rows: Rows, instead: str) -> None:
    if are_numbers({str(one.label) for one in rows.examples}):
        what, mend = "the labels are numbers: there are no classes to be made even", f"Use {instead}."
        raise DataError(Problem(file=str(path), what=what, mend=mend))


def _balancing_problems(wanted: Balancing) -> Iterator[Problem]:
    if wanted.how in ("weights", "sample") and wanted.protected is None:
        mend = "Say of whose groups: --protected gender. For classes alone: --how over or under."
        what = "weights make labels independent of groups, and there are none"
        yield Problem(field=f"--how {wanted.how}", what=what, mend=mend)
    if wanted.how == "weights" and wanted.cap is not None:
        yield Problem(field="--cap", what="of weights there is none", mend="Leave it out, or use --how sample.")
    if wanted.how in ("weights", "sample", "once") and wanted.until is not None:
        yield Problem(field="--until", what=f"--how {wanted.how} knows by itself when to stop", mend="Leave it out.")
    elif wanted.until == "independent" and wanted.protected is None:
        what, mend = "labels are independent of groups, and there are none", "Say whose: --protected gender."
        yield Problem(field="--until independent", what=what, mend=mend)
    elif isinstance(wanted.until, float) and not 0 < wanted.until <= 1:
        yield Problem(
            field=f"--until {wanted.until:g}", what="is no share of the largest class", mend="Give 0.01 to 1."
        )


def _augmenting_problems(wanted: Augmenting) -> Iterator[Problem]:
    unknown = [name for name in wanted.methods if name not in METHODS]
    if unknown or not wanted.methods:
        yield Problem(
            field="--methods",
            what=f"no method {', '.join(unknown) or 'is named'}",
            mend=f"There are {', '.join(METHODS)}.",
        )
    if (wanted.until is None) == (wanted.each == 0):
        what = "say how many rows, in one way"
        yield Problem(what=what, mend="--until even, --until 0.5 (of the largest class), or --each 1 (of every row).")
    if isinstance(wanted.until, float) and not 0 < wanted.until <= 1:
        yield Problem(
            field=f"--until {wanted.until:g}", what="is no share of the largest class", mend="Give 0.01 to 1."
        )
    for given, option, needing, mend in (
        (wanted.lexicon, "--lexicon", OF_LEXICON, "Give a file of lines word<TAB>synonym; none comes with Mingshi."),
        (wanted.model, "--model", OF_MODEL, "Name the language model that is to write."),
    ):
        users = [name for name in wanted.methods if name in needing]
        if users and not given:
            yield Problem(field=option, what=f"{' and '.join(users)} cannot do without it", mend=mend)
        elif given and not users:
            yield Problem(field=option, what="no method uses it", mend=f"Add {' or '.join(needing)}, or leave it out.")
    if wanted.pairs and "counterfactual" not in wanted.methods:
        yield Problem(field="--pairs", what="no method uses it", mend="Add counterfactual, or leave it out.")
    if "counterfactual" in wanted.methods and wanted.protected is not None and wanted.until is not None:
        what, mend = "a counterfactual is of another group than its row: no group can be filled", "Use --each 1."
        yield Problem(field="--protected", what=what, mend=mend)
