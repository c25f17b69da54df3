"""From Python, in one call: a model and rows in, a run out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mingshi.data.formats import DataSource, detect, read
from mingshi.display import Display
from mingshi.recipe import Recipe, parse
from mingshi.types import Chat
from mingshi.yaml_text import apply

if TYPE_CHECKING:
    from mingshi.outcome import Outcome

Rows = str | Path | Sequence[Mapping[str, Any]]

OBJECTIVE_OF = {"labelled": "classify", "preference": "dpo"}  # by the format of the rows; of all others: sft


def fine_tune(
    model: str,
    rows: Rows,
    *,
    test: Rows | None = None,
    output: str | Path | None = None,
    sets: Sequence[str] = (),
    display: Display | None = None,
) -> Outcome:
    """Fine-tune `model` on `rows` (a path, or a list of dictionaries) and return the finished run.

    `sets` changes any field of the recipe: `["stages.0.adapter.rank=32", "stages.0.epochs=3"]`. Progress and the
    report show inline in a notebook. Raises one of `mingshi.errors`.
    """
    from mingshi.notebook import shown
    from mingshi.run import execute

    folder = Path(output) if output is not None else _free_folder(model)
    data = _written(rows, folder.with_name(f"{folder.name}-data"), "train")
    tests = [_written(test, folder.with_name(f"{folder.name}-data"), "test")] if test is not None else []
    recipe = recipe_for(model, [data], test=tests, output=str(folder), sets=sets)
    with shown(display) as watching:
        return execute(recipe, display=watching)


def recipe_for(
    model: str,
    data: Sequence[str],
    *,
    test: Sequence[str] = (),
    output: str | None = None,
    sets: Sequence[str] = (),
    say: Callable[[str], None] | None = None,
) -> Recipe:
    """The recipe of a run that was asked for with a model and files.

    Each file's format is found in its rows, and the first one's says what is to be learnt from them.
    """
    sources = []
    for path in data:
        form, reason = detect(path)
        if say is not None:
            say(reason)
        sources.append({"path": path, "format": form})
    objective = OBJECTIVE_OF.get(str(sources[0]["format"]), "sft")
    values: dict[str, Any] = {
        "model": model,
        "output": output or str(_free_folder(model)),
        "stages": [{"data": sources, "objective": {"kind": objective}}],
        "test": [{"path": path} for path in test],
    }
    if test and objective == "sft":
        values["evals"] = [{"kind": "perplexity"}, *([{"kind": "generation"}] if any(map(_asks, test)) else [])]
    apply(values, sets)
    return parse(values, file="--set")


def _asks(path: str) -> bool:
    """Whether the rows of a test file ask for answers; plain texts do not, so that there is nothing to generate."""
    first = next((row for row in read(DataSource(path=path, on_bad_row="skip")) if isinstance(row, Chat)), None)
    return first is None or not first.plain


def _free_folder(model: str) -> Path:
    """`runs/MODEL-DATE`, with a number where there is one already."""
    name = f"{Path(model).name}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = Path("runs") / name
    number = 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return folder


def _written(rows: Rows, folder: Path, name: str) -> str:
    """Rows in memory become a file beside the run, so that the run can be resumed and verified like any other."""
    if isinstance(rows, str | Path):
        return str(rows)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    path.write_bytes(b"".join(orjson.dumps(dict(row)) + b"\n" for row in rows))
    return str(path)
