"""Cut a student out of a model: its first layers, with the same embeddings, final norm and head.

Run it as `python scripts/first_layers.py smollm2-135m 15 runs/first-15`; the folder is then a recipe's `model`. With
`--fit ROWS` the student gets a head of its own, which reads the states that it has as the model's head reads the
states that the missing layers would have made of them, as well as a linear map can.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mingshi.data.formats import DataSource, read
from mingshi.errors import MingshiError
from mingshi.evaluate import batches
from mingshi.model.load import Model, load
from mingshi.model.student import first_layers, fit_head, save_student
from mingshi.objectives import Sft
from mingshi.terminal import Terminal
from mingshi.types import Batch, Chat, Sample

STREAM = 4096  # tokens that are read at once


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="first_layers", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="a known name or a model's folder")
    parser.add_argument("layers", type=int, help="how many of its layers to keep")
    parser.add_argument("folder", type=Path, help="where to write the student")
    parser.add_argument("--fit", metavar="ROWS", help="a file of rows to fit a head of its own to")
    parser.add_argument("--limit", type=int, default=600, help="only the first so many of them (600)")
    chosen = parser.parse_args(arguments)
    try:
        student, teacher = first_layers(load(chosen.model), chosen.layers), load(chosen.model)
        if chosen.fit:
            texts = streams(teacher, DataSource(path=chosen.fit, limit=chosen.limit))
            with Terminal() as display:
                fit_head(student, teacher, display.track(texts, len(texts), "fit the head"))
        whole = teacher.network.config.get_text_config().num_hidden_layers
        save_student(student, chosen.folder, of=whole, fitted=bool(chosen.fit))
    except MingshiError as error:
        print(f"first_layers: {error}", file=sys.stderr)
        return error.exit_code
    count = sum(parameter.numel() for parameter in student.network.parameters())
    print(f"first_layers: {count:,} weights in {chosen.folder}")
    return 0


def streams(model: Model, source: DataSource) -> list[Batch]:
    """The rows as the model reads them, several texts in one stream."""
    objective = Sft(too_long="truncate")
    outcomes = [objective.encode(example, model.text) for example in read(source) if isinstance(example, Chat)]
    samples = [one for outcome in outcomes for one in (outcome if isinstance(outcome, list) else [outcome])]
    usable = [one for one in samples if isinstance(one, Sample)]
    return list(batches(usable, objective=objective, budget=STREAM, device=model.device))


if __name__ == "__main__":
    sys.exit(main())
