"""What every measured process does: it reads its task from the command line and prints one JSON line, the outcome.

Standard library alone: the peers use it too.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.task import Measured


def answer(measure: Callable[..., Measured], *kinds: type[Any]) -> None:
    """Measure what the words of the command line say, each the JSON of one of `kinds`.

    What libraries print meanwhile goes to standard error.
    """
    given = [kind(**json.loads(word)) for kind, word in zip(kinds, sys.argv[1:], strict=True)]
    with contextlib.redirect_stdout(sys.stderr):
        outcome = measure(*given)
    print(outcome.dumps())
