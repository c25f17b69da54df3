"""Pictures with what is said of them: a picture's file, looked up beside the file of the rows, and one text or several.

Nothing is fetched: an address is refused. A file must lie in the folder of the rows' file, links resolved, so that
rows from somewhere cannot name what else is on the machine. Bytes, as Parquet files of the Hub hold them, are put into
the cache under their hash: an example always names a file.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mingshi.data.formats.fields import Format, Layout, kind, listing, origin, text
from mingshi.data.formats.rows import BadRow, Row
from mingshi.data.row_problem import RowProblem
from mingshi.model.assets import cache_root
from mingshi.types import Captioned

ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")  # `https:`, `s3:`, `data:`; a drive has one letter
FETCH = "Nothing is fetched: download the pictures first and name their files."


def read_captioned(row: Row, *, image: str, said: str) -> Captioned:
    """A row with a picture's file and its caption, or a list of captions of which each says it."""
    path, identity = picture(row, image)
    return Captioned(**origin(row, [identity]), image=path, texts=captions(row.fields[said], said))


def picture(row: Row, field: str) -> tuple[str, str]:
    """The path of a row's picture, and what tells it from others: BadRow where there is none that may be read."""
    value = row.fields[field]
    if isinstance(value, Mapping):  # as `datasets` writes pictures
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | bytearray):
        path = _laid_down(bytes(value), field)
        return path, Path(path).name
    if not isinstance(value, str):
        raise BadRow("wrong_type", f"{kind(value)}, not a file's name", mend="Name the picture's file.", field=field)
    name = text(value, field).strip()
    if not name:
        raise BadRow("missing_image", "an empty name", mend="Name the picture's file.", field=field)
    if ADDRESS.match(name):
        raise BadRow("remote_image", f"{name[:60]!r} is an address, not a file", mend=FETCH, field=field)
    return _confined(row.source, name, field), name


def _confined(source: str, name: str, field: str) -> str:
    folder = _folder(source)
    path = os.path.join(folder, name)
    try:
        inside, place = os.path.realpath(folder), os.path.realpath(path)
        within = os.path.commonpath([inside, place]) == inside
        there = within and os.path.isfile(place)
    except (OSError, ValueError):  # no name that a file could have
        within, there = True, False
    shown = repr(name if len(name) <= 60 else name[:59] + "…")
    if not within:
        mend = "Put the rows' file into a folder above all of its pictures."
        raise BadRow("image_outside", f"{shown} is not in the folder of the rows", mend=mend, field=field)
    if not there:
        mend = "Names are looked up from the folder of the rows' file."
        raise BadRow("missing_image", f"there is no file {shown}", mend=mend, field=field)
    return path


@lru_cache(maxsize=16)
def _folder(source: str) -> str:
    return source if os.path.isdir(source) else os.path.dirname(source)


def _laid_down(content: bytes, field: str) -> str:
    """The file in the cache that holds these bytes."""
    from mingshi.data.images import check_bytes

    path = cache_root() / "pictures" / hashlib.sha256(content).hexdigest()
    if not path.is_file():
        try:
            check_bytes(content)
        except RowProblem as problem:
            raise BadRow(problem.reason, problem.detail.removesuffix("."), field=field) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        draft.write_bytes(content)
        os.replace(draft, path)
    return str(path)


def captions(value: Any, field: str) -> tuple[str, ...]:
    """One text, or each of a list once; a table's cell of `captions` is the JSON text of a list."""
    several = field == "captions" or isinstance(value, list | tuple)
    found = [text(one, field).strip() for one in (listing(value, field) if several else [value])]
    if not found or not all(found):
        raise BadRow("empty_text", "an empty caption", mend="Say what the picture shows.", field=field)
    return tuple(dict.fromkeys(found))


FORMAT: Format = tuple(
    Layout(needs=(image, said), read=partial(read_captioned, image=image, said=said))
    for image in ("image", "file_name")
    for said in ("text", "caption", "captions")
)
