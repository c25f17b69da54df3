"""The exceptions, one branch for each exit code.

MingshiError (70, our own fault)
├── RecipeError      2   usage or recipe
├── DataError        3   a file or a row
├── ModelError       4   a model, an adapter or a checkpoint
├── DivergedError    5   a loss or a gradient that is not finite
├── ResourceError    6   memory or disk
├── Refused          7   a gate put a stage's weights back and ended the run
└── Preempted       75   stopped by a signal; `--resume` goes on
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong, in one line: `file:line: field: what. mend`."""

    what: str
    mend: str = ""
    file: str = ""
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        head = "".join(f"{part}: " for part in (place, self.field) if part)
        tail = f" {self.mend}" if self.mend else ""
        return f"{head}{self.what.rstrip('.')}.{tail}"


class MingshiError(Exception):
    """Carries every problem found, not only the first; `exit_code` is what the command line ends with."""

    exit_code = 70

    def __init__(self, problems: Problem | str | Sequence[Problem], mend: str = ""):
        if isinstance(problems, str):
            problems = Problem(what=problems, mend=mend)
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        Exception.__init__(self, "\n".join(map(str, self.problems)))


class RecipeError(MingshiError):
    """A recipe or a command that cannot be carried out as it stands."""

    exit_code = 2


class DataError(MingshiError):
    """A file or a row that cannot be used."""

    exit_code = 3


class ModelError(MingshiError):
    """A model, an adapter or a checkpoint that is missing, damaged or unsafe."""

    exit_code = 4


class DivergedError(MingshiError):
    """A loss or a gradient that is not finite; nothing was updated with it."""

    exit_code = 5


class ResourceError(MingshiError):
    """Too little memory or disk."""

    exit_code = 6


class Refused(MingshiError):
    """A stage made a task worse by more than its gate allows; the weights from before it were saved."""

    exit_code = 7


class Preempted(MingshiError):
    """Stopped by a signal after a checkpoint was written."""

    exit_code = 75
