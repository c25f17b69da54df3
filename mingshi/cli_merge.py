"""The command `mingshi merge`: an adapter folded into its base, or several models of one base made one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mingshi.console import JsonOption, checked, print_json, say
from mingshi.errors import Problem, RecipeError

if TYPE_CHECKING:
    import torch

    from mingshi.model.merging import Merge
    from mingshi.model.merging_files import Merged

FoldersArgument = Annotated[
    list[Path], typer.Argument(help="Run, adapter or model folders; without --output, the last one is made.")
]


def merge(
    folders: FoldersArgument,
    output: Annotated[Path | None, typer.Option(help="The folder that is made.")] = None,
    method: Annotated[
        str, typer.Option(help="Of several: cat, average, arithmetic, ties, dare or svd. Of one adapter: fold it.")
    ] = "",
    weights: Annotated[str, typer.Option(help="One for each model, with commas between: 1,0.5.")] = "",
    scale: Annotated[float, typer.Option(help="What the merged update is multiplied by.")] = 1.0,
    density: Annotated[float | None, typer.Option(help="Share of numbers that ties and dare keep.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the adapter that comes out.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what dare drops.")] = 0,
    base: Annotated[str | None, typer.Option(help="The base, where the folders do not say it.")] = None,
    precision: Annotated[str, typer.Option(help="bf16 or float32: what whole models are saved in.")] = "bf16",
    json: JsonOption = False,
) -> None:
    """Fold an adapter into its base, and prove that the result computes the same; or merge models of one base."""
    import torch

    if precision not in ("bf16", "float32"):
        raise RecipeError(f"no precision {precision!r}", "Use bf16 or float32.")
    if output is None:
        if len(folders) < 2:
            raise RecipeError("there is no folder to write to", "Give --output.")
        *folders, output = folders
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    if method:
        from mingshi.model.merging import Merge

        told = {"weights": _numbers(weights), "scale": scale, "density": density, "rank": rank, "seed": seed}
        how = checked(Merge, {"method": method, **told})
        _merge(folders, output, how, base=base, precision=dtype, json=json)
        return
    if len(folders) > 1:
        raise RecipeError(f"{len(folders)} models are given, and no --method", "Say how they are merged.")
    if weights or scale != 1.0 or density is not None or rank is not None:
        raise RecipeError("weights, scale, density and rank need a --method", "Without one, an adapter is folded.")
    _fold(folders[0], output, precision=dtype, json=json)


def _fold(adapter: Path, output: Path, *, precision: torch.dtype, json: bool) -> None:
    from mingshi.model.export import merge as merged

    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise RecipeError(Problem(file=str(output), what="is there already", mend="Choose another folder."))
    proof = merged(_trained(adapter), output, precision=precision)
    if json:
        print_json({"folder": str(output), "kl": proof.kl, "agreement": proof.agreement, "positions": proof.positions})
        return
    say(
        f"{output}: {proof.kl:.2e} nats a token from the adapter, the same first choice at {proof.agreement:.1%} of "
        f"{proof.positions} positions"
    )


def _merge(
    folders: list[Path], output: Path, how: Merge, *, base: str | None, precision: torch.dtype, json: bool
) -> None:
    from dataclasses import asdict

    from mingshi.model.merging_files import merge_folders

    done = merge_folders([_trained(folder) for folder in folders], output, how, base=base, precision=precision)
    if json:
        print_json({**asdict(done), "folder": str(done.folder), "method": how.method})
        return
    say(f"{output}: {_told(done, how)}")


def _told(done: Merged, how: Merge) -> str:
    factors = ", ".join(f"{weight:g}" for weight in done.weights)
    said = f"{how.method} of {len(done.weights)} (times {factors}) on {done.base}"
    if done.rank is None:
        return f"{said}: a whole model"
    lost = "exact" if done.truncation is None else f"{done.truncation:.2%} of the update's norm is lost"
    return f"{said}: an adapter of rank {done.rank}, {lost}"


def _trained(folder: Path) -> Path:
    from mingshi.use import trained_model

    return trained_model(folder) if (folder / "run.json").is_file() else folder


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.split(",")] if text.strip() else None
    except ValueError:
        raise RecipeError(f"--weights {text!r} are no numbers", "Write 1,0.5.") from None
