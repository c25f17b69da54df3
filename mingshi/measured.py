"""What an untrained model scored before is not measured again: the same weights, data, settings, code and machine.

Every recipe that starts from one model asks the same question first. An answer is kept under a hash of all that it
depends on; a model that has no folder to hash, or has been trained, is always measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from mingshi import provenance
from mingshi.model.assets import cache_root
from mingshi.model.load import Model
from mingshi.types import Sample, Score, Scores, Settings


def key(model: Model, ledger: Sequence[Mapping[str, Any]], settings: Sequence[Settings | int]) -> str | None:
    """A name for one measurement; None where what is measured cannot be named."""
    if model.folder is None or model.changed or model.adapter is not None:
        return None
    said = [entry.model_dump(mode="json") if isinstance(entry, Settings) else entry for entry in settings]
    return _named(
        {
            "model": provenance.hash_folder(model.folder, ("*",)),
            "template": model.template.fingerprint,
            "network": [str(model.network.dtype), model.device, model.packs],
            "data": [[entry["sha256"], entry["rows"], entry["used"]] for entry in ledger],
            "settings": said,
        }
    )


def network_key(network: str, samples: Iterable[Sample], settings: Sequence[Any]) -> str:
    """A name for measuring a network of this fingerprint (see model/reference.py) on encoded rows."""
    digest = sha256()
    for sample in samples:
        for column in (sample.tokens, sample.segments, sample.source, sample.target, sample.weight, sample.labels):
            digest.update(f"{column.dtype} {column.shape}".encode() + np.ascontiguousarray(column).tobytes())
        digest.update(f"{sample.image} {sample.id}\n".encode())
    return _named({"network": network, "rows": digest.hexdigest(), "settings": settings})


def _named(parts: Mapping[str, Any]) -> str:
    """The hash of what a measurement depends on: these parts, the code, the libraries and the machine."""
    machine = provenance.machine()
    around = {
        "code": provenance.code_sha256(),
        "versions": provenance.versions(),
        "machine": {name: machine[name] for name in ("processor", "threads") if name in machine},
    }
    return sha256(orjson.dumps({**parts, **around}, option=orjson.OPT_SORT_KEYS)).hexdigest()


def recall(name: str | None) -> Scores | None:
    """What was measured under this name; None if nothing was, or if it cannot be read."""
    if name is None:
        return None
    try:
        told = orjson.loads(_place(name).read_bytes())
        scores = {metric: Score(**_numbers(score)) for metric, score in told["scores"].items()}
        return Scores(scores=scores, items=told["items"], samples=told["samples"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(name: str | None, scores: Scores) -> None:
    """Keep a measurement; a full disk only means that it is made again next time."""
    if name is None:
        return
    place = _place(name)
    draft = place.with_name(f".{name}-{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(orjson.dumps(asdict(scores)))
        os.replace(draft, place)
    except OSError:
        draft.unlink(missing_ok=True)


def _place(name: str) -> Path:
    return cache_root() / "measured" / f"{name}.json"


def _numbers(score: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: an interval that is not there was written as null."""
    return {field: math.nan if value is None else value for field, value in score.items()}
