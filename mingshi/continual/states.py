"""What rows look like to a network: the mean of a text's last hidden states, of length one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mingshi.data.plan import pack
from mingshi.model import attention
from mingshi.model.generate import inference
from mingshi.model.reference import fingerprint, keep, kept, streams
from mingshi.types import Network, Sample

if TYPE_CHECKING:
    from mingshi.display import Display

FORMAT = 1  # of the file and of how its numbers are computed


def mean_states(
    network: Network, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display
) -> np.ndarray:
    """`[N, W]` float32 for these samples by the network as it is, without dropout; `budget`: tokens of one stream.

    Or what is kept in `folder` for the same body and texts.
    """
    digest = hashlib.sha256(f"{FORMAT} mean {fingerprint(network.base_model)}".encode())
    lengths = []
    for sample in samples:
        for column in (sample.tokens, sample.segments):
            digest.update(f"{len(column)}:".encode() + np.ascontiguousarray(column, np.int64).tobytes())
        lengths.append(len(sample.tokens))
    known_NW = kept(folder, digest.hexdigest())
    if known_NW is not None:
        return known_NW
    found_NW = np.empty((len(lengths), network.config.get_text_config().hidden_size), dtype=np.float32)
    packs = network.config._attn_implementation == attention.NAME
    hidden = attention.packed_hidden if packs else attention.padded_hidden
    cuts = list(streams(lengths, budget))
    with inference(network):
        for cut in display.track(cuts, len(cuts), "features"):
            batch = pack([samples[row] for row in cut], device=str(network.device))
            states_TW = hidden(network, batch.tokens, batch.positions, batch.segments).float()
            owner_T = torch.repeat_interleave(torch.arange(len(cut)), torch.tensor([lengths[row] for row in cut]))
            sums_NW = states_TW.new_zeros(len(cut), states_TW.shape[1])
            sums_NW.index_add_(0, owner_T.to(states_TW.device), states_TW)
            found_NW[cut] = torch.nn.functional.normalize(sums_NW, dim=1).cpu().numpy()
    keep(folder, digest.hexdigest(), found_NW)
    return found_NW
