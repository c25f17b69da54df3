"""A large file of rows, prepared and stepped through: `python -m benchmarks data --rows 1000000`.

The rows are instructions with answers made of sentences of Python's help pages, the same for the same seed and version
of Python; one in ten thousand is broken, so that the ledger has something to count. They are prepared in one process
and prepared again in another, which finds the first one's samples and then asks for random steps, as a resumed run
asks for its next one. Memory is what was resident at most, the template's process included, above what was resident
once the tokenizer had been loaded.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import orjson

from benchmarks.environment import answer
from benchmarks.machine import Usage, facts
from benchmarks.side_by_side import WORK, refuse_if_busy
from benchmarks.summary import markdown
from mingshi.data.jinja_render import RENDERER
from mingshi.data.plan import micro_batches
from mingshi.model.load import load_text
from mingshi.prepare import Prepared, prepare
from mingshi.recipe import Recipe, Stage
from mingshi.terminal import Terminal

BROKEN = 10_000  # one row in so many has no output
SENTENCES = 6  # of a row: two are asked, four are answered
STEPS = 100  # random ones that are asked for
BATCH = 16
EPOCHS = 3.0  # so that a step may need the order of another epoch than the one before it
STREAM = 4096  # tokens of a micro-batch
CLEAR_PEAK = "5"  # to /proc/self/clear_refs: the highest resident size is counted anew
MIB = 2**20


# Rows


def sentences() -> list[str]:
    """Sentences of Python's help pages that are neither very short nor very long."""
    from pydoc_data.topics import topics

    pages = (" ".join(page.split()) for page in topics.values())
    return [one for page in pages for one in re.split(r"(?<=[.:;])\s+", page) if 30 < len(one) < 200]


def rows(count: int, seed: int) -> Iterator[Mapping[str, str]]:
    """Instruction rows; every `BROKEN`th has no output."""
    known = sentences()
    random = Random(seed)
    for number in range(1, count + 1):
        asked, added, *answered = random.sample(known, SENTENCES)
        row = {"instruction": f"Question {number}: {asked}", "input": added, "output": " ".join(answered)}
        if number % BROKEN == 0:
            del row["output"]
        yield row


def write(path: Path, count: int, seed: int) -> None:
    """The rows as JSON lines."""
    with path.open("wb") as file:
        for row in rows(count, seed):
            file.write(orjson.dumps(row) + b"\n")


# One process


def resident(process: str = "self", field: str = "VmRSS") -> int:
    """Bytes of a process now, or at most since that was last cleared (`VmHWM`)."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{field}:"))


def highest() -> int:
    """Bytes resident at most, with the process that renders the template."""
    renderer = RENDERER.process
    return resident(field="VmHWM") + (resident(str(renderer.pid), "VmHWM") if renderer else 0)


def recipe_of(request: Mapping[str, Any]) -> Recipe:
    """Plain fine-tuning on the rows."""
    source = {"path": request["rows"], "format": "instruct", "on_bad_row": "skip"}
    stage = {"data": [source], "objective": {"kind": "sft"}, "batch": BATCH, "epochs": EPOCHS}
    if request["validation"]:
        stage["validation"] = request["validation"]
    return Recipe.model_validate({"model": request["model"], "output": request["folder"], "stages": [stage]})


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Prepare, and ask for steps if there are any to ask for."""
    recipe = recipe_of(request)
    text = load_text(recipe.model)
    os.environ["MINGSHI_CACHE"] = request["folder"]  # for samples alone: the model lies in the usual one
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    loaded = highest()
    began = time.perf_counter()
    with Terminal() as display:
        prepared = prepare(recipe.stages[0], recipe, text, display)
    told: dict[str, Any] = {"seconds": time.perf_counter() - began, "memory": highest() - loaded}
    told |= {"ledger": [{name: entry[name] for name in ("rows", "used", "rejected")} for entry in prepared.ledger]}
    lengths = prepared.samples.lengths
    told |= {"tokens": int(lengths.sum()), "samples": len(lengths), "validation": len(prepared.validation)}
    random = Random(request["seed"])
    steps = [random.randrange(prepared.plan.steps) for _ in range(request["steps"])]
    return told | {"seeks": [seek(prepared, recipe.stages[0], step) for step in steps]}


def seek(prepared: Prepared, stage: Stage, step: int) -> float:
    """Seconds from the number of a step to its packed streams."""
    began = time.perf_counter()
    samples = [prepared.samples[index] for index in prepared.plan.indices(step)]
    for cut in micro_batches([len(sample.tokens) for sample in samples], STREAM):
        stage.objective.collate([samples[place] for place in cut], "cpu")
    return time.perf_counter() - began


# What is told


def faults(first: Mapping[str, Any], second: Mapping[str, Any], count: int) -> list[str]:
    """What makes the figures void: rows that nobody counted, or another result the second time."""
    found = []
    accounted = sum(entry["used"] + sum(entry["rejected"].values()) for entry in first["ledger"])
    lost = sum(sum(entry["rejected"].values()) for entry in first["ledger"])
    if accounted != count:
        found.append(f"the ledger has {accounted} rows, and the file {count}")
    if lost != count // BROKEN:
        found.append(f"{lost} rows are rejected, and {count // BROKEN} are broken")
    if (first["ledger"], first["tokens"]) != (second["ledger"], second["tokens"]):
        found.append("the second time gave other samples")
    return found


def table(first: Mapping[str, Any], second: Mapping[str, Any], count: int) -> str:
    """The figures as a markdown table."""
    seeks = [1000 * seconds for seconds in second["seeks"]]
    cells = [
        ("rows", f"{count:,}"),
        ("samples to train on, to validate on", f"{first['samples']:,}, {first['validation']:,}"),
        ("tokens of a sample, mean", f"{first['tokens'] / first['samples']:.1f}"),
        ("seconds to prepare them", f"{first['seconds']:.1f}"),
        ("rows a second", f"{count / first['seconds']:,.0f}"),
        ("memory above the tokenizer's, MiB", f"{first['memory'] / MIB:,.0f}"),
        ("seconds to prepare them again, in a new process", f"{second['seconds']:.2f}"),
        ("memory of that, MiB", f"{second['memory'] / MIB:,.0f}"),
        ("milliseconds to any step, median", f"{statistics.median(seeks):.1f}"),
        (f"milliseconds to any step, worst of {len(seeks)}", f"{max(seeks):.1f}"),
    ]
    return markdown([""], [(label, [cell]) for label, cell in cells])


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m benchmarks data", description="A large file of rows, prepared.")
    line.add_argument("--rows", type=int, default=1_000_000, help="how many are made")
    line.add_argument("--validation", type=float, default=0.0, help="share of the rows that is held out")
    line.add_argument("--model", default="smollm2-135m", help="whose tokenizer and template are used")
    line.add_argument("--seed", type=int, default=0, help="of the rows, and of the steps asked for")
    line.add_argument("--folder", type=Path, help="where rows and samples are put for the time being; 4 KB a row")
    line.add_argument("--force", action="store_true", help="measure on a busy machine too")
    line.add_argument("--json", action="store_true", help="print the report as JSON on standard output")
    line.add_argument("--note", type=Path, help="write the report as a markdown page")
    line.add_argument("--run", type=json.loads, help=argparse.SUPPRESS)  # one process of the benchmark
    return line


def measure(chosen: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both processes, one after the other, over rows that are gone afterwards."""
    WORK.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=chosen.folder) as name:
        path = Path(name) / "rows.jsonl"
        write(path, chosen.rows, chosen.seed)
        request = {"rows": str(path), "folder": name, "steps": 0}
        request |= {"model": chosen.model, "validation": chosen.validation, "seed": chosen.seed}
        told = []
        for number, steps in enumerate((0, STEPS)):
            given = json.dumps(request | {"steps": steps})
            log = WORK / f"data-{number}.log"
            told.append(answer(sys.executable, "benchmarks.data", "--run", given, allocator=True, log=log))
    return told[0], told[1]


def page(machine: Mapping[str, str], chosen: argparse.Namespace, told: str, found: Sequence[str]) -> str:
    """The figures as a dated note."""
    command = f"python -m benchmarks data --rows {chosen.rows}"
    command += f" --validation {chosen.validation}" if chosen.validation else ""
    parts = [
        f"# A large file of rows ({datetime.date.today().isoformat()})",
        "## Machine\n\n" + "\n".join(f"* {name}: {value}" for name, value in machine.items()),
        f"## Results\n\n`{command}`, tokenizer and template of {Path(chosen.model).name}\n\n{told}",
        "\n".join(f"* {fault}" for fault in found),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print; 1 if rows were lost, or if the second time gave other samples."""
    chosen = parser().parse_args(words)
    if chosen.run is not None:
        print(json.dumps(run(chosen.run)))
        return 0
    refuse_if_busy(chosen.force)
    machine, before = facts(), Usage.now()
    first, second = measure(chosen)
    machine |= {"share used by others": f"{Usage.now().others_since(before):.0%}"}
    found, told = faults(first, second, chosen.rows), table(first, second, chosen.rows)
    if chosen.note:
        chosen.note.write_text(page(machine, chosen, told, found))
    report = {"machine": machine, "rows": chosen.rows, "first": first, "second": second, "faults": found}
    print(json.dumps(report) if chosen.json else "\n".join([told, *found]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
