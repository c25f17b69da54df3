"""One HTML file that tells a run: opens offline, in Chinese and English, and does nothing but show.

Whatever came from data is escaped by construction: every value that a template prints passes through `visible_html`,
which also marks characters that cannot be seen. The page has no script at all (the language switch is style), and its
content security policy would refuse one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mingshi.record import Run, read_run
from mingshi.report import views
from mingshi.report.classes import classes, is_told_here
from mingshi.report.curves import gap_figure, loss_figure, small_figures
from mingshi.report.fit import card, recorded
from mingshi.report.kept import divergence_figure, kept
from mingshi.report.marks import visible_html
from mingshi.report.pictured import pictured
from mingshi.report.stream import stream
from mingshi.report.summary import Stage, comparisons, stages, status, table, verdict
from mingshi.report.words import Both, either, word

TEXT_AT_MOST = 3000  # characters of one text from data
GROWTH = 4  # how much longer such a text may get by escapes and marks


def write_report(folder: Path, *, language: str = "en") -> Path:
    """Read a run folder, write its `report.html` whole or not at all, and return that file's path.

    Raises what `record.read_run` raises where the folder is no run, or its run.json is damaged.
    """
    page = render(read_run(folder), language=language)
    path = folder / "report.html"
    draft = folder / f".report.{os.getpid()}.html"
    draft.write_text(page, encoding="utf-8")
    draft.replace(path)
    return path


def render(run: Run, *, language: str = "en") -> str:
    """The page, opening in `language` (en or zh). Equal records give equal bytes."""
    made = stages(run)
    compared = [entry for entry in comparisons(run) if not is_told_here(entry)]
    return (
        environment()
        .get_template("page.html")
        .render(
            language=language,
            title=str(run.run.get("name") or run.run.get("id") or "–"),
            status=status(run),
            verdict=verdict(run),
            error=str(table(run.run.get("summary")).get("error") or ""),
            asked=views.asked(run),
            recipe=views.recipe(run.run),
            comparisons=[views.compared(entry) for entry in compared[: views.LINES_AT_MOST]],
            kept=kept(run),
            stream=stream(run),
            classes=classes(run),
            stages=[_drawn(run, stage) for stage in made[: views.STAGES_AT_MOST]],
            undrawn=len(made[views.STAGES_AT_MOST :]),
            ledger=views.ledger(run.data),
            lengths=views.lengths(run.data),
            findings=views.findings(run.findings),
            samples=views.samples(run.evals),
            pictured=pictured(run),
            speed=views.speed(run),
            origin=views.origin(run.run),
            hashes=views.hashes(run),
        )
    )


def _drawn(run: Run, stage: Stage) -> dict[str, Any]:
    """The verdict and the figures of one stage."""
    fits = recorded(run)
    fit = fits[stage.number] if 0 <= stage.number < len(fits) else None
    large = [figure for figure in (loss_figure(stage), gap_figure(stage)) if figure is not None]
    way = divergence_figure(run, stage)
    small = [*small_figures(stage), *([way] if way is not None else [])]
    return {"card": card(fit), "large": large, "small": small}


@cache
def environment() -> Environment:
    """Templates that cannot print anything raw: `finalize` sees every value before it reaches the page."""
    made = Environment(
        loader=PackageLoader("mingshi.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printed,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    helpers: Mapping[str, Callable[..., Any]] = {"word": word, "either": either, "text": _text}
    made.globals.update(helpers, version=_version())
    return made


def _printed(value: object) -> Markup:
    if isinstance(value, Markup):
        return value
    return value.html() if isinstance(value, Both) else visible_html("" if value is None else str(value))


def _text(value: object, limit: int = TEXT_AT_MOST) -> Markup:
    """Text from data, cut where it would swamp the page."""
    said = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    kept = said[:limit]
    while len(shown := visible_html(kept)) > GROWTH * limit:  # marks are longer than what they stand for
        kept = kept[: len(kept) // 2]
    if len(kept) == len(said):
        return shown
    return shown + Markup('<em class="more">{}</em>').format(
        word("page.more", count=f"{len(said) - len(kept):,}").html()
    )


def _version() -> str:
    try:
        return version("mingshi")
    except PackageNotFoundError:
        return ""
