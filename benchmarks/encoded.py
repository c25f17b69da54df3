"""What an objective made of rows, read back as texts and masks: both sides are held to it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.rows import Row
from mingshi.model.attention import chains
from mingshi.types import Batch, Sample


def texts(encoded: Sample | Batch) -> Iterator[Row]:
    """Each sequence as one text, its shared beginning included, up to its last target.

    Raises ValueError where what is predicted is not what stands there.
    """
    segments = encoded.segments
    before = chains(segments)
    columns = (np.asarray(column) for column in (encoded.tokens, encoded.source, encoded.target, encoded.sequence))
    tokens_T, source_M, target_M, sequence_M = columns
    for sequence in range(int(sequence_M.max()) + 1):
        source, target = (column[sequence_M == sequence] for column in (source_M, target_M))
        last = int(np.flatnonzero(segments[:, 0] <= source.max())[-1])  # segments stand in the order of their starts
        start, length, _ = segments[last].tolist()
        stream = np.concatenate([before[last], np.arange(start, start + length)])  # the text's place in the stream
        place = np.full(len(tokens_T), -1)
        place[stream] = np.arange(len(stream))
        end = place[source].max() + 1
        text = np.append(tokens_T[stream[:end]], target[place[source].argmax()])
        if place[source].min() < 0 or (text[place[source] + 1] != target).any():
            raise ValueError("a prediction is not of the token that follows")
        mask = np.zeros(len(text), dtype=int)
        mask[place[source] + 1] = 1
        yield Row(tokens=tuple(text.tolist()), mask=tuple(mask.tolist()))
