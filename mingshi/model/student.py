"""A smaller model cut out of a larger one: its first layers, between the same embeddings, final norm and head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from mingshi.errors import ModelError
from mingshi.model import export
from mingshi.model.generate import inference
from mingshi.model.load import Model
from mingshi.model.logprob import head_of, prediction_states
from mingshi.types import Batch

RIDGE = 1e-4  # of the mean square of a state's columns: some of them hardly vary


def first_layers(model: Model, layers: int) -> Model:
    """Take all but its first `layers` layers from a model, and give it back. ModelError where it has no such layers.

    Untrained it writes nonsense: the head reads states that later layers would have gone on with.
    """
    if model.adapter is not None:
        raise ModelError(f"{model.name} is an adapter", "Merge it first: mingshi merge RUN OUTPUT.")
    settings = model.network.config.get_text_config()
    whole = int(settings.num_hidden_layers)
    if not 1 <= layers < whole:
        raise ModelError(f"{model.name} has {whole} layers", f"Keep between 1 and {whole - 1} of them, not {layers}.")
    del _stack(model, whole)[layers:]
    settings.num_hidden_layers = layers
    kinds = settings.to_dict().get("layer_types")
    if kinds:
        settings.layer_types = kinds[:layers]
    return model


@torch.no_grad()
def fit_head(student: Model, teacher: Model, streams: Iterable[Batch]) -> None:
    """Give a student a head of its own that reads its last states as its teacher's head reads the teacher's.

    `head = teacher's head @ map`, where `map` takes the student's last states to the teacher's by ridge regression over
    every token of `streams`: the layers left out, as far as they are linear. (Belrose et al. 2023, "Eliciting Latent
    Predictions from Transformers with the Tuned Lens", fit such maps by gradient steps on the divergence instead.)
    """
    head = head_of(teacher.network)
    width = head.weight.shape[1]
    products_WW, wanted_WW = (torch.zeros(width, width, dtype=torch.float64) for _ in range(2))
    with inference(student.network), inference(teacher.network):
        for batch in streams:
            every = replace(batch, source=torch.arange(len(batch.tokens), device=batch.tokens.device))
            own_TW, taught_TW = (prediction_states(one.network, every).float() for one in (student, teacher))
            products_WW += (own_TW.T @ own_TW).double().cpu()
            wanted_WW += (own_TW.T @ taught_TW).double().cpu()
    if not products_WW.any():
        raise ModelError("There is no text to fit a head to", "Give rows that the model can read.")
    products_WW.diagonal().add_(RIDGE * products_WW.diagonal().mean())
    map_WW = torch.linalg.solve(products_WW, wanted_WW).to(head.weight.device)  # own @ map is near taught
    fitted_VW = (head.weight.double() @ map_WW.T).to(head.weight.dtype)
    student.network.config.get_text_config().tie_word_embeddings = False
    student.network.get_output_embeddings().weight = torch.nn.Parameter(fitted_VW, requires_grad=False)


def save_student(student: Model, folder: Path, *, of: int, fitted: bool) -> None:
    """Write a student that was cut from `of` layers as a model of its own."""
    layers = student.network.config.get_text_config().num_hidden_layers
    head = "a head fitted to its states" if fitted else "its head"
    card = f"The first {layers} of {of} layers of {student.name}, with its embeddings, its final norm and {head}.\n"
    export.save(student, folder, facts={"kind": "model", "base": student.name, "layers": [layers, of]}, card=card)


def _stack(model: Model, count: int) -> torch.nn.ModuleList:
    """The list that holds a network's layers, whatever its family calls it."""
    children = model.network.base_model.children()
    found = [child for child in children if isinstance(child, torch.nn.ModuleList) and len(child) == count]
    if len(found) != 1:
        raise ModelError(f"{model.name} does not keep its layers in one list", "Use a plain decoder.")
    return found[0]
