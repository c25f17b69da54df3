"""The command `mingshi check`: the health of data, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mingshi.console import JsonOption, LanguageOption, checked, language, print_json, renamed, say, terminal

if TYPE_CHECKING:
    from mingshi.data.formats import DataSource


def check(
    train: Annotated[list[Path], typer.Argument(help="Files of rows to train on.")],
    validation: Annotated[list[Path] | None, typer.Option(help="Rows that choose among weights.")] = None,
    test: Annotated[list[Path] | None, typer.Option(help="Rows that are scored at the end.")] = None,
    production: Annotated[list[Path] | None, typer.Option(help="Rows that the model will meet.")] = None,
    protected: Annotated[str, typer.Option(help="Attributes of people, with commas: gender,region.")] = "",
    words: Annotated[Path | None, typer.Option(help="A file of words, one a line, that texts are not to hold.")] = None,
    columns: Annotated[
        list[str] | None, typer.Option("--column", help="A field that the files name otherwise: label=sentiment")
    ] = None,
    encoder: Annotated[str, typer.Option(help="A text encoder that judges labels and finds rewordings.")] = "",
    scorer: Annotated[str, typer.Option(help="A language model that scores answers with and without prompts.")] = "",
    output: Annotated[Path, typer.Option(help="The folder for findings.json and report.html.")] = Path("health"),
    seed: Annotated[int, typer.Option(min=0, help="Of samples and permutations.")] = 0,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Look for leaks, label noise, drift, imbalance, bias and personal data; write findings and one page."""
    chosen = language(lang)
    from mingshi.checks.rows import Split
    from mingshi.workflows.check import Health
    from mingshi.workflows.check import check as looked_at
    from mingshi.workflows.check_told import described

    named = renamed(columns or [])
    given: dict[Split, list[Path]] = {"train": train, "validation": validation or [], "test": test or []}
    given["production"] = production or []
    names = tuple(name.strip() for name in protected.split(",") if name.strip())
    sources = {split: [_source(path, named, names) for path in paths] for split, paths in given.items() if paths}
    health = Health(
        protected=names,
        words=str(words) if words else None,
        encoder=encoder or None,
        scorer=scorer or None,
        seed=seed,
    )
    with terminal() as display:
        told = looked_at(sources, health, output=output, display=display, language=chosen)
    if json:
        print_json(told)
        return
    for line in described(told, language=chosen):
        say(line)
    say(f"findings  {output / 'findings.json'}")
    say(f"report    {output / 'report.html'}")


def _source(path: Path, columns: dict[str, str], attributes: tuple[str, ...]) -> DataSource:
    """Rows that cannot be read are a finding."""
    from mingshi.data.formats import DataSource

    given = {"path": str(path), "columns": columns, "attributes": attributes, "on_bad_row": "skip"}
    return checked(DataSource, given)


def repair(
    data: Annotated[Path, typer.Argument(help="The file of rows that was checked.")],
    output: Annotated[Path, typer.Option(help="The new file, .jsonl; a .lineage.json is written beside it.")],
    findings: Annotated[Path | None, typer.Option(help="findings.json of `mingshi check`.")] = None,
    drop: Annotated[
        str, typer.Option(help="Checks or kinds, with commas, whose rows go: leakage,contradictions.labels")
    ] = "",
    review: Annotated[
        Path | None, typer.Option(help="suspects.jsonl, with `accept: true` where the suggested label is right.")
    ] = None,
    label_field: Annotated[str, typer.Option(help="The field of the labels.")] = "label",
    json: JsonOption = False,
) -> None:
    """Write a new file without the rows that findings speak against, and with the labels that were accepted."""
    from mingshi.workflows.repair import repair as repaired

    names = [name.strip() for name in drop.split(",") if name.strip()]
    with terminal() as display:
        told = repaired(data, output, findings=findings, drop=names, review=review, label=label_field, display=display)
    if json:
        print_json(told)
        return
    rows = told["rows"]
    say(f"{rows['written']} of {rows['read']} rows written to {output}; {rows['relabelled']} with a new label")
    for reason, count in told["dropped"].items():
        say(f"  {count} dropped: {reason}")
    say(f"lineage  {told['lineage']}")
