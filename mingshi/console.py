"""What the commands share: options that several have, and how they print."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from mingshi.errors import Problem, RecipeError
from mingshi.ranks import onlooking

if TYPE_CHECKING:
    from mingshi.terminal import Terminal
    from mingshi.types import Settings

Each = TypeVar("Each", bound="Settings")

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


def checked(kind: type[Each], values: Mapping[str, Any]) -> Each:
    """Settings out of options; RecipeError says in one line each what does not do, by the name that was typed.

    What a key was given as is not shown: it may be the key itself.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for each in error.errors():
            name = next((part for part in reversed(each["loc"]) if isinstance(part, str)), "").replace("_", "-")
            typed = "" if "key" in name else f" {each['input']}"
            option = f"--{name}{typed}: " if name and not isinstance(each["input"], dict) else ""
            what, _, mend = str(each["msg"]).removeprefix("Value error, ").partition(". ")
            problems.append(Problem(what=f"{option}{what}", mend=mend))
        raise RecipeError(problems) from None


def renamed(told: Sequence[str], *, known: Collection[str] = ()) -> dict[str, str]:
    """Our field names and a file's own, out of `--column ours=theirs`; without `known` any name is taken for ours."""
    found: dict[str, str] = {}
    for each in told:
        ours, equals, theirs = each.partition("=")
        if not equals or not ours or not theirs or (known and ours not in known):
            mend = f"Fields are {', '.join(sorted(known))}." if known else "Write --column label=sentiment."
            raise RecipeError(f"--column {each}: not a field and its name", mend)
        found[ours] = theirs
    return found


def note(text: str) -> None:
    if not onlooking():
        print(text, file=sys.stderr)
