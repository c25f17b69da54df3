"""Features of a frozen body: computed once for a stage's samples and kept on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mingshi.data.plan import pack
from mingshi.model import heads
from mingshi.model.generate import inference
from mingshi.model.reference import fingerprint, keep, kept, streams
from mingshi.types import Network, Sample

if TYPE_CHECKING:
    from mingshi.display import Display

FORMAT = 1  # of the file and of how its numbers are computed


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """One pooled state for each of a stage's samples."""

    values_RW: np.ndarray  # [samples, W] float32, read where it lies

    def of(self, rows: Sequence[int], network: Network) -> torch.Tensor:
        """`[N, W]` for a batch of these samples, as the network's own body would give it."""
        chosen = torch.from_numpy(np.ascontiguousarray(self.values_RW[list(rows)]))
        return chosen.to(network.device, network.dtype)


def kept_features(
    network: Network, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display
) -> Features:
    """Features by the network as it is now, without dropout, or those kept in `folder` for the same body and texts.

    `budget` is tokens of one packed stream. Float32 holds bfloat16 states as they are.
    """
    digest = hashlib.sha256()
    lengths = []
    for sample in samples:
        digest.update(f"{len(sample.tokens)}:".encode() + np.ascontiguousarray(sample.tokens, np.int64).tobytes())
        lengths.append(len(sample.tokens))
    told = f"{FORMAT} {fingerprint(network.base_model)} {heads.pooling_of(network)} {digest.hexdigest()}"
    key = hashlib.sha256(told.encode()).hexdigest()
    values_RW = kept(folder, key)
    if values_RW is None:
        values_RW = np.empty((len(lengths), network.config.get_text_config().hidden_size), dtype=np.float32)
        cuts = list(streams(lengths, budget))
        with inference(network):
            for cut in display.track(cuts, len(cuts), "features"):
                batch = pack([samples[row] for row in cut], device=str(network.device))
                values_RW[cut] = heads.features(network, batch).float().cpu().numpy()
        keep(folder, key, values_RW)
    return Features(values_RW)
