"""Rows that only ask: a `prompt`, or `messages` without an answer. A model can answer them, and nothing can train.

Each is read as if it were answered, by the format that it would then have, and the answer is taken out again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from mingshi.data.formats import FORMATS, LISTED, DataSource, read
from mingshi.data.formats.fields import layout, listing, present
from mingshi.data.formats.rows import BadRow, Row, file_rows
from mingshi.errors import DataError, Problem
from mingshi.types import Chat, Example, Message, Reject

ANSWERS = ("completion", "response", "chosen", "rejected", "answer", "answers")
ANSWER = {"role": "assistant", "content": "answer"}


def read_to_answer(source: DataSource) -> Iterator[Example | Reject]:
    """What `read` gives; or, where the first row only asks, questions in the same way."""
    first = next(file_rows(source.path))
    if not isinstance(first, Row) or source.format != "auto" or source.columns or not _only_asks(first):
        yield from read(source)
        return
    problems: list[Problem] = []
    for row in islice(file_rows(source.path), source.limit):
        outcome = _question(row) if isinstance(row, Row) else row
        if isinstance(outcome, Example) or source.on_bad_row == "skip":
            yield outcome
            continue
        what, _, mend = outcome.detail.partition(". ")
        problems.append(Problem(file=outcome.source, line=outcome.line, what=what, mend=mend))
    if problems:
        raise DataError(problems[:LISTED])


def turn(message: Message) -> dict[str, Any]:
    """A message as the chat format reads it."""
    more = {"tool_calls": list(message.tool_calls), "tool_call_id": message.tool_call_id, "name": message.name}
    more |= {"reasoning": message.reasoning}
    return {"role": message.role, "content": message.content} | {name: value for name, value in more.items() if value}


def _only_asks(row: Row) -> bool:
    names, messages = present(row.fields), row.fields.get("messages")
    if "messages" not in names:
        return "prompt" in names and names.isdisjoint(ANSWERS)
    roles = [each.get("role") for each in messages if isinstance(each, Mapping)] if isinstance(messages, list) else []
    return bool(roles) and "assistant" not in roles


def _question(row: Row) -> Example | Reject:
    """The row without its answer, or with an answer where it has one after all."""
    names, fields = present(row.fields), dict(row.fields)
    only_asks, form = _only_asks(row), "chat" if "messages" in names else "instruct"
    try:
        if only_asks and form == "chat":
            fields["messages"] = [*listing(fields["messages"], "messages"), ANSWER]
        elif only_asks:
            fields["completion"] = ANSWER["content"]
        chat = layout(present(fields), FORMATS[form]).read(replace(row, fields=fields))
    except BadRow as bad:
        return bad.reject(row.source, row.line)
    return replace(chat, messages=chat.messages[:-1]) if only_asks and isinstance(chat, Chat) else chat
