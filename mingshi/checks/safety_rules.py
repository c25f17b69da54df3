"""What should not stand in a text that a model learns: where it begins and ends. Every rule gives spans of one text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from datetime import date

Span = tuple[int, int]

EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]{0,62}[A-Za-z0-9_+-])?@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}(?![A-Za-z0-9_-])",
    re.ASCII,
)
NOBODY = re.compile(  # names that belong to nobody (RFC 2606)
    r"[@.](?:example(?:\.(?:com|org|net|cn))?|test|invalid|localhost|local)$", re.IGNORECASE
)
PHONE = re.compile(
    r"(?<![\w.+-])(?:(?:\+?86[- ]?)?1[3-9]\d[- ]?\d{4}[- ]?\d{4}"  # a Chinese mobile number
    r"|0\d{2,3}-\d{7,8}"  # a Chinese line
    r"|\+[1-9]\d{0,2}[- .]?(?:\(\d{1,4}\)[- .]?)?\d{2,4}(?:[- .]?\d{2,4}){2,3}"  # international
    r"|(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4})(?![\w-]|\.\d)",  # North American
    re.ASCII,
)
FICTITIOUS = re.compile(r"555[-. ]?01\d{2}$|(\d)\1{6}|1234567")
IDENTITY = re.compile(r"(?<![\dA-Za-z])[1-9]\d{5}(?:18|19|20)\d{9}[\dXx](?![\dA-Za-z])")
CARD = re.compile(
    r"(?<![\dA-Za-z.+-])[3-6]\d{3}(?:([ -]?)\d{4}(?:\1\d{4}){2}(?:\1\d{1,3})?|([ -]?)\d{6}\2\d{5})"
    r"(?![\dA-Za-z]|[.-]\d)"
)
KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-(?:proj-|ant-|or-)?[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}"
    r"|github_pat_\w{22,}|glpat-[\w-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}"
    r"|LTAI[A-Za-z0-9]{12,24}|AKID[A-Za-z0-9]{32}|[sr]k_live_[A-Za-z0-9]{16,}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![A-Za-z0-9])"
    r"|-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----"
)
CONTROL = re.compile(
    r"<\|[A-Za-z][\w .-]{0,40}\|>|<｜[^｜<>\n]{1,40}｜>|\[/?INST\]|<</?SYS>>"
    r"|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]|</?(?:start_of_turn|end_of_turn|bos|eos|pad|unk|mask)>|\[(?:CLS|SEP|MASK|PAD|UNK)\]"
)
END = re.compile(r"</?s>")  # struck-through words of HTML too: those come in pairs
# Invisible: zero widths, soft hyphens, directions, tags, separators, and the controls that are not white space.
INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0"
    "\U000e0000-\U000e007f\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]"
)
JOINERS = "\u200c\u200d"
BLACK_FLAG = "\U0001f3f4"  # tags after it spell a region

WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)  # GB 11643-1999, of the first 17 digits
CHECKS = "10X98765432"


def emails(text: str) -> Iterator[Span]:
    for found in EMAIL.finditer(text):
        if not NOBODY.search(found.group()):
            yield found.span()


def phones(text: str) -> Iterator[Span]:
    """Numbers of telephones as they are written in China, in North America and internationally."""
    for found in PHONE.finditer(text):
        if not FICTITIOUS.search(found.group()) and not IDENTITY.fullmatch(found.group()):
            yield found.span()


def identities(text: str) -> Iterator[Span]:
    """Chinese identity numbers: a date that was, and the check digit of GB 11643."""
    for found in IDENTITY.finditer(text):
        number = found.group().upper()
        total = sum(weight * int(digit) for weight, digit in zip(WEIGHTS, number[:17], strict=True))
        if CHECKS[total % 11] == number[17] and _is_date(number[6:14]):
            yield found.span()


def _is_date(digits: str) -> bool:
    try:
        born = date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return born <= date.today()


def cards(text: str) -> Iterator[Span]:
    """Numbers of bank cards: 15 to 19 digits from 3 to 6 on, with Luhn's check digit, and no identity numbers."""
    for found in CARD.finditer(text):
        digits = [int(each) for each in found.group() if each.isdigit()]
        if luhn(digits) and len(set(digits)) > 3 and not any(identities(found.group())):
            yield found.span()


def luhn(digits: list[int]) -> bool:
    """Every second digit from the right doubled, and the digits' sum divided by ten (ISO/IEC 7812-1)."""
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def keys(text: str) -> Iterator[Span]:
    """Secrets by the form that their issuers give them."""
    yield from (found.span() for found in KEY.finditer(text))


def controls(text: str) -> Iterator[Span]:
    """What chat templates and tokenizers write around turns. Words struck through in HTML are none."""
    yield from (found.span() for found in CONTROL.finditer(text))
    if not re.search("<s>.*?</s>", text, re.DOTALL):
        yield from (found.span() for found in END.finditer(text))


def invisibles(text: str) -> Iterator[Span]:
    """Characters that cannot be seen, where their script or a picture does not need them."""
    if text.isascii() and text.isprintable():
        return
    for found in INVISIBLE.finditer(text):
        place = found.start()
        if not _needed(text, place):
            yield found.span()


def _needed(text: str, place: int) -> bool:
    """A joiner in a picture or in a script that joins its letters, a flag's tag, and a mark at the very beginning."""
    character = text[place]
    before = text[place - 1] if place else ""
    if character in JOINERS and before:
        script = unicodedata.name(before, "").split(" ")[0]
        return unicodedata.category(before) in ("So", "Sk", "Mn", "Mc") or script in JOINING or before == "\ufe0f"
    if "\U000e0020" <= character <= "\U000e007f":
        return BLACK_FLAG in text[max(0, place - 8) : place]
    return character in "\u200e\u200f\u061c" and bool(re.search("[\u0590-\u08ff]", text))


JOINING = {"ARABIC", "SYRIAC", "DEVANAGARI", "BENGALI", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "KHMER",
           "GUJARATI", "GURMUKHI", "ORIYA", "MYANMAR", "MONGOLIAN", "TIBETAN"}  # fmt: skip


def masked(text: str) -> str:
    """First and last characters, at most a fifth of all together: nobody is to be found by what is left."""
    shown = len(text) // 10
    if text.startswith("-----"):
        return "-----BEGIN … PRIVATE KEY-----"
    hidden = "*" * min(len(text) - 2 * shown, 12)
    return f"{text[:shown]}{hidden}{text[len(text) - shown :]}" if shown else hidden
