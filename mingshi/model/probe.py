"""Is a network's packed computation its plain one? Asked of every model when it is loaded.

The question is about the architecture's code, so a small copy answers it exactly: the model's own first layers, one of
every kind that it has, in float32, over a vocabulary of a few tokens. In the model's own bfloat16 the answer would
drown in rounding.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mingshi.model import attention, heads
from mingshi.model.logprob import head_of

VOCABULARY = 64
LAYERS = 2
TOLERANCE = 1e-3  # of log-probabilities; float32 rounding is below 1e-5, a stream that leaks is off by far more

# Two texts, and two continuations of the first.
SEGMENTS = np.array([[0, 6, -1], [6, 8, -1], [14, 4, 0], [18, 6, 0]], dtype=np.int32)
TEXTS = ([*range(6)], [*range(6, 14)], [*range(6), *range(14, 18)], [*range(6), *range(18, 24)])
ALONE = 2  # of the segments: a classifier's texts have no parents


@torch.no_grad()
def probe(network: Any) -> str | None:
    """None where packed and plain log-probabilities, or a classifier's outputs, agree; otherwise how they do not."""
    try:
        small = small_copy(network)
        tokens = torch.arange(24, device=small.device) * 37 % VOCABULARY
        packed, plain = _outputs(small)(small, tokens)
        gap = float((packed - plain).abs().max())
    except (TypeError, RuntimeError, AttributeError, ValueError, KeyError, IndexError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}" if str(error) else type(error).__name__
    return None if gap <= TOLERANCE else f"outputs differ by {gap:.3g}"


def _outputs(small: Any) -> Callable[[Any, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """What is compared of a network of this kind."""
    if heads.is_classifier(small):
        return _classified
    return _encoded if vars(small.config).get(heads.VIEW_KEY) else _predicted


def _encoded(small: Any, tokens_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The last states of a text tower, packed and plain."""
    segments = SEGMENTS[:ALONE]
    places_T = torch.from_numpy(attention.positions(segments)).to(tokens_T.device)
    tokens_T = _without_padding(small, tokens_T)
    packed = attention.packed_hidden(
        small, tokens_T[: len(places_T)], places_T + heads.position_offset(small), segments
    )
    plain = [small(input_ids=tokens_T[text][None]).last_hidden_state[0] for text in TEXTS[:ALONE]]
    return packed, torch.cat(plain)


def _without_padding(small: Any, tokens_T: torch.Tensor) -> torch.Tensor:
    padding = small.config.get_text_config().pad_token_id
    return tokens_T.masked_fill(tokens_T == (-1 if padding is None else padding), VOCABULARY - 1)


def _predicted(small: Any, tokens_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of a language model, packed and plain."""
    places_T = torch.from_numpy(attention.positions(SEGMENTS)).to(tokens_T.device)
    plain = [
        small(input_ids=tokens_T[text][None], use_cache=False).logits[0, -int(length) :]
        for text, length in zip(TEXTS, SEGMENTS[:, 1], strict=True)
    ]
    packed = head_of(small).logits(attention.packed_hidden(small, tokens_T, places_T, SEGMENTS))
    return packed.log_softmax(-1), torch.cat(plain).float().log_softmax(-1)


def _classified(small: Any, tokens_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A classifier's outputs, packed and as its own forward gives them; where it pools otherwise, as its states do."""
    tokens_T = _without_padding(small, tokens_T)
    segments = SEGMENTS[:ALONE]
    places_T = torch.from_numpy(attention.positions(segments)).to(tokens_T.device)
    packed = heads.logits(small, heads.pooled(small, tokens_T[: len(places_T)], places_T, segments))
    plain = []
    for text in TEXTS[:ALONE]:
        rows = tokens_T[text][None]
        if heads.pools_its_own_way(small):
            plain.append(small(input_ids=rows).logits)
        else:
            states_TW = small.base_model(input_ids=rows).last_hidden_state[0]
            pooled = {"first": states_TW[0], "last": states_TW[-1], "mean": states_TW.mean(0)}
            plain.append(heads.logits(small, pooled[heads.pooling_of(small)][None]))
    return packed, torch.cat(plain).float()


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
    text.bos_token_id = text.eos_token_id = None
    if not heads.position_offset(network):
        text.pad_token_id = None
    small = type(network)._from_config(settings, attn_implementation=attention.NAME, dtype=torch.float32)
    heads.drop_pooler(small)
    weights = network.state_dict()
    for name, tensor in small.state_dict().items():
        tensor.copy_(weights[name][tuple(slice(0, size) for size in tensor.shape)])
    return small.to(network.device).eval()
