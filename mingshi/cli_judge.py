"""The command `mingshi judge`: answers that exist already, before a judge."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mingshi.console import BadRowOption, JsonOption, LanguageOption, checked, language, note, print_json, say, terminal
from mingshi.errors import RecipeError


def judge(
    first: Annotated[
        Path, typer.Argument(help="Rows with `prompt` and `prediction`, as `mingshi predict` writes them.")
    ],
    second: Annotated[
        Path | None, typer.Argument(help="Other answers to the same prompts, in the same order, to compare with.")
    ] = None,
    by: Annotated[
        str, typer.Option("--judge", help="A model's name or folder, or the address of an endpoint: https://host/v1")
    ] = "",
    model: Annotated[str | None, typer.Option("--judge-model", help="What the model is called at the address.")] = None,
    key: Annotated[
        str | None, typer.Option("--key-variable", help="The environment variable that holds the address's key.")
    ] = None,
    mode: Annotated[
        Literal["pointwise", "pairwise"] | None,
        typer.Option(help="Grades from 1 to 10, or comparisons; one file is compared with its references."),
    ] = None,
    criteria: Annotated[str | None, typer.Option(help="What makes an answer good.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="A field of the first file with somebody else's verdicts, to agree with.")
    ] = None,
    copies: Annotated[int | None, typer.Option(help="Answers compared with a copy said twice (24).")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of an endpoint (0).")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Of an endpoint's reply (512).")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds of one attempt (60).")] = None,
    attempts: Annotated[int | None, typer.Option(help="Before a question is given up (5).")] = None,
    parallel: Annotated[int | None, typer.Option(help="Questions on their way at a time (4).")] = None,
    price_in: Annotated[float | None, typer.Option(help="Of a million tokens of prompts.")] = None,
    price_out: Annotated[float | None, typer.Option(help="Of a million tokens of replies.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write each row's verdict here as JSON lines.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    on_bad_row: BadRowOption = "error",
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Let a judge grade answers, or say which of two is better, in both orders; with cost, failures and agreement."""
    chosen = language(lang)
    from mingshi.evals.judge_files import Files, judge_files

    asked = {"key_variable": key, "temperature": temperature, "max_tokens": max_tokens, "timeout": timeout}
    asked |= {"attempts": attempts, "parallel": parallel, "price_in": price_in, "price_out": price_out}
    told = {**_who(by, model), **asked, "criteria": criteria, "copies": copies}
    given = {name: value for name, value in told.items() if value is not None}
    settings = checked(Files, {"by": given, "mode": mode, "labels": labels, "on_bad_row": on_bad_row, "seed": seed})
    if output is not None:
        from mingshi.places import require_writable

        for file in (first, *([second] if second is not None else [])):
            require_writable(output, data=file)
    with terminal() as display:
        report = judge_files(str(first), None if second is None else str(second), settings, display=display)
    if output is not None:
        _write(output, report["verdicts"])
    if json:
        print_json(report)
        return
    from mingshi.workflows.judge_told import described

    for line in described(report, language=chosen):
        say(line)


def _who(by: str, model: str | None) -> dict[str, Any]:
    """A model here, or an address and what the model is called there."""
    if not by:
        raise RecipeError("there is no judge", "Give --judge: a model's name or folder, or https://host/v1.")
    if "://" in by:
        if model is None:
            raise RecipeError("an address is given, and not which model there", "Give --judge-model as well.")
        return {"endpoint": by, "model": model}
    if model is not None:
        raise RecipeError(f"--judge-model {model}: {by} is a model already", "Leave it out, or give an address.")
    from mingshi.record import RUN
    from mingshi.use import trained_model

    return {"model": str(trained_model(Path(by))) if (Path(by) / RUN).is_file() else by}


def _write(output: Path, verdicts: list[Mapping[str, Any]]) -> None:
    import orjson

    output.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in verdicts))
    note(f"{len(verdicts)} verdicts written to {output}")
