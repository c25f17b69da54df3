"""Bodies of a few thousand weights with a real tokenizer, for classifiers: encoders of several kinds, and a Llama."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import TEXT, tiny_model

SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 130,
    "initializer_range": 0.2,
    "pad_token_id": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": SHAPE,
    "roberta": SHAPE,
    "electra": SHAPE | {"embedding_size": 16},
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "pad_token_id": 1},
    "modernbert": SHAPE | {"local_attention": 16, "global_attn_every_n_layers": 2, "layer_norm_eps": 1e-5},
}


def tiny_tokenizer() -> Any:
    """Byte-level BPE whose texts stand between `<s>` and `</s>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXT, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, cls_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>"
    )


def tiny_encoder(folder: Path, *, family: str = "bert", seed: int = 0, **changes: Any) -> Path:
    """Save a body without a head, in float32; weights depend on family and seed alone."""
    import torch
    from transformers import AutoConfig, AutoModel

    tokenizer = tiny_tokenizer()
    settings = AutoConfig.for_model(family, vocab_size=len(tokenizer), **FAMILIES[family] | changes)
    torch.manual_seed(seed)
    AutoModel.from_config(settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def body(folder: Path, family: str, **changes: Any) -> Path:
    """A tiny encoder of this family, or a tiny Llama."""
    return tiny_model(folder) if family == "llama" else tiny_encoder(folder, family=family, **changes)
