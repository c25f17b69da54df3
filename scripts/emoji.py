"""Emoji with their names, cut into train, validation and test as JSON lines of `image` and `captions`.

A training row's captions are the name and the tags; elsewhere it is the name alone, so that each picture is looked for
by one text. A man's, a woman's and a person's emoji of one kind stay on one side: what is tested has not been seen.
Run it as `python -m scripts.emoji english` (or chinese) after `scripts/fetch emoji-pictures emoji-names-english` (or
emoji-names-chinese). Both languages divide alike.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mingshi.errors import ModelError
from mingshi.model.assets import MANIFEST, asset_folder
from scripts.preferences import write

GROUPS = {
    "english": (
        *("faces", "people", "", "animals and nature", "food and drink", "travel and places"),
        *("activities", "objects", "symbols", "flags"),
    ),
    "chinese": ("表情", "人物", "", "动物与自然", "食物与饮料", "旅行与地点", "活动", "物品", "符号", "旗帜"),
}
PART = 2  # the group of skin and hair, which are no emoji by themselves

Row = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl` beside a folder of pictures, and count their rows."""
    parser = argparse.ArgumentParser(description="Cut emoji and their names into train, validation and test.")
    parser.add_argument("language", choices=GROUPS)
    parser.add_argument("--output", type=Path, help="folder (data/emoji-LANGUAGE)")
    parser.add_argument("--validation", type=int, default=150, help="about so many rows (150)")
    parser.add_argument("--test", type=int, default=400, help="about so many rows (400)")
    chosen = parser.parse_args(arguments)
    assets = ("emoji-pictures", f"emoji-names-{chosen.language}")
    missing = [name for name in assets if not (asset_folder(name) / MANIFEST).is_file()]
    if missing:
        error = ModelError(f"{' and '.join(missing)} not on this machine", f"Run ./scripts/fetch {' '.join(missing)}.")
        print(f"emoji: {error}", file=sys.stderr)
        return error.exit_code
    output = chosen.output or Path("data") / f"emoji-{chosen.language}"
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    sides = divide(list(rows(chosen.language, output)), validation=chosen.validation, test=chosen.test)
    for side, found in sides.items():
        told = [{name: value for name, value in row.items() if name != "tags"} for row in found]
        if side == "train":
            tagged = zip(told, found, strict=True)
            told = [one | {"captions": [*one["captions"], *row["tags"]]} for one, row in tagged]
        write(output / f"{side}.jsonl", told)
        print(f"{side:10} {len(told):5} rows, {sum(len(one['captions']) for one in told):5} captions")
    return 0


def rows(language: str, output: Path) -> Iterator[Row]:
    """Every emoji that has a picture and a group, its picture copied beside the rows."""
    pictures = asset_folder("emoji-pictures")
    names = json.loads((asset_folder(f"emoji-names-{language}") / "data.json").read_text(encoding="utf-8"))
    for one in names:
        picture = _picture(pictures, one["hexcode"])
        if picture is None or one.get("group") in (None, PART):
            continue
        shutil.copyfile(picture, output / "pictures" / picture.name)
        between = ", " if language == "english" else "，"
        tags = [tag for tag in one.get("tags", ()) if len(tag) > 1]
        yield {
            "id": one["hexcode"],
            "image": f"pictures/{picture.name}",
            "captions": [one["label"]],
            "tags": [between.join(tags)] if tags else [],
            "attributes": {"group": GROUPS[language][one["group"]]},
        }


def _picture(folder: Path, code: str) -> Path | None:
    """The file of a code point sequence: the two packages write its variation selectors differently."""
    low = code.lower()
    names = (low, low.replace("-fe0f", ""), f"{low}-fe0f")
    return next((folder / f"{name}.png" for name in names if (folder / f"{name}.png").is_file()), None)


def divide(found: Sequence[Row], *, validation: int, test: int) -> dict[str, list[Row]]:
    """Families in the order of a hash of their sign, and so in no order: test first, then validation, then train."""
    families: dict[str, list[Row]] = {}
    for row in found:
        sign = family(row["id"])
        families.setdefault(hashlib.sha256(sign.encode()).hexdigest(), []).append(row)
    sides: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for name in sorted(families):
        side = "test" if len(sides["test"]) < test else "validation"
        side = side if len(sides[side]) < {"test": test, "validation": validation}[side] else "train"
        sides[side].extend(families[name])
    return sides


def family(code: str) -> str:
    """What a sequence shows, whoever does it: without man, woman, person and child, signs of sex, and colours."""
    people = {"1F468", "1F469", "1F9D1", "1F466", "1F467", "1F9D2", "2640", "2642", "FE0F", "200D"}
    parts = [part for part in code.split("-") if part not in people and not "1F3FB" <= part <= "1F3FF"]
    return "-".join(parts) or "person"


if __name__ == "__main__":
    sys.exit(main())
