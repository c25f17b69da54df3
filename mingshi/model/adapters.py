"""Which weights move. peft owns the mathematics and the file format of adapters; this says which, and attaches them.

`full` is the same kind of thing as `lora`: each is attached to a model, and says with what learning rate it is best
begun. Those that add layers keep the base as it is, and rows for new tokens train beside all of them. `places` says
where in a network one goes, and ModelError why it cannot go there; it changes nothing, and no weight is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from mingshi.errors import ModelError
from mingshi.model.adapter_targets import (
    Names,
    Targets,
    last_layers,
    new_rows,
    placement,
    resolve,
    short_names,
    standard_ia3,
    with_room,
)
from mingshi.model.attached import Allocation, Attached, Plain
from mingshi.types import Network, Settings

if TYPE_CHECKING:
    from mingshi.model.load import Model


class Full(Settings):
    """Every weight trains."""

    kind: Literal["full"] = "full"

    def default_learning_rate(self) -> tuple[float, str]:
        return 2e-5, "full fine-tuning moves every weight, so each moves little"

    def places(self, network: Network) -> list[str]:
        return [name for name, _ in network.named_parameters()]

    def attach(self, model: Model, *, seed: int) -> Attached:
        fold(model)
        for parameter in model.network.parameters():
            parameter.requires_grad_(True)
        model.changed = True
        return Plain()


class LastLayers(Settings):
    """The last blocks of the network and all that follows them: the last norm, and a head that is not the embedding."""

    kind: Literal["last-layers"] = "last-layers"
    blocks: int = Field(default=2, ge=0)
    """How many; 0: a classifier's head alone."""

    def default_learning_rate(self) -> tuple[float, str]:
        return 5e-5, "few layers move, all of their weights: a little more each than if every layer moved"

    def places(self, network: Network) -> list[str]:
        return last_layers(network, self.blocks)

    def attach(self, model: Model, *, seed: int) -> Attached:
        fold(model)
        _train_alone(model, self.places(model.network), seed=seed)
        return Plain()


class Bias(Settings):
    """Biases alone (BitFit, Ben Zaken et al. 2022)."""

    kind: Literal["bias"] = "bias"

    def default_learning_rate(self) -> tuple[float, str]:
        return 5e-4, "biases alone are few and must move far: BitFit's authors take 1e-4 to 1e-3"

    def places(self, network: Network) -> list[str]:
        from mingshi.model.heads import in_head

        names = [name for name, _ in network.named_parameters()]
        biases = [name for name in names if name.rpartition(".")[2] == "bias"]
        if not biases:
            mend = "Take `adapter: {kind: ia3}`, the smallest that it can have, or `lora`, or `last-layers`."
            raise ModelError("this model has no biases to train", mend)
        return [name for name in names if name in biases or in_head(network, name)]

    def attach(self, model: Model, *, seed: int) -> Attached:
        fold(model)
        _train_alone(model, self.places(model.network), seed=seed)
        return Plain()


class Lora(Settings):
    """Low-rank updates of linear layers (Hu et al. 2021): `W + (alpha / rank) B A`, with B zero at the start."""

    kind: Literal["lora"] = "lora"
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    """None: twice the rank; with `rslora` 8, which scales alike at rank 16."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Targets = "all-linear"
    """Linear layers by the end of their path (`q_proj`) or a pattern of all of it (`model.layers.1?.*`)."""
    rslora: bool = False
    """Scale by `alpha / sqrt(rank)`, so that a large rank learns as fast (Kalajdzievski 2023)."""
    dora: bool = False
    """Learn the length of each row of a weight apart from its direction (Liu et al. 2024); slower."""
    start: Literal["zero", "pissa"] = "zero"
    """pissa: the update begins as the principal part of its weight (Meng et al. 2024)."""
    up_rate: float = Field(default=1.0, ge=1)
    """How many times as fast B learns as A (LoRA+, Hayou et al. 2024, where it is 16)."""

    def default_learning_rate(self) -> tuple[float, str]:
        if self.start == "pissa":
            return 2e-5, "PiSSA moves the largest parts of the weights: its authors take the rate of full fine-tuning"
        if self.up_rate > 1:
            rate = 2e-4 / math.sqrt(self.up_rate)
            return rate, f"LoRA+: A's; B's is {self.up_rate:g} times that, and their mean LoRA's own 2e-4"
        if self.dora:
            return 1e-4, "DoRA learns best at a little less than LoRA, which takes 2e-4"
        return 2e-4, "LoRA learns best at about ten times the rate of full fine-tuning"

    def places(self, network: Network) -> list[str]:
        return with_room(network, self.targets, rank=self.rank)

    def attach(self, model: Model, *, seed: int) -> Attached:
        """Freeze the base and insert the updates; the function that the network computes does not change."""
        from peft import LoraConfig

        from mingshi.model.adapter_files import insert, take_principal_part
        from mingshi.model.lora_linear import fuse

        fold(model)
        paths = self.places(model.network)
        usual = 8.0 if self.rslora else 2 * self.rank
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha if self.alpha is not None else usual,
            lora_dropout=self.dropout,
            use_rslora=self.rslora,
            use_dora=self.dora,
            **placement(model.network, paths),
        )
        insert(model, settings, new_rows(model), seed=seed)
        if self.start == "pissa":
            take_principal_part(model)
        fuse(model.network)
        return Plain(self.up_rate)


class Qlora(Settings):
    """LoRA over a base in four bits (Dettmers et al. 2023): a quarter of bf16's memory for the frozen weights.

    The model is loaded whole first. Merged, the base keeps the values that its four bits stood for.
    """

    kind: Literal["qlora"] = "qlora"
    rank: int = Field(default=16, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    """None: twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Targets = "all-linear"
    """Linear layers that get an update, named as for `lora`; all of them are kept in four bits."""

    def default_learning_rate(self) -> tuple[float, str]:
        return 2e-4, "QLoRA learns at LoRA's rate: its authors take 2e-4, and 1e-4 from 33B on"

    def places(self, network: Network) -> list[str]:
        from mingshi.model import nf4

        nf4.require_linear(network)
        return with_room(network, self.targets, rank=self.rank)

    def attach(self, model: Model, *, seed: int) -> Attached:
        from peft import LoraConfig

        from mingshi.model import nf4
        from mingshi.model.adapter_files import insert

        fold(model)
        paths = self.places(model.network)
        nf4.quantise(model.network)
        model.quantised = True
        settings = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha if self.alpha is not None else 2 * self.rank,
            lora_dropout=self.dropout,
            **placement(model.network, paths),
        )
        insert(model, settings, new_rows(model), seed=seed)
        return Plain()


class AdaLora(Settings):
    """Updates `P diag(E) Q` whose ranks are taken from the layers that need them least (Zhang et al. 2023)."""

    kind: Literal["adalora"] = "adalora"
    rank: int = Field(default=8, ge=1)
    """What the mean over all layers comes down to."""
    first_rank: int | None = Field(default=None, ge=2)
    """Of every layer at the start; None: one and a half times `rank`."""
    alpha: float | None = Field(default=None, gt=0)
    """None: twice the rank at the start."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: Targets = "all-linear"
    """Linear layers by the end of their path (`q_proj`) or a pattern of all of it (`model.layers.1?.*`)."""
    begin: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps after which ranks begin to fall."""
    settle: float = Field(default=0.3, ge=0, lt=1)
    """Share of the steps, at the end, in which they fall no more."""
    every: int = Field(default=10, ge=1)
    """Steps from one allocation to the next."""
    orthogonal: float = Field(default=0.5, ge=0)
    """Weight of the penalty that keeps the columns of P and the rows of Q orthogonal."""

    @model_validator(mode="after")
    def _falls(self) -> AdaLora:
        if self._first <= self.rank:
            raise ValueError(f"first_rank is not above rank, {self.rank}. Ranks can only be taken away.")
        return self

    @property
    def _first(self) -> int:
        return self.first_rank if self.first_rank is not None else math.ceil(1.5 * self.rank)

    def default_learning_rate(self) -> tuple[float, str]:
        return 1e-3, "AdaLoRA starts from smaller factors than LoRA: its authors take 5e-4 to 2e-3"

    def places(self, network: Network) -> list[str]:
        return with_room(network, self.targets, rank=self._first, field="adapter.first_rank")

    def attach(self, model: Model, *, seed: int) -> Attached:
        from peft import AdaLoraConfig

        from mingshi.model.adapter_files import insert

        fold(model)
        paths = self.places(model.network)
        settings = AdaLoraConfig(
            target_r=self.rank,
            init_r=self._first,
            lora_alpha=self.alpha if self.alpha is not None else 2 * self._first,
            lora_dropout=self.dropout,
            orth_reg_weight=self.orthogonal,
            total_step=1,  # with all other times, set from the schedule at each step
            **placement(model.network, paths),
        )
        insert(model, settings, new_rows(model), seed=seed)
        for name, parameter in model.network.named_parameters():
            if ".ranknum." in name:  # a constant, which peft makes trainable as it casts it from bfloat16
                parameter.requires_grad_(False)
        return Allocation(model.adapter.base_model, begin=self.begin, settle=self.settle, every=self.every)


class Ia3(Settings):
    """Vectors that scale keys, values and inner activations (Liu et al. 2022), one at the start."""

    kind: Literal["ia3"] = "ia3"
    targets: Literal["standard"] | Names = "standard"
    """Linear layers whose outputs are scaled; standard: where peft places them in this architecture."""
    inputs: tuple[str, ...] = ()
    """Those of `targets` whose inputs are scaled instead: the last layers of feed-forward blocks."""

    @model_validator(mode="after")
    def _subset(self) -> Ia3:
        strangers = [name for name in self.inputs if name not in self.targets]
        if strangers:
            raise ValueError(f"inputs names {', '.join(strangers)}, and targets does not. Name them in both.")
        return self

    def default_learning_rate(self) -> tuple[float, str]:
        return 3e-3, "IA3's few vectors start at one and must move far: its authors take 3e-3"

    def places(self, network: Network) -> tuple[list[str], list[str]]:
        """All layers that are scaled, and those whose inputs are."""
        targets, inputs = (self.targets, self.inputs) if self.targets != "standard" else standard_ia3(network)
        scaled = resolve(network, inputs, field="adapter.inputs") if inputs else []
        return resolve(network, targets), scaled

    def attach(self, model: Model, *, seed: int) -> Attached:
        from peft import IA3Config

        from mingshi.model.adapter_files import insert

        fold(model)
        paths, scaled = self.places(model.network)
        names = placement(model.network, paths)
        names["target_modules"] = sorted({*names["target_modules"], *short_names(model.network, scaled)})
        settings = IA3Config(feedforward_modules=short_names(model.network, scaled), **names)
        insert(model, settings, new_rows(model), seed=seed)
        return Plain()


Adapter = Annotated[Full | Lora | AdaLora | Ia3 | Qlora | LastLayers | Bias, Field(discriminator="kind")]
ADAPTERS = {
    "full": Full,
    "lora": Lora,
    "adalora": AdaLora,
    "ia3": Ia3,
    "qlora": Qlora,
    "last-layers": LastLayers,
    "bias": Bias,
}


def fold(model: Model) -> None:
    """Merge whatever adapter a model has, of an earlier stage or from its folder, before another is attached.

    The base is then no longer the one that an adapter could be saved against. A base in four bits is first made whole.
    """
    if model.adapter is None:
        return
    from mingshi.model.adapter_files import merge_wrapped

    if model.quantised:
        from mingshi.model import nf4

        nf4.restore(model.network)
    merge_wrapped(model.network)
    model.network = model.adapter.merge_and_unload(safe_merge=True)
    model.adapter, model.quantised, model.start = None, False, {}
    model.changed = True


def trainable(network: Network) -> tuple[int, int]:
    """How many numbers train, and how many there are."""
    from mingshi.model.nf4 import count

    counts = [(count(parameter), parameter.requires_grad) for parameter in network.parameters()]
    return sum(size for size, trains in counts if trains), sum(size for size, _ in counts)


def _train_alone(model: Model, names: Sequence[str], *, seed: int) -> None:
    """Of all weights these, and the rows of new tokens, which stand beside the embeddings until they are merged."""
    network = model.network
    parameters = dict(network.named_parameters())
    chosen = [parameters[name] for name in names]
    rows = {name: tokens for name, tokens in new_rows(model).items() if f"{name}.weight" not in names}
    network.requires_grad_(False)
    if rows:
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        from mingshi.model.adapter_files import insert

        settings = LoraConfig(target_modules=DUMMY_TARGET_MODULES, task_type="CAUSAL_LM")
        insert(model, settings, rows, seed=seed)
    for parameter in chosen:
        parameter.requires_grad_(True)
    model.changed = True
