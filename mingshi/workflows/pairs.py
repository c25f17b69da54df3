"""`mingshi pairs`: a file of answers, or of prompts and a model, becomes a training and a test file of preferences.

read → (ask a model, score what it says) → make pairs → write both files and `pairs.json`, whose ledgers add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mingshi import provenance
from mingshi.data.formats import DataSource, read
from mingshi.data.formats.questions import read_to_answer
from mingshi.display import Display, Silent
from mingshi.errors import DataError, ModelError, Problem, RecipeError
from mingshi.places import require_new
from mingshi.types import Answer, Answered, Example, Preference, Reject
from mingshi.workflows.preferences import Pair, Pairing, Pairs, answered, make_pairs

if TYPE_CHECKING:
    from mingshi.model.load import Model
    from mingshi.workflows.sampling import Origin


def pairs(
    source: DataSource,
    folder: Path,
    pairing: Pairing | None = None,
    *,
    origin: Origin | None = None,
    display: Display | None = None,
) -> dict[str, Any]:
    """Write `train.jsonl`, `test.jsonl` and `pairs.json` into a new folder; what the last one holds is returned."""
    display, pairing = display or Silent(), pairing or Pairing()
    require_new(folder)
    if origin is not None and origin.scoring.score == "length" and pairing.balance:
        raise RecipeError("--score length prefers a length, and balancing takes that out", "Add --no-balance.")
    outcomes = list(read(source) if origin is None else read_to_answer(source))
    examples = [outcome for outcome in outcomes if isinstance(outcome, Example)]
    rejected = Counter(outcome.reason for outcome in outcomes if isinstance(outcome, Reject))
    lost: Counter[str] = Counter()
    facts: dict[str, Any] = {}
    if origin is None:
        answers = [_compared(example) for example in examples]
    else:
        answers, lost, facts = _asked(examples, origin, display)
    made = make_pairs(answers, pairing)
    rows = {"read": len(outcomes), "used": len(examples), "rejected": dict(rejected)}
    report = {
        "rows": rows,
        **ledger(made, lost),
        "length": {name: asdict(effect) for name, effect in made.effects.items()},
        "findings": [asdict(finding) for finding in made.findings],
        "settings": pairing.model_dump(mode="json"),
        "data": provenance.fingerprint_file(Path(source.path)) | source.model_dump(mode="json", exclude_none=True),
        "versions": provenance.versions(),
        **facts,
    }
    return {"folder": str(folder)} | _write(folder, made, provenance.recordable(report))


def ledger(made: Pairs, lost: Counter[str] | None = None) -> dict[str, Any]:
    """Where every answer, prompt and pair went: each total is the sum of what stands under it."""
    answers = made.answers + (lost or Counter())
    used = answers.pop("used", 0)
    return {
        "answers": {"read": used + answers.total(), "used": used, "dropped": dict(answers)},
        "prompts": {"read": made.prompts.total(), **made.prompts},
        "pairs": {
            "considered": made.considered,
            "train": len(made.train),
            "test": len(made.test),
            "dropped": dict(made.dropped),
        },
    }


def described(report: Mapping[str, Any]) -> list[str]:
    """The ledger and the lengths as lines for a person."""

    def parts(counts: Mapping[str, int]) -> str:
        return "".join(f" + {count} {reason}" for reason, count in counts.items())

    rows, answers, prompts, found = (report[name] for name in ("rows", "answers", "prompts", "pairs"))
    lines = [
        f"rows     {rows['read']} read = {rows['used']} used{parts(rows['rejected'])}",
        f"answers  {answers['read']} read = {answers['used']} used{parts(answers['dropped'])}",
        f"prompts  {prompts['read']} read = {prompts['with_pairs']} with pairs + {prompts['without_pairs']} without",
        f"pairs    {found['considered']} considered = {found['train']} train + {found['test']} test"
        f"{parts(found['dropped'])}",
    ]
    for name, effect in report["length"].items():
        lines.append(f"length   {name:6}  correlation with the choice {_told(effect['correlation'], '+.3f')}")
        lines.append(f"                 the longer answer wins      {_told(effect['longer_wins'], '.3f')}")
    return [*lines, *(f"{each['severity']}: {each['message']}. {each['remedy']}" for each in report["findings"])]


def _compared(example: Example) -> Answered:
    """Rows that compare answers already; a preference pair is a ranking of two."""
    if isinstance(example, Answered):
        return example
    if not isinstance(example, Preference):
        mend = "Give answers with scores or ranks, or --model to have some written."
        raise DataError(Problem(file=example.source, line=example.line, what="holds nothing to compare", mend=mend))
    if len(example.chosen) != 1 or len(example.rejected) != 1:
        mend = "Give pairs whose answers are one message each."
        raise DataError(Problem(file=example.source, line=example.line, what="an answer of several turns", mend=mend))
    both = (Answer(text=example.chosen[0].content, score=1.0), Answer(text=example.rejected[0].content, score=0.0))
    return answered(example, example.prompt, both)


def _asked(
    examples: Sequence[Example], origin: Origin, display: Display
) -> tuple[list[Answered], Counter[str], dict[str, Any]]:
    """Answers of the model with their scores, those lost on the way by reason, and what made them."""
    from mingshi.run import model_facts
    from mingshi.workflows.sampling import ask, check_references, check_scoring, scored

    check_scoring(origin.scoring, has_judge=origin.judge is not None)
    check_references(examples, origin.sampling, origin.scoring)
    if origin.judge is not None:
        _writer(origin.judge)  # and let it go: one that cannot be had should not be found after the sampling
    model = _writer(origin.model)
    facts = {"model": model_facts(model), "sampling": origin.sampling.model_dump(mode="json")}
    asked, unfinished = ask(model, examples, origin.sampling, display)
    if not any(each.texts for each in asked):
        what = f"none of {unfinished} answers was finished within {origin.sampling.max_new_tokens} tokens"
        raise DataError(what, "Raise --max-new-tokens, or ask a model that was trained to end its answers.")
    del model  # before the judge needs the memory
    judge = _writer(origin.judge) if origin.judge is not None else None
    facts |= {"scoring": origin.scoring.model_dump(mode="json", exclude_none=True)}
    facts |= {"judge": model_facts(judge)} if judge is not None else {}
    answers, unread = scored(asked, origin.scoring, by=Path(origin.model).name, judge=judge, display=display)
    return answers, +Counter({"unfinished": unfinished, "unread": unread}), facts


def _writer(name: str) -> Model:
    """A language model; ModelError for a classifier."""
    from mingshi.use import open_model

    model = open_model(name)
    if model.classes is not None:
        raise ModelError(f"{name} is a classifier and writes nothing", "Name a language model.")
    return model


def _told(score: Mapping[str, Any], form: str) -> str:
    """A score as the report holds it, where a number that is not one is a word."""
    value, low, high = (format(float(score[name]), form) for name in ("value", "low", "high"))
    sure = "no interval" if "nan" in low else f"95 % {low} to {high}"
    return f"{value}  ({sure}, n={score['count']})"


def _write(folder: Path, made: Pairs, report: dict[str, Any]) -> dict[str, Any]:
    """Both files and then the report, which says what they hold; all of them or none."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    try:
        for name, side in (("train", made.train), ("test", made.test)):
            if side:
                path = folder / f"{name}.jsonl"
                path.write_bytes(b"".join(map(_line, side)))
                files[name] = {**provenance.fingerprint_file(path), "path": path.name}
        report = {"files": files, **report}
        written = orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        (folder / "pairs.json").write_bytes(written)
    except BaseException:
        for name in ("train.jsonl", "test.jsonl", "pairs.json"):  # the folder was empty
            (folder / name).unlink(missing_ok=True)
        raise
    return report


def _line(pair: Pair) -> bytes:
    return orjson.dumps(pair.row(), option=orjson.OPT_APPEND_NEWLINE)
