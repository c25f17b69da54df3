"""A folder of pictures as rows: by its `metadata` file, or by the text file beside each picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mingshi.data.images import ENDINGS

if TYPE_CHECKING:
    from mingshi.data.formats.rows import Raw

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.tsv", "metadata.parquet", "metadata.json")
BESIDE = (".txt", ".caption")  # of a caption's file; each line is a caption


def described_by(folder: Path) -> Path | None:
    """The file that says what is in a folder; None: the files beside the pictures do."""
    return next((folder / name for name in METADATA if (folder / name).is_file()), None)


def holds_pictures(folder: Path) -> bool:
    """Whether anything in a folder is a picture, or describes some."""
    return described_by(folder) is not None or any(_is_picture(path) for path in folder.rglob("*"))


def folder_rows(folder: Path, name: str) -> Iterator[Raw]:
    """A row for each picture, in the order of their names, with the lines of the text file of the same name.

    A picture without one, and a text without a picture, are rows that cannot be used.
    """
    from mingshi.data.formats.rows import BadRow, Row

    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.rglob("*")):
        ending = path.suffix.lower()
        if path.is_file() and not path.name.startswith(".") and (ending in BESIDE or _is_picture(path)):
            stem = path.relative_to(folder).with_suffix("").as_posix()
            found.setdefault(stem, {})["said" if ending in BESIDE else "image"] = path
    for line, (stem, files) in enumerate(sorted(found.items()), start=1):
        try:
            if "said" not in files:
                raise BadRow("missing_caption", f"no text beside the picture {stem[:80]!r}", mend="Write NAME.txt.")
            if "image" not in files:
                raise BadRow("missing_image", f"no picture beside the text {stem[:80]!r}", mend="Take the text out.")
            lines = files["said"].read_text(encoding="utf-8-sig").splitlines()
        except BadRow as bad:
            yield bad.reject(name, line)
        except (OSError, UnicodeDecodeError):
            what = f"the text beside the picture {stem[:80]!r} is not UTF-8"
            yield BadRow("bad_utf8", what, mend="Save it as UTF-8.").reject(name, line)
        else:
            image = files["image"].relative_to(folder).as_posix()
            yield Row(
                source=name, line=line, fields={"image": image, "captions": [one for one in lines if one.strip()]}
            )


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS
