"""The command `mingshi search`: hyper-parameters, with pruning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mingshi.console import JsonOption, LanguageOption, language, print_json, say, terminal
from mingshi.errors import RecipeError


def search(
    file: Annotated[Path, typer.Argument(help="A recipe, what is searched around it, and how much (YAML).")],
    workers: Annotated[int, typer.Option(min=1, max=64, help="Trials at a time; they share the cores out.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the search stopped.")] = False,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Try recipes around one, stop the poor ones early, run the best again under new seeds.

    The same command in another terminal works on the same search.
    """
    chosen = language(lang)
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError:
        raise RecipeError("optuna is not installed", "Install it: pip install 'mingshi[search]'.") from None
    from mingshi.workflows.search import search as searched
    from mingshi.workflows.search_file import read_search

    plan = read_search(file)
    with terminal() as display:
        told = searched(plan, workers=workers, resume=resume, display=display, language=chosen)
    if json:
        print_json(told)
    else:
        from mingshi.workflows.search_told import described

        for line in described(told, language=chosen):
            say(line)
        say(f"report  {plan.output / 'report.html'}")
        say(f"best    {plan.output / 'best.yaml'}")
    if told["code"]:
        raise typer.Exit(told["code"])
