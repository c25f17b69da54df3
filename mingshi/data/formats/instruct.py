"""Instructions with their answers, prompts with their completions, and plain text.

Only the answer is trained: answers inside a history or a prompt are marked `train=False`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mingshi.data.formats.chat import check_answers, first_question, said, with_system
from mingshi.data.formats.fields import Format, Layout, given, listing, optional_text, origin, text
from mingshi.data.formats.rows import BadRow, Row
from mingshi.types import Chat, Message

PAIRS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("input", "output"))


def read_instruction(row: Row) -> Chat:
    """An Alpaca row: `instruction`, perhaps `input`, `output`, perhaps `system` and `history`.

    The input is a message of its own, with the role `input`: how it is set apart is the template's to say.
    """
    instruction = text(row.fields["instruction"], "instruction")
    added = optional_text(row, "input") or ""
    output = text(row.fields["output"], "output")
    question = [
        Message(role=role, content=said) for role, said in (("user", instruction), ("input", added)) if said.strip()
    ]
    if not question:
        raise BadRow("empty_prompt", "empty, and so is the input", mend="Write what is asked.", field="instruction")
    if question[0].role == "input":
        question = [Message(role="user", content=added)]
    answer = (Message(role="assistant", content=output),)
    check_answers(answer, "output")
    messages = with_system((*_history(row), *question, *answer), optional_text(row, "system"))
    return Chat(**origin(row, first_question(messages)), messages=messages)


def _history(row: Row) -> tuple[Message, ...]:
    turns: list[Message] = []
    for index, pair in enumerate(listing(given(row, "history") or [], "history")):
        field = f"history[{index}]"
        both = listing(pair, field)
        if len(both) != 2:
            raise BadRow("wrong_type", f"{len(both)} texts, not 2", mend="Write [question, answer].", field=field)
        turns.append(Message(role="user", content=text(both[0], field)))
        turns.append(Message(role="assistant", content=text(both[1], field), train=False))
    return tuple(turns)


def _read_pair(row: Row, prompt: str, answer: str) -> Chat:
    """A prompt and its completion, each a text or a list of messages."""
    question = tuple(
        replace(message, train=False) if message.role == "assistant" else message
        for message in said(row.fields[prompt], prompt, "user")
    )
    if not any(message.content.strip() for message in question):
        raise BadRow("empty_prompt", "an empty prompt", mend="Write what is asked.", field=prompt)
    completion = said(row.fields[answer], answer, "assistant")
    check_answers(completion, answer)
    messages = with_system((*question, *completion), optional_text(row, "system"))
    return Chat(**origin(row, first_question(messages)), messages=messages)


def read_text(row: Row) -> Chat:
    """Plain text to continue: one assistant turn without a template around it."""
    content = text(row.fields["text"], "text")
    if not content.strip():
        raise BadRow("empty_text", "an empty text", mend="Take the row out.", field="text")
    return Chat(**origin(row, [content]), messages=(Message(role="assistant", content=content),), plain=True)


def _pair(prompt: str, answer: str) -> Layout:
    read: Callable[[Row], Chat] = partial(_read_pair, prompt=prompt, answer=answer)
    return Layout(needs=(prompt, answer), may=("system",), read=read)


FORMAT: Format = (
    Layout(needs=("instruction", "output"), may=("input", "system", "history"), read=read_instruction),
    *(_pair(prompt, answer) for prompt, answer in PAIRS),
    Layout(needs=("text",), read=read_text),
)
