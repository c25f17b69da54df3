"""States of texts by a frozen encoder: one vector of unit length for each different text.

The mean of an encoder's last hidden states over a text's tokens, as sentence encoders are trained to be read. Texts are
encoded in blocks as they come and only their states stay in memory; each block is kept on disk under a key of the
network and its tokens, so that checking the same rows again computes nothing.
"""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mingshi.data.row_problem import RowProblem
from mingshi.types import Sample

if TYPE_CHECKING:
    from mingshi.model.load import Model

PREFIXES = (("e5-", "query: "),)  # what a family of encoders was trained to see before a text, by a part of its name
LONGEST = 256  # tokens of a text that are read
BLOCK = 512  # texts encoded and kept at a time
BUDGET = 4096  # tokens of one packed stream


class States:
    """Texts in, one by one; their places among the different ones out."""

    def __init__(self, encoder: str | Path, *, folder: Path | None = None) -> None:
        """Loads the encoder, a known name or a folder: ModelError where that fails. `folder` keeps what is computed."""
        from mingshi.model.assets import cache_root

        self.name = str(encoder)
        self._folder = folder or cache_root() / "companions" / "features"
        self._prefix = next((prefix for part, prefix in PREFIXES if part in Path(self.name).name.lower()), "")
        self._model = _loaded(encoder)
        self._longest = min(LONGEST, self._model.context)
        self._places: dict[bytes, int] = {}
        self._blocks: list[np.ndarray] = []  # [BLOCK, W] float16
        self._waiting: list[Sample] = []

    def add(self, text: str) -> int:
        """The text's place in `values`; equal texts share one."""
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
        if digest not in self._places:
            self._places[digest] = len(self._places)
            self._waiting.append(self._sample(text))
            if len(self._waiting) == BLOCK:
                self._encode()
        return self._places[digest]

    def values(self) -> np.ndarray:
        """Unit vectors in the order of their places: `[texts, W]` float16."""
        self._encode()
        return np.concatenate(self._blocks) if self._blocks else np.zeros((0, 1), np.float16)

    def _sample(self, text: str) -> Sample:
        """The text between the tokenizer's own beginning and end; what is too long loses its end."""
        template = self._model.template
        try:  # more characters than tokens could be read, and not all of a book
            tokens = template.plain(self._prefix + text.strip()[: 16 * LONGEST]).tokens
        except RowProblem:  # a text that holds private marks or nothing
            tokens = (*template.begin, *(() if template.end is None else (template.end,))) or (0,)
        if len(tokens) > self._longest:
            cut = self._longest if template.end is None else self._longest - 1
            tokens = (*tokens[:cut], *(() if template.end is None else (template.end,)))
        return Sample(
            tokens=np.asarray(tokens, dtype=np.int32),
            segments=np.array([[0, len(tokens), -1]], dtype=np.int32),
            source=np.array([len(tokens) - 1], dtype=np.int32),
            target=np.zeros(1, dtype=np.int32),
            weight=np.ones(1, dtype=np.float32),
            sequence=np.zeros(1, dtype=np.int32),
            labels=np.zeros(1, dtype=np.float32),
        )

    def _encode(self) -> None:
        from mingshi.display import Silent
        from mingshi.model.features import kept_features

        if not self._waiting:
            return
        found = kept_features(
            self._model.network, self._waiting, folder=self._folder, budget=BUDGET, display=Silent()
        ).values_RW
        lengths_R1 = np.linalg.norm(found, axis=1, keepdims=True)
        self._blocks.append((found / np.maximum(lengths_R1, 1e-12)).astype(np.float16))
        self._waiting.clear()


def _loaded(encoder: str | Path) -> Model:
    """With a head of classes, which nothing asks: it is how an encoder's body is read with a pooling of its own."""
    from mingshi.model.heads import Classes
    from mingshi.model.load import load

    classes = Classes(names=("no", "yes"), problem="single_label", pooling="mean")
    return load(encoder, precision="float32", classes=classes)
