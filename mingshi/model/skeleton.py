"""A network's shape without its weights, from its configuration alone: enough to see whether an adapter fits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from mingshi.model import encoder, heads
from mingshi.model import pair as pairs
from mingshi.model.assets import resolve
from mingshi.model.load import base_place, unloadable
from mingshi.types import Network


def skeleton(name: str, *, classes: heads.Classes | None = None, pair: pairs.Pair | None = None) -> Network:
    """The network that `load` makes of a name, with paths and shapes and on no device; an adapter there is merged.

    ModelError where the configuration cannot be read, or is of no network that `load` would give.
    """
    place, base = resolve(name), base_place(name)
    own = place if isinstance(place, Path) and (place / "config.json").is_file() else base
    maker: Any = AutoModelForSequenceClassification  # its functions carry no types
    try:
        if pair is not None:
            return pairs.skeleton(place, pair)
        settings = encoder.read_settings(own)
        if classes is None and not encoder.says_classifier(settings):
            encoder.refuse_encoder(base, settings)
            maker = AutoModelForCausalLM
        elif classes is not None:
            heads.configure(settings, classes)
        with torch.device("meta"):
            network = maker.from_config(settings)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise unloadable(base, error) from None
    if heads.is_classifier(network):
        heads.choose_pooling(network, classes.pooling if classes is not None else None)
        heads.drop_pooler(network)
    return network
