"""Image towers: any image encoder that transformers loads, and what it sees of a picture.

Letters: `N` pictures, `H` and `W` pixels, `C = 3` colours, `F` features.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel
from transformers.utils import cached_file

from mingshi.data.images import View
from mingshi.errors import ModelError, Problem
from mingshi.model.assets import resolve
from mingshi.types import Network

SETTINGS = ("preprocessor_config.json", "processor_config.json")
GATES = "mingshi_open_gates"  # of an EfficientNet's configuration: its squeeze-and-excite gates are open, and not there


def view_of(name: str) -> View:
    """What the tower of this name sees, by its own preprocessor's settings; ModelError where they do not say."""
    return _view_of(resolve(name))


@functools.lru_cache(maxsize=8)
def _view_of(place: Path | str) -> View:
    told = next((told for told in (_settings(place, name) for name in SETTINGS) if told), None)
    if told is None:
        what = "has no preprocessor_config.json, which says how its pictures are scaled"
        raise ModelError(Problem(file=str(place), what=what, mend="Fetch it again, whole."))
    try:
        return read_view(told.get("image_processor", told))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        what = f"its preprocessor's settings cannot be read ({error!s:.80})"
        raise ModelError(Problem(file=str(place), what=what, mend="Name another image tower.")) from None


def _settings(place: Path | str, name: str) -> dict[str, Any] | None:
    if isinstance(place, Path):
        path: Path | None = place / name
    else:
        found = cached_file(place, name, _raise_exceptions_for_missing_entries=False)
        path = Path(found) if found is not None else None
    return dict(orjson.loads(path.read_bytes())) if path is not None and path.is_file() else None


def read_view(told: Mapping[str, Any]) -> View:
    """A View of an image processor's settings, as transformers applies them."""
    size, cuts = told.get("size"), bool(told.get("do_center_crop"))
    cut = _sides(told["crop_size"]) if cuts else None
    shortest = size if isinstance(size, int) and cuts else size.get("shortest_edge") if isinstance(size, dict) else None
    if shortest is not None and cut is None:
        raise ValueError("pictures keep their shape, and so have no common size")
    whole = None if shortest is not None else _sides(size)
    if whole is not None and cut not in (None, whole):
        raise ValueError("pictures are stretched and cut")
    height, width = cut or whole or (0, 0)
    scale = float(told.get("rescale_factor", 1 / 255)) if told.get("do_rescale", True) else 1.0
    mean, deviation = [0.0] * 3, [1.0] * 3
    if told.get("do_normalize", True):
        mean, deviation = list(told["image_mean"]), list(told["image_std"])
    if told.get("rescale_offset"):  # EfficientNet's: to -1 … 1 before the rest
        mean = [1 + one for one in mean]
    if told.get("include_top"):  # and its classifiers' second division
        deviation = [one * one for one in deviation]
    return View(
        height=height,
        width=width,
        shortest=shortest,
        resample=int(told.get("resample", 2)),
        mean=_colours(mean, 255 * scale),
        deviation=_colours(deviation, 255 * scale),
    )


def _sides(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))


def _colours(values: list[float], scale: float) -> tuple[float, float, float]:
    red, green, blue = (float(value) / scale for value in values)
    return red, green, blue


def read_vision_settings(place: Path | str) -> Any:
    """The configuration of an image encoder, or of the one inside a model of pictures and texts."""
    settings = AutoConfig.from_pretrained(place, local_files_only=isinstance(place, Path), trust_remote_code=False)
    return vars(settings).get("vision_config") or settings


def load_vision(name: str, *, dtype: torch.dtype) -> Network:
    """The image tower of a known name, a folder or a name on the Hub; frozen, and in its state for inference."""
    from mingshi.model.load import refuse_code

    place = resolve(name)
    if isinstance(place, Path):
        refuse_code(place)
    loader: Any = AutoModel  # its functions carry no types
    try:
        settings = read_vision_settings(place)
        network, told = loader.from_pretrained(
            place,
            config=settings,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=isinstance(place, Path),
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        what = f"the image tower {place} cannot be loaded: {str(error).splitlines()[0][:160]}"
        raise ModelError(what, "Name a known one (`./scripts/fetch --list`), a folder, or one on the Hub.") from None
    absent = set(told["missing_keys"])
    pooler = {key for key in absent if "pooler." in key}
    if absent - pooler or "pixel_values" not in network.main_input_name:
        lost = f"{len(absent)} of its weights are not in its files" if absent else "it reads no pictures"
        raise ModelError(Problem(file=str(place), field="objective.vision", what=lost, mend="Name an image encoder."))
    if pooler:  # it would stay random: the first state is taken instead
        network.config.mingshi_pooler = False
    return fitted(network).requires_grad_(False).eval()


def empty_vision(settings: Any) -> Network:
    """The tower of a configuration, whose weights are yet to come."""
    maker: Any = AutoModel
    return fitted(maker.from_config(settings))


def fitted(network: Network) -> Network:
    """Without what computes nothing: gates that are open for good, and a pooler that was never trained."""
    if vars(network.config).get(GATES):
        for block in network.encoder.blocks:
            block.squeeze_excite = torch.nn.Identity()
    if vars(network.config).get("mingshi_pooler") is False:
        network.pooler = None
    return network


def see(network: Network, pixels_NHWC: torch.Tensor, view: View) -> torch.Tensor:
    """Pooled features `[N, F]` of pixels in uint8: the tower's own pooling, else its first state or its cells' mean.

    Batch norms keep the statistics that they came with, whatever trains: with a batch's own, what a picture gives
    would depend on those beside it.
    """
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    mean_C, deviation_C = (torch.tensor(one, device=network.device) for one in (view.mean, view.deviation))
    shares_NHWC = pixels_NHWC.to(network.device, torch.float32) / 255
    inputs_NCHW = ((shares_NHWC - mean_C) / deviation_C).permute(0, 3, 1, 2).to(network.dtype).contiguous()
    found = network(pixel_values=inputs_NCHW)
    pooled = found.get("pooler_output")
    if pooled is None:
        states = found["last_hidden_state"]
        pooled = states[:, 0] if states.dim() == 3 else states.mean((2, 3))
    output_NF: torch.Tensor = pooled.flatten(1)
    return output_NF


def width(network: Network, view: View) -> int:
    """`F`."""
    with torch.no_grad():
        blank = torch.zeros(1, view.height, view.width, 3, dtype=torch.uint8, device=network.device)
        return int(see(network, blank, view).shape[1])
