"""Where an adapter goes: the linear layers that a recipe names, and the rows that train for new tokens."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from mingshi.errors import ModelError
from mingshi.types import Network

if TYPE_CHECKING:
    from mingshi.model.load import Model

Names = Annotated[tuple[str, ...], Field(min_length=1)]
Targets = Literal["all-linear"] | Names


def linears(network: Network) -> dict[str, Any]:
    """By path the linear layers of a network's body; those of its head are not among them."""
    import torch
    from transformers.pytorch_utils import Conv1D

    from mingshi.model.heads import in_head

    head = network.get_output_embeddings()
    layers = ((path, layer) for path, layer in network.named_modules() if isinstance(layer, torch.nn.Linear | Conv1D))
    return {path: layer for path, layer in layers if layer is not head and not in_head(network, path)}


def resolve(network: Network, targets: Targets, *, field: str = "adapter.targets") -> list[str]:
    """Paths of the linear layers that are meant; ModelError lists the names that are there for one that is not.

    A target is the end of a path (`q_proj`, `mlp.c_proj`) or, with `*`, `?` or `[…]` in it, a pattern of the whole path
    in which `*` stands for anything: `model.layers.1?.*`.
    """
    layers = list(linears(network))
    if targets == "all-linear":
        return layers
    missing = [target for target in targets if not any(_matches(path, target) for path in layers)]
    if missing:
        known = ", ".join(sorted({path.rpartition(".")[2] for path in layers}))
        raise ModelError(
            f"{field} names {', '.join(missing)}, and the model has no such linear layer",
            f"Its linear layers are {known}; the first is {layers[0]}." if layers else "It has none.",
        )
    return [path for path in layers if any(_matches(path, target) for target in targets)]


def _matches(path: str, target: str) -> bool:
    if any(sign in target for sign in "*?["):
        return fnmatchcase(path, target)
    return f".{path}".endswith(f".{target}")


def with_room(network: Network, targets: Targets, *, rank: int, field: str = "adapter.rank") -> list[str]:
    """Paths of the layers for products of this rank.

    One larger than a layer's smallest side is no longer low-rank: ModelError says which.
    """
    paths = resolve(network, targets)
    layers = linears(network)
    narrowest = min(paths, key=lambda path: min(layers[path].weight.shape))
    side = min(layers[narrowest].weight.shape)
    if rank > side:
        what = f"{field} is {rank}, and the smallest side of {narrowest} is {side}"
        raise ModelError(what, f"Take {side} or less, or name other layers in adapter.targets.")
    return paths


def placement(network: Network, paths: Sequence[str]) -> dict[str, Any]:
    """What every one of peft's configurations is told about where it goes."""
    from transformers.pytorch_utils import Conv1D

    from mingshi.model.heads import head_modules, is_classifier

    layers, heads = linears(network), head_modules(network)
    return {
        "target_modules": short_names(network, paths),
        "fan_in_fan_out": any(isinstance(layers[path], Conv1D) for path in paths),
        "modules_to_save": list(head_modules(network)) if is_classifier(network) else None,  # new, so it trains whole
        "task_type": "SEQ_CLS" if is_classifier(network) else "FEATURE_EXTRACTION" if heads else "CAUSAL_LM",
    }


def short_names(network: Network, paths: Sequence[str]) -> list[str]:
    """Last parts of the paths, where those mean the same layers and no others: such a file is short."""
    import torch
    from transformers.pytorch_utils import Conv1D

    names = {path.rpartition(".")[2] for path in paths}
    every = [path for path, layer in network.named_modules() if isinstance(layer, torch.nn.Linear | Conv1D)]
    alike = [path for path in every if path.rpartition(".")[2] in names]
    return sorted(names) if sorted(alike) == sorted(paths) else list(paths)


def new_rows(model: Model) -> dict[str, list[int]]:
    """By layer name the rows that train for new tokens: the head's too, or a model could never write them.

    A head that shares the embedding's weight follows it without being named.
    """
    network, tokens = model.network, model.text.new_tokens
    if not tokens:
        return {}
    layers = [network.get_input_embeddings()]
    head = network.get_output_embeddings()
    if head is not None and head.weight is not layers[0].weight:
        layers.append(head)
    return {name: list(tokens) for name, layer in network.named_modules() if any(layer is one for one in layers)}


def standard_ia3(network: Network) -> tuple[Names, Names]:
    """Where peft places IA3 in this architecture: its layers, and those of them whose inputs are scaled."""
    from peft.utils import constants

    kind = network.config.model_type
    places = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(kind)
    inputs = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind)
    if places is None or inputs is None:
        known = ", ".join(sorted({path.rpartition(".")[2] for path in linears(network)}))
        mend = f"Name those of keys and values, and the last of the feed-forward block in both, of {known}."
        raise ModelError(f"IA3 has no standard places in a {kind}: adapter.targets and adapter.inputs are needed", mend)
    return tuple(places), tuple(inputs)


def last_layers(network: Network, blocks: int) -> list[str]:
    """Names of the weights from the first of the last `blocks` on, in the order in which a network computes.

    A head that is the embedding comes with the embedding, and so is not among them.
    """
    import torch

    from mingshi.model.heads import head_modules, in_head

    names = [name for name, _ in network.named_parameters()]
    if blocks == 0 and head_modules(network):
        return [name for name in names if in_head(network, name)]
    stacks = ((path, part) for path, part in network.named_modules() if isinstance(part, torch.nn.ModuleList))
    path, stack = next(stacks, ("", ()))
    if not 0 < blocks <= len(stack):
        what = f"adapter.blocks is {blocks}, and the model has {len(stack)} and no head of classes to train alone"
        raise ModelError(what, f"Take a number from 1 to {len(stack)}.")
    first = next(place for place, name in enumerate(names) if name.startswith(f"{path}.{len(stack) - blocks}."))
    return [name for name in names[first:] if not name.startswith("vision.")]  # an image tower stands behind it
