"""The command `mingshi skills`: strategies of teaching one model several skills, at one budget of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mingshi.console import JsonOption, LanguageOption, language, print_json, say, terminal


def skills(
    file: Annotated[Path, typer.Argument(help="Skills, how they are checked, and strategies (YAML).")],
    resume: Annotated[bool, typer.Option("--resume", help="Go on where it stopped.")] = False,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Teach several skills by several strategies: experts, mixtures, two stages (DMT), merges; a table of all."""
    chosen = language(lang)
    from mingshi.workflows.skills import skills as carried_out
    from mingshi.workflows.skills_file import read_skills

    plan = read_skills(file)
    with terminal() as display:
        told = carried_out(plan, resume=resume, display=display, language=chosen)
    if json:
        print_json(told)
    else:
        from mingshi.workflows.skills_told import described

        for line in described(told, language=chosen):
            say(line)
        say(f"report  {Path(plan.output) / 'report.html'}")
    if told["code"]:
        raise typer.Exit(told["code"])
