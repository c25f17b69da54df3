"""A user's lists of words: a line for each, tabs between what belongs together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mingshi.errors import DataError, Problem

LISTED = 20  # problems named in one error


def tabbed_lines(path: Path, *, fits: Callable[[list[str]], bool], what: str, example: str) -> list[list[str]]:
    """The cells of each line; empty lines and those that begin with # are passed over.

    Raises DataError for a file that cannot be read or says nothing, and with each line that does not fit: `what` says
    what a line should be.
    """
    mend = f"Write {example}, a line for each."
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is not UTF-8"
        raise DataError(Problem(file=str(path), what=f"cannot be read ({why})", mend=mend)) from error
    told = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    cells = [(number, [cell.strip() for cell in line.split("\t")]) for number, line in told]
    problems = [
        Problem(file=str(path), line=number, what=f"is not {what}", mend=mend)
        for number, found in cells
        if not all(found) or not fits(found)
    ]
    if problems or not cells:
        raise DataError(problems[:LISTED] or Problem(file=str(path), what="says nothing", mend=mend))
    return [found for _, found in cells]
