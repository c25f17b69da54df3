"""Cut a student out of a model: its first layers, with the same embeddings, final norm and head.

Run it as `python scripts/first_layers.py smollm2-135m 15 runs/first-15`; the folder is then a recipe's `model`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mingshi.errors import MingshiError
from mingshi.model.student import first_layers


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="first_layers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a known name or a model's folder")
    parser.add_argument("layers", type=int, help="how many of its layers to keep")
    parser.add_argument("folder", type=Path, help="where to write the student")
    chosen = parser.parse_args(arguments)
    try:
        student = first_layers(chosen.model, chosen.layers, chosen.folder)
    except MingshiError as error:
        print(f"first_layers: {error}", file=sys.stderr)
        return error.exit_code
    count = sum(parameter.numel() for parameter in student.network.parameters())
    print(f"first_layers: {count:,} weights in {chosen.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
