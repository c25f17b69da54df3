"""Tiny networks of the families that packed attention is held to, and rows to train them on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mingshi.data.plan import Plan
from mingshi.loop import Work
from mingshi.model import attention
from mingshi.model.load import Model, Text
from mingshi.objectives import Sft
from mingshi.optim import Optim, Optimiser
from mingshi.types import Sample

VOCABULARY = 97
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
WINDOW = {"sliding_window": 40, "head_dim": 8, "layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SHAPE},
    "qwen2": {"model_type": "qwen2", **SHAPE},
    "qwen3": {"model_type": "qwen3", **SHAPE, "head_dim": 8},
    "mistral": {"model_type": "mistral", **SHAPE, "sliding_window": 40},
    "phi3": {"model_type": "phi3", **SHAPE},
    "gemma2": {
        "model_type": "gemma2",
        **SHAPE,
        **WINDOW,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 8,
    },
    "gemma3": {"model_type": "gemma3_text", **SHAPE, **WINDOW, "query_pre_attn_scalar": 8},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 1024,
        "initializer_range": 0.2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    },
}


def network(family: str, *, implementation: str = attention.NAME, seed: int = 0, **changes: Any) -> Any:
    """A float32 network with weights that depend on family and seed alone."""
    attention.register()
    values = FAMILIES[family] | changes
    settings = AutoConfig.for_model(values["model_type"], **{key: values[key] for key in values if key != "model_type"})
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(settings, attn_implementation=implementation, dtype=torch.float32)
    return made.eval()


def sample(length: int, *, seed: int, name: str = "", answer: int | None = None) -> Sample:
    """A row of random tokens whose last `answer` tokens, and a few in the middle, are trained."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(0, VOCABULARY, length).astype(np.int32)
    target = np.arange(length - (answer or max(1, length // 3)), length)
    target = np.unique(np.concatenate([target, [max(1, length // 4)]]))
    return Sample(
        tokens=tokens,
        segments=np.array([[0, length, -1]], dtype=np.int32),
        source=(target - 1).astype(np.int32),
        target=tokens[target],
        weight=np.ones(len(target), dtype=np.float32),
        sequence=np.zeros(len(target), dtype=np.int32),
        id=name or f"row-{seed}",
    )


def samples(lengths: list[int]) -> list[Sample]:
    return [sample(length, seed=number) for number, length in enumerate(lengths)]


def work(
    net: Any, rows: list[Sample], *, batch: int, budget: int = 4096, steps: int | None = None, **optim: Any
) -> Work:
    """A stage over these rows in their own order."""
    per_epoch = -(-len(rows) // batch)
    plan = Plan(len(rows), batch, steps or per_epoch, 0, lambda epoch: np.arange(len(rows)))
    return Work(
        network=net,
        objective=Sft(),
        companion=None,
        samples=rows,
        plan=plan,
        optimiser=Optimiser(net.named_parameters(), Optim(**optim)),
        peak=1e-3,
        budget=budget,
        device="cpu",
        seed=0,
    )


def model_of(net: Any) -> Model:
    """A network without tokenizer or folder: there are no new tokens."""
    return Model(Text("", None, None, ()), net, None)  # type: ignore[arg-type]


def staged(model: Model, held: Any, *, steps: int = 8, peak: float = 1e-2, **optim: Any) -> Work:
    """A stage over four rows, for what an attached adapter asks of the loop."""
    plain = work(model.network, samples([30, 12, 25, 18]), batch=4, steps=steps)
    optimiser = Optimiser(model.network.named_parameters(), Optim(**optim), rate=held.rate)
    return replace(plain, adapter=held, optimiser=optimiser, peak=peak)


@torch.no_grad()
def logits(model: Model) -> torch.Tensor:
    """`[1, 57, V]` of one text."""
    found: torch.Tensor = model.network.eval()(input_ids=torch.arange(3, 60)[None]).logits
    return found
