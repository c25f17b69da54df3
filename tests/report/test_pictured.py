"""What a page shows of pictures: only those that lie in the record, queries with what they found, the map."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report.payloads import PAYLOADS

from mingshi.record import Run
from mingshi.report.page import render
from mingshi.report.pictured import address, pictured

PICTURE = "data:image/jpeg;base64,/9j/4AAQ"


def run(*samples: dict[str, Any], data: str = "test", when: str = "after") -> Run:
    entry = {"evaluator": "retrieval", "when": when, "data": data, "samples": list(samples)}
    return Run(folder=Path("."), status="done", run={}, data={}, steps=[], evals=[entry], findings=[])


def query(text: str = "a cat", image: str = PICTURE) -> dict[str, Any]:
    found = [{"text": text, "image": image, "similarity": 0.5, "right": True}]
    return {"direction": "image_to_text", "image": image, "own": text, "found": found}


def test_a_run_without_pictures_says_nothing() -> None:
    assert pictured(run({"prompt": "what?", "prediction": "that"})) is None


def test_queries_are_shown_with_what_they_found_and_are_no_answers() -> None:
    page = render(run(query()))
    assert page.count(PICTURE) == 2 and 'class="right"' in page
    assert "Texts found by a picture" in page and "以图找文" in page
    assert "Sample answers" not in page


def test_the_map_needs_a_number_for_each_pair() -> None:
    told = pictured(run(query(), {"similarity": [[0.9, 0.1], [0.2, 0.8]], "texts": ["a", "b"]}))
    assert told is not None and told["map"].rows == [["1 a", "0.90", "0.10"], ["2 b", "0.20", "0.80"]]
    for wrong in ([[0.9, 0.1]], [[0.9], [0.1]], [["NaN", 0.1], [0.2, 0.8]]):
        told = pictured(run(query(), {"similarity": wrong, "texts": ["a", "b"]}))
        assert told is not None and told["map"] is None, wrong


@pytest.mark.parametrize("value", ["https://x/a.jpg", "data:text/html;base64,AAAA", f'{PICTURE}" onload="x', None, 3])
def test_nothing_else_is_shown_as_a_picture(value: Any) -> None:
    assert address(value) == "" and address(PICTURE) == PICTURE


def test_what_data_say_stays_text() -> None:
    page = render(run(*(query(payload) for payload in PAYLOADS)))
    assert not [payload for payload in PAYLOADS if "<" in payload and payload in page]
