"""Which weights move. peft owns the mathematics and the file format of adapters; this says which, and attaches them.

`full` is the same kind of thing as `lora`: attach, and later merge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from mingshi.errors import ModelError
from mingshi.types import Network, Settings

if TYPE_CHECKING:
    import torch

    from mingshi.model.load import Model


class Full(Settings):
    """Every weight trains."""

    kind: Literal["full"] = "full"

    def default_learning_rate(self) -> tuple[float, str]:
        return 2e-5, "full fine-tuning moves every weight, so each moves little"

    def attach(self, model: Model, *, seed: int) -> None:
        fold(model)
        for parameter in model.network.parameters():
            parameter.requires_grad_(True)
        model.changed = True

    def merge(self, model: Model) -> None:
        """Nothing stands beside the weights."""


class Lora(Settings):
    """Low-rank updates of linear layers (Hu et al. 2021): `W + (alpha / rank) B A`, with B zero at the start."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    """None: twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Names (the last part of a module's path) of the linear layers that get an update."""

    def default_learning_rate(self) -> tuple[float, str]:
        return 2e-4, "LoRA learns best at about ten times the rate of full fine-tuning"

    def attach(self, model: Model, *, seed: int) -> None:
        """Freeze the base and insert the updates; the function that the network computes does not change."""
        import torch
        from peft import LoraConfig, get_peft_model

        from mingshi.model.lora_linear import fuse

        missing = _missing_targets(model.network, self.targets)
        if missing:
            known = sorted({name.rpartition(".")[2] for name, _ in _linears(model.network)})
            raise ModelError(
                f"adapter.targets names {', '.join(missing)}, and the model has no such linear layer",
                f"Its linear layers are {', '.join(known)}.",
            )
        fold(model)
        torch.manual_seed(seed)
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha if self.alpha is not None else 2 * self.rank,
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
            trainable_token_indices=_new_rows(model.network, model.text.new_tokens) or None,
            task_type="CAUSAL_LM",
        )
        model.adapter = get_peft_model(model.network, settings)
        fuse(model.network)

    def merge(self, model: Model) -> None:
        """Fold the updates into the base; the network computes the same without them."""
        fold(model)


Adapter = Annotated[Full | Lora, Field(discriminator="kind")]
ADAPTERS = {"full": Full, "lora": Lora}


def fold(model: Model) -> None:
    """Merge whatever adapter a model has, of an earlier stage or from its folder, before another is attached.

    The base is then no longer the one that an adapter could be saved against.
    """
    if model.adapter is not None:
        model.network = model.adapter.merge_and_unload(safe_merge=True)
        model.adapter = None
        model.changed = True


def _new_rows(network: Network, tokens: tuple[int, ...]) -> dict[str, list[int]]:
    """By layer name the rows that train for new tokens: the head's too, or a model could never write them.

    A head that shares the embedding's weight follows it without being named.
    """
    if not tokens:
        return {}
    layers = [network.get_input_embeddings()]
    head = network.get_output_embeddings()
    if head.weight is not layers[0].weight:
        layers.append(head)
    return {name: list(tokens) for name, layer in network.named_modules() if any(layer is one for one in layers)}


def _linears(network: Network) -> list[tuple[str, torch.nn.Module]]:
    import torch

    head = network.get_output_embeddings()
    layers = network.named_modules()
    return [(name, layer) for name, layer in layers if isinstance(layer, torch.nn.Linear) and layer is not head]


def _missing_targets(network: Network, targets: str | tuple[str, ...]) -> list[str]:
    if isinstance(targets, str):
        return []
    names = [name for name, _ in _linears(network)]
    return [target for target in targets if not any(name.rpartition(".")[2] == target for name in names)]


def trainable(network: Network) -> tuple[int, int]:
    """How many numbers train, and how many there are."""
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return sum(count for count, trains in counts if trains), sum(count for count, _ in counts)
