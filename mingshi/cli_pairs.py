"""The command `mingshi pairs`: preference data out of ranked, scored or sampled answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mingshi.console import BadRowOption, JsonOption, checked, print_json, say, terminal
from mingshi.errors import RecipeError

if TYPE_CHECKING:
    from mingshi.workflows.sampling import Origin


def pairs(
    data: Annotated[Path, typer.Argument(help="Answers with scores or ranks; with --model, rows to answer.")],
    output: Annotated[Path, typer.Option(help="The folder for train.jsonl, test.jsonl and pairs.json.")] = Path(
        "pairs"
    ),
    take: Annotated[str, typer.Option(help="best-worst, all, or adjacent.")] = "best-worst",
    margin: Annotated[float, typer.Option(help="How far ahead the better score must be.")] = 0.0,
    similar: Annotated[float, typer.Option(help="Texts above this edit similarity are no pair.")] = 0.9,
    per_prompt: Annotated[int, typer.Option(help="At most so many pairs of a prompt.")] = 4,
    balance: Annotated[bool, typer.Option(help="Take out what lets length predict the choice.")] = True,
    test: Annotated[float, typer.Option(help="Share of the prompts that is held out.")] = 0.1,
    seed: Annotated[int, typer.Option()] = 0,
    model: Annotated[str | None, typer.Option(help="A model that writes the answers.")] = None,
    samples: Annotated[int | None, typer.Option(help="Answers to each prompt (4).")] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the sampling, above 0 (0.8).")] = None,
    top_p: Annotated[float | None, typer.Option(help="Of the sampling (0.95).")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longer answers are not finished, and dropped (256).")
    ] = None,
    prompts: Annotated[int | None, typer.Option(help="Only the first so many prompts.")] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="rougeL (the default), rouge1, rouge2, exact_match, json, pattern, length, likelihood, judge."
        ),
    ] = None,
    judge: Annotated[str | None, typer.Option(help="The model whose opinion counts.")] = None,
    pattern: Annotated[str | None, typer.Option(help="A regular expression that a good answer holds.")] = None,
    characters: Annotated[int | None, typer.Option(help="The length that is wanted.")] = None,
    on_bad_row: BadRowOption = "error",
    json: JsonOption = False,
) -> None:
    """Build preference pairs, with a ledger of what was dropped and why."""
    from mingshi.data.formats import DataSource
    from mingshi.workflows.pairs import described
    from mingshi.workflows.pairs import pairs as built
    from mingshi.workflows.preferences import Pairing

    kept = {"take": take, "margin": margin, "similar": similar, "per_prompt": per_prompt}
    pairing = checked(Pairing, kept | {"balance": balance, "test": test, "seed": seed})
    drawn = {"samples": samples, "temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
    judged = {"score": score, "pattern": pattern, "characters": characters}
    origin = _origin(model, judge, _given(drawn | {"prompts": prompts}), _given(judged), seed=seed)
    with terminal() as display:
        source = DataSource(path=str(data), on_bad_row=on_bad_row)
        report = built(source, output, pairing, origin=origin, display=display)
    if json:
        print_json(report)
        return
    for line in described(report):
        say(line)
    for name, file in report["files"].items():
        say(f"{name:8} {output / file['path']}")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _origin(
    model: str | None, judge: str | None, drawn: dict[str, Any], scored: dict[str, Any], *, seed: int
) -> Origin | None:
    """The model to ask; what only it could use is refused where there is none."""
    if model is None:
        if unused := _given({"judge": judge, **scored, **drawn}):
            name = next(iter(unused)).replace("_", "-")
            raise RecipeError(f"--{name} is given, and there is no --model", "Say who writes the answers.")
        return None
    from mingshi.workflows.sampling import Origin, Sampling, Scoring

    sampling, scoring = checked(Sampling, drawn | {"seed": seed}), checked(Scoring, scored)
    return Origin(model=model, judge=judge, sampling=sampling, scoring=scoring)
