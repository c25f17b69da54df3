"""The command line: parse, call one public function, print. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mingshi.cli_check import check, repair
from mingshi.cli_compare import compare
from mingshi.cli_eval import evaluate
from mingshi.cli_judge import judge
from mingshi.cli_label import label
from mingshi.cli_merge import merge
from mingshi.cli_pairs import pairs
from mingshi.cli_remedy import augment, balance
from mingshi.cli_score import score as score_predictions
from mingshi.cli_search import search
from mingshi.cli_skills import skills
from mingshi.console import BadRowOption, JsonOption, LanguageOption, language, note, print_json, say, terminal
from mingshi.ending import failed
from mingshi.errors import RecipeError
from mingshi.starting import prepare

if TYPE_CHECKING:
    from mingshi.recipe import Recipe
    from mingshi.record import Line

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Supervised learning of language models: fine-tune, evaluate, and show the evidence.",
    epilog="With --debug, any command that fails shows where.",
)

RecipeArgument = Annotated[Path | None, typer.Argument(help="A recipe (YAML). Without one, give --model and --data.")]
SetOption = Annotated[list[str] | None, typer.Option("--set", help="Change a field: stages.0.batch=8")]
ModelOption = Annotated[str | None, typer.Option(help="A known name, a folder, or a name on the Hub.")]
DataOption = Annotated[list[Path] | None, typer.Option("--data", help="A file of rows; may be given several times.")]


def main() -> None:
    """The console script: run a command and end with the exit code of what happened."""
    arguments = [word for word in sys.argv[1:] if word != "--debug"] or ["--help"]
    try:
        prepare(arguments)
        code = app(args=arguments, standalone_mode=False, prog_name="mingshi")
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = failed(error, debug="--debug" in sys.argv)
    sys.exit(code)


def _recipe(
    path: Path | None,
    sets: Sequence[str] | None,
    *,
    model: str | None,
    data: Sequence[Path] | None,
    fields: dict[str, Any] | None = None,
) -> Recipe:
    from mingshi.api import recipe_for
    from mingshi.recipe import read_recipe

    if path is not None:
        if model is not None or data:
            raise RecipeError("a recipe and --model or --data are both given", "Use --set model=… with a recipe.")
        return read_recipe(path, sets=sets or ())
    if model is None or not data:
        raise RecipeError("nothing to train on", "Give a recipe, or --model and --data. See mingshi train --help.")
    return recipe_for(model, [str(file) for file in data], sets=sets or (), say=note, **(fields or {}))


def _as_yaml(path: Path) -> str:
    """A path as YAML that reads back as it stands, whatever characters it has: JSON is YAML."""
    from json import dumps

    return dumps(str(path))


@app.command()
def train(
    recipe: RecipeArgument = None,
    model: ModelOption = None,
    data: DataOption = None,
    test: Annotated[list[Path] | None, typer.Option(help="Test rows, measured before and after.")] = None,
    output: Annotated[Path | None, typer.Option(help="The run folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint, bit for bit.")] = False,
    sets: SetOption = None,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Train, evaluate, record and report."""
    if recipe is not None and test:
        raise RecipeError("a recipe and --test are both given", "Use --set test=[{path: …}] with a recipe.")
    if output is not None:
        sets = [*(sets or []), f"output={_as_yaml(output)}"]
    chosen = _recipe(recipe, sets, model=model, data=data, fields={"test": [str(file) for file in test or ()]})
    from mingshi.run import execute

    with terminal() as display:
        outcome = execute(
            chosen, resume=resume, command=["mingshi", *sys.argv[1:]], display=display, language=language(lang)
        )
    if json:
        print_json(outcome.as_dict())
        return
    from mingshi.evaluate import told

    for name, score in outcome.scores["difference"].items():
        say(f"change  {name}  {told(score, signed=True)}")
    say(f"run     {outcome.folder}")
    say(f"report  {outcome.folder / 'report.html'}")


@app.command()
def preview(
    recipe: RecipeArgument = None,
    model: ModelOption = None,
    data: DataOption = None,
    rows: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many rows of each file.")] = 3,
    longest: Annotated[bool, typer.Option("--longest", help="The longest rows instead of the first.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page instead.")] = None,
    sets: SetOption = None,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Show tokens and weights in colour, with the reason for each."""
    chosen = _recipe(recipe, sets, model=model, data=data)
    from mingshi.preview import preview as shown

    found = shown(chosen, rows=rows, longest=longest)
    if json:
        print_json(found)
        return
    from mingshi.report.preview import preview_html, preview_text

    if html is not None:
        html.write_text(preview_html(found, language=language(lang)), encoding="utf-8")
        say(f"Written: {html}")
        return
    from rich.console import Console

    Console(highlight=False, soft_wrap=True).print(preview_text(found, language=language(lang)))


@app.command()
def plan(
    recipe: RecipeArgument = None,
    model: ModelOption = None,
    data: DataOption = None,
    sets: SetOption = None,
    json: JsonOption = False,
) -> None:
    """One page before any work: rows, tokens, steps, memory, time, findings."""
    chosen = _recipe(recipe, sets, model=model, data=data)
    from mingshi.preview import described
    from mingshi.preview import plan as planned

    with terminal() as display:
        told = planned(chosen, display=display)
    if json:
        print_json(told)
        return
    for line in described(told):
        say(line)


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, or a name.")],
    data: Annotated[Path, typer.Argument(help="A file of rows.")],
    output: Annotated[Path | None, typer.Option(help="Write JSON lines here instead of to standard output.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0: always the most likely token.")] = 0.0,
    seed: Annotated[int, typer.Option()] = 0,
    on_bad_row: BadRowOption = "error",
    json: JsonOption = False,
) -> None:
    """Answer every row; rows come out as JSON lines (with --json as one list)."""
    import orjson

    from mingshi.data.formats import DataSource
    from mingshi.places import require_writable
    from mingshi.use import open_model
    from mingshi.use import predict as answered

    if output is not None:
        require_writable(output, data=data)
    with terminal() as display:
        source = DataSource(path=str(data), on_bad_row=on_bad_row)
        rows = list(
            answered(
                open_model(model),
                source,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                display=display,
            )
        )
    if json:
        print_json(rows)
    if output is not None or not json:
        with output.open("wb") if output is not None else nullcontext(sys.stdout.buffer) as stream:
            stream.writelines(orjson.dumps(row) + b"\n" for row in rows)
    if output is not None:
        note(f"{len(rows)} answers written to {output}")


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, or a name.")],
    message: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    temperature: Annotated[float, typer.Option(min=0)] = 0.0,
    seed: Annotated[int, typer.Option()] = 0,
    json: JsonOption = False,
) -> None:
    """Talk to a model, with the very template that it was trained with."""
    if json and message is None:
        raise RecipeError("--json gives one answer, and there is no question", "Give the question after the model.")
    from mingshi.terminal import is_interactive
    from mingshi.types import Message
    from mingshi.use import Conversation, open_model

    talk = Conversation(open_model(model), max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    if system is not None:
        talk.messages.append(Message(role="system", content=system))
    if message is not None:
        answer = talk.ask(message)
        print_json({"answer": answer}) if json else say(answer)
        return
    note("An empty line or Ctrl-D ends the conversation.")
    while True:
        try:
            asked = input("> " if is_interactive() else "")
        except EOFError:
            return
        if not asked.strip():
            return
        say(talk.ask(asked))


app.command()(check)
app.command()(repair)
app.command()(balance)
app.command()(augment)
app.command()(compare)
app.command(name="eval")(evaluate)
app.command()(judge)
app.command()(label)
app.command()(merge)
app.command()(pairs)
app.command()(score_predictions)
app.command()(search)
app.command()(skills)


@app.command()
def runs(
    folder: Annotated[Path, typer.Argument(help="Where run folders lie.")] = Path("runs"),
    json: JsonOption = False,
) -> None:
    """List runs: status, model, time, loss."""
    from mingshi.record import list_runs

    found = list_runs(folder)
    if json:
        print_json(found)
        return
    for line in _table(found):
        say(line)


def _table(runs: Sequence[Line]) -> list[str]:
    """Columns as wide as their widest cell."""
    if not runs:
        return ["no runs here"]
    cells = [["folder", "status", "model", "started", "seconds", "loss"]]
    for run in runs:
        loss = "" if run.loss is None else f"{run.loss:.4f}"
        cells.append([str(run.folder), run.status, run.model, run.started, f"{run.seconds:.0f}", loss])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Write the run's report.html again from its record."""
    from mingshi.record import read_run
    from mingshi.report.fit import verdicts
    from mingshi.report.page import write_report

    run = read_run(folder)  # refuses what is not a run
    page = write_report(folder, language=language(lang))
    print_json({"report": str(page), "fit": verdicts(run)}) if json else say(str(page))


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(help="A run folder, or a model or adapter folder made by Mingshi.")],
    json: JsonOption = False,
) -> None:
    """Prove that a saved folder is what was saved, and renders the prompts that training saw."""
    from mingshi.verify import verify as verified

    checks = verified(folder)
    if json:
        print_json({"passed": all(check.passed for check in checks), "checks": checks})
    else:
        for check in checks:
            say(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    if not all(check.passed for check in checks):
        raise typer.Exit(4)
