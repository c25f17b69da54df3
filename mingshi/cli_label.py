"""The command `mingshi label`: label many texts from a few labelled ones, at an error that is certified."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mingshi.console import JsonOption, LanguageOption, language, print_json, say, terminal


def label(
    file: Annotated[Path, typer.Argument(help="Seeds, texts to label, gold rows and how to train (YAML).")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Label texts by a model that is trained on a few: what is sure at a certified error, and a list of the rest."""
    chosen = language(lang)
    from mingshi.workflows.label import LABELS
    from mingshi.workflows.label import label as carried_out
    from mingshi.workflows.label_file import read_labelling

    told = read_labelling(file)
    with terminal() as display:
        found = carried_out(told, resume=resume, display=display, language=chosen)
    if json:
        print_json(found)
        return
    from mingshi.workflows.label_told import described

    for line in described(found, language=chosen):
        say(line)
    say(f"labels  {Path(told.output) / LABELS}")
    say(f"report  {Path(told.output) / 'report.html'}")
