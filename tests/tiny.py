"""A language model of a few thousand weights with a real tokenizer, made here: tests need no download."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{%- for message in messages -%}{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n' -}}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}"
    "{%- endif -%}"
)
TEXT = (
    "The quick brown fox jumps over the lazy dog. One, two, three, four. Say hello to the world; the answer is yes.",
    "春眠不觉晓,处处闻啼鸟。夜来风雨声,花落知多少。你好,世界。",
    "user assistant system tool 指令 输入 输出 Instruction Input Response",
)


def tiny_tokenizer(template: str | None = CHATML):
    """Byte-level BPE of a few hundred tokens: any text survives a round trip."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = template
    return tokenizer


def tiny_model(folder: Path, *, seed: int = 0, template: str | None = CHATML, layers: int = 2) -> Path:
    """Save a Llama of two layers, 32 wide, in float32, with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny_tokenizer(template)
    torch.manual_seed(seed)
    network = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


ROWS = [
    {
        "instruction": f"Say the number {number}.",
        "input": "",
        "output": f"The number is {number}. " + "one two " * (number % 5),
    }
    for number in range(40)
]
