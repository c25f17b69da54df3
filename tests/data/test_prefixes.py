"""What texts begin with in common stands once in a folded stream, and every text can still be read off it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mingshi.data.prefixes import SHORTEST, share_prefixes

INSTRUCTION = list(range(100, 130))


def stream(texts: list[list[int]], parents: list[int] | None = None) -> tuple[np.ndarray, np.ndarray]:
    lengths = [len(text) for text in texts]
    starts = np.cumsum([0, *lengths[:-1]])
    segments = np.stack([starts, lengths, parents or [-1] * len(texts)], axis=1).astype(np.int32)
    return np.array([token for text in texts for token in text], dtype=np.int64), segments


def readings(rows: np.ndarray, segments: np.ndarray) -> list[list[int]]:
    """For each row of a stream, its whole text up to and with that row."""
    found: list[list[int]] = []
    ends: list[list[int]] = []
    for start, length, parent in segments.tolist():
        text = list(ends[parent]) if parent >= 0 else []
        for row in rows[start : start + length].tolist():
            text = [*text, row]
            found.append(text)
        ends.append(text)
    return found


def check(tokens: np.ndarray, segments: np.ndarray) -> int:
    """Every row of the stream still reads what it read before; how many tokens are read no more."""
    shared = share_prefixes(tokens, segments)
    if shared is None:
        return 0
    before, after = readings(tokens, segments), readings(tokens[shared.rows], shared.segments)
    assert [after[place] for place in shared.places] == before
    assert (shared.segments[:, 1] > 0).all()
    assert (shared.segments[:, 2] < np.arange(len(shared.segments))).all()
    return len(tokens) - len(shared.rows)


def test_an_instruction_is_read_once() -> None:
    assert check(*stream([[*INSTRUCTION, 1, 2, 3], [*INSTRUCTION, 4], [*INSTRUCTION, 1, 9]])) == 60


def test_shares_within_shares() -> None:
    longer = [*INSTRUCTION, *range(200, 220)]
    assert check(*stream([[*longer, 1], [*INSTRUCTION, 2], [*longer, 3], [7, 8, 9]])) == 30 + 50


def test_equal_texts_are_one() -> None:
    assert check(*stream([INSTRUCTION, INSTRUCTION, INSTRUCTION])) == 60


def test_a_text_that_begins_another_is_read_with_it() -> None:
    assert check(*stream([INSTRUCTION, [*INSTRUCTION, 5, 6]])) == 30


def test_answers_follow_their_own_prompt() -> None:
    tokens, segments = stream([[*INSTRUCTION, 1], [7, 7], [8], [*INSTRUCTION, 2], [9], [9, 9]], [-1, 0, 0, -1, 3, 3])
    assert check(tokens, segments) == 30


def test_answers_of_equal_prompts_follow_the_one_that_is_read() -> None:
    assert check(*stream([INSTRUCTION, [1], INSTRUCTION, [2], [3]], [-1, 0, -1, 2, 3])) == 30


@pytest.mark.parametrize("length", [SHORTEST - 1, 1, 0])
def test_short_beginnings_are_left_alone(length: int) -> None:
    texts = [[*INSTRUCTION[:length], 1, 5], [*INSTRUCTION[:length], 2, 6]]
    assert share_prefixes(*stream(texts)) is None


def test_a_stream_may_be_empty_and_so_may_its_texts() -> None:
    assert share_prefixes(*stream([[]])) is None
    assert check(*stream([[], [*INSTRUCTION, 1], [*INSTRUCTION, 2], []])) == 30


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40), st.lists(st.integers(0, 1), max_size=6)), min_size=1),
    st.randoms(use_true_random=False),
)
def test_any_stream_reads_the_same(shapes: list[tuple[int, int, list[int]]], chance: object) -> None:
    texts, parents = [], []
    for number, (kind, length, rest) in enumerate(shapes):
        grows = kind == 3 and number > 0
        parents.append(chance.randrange(number) if grows else -1)  # type: ignore[attr-defined]
        texts.append([*([] if grows else [kind] * length), *rest])
    check(*stream(texts, parents))
