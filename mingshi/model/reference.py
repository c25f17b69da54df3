"""Reference log-probabilities: what a frozen network gives every predicted token, computed once and kept on disk.

One file for each (network, samples), named after a hash of both and of its own content, so that a file that was torn or
altered is made again. A second epoch, a second run, another beta or another rank read what the first one computed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import torch

from mingshi.data.plan import micro_batches, pack
from mingshi.model import attention
from mingshi.model.generate import inference
from mingshi.model.logprob import token_log_probabilities
from mingshi.types import Network, Sample

if TYPE_CHECKING:
    from mingshi.display import Display

FORMAT = 1  # of the file and of how its numbers are computed
NAMES = {"_name_or_path", "transformers_version", "id2label", "label2id"}  # of a configuration; they compute nothing
TOGETHER = 2048  # samples that streams are packed from at a time: the packing compares each with every stream


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Log-probabilities in nats of the predictions of a stage's samples, one sample after another."""

    values: np.ndarray  # [all predictions] float32, read where it lies
    ends: np.ndarray  # [samples + 1] int64

    def of(self, rows: Sequence[int], device: str | torch.device) -> torch.Tensor:
        """`[M]` float32 for a batch of these samples, in the order of its predictions."""
        pieces = [self.values[self.ends[row] : self.ends[row + 1]] for row in rows]
        return torch.from_numpy(np.concatenate(pieces)).to(device)


def reference_log_probabilities(
    network: Network, samples: Sequence[Sample], *, folder: Path, budget: int, display: Display
) -> Reference:
    """What the network, as it is now, gives every prediction of the samples: packed, without gradients and dropout.

    Read from `folder` where the same network answered for the same samples before; `budget` is tokens of one stream.
    """
    digest = hashlib.sha256()
    lengths, counts = [], []
    for sample in samples:
        for column in (sample.tokens, sample.segments, sample.source, sample.target):
            digest.update(f"{len(column)}:".encode() + np.ascontiguousarray(column, dtype=np.int64).tobytes())
        lengths.append(len(sample.tokens))
        counts.append(len(sample.target))
    key = hashlib.sha256(f"{FORMAT} {fingerprint(network)} {digest.hexdigest()}".encode()).hexdigest()
    ends = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    values = kept(folder, key)
    if values is None:
        values = np.empty(ends[-1], dtype=np.float32)
        cuts = list(streams(lengths, budget))
        with inference(network):
            for cut in display.track(cuts, len(cuts), "reference"):
                chosen = [samples[row] for row in cut]
                found = token_log_probabilities(network, pack(chosen, device=str(network.device))).cpu().numpy()
                for row, piece in zip(cut, np.split(found, np.cumsum([counts[row] for row in cut])[:-1]), strict=True):
                    values[ends[row] : ends[row + 1]] = piece
        keep(folder, key, values)
    return Reference(values, ends)


def streams(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Which samples make each stream."""
    for start in range(0, len(lengths), TOGETHER):
        for cut in micro_batches(lengths[start : start + TOGETHER], budget):
            yield [start + place for place in cut]


def fingerprint(network: Network) -> str:
    """SHA-256 of all that a network's answers come from: weights, precision, configuration, attention, device, torch.

    A low-rank update whose B is zero adds nothing, so it is passed over: adapters of any rank and seed that start from
    the same weights share their reference.
    """
    state = network.state_dict()
    silent = {name for name in state if ".lora_B." in name and not bool(state[name].any())}
    silent |= {name.replace(".lora_B.", ".lora_A.") for name in silent}
    settings = network.config.to_diff_dict()
    told = {name: settings[name] for name in settings if name not in NAMES}
    packs = network.config._attn_implementation == attention.NAME
    facts = [told, packs, str(network.dtype), network.device.type, torch.__version__]
    digest = hashlib.sha256(orjson.dumps(facts, default=str, option=orjson.OPT_SORT_KEYS))
    seen: dict[tuple[int, torch.Size], bytes] = {}  # tied weights have two names and one content
    for name in sorted(state.keys() - silent):
        tensor = state[name].detach()
        place = (tensor.data_ptr(), tensor.shape)
        if place not in seen:
            content = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            seen[place] = hashlib.sha256(content).digest()
        plain = name.replace(".base_layer.", ".")
        digest.update(f"{plain} {tensor.dtype} {tuple(tensor.shape)} ".encode() + seen[place])
    return digest.hexdigest()


def kept(folder: Path, key: str) -> np.ndarray | None:
    """The numbers kept under this key, memory-mapped; None where there are none, or not what was written."""
    for path in sorted(folder.glob(f"{key}.*.npy")):
        with suppress(OSError, ValueError, EOFError):
            values: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            if path.name == _name(key, values):
                return values
    return None


def keep(folder: Path, key: str, values: np.ndarray) -> None:
    """A full disk only means that they are computed again next time."""
    draft = folder / f".{key}-{os.getpid()}-{secrets.token_hex(4)}.npy"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.save(draft, values, allow_pickle=False)
        os.replace(draft, folder / _name(key, values))
    except OSError:
        draft.unlink(missing_ok=True)


def _name(key: str, values: np.ndarray) -> str:
    content = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
    return f"{key}.{content[:32]}.npy"
