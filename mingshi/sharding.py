"""A frozen base shared out among processes: each keeps its part of every block, and has whole one block at a time.

For bases that do not fit into one device, trained through an adapter: `fully_shard` (FSDP2) gathers a block where it
computes, in either direction, and lets go of it. Embedding, head, last norm and adapter are whole on every process, as
without it: checkpoints hold the adapter alone, and any number of processes goes on from them. While it loads, each
process has the whole base in the processor's memory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from mingshi import memory
from mingshi.display import Display
from mingshi.errors import ModelError, Problem, RecipeError
from mingshi.memory import Account, gigabytes
from mingshi.model.adapter_library import LoraLayer
from mingshi.model.adapters import AdaLora, Ia3, Lora
from mingshi.model.load import Model, choose_device, choose_precision
from mingshi.model.reference import fingerprint
from mingshi.objectives import Sft
from mingshi.prepare import Prepared
from mingshi.ranks import Onlooker, Ranks
from mingshi.recipe import Recipe
from mingshi.record import Record
from mingshi.types import Network

AT_ONCE = 3  # blocks that are whole: the one that computes, the next one, and what either is gathered in


class _Borrowed(NamedTuple):
    """Stands in for `lora_linear.Frozen`: the weight of a layer as it is while its block is whole."""

    layer: Any

    def product(self, x_TI: torch.Tensor, bias_O: torch.Tensor | None) -> torch.Tensor:
        return torch.nn.functional.linear(x_TI, self.layer.weight, bias_O)

    def transposed_product(self, upstream_TO: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = upstream_TO @ self.layer.weight
        return output


def first_opened(recipe: Recipe, ranks: Ranks) -> Recipe:
    """The recipe with which a network is opened: where it may be shared out, it goes to its device afterwards."""
    device = choose_device(recipe.device)
    if ranks.count == 1 or recipe.stages[0].shard == "never" or obstacles(recipe) or device == "cpu":
        return recipe
    precision = "bf16" if choose_precision(recipe.precision, device) == torch.bfloat16 else "float32"
    return recipe.model_copy(update={"device": "cpu", "precision": precision})


def obstacles(recipe: Recipe) -> list[Problem]:
    """What keeps this recipe's base from being shared out."""
    stage = recipe.stages[0]
    adapter, found = stage.adapter, []
    if len(recipe.stages) > 1:
        found.append(("stages", "a second stage merges the first one's adapter", "Train them as two runs."))
    if not isinstance(adapter, Lora | AdaLora | Ia3):
        found.append(("stages.0.adapter", f"{adapter.kind} changes the base", "Take lora, adalora or ia3."))
    if isinstance(adapter, Lora) and (adapter.dora or adapter.start == "pissa"):
        found.append(("stages.0.adapter", "dora and pissa read whole weights as they begin", "Take plain lora."))
    if not isinstance(stage.objective, Sft):
        found.append(("stages.0.objective", f"{stage.objective.kind} has more than one network", "Take sft."))
    return [
        Problem(field=field, what=f"a base that is shared out stays as it is, and {what}", mend=mend)
        for field, what, mend in found
    ]


def fitted(
    recipe: Recipe,
    model: Model,
    stages: Sequence[Prepared],
    record: Record | Onlooker,
    display: Display,
    *,
    interpreter: int,
    ranks: Ranks,
) -> Recipe:
    """`memory.fitted`, once the network is on its device: whole, or shared out where `shard` says so."""
    device, shard = choose_device(recipe.device), recipe.stages[0].shard
    divides = ranks.count > 1 and shard != "never"
    problems = _obstacles_in(recipe, model) if divides else []
    if problems and any(stage.shard == "always" for stage in recipe.stages):
        raise RecipeError(problems)
    accounts = memory.accounts_of(recipe, model.text, stages, interpreter=interpreter)
    free = memory.free_bytes(device) // (ranks.count if device == "cpu" else 1)  # processes share one machine's memory
    if divides and not problems and shard == "auto":
        divides = bool(ranks.told(lambda: _too_large(accounts, recipe, free)))
    if divides and not problems:
        ranks.agree("network", fingerprint(model.network))
        share_out(model.network, device, ranks)
        display.say(f"The base is shared out: {gigabytes(held_bytes(model.network))} GB of it are on each process")
        accounts = accounts if isinstance(accounts, str) else [divided(one, ranks.count) for one in accounts]
    elif ranks.count > 1:
        model.network.to(device)  # where `first_opened` kept it from there
    return memory.fitted(recipe, accounts, record, display, free=free, ranks=ranks)


def _obstacles_in(recipe: Recipe, model: Model) -> list[Problem]:
    if model.adapter is None:
        return obstacles(recipe)
    what = "the model is an adapter, which would have to be merged into its base"
    return [*obstacles(recipe), Problem(field="model", what=what, mend="Merge it first with `mingshi merge`.")]


def _too_large(accounts: list[Account] | str, recipe: Recipe, free: int) -> bool:
    """Does a whole network leave too little room even for the smallest streams? Unknown is no."""
    if isinstance(accounts, str):
        return False
    streams = [one.longest if recipe.stream == "auto" else recipe.budget for one in accounts]
    needed = (one.at(tokens).total for one, tokens in zip(accounts, streams, strict=True))
    return max(needed) > memory.SHARE * free


def divided(account: Account, count: int) -> Account:
    """The account of one process among `count` that share the base."""
    sizes = [
        sum(one.nbytes for one in block.parameters() if not one.requires_grad) for block in blocks(account.network)
    ]
    kept = sum(math.ceil(size / count) for size in sizes) + min(AT_ONCE, len(sizes)) * max(sizes)
    return replace(account, weights=account.weights - max(0, sum(sizes) - kept), known={})


def blocks(network: Network) -> Sequence[torch.nn.Module]:
    """The layers that a network is a stack of; ModelError where it is not one."""
    stacks = [part for part in network.modules() if isinstance(part, torch.nn.ModuleList)]
    if not stacks or not len(stacks[0]):
        raise ModelError("the network is no stack of blocks that processes could share", "Say `shard: never`.")
    return list(stacks[0])


def share_out(network: Network, device: str, ranks: Ranks) -> None:
    """Leave this process its part of every block, on its device, and everything else whole.

    From here on a forward is common work, and so is a backward.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (ranks.count,))
    shared = {parameter for block in blocks(network) for parameter in block.parameters()}
    rest = {parameter for parameter in network.parameters() if parameter not in shared}
    for block in blocks(network):
        fully_shard(block, mesh=mesh)
    fully_shard(network.base_model, mesh=mesh, ignored_params=rest)
    network.to(device)
    token = torch.zeros(1, 1, dtype=torch.int64, device=network.device)

    def follow() -> None:
        with torch.no_grad():
            network.base_model(input_ids=token, use_cache=False)

    lead = ranks.divide(follow)
    network.base_model.register_forward_pre_hook(lambda module, given: lead(), prepend=True)


def borrow(network: Network) -> None:
    """Let LoRA's single operation (`lora_linear.py`) read each weight when it computes, and keep none beside it."""
    for layer in network.modules():
        fused = vars(layer).get("forward")
        if isinstance(layer, LoraLayer) and isinstance(fused, functools.partial):
            given, original, _ = fused.args
            layer.forward = functools.partial(fused.func, given, original, _Borrowed(layer.get_base_layer()))


def held_bytes(network: Network) -> int:
    """Of the weights, what this process holds between two forwards."""
    from torch.distributed.tensor import DTensor

    parts = [one.to_local() if isinstance(one, DTensor) else one for one in network.parameters()]
    return sum(part.nbytes for part in parts)
