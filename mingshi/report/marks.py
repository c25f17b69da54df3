"""Text from data made safe to look at: what cannot be seen is shown as a mark, in pages and in terminals.

A dataset may hold escape codes that repaint a terminal, overrides that turn a line around, and characters of no
width that two equal-looking rows differ in (Unicode Technical Report 36, section 3). None of them is passed on.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# C0, C1 and DEL but not tab and newline; soft hyphen; spaces that are neither a space nor an ideographic space; fillers
# that draw nothing; zero widths, bidirectional controls, separators, tags; surrogates; private use; non-characters;
# variation selectors, except the two that choose an emoji's look, once.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f"
    "\u205f-\u206f\u2800\u3164\ud800-\udfff\ue000-\uf8ff\ufe00-\ufe0d\ufeff\uffa0\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
    "|(?<=[\ufe00-\ufe0f])[\ufe0e\ufe0f]"
)


def visible_text(text: str) -> str:
    """`text` with each unseen character as `<U+202E>`: fit for terminals, logs and error messages."""
    return _UNSEEN.sub(lambda match: f"<U+{ord(match[0]):04X}>", text)


def visible_html(text: str) -> Markup:
    """`text` escaped for the body of a page, each unseen character as a small mark with its code."""
    return Markup(_UNSEEN.sub(lambda match: f"<i>U+{ord(match[0]):04X}</i>", str(escape(text))))
