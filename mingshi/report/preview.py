"""The tokens of a few rows and what is trained on them: a page, or coloured text for a terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from mingshi.report.marks import visible_html, visible_text
from mingshi.report.numbers import share
from mingshi.report.page import environment
from mingshi.report.words import Both, either, plain, word

if TYPE_CHECKING:
    from rich.text import Text

Row = Mapping[str, Any]
LINE_ENDS = str.maketrans({" ": "·", "\n": "↵\n", "\t": "⇥"})
SIGNS_HTML = {" ": Markup("<s>·</s>"), "\n": Markup("<s>↵</s>\n"), "\t": Markup("<s>⇥</s>")}
TRAINED, READ = "bold green underline", "dim"  # told apart without colour too
LABEL_WIDTH = 18  # columns of a terminal
MARKED, UNMARKED = "+ ", "  "  # trained or not, where a terminal or a file shows no style at all


def preview_html(rows: Sequence[Row], *, language: str = "en") -> str:
    """One page that shows each token, trained or not, and why.

    A row is `{id, source, line, tokens}` or `{id, source, line, rejected}`; a token is `{text, weight, reason}`. What
    the report promises holds here: everything is escaped, nothing is loaded, no script runs.
    """
    shown = [
        {"place": _place(row), "rejected": str(row.get("rejected") or ""), "counts": _counts([row])} for row in rows
    ]
    runs = [[_run_html(run) for run in _runs(row)] for row in rows]
    return (
        environment()
        .get_template("preview.html")
        .render(language=language, rows=list(zip(shown, runs, strict=True)), counts=_counts(rows), total=len(rows))
    )


def preview_text(rows: Sequence[Row], *, language: str = "en") -> Text:
    """The same for a terminal; `rows` as for `preview_html`. Control characters of the data are shown, not obeyed."""
    from rich.text import Text

    told = Text()
    for row in rows:
        told.append(visible_text(_place(row)), style="bold").append("\n")
        if row.get("rejected"):
            told.append(_say(word("preview.rejected"), language) + " ", style="red")
            told.append(visible_text(str(row["rejected"])).replace("\n", " ") + "\n\n")
            continue
        for trained, label, tokens in _runs(row):
            sign = MARKED if trained else UNMARKED
            told.append(_padded(sign + visible_text(_say(label, language))), style="cyan")
            said = "".join(visible_text(str(token.get("text", "")).translate(LINE_ENDS)) for token in tokens)
            lines = said.removesuffix("\n").split("\n")
            for number, line in enumerate(lines):
                told.append(" " * LABEL_WIDTH if number else "")  # by itself, or the indent were underlined
                told.append(line, style=TRAINED if trained else READ).append("\n")
        told.append(_say(_counts([row]), language) + "\n\n", style="italic")
    told.append(MARKED).append(_say(word("preview.trained"), language), style=TRAINED).append("   ")
    told.append(_say(word("preview.read"), language), style=READ).append("\n")
    return told


def _say(text: Both, language: str) -> str:
    return text.zh if language == "zh" else text.en


def _padded(label: str) -> str:
    """A label of its column's width in a terminal, where a Chinese character is two columns wide."""
    from rich.cells import set_cell_size

    return set_cell_size(label, LABEL_WIDTH - 1) + " "


def _place(row: Row) -> str:
    if row.get("source") is None or row.get("line") is None:
        return str(row.get("id", ""))
    return f"{row['source']}:{row['line']}"


def _runs(row: Row) -> Iterable[tuple[bool, Both, list[Row]]]:
    """Neighbouring tokens of one reason and one weight: (trained, label, tokens)."""
    for (weight, reason), tokens in groupby(
        row.get("tokens", ()), key=lambda token: (token["weight"], token["reason"])
    ):
        label = either("reason", reason)
        if weight not in (0, 1):
            weighed = word("preview.weight", weight=f"{weight:g}")
            label = Both(f"{label.en}, {weighed.en}", f"{label.zh}，{weighed.zh}")
        yield weight != 0, label, list(tokens)


def _counts(rows: Sequence[Row]) -> Both:
    weights = [token["weight"] for row in rows for token in row.get("tokens", ())]
    trained = sum(weight != 0 for weight in weights)
    counts = {"trained": f"{trained:,}", "tokens": f"{len(weights):,}", "share": share(trained, len(weights))}
    return word("preview.counts", **counts)


def _run_html(run: tuple[bool, Both, list[Row]]) -> tuple[Both, Both, str, Markup]:
    """Label, count, the label again as an attribute holds it, and the tokens as spans."""
    trained, label, tokens = run
    span = Markup('<span class="token trained">{}</span>' if trained else '<span class="token">{}</span>')
    drawn = Markup("").join(span.format(_token_html(str(token.get("text", "")))) for token in tokens)
    hint = escape(visible_text(label.en if label.en == label.zh else f"{label.en} · {label.zh}"))
    return label, plain(f"× {len(tokens):,}"), hint, drawn


def _token_html(text: str) -> Markup:
    """A token's text, its white space as faint signs."""
    return Markup("").join(SIGNS_HTML.get(part) or visible_html(part) for part in re.split("([ \n\t])", text))
