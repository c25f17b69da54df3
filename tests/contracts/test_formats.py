"""What holds of every format in the table: a new one gets these tests by being in it (and by having a fixture)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as values

from mingshi.data.formats import FORMATS, DataSource, FormatName, detect, read, read_rows
from mingshi.data.formats.rows import Row, file_rows
from mingshi.types import Example, Reject

FIXTURES = Path(__file__).parent.parent / "data" / "fixtures"
FILES = {
    "answers": ("answers.jsonl",),
    "captions": ("captions.jsonl", "captions-named.jsonl", "captioned.csv"),
    "chat": ("chat.jsonl", "sharegpt.jsonl"),
    "choices": ("choices.jsonl",),
    "constrained": ("constrained.jsonl",),
    "instruct": ("instruct.jsonl", "pairs.jsonl", "text.txt"),
    "labelled": ("labelled.csv", "labels.jsonl"),
    "preference": ("preference.jsonl",),
}
CASES = [(form, str(FIXTURES / name)) for form, names in FILES.items() for name in names]
LAYOUTS = [pytest.param(form, each, id=f"{form}-{'-'.join(each.needs)}") for form in FORMATS for each in FORMATS[form]]


@pytest.fixture(scope="module", autouse=True)
def beside_the_fixtures() -> Iterator[None]:
    """Pictures are named from where they lie."""
    with chdir(FIXTURES):
        yield


every_file = pytest.mark.parametrize(("form", "path"), CASES, ids=[Path(path).name for _, path in CASES])
every_layout = pytest.mark.parametrize(("form", "layout"), LAYOUTS)


def good_row(form: str, needs: tuple[str, ...]) -> dict[str, Any]:
    """A row of the fixtures that has the columns of one layout."""
    rows = [row for name in FILES[form] for row in file_rows(str(FIXTURES / name)) if isinstance(row, Row)]
    first = next(row for row in rows if set(needs) <= set(row.fields) and not _better(row, form, needs))
    return dict(first.fields)


def _better(row: Row, form: str, needs: tuple[str, ...]) -> bool:
    fitting = next(each for each in FORMATS[form] if set(each.needs) <= set(row.fields))
    return fitting.needs != needs


def test_the_table_and_the_setting_name_the_same_formats() -> None:
    assert {"auto", *FORMATS} == set(get_args(FormatName))
    assert FILES.keys() == FORMATS.keys()


@every_file
def test_every_row_of_a_good_file_is_read(form: str, path: str) -> None:
    examples = list(read(DataSource(path=path, format=form)))  # type: ignore[arg-type]
    assert len(examples) == 5
    assert all(isinstance(example, Example) for example in examples)


@every_file
def test_the_format_is_detected_and_the_sentence_names_it(form: str, path: str) -> None:
    found, why = detect(path)
    assert found == form
    assert form in why and "\n" not in why
    assert list(read(DataSource(path=path))) == list(read(DataSource(path=path, format=form)))  # type: ignore[arg-type]


@every_file
def test_ids_are_unique_and_every_reading_gives_the_same(form: str, path: str) -> None:
    once, again = list(read(DataSource(path=path))), list(read(DataSource(path=path)))
    assert once == again
    ids = [example.id for example in once if isinstance(example, Example)]
    assert len(set(ids)) == len(ids) == 5
    assert all(example.group for example in once if isinstance(example, Example))


@every_layout
def test_a_missing_column_is_named(form: str, layout: Any) -> None:
    for name in layout.needs:
        row = good_row(form, layout.needs)
        del row[name]
        (outcome,) = read_rows([row], format=form, on_bad_row="skip")  # type: ignore[arg-type]
        if isinstance(outcome, Reject):  # what is left may be a row of another layout
            assert outcome.reason == "missing_field"
            assert "no '" in outcome.detail
    (nothing,) = read_rows([{"zzz": 1}], format=form, on_bad_row="skip")  # type: ignore[arg-type]
    assert isinstance(nothing, Reject) and nothing.reason == "missing_field"


@every_layout
def test_a_null_column_is_a_missing_column(form: str, layout: Any) -> None:
    row = good_row(form, layout.needs)
    nulls = {name: None for each in FORMATS[form] for name in (*each.needs, *each.may) if name not in row}
    plain, padded = (list(read_rows([fields], format=form)) for fields in (row, {**row, **nulls}))  # type: ignore[arg-type]
    assert plain == padded


ANYTHING = values.recursive(
    values.none()
    | values.booleans()
    | values.integers()
    | values.floats()
    | values.text(values.characters(codec=None), max_size=5)
    | values.binary(max_size=3),
    lambda inner: (
        values.lists(inner, max_size=3)
        | values.dictionaries(
            values.sampled_from(
                [
                    "role",
                    "content",
                    "from",
                    "value",
                    "tool_calls",
                    "function",
                    "name",
                    "arguments",
                    "train",
                    "type",
                    "text",
                ]
            ),
            inner | values.sampled_from(["user", "assistant", "gpt", "function_call", "text", "{}", "[]"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)
NAMES = sorted({name for form in FORMATS.values() for each in form for name in (*each.needs, *each.may)})


@every_layout
@given(data=values.data())
@settings(max_examples=60, deadline=None, database=None)
def test_whatever_a_column_holds_the_row_is_an_example_or_a_short_reject(form: str, layout: Any, data: Any) -> None:
    row = good_row(form, layout.needs)
    names = data.draw(
        values.lists(values.sampled_from([*layout.needs, *NAMES, "id", "group", "attributes"]), max_size=3)
    )
    for name in names:
        row[name] = data.draw(ANYTHING)
    (outcome,) = read_rows([row], format=form, on_bad_row="skip")  # type: ignore[arg-type]
    assert isinstance(outcome, Example | Reject)
    if isinstance(outcome, Reject):
        assert outcome.reason and len(outcome.detail) <= 240 and "\n" not in outcome.detail
