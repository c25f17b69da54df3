"""An adapter's way into its base, into a folder, and back from one. peft owns the file format."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from mingshi.errors import ModelError, Problem
from mingshi.model import nf4
from mingshi.model.adapter_library import (
    AuxiliaryTrainingWrapper,
    LoraLayer,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    unseen,
)
from mingshi.model.lora_linear import fuse
from mingshi.types import Network

if TYPE_CHECKING:
    from mingshi.model.load import Model

ROWS = "trainable_token_indices"
ITERATIONS = 16  # of the randomised singular value decomposition (PiSSA, section 4, uses up to 16)


def insert(model: Model, settings: Any, rows: Mapping[str, list[int]], *, seed: int) -> None:
    """Freeze the network and put peft's layers into it, beside rows for new tokens; all depend on the seed alone."""
    settings.trainable_token_indices = dict(rows) or None  # of IA3's too, which lacks the field: peft only reads it
    torch.manual_seed(seed)
    with nf4.announced(model.network, quantised=model.quantised), unseen(unless=model.quantised):
        model.adapter = get_peft_model(model.network, settings)
    for name, parameter in model.network.named_parameters():
        if name.startswith("joint."):  # the maps of two towers, which train whole
            parameter.requires_grad_(True)


def merge_wrapped(network: Network) -> None:
    """Put what peft wraps whole, rows of new tokens and new heads, in the place of its wrappers.

    With the rest, peft can only do that for LoRA.
    """
    for path, layer in list(network.named_modules()):
        if isinstance(layer, AuxiliaryTrainingWrapper):
            whole = layer.unload_and_optionally_merge_module(merge=True, safe_merge=True, adapter_names=None)
            network.set_submodule(path, whole)


def take_principal_part(model: Model) -> None:
    """PiSSA (Meng et al. 2024, equations 2 to 4): `W = U S V^T`; the update starts as the first `rank` of it.

    `B = U sqrt(S / s)`, `A = sqrt(S / s) V^T`, and the frozen base keeps `W - s B A`, for the update's scale `s`. What
    the update started as is remembered: less that, it is one of the whole base.
    """
    for layer in model.network.modules():
        if not isinstance(layer, LoraLayer):
            continue
        (name,) = layer.active_adapters
        down, up, scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
        base = layer.get_base_layer().weight
        turned = layer.fan_in_fan_out
        with torch.no_grad():
            weight = base.float().T if turned else base.float()
            left, values, right = torch.svd_lowrank(weight, q=len(down), niter=ITERATIONS)
            roots = (values / scale).sqrt()
            down.copy_(roots[:, None] * right.T)
            up.copy_(left * roots)
            rest = weight - scale * (up @ down)
            base.copy_(rest.T if turned else rest)
    saved = get_peft_model_state_dict(model.adapter, save_embedding_layers=False)
    model.start = {key: value.detach().clone() for key, value in saved.items() if _is_factor(key)}


def write_adapter(model: Model, folder: Path, *, base: str) -> None:
    """peft's own files, for the base of this name."""
    (settings,) = model.adapter.peft_config.values()
    settings.base_model_name_or_path = base
    # Left to itself peft asks the Hub for the base, and writes whole embeddings where new tokens have rows.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LoRA tensor.* invalid shape")  # AdaLoRA took all of a layer's rank
        model.adapter.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    told = orjson.loads(path.read_bytes())
    more = _less_the_start(model.start, folder, told) if model.start else {}
    if settings.trainable_token_indices is not None:
        more[ROWS] = settings.trainable_token_indices
    for name in ("target_modules", "feedforward_modules"):  # sets: their order is that of one process
        if isinstance(told.get(name), list):
            more[name] = sorted(told[name])
    path.write_bytes(orjson.dumps(told | more, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def _is_factor(key: str) -> bool:
    return ".lora_A." in key or ".lora_B." in key


def _less_the_start(start: Mapping[str, torch.Tensor], folder: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """`W - s B0 A0 + s B A = W + s [B, -B0] [A; A0]`: an update of the whole base, of twice the rank."""
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    for key, factor in start.items():
        if ".lora_A." in key:
            tensors[key] = torch.cat([tensors[key], factor.cpu()])
        else:
            tensors[key] = torch.cat([tensors[key], -factor.cpu()], dim=1)
    save_file(tensors, path, metadata={"format": "pt"})
    return {"r": 2 * told["r"], "lora_alpha": told["lora_alpha"] * (math.sqrt(2) if told["use_rslora"] else 2)}


def read_adapter(model: Model, folder: Path, *, quantised: bool) -> None:
    """Put the adapter of a folder onto its base, kept in four bits where it was trained so."""
    if quantised:
        nf4.quantise(model.network)
        model.quantised = True
    try:
        with warnings.catch_warnings(), nf4.announced(model.network, quantised=quantised), unseen(unless=quantised):
            warnings.filterwarnings("error", message="Found missing adapter keys")  # peft would leave them as they are
            warnings.filterwarnings("ignore", message="The following rank_pattern keys")  # AdaLoRA's are not LoRA's
            warnings.filterwarnings("ignore", message=f"Unexpected keyword arguments ..{ROWS}")
            settings = PeftConfig.from_pretrained(folder)
            settings.trainable_token_indices = orjson.loads((folder / "adapter_config.json").read_bytes()).get(ROWS)
            model.adapter = PeftModel.from_pretrained(model.network, folder, config=settings)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UserWarning) as error:
        what = f"the adapter does not fit its base: {' '.join(str(error).split())[:160]}"
        raise ModelError(Problem(file=str(folder), what=what, mend="Is it whole, and the base its own?")) from None
    fuse(model.network)
