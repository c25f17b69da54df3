"""Where results may be written, looked at before anything is computed."""

from __future__ import annotations

import os
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
    above = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if above == folder.absolute() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(Problem(file=str(folder), what="is there already", mend="Choose another folder."))
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise RecipeError(Problem(file=str(folder), what="cannot be made", mend="Choose another folder."))
