"""The commands `mingshi balance` and `mingshi augment`: files whose classes or groups are treated alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from mingshi.console import JsonOption, LanguageOption, checked, language, print_json, say, terminal
from mingshi.errors import RecipeError

OutputOption = Annotated[Path, typer.Option(help="The new file, .jsonl; a .lineage.json is written beside it.")]
TextOption = Annotated[str, typer.Option(help="The field of the texts.")]
LabelOption = Annotated[str, typer.Option(help="The field of the labels.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Which rows, and what becomes of them.")]


def balance(
    data: Annotated[Path, typer.Argument(help="A file of rows to train on, with texts and labels.")],
    output: OutputOption,
    how: Annotated[
        Literal["over", "under", "sample", "weights", "once"],
        typer.Option(
            help="Repeat rows; drop rows; both, as reweighing says; write its weights into rows; drop repeated texts."
        ),
    ],
    until: Annotated[
        str, typer.Option(help="even, independent (of groups), or the smallest class as a share of the largest: 0.5")
    ] = "",
    protected: Annotated[
        str, typer.Option(help="An attribute whose groups are to have labels alike: gender, or mentions")
    ] = "",
    cap: Annotated[float | None, typer.Option(help="How often a row may come at most.")] = None,
    text_field: TextOption = "text",
    label_field: LabelOption = "label",
    seed: SeedOption = 0,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Write rows as often as they should come: classes even, or labels independent of a group."""
    chosen = language(lang)
    from mingshi.workflows.remedy import Balancing
    from mingshi.workflows.remedy import balance as balanced

    names = {"text": text_field, "label": label_field, "protected": protected or None}
    wanted = checked(
        Balancing, {"how": how, "until": _until(until, "even", "independent"), "cap": cap, "seed": seed, **names}
    )
    with terminal() as display:
        told = balanced(data, output, wanted, display=display)
    _show(told, language=chosen, json=json)


def augment(
    data: Annotated[Path, typer.Argument(help="A file of rows to train on, with texts and labels.")],
    output: OutputOption,
    methods: Annotated[
        str,
        typer.Option(
            help="With commas: swap, delete, insert, synonym, punctuate, counterfactual, paraphrase, back_translation."
        ),
    ],
    until: Annotated[str, typer.Option(help="even, or the smallest class as a share of the largest: 0.5")] = "",
    each: Annotated[int, typer.Option(min=0, help="Instead: so many new rows of every row.")] = 0,
    protected: Annotated[str, typer.Option(help="With --until: groups and labels together are even.")] = "",
    lexicon: Annotated[Path | None, typer.Option(help="Lines word<TAB>synonym…, for synonym and insert.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Lines Emily<TAB>James, for counterfactual, besides he and she.")
    ] = None,
    model: Annotated[str, typer.Option(help="A language model, for paraphrase and back_translation.")] = "",
    held_out: Annotated[list[Path] | None, typer.Option(help="A file whose texts no new row may have.")] = None,
    strength: Annotated[float, typer.Option(help="The share of a text's words that change.")] = 0.1,
    text_field: TextOption = "text",
    label_field: LabelOption = "label",
    seed: SeedOption = 0,
    lang: LanguageOption = "",
    json: JsonOption = False,
) -> None:
    """Make new rows out of old ones, in Chinese or English, with the same labels."""
    chosen = language(lang)
    from mingshi.workflows.remedy import Augmenting
    from mingshi.workflows.remedy import augment as made

    given: dict[str, Any] = {
        "methods": tuple(name.strip() for name in methods.split(",") if name.strip()),
        "until": _until(until, "even"),
        "each": each,
        "protected": protected or None,
        "lexicon": str(lexicon) if lexicon else None,
        "pairs": str(pairs) if pairs else None,
        "model": model or None,
        "held_out": tuple(map(str, held_out or ())),
    }
    wanted = checked(Augmenting, given | {"text": text_field, "label": label_field, "strength": strength, "seed": seed})
    with terminal() as display:
        told = made(data, output, wanted, display=display)
    _show(told, language=chosen, json=json)


def _until(told: str, *words: str) -> str | float | None:
    """A word, or a number; RecipeError for anything else."""
    if not told or told in words:
        return told or None
    try:
        return float(told)
    except ValueError:
        mend = f"Use {', '.join(words)}, or a number such as 0.5."
        raise RecipeError(f"--until {told}: neither a word of ours nor a number", mend) from None


def _show(told: dict[str, Any], *, language: str, json: bool) -> None:
    if json:
        print_json(told)
        return
    from mingshi.workflows.remedy_told import described

    for line in described(told, language=language):
        say(line)
