"""What the commands share: options that several have, and how they print."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from mingshi.errors import RecipeError
from mingshi.ranks import onlooking

if TYPE_CHECKING:
    from mingshi.terminal import Terminal

JsonOption = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output, and nothing else.")]
BadRowOption = Annotated[
    Literal["error", "skip"], typer.Option(help="Stop at rows that cannot be used, or count them and go on.")
]
LanguageOption = Annotated[str, typer.Option("--lang", help="en or zh: the language that the report opens in.")]


def print_json(value: Any) -> None:
    if onlooking():
        return
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    sys.stdout.buffer.write(orjson.dumps(value, default=str, option=options) + b"\n")
    sys.stdout.flush()


def say(text: str = "") -> None:
    if onlooking():
        return
    from mingshi.terminal import harmless

    print(harmless(text))


def terminal() -> Terminal:
    from mingshi.terminal import Terminal

    if not onlooking():
        return Terminal()
    from rich.console import Console

    return Terminal(Console(quiet=True))


def language(asked: str) -> str:
    """en or zh: as asked, else by the locale."""
    if asked not in ("", "en", "zh"):
        raise RecipeError(f"--lang {asked}: not a language of ours", "Use en or zh.")
    locale = os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG") or ""
    return asked or ("zh" if locale.startswith("zh") else "en")


def note(text: str) -> None:
    if not onlooking():
        print(text, file=sys.stderr)
