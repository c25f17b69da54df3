"""Is a network's packed computation its plain one? Asked of every model when it is loaded.

The question is about the architecture's code, so a small copy answers it exactly: the model's own first layers, one of
every kind that it has, in float32, over a vocabulary of a few tokens. In the model's own bfloat16 the answer would
drown in rounding.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from mingshi.model import attention
from mingshi.model.logprob import head_of

VOCABULARY = 64
LAYERS = 2
TOLERANCE = 1e-3  # of log-probabilities; float32 rounding is below 1e-5, a stream that leaks is off by far more

# Two texts, and two continuations of the first.
SEGMENTS = np.array([[0, 6, -1], [6, 8, -1], [14, 4, 0], [18, 6, 0]], dtype=np.int32)
TEXTS = ([*range(6)], [*range(6, 14)], [*range(6), *range(14, 18)], [*range(6), *range(18, 24)])


@torch.no_grad()
def probe(network: Any) -> str | None:
    """None where packed and plain log-probabilities agree, otherwise how they do not."""
    try:
        small = small_copy(network)
        tokens = torch.arange(24, device=small.device) * 37 % VOCABULARY
        places = torch.from_numpy(attention.positions(SEGMENTS)).to(tokens.device)
        plain = [
            small(input_ids=tokens[text][None], use_cache=False).logits[0, -int(length) :]
            for text, length in zip(TEXTS, SEGMENTS[:, 1], strict=True)
        ]
        hidden = attention.packed_hidden(small, tokens, places, SEGMENTS)
        packed = head_of(small).logits(hidden)
        gap = float((packed.log_softmax(-1) - torch.cat(plain).float().log_softmax(-1)).abs().max())
    except (TypeError, RuntimeError, AttributeError, ValueError, KeyError, IndexError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}" if str(error) else type(error).__name__
    return None if gap <= TOLERANCE else f"log-probabilities differ by {gap:.3g}"


def small_copy(network: Any) -> Any:
    """The first layers of a network, at least one of each kind, in float32, with its first `VOCABULARY` tokens."""
    settings = copy.deepcopy(network.config)
    text = settings.get_text_config()
    kinds = list(text.to_dict().get("layer_types") or [])
    depth = max([min(LAYERS, text.num_hidden_layers), *(kinds.index(kind) + 1 for kind in set(kinds))])
    text.num_hidden_layers = depth
    if kinds:
        text.layer_types = kinds[:depth]
    text.vocab_size = VOCABULARY
    text.pad_token_id = text.bos_token_id = text.eos_token_id = None
    small = type(network)._from_config(settings, attn_implementation=attention.NAME, dtype=torch.float32)
    weights = network.state_dict()
    for name, tensor in small.state_dict().items():
        tensor.copy_(weights[name][tuple(slice(0, size) for size in tensor.shape)])
    return small.to(network.device).eval()
