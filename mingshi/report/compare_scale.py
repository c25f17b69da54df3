"""The part of a comparison's page that is about amounts of data: verdicts, curves, and a table for each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mingshi.report.compare_names import Table, caption, in_words, is_main, main_metrics, number, of_test, other_metrics
from mingshi.report.compare_plots import ends, span_of, told_span
from mingshi.report.compare_words import compared
from mingshi.report.curves import Figure
from mingshi.report.numbers import p_value
from mingshi.report.plots import Frame, Scale, scale
from mingshi.report.words import Both, plain

STYLES = ("series", "series second", "series third", "series fourth")  # of the models, in turn
AIR = 1.25  # times: what an axis of amounts leaves free at both ends

Told = Mapping[str, Any]
Span = tuple[float, float, float]  # value, low and high


def scale_page(told: Told) -> dict[str, Any]:
    """What the page says of amounts of data, in the place of what it says of methods."""
    main = main_metrics(told)
    drawn = [_curves(told, name) for name in main]
    return {
        "kicker": compared("scale.title"),
        "about": about(told),
        "verdicts": [said for name in main if of_test(name) for said in verdicts(told, name)],
        "curves": [figure for figure in drawn if figure is not None],
        "tables": [_table(told, name) for name in main],
        "others": [_table(told, name) for name in other_metrics(told)],
        "how": compared("scale.how"),
        "costs": [],
        "trades": [],
    }


def about(told: Told) -> list[Both]:
    """Models, seeds, and whether epochs or steps are equal."""
    found = told["scale"]
    models = ", ".join(model["name"] for model in found["models"])
    length = "epochs" if found["steps"] is None else "steps"
    return [
        compared("scale.about", {"models": models, "seeds": ", ".join(map(str, told["seeds"]))}),
        compared(f"scale.{length}", {"count": f"{found[length]:g}"}),
    ]


def verdicts(told: Told, name: str) -> list[Both]:
    """A sentence for each model: from how many rows on more add nothing that can be shown, or that they would."""
    found = (model["curves"].get(name, {}).get("verdict") for model in told["scale"]["models"])
    return [Both(f"{one['said']['en']}.", f"{one['said']['zh']}。") for one in found if one is not None]


def steps(model: Told, name: str) -> dict[int, Told]:
    """By amount, its change from the amount before it; of the smallest, from the base model."""
    pairs = model["curves"].get(name, {}).get("pairs", ())
    return {pair["to"]: pair for pair in pairs}  # of the pairs that end there, the last begins the latest


def _table(told: Told, name: str) -> Table:
    higher = next(row["scores"][name]["higher_is_better"] for row in told["rows"] if name in row["scores"])
    scores = {row["name"]: row["scores"].get(name) for row in told["rows"]}
    head = [compared(key) for key in ("scale.cell", "value", "scale.gain", "scale.step", "scale.differs")]
    rows = []
    for model in told["scale"]["models"]:
        base = model["base"].get(name)
        rows.append([compared("scale.base", {"model": model["name"]}), number(base), *[plain("")] * 3])
        before = steps(model, name)
        for cell in model["cells"]:
            if (score := scores[cell["row"]]) is not None:
                step, place = before.get(cell["rows"]), compared("scale.amount", {"rows": f"{cell['rows']:,}"})
                cells = [number(score), number(score["change"], signed=True), number(step, signed=True)]
                rows.append([place, *cells, _claim(step)])
    notes = [] if is_main(name) and of_test(name) else verdicts(told, name)  # else they stand above
    return Table(caption=caption(name, higher), name=name, notes=notes, head=head, rows=rows)


def _claim(step: Told | None) -> Both:
    """Whether a step is told apart from none, with its p-value."""
    if step is None:
        return plain("")
    claim = compared({True: "yes", False: "no", None: "unclaimed"}[step["differs"]])
    return compared("scale.claim", {"claim": claim, "p": p_value(step["p_holm"])})


@dataclass(frozen=True, slots=True)
class Line:
    """What one model's scores come to by the amount of data."""

    label: str
    style: str
    points: Sequence[tuple[int, Span]]
    base: Span | None


def _curves(told: Told, name: str) -> Figure | None:
    """A line for each model; the base model's score is a dashed one."""
    scores = {row["name"]: row["scores"].get(name) for row in told["rows"]}
    lines = []
    for place, model in enumerate(told["scale"]["models"]):
        found = [(cell["rows"], span_of(scores[cell["row"]])) for cell in model["cells"]]
        points = [(rows, span) for rows, span in found if span is not None]
        if points:
            style = STYLES[place % len(STYLES)]
            lines.append(Line(model["name"], style, points, span_of(model["base"].get(name))))
    if not lines:
        return None
    amounts = sorted({float(rows) for line in lines for rows, _ in line.points})
    levels = [line.base[0] for line in lines if line.base is not None]
    frame = Frame(
        across=Scale(low=amounts[0] / AIR, high=amounts[-1] * AIR, logarithmic=True, marks=tuple(amounts)),
        up=scale([*ends([span for line in lines for _, span in line.points]), *levels]),
    )
    return Figure(
        title=compared("scale.curve", {"metric": in_words(name)}),
        drawing=frame.draw(*(part for line in lines for part in _drawn(frame, line)), height=260),
        legend=[(line.style, plain(line.label)) for line in lines],
        notes=[compared("scale.dashed")],
        columns=[compared("scale.model"), compared("scale.rows"), in_words(name)],
        rows=[[line.label, f"{rows:,}", told_span(span)] for line in lines for rows, span in line.points],
    )


def _drawn(frame: Frame, line: Line) -> list[Markup]:
    parts = [] if line.base is None else [frame.level(line.base[0], f"{line.style} base")]
    parts.append(frame.band([(rows, low, high) for rows, (_, low, high) in line.points], f"{line.style} band"))
    spots = [(float(rows), value) for rows, (value, _, _) in line.points]
    return [*parts, frame.curve(spots, line.style), frame.dots(spots, line.style)]
