"""The parts of the page as plain values: what each section shows, cut to what a person will read."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mingshi.directions import plain_name
from mingshi.record import Run
from mingshi.report import plots
from mingshi.report.curves import Figure, length_figure, speed_facts
from mingshi.report.numbers import duration, figure, places, share
from mingshi.report.summary import (
    HEADLINES,
    Comparison,
    Interval,
    Record,
    metric_name,
    number,
    several,
    shown,
    table,
    whole,
)
from mingshi.report.words import Both, either, plain, word
from mingshi.report.words_health import message, remedy

SAMPLES_AT_MOST = 8
REASONS_AT_MOST = 12
STAGES_AT_MOST = 12  # that are drawn
LINES_AT_MOST = 40  # of any list: files, rejected rows, findings
LONG = 1500  # characters of a line that may be long: the command, the versions
HEADING_AT_MOST = 110  # characters of a folded sample's heading
PROMPT_AT_MOST = 100_000  # characters, from the end, that are searched for the last turn
EXAMPLES_AT_MOST = 5  # rejected rows of one file, rows of one finding

# How a user's turn begins and ends in common families of templates: only the headings of samples depend on it.
_TURN = re.compile(
    r"<\|im_start\|>user|<\|start_header_id\|>user<\|end_header_id\|>|<start_of_turn>user|<\|turn>user|<\|user\|>"
    r"|<\|User\|>|<｜User｜>|\[INST\]|^### Instruction:|^指令:",
    re.MULTILINE,
)
_CONTROL = re.compile(
    r"<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<end_of_turn>|<turn\|>|\[/INST\]|^### Response:|^输出:", re.MULTILINE
)

Line = tuple[Both, Both]  # a name and what it is


def asked(run: Run) -> list[tuple[Both | None, list[Line]]]:
    """Model, data and method: the run's own lines first, then each stage's under its number."""
    model, recipe = table(run.run.get("model")), table(run.run.get("recipe"))
    lines: list[Line] = []
    if name := model.get("name") or recipe.get("model"):
        lines.append((word("asked.model"), plain(name)))
    total, trainable = whole(model.get("parameters")), whole(model.get("trainable"))
    if total:
        counts = {"total": f"{total:,}", "trainable": f"{trainable:,}", "share": share(trainable, total)}
        said = word("asked.parameters", **counts) if trainable else plain(counts["total"])
        lines.append((word("asked.parameters.name"), said))
    for name in ("template", "precision"):
        if model.get(name):
            lines.append((word(f"asked.{name}"), plain(model[name])))
    parts = [_asked_stage(stage) for stage in several(recipe.get("stages"))[:LINES_AT_MOST]]
    if len(parts) == 1:
        return [(None, lines + parts[0])]
    return [(None, lines), *((word("asked.stage", number=index + 1), part) for index, part in enumerate(parts))]


def _asked_stage(stage: Record) -> list[Line]:
    lines: list[Line] = []
    adapter, optim = table(stage.get("adapter")), table(stage.get("optim"))
    files = [str(source.get("path")) for source in several(stage.get("data"))]
    if files:
        lines.append((word("asked.data"), plain(", ".join(files[:EXAMPLES_AT_MOST]), LONG)))
    if kind := adapter.get("kind"):
        named = word("asked.full") if kind == "full" else plain({"lora": "LoRA"}.get(str(kind), kind))
        ranked = word("asked.rank", kind=named, rank=adapter["rank"]) if "rank" in adapter else named
        lines.append((word("asked.method"), ranked))
    if batch := whole(stage.get("batch")):
        long = "asked.steps" if stage.get("steps") else "asked.epochs"
        count = f"{number(stage.get('steps') or stage.get('epochs') or 1):,g}"
        lines.append((word("asked.length"), word(long, count=count, batch=f"{batch:,}")))
    if rate := optim.get("learning_rate"):
        schedule = either("schedule", optim.get("schedule") or "constant")
        lines.append((word("asked.optim"), word("asked.rate", rate=figure(number(rate)), schedule=schedule)))
    return lines


def recipe(run: Record) -> str:
    """The resolved recipe as YAML."""
    values = run.get("recipe")
    if not isinstance(values, Mapping) or not values:
        return ""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = False, 100
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # the library types it as None
    stream = io.StringIO()
    try:
        yaml.dump(values, stream)
    except YAMLError:
        return ""
    return stream.getvalue()


def compared(entry: Comparison) -> dict[str, Any]:
    """One line of the table of scores."""
    before, after, difference = shown(entry)
    direction = {None: plain(""), True: word("numbers.lower"), False: word("numbers.higher")}[entry.lower]
    return {
        "name": entry.name,
        "data": either("data", entry.data),
        "direction": direction,
        "cells": [
            (word("numbers.before"), *_cell(before)),
            (word("numbers.after"), *_cell(after)),
            (word("numbers.difference"), *_cell(difference)),
        ],
        "judgement": entry.judgement,
        "judged": word(f"verdict.{entry.judgement}"),
        "count": figure(entry.count) if entry.count else "–",
        "strip": plots.strip(_span(entry.before), _span(entry.after)),
        "signature": entry.signature,
    }


def _cell(texts: tuple[str, str, str]) -> tuple[str, Both]:
    value, low, high = texts
    return value, plain("") if "–" in (low, high) else word("numbers.interval", low=low, high=high)


def _span(side: Interval | None) -> tuple[float, float, float] | None:
    if side is None:
        return None
    return (side.value, side.low, side.high) if side.known else (side.value, side.value, side.value)


def ledger(data: Record) -> dict[str, Any]:
    """Files with their rows, whether they add up, and the first rows that were rejected."""
    sources = several(data.get("sources"))
    rows = sum(whole(source.get("rows")) for source in sources)
    used = sum(whole(source.get("used")) for source in sources)
    rejected = sum(_rejected(source) for source in sources)
    balanced = all(whole(s.get("rows")) == whole(s.get("used")) + _rejected(s) for s in sources)
    counts = {"rows": f"{rows:,}", "used": f"{used:,}", "rejected": f"{rejected:,}"}
    return {
        "sources": [_source(source) for source in sources[:LINES_AT_MOST]],
        "others": max(0, len(sources) - LINES_AT_MOST),
        "balanced": balanced,
        "sum": word("ledger.adds" if balanced else "ledger.broken", **counts),
        "examples": [
            (f"{source.get('path')}:{example.get('line')}", example.get("reason"), example.get("detail"))
            for source in sources
            for example in several(source.get("examples"))[:EXAMPLES_AT_MOST]
        ][:LINES_AT_MOST],
    }


def _rejected(source: Record) -> int:
    return sum(whole(count) for count in table(source.get("rejected")).values())


def _source(source: Record) -> dict[str, Any]:
    reasons = sorted(table(source.get("rejected")).items(), key=lambda reason: (-whole(reason[1]), str(reason[0])))
    return {
        "role": either("data", source.get("role")),
        "path": source.get("path"),
        "format": plain(source.get("format", "")),
        "rows": f"{whole(source.get('rows')):,}",
        "used": f"{whole(source.get('used')):,}",
        "reasons": [(str(name), f"{whole(count):,}") for name, count in reasons[:REASONS_AT_MOST]],
        "others": max(0, len(reasons) - REASONS_AT_MOST),
        "shares": plots.shares(whole(source.get("used")), _rejected(source)),
    }


def lengths(data: Record) -> list[tuple[Both, Figure | None]]:
    """For each stage what its samples hold, and how long they are."""
    made: list[tuple[Both, Figure | None]] = []
    for stage in several(data.get("stages"))[:STAGES_AT_MOST]:
        counts = {name: f"{whole(stage.get(name)):,}" for name in ("samples", "tokens", "trained")}
        values = stage.get("lengths")
        sizes = [whole(size) for size in values if whole(size) >= 0] if isinstance(values, list) else []
        limit = whole(stage.get("max_length")) or None
        made.append(
            (
                word("lengths.note", **counts),
                length_figure(sizes, limit=limit, dropped=whole(stage.get("cut")), samples=whole(stage.get("samples")))
                if sizes
                else None,
            )
        )
    return made


def findings(found: Sequence[Record]) -> dict[str, Any]:
    """What the checks saw, the worst first."""
    order = {"error": 0, "warning": 1, "note": 2}
    entries = sorted(several(found), key=lambda entry: order.get(str(entry.get("severity")), 3))
    return {
        "entries": [
            {
                "severity": str(entry.get("severity")) if str(entry.get("severity")) in order else "note",
                "check": ".".join(str(entry[name]) for name in ("check", "kind") if entry.get(name)),
                "count": word("findings.count", count=f"{whole(entry.get('count')):,}"),
                "message": _cut(message(entry), 400),
                "remedy": _cut(remedy(entry), 300),
                "rows": [_place(row) for row in several(entry.get("rows"))[:EXAMPLES_AT_MOST]],
            }
            for entry in entries[:LINES_AT_MOST]
        ],
        "others": max(0, len(entries) - LINES_AT_MOST),
    }


def _cut(said: Both, limit: int) -> Both:
    """Both languages, each of so many characters at most."""
    return Both(plain(said.en, limit).en, plain(said.zh, limit).zh)


def _place(row: Record) -> str:
    return ":".join(str(row[name]) for name in ("source", "line") if row.get(name) is not None)


def samples(evals: Sequence[Record]) -> list[dict[str, Any]]:
    """The first answers before and after training, side by side by prompt; the test set's where there are any."""
    written = [entry for entry in evals if several(entry.get("samples")) and entry.get("when") in ("before", "after")]
    for data in ("test", "validation"):
        if chosen := [entry for entry in written if entry.get("data") == data]:
            written = chosen
            break
    before = {_key(s): s for e in reversed(written) if e["when"] == "before" for s in _answers(e)}
    after = {_key(s): s for e in written if e["when"] == "after" for s in _answers(e)}
    pairs = []
    for key in list(dict.fromkeys([*before, *after]))[:SAMPLES_AT_MOST]:
        one, other = before.get(key), after.get(key)
        base = other or one or {}
        pairs.append(
            {
                "asked": asked_in(str(base.get("prompt") or "")),
                "prompt": base.get("prompt", ""),
                "reference": base.get("reference"),
                "answers": [("before", _answer(one), _marks(one)), ("after", _answer(other), _marks(other))],
            }
        )
    return pairs


def _answers(entry: Record) -> list[Record]:
    """Samples that are answers to a prompt; queries of pictures and texts are told elsewhere."""
    return [one for one in several(entry["samples"]) if "prompt" in one]


def asked_in(prompt: str) -> str:
    """How the last user turn of a rendered prompt begins, on one line; all of it where no turn can be told."""
    turn = _TURN.split(prompt[-PROMPT_AT_MOST:])[-1].lstrip()
    said = _CONTROL.split(turn, maxsplit=1)[0].strip() or prompt.strip()
    line = " ".join(said[: 4 * HEADING_AT_MOST].split())
    return line if len(line) <= HEADING_AT_MOST else line[:HEADING_AT_MOST] + "…"


def _key(sample: Record) -> str:
    return f"{sample.get('prompt')}\x00{sample.get('reference')}"


def _answer(sample: Record | None) -> Any:
    return None if sample is None else sample.get("prediction", "")


def _marks(sample: Record | None) -> list[tuple[Both, str]]:
    """An answer's own scores, of those metrics that the verdict is about."""
    scores = table(sample.get("scores")) if sample is not None else {}
    named = {plain_name(str(name)): figure(number(score), 2) for name, score in scores.items()}
    return [(metric_name(name), named[name]) for name in HEADLINES if name in named]


def speed(run: Run) -> list[Line]:
    """How much was read, and how fast."""
    tokens, trained, seconds = speed_facts(run.steps)
    if not run.steps:
        return []
    lines: list[Line] = []
    if seconds > 0:
        rate = tokens / seconds
        lines.append((word("speed.rate"), plain(figure(rate, max(0, min(1, places(rate)))))))
    lines += [
        (word("speed.tokens"), plain(f"{tokens:,}")),
        (word("speed.trained"), word("speed.part", count=f"{trained:,}", share=share(trained, tokens))),
        (word("speed.steps"), plain(f"{len(run.steps):,}")),
        (word("speed.training"), duration(seconds)),
    ]
    whole_time = number(run.run.get("seconds"))
    if whole_time >= 0:
        lines.append((word("speed.whole"), duration(whole_time)))
    return [*lines, *_peaks(several(run.run.get("memory")))]


def _peaks(stages: Sequence[Record]) -> Iterator[Line]:
    """The most memory that the process has had until a stage's end, evaluation included, beside what was expected."""
    for place, stage in enumerate(stages, 1):
        measured, expected = (
            number(stage.get("measured")) / 1e9,
            number(table(stage.get("estimate")).get("total")) / 1e9,
        )
        if measured > 0 and expected > 0:
            alone = len(stages) == 1
            yield (
                word("speed.memory") if alone else word("speed.memoryof", stage=place),
                word("speed.gigabytes", measured=figure(measured, 1), expected=figure(expected, 1)),
            )


def origin(run: Record) -> list[Line]:
    """Where the run came from: enough to do it again."""
    lines: list[Line] = []
    for name in ("id", "created", "finished", "seed"):
        if run.get(name) is not None:
            lines.append((word(f"origin.{name}"), plain(run[name])))
    if resumes := several(run.get("resumes")):
        lines.append(
            (word("origin.resumes"), word("origin.times", count=len(resumes), last=resumes[-1].get("at", "–")))
        )
    command = run.get("command")
    if command:
        lines.append((word("origin.command"), plain(_joined(command), LONG)))
    code = table(run.get("code"))
    if code:
        clean = word("origin.dirty" if code.get("dirty") else "origin.clean")
        commit, sha = code.get("commit"), code.get("sha256")
        if commit:
            lines.append((word("origin.code"), word("origin.commit", commit=commit, clean=clean)))
        if sha:
            lines.append((word("origin.sources"), plain(sha)))
    if machine := table(run.get("machine")):
        lines.append((word("origin.machine"), _machine(machine)))
    if versions := table(run.get("versions")):
        said = ", ".join(f"{name} {version}" for name, version in list(versions.items())[:LINES_AT_MOST])
        lines.append((word("origin.versions"), plain(said, LONG)))
    return lines


def _machine(machine: Record) -> Both:
    said = {name: machine.get(name, "–") for name in ("processor", "system", "threads")}
    cores = machine.get("usable_cores", machine.get("cores", "–"))
    return word("origin.parts", **said, cores=cores, memory=figure(number(machine.get("memory_bytes")) / 2**30, 1))


def _joined(command: Any) -> str:
    parts = [str(part) for part in command] if isinstance(command, list | tuple) else [str(command)]
    return " ".join(f"'{part}'" if " " in part else part for part in parts)


def hashes(run: Run) -> list[tuple[Both, list[tuple[str, str, Both]]]]:
    """Files of the model and of the data with their SHA-256."""
    files = list(table(table(run.run.get("model")).get("files")).items())
    model = [(str(name), str(sha), plain("")) for name, sha in files[:LINES_AT_MOST]]
    read = {  # a file may be both trained on and held out from
        (str(s.get("path")), str(s["sha256"]), word("origin.bytes", count=f"{whole(s.get('bytes')):,}"))
        for s in several(run.data.get("sources"))[:LINES_AT_MOST]
        if s.get("sha256")
    }
    groups = ((word("origin.model"), model), (word("origin.data"), sorted(read)))
    return [(name, entries) for name, entries in groups if entries]
