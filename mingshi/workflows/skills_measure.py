"""What a model does on each skill's rows, kept in a file: what was measured once is not measured again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from mingshi.display import Display
from mingshi.evals import seed_of
from mingshi.evaluate import as_json
from mingshi.model.load import load
from mingshi.provenance import recordable
from mingshi.tasks import Task, headline
from mingshi.use import measure
from mingshi.workflows.skills_file import Skills

Side = Literal["test", "validation"]
Line = Mapping[str, Any]  # as evals.jsonl has it


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One strategy under one seed: what it took and what it came to."""

    test: Sequence[Line]
    validation: Sequence[Line] = ()  # of experts, where one of them is chosen
    trained: Sequence[int] = ()  # tokens, by stage
    seconds: float = 0.0  # of training, or of merging
    start: str = ""  # the skill whose expert it began with
    truncation: float | None = None  # of a merge
    teachers: Sequence[float] = ()  # shares of the answers' tokens that each expert taught


def read_done(file: Path) -> Done | None:
    return Done(**orjson.loads(file.read_bytes())) if file.is_file() else None


def write_done(file: Path, done: Done) -> Done:
    """Whole or not at all; what comes back is as it will be read."""
    write(file, asdict(done))
    again = read_done(file)
    assert again is not None
    return again


def write(file: Path, value: Any) -> None:
    """As JSON, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.new")
    draft.write_bytes(orjson.dumps(recordable(value), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    draft.replace(file)


def measured(told: Skills, model: str | Path, *, seed: int, sides: Sequence[Side], display: Display) -> dict[Side, Any]:
    """Every skill's evaluator on its rows, by side; the model is loaded once."""
    base = model == told.model
    training = told.training
    opened = load(
        model,
        template=training.template if base else "auto",
        precision=training.precision,
        device=training.device,
    )
    found: dict[Side, list[Line]] = {side: [] for side in sides}
    for side in sides:
        for skill in told.skills:
            source = skill.test if side == "test" else skill.validation
            scores = measure(opened, source, [skill.eval], seed=seed_of(skill.eval, seed), display=display)
            for kind, one in scores.scores.items():
                told_scores = {name: as_json(score) for name, score in one.scores.items()}
                found[side].append(
                    {"when": "after", "data": skill.name, "kind": kind, "scores": told_scores, "items": one.items}
                )
    return dict(found)


def headlines(told: Skills, lines: Sequence[Line]) -> dict[str, str]:
    """By skill, the `kind.metric` that stands for it; RecipeError for one that is not measured."""
    found = {}
    for skill in told.skills:
        names = [
            f"{line['kind']}.{metric}" for line in lines if line["data"] == skill.name for metric in line["scores"]
        ]
        task = Task.model_construct(name=skill.name, data=(skill.test,), evals=(skill.eval,), metric=skill.metric)
        found[skill.name] = headline(task, names)
    return found


def values(lines: Sequence[Line], named: Mapping[str, str]) -> dict[str, float]:
    """By skill, its headline's value."""
    found = {}
    for line in lines:
        for metric, score in line["scores"].items():
            if named[line["data"]] == f"{line['kind']}.{metric}" and isinstance(score["value"], int | float):
                found[line["data"]] = float(score["value"])
    return found
