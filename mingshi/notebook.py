"""Progress and report inside a notebook."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mingshi.display import Display


def in_notebook() -> bool:
    """Is this a kernel with a front end that shows HTML? IPython is asked only if it is there already."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


@contextmanager
def shown(display: Display | None) -> Iterator[Display | None]:
    """The given display; else one in the notebook's own output; else, in a script, a terminal's."""
    if display is not None:
        yield display
        return
    from rich.console import Console

    from mingshi.terminal import Terminal

    console = Console(force_jupyter=True) if in_notebook() else None
    with Terminal(console) as terminal:
        yield terminal


def report_frame(page: Path) -> str:
    """A report as an isolated frame of a notebook's output: its style stays inside, and it loads nothing."""
    from html import escape

    source = escape(page.read_text(encoding="utf-8"), quote=True)
    return f'<iframe srcdoc="{source}" width="100%" height="720" style="border:0" sandbox></iframe>'
