"""The command `mingshi score`: predictions that exist already, without the model that made them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mingshi.console import (
    BadRowOption,
    JsonOption,
    LanguageOption,
    checked,
    language,
    print_json,
    renamed,
    say,
    terminal,
)
from mingshi.errors import RecipeError

COLUMNS = ("prediction", "reference", "label", "id", "group")


def score(
    data: Annotated[
        Path, typer.Argument(help="Rows with `prediction` and `reference` (a text or several), or with `label`.")
    ],
    metrics: Annotated[
        str,
        typer.Option(
            help="With commas: exact_match, token_f1, rouge, bleu, chrf, bertscore, length, distinct, repetition, "
            "accuracy, classification. Without it: what the rows allow and needs no model."
        ),
    ] = "",
    paired: Annotated[
        Path | None, typer.Option(help="Another file of the same rows in the same order, to be compared.")
    ] = None,
    tokens: Annotated[Literal["char", "word"], typer.Option(help="How Chinese is cut; words by rjieba.")] = "char",
    stem: Annotated[bool, typer.Option("--stem", help="ROUGE on the stems of Latin words.")] = False,
    encoder: Annotated[str | None, typer.Option(help="BERTScore's model: a folder or a name.")] = None,
    layer: Annotated[int | None, typer.Option(help="BERTScore's layer; 0 is the embeddings.")] = None,
    idf: Annotated[bool, typer.Option("--idf", help="BERTScore: rare tokens weigh more.")] = False,
    rescale: Annotated[bool, typer.Option("--rescale", help="BERTScore: unrelated references score 0.")] = False,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="A field that the file names otherwise: reference=answer")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    on_bad_row: BadRowOption = "error",
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Score predictions that exist already, with intervals; compare two files of them."""
    chosen = language(lang)
    from mingshi.evals.scoring import BertScore, Scoring, metric_names
    from mingshi.workflows.score import Predictions
    from mingshi.workflows.score import score as scored

    states = (
        checked(BertScore, {"encoder": encoder, "layer": layer, "idf": idf, "rescale": rescale}) if encoder else None
    )
    if states is None and (layer is not None or idf or rescale):
        raise RecipeError("--layer, --idf and --rescale are of BERTScore's encoder", "Say which: --encoder MODEL.")
    wanted = {"metrics": metric_names(metrics), "tokens": tokens, "stem": stem, "bertscore": states, "seed": seed}
    scoring = checked(Scoring, wanted)
    paths = [str(data), *([str(paired)] if paired is not None else [])]
    source = checked(
        Predictions, {"paths": paths, "columns": renamed(columns or [], known=COLUMNS), "on_bad_row": on_bad_row}
    )
    with terminal() as display:
        report = scored(source, scoring, display=display)
    if json:
        print_json(report)
        return
    from mingshi.workflows.score_told import described

    for line in described(report, paths, language=chosen):
        say(line)
