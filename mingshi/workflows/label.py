"""`mingshi label`: a few labels, many texts, and how many of them can be labelled at a known error.

train on the seeds → say what is sure → train a student anew on seeds and sure rows → … → keep the best round → certify
on rows that chose nothing → labels that are sure enough, and a list of the others for a person.

Each round is a process and a folder of its own (compare_child.py). What was trained and predicted is kept, so all goes
on where it stopped. One half of the gold rows fits the temperature, chooses the round and ends the rounds; the other
half is looked at once, at the end: a bound from rows that had chosen would be too good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from scipy.special import softmax

from mingshi.display import Display, Silent
from mingshi.errors import Preempted, Problem, RecipeError
from mingshi.evals.calibration import Temperature, fit_temperature
from mingshi.evals.certificate import certify, ladder
from mingshi.evals.statistics import clopper_pearson
from mingshi.provenance import resume_conflicts
from mingshi.recipe import Recipe
from mingshi.report.label import write_label
from mingshi.signals import Asked, Stop
from mingshi.types import Example
from mingshi.use import classified, open_model, trained_model
from mingshi.workflows import label_rules as rules
from mingshi.workflows.compare_child import trained
from mingshi.workflows.label_file import Labelling, Rows, content, counts_of, plan_of, read_rows
from mingshi.workflows.label_head import Encoded, Solved, encoded
from mingshi.workflows.skills_measure import write

RESULT, PLAN = "label.json", "plan.json"
LABELS, QUEUE = "labelled.jsonl", "to_label.jsonl"
PREDICTED = "probabilities.npy"
LEAST_SHARE = 1e-12  # of a class: its logarithm is finite
Reason = rules.Reason


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Round:
    """One model and what it says, its probabilities divided by its temperature."""

    number: int  # 0: the seeds alone
    trained_on: int  # rows besides the seeds
    by_class: Mapping[str, int]  # of those
    thresholds: Sequence[float]  # by class; what they were taken by
    temperature: Temperature
    unlabelled_NC: np.ndarray
    choosing: rules.Known
    certifying: rules.Known
    changed: float | None = None  # share of the unlabelled rows whose class is not that of the round before


@dataclass(slots=True, kw_only=True)
class Work:
    """What is being done, and what has been."""

    told: Labelling
    rows: Rows
    choosing: np.ndarray  # [gold] bool
    display: Display
    stop: Asked
    encoded: Encoded | None = None  # where a student is a head
    heads: list[Solved] = field(default_factory=list)  # of every round
    rounds: list[Round] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return Path(self.told.output)

    @property
    def best(self) -> Round:
        """The most often right on the choosing half; of equals the latest, which has seen more."""
        return max(self.rounds, key=lambda one: (one.choosing.accuracy, one.number))


def label(
    told: Labelling, *, resume: bool = False, display: Display | None = None, language: str = "en"
) -> dict[str, Any]:
    """Self-train, certify and label; what was found is also in `label.json` and `report.html` of the folder.

    No sure row, and no certificate, are results. Raises RecipeError or DataError where rows or folder do not fit, and
    Preempted where a signal ends it.
    """
    display = display or Silent()
    rows = read_rows(told)
    _claim(told, resume=resume)
    with Stop() as stop:
        work = Work(told=told, rows=rows, choosing=_halves(rows, told.seed), display=display, stop=stop)
        said = f"{len(rows.seeds)} seeds of {len(rows.classes)} classes, {len(rows.unlabelled)} rows to label"
        display.say(f"{said}, {len(rows.gold)} gold rows, in {told.output}")
        if told.training.student == "head":
            work.encoded = encoded(told, rows, display)
        reason = _self_trained(work)
    result = _result(work, reason)
    if work.encoded is not None:
        work.encoded.save(work.heads[work.best.number], work.folder / "model")
    write(work.folder / RESULT, result)
    write_label(work.folder, result, language=language)
    return result


def _claim(told: Labelling, *, resume: bool) -> None:
    """The folder is new, or was begun with the same settings and files."""
    folder = Path(told.output)
    if not resume and folder.is_dir() and any(folder.iterdir()):
        mend = "Go on with it by --resume, or choose another output."
        raise RecipeError(Problem(file=str(folder), field="output", what="is not empty", mend=mend))
    plan = plan_of(told)
    if (folder / PLAN).is_file():
        if problems := resume_conflicts(orjson.loads((folder / PLAN).read_bytes()), plan):
            raise RecipeError(problems)
        return
    write(folder / PLAN, plan)


def _halves(rows: Rows, seed: int) -> np.ndarray:
    """Which gold rows choose; the others certify. Each class is halved by itself, an odd row certifies."""
    generator = np.random.default_rng([seed, 0x601D])
    labels = np.array([row.label for row in rows.gold])
    choosing = np.zeros(len(labels), dtype=bool)
    for name in rows.classes:
        mine = generator.permutation(np.flatnonzero(labels == name))
        choosing[mine[: len(mine) // 2]] = True
    return choosing


def _self_trained(work: Work) -> Reason:
    """All rounds, and why there was no further one."""
    work.rounds.append(_round(work, 0, np.zeros(len(work.rows.unlabelled), dtype=bool), ()))
    if rules.guesses(work.rounds[0].choosing):
        return "guesses"
    for number, part in enumerate(work.told.parts, start=1):
        before = work.rounds[-1]
        taken, thresholds = rules.taken(before.unlabelled_NC, part=part, floor=work.told.floor)
        if not taken.any():
            return "none_sure"
        best = work.best
        found = _round(work, number, taken, thresholds)
        changed = found.unlabelled_NC.argmax(axis=1) != before.unlabelled_NC.argmax(axis=1)
        work.rounds.append(replace(found, changed=float(changed.mean())))
        if rules.dying(found.unlabelled_NC, found.choosing.truth_N):
            return "collapsed"
        if rules.worse(found.choosing, best.choosing):
            return "worse"
    return "rounds"


def _round(work: Work, number: int, taken: np.ndarray, thresholds: Sequence[float]) -> Round:
    """Train a model from the base on the seeds and these rows, as the round before labelled them, and ask it."""
    if work.stop.requested:
        raise Preempted("stopped between two rounds", "Go on with --resume.")
    folder = work.folder / "rounds" / str(number)
    given: list[dict[str, Any]] = []
    if taken.any():
        given = list(_given(work.rows, work.rounds[-1].unlabelled_NC, np.flatnonzero(taken)))
        _write_lines(folder / LABELS, given)
    work.display.say(f"Round {number}: {len(work.rows.seeds)} seeds and {len(given)} rows train")
    shares_NC = _solved(work, taken, given) if work.encoded is not None else _trained(work, folder, given)
    told = _tempered(work, number, shares_NC, thresholds, given)
    work.display.say(
        f"Round {number}: {told.choosing.accuracy:.3f} of {len(told.choosing.truth_N)} gold rows are right"
    )
    return told


def _solved(work: Work, taken: np.ndarray, given: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """What a head thinks of each row that is solved on the seeds and on these."""
    assert work.encoded is not None
    classes = list(work.rows.classes)
    seeds = [classes.index(str(row.label)) for row in work.rows.seeds]
    labels = [classes.index(row["label"]) for row in given]
    head = work.encoded.solve(seeds, np.flatnonzero(taken), labels, weight=work.told.seed_weight)
    work.heads.append(head)
    return work.encoded.shares(head)


def _trained(work: Work, folder: Path, given: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """What a network thinks of each row that is trained on the seeds and on these; both are kept in the folder."""
    shares_NC = _kept(folder / PREDICTED, len(work.rows.unlabelled) + len(work.rows.gold), len(work.rows.classes))
    if shares_NC is not None:
        return shares_NC
    sources = [work.told.seeds.model_dump(mode="json")]
    if given:
        sources[0]["weight"] = work.told.seed_weight
        sources.append({"path": str(folder / LABELS), "format": "labelled"})
    recipe = _recipe(work, sources, folder / "run")
    trained(recipe, file=folder / "recipe.yaml", log=folder / "train.log", stop=work.stop)
    return _asked(work, folder)


def _given(rows: Rows, shares_NC: np.ndarray, places: np.ndarray) -> Iterator[dict[str, Any]]:
    """Labels given to these unlabelled rows, as rows that can be trained on."""
    for place in places:
        row, number = rows.unlabelled[place], int(shares_NC[place].argmax())
        told = {"text": content(row), "label": rows.classes[number], "confidence": float(shares_NC[place, number])}
        yield told | {"source": row.source, "line": row.line}


def _recipe(work: Work, sources: Sequence[Mapping[str, Any]], output: Path) -> Recipe:
    training = work.told.training
    objective = training.model_dump(mode="json", include={"max_length", "pooling"})
    stage = {
        "data": sources,
        "validation": 0,
        "objective": {"kind": "classify", "labels": work.rows.classes, **objective},
        "adapter": training.adapter.model_dump(mode="json"),
        "optim": training.optim.model_dump(mode="json", exclude_none=True),
        "batch": training.batch,
        "steps": training.steps,
    }
    settings = training.model_dump(mode="json", include={"precision", "device", "stream"})
    told = {"model": work.told.model, "seed": work.told.seed, "output": str(output), "stages": [stage], "evals": []}
    return Recipe.model_validate(settings | told)


def _asked(work: Work, folder: Path) -> np.ndarray:
    """`[unlabelled and then gold, C]`: what the round's model thinks of each row; kept beside it."""
    model = open_model(trained_model(folder / "run"))
    every: list[Example] = [*work.rows.unlabelled, *work.rows.gold]
    told = [row["probabilities"] for row in classified(model, every, work.display)]
    shares_NC = np.array([[each[name] for name in work.rows.classes] for each in told])
    draft = folder / f".{PREDICTED}"
    with draft.open("wb") as stream:
        np.save(stream, shares_NC, allow_pickle=False)
    draft.replace(folder / PREDICTED)
    return shares_NC


def _kept(file: Path, rows: int, classes: int) -> np.ndarray | None:
    if not file.is_file():
        return None
    shares_NC: np.ndarray = np.load(file, allow_pickle=False)
    return shares_NC if shares_NC.shape == (rows, classes) else None


def _tempered(
    work: Work, number: int, shares_NC: np.ndarray, thresholds: Sequence[float], given: Sequence[Mapping[str, Any]]
) -> Round:
    """A round's probabilities, divided by the temperature that the choosing half asks for."""
    logits_NC = np.log(np.maximum(shares_NC, LEAST_SHARE))
    split, classes = len(work.rows.unlabelled), list(work.rows.classes)
    truth_N = np.array([classes.index(str(row.label)) for row in work.rows.gold])
    gold_NC, half = logits_NC[split:], work.choosing
    temperature = fit_temperature(gold_NC[half], truth_N[half])
    gold_NC = softmax(gold_NC / temperature.value, axis=1)
    counts = [sum(row["label"] == name for row in given) for name in classes]
    return Round(
        number=number,
        trained_on=len(given),
        by_class=dict(zip(classes, counts, strict=True)),
        thresholds=thresholds,
        temperature=temperature,
        unlabelled_NC=softmax(logits_NC[:split] / temperature.value, axis=1),
        choosing=rules.Known(shares_NC=gold_NC[half], truth_N=truth_N[half]),
        certifying=rules.Known(shares_NC=gold_NC[~half], truth_N=truth_N[~half]),
    )


# What comes out


def _result(work: Work, reason: Reason) -> dict[str, Any]:
    """The labels, the queue, and all that is told of them."""
    told, best = work.told, work.best
    held = best.certifying
    rungs = ladder(best.choosing.shares_NC.max(axis=1), best.choosing.right_N, confidence=told.confidence)
    certificate, tested = (
        certify(held.shares_NC.max(axis=1), held.right_N, rungs, error=told.error, confidence=told.confidence)
        if reason != "guesses"
        else (None, [])
    )
    sure_N = best.unlabelled_NC.max(axis=1)
    labelled = np.flatnonzero(sure_N >= certificate.threshold) if certificate else np.empty(0, np.int64)
    given = list(_given(work.rows, best.unlabelled_NC, labelled))
    _write_lines(work.folder / LABELS, given)
    others = np.setdiff1d(np.arange(len(sure_N)), labelled)
    order = others[rules.most_useful(best.unlabelled_NC[others])] if len(others) else others
    _write_lines(work.folder / QUEUE, _queued(work.rows, best.unlabelled_NC, order))
    low, high = clopper_pearson(int(held.right_N.sum()), len(held.truth_N))
    return {
        "folder": told.output,
        "model": told.model,
        "student": told.training.student,
        "trained": "model" if told.training.student == "head" else f"rounds/{best.number}/run",
        "classes": list(work.rows.classes),
        "seeds": counts_of(work.rows.seeds),
        "gold": counts_of(work.rows.gold),
        "unlabelled": len(work.rows.unlabelled),
        "copies": work.rows.copies,
        "error": told.error,
        "confidence": told.confidence,
        "reason": reason,
        "best": best.number,
        "accuracy": {"value": held.accuracy, "low": low, "high": high, "count": len(held.truth_N)},
        "certificate": None if certificate is None else asdict(certificate),
        "tested": [asdict(one) for one in tested],
        "labelled": len(given),
        "labelled_by_class": {name: sum(row["label"] == name for row in given) for name in work.rows.classes},
        "to_label": len(order),
        "rounds": [_told(one) for one in work.rounds],
        "confidences": np.quantile(sure_N, np.linspace(0, 1, 101)).tolist(),
    }


def _told(one: Round) -> dict[str, Any]:
    """A round, without its rows."""
    predicted = np.bincount(one.unlabelled_NC.argmax(axis=1), minlength=one.unlabelled_NC.shape[1])
    return {
        "number": one.number,
        "trained_on": one.trained_on,
        "by_class": dict(one.by_class),
        "thresholds": list(one.thresholds),
        "temperature": one.temperature.value,
        "accuracy": one.choosing.accuracy,
        "right": int(one.choosing.right_N.sum()),
        "count": len(one.choosing.truth_N),
        "predicted": predicted.tolist(),
        "changed": one.changed,
    }


def _queued(rows: Rows, shares_NC: np.ndarray, order: np.ndarray) -> Iterator[dict[str, Any]]:
    """Rows for a person, most useful first, with the two likeliest classes."""
    for place in order:
        row, top = rows.unlabelled[place], np.argsort(-shares_NC[place], kind="stable")[:2]
        told = {"text": content(row), "label": "", "source": row.source, "line": row.line}
        yield told | {"likely": {rows.classes[number]: float(shares_NC[place, number]) for number in top}}


def _write_lines(file: Path, rows: Sequence[Mapping[str, Any]] | Iterator[Mapping[str, Any]]) -> None:
    """JSON lines, whole or not at all; a file that has these already is left, for its hash is in a run's record."""
    text = b"".join(orjson.dumps(dict(row)) + b"\n" for row in rows)
    if file.is_file() and file.read_bytes() == text:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.new")
    draft.write_bytes(text)
    draft.replace(file)
