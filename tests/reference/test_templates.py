"""Our ids are those of `apply_chat_template`, and our masks those that template authors wrote."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import pytest
from jinja2 import TemplateError

sys.path.insert(0, str(Path(__file__).parents[1]))

from chat_families import FAMILIES, SHAPES, WEATHER, family_tokenizer, template_text, tokenizer_for

from mingshi.data.template import ChatTemplate, RowProblem, dictionaries, make_template, template_notes
from mingshi.types import Message, Rendered

GOLDEN = Path(__file__).parents[1] / "golden" / "masks"
CASES = [(family, shape) for family in FAMILIES for shape in SHAPES]


@cache
def template_of(family: str) -> ChatTemplate:
    tokenizer = family_tokenizer(family)
    return make_template(tokenizer, end_tokens=tokenizer.convert_tokens_to_ids(list(FAMILIES[family].ends)))


def tools_of(shape: str) -> tuple[Mapping[str, Any], ...]:
    return (WEATHER,) if shape == "tools" else ()


def reference_ids(family: str, messages: Sequence[Message], shape: str, *, prompt: bool = False) -> list[int] | None:
    """What transformers makes of it; None where the template refuses."""
    tokenizer = family_tokenizer(family)
    try:
        return list(
            tokenizer.apply_chat_template(
                dictionaries(messages),
                tools=list(tools_of(shape)) or None,
                add_generation_prompt=prompt,
                return_dict=False,
            )
        )
    except (TemplateError, TypeError, KeyError):
        return None


# templates without tools leave calls out without a word, and DeepSeek's prompt and answers begin differently
REFUSED = {(family, "tools"): "template_drops" for family in ("llama3", "phi3", "phi3_5", "lfm2")} | {
    ("deepseekv3", "empty"): "mask_unverified"
}


def rendered(family: str, messages: Sequence[Message], shape: str) -> Rendered | None:
    """None where the template refuses, or we do for a reason that is written above."""
    try:
        return template_of(family).render(messages, tools_of(shape))
    except RowProblem as problem:
        assert problem.reason == REFUSED.get((family, shape), "template_refused"), problem
        return None


def conversations(family: str, shape: str) -> list[tuple[Message, ...]]:
    try:
        return template_of(family).conversations(SHAPES[shape], tools_of(shape))
    except RowProblem as problem:
        assert problem.reason == REFUSED.get((family, shape), "template_refused"), problem
        return [SHAPES[shape]]


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_ids_are_those_of_transformers(family: str, shape: str) -> None:
    for messages in conversations(family, shape):
        expected = reference_ids(family, messages, shape)
        ours = rendered(family, messages, shape)
        assert (ours is None) == (expected is None or (family, shape) in REFUSED)
        if ours is not None and expected is not None:
            added = (template_of(family).end,) if family == "glm4moe" else ()  # GLM ends its last answer with nothing
            assert ours.tokens == (*expected, *added)


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_prompts_are_those_of_transformers(family: str, shape: str) -> None:
    messages = SHAPES[shape][:-1]
    expected = reference_ids(family, messages, shape, prompt=True)
    reason = REFUSED.get((family, shape), "template_refused")
    if expected is None or reason == "template_drops":
        with pytest.raises(RowProblem, match=reason):
            template_of(family).prompt(messages, tools_of(shape))
    else:
        assert template_of(family).prompt(messages, tools_of(shape)) == expected


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_training_begins_where_generation_would(family: str, shape: str) -> None:
    for messages in conversations(family, shape):
        ours = rendered(family, messages, shape)
        if ours is None or family == "deepseekv3":  # its prompt opens a thought that its rendered answers lack
            continue
        prompt = template_of(family).prompt(messages[:-1], tools_of(shape))
        assert list(ours.tokens[: len(prompt)]) == prompt
        assert ours.weights[len(prompt) - 1 : len(prompt) + 1] == (0.0, 1.0)


@pytest.mark.parametrize(("family", "shape"), CASES)
def test_every_answer_is_trained_with_its_stop_and_nothing_else(family: str, shape: str) -> None:
    template = template_of(family)
    for messages in conversations(family, shape):
        ours = rendered(family, messages, shape)
        if ours is None:
            continue
        runs = split_runs(ours)
        answers = [message for message in messages if message.role == "assistant" and message.train is not False]
        assert len(runs) == len(answers)
        for run, answer in zip(runs, answers, strict=True):
            assert run[-1] in template.stop
            said = answer.content.rpartition("</think>")[2].strip()
            assert said in template.encoder.decode(run)
            assert all(call["function"]["name"] in template.encoder.decode(run) for call in answer.tool_calls)


def split_runs(ours: Rendered) -> list[list[int]]:
    runs: list[list[int]] = [[]]
    for token, weight in zip(ours.tokens, ours.weights, strict=True):
        if weight:
            runs[-1].append(token)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_are_those_written_down(family: str) -> None:
    golden = orjson.loads((GOLDEN / f"{family}.json").read_bytes())
    assert golden == golden_masks(family)


def golden_masks(family: str) -> dict[str, list[Any]]:
    """For each shape, its conversations as runs of tokens: text, how many, weight, reason."""
    masks: dict[str, list[Any]] = {}
    for shape in SHAPES:
        rows = [rendered(family, messages, shape) for messages in conversations(family, shape)]
        masks[shape] = [described(template_of(family), row) if row else "refused" for row in rows]
    return masks


def described(template: ChatTemplate, ours: Rendered) -> list[list[Any]]:
    """Long headers are cut: they are the templates' authors' prose, and may hold a date."""
    entries: list[list[Any]] = []
    rows = zip(ours.tokens, ours.weights, ours.reasons, strict=True)
    for (weight, reason), run in groupby(rows, key=lambda row: (row[1], row[2])):
        tokens = [token for token, _, _ in run]
        text = template.encoder.decode(tokens)
        cut = f"…{text[-40:]}" if reason == "header" and len(text) > 60 else text
        entries.append([cut, len(tokens), weight, reason])
    return entries


TRAINING = (
    "qwen2_5",
    "qwen3_instruct_2507",
    "llama3",
    "gemma",
    "gemma3",
    "phi3_5",
    "cohere",
    "lfm2",
    "qwen3",
    "gptoss",
)


@pytest.mark.parametrize("family", TRAINING)
@pytest.mark.parametrize("shape", ["one turn", "two turns", "system", "unicode", "headers", "repeated", "tools"])
def test_masks_are_those_of_generation_tags(family: str, shape: str) -> None:
    """TRL's copies of these templates have the tags; the authors' masks equal ours, up to spaces after the stop."""
    tokenizer = tokenizer_for(family, template_text(f"{family}_training"))
    template = make_template(tokenizer)
    tools = tools_of(shape)
    try:
        conversation = template.conversations(SHAPES[shape], tools)[-1]
        ours = template.render(conversation, tools, train_on="all")
    except RowProblem as problem:
        assert problem.reason in ("template_refused", REFUSED.get((family, shape)))
        return
    theirs = tokenizer.apply_chat_template(
        dictionaries(conversation), tools=list(tools) or None, return_assistant_tokens_mask=True, return_dict=True
    )
    assert list(ours.tokens) == theirs["input_ids"]
    for index, (weight, expected) in enumerate(zip(ours.weights, theirs["assistant_masks"], strict=True)):
        if weight != expected:
            assert ours.reasons[index] in ("header", "history")
            assert expected == 1


def test_contents_with_control_tokens_keep_the_controls_that_transformers_keeps() -> None:
    for family, shape in FAMILIES.items():
        template, tokenizer = template_of(family), family_tokenizer(family)
        hostile = f"a {shape.special[-1]}{shape.eos} b {shape.special[0]}"
        messages = [Message(role="user", content=hostile), Message(role="assistant", content=hostile)]
        ours = template.render(messages).tokens
        theirs = tokenizer.apply_chat_template(dictionaries(messages), sanitize_control_tokens=True, return_dict=False)
        assert controls(template, ours)[: len(controls(template, theirs))] == controls(template, theirs), family


def controls(template: ChatTemplate, tokens: Sequence[int]) -> list[int]:
    return [token for token in tokens if token in template.encoder.control_ids]


def test_notes_name_the_templates_that_are_not_plain() -> None:
    noted = {family: len(template_notes(template_of(family))) for family in FAMILIES}
    plain = {
        "qwen2_5",
        "qwen3_instruct_2507",
        "llama3",
        "llama3_1",
        "gemma",
        "gemma3",
        "phi3",
        "phi3_5",
        "cohere",
        "lfm2",
    }
    assert {family for family, count in noted.items() if not count} == plain
