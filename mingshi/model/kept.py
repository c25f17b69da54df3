"""What autograd keeps of a stream for its backward, counted on a network that has shapes and no weights.

The code that trains is the account: the network's own forward, with its adapter, its lean blocks and packed attention
laid out as the stream is, runs on torch's `meta` device, where nothing is computed, and every tensor that is saved for
a backward is counted once. No architecture needs a formula of its own.

Letters: `T` tokens, `U` rows that something is predicted from.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from mingshi.data.prefixes import share_prefixes
from mingshi.model import attention, lean, streamlined
from mingshi.types import Batch, Network


def reshape(network: Network) -> None:
    """Give a network without weights the computations that `load` would give the same network with them."""
    attention.register()
    network.set_attn_implementation(attention.NAME)
    alike: dict[tuple[str, int], bool] = {}
    for module in network.modules():
        candidate, width = lean.candidate_for(module)
        if candidate is None:
            continue
        kind = (type(module).__name__, width)
        if kind not in alike:
            alike[kind] = _lean_fits(module, width)
        if alike[kind]:
            module.forward = candidate
    if streamlined.fits(network):
        streamlined.reshape(network)


def _lean_fits(module: Any, width: int) -> bool:
    """Asked of the module's code with numbers of no meaning in its place."""
    twin = copy.deepcopy(module).to_empty(device="cpu")
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.linspace(-1, 1, parameter.numel()).view_as(parameter))
    candidate, _ = lean.candidate_for(twin)
    return candidate is not None and lean.computes_alike(twin, candidate, width)


def kept_bytes(network: Network, batch: Batch) -> int:
    """Bytes that a stream's forward leaves for its backward, the head apart; the network is on `meta`.

    `batch` is on the processor: of its tokens only the beginnings that texts share count.
    """
    causal = attention.is_causal(network)
    segments, wanted = batch.segments, batch.source
    shared = share_prefixes(batch.tokens.numpy(), segments) if causal else None
    if shared is not None:
        segments, wanted = shared.segments, torch.from_numpy(shared.places)[wanted]
    travelling, laid_out = _travelling(network, segments, causal=causal)
    travelling.wanted = wanted.unique().to("meta")  # type: ignore[no-untyped-call]
    count = travelling.layout.tokens
    saved = _Saved(network)
    network.train()
    with torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor):
        output = network.base_model(
            input_ids=torch.zeros(1, count, dtype=torch.int64, device="meta"),
            position_ids=torch.zeros(1, count, dtype=torch.int64, device="meta"),
            attention_mask=torch.zeros(1, 1, 1, 1, device="meta"),
            use_cache=False,
            packed=travelling,
        )
    saved.note(output.last_hidden_state)
    masks = [mask.values for made in travelling.masks.values() for mask in made]
    return saved.bytes + laid_out + sum(mask.nbytes for mask in masks)


class _Saved:
    """Bytes of the storages that saved tensors lie in, each once; a network's own weights are not among them."""

    def __init__(self, network: Network):
        self.bytes = 0
        whole = [*network.parameters(), *network.buffers()]
        self._held = [tensor.untyped_storage() for tensor in whole]  # held: an address would be given out again
        self._known = {storage._cdata for storage in self._held}

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._held.append(storage)
            self.bytes += storage.nbytes()
        return tensor


def _travelling(network: Network, segments: np.ndarray, *, causal: bool) -> tuple[attention.Packed, int]:
    """A stream's layout on `meta`, and the bytes of its index; which rows go where is decided by their values."""
    here = attention.packed(segments, causal=causal)
    settings = network.config.get_text_config().to_dict()
    heads = network.config.get_text_config().num_attention_heads
    shape = (heads, settings.get("num_key_value_heads") or heads)
    places = here.places_for(*shape)
    index = [places.queries, places.keys, places.key_rows, places.order, places.padding]
    groups = tuple(
        replace(
            group,
            queries_NQ=group.queries_NQ.to("meta"),
            keys_NK=group.keys_NK.to("meta"),
            hidden_keys_N=None if group.hidden_keys_N is None else group.hidden_keys_N.to("meta"),
            ends_N=None if group.ends_N is None else group.ends_N.to("meta"),
        )
        for group in here.layout.groups
    )
    queries, keys, key_rows, order, padding = (one.to("meta") for one in index)
    there = replace(places, queries=queries, keys=keys, key_rows=key_rows, order=order, padding=padding)
    made = attention.Packed(replace(here.layout, groups=groups), heads={shape: there})
    return made, sum(one.nbytes for one in index)
