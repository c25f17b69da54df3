"""From a recipe's sources to samples on disk, with every row accounted for."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import numpy as np

from mingshi.checks.preferences import check_preferences, same_tokens
from mingshi.checks.tokens import check_tokens
from mingshi.continual.remembered import Memory
from mingshi.data import pictured
from mingshi.data.encode import Encoded, cache_key, encode
from mingshi.data.formats import DataSource, read
from mingshi.data.formats.rows import row_count
from mingshi.data.ledger import nothing_left
from mingshi.data.mix import mix
from mingshi.data.plan import Mixture, Plan, make_plan
from mingshi.data.split import sides_of
from mingshi.display import Display
from mingshi.errors import ModelError, Problem, RecipeError
from mingshi.model import others
from mingshi.model import pair as pairs
from mingshi.model.encoder import NO_TEMPLATE
from mingshi.model.load import Model, Text, load
from mingshi.model.skeleton import skeleton
from mingshi.objectives import Classify, Contrastive, Distill, Dpo, Sft
from mingshi.objectives import contrastive as contrasted
from mingshi.objectives.classify import balanced, require_fit
from mingshi.provenance import fingerprint_file
from mingshi.recipe import Recipe, Stage
from mingshi.tasks import Task
from mingshi.types import Captioned, Chat, Example, Finding, Labelled, Objective, Preference, Reject, Sample

REJECTS_SHOWN = 20  # of one file, in the run record
LENGTHS_KEPT = 4096  # of one stage, for the report's histogram: evenly spaced quantiles where there are more


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Joined(Sequence[Sample]):
    """Several encoded sources as one sequence, the first source first; each sample knows its place in it."""

    parts: tuple[Encoded | Memory, ...]

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: Any) -> Any:
        ends = list(accumulate(len(part) for part in self.parts))
        part = bisect_right(ends, int(index))
        if part == len(self.parts):
            raise IndexError(index)
        return replace(self.parts[part][int(index) - (ends[part - 1] if part else 0)], row=int(index))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sample."""
        return np.concatenate([part.lengths for part in self.parts] or [np.empty(0, np.int64)])

    @property
    def trained(self) -> int:
        """Predictions of all samples together."""
        return sum(int(part.trained.sum()) for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """A stage's data, ready to be stepped through."""

    samples: Joined
    validation: Joined
    plan: Plan
    ledger: list[dict[str, Any]]  # one entry for each file and role
    findings: list[Finding]

    def summary(self, objective: Objective) -> dict[str, Any]:
        lengths = self.samples.lengths
        cut = sum(entry["rejected"].get("too_long", 0) for entry in self.ledger)
        return {
            "samples": len(self.samples),
            "validation": len(self.validation),
            "tokens": int(lengths.sum()),
            "trained": self.samples.trained,
            "steps": self.plan.steps,
            "max_length": objective.max_length,
            "headline": objective.headline,
            "higher_is_better": objective.higher_is_better,
            "cut": cut,
            "lengths": _thinned(lengths),
        }


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TestSet:
    """Rows to measure on: encoded for losses, and as examples for what reads those."""

    samples: Joined
    examples: tuple[Example, ...]
    ledger: list[dict[str, Any]]
    validation: Sequence[Sample] = ()  # rows that a temperature may be fitted on


def cache_folder() -> Path:
    return Path(os.environ.get("MINGSHI_CACHE") or Path.home() / ".cache" / "mingshi") / "encoded"


def settled(recipe: Recipe) -> Recipe:
    """With what its training rows decide: the classes of a classifier, which all stages share; others as they are."""
    if isinstance(recipe.stages[0].objective, Contrastive):
        return recipe.model_copy(update={"template": NO_TEMPLATE})
    objectives = [stage.objective for stage in recipe.stages if isinstance(stage.objective, Classify)]
    if not objectives:
        return recipe
    rows = [
        [_label_alone(row) for source in stage.data for row in training_rows(source, stage, recipe)]
        for stage in recipe.stages
    ]
    joint = objectives[0].settled(list(chain.from_iterable(rows)))
    shared = {"problem": joint.problem, "labels": joint.labels}
    stages = [
        stage.model_copy(update={"objective": objective.model_copy(update=shared).settled(own)})
        for stage, objective, own in zip(recipe.stages, objectives, rows, strict=True)
    ]
    return recipe.model_copy(update={"stages": tuple(stages), "template": NO_TEMPLATE})


def open_for(recipe: Recipe) -> Model:
    """The network of a settled recipe, with the head that its objective needs."""
    objective = recipe.stages[0].objective
    others.refuse_run(recipe.model)
    classes = objective.classes(seed=recipe.seed) if isinstance(objective, Classify) else None
    pair = objective.pair(seed=recipe.seed) if isinstance(objective, Contrastive) else None
    model = load(
        recipe.model,
        precision=recipe.precision,
        device=recipe.device,
        template=recipe.template,
        classes=classes,
        pair=pair,
    )
    if pair is None and pairs.is_pair(model.network):
        what = f"{recipe.model} is a pair of towers, and the objective {objective.kind} trains one"
        raise RecipeError(Problem(field="model", what=what, mend="Name what it was made from, or use contrastive."))
    if classes is None and model.classes is not None:
        what = f"{recipe.model} is a classifier, and the objective {objective.kind} trains a language model"
        raise RecipeError(Problem(field="model", what=what, mend="Name what it was made from, or use classify."))
    for stage in recipe.stages:
        if isinstance(stage.objective, Classify):
            require_fit(stage.objective, model)
            model.tokenizer.model_max_length = stage.objective.max_length  # saved: whoever truncates does it there too
        if isinstance(stage.objective, Contrastive):
            contrasted.require_fit(stage.objective, model)
            model.tokenizer.model_max_length = stage.objective.max_length
    return model


def training_rows(source: DataSource, stage: Stage, recipe: Recipe) -> Iterator[Example | Reject]:
    """The rows of one of a stage's files that are not held out."""
    share = stage.validation if isinstance(stage.validation, float) else 0.0
    return _side(source, share, held_out=False, seed=recipe.seed) if share else read(source)


def held_out_rows(source: DataSource, stage: Stage, recipe: Recipe) -> Iterator[Example | Reject]:
    """The rows of one of a stage's files that are held out, where it holds out a share."""
    share = stage.validation if isinstance(stage.validation, float) else 0.0
    return _side(source, share, held_out=True, seed=recipe.seed)


def _side(source: DataSource, share: float, *, held_out: bool, seed: int) -> Iterator[Example | Reject]:
    """The held-out rows of a file, or the others; read when they are asked for, and not kept."""
    sides = sides_of(read(source), fraction=share, seed=seed)
    yield from (row for row in read(source) if sides.holds_out(row) == held_out)


def _label_alone(row: Example | Reject) -> Example | Reject:
    """What the classes are decided by, so that the texts of a large file are not held in memory."""
    return replace(row, id="", group="", content="", attributes={}) if isinstance(row, Labelled) else row


def prepare(stage: Stage, recipe: Recipe, text: Text, display: Display) -> Prepared:
    """Read, split and encode the data of one stage; DataError where nothing is left to train on, or to validate on."""
    trained: list[Encoded] = []
    held: list[Encoded] = []
    ledger: list[dict[str, Any]] = []
    share = stage.validation if isinstance(stage.validation, float) else 0.0
    sides = [("train", trained, 1 - share), ("validation", held, share)][: 2 if share else 1]
    for source in stage.data:
        for role, parts, part in sides:
            rows = _side(source, share, held_out=parts is held, seed=recipe.seed) if share else read(source)
            kind = f"{role} {share} {recipe.seed}"
            parts.append(_encode(source, rows, stage.objective, text, display, kind, part))
            ledger.append(_account(source, role, parts[-1]))
    for source in stage.validation if isinstance(stage.validation, tuple) else ():
        held.append(_encode(source, read(source), stage.objective, text, display, "validation"))
        ledger.append(_account(source, "validation", held[-1]))
    samples, validation = Joined(parts=tuple(trained)), Joined(parts=tuple(held))
    if not len(samples):
        raise nothing_left(stage.data[0].path, ledger, role="train")
    if isinstance(stage.validation, tuple) and stage.validation and not len(validation):
        raise nothing_left(stage.validation[0].path, ledger, role="validation")
    return Prepared(
        samples=samples,
        validation=validation,
        plan=_plan(stage, recipe, samples),
        ledger=ledger,
        findings=check_tokens(samples.lengths, ledger, max_length=stage.objective.max_length) + _lint(stage, samples),
    )


def require_fitting(recipe: Recipe, text: Text) -> None:
    """ModelError names what cannot be used in any stage of a settled recipe, before the first one starts.

    Adapters that do not go into the network, and teachers and references that cannot stand beside it.
    """
    first = recipe.stages[0].objective
    network = skeleton(
        recipe.model,
        classes=first.classes(seed=recipe.seed) if isinstance(first, Classify) else None,
        pair=first.pair(seed=recipe.seed) if isinstance(first, Contrastive) else None,
    )
    problems: list[Problem] = []
    for number, stage in enumerate(recipe.stages):
        try:
            stage.adapter.places(network)
        except ModelError as error:
            problems += others.in_field(error, f"stages.{number}")
        problems += _unfit_others(stage.objective, number, recipe, text)
    if problems:
        raise ModelError(problems)


def _unfit_others(objective: Objective, number: int, recipe: Recipe, text: Text) -> list[Problem]:
    """What is wrong with the teachers or the reference of a stage."""
    role: others.Role = "teacher" if isinstance(objective, Distill) else "reference"
    names: dict[str, str] = {}
    if isinstance(objective, Distill):
        names = {f"teachers.{number}.model": one.model for number, one in enumerate(objective.teachers)}
    elif isinstance(objective, Dpo) and objective.reference is not None:
        names = {"reference": objective.reference}
    problems: list[Problem] = []
    for field, name in names.items():
        try:
            others.require(name, text, role=role, output=Path(recipe.output))
        except ModelError as error:
            problems += others.in_field(error, f"stages.{number}.objective.{field}")
    return problems


def _lint(stage: Stage, samples: Joined) -> list[Finding]:
    """What preference pairs teach besides what they mean to; nothing of other rows."""
    if Preference not in stage.objective.accepts:
        return []
    rows = (row for source in stage.data for row in read(source) if isinstance(row, Preference))
    return check_preferences(rows, twins=same_tokens(samples))


def prepare_tests(sources: Sequence[DataSource], objective: Objective, text: Text, display: Display) -> TestSet:
    """Encode the test files as the objective scores them, and keep their rows for what reads examples.

    DataError where there are files, and nothing in them can be scored.
    """
    parts = [_encode(source, read(source), objective, text, display, "test") for source in sources]
    ledger = [_account(source, "test", part) for source, part in zip(sources, parts, strict=True)]
    if sources and not any(map(len, parts)):
        raise nothing_left(sources[0].path, ledger, role="test")
    return TestSet(samples=Joined(parts=tuple(parts)), examples=_examples(sources), ledger=ledger)


def prepare_task(task: Task, objective: Objective, text: Text, display: Display) -> TestSet:
    """A task's rows, encoded by `objective` where one of its evaluators reads samples; DataError where none fits."""
    if any(evaluator.reads == "samples" for evaluator in task.evals):
        tests = prepare_tests(task.data, objective, text, display)
        return replace(tests, ledger=[entry | {"role": "task"} for entry in tests.ledger])
    accepted = tuple(kind for evaluator in task.evals for kind in evaluator.accepts)
    ledger = [_counted_rows(source, accepted) for source in task.data]
    if not any(entry["used"] for entry in ledger):
        raise nothing_left(task.data[0].path, ledger, role="task")
    return TestSet(samples=Joined(parts=()), examples=_examples(task.data), ledger=ledger)


def _examples(sources: Sequence[DataSource]) -> tuple[Example, ...]:
    rows = (row for source in sources for row in read(source) if isinstance(row, Example))
    return tuple(row for row in rows if not (isinstance(row, Chat) and row.plain))


def _counted_rows(source: DataSource, accepted: tuple[type[Example], ...]) -> dict[str, Any]:
    """The ledger of rows that are not encoded."""
    rejected: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    used = 0
    for row in read(source):
        if isinstance(row, accepted):
            used += 1
            continue
        rejected["other_kind" if isinstance(row, Example) else row.reason] += 1
        if isinstance(row, Reject) and len(examples) < REJECTS_SHOWN:
            examples.append(asdict(row))
    return _entry(source, "task", rows=used + rejected.total(), used=used, rejected=rejected, examples=examples)


def _plan(stage: Stage, recipe: Recipe, samples: Joined) -> Plan:
    sizes = [len(part) for part in samples.parts]
    weights = [source.weight for source in stage.data]

    mixture: Mixture = partial(_mixed, sizes, weights, recipe.seed)
    if isinstance(stage.objective, Classify) and stage.objective.sampling == "balanced":
        classes = np.array([int(sample.labels[0]) for sample in samples], dtype=np.int64)
        mixture = balanced(classes, sizes, weights, seed=recipe.seed)
    rows = len(mixture(0))
    return make_plan(
        rows=rows, mixture=mixture, batch=stage.batch, seed=recipe.seed, epochs=stage.epochs, steps=stage.steps
    )


def _mixed(sizes: list[int], weights: list[float], seed: int, epoch: int) -> np.ndarray:
    return mix(sizes, weights, seed=seed, epoch=epoch)


def _encode(
    source: DataSource,
    rows: Iterable[Example | Reject],
    objective: Objective,
    text: Text,
    display: Display,
    role: str,
    share: float = 1.0,
) -> Encoded:
    """The samples of these rows, which are about `share` of their file."""
    parts = {
        "source": source.model_dump_json(),
        "objective": objective.model_dump_json(),
        "template": text.template.fingerprint,
        "tokenizer": text.tokenizer_sha256,
        "role": role,
    }
    if Captioned in objective.accepts:
        parts["pictures"] = pictured.stamp_of(source)
    key = cache_key(files=[] if Path(source.path).is_dir() else [source.path], parts=parts)
    pictured.drop_without_pixels(cache_folder() / key, key=key)

    def track(items: Iterable[Any], total: int | None, label: str) -> Iterator[Any]:
        rows = row_count(source.path)
        total = None if rows is None else round(share * min(rows, source.limit or rows))
        yield from display.track(items, total, f"{label} {source.path}")

    ahead = partial(objective.look_ahead, text) if isinstance(objective, Sft) else None
    return encode(rows, objective=objective, model=text, key=key, folder=cache_folder(), progress=track, ahead=ahead)


def _account(source: DataSource, role: str, encoded: Encoded) -> dict[str, Any]:
    ledger = encoded.ledger()
    examples = [asdict(reject) for reject in encoded.first_rejects(REJECTS_SHOWN)]
    counts = {"rows": ledger["rows"], "used": ledger["used"], "rejected": ledger["rejected"]}
    return _entry(source, role, **counts, examples=examples)


def _entry(
    source: DataSource,
    role: str,
    *,
    rows: int,
    used: int,
    rejected: Mapping[str, int],
    examples: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """One file in the ledger: what it is, and where each of its rows went."""
    return {
        "role": role,
        **fingerprint_file(Path(source.path)),
        "path": source.path if not os.path.isabs(source.path) else Path(source.path).name,
        "format": source.format,
        "rows": rows,
        "used": used,
        "rejected": dict(rejected),
        "examples": list(examples),
    }


def counted(entry: Mapping[str, Any]) -> str:
    """One line of the ledger: rows in and out."""
    lost = "".join(f", {count} {reason}" for reason, count in entry["rejected"].items())
    return f"{entry['role']:10} {entry['path']}: {entry['rows']} rows = {entry['used']} used{lost}"


def _thinned(lengths: np.ndarray) -> list[int]:
    ordered = np.sort(lengths)
    if len(ordered) > LENGTHS_KEPT:
        ordered = ordered[np.linspace(0, len(ordered) - 1, LENGTHS_KEPT).round().astype(int)]
    kept: list[int] = ordered.tolist()
    return kept
