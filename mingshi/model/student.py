"""A smaller model cut out of a larger one: its first layers, between the same embeddings, final norm and head."""

from __future__ import annotations

from pathlib import Path

import torch

from mingshi.errors import ModelError
from mingshi.model import export
from mingshi.model.load import Model, load


def first_layers(name: str, layers: int, folder: Path) -> Model:
    """Save the first `layers` layers of a model as a model of its own, and give it back as it was cut.

    Untrained it writes nonsense: the head reads states that later layers would have gone on with. ModelError where the
    model has no such layers.
    """
    model = load(name)
    if model.adapter is not None:
        raise ModelError(f"{name} is an adapter", "Merge it first: mingshi merge RUN OUTPUT.")
    settings = model.network.config.get_text_config()
    whole = int(settings.num_hidden_layers)
    if not 1 <= layers < whole:
        raise ModelError(f"{name} has {whole} layers", f"Keep between 1 and {whole - 1} of them, not {layers}.")
    del _stack(model, whole)[layers:]
    settings.num_hidden_layers = layers
    kinds = settings.to_dict().get("layer_types")
    if kinds:
        settings.layer_types = kinds[:layers]
    card = f"The first {layers} of {whole} layers of {model.name}, with its embeddings, final norm and head.\n"
    facts = {"kind": "model", "base": model.name, "layers": [layers, whole]}
    export.save(model, folder, facts=facts, card=card)
    return model


def _stack(model: Model, count: int) -> torch.nn.ModuleList:
    """The list that holds a network's layers, whatever its family calls it."""
    children = model.network.base_model.children()
    found = [child for child in children if isinstance(child, torch.nn.ModuleList) and len(child) == count]
    if len(found) != 1:
        raise ModelError(f"{model.name} does not keep its layers in one list", "Use a plain decoder.")
    return found[0]
