"""Write the golden masks anew: `python tests/golden/write_masks.py`. Read every difference before you commit it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))

from test_templates import FAMILIES, GOLDEN, golden_masks


def main() -> None:
    """One file for each family, one line for each run of tokens."""
    GOLDEN.mkdir(exist_ok=True)
    for family in FAMILIES:
        shapes = []
        for shape, conversations in golden_masks(family).items():
            rows = [
                f'  "{row}"'
                if isinstance(row, str)
                else "  [\n" + ",\n".join("   " + json.dumps(entry, ensure_ascii=False) for entry in row) + "\n  ]"
                for row in conversations
            ]
            shapes.append(f' "{shape}": [\n' + ",\n".join(rows) + "\n ]")
        (GOLDEN / f"{family}.json").write_text("{\n" + ",\n".join(shapes) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
