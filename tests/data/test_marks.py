"""Marks give positions, and common beginnings are found."""

from __future__ import annotations

import os
import re

from hypothesis import given
from hypothesis import strategies as st

from mingshi.data.marks import MANNERS, Marker, read_marks, remove_marks
from mingshi.data.spans import shared_length

ASK = ({"role": "user", "content": "hello?"}, {"role": "assistant", "content": "Hello world"})


def test_marks_say_where_contents_went() -> None:
    marker = Marker(controls=re.compile("(?!)"), manner=MANNERS[0])
    first, second = (message["content"] for message in marker.conversation(ASK))
    text = f"[{second}][{first}][{first[:3]}]"
    regions = read_marks(text, marker.pieces)
    assert remove_marks(text) == "[Hello world][hello?][he]"
    assert [(region.start, region.end, region.piece.message) for region in regions.whole] == [(1, 12, 1), (14, 20, 0)]
    assert [piece.message for piece in regions.torn] == [0]
    assert regions.reach == {0: (14, 22), 1: (1, 12)}


@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_shared_length_is_the_longest_common_beginning(common: str, first: str, second: str) -> None:
    length = shared_length(common + first, common + second)
    assert length == len(os.path.commonprefix([common + first, common + second]))  # noqa: RUF071 (characters are meant)
