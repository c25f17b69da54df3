"""A prompt with a better and a worse answer, each a text or a list of messages.

Where `chosen` and `rejected` are whole conversations, the prompt is what they share.
"""

from __future__ import annotations

from itertools import takewhile

from mingshi.data.formats.chat import check_answers, first_question, said, with_system
from mingshi.data.formats.fields import Format, Layout, optional_text, origin
from mingshi.data.formats.rows import BadRow, Row
from mingshi.types import Message, Preference

Turns = tuple[Message, ...]


def read_with_prompt(row: Row) -> Preference:
    """A row with `prompt`, `chosen` and `rejected`."""
    prompt = said(row.fields["prompt"], "prompt", "user")
    if not any(message.content.strip() for message in prompt):
        raise BadRow("empty_prompt", "an empty prompt", mend="Write what is asked.", field="prompt")
    return _preference(row, prompt)


def read_conversations(row: Row) -> Preference:
    """A row with `chosen` and `rejected`, both whole conversations."""
    for name in ("chosen", "rejected"):
        if isinstance(row.fields[name], str):
            mend = "Add the prompt, or write both answers as lists of messages."
            raise BadRow("missing_field", f"{name!r} is a text, and there is no 'prompt'", mend=mend)
    return _preference(row, ())


def _preference(row: Row, prompt: Turns) -> Preference:
    chosen = said(row.fields["chosen"], "chosen", "assistant")
    rejected = said(row.fields["rejected"], "rejected", "assistant")
    check_answers(chosen, "chosen")
    check_answers(rejected, "rejected")
    if chosen == rejected:
        mend = "Take the row out: there is nothing to prefer."
        raise BadRow("same_answers", "chosen and rejected are the same", mend=mend)
    shared = _shared(chosen, rejected)
    if not prompt or (shared and shared[: len(prompt)] == prompt):
        prompt, chosen, rejected = shared, chosen[len(shared) :], rejected[len(shared) :]
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not prompt or not answer or answer[0].role != "assistant":
            mend = "Both must share the prompt and then answer."
            raise BadRow("no_shared_prompt", "does not answer the prompt of the other", mend=mend, field=name)
    prompt = with_system(prompt, optional_text(row, "system"))
    origins = origin(row, first_question(prompt))
    return Preference(**origins, prompt=prompt, chosen=chosen, rejected=rejected)


def _shared(chosen: Turns, rejected: Turns) -> Turns:
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False))
    return tuple(first for first, _ in pairs)


FORMAT: Format = (
    Layout(needs=("prompt", "chosen", "rejected"), may=("system",), read=read_with_prompt),
    Layout(needs=("chosen", "rejected"), may=("system",), read=read_conversations),
)
