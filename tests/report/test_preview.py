"""Tokens and weights, on a page and in a terminal."""

from __future__ import annotations

import io
import re

import pytest
from report.payloads import MARKUP, PAYLOADS
from report.test_page import ATTRIBUTES, TAGS, Reader
from rich.console import Console

from mingshi.report.preview import preview_html, preview_text


def tokens(*columns: tuple[str, float, str]) -> list[dict[str, object]]:
    return [{"text": text, "weight": weight, "reason": reason} for text, weight, reason in columns]


ROWS = [
    {
        "id": "a",
        "source": "data/train.jsonl",
        "line": 12,
        "tokens": tokens(
            ("<|im_start|>", 0.0, "header"),
            ("user\n", 0.0, "header"),
            ("Hi", 0.0, "prompt"),
            (" there", 0.0, "prompt"),
            ("Yes", 1.0, "content"),
            (",\n", 1.0, "content"),
            ("sir", 0.5, "content"),
            ("<|im_end|>", 1.0, "stop"),
        ),
    },
    {"id": "data/train.jsonl:13", "source": "data/train.jsonl", "line": 13, "rejected": "bad_json: not\nJSON"},
]


def printed(rows: list[dict[str, object]], *, language: str = "en", width: int = 80) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, force_terminal=False, highlight=False).print(
        preview_text(rows, language=language)
    )
    return stream.getvalue()


def test_the_page_shows_each_token_trained_or_not() -> None:
    page = preview_html(ROWS)
    assert re.findall('<span class="token trained">([^<]*)', page)[1:] == ["Yes", ",", "sir", "&lt;|im_end|&gt;"]
    assert page.count('<span class="token">') == 1 + 4  # the legend's, and four that are only read
    assert "4 of 8 tokens trained (50.0 %)" in page and "8 个词元中训练 4 个（50.0%）" in page
    assert "answer, weight 0.5" in page and "end token" in page and "bad_json" in page


def test_white_space_shows_as_signs_and_still_breaks_lines() -> None:
    page = preview_html(ROWS)
    assert '<span class="token"><s>·</s>there</span>' in page
    assert '<span class="token">user<s>↵</s>\n</span>' in page


def test_a_hostile_preview_is_inert() -> None:
    rows = [{"id": text, "source": text, "line": 1, "tokens": tokens((text, 1.0, text))} for text in PAYLOADS]
    page = preview_html([*rows, {"id": "x", "rejected": PAYLOADS[0]}])
    reader = Reader(page)
    assert set(reader.tags) <= TAGS and {name for _, name, _ in reader.attributes} <= ATTRIBUTES
    assert [text for text in MARKUP if re.search("[<>\"']", text) and text in page] == []
    assert "\x1b" not in page and "\u202e" not in page


def test_a_terminal_gets_no_control_character() -> None:
    rows = [{"id": text, "source": text, "line": 1, "tokens": tokens((text, 1.0, text))} for text in PAYLOADS]
    said = printed([*rows, {"id": "x", "rejected": "\x1b[2Jbad"}])
    assert re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u202e\u2066]", said) == []
    assert "<U+001B>" in said and "<U+202E>" in said


def test_the_terminal_tells_trained_from_read_without_colour_too() -> None:
    styles = {span.style for span in preview_text(ROWS).spans}
    assert any("underline" in str(style) for style in styles)


def test_the_terminal_lines_up_reasons_and_tokens() -> None:
    lines = printed(ROWS).splitlines()
    assert lines[0] == "data/train.jsonl:12"
    assert "  prompt          Hi·there" in lines
    assert lines[lines.index("+ answer          Yes,↵") + 1].startswith("+ answer, weight")
    assert "4 of 8 tokens trained (50.0 %)" in lines
    assert "Not used: bad_json: not JSON" in lines


def test_chinese_labels_take_two_columns_each() -> None:
    assert "  提示            Hi·there" in printed(ROWS, language="zh").splitlines()


def test_output_without_any_style_tells_trained_from_read_by_a_sign() -> None:
    lines = [line for line in printed(ROWS).splitlines() if line.startswith(("+ ", "  "))]
    assert [line[0] for line in lines] == [*"  ++++"]


def test_the_reason_is_a_hint_on_its_tokens() -> None:
    page = preview_html(ROWS)
    assert page.count('title="prompt · 提示"') == 1 and page.count('title="answer · 回答"') == 1
    hostile = preview_html([{"id": "a", "tokens": tokens(("x", 1.0, '"><script>\u202e'))}])
    assert 'title="&#34;&gt;&lt;script&gt;&lt;U+202E&gt;"' in hostile


def test_a_row_that_is_not_used_is_shown_with_its_reason() -> None:
    page = preview_html(ROWS)
    assert page.count('<p class="finding warning">') == 1 and "bad_json: not\nJSON" in page
    assert "Not used:" in page and "未采用：" in page


@pytest.mark.parametrize("rows", [[], [{"id": "a", "tokens": []}]])
def test_nothing_to_show_is_shown(rows: list[dict[str, object]]) -> None:
    assert preview_html(rows).rstrip().endswith("</html>")
    assert printed(rows)
