"""Sources whose rows have pictures: when what was encoded of them still holds."""

from __future__ import annotations

import shutil
from pathlib import Path

from mingshi.data.encode import opened
from mingshi.data.formats import DataSource, read
from mingshi.data.images import are_kept, stamp
from mingshi.types import Captioned


def stamp_of(source: DataSource) -> str:
    """What the pictures that a source names are now; for a folder, all that is in it."""
    folder = Path(source.path)
    if folder.is_dir():
        return stamp(str(path) for path in sorted(folder.rglob("*")) if path.is_file())
    skipping = source.model_copy(update={"on_bad_row": "skip"})
    return stamp(row.image for row in read(skipping) if isinstance(row, Captioned))


def drop_without_pixels(folder: Path, *, key: str) -> None:
    """Forget an encoded source whose pictures' pixels are no longer kept: it is read again, and they with it."""
    whole = opened(folder, key=key)
    if whole is not None and not are_kept(one.image for one in whole if one.image):
        shutil.rmtree(folder)
