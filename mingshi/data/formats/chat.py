"""Conversations: `messages` as OpenAI writes them, `conversations` as ShareGPT does.

Either list may use either spelling of its messages. Two turns of one role in a row, a conversation that opens with an
answer and one that ends with a question are all read as they stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import orjson

from mingshi.data.formats.fields import (
    Format,
    Layout,
    given,
    listing,
    mapping,
    nearest,
    optional_text,
    origin,
    text,
    without_nulls,
)
from mingshi.data.formats.rows import BadRow, Row
from mingshi.types import Chat, Message

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "input": "input",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_call": "assistant",
}
YES_OR_NO: Mapping[float, bool] = {1: True, 0: False}  # True, 1.0, False and 0.0 are equal to these, and hash alike


def read_messages(row: Row) -> Chat:
    """A row with `messages`."""
    return _chat(row, "messages")


def read_conversations(row: Row) -> Chat:
    """A row with `conversations`."""
    return _chat(row, "conversations")


def _chat(row: Row, name: str) -> Chat:
    messages = with_system(conversation(row.fields[name], name), optional_text(row, "system"))
    check_answers(messages, name)
    return Chat(**origin(row, first_question(messages)), messages=messages, tools=_tools(given(row, "tools")))


def conversation(value: Any, field: str) -> tuple[Message, ...]:
    """The messages of a list, at least one; raises BadRow with the place of the first that is wrong."""
    messages = tuple(_message(item, f"{field}[{index}]") for index, item in enumerate(listing(value, field)))
    if not messages:
        raise BadRow("no_answer", "an empty list", mend="Give it a question and an answer.", field=field)
    return messages


def said(value: Any, field: str, role: str) -> tuple[Message, ...]:
    """Messages, from a list of them or from one text said by `role`."""
    if isinstance(value, str):
        return (Message(role=role, content=text(value, field)),)
    return conversation(value, field)


def with_system(messages: tuple[Message, ...], system: str | None) -> tuple[Message, ...]:
    """The messages under the system prompt that the row keeps in a column of its own."""
    if system is None:
        return messages
    own = next((message.content for message in messages if message.role == "system"), None)
    if own is None:
        return (Message(role="system", content=system), *messages)
    if own != system:
        raise BadRow("contradiction", "differs from the system message", mend="Keep one of them.", field="system")
    return messages


def check_answers(messages: Sequence[Message], field: str) -> None:
    """At least one answer, and none that is empty unless the row says not to train it; else BadRow."""
    if not any(message.role == "assistant" for message in messages):
        roles = ", ".join(sorted({message.role for message in messages}))
        raise BadRow("no_answer", f"no assistant message among {roles}", mend="Add the answer.", field=field)
    for index, message in enumerate(messages):
        blank = not (message.content.strip() or message.tool_calls or (message.reasoning or "").strip())
        if message.role == "assistant" and blank and message.train is not False:
            place = f"{field}[{index}]" if len(messages) > 1 else field
            raise BadRow("empty_answer", "an empty answer", mend="Fill it, or take the row out.", field=place)


def first_question(messages: Iterable[Message]) -> list[str]:
    """What is asked before the first answer: the row's group is made of it. Without a question, everything said."""
    messages = list(messages)
    before = takewhile(lambda message: message.role != "assistant", messages)
    asked = [message.content for message in before if message.role in ("user", "input")]
    return asked or [message.content for message in messages]


# One message


def _message(value: Any, field: str) -> Message:
    fields = mapping(value, field)
    role_key, content_key = ("from", "value") if fields.get("from") is not None else ("role", "content")
    said_by = text(_needed(fields, role_key, field), f"{field}.{role_key}")
    role = ROLES.get(said_by)
    if role is None:
        raise _unknown_role(said_by, f"{field}.{role_key}")
    calls: tuple[Mapping[str, Any], ...] = ()
    if said_by == "function_call":
        calls, content = (_written_call(fields.get(content_key), f"{field}.{content_key}"),), ""
    else:
        calls = _tool_calls(fields, field)
        content = "" if calls and fields.get(content_key) is None else _content(fields, content_key, field)
    return Message(
        role=role,
        content=content,
        train=_train(fields, field),
        tool_calls=calls,
        tool_call_id=_optional(fields, ("tool_call_id",), field),
        name=_optional(fields, ("name",), field),
        reasoning=_optional(fields, ("reasoning_content", "reasoning", "thinking"), field),
    )


def _unknown_role(role: str, field: str) -> BadRow:
    near = nearest(role, ROLES)
    mend = f"Did you mean {near!r}?" if near else "Use system, user, assistant or tool."
    return BadRow("unknown_role", f"unknown role {role[:30]!r}", mend=mend, field=field)


def _needed(fields: Mapping[str, Any], name: str, field: str) -> Any:
    value = fields.get(name)
    if value is None:
        near = next((key for key in fields if key != name and nearest(key, [name])), None)
        mend = f"Rename {near!r} to {name!r}." if near else 'Write {"role": …, "content": …}.'
        raise BadRow("missing_field", f"no {name!r}", mend=mend, field=field)
    return value


def _optional(fields: Mapping[str, Any], names: Iterable[str], field: str) -> str | None:
    return next((text(fields[name], f"{field}.{name}") for name in names if fields.get(name) is not None), None)


def _content(fields: Mapping[str, Any], key: str, field: str) -> str:
    value = _needed(fields, key, field)
    place = f"{field}.{key}"
    return "".join(_part(part, place) for part in value) if isinstance(value, list | tuple) else text(value, place)


def _part(part: Any, field: str) -> str:
    if isinstance(part, str):
        return text(part, field)
    fields = mapping(part, field)
    if fields.get("type", "text") != "text":
        what = f"a part of type {str(fields['type'])[:30]!r}"
        raise BadRow("not_text", what, mend="Only text parts can be read here.", field=field)
    return text(fields.get("text"), f"{field}.text")


def _train(fields: Mapping[str, Any], field: str) -> bool | None:
    """`train`, `weight` and `loss` are three dialects for: is this message learnt."""
    answers = set()
    for name in ("train", "weight", "loss"):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, bool | int | float) or value not in YES_OR_NO:
            raise BadRow("wrong_type", "neither yes nor no", mend="Write true or false.", field=f"{field}.{name}")
        answers.add(YES_OR_NO[value])
    if len(answers) > 1:
        raise BadRow("contradiction", "train, weight and loss disagree", mend="Keep one of them.", field=field)
    return answers.pop() if answers else None


# Tools


def _tools(value: Any) -> tuple[Mapping[str, Any], ...]:
    """The tools offered. What is written as JSON text is kept to the letter; Arrow's null keys are not."""
    if value is None:
        return ()
    tools = listing(value, "tools")
    tools = tools if isinstance(value, str) else without_nulls(tools)
    return tuple(mapping(tool, f"tools[{index}]") for index, tool in enumerate(tools))


def _tool_calls(fields: Mapping[str, Any], field: str) -> tuple[Mapping[str, Any], ...]:
    value = fields.get("tool_calls")
    if value is None:
        return ()
    place = f"{field}.tool_calls"
    return tuple(_call(call, f"{place}[{index}]") for index, call in enumerate(without_nulls(listing(value, place))))


def _call(value: Any, field: str) -> Mapping[str, Any]:
    """A call as templates expect it: `{"type": "function", "function": {"name": …, "arguments": {…}}}`."""
    call = dict(mapping(value, field))
    function = call.pop("function", None)
    if function is None:
        call, function = {}, call
    function = mapping(function, f"{field}.function")
    text(function.get("name"), f"{field}.function.name")
    place = f"{field}.function.arguments"
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        arguments = _json_object(arguments or "{}", place)
    return {"type": "function", **call, "function": {**function, "arguments": mapping(arguments, place)}}


def _written_call(value: Any, field: str) -> Mapping[str, Any]:
    return _call(_json_object(text(value, field), field), field)


def _json_object(written: str, field: str) -> Any:
    try:
        return orjson.loads(written)
    except orjson.JSONDecodeError as error:
        what = f"invalid JSON at column {error.colno}"
        raise BadRow("bad_tool_call", what, mend='Write {"name": …, "arguments": {…}}.', field=field) from error


FORMAT: Format = (
    Layout(needs=("messages",), may=("system", "tools"), read=read_messages),
    Layout(needs=("conversations",), may=("system", "tools"), read=read_conversations),
)
