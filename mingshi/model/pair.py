"""Two towers, one of texts and one of pictures, that meet in one space.

The network is the text tower, as transformers gives it without a head, and beside its own modules stand `vision`, the
image tower, and `joint`: a linear map of each tower's features into the shared space, and the scale (and bias) by which
a loss turns similarities into logits. So all that trains, saves and resumes a network does so with both towers.

Letters: `N` samples, `T` tokens, `F` features of a tower, `E` width of the shared space.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from mingshi.data.images import View
from mingshi.errors import ModelError, Problem, RecipeError
from mingshi.model import attention, heads, vision
from mingshi.model.assets import resolve
from mingshi.types import Batch, Network

OURS = "mingshi_pair"  # the model type of a saved folder, which transformers does not know and so refuses
WEIGHTS = "model.safetensors"

Side = Literal["image", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What two towers are joined by."""

    vision: str  # the image tower's name; "": the one that the model has already
    width: int
    pooling: heads.Pooling | None  # of the text tower's states; None: as its kind is read
    logit: tuple[tuple[str, float], ...]  # what the loss learns besides, and where each begins
    seed: int = 0


def is_pair(network: Network) -> bool:
    return "joint" in {name for name, _ in network.named_children()}


def saved_in(place: Path | str) -> bool:
    """Whether a folder holds a pair that was trained here."""
    path = place / "config.json" if isinstance(place, Path) else None
    return path is not None and path.is_file() and json.loads(path.read_bytes()).get("model_type") == OURS


def view(network: Network) -> View:
    """What the image tower sees of a picture."""
    return _view(network.config.mingshi_view)


def _view(told: Mapping[str, Any]) -> View:
    fields: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in told.items()}
    return View(**fields)


def seen_by(tower: str, model: str) -> View:
    """What the image tower of this name sees, or, where none is named, that of the model."""
    if tower:
        return vision.view_of(tower)
    place = resolve(model)
    if not saved_in(place):
        what = f"{model} has no image tower, and objective.vision names none"
        raise RecipeError(Problem(field="objective.vision", what=what, mend="Name one, such as efficientnet-lite0."))
    return _view_in(Path(place))


@functools.lru_cache(maxsize=8)
def _view_in(folder: Path) -> View:
    return _view(json.loads((folder / "config.json").read_bytes())["text"][heads.VIEW_KEY])


# Features


def joined(network: Network, side: Side, features_NF: torch.Tensor) -> torch.Tensor:
    """`[N, E]` of length one, in the precision of the maps, from the features of one tower."""
    layer = network.joint[side]
    return torch.nn.functional.normalize(layer(features_NF.to(layer.weight.dtype)), dim=-1)


def trains(network: Network, side: Side) -> bool:
    """Whether any weight moves that the features of one tower are made of."""
    return any(weight.requires_grad and part_of(name) == side for name, weight in network.named_parameters())


def part_of(name: str) -> Side | Literal["joint"]:
    """Which of the three a parameter of this name belongs to."""
    first = name.partition(".")[0]
    return "image" if first == "vision" else "joint" if first == "joint" else "text"


@contextmanager
def text_alone(network: Network) -> Iterator[Network]:
    """The text tower without what stands beside it: its own parameters, and no others. Other networks stay whole."""
    taken = {name: network._modules.pop(name) for name in (("vision", "joint") if is_pair(network) else ())}
    try:
        yield network
    finally:
        network._modules.update(taken)


def said(network: Network, batch: Batch, rows: range) -> torch.Tensor:
    """Pooled features `[rows, F]` of some of a batch's texts, each of which is a segment."""
    segments = batch.segments[rows.start : rows.stop].copy()
    start, end = int(segments[0, 0]), int(segments[-1, :2].sum())
    segments[:, 0] -= start
    with text_alone(network):  # whether it is causal, its attention says: the image tower's would say no
        return heads.pooled(network, batch.tokens[start:end], batch.positions[start:end], segments)


# Making one


def load_pair(place: Path | str, pair: Pair | None, *, dtype: torch.dtype, chosen: bool) -> Network:
    """The network of a text tower and `pair.vision`, or of a folder that holds both, and keeps the precision in which
    it was saved unless another was `chosen`."""
    if saved_in(place):
        return _saved(Path(place), pair, dtype=dtype if chosen else None)
    assert pair is not None, "a folder of one tower is loaded as such"
    seen = seen_by(pair.vision, str(place))
    loader: Any = AutoModel
    network, told = loader.from_pretrained(
        place,
        dtype=dtype,
        attn_implementation=attention.NAME,
        use_safetensors=True,
        local_files_only=isinstance(place, Path),
        trust_remote_code=False,
        output_loading_info=True,
    )
    tower = vision.load_vision(pair.vision, dtype=dtype)
    absent = [name for name in told["missing_keys"] if "pooler." not in name]
    if absent:
        what = f"{len(absent)} of its weights are not in its files: {', '.join(sorted(absent)[:3])}"
        raise ModelError(Problem(file=str(place), what=what, mend="Fetch it again, whole."))
    _join(network, tower, seen, pair)
    return network


def _join(network: Network, tower: Network, seen: View, pair: Pair) -> None:
    """Put the image tower and new maps beside a text tower; the maps depend on their widths and the seed alone."""
    pooled = pair.pooling or ("last" if attention.is_causal(network) else "mean")
    network.config.mingshi_pooling = pooled
    network.config.mingshi_view = asdict(seen)
    heads.drop_pooler(network)
    widths = {"image": vision.width(tower, seen), "text": network.config.get_text_config().hidden_size}
    network.vision = tower
    network.joint = _maps(widths, pair.width, seed=pair.seed)
    _with_logit(network, pair)


def _maps(widths: dict[str, int], width: int, *, seed: int) -> torch.nn.ModuleDict:
    """A map of each side, in float32, drawn as CLIP's: normal, of variance one over the features' width."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.nn.ModuleDict({"logit": torch.nn.ParameterDict()})
    for side in ("image", "text"):
        layer = made[side] = torch.nn.Linear(widths[side], width, bias=False)
        with torch.no_grad():
            drawn = torch.randn(width, widths[side], generator=generator, device="cpu")
            layer.weight.copy_(drawn / math.sqrt(widths[side]))
    return made


def _with_logit(network: Network, pair: Pair) -> None:
    """What the loss learns besides: kept where it is there, begun where it is not, taken away where it is not used."""
    joint: Any = network.joint
    there = {name: parameter.detach() for name, parameter in joint["logit"].items()}
    device = joint["text"].weight.device
    wanted = {name: there.get(name, torch.tensor(start, device=device)) for name, start in pair.logit}
    network.joint["logit"] = torch.nn.ParameterDict({n: torch.nn.Parameter(v.clone()) for n, v in wanted.items()})


# Folders


def save(network: Network, folder: Path) -> None:
    """Both towers and the maps in one file, and their configurations in one envelope that transformers refuses."""
    told = {
        "model_type": OURS,
        "text": network.config.to_dict(),
        "vision": network.vision.config.to_dict(),
        "width": network.joint["text"].out_features,
        "logit": sorted(network.joint["logit"]),
        "dtype": str(network.dtype).removeprefix("torch."),
    }
    (folder / "config.json").write_text(json.dumps(told, indent=2, default=str), encoding="utf-8")
    tensors = {name: one.detach().cpu().contiguous().clone() for name, one in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _saved(folder: Path, pair: Pair | None, *, dtype: torch.dtype | None) -> Network:
    told = json.loads((folder / "config.json").read_bytes())
    dtype = dtype or (torch.bfloat16 if told["dtype"] == "bfloat16" else torch.float32)
    if pair is not None and pair.vision:
        what = f"{folder} has an image tower of its own"
        raise RecipeError(Problem(field="objective.vision", what=what, mend="Leave objective.vision out."))
    network = _empty(told, dtype=dtype)
    network.load_state_dict(load_file(folder / WEIGHTS), strict=True)
    if pair is not None:
        if pair.width != told["width"]:
            what = f"the shared space of {folder} is {told['width']} wide"
            raise RecipeError(Problem(field="objective.width", what=what, mend=f"Set it to {told['width']}."))
        _with_logit(network, pair)
    return network


def _empty(told: dict[str, Any], *, dtype: torch.dtype) -> Network:
    """The network of a saved envelope, its weights yet to come."""
    maker: Any = AutoModel
    parts = {side: dict(told[side]) for side in ("text", "vision")}
    made = {side: AutoConfig.for_model(part.pop("model_type"), **part) for side, part in parts.items()}
    network = maker.from_config(made["text"], attn_implementation=attention.NAME, dtype=dtype)
    heads.drop_pooler(network)
    tower = vision.empty_vision(made["vision"]).to(dtype).eval()
    network.vision = tower
    widths = {"text": network.config.get_text_config().hidden_size, "image": vision.width(tower, view(network))}
    network.joint = _maps(widths, told["width"], seed=0)
    network.joint["logit"] = torch.nn.ParameterDict({name: torch.tensor(0.0) for name in told["logit"]})
    return network


def skeleton(place: Path | str, pair: Pair) -> Network:
    """Its shape on no device: enough to see whether an adapter fits."""
    maker: Any = AutoModel
    with torch.device("meta"):
        if saved_in(place):
            told = json.loads((Path(place) / "config.json").read_bytes())
            return _empty(told, dtype=torch.float32)
        settings = AutoConfig.from_pretrained(place, local_files_only=isinstance(place, Path), trust_remote_code=False)
        network = maker.from_config(settings)
        tower = vision.empty_vision(vision.read_vision_settings(resolve(pair.vision)))
        _join(network, tower, vision.view_of(pair.vision), pair)
    return network
