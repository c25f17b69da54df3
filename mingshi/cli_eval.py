"""The command `mingshi eval`: scores of a model on a file of rows, or on tasks of lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mingshi.console import BadRowOption, JsonOption, checked, print_json, say, terminal
from mingshi.errors import RecipeError

if TYPE_CHECKING:
    from mingshi.types import Scores

ROWS_WRITTEN = 64  # answers that are written where nothing is said


def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, or a name.")],
    data: Annotated[Path | None, typer.Argument(help="A file of rows; or give --tasks.")] = None,
    tasks: Annotated[
        str, typer.Option(help="Tasks of lm-evaluation-harness: names or YAML files, with commas between.")
    ] = "",
    num_fewshot: Annotated[int | None, typer.Option(min=0, help="Of --tasks: examples in each prompt.")] = None,
    chat_template: Annotated[
        bool, typer.Option("--chat-template", help="Of --tasks: ask in the model's own template.")
    ] = False,
    generation: Annotated[bool, typer.Option(help="Also generate, and score the answers.")] = True,
    metrics: Annotated[
        str,
        typer.Option(
            help="Of the answers, with commas: exact_match, token_f1, rouge, bleu, chrf, bertscore, length, distinct, "
            "repetition. Without it: exact_match, rouge."
        ),
    ] = "",
    encoder: Annotated[str | None, typer.Option(help="BERTScore's model: a folder or a name.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Rows to generate for (64); of --tasks, rows of each (all).")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 128,
    template: Annotated[str, typer.Option(help="auto, own, turns, zh-instruction or alpaca.")] = "auto",
    on_bad_row: BadRowOption = "error",
    json: JsonOption = False,
) -> None:
    """Scores with intervals on a file, or on tasks of lm-evaluation-harness."""
    if (data is None) == (not tasks):
        raise RecipeError("one of DATA and --tasks is needed", "Give a file of rows, or tasks: --tasks NAME,NAME.")
    if (metrics or encoder) and (data is None or not generation):
        raise RecipeError(
            "--metrics and --encoder are of the answers to DATA, and none are asked for", "Leave them out."
        )
    if data is None:
        _on_tasks(model, tasks, limit=limit, shots=num_fewshot, chat=chat_template, template=template, json=json)
        return
    if num_fewshot is not None or chat_template:
        raise RecipeError("--num-fewshot and --chat-template are options of --tasks", "Leave them out.")
    from mingshi.data.formats import DataSource
    from mingshi.evals import Generation
    from mingshi.evals.scoring import BertScore, metric_names
    from mingshi.use import measure, open_model, usual_evaluators

    states = BertScore(encoder=encoder) if encoder else None
    wanted = {"limit": limit or ROWS_WRITTEN, "max_new_tokens": max_new_tokens, "bertscore": states}
    named = {"metrics": metric_names(metrics)} if metrics else {}
    writing = checked(Generation, wanted | named) if generation else None
    with terminal() as display:
        opened, source = open_model(model, template=template), DataSource(path=str(data), on_bad_row=on_bad_row)
        told = measure(opened, source, usual_evaluators(opened, source=source, generation=writing), display=display)
    _print(told.scores, {"read": told.read, "used": told.used, "rejected": told.rejected}, json=json)


def _on_tasks(
    model: str, tasks: str, *, limit: int | None, shots: int | None, chat: bool, template: str, json: bool
) -> None:
    from mingshi.evals.harness import run_tasks
    from mingshi.use import open_model

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    with terminal() as display:
        opened = open_model(model, template=template)
        if opened.classes is not None:
            raise RecipeError(f"{model} is a classifier, and the harness asks a language model", "Give it DATA.")
        found = run_tasks(opened, names, display=display, limit=limit, shots=shots, chat=chat)
    used = sum(max((score.count for score in scores.scores.values()), default=0) for scores in found.values())
    _print(found, {"read": used, "used": used, "rejected": {}}, json=json)


def _print(found: Mapping[str, Scores], rows: Mapping[str, Any], *, json: bool) -> None:
    """Every score; `rows` says what became of the rows."""
    from mingshi.evaluate import as_json, summary_lines

    if json:
        metrics = {
            f"{kind}.{name}": as_json(score) for kind, scores in found.items() for name, score in scores.scores.items()
        }
        most = max((score["count"] for score in metrics.values()), default=0)
        print_json({"metrics": metrics, "rows": most, **rows})
        return
    for kind, scores in found.items():
        for line in summary_lines(kind, scores):
            say(line)
