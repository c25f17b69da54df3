"""Where results may be written, looked at before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from mingshi.errors import Problem, RecipeError


def require_writable(output: Path, *, data: Path) -> None:
    """RecipeError where no answers can be written, before any is computed, or where they would take the rows' place."""
    folder = output.absolute().parent
    if output.is_dir():
        what = "is a directory"
    elif not folder.is_dir():
        what = "no such file or directory"
    elif not os.access(output if output.exists() else folder, os.W_OK):
        what = "cannot be written to"
    elif output.exists() and data.exists() and output.samefile(data):
        what = "is the file of the rows"
    else:
        return
    raise RecipeError(Problem(file=str(output), what=what, mend="Choose another --output."))


def require_new(folder: Path) -> None:
    """RecipeError where the folder is not new, or cannot be made: before any answer is asked for."""
    require_own(folder, names=())


def require_own(folder: Path, *, names: Collection[str]) -> None:
    """The same for a folder that may hold files of these names, which its owner writes anew."""
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    there = sorted(place.name for place in folder.iterdir()) if folder.is_dir() else []
    strange = [name for name in there if name not in names]
    what = ""
    if not above.is_dir() or not os.access(above, os.W_OK):
        what = "is a file" if folder.exists() and not folder.is_dir() else "cannot be made or written to"
    elif strange:
        what = f"holds {strange[0]}, which would be mixed with what is written" if names else "is there already"
    if what:
        raise RecipeError(Problem(file=str(folder), what=what, mend="Choose another folder."))
