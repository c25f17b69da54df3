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
    from mingshi.workflows.groups import Grouping

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
    protected: Annotated[
        str, typer.Option(help="Of a classifier: attributes whose groups are compared, with commas: gender,mentions.")
    ] = "",
    positive: Annotated[str, typer.Option(help="With --protected: the class that is the good outcome.")] = "",
    pairs: Annotated[
        Path | None, typer.Option(help="With --protected: lines Emily<TAB>James to be swapped, besides he and she.")
    ] = None,
    on_bad_row: BadRowOption = "error",
    json: JsonOption = False,
) -> None:
    """Scores with intervals on a file, or on tasks of lm-evaluation-harness."""
    if (data is None) == (not tasks):
        raise RecipeError("one of DATA and --tasks is needed", "Give a file of rows, or tasks: --tasks NAME,NAME.")
    if (metrics or encoder) and (data is None or not generation):
        what = "--metrics and --encoder are of the answers to DATA, and none are asked for"
        raise RecipeError(what, "Leave them out.")
    grouping = _grouping(protected, positive, pairs, data)
    if data is None:
        _on_tasks(model, tasks, limit=limit, shots=num_fewshot, chat=chat_template, template=template, json=json)
        return
    if num_fewshot is not None or chat_template:
        raise RecipeError("--num-fewshot and --chat-template are options of --tasks", "Leave them out.")
    from mingshi.data.formats import DataSource
    from mingshi.evals import Generation
    from mingshi.evals.scoring import BertScore, metric_names
    from mingshi.use import measure, open_model, usual_evaluators
    from mingshi.workflows.groups import groups

    wanted: dict[str, Any] = {"limit": limit or ROWS_WRITTEN, "max_new_tokens": max_new_tokens}
    wanted["bertscore"] = BertScore(encoder=encoder) if encoder else None
    wanted |= {"metrics": metric_names(metrics)} if metrics else {}
    writing = checked(Generation, wanted) if generation else None
    with terminal() as display:
        opened, source = open_model(model, template=template), DataSource(path=str(data), on_bad_row=on_bad_row)
        told = measure(opened, source, usual_evaluators(opened, source=source, generation=writing), display=display)
        compared = groups(opened, source, grouping, display=display) if grouping else None
    rows = {"read": told.read, "used": told.used, "rejected": told.rejected}
    _print(told.scores, rows, json=json, compared=compared)


def _grouping(protected: str, positive: str, pairs: Path | None, data: Path | None) -> Grouping | None:
    """What groups are compared by; RecipeError where an option lacks the one that it belongs to."""
    names = tuple(name.strip() for name in protected.split(",") if name.strip())
    if (names and data is None) or ((positive or pairs) and not names):
        what = "--protected compares groups of DATA; --positive and --pairs say how"
        raise RecipeError(what, "Give DATA and --protected, or leave them out.")
    if not names:
        return None
    from mingshi.workflows.groups import Grouping

    given = {"protected": names, "positive": positive or None, "pairs": str(pairs) if pairs else None}
    return checked(Grouping, given)


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


def _print(
    found: Mapping[str, Scores], rows: Mapping[str, Any], *, json: bool, compared: Mapping[str, Any] | None = None
) -> None:
    """Every score; `rows` says what became of the rows, `compared` how their groups fare."""
    from mingshi.evaluate import as_json, summary_lines
    from mingshi.workflows.groups import described

    if json:
        metrics = {
            f"{kind}.{name}": as_json(score) for kind, scores in found.items() for name, score in scores.scores.items()
        }
        most = max((score["count"] for score in metrics.values()), default=0)
        print_json({"metrics": metrics, "rows": most, **rows} | ({"groups": compared} if compared else {}))
        return
    for kind, scores in found.items():
        for line in summary_lines(kind, scores):
            say(line)
    for line in described(compared) if compared else ():
        say(line)
