"""What two frozen towers make of pictures and texts: computed once, kept on disk, found again by later epochs and runs.

Letters: `U` pictures, `R` texts, `F` features of a tower, `E` width of the shared space.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mingshi.data import images
from mingshi.data.plan import pack
from mingshi.model import heads, vision
from mingshi.model import pair as pairs
from mingshi.model.assets import cache_root
from mingshi.model.generate import inference
from mingshi.model.reference import fingerprint, keep, kept, streams
from mingshi.types import Network, Sample

if TYPE_CHECKING:
    from mingshi.model.generate import Track
    from mingshi.model.load import Model, Text

FORMAT = 1  # of the files and of how their numbers are computed
AT_ONCE = 32  # pictures that go through a tower together
STREAM = 4096  # tokens of one packed stream


def default_folder() -> Path:
    return cache_root() / "companions" / "features"


def text_sample(tokens: Sequence[int], text: Text, *, limit: int, image: str = "", name: str = "") -> Sample:
    """A text as one segment, its end left out where it is longer, but never what the tokenizer ends every text with."""
    end = text.template.end
    if len(tokens) > limit:
        tokens = tokens[:limit] if end is None else (*tokens[: limit - 1], end)
    return Sample(
        tokens=np.asarray(tokens, dtype=np.int32),
        segments=np.array([[0, len(tokens), -1]], dtype=np.int32),
        source=np.array([len(tokens) - 1], dtype=np.int32),
        target=np.zeros(1, dtype=np.int32),
        weight=np.ones(1, dtype=np.float32),
        sequence=np.zeros(1, dtype=np.int32),
        image=image,
        id=name,
    )


def picture_features(network: Network, names: Sequence[str], *, folder: Path, track: Track) -> np.ndarray:
    """`[U, F]` float32 of kept pixels, without gradients; read from `folder` where the same tower saw them before."""
    view = pairs.view(network)
    told = f"{FORMAT} {fingerprint(network.vision)} {astuple(view)} {' '.join(names)}"
    key = hashlib.sha256(told.encode()).hexdigest()
    found = kept(folder, key)
    if found is None:
        parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
        made = []
        with inference(network):
            for part in track(parts, len(parts), "pictures"):
                seen = torch.from_numpy(images.pixels(part, view))
                made.append(vision.see(network.vision, seen, view).float().cpu().numpy())
        found = np.concatenate(made)
        keep(folder, key, found)
    return found


def text_features(
    network: Network, samples: Sequence[Sample], *, folder: Path, budget: int, track: Track
) -> np.ndarray:
    """`[R, F]` float32 of these texts, likewise; `budget` is tokens of one packed stream."""
    digest, lengths = hashlib.sha256(), []
    for sample in samples:
        digest.update(f"{len(sample.tokens)}:".encode() + np.ascontiguousarray(sample.tokens, np.int64).tobytes())
        lengths.append(len(sample.tokens))
    with pairs.text_alone(network):
        told = f"{FORMAT} {fingerprint(network)} {heads.pooling_of(network)} {digest.hexdigest()}"
        key = hashlib.sha256(told.encode()).hexdigest()
        found = kept(folder, key)
        if found is None:
            found = np.empty((len(lengths), network.config.get_text_config().hidden_size), dtype=np.float32)
            cuts = list(streams(lengths, budget))
            with inference(network):
                for cut in track(cuts, len(cuts), "texts"):
                    batch = pack([samples[row] for row in cut], device=str(network.device))
                    found[cut] = heads.features(network, batch).float().cpu().numpy()
            keep(folder, key, found)
    return found


def pictures_in_space(model: Model, names: Sequence[str], track: Track | None) -> np.ndarray:
    """`[U, E]` float32 of length one, of kept pixels."""
    features = picture_features(model.network, names, folder=default_folder(), track=track or _untracked)
    return _in_space(model.network, "image", features)


def texts_in_space(model: Model, texts: Sequence[str], track: Track | None) -> np.ndarray:
    """`[R, E]` float32 of length one; longer texts than the model was trained on lose their ends."""
    limit = min(model.tokenizer.model_max_length, model.context)
    samples = [text_sample(model.template.plain(text).tokens, model.text, limit=limit) for text in texts]
    features = text_features(model.network, samples, folder=default_folder(), budget=STREAM, track=track or _untracked)
    return _in_space(model.network, "text", features)


def _in_space(network: Network, side: pairs.Side, features: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        values = torch.from_numpy(np.array(features)).to(network.device)
        found: np.ndarray = pairs.joined(network, side, values).float().cpu().numpy()
    return found


def _untracked(items: Iterable[Any], count: int | None, label: str) -> Iterator[Any]:
    return iter(items)
