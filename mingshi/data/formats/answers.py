"""A prompt and answers that somebody has ranked or scored: what preference pairs are made of.

`answers` are texts beside `scores` (the higher, the better) or `ranks` (1 is the best), or objects that hold their own.
Where each row holds one `answer` and its `score`, the rows of one prompt belong together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mingshi.data.formats.chat import first_question, said, with_system
from mingshi.data.formats.fields import Format, Layout, given, kind, listing, mapping, optional_text, origin, text
from mingshi.data.formats.rows import BadRow, Row
from mingshi.types import Answer, Answered

LARGEST = 1e300


def read_answers(row: Row) -> Answered:
    """A row with `prompt` and `answers`, and with `scores` or `ranks` in the row or in the answers."""
    answers = [
        _answer(item, f"answers[{place}]") for place, item in enumerate(listing(row.fields["answers"], "answers"))
    ]
    if not answers:
        raise BadRow("no_answer", "an empty list", mend="Give it at least two answers.", field="answers")
    for name, sign in (("scores", 1.0), ("ranks", -1.0)):
        inside = [answer.get(name[:-1]) for answer in answers]
        if given(row, name) is not None:
            inside = listing(row.fields[name], name)
        if len(inside) != len(answers):
            what = f"{len(inside)} numbers for {len(answers)} answers"
            raise BadRow("wrong_length", what, mend="Give each answer one.", field=name)
        if any(value is not None for value in inside):
            scores = [sign * _number(value, f"{name}[{place}]") for place, value in enumerate(inside)]
            return _answered(row, [answer | {"score": score} for answer, score in zip(answers, scores, strict=True)])
    raise BadRow("missing_field", "no 'scores' and no 'ranks'", mend="Say which answers are better.")


def read_answer(row: Row) -> Answered:
    """A row with `prompt`, one `answer` and its `score`."""
    answer = text(row.fields["answer"], "answer")
    score = _number(row.fields["score"], "score")
    return _answered(row, [{"text": answer, "score": score, "by": optional_text(row, "by") or ""}])


def _answered(row: Row, answers: Sequence[Mapping[str, Any]]) -> Answered:
    prompt = said(row.fields["prompt"], "prompt", "user")
    if not any(message.content.strip() for message in prompt):
        raise BadRow("empty_prompt", "an empty prompt", mend="Write what is asked.", field="prompt")
    prompt = with_system(prompt, optional_text(row, "system"))
    made = tuple(Answer(text=each["text"], score=each["score"], by=each["by"]) for each in answers)
    return Answered(**origin(row, first_question(prompt)), prompt=prompt, answers=made)


def _answer(value: Any, field: str) -> dict[str, Any]:
    """Text, score, rank and writer of an answer, as far as it has them."""
    if isinstance(value, str):
        return {"text": text(value, field), "by": ""}
    fields = mapping(value, field)
    if fields.get("text") is None:
        raise BadRow("missing_field", "no 'text'", mend='Write {"text": …, "score": …}.', field=field)
    by = fields.get("by")
    told = {"text": text(fields["text"], f"{field}.text"), "by": "" if by is None else text(by, f"{field}.by")}
    return told | {name: fields[name] for name in ("score", "rank") if fields.get(name) is not None}


def _number(value: Any, field: str) -> float:
    if isinstance(value, str):  # a table's cell
        try:
            value = float(value)
        except ValueError:
            raise BadRow("wrong_type", "text, not a number", mend="Write a number.", field=field) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadRow("wrong_type", f"{kind(value)}, not a number", mend="Write a number.", field=field)
    if not abs(value) <= LARGEST:  # true of NaN as well
        raise BadRow("not_finite", "NaN or infinite", mend="Write a number.", field=field)
    return float(value)


FORMAT: Format = (
    Layout(needs=("prompt", "answers"), may=("scores", "ranks", "system"), read=read_answers),
    Layout(needs=("prompt", "answer", "score"), may=("system", "by"), read=read_answer),
)
