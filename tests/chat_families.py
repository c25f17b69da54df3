"""Small tokenizers with the control tokens of well-known model families, and conversations to try on templates.

The tokenizers are written out, not trained: a byte-level vocabulary and the merges that spell a few words. So their
tokens are the same with every version of the libraries.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mingshi.types import Message

WORDS = (
    "system",
    "user",
    "assistant",
    "model",
    "think",
    "the",
    "answer",
    "hello",
    "Hello",
    "world",
    "name",
    "输出",
    "你好",
)


def byte_level(words: Sequence[str] = WORDS) -> Tokenizer:
    """Bytes, and these words with and without a space before them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelt = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    merges: list[tuple[str, str]] = []
    for word in (form for plain in words for form in (plain, " " + plain)):
        letters = spelt.pre_tokenize_str(word)[0][0]
        for length in range(2, len(letters) + 1):
            if letters[:length] not in vocabulary:
                vocabulary[letters[:length]] = len(vocabulary)
                merges.append((letters[: length - 1], letters[length - 1]))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family adds to a tokenizer."""

    special: tuple[str, ...]
    eos: str
    bos: str | None = None
    added: tuple[str, ...] = ()  # control tokens that are not flagged as special
    ends: tuple[str, ...] = ()  # what the model's generation settings name beside eos
    swallows: bool = False  # special tokens take the spaces after them, as Phi-3's do


CHATML = ("<|im_start|>", "<|im_end|>")
CALLS = ("<tool_call>", "</tool_call>")
THINK = ("<think>", "</think>")
RESPONSES = ("<tool_response>", "</tool_response>")
LLAMA = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")
GEMMA = ("<start_of_turn>", "<end_of_turn>")
COHERE = ("<|START_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>", "<|SYSTEM_TOKEN|>")
GLM = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
OPENAI = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|call|>", "<|constrain|>")

FAMILIES: Mapping[str, Family] = {
    "qwen2_5": Family(special=CHATML, added=CALLS, eos="<|im_end|>"),
    "qwen3": Family(special=CHATML, added=CALLS + THINK + RESPONSES, eos="<|im_end|>"),
    "qwen3_instruct_2507": Family(special=CHATML, added=CALLS + RESPONSES, eos="<|im_end|>"),
    "llama3": Family(special=LLAMA, bos="<|begin_of_text|>", eos="<|end_of_text|>"),
    "llama3_1": Family(special=LLAMA, bos="<|begin_of_text|>", eos="<|eot_id|>"),
    "gemma": Family(special=GEMMA, bos="<bos>", eos="<eos>"),
    "gemma3": Family(special=GEMMA, bos="<bos>", eos="<eos>"),
    "phi3": Family(special=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), eos="<|endoftext|>", swallows=True),
    "phi3_5": Family(special=("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"), eos="<|endoftext|>"),
    "glm4moe": Family(
        special=GLM, added=CALLS + THINK + RESPONSES, eos="<|endoftext|>", ends=("<|user|>", "<|observation|>")
    ),
    "deepseekv3": Family(special=DEEPSEEK, added=THINK, bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>"),
    "cohere": Family(special=COHERE, bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>"),
    "lfm2": Family(special=CHATML, bos="<|startoftext|>", eos="<|im_end|>"),
    "gptoss": Family(special=OPENAI, eos="<|return|>", ends=("<|call|>",)),
}

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}


def user(content: str) -> Message:
    return Message(role="user", content=content)


def assistant(content: str, **more: object) -> Message:
    return Message(role="assistant", content=content, **more)  # type: ignore[arg-type]


SHAPES: Mapping[str, tuple[Message, ...]] = {
    "one turn": (user("hello?"), assistant("the answer")),
    "two turns": (user("hello?"), assistant("Hello world"), user("name?"), assistant("the answer.")),
    "system": (Message(role="system", content="Be kind."), user("hello"), assistant("Hello!")),
    "spaces": (user("  hello\n"), assistant("\n Hello  \n")),
    "empty": (user("hello"), assistant("")),
    "unicode": (user("你好,世界 🎉"), assistant("输出:é 你好👩‍🚀")),
    "repeated": (user("user"), assistant("assistant"), user("assistant"), assistant("assistant")),
    "headers": (user("user\nassistant\nmodel\n"), assistant("assistant\nuser\n\nmodel")),
    "reasoning": (user("hello?"), assistant("the answer", reasoning="think")),
    "inline thoughts": (user("hello?"), assistant("<think>\nthink\n</think>\n\nthe answer")),
    "tools": (
        user("weather?"),
        assistant("", tool_calls=(CALL,)),
        Message(role="tool", content="warm", name="weather", tool_call_id="1"),
        assistant("It is warm."),
    ),
}


def tokenizer_for(family: str, template: str) -> PreTrainedTokenizerFast:
    """A tokenizer with that family's control tokens and this template."""
    shape = FAMILIES[family]
    made = PreTrainedTokenizerFast(tokenizer_object=byte_level(), bos_token=shape.bos, eos_token=shape.eos)
    made.add_tokens(
        [AddedToken(token, special=True, normalized=False, rstrip=shape.swallows) for token in shape.special]
    )
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in shape.added])
    made.chat_template = template
    return made


@cache
def family_tokenizer(family: str) -> PreTrainedTokenizerFast:
    """With the template that TRL ships for it."""
    return tokenizer_for(family, template_text(family))


def template_text(family: str) -> str:
    """A template's text, from TRL's wheel."""
    return (asset("trl-templates") / f"{family}.jinja").read_text(encoding="utf-8")


HOME = Path(os.environ.get("MINGSHI_CACHE", Path.home() / ".cache" / "mingshi"))  # before any test sets its own


def asset(name: str) -> Path:
    """A folder that the fetch script fills; a test that needs it fails without."""
    folder = HOME / "assets" / name
    if not folder.is_dir():
        pytest.fail(f"{folder} is missing. Get it with ./scripts/fetch {name}")
    return folder
