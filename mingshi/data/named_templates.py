"""Templates for models that have none of their own, as Jinja texts like any other.

The text is saved with the model as `chat_template.jinja`, so what trained a model is also what serves it. A template
that knows the role `input` gets an instruction's input as a message of its own; all others get both in one message.

`alpaca` is the prompt of Stanford Alpaca (Taori et al. 2023, github.com/tatsu-lab/stanford_alpaca, train.py).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mingshi.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TURNS = """\
{%- for message in messages -%}
    {%- if message.role not in ['system', 'user', 'assistant'] -%}
        {{- raise_exception('the template turns has no place for the role ' + message.role) -}}
    {%- endif -%}
    {{- '<|' + message.role + '|>' + message.content + '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|assistant|>' -}}
{%- endif -%}
"""

ZH_INSTRUCTION = """\
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{- message.content + '\\n' -}}
    {%- elif message.role == 'user' -%}
        {{- '指令:' + message.content + '\\n' -}}
    {%- elif message.role == 'input' -%}
        {{- '输入:' + message.content + '\\n' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '输出:' + message.content + eos_token -}}
    {%- else -%}
        {{- raise_exception('the template zh-instruction has no place for the role ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '输出:' -}}
{%- endif -%}
"""

ALPACA = """\
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{- message.content + '\\n\\n' -}}
    {%- elif message.role == 'user' -%}
        {%- if messages[0].role != 'system' -%}
            {{- 'Below is an instruction that describes a task' -}}
            {%- if loop.nextitem is defined and loop.nextitem.role == 'input' -%}
                {{- ', paired with an input that provides further context' -}}
            {%- endif -%}
            {{- '. Write a response that appropriately completes the request.\\n\\n' -}}
        {%- endif -%}
        {{- '### Instruction:\\n' + message.content + '\\n\\n' -}}
    {%- elif message.role == 'input' -%}
        {{- '### Input:\\n' + message.content + '\\n\\n' -}}
    {%- elif message.role == 'assistant' -%}
        {{- '### Response:' + message.content + eos_token -}}
    {%- else -%}
        {{- raise_exception('the template alpaca has no place for the role ' + message.role) -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '### Response:' -}}
{%- endif -%}
"""

NO_TOOLS = "{%- if tools -%}{{- raise_exception('this template has no place for tools') -}}{%- endif -%}\n"

TEXTS = {"turns": TURNS, "zh-instruction": ZH_INSTRUCTION, "alpaca": ALPACA}
TOKENS = {"turns": ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")}

_INPUT_ROLE = re.compile(r"role['\"\]]*\s*==\s*['\"]input['\"]")


def named_text(name: str, *, bos: bool) -> str:
    """The Jinja text of a template in `TEXTS`; with `bos`, for tokenizers that begin every text with such a token."""
    return NO_TOOLS + ("{{- bos_token -}}\n" if bos else "") + TEXTS[name]


def missing_tokens(tokenizer: PreTrainedTokenizerBase, name: str = "auto") -> tuple[str, ...]:
    """The special tokens that a template writes and a tokenizer does not have yet.

    Whoever adds them (`tokenizer.add_special_tokens`) also gives the model's embedding the new rows.
    """
    chosen = resolve_name(tokenizer, name)
    known = tokenizer.get_vocab()
    return tuple(token for token in TOKENS.get(chosen, ()) if token not in known)


def resolve_name(tokenizer: PreTrainedTokenizerBase, name: str) -> str:
    """`auto` is the model's own template, or `turns` where it has none. Raises ModelError for a name not known."""
    names = ("auto", "own", *TEXTS)
    if name not in names:
        raise ModelError(f"there is no template {name!r}", f"Use one of {', '.join(names)}.")
    if name == "auto":
        return "own" if tokenizer.chat_template else "turns"
    if name == "own" and not tokenizer.chat_template:
        raise ModelError("the tokenizer has no chat template", f"Use template: {' or '.join(TEXTS)}.")
    return name


def knows_input(source: str) -> bool:
    """Whether a template gives the role `input` a place of its own."""
    return _INPUT_ROLE.search(source) is not None
