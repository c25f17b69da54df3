"""What the stages before a stage mean for it, in the order of a run: rehearsal, what is held, and the gate after it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import accumulate
from typing import Any

from mingshi.continual import Ewc, Gate, Previous, Rehearsal
from mingshi.continual import previous as said_before
from mingshi.continual.choose import quotas
from mingshi.continual.elastic import Anchors, Elastic, anchors, evenly
from mingshi.continual.gate import Before
from mingshi.continual.previous import Anchored
from mingshi.continual.remembered import (
    SHOWN,
    Memory,
    Remembered,
    interleaved,
    read_memory,
    refuse_others,
    write_memory,
)
from mingshi.continual.selection import answered, by_id, chosen, own_answers, shown
from mingshi.data.encode import samples_of
from mingshi.display import Display
from mingshi.errors import Problem, RecipeError, Refused
from mingshi.evaluate import Suite, told
from mingshi.loop import Work
from mingshi.model.adapters import fold
from mingshi.model.assets import cache_root
from mingshi.model.attached import Attached
from mingshi.model.load import Model
from mingshi.prepare import Joined, Prepared, training_rows
from mingshi.ranks import Onlooker, Ranks
from mingshi.recipe import Recipe
from mingshi.record import Record, read_run
from mingshi.types import Chat, Example, Objective, Sample, Score

_PART = re.compile(r"#\d+$")  # which of a row's samples


@dataclass(slots=True, eq=False)
class Lessons:
    """The stages of one run, each told by those before it."""

    recipe: Recipe
    model: Model
    record: Record | Onlooker
    display: Display
    ranks: Ranks
    suite: Suite
    stages: Sequence[Prepared]  # each with its own rows alone
    begun: Joined = field(default_factory=lambda: Joined(parts=()))  # the samples of the stage under way
    anchors: Anchors | None = None  # of the stage under way
    before: Before | None = None  # of the stage under way
    gates: list[dict[str, Any]] = field(default_factory=list)
    refusal: Refused | None = None

    # A stage begins

    def begin(self, number: int) -> Prepared:
        """The stage's data with what it rehearses; the network must be as the stage before left it."""
        stage = self.recipe.stages[number]
        self.anchors = self.before = None
        if stage.gate is not None:
            if self.ranks.divided:
                what = "the weights of a base that is shared out cannot be put back"
                raise RecipeError(Problem(field=f"stages.{number}.gate", what=what, mend="Say `shard: never`."))
            self.before = Before.of(self.model)
        if isinstance(stage.hold, Ewc):
            self.anchors = self._anchors(number, stage.hold)
        prepared = self.stages[number]
        if stage.rehearsal is not None:
            prepared = self._rehearsing(number, prepared, stage.rehearsal)
        self.begun = prepared.samples
        return prepared

    def _anchors(self, number: int, hold: Ewc) -> Anchors:
        fold(self.model)
        seed, counts = self.recipe.seed, [len(one.samples) for one in self.stages[:number]]
        places = evenly(counts, hold.rows, seed=seed)
        rows = ((self.recipe.stages[stage].objective, self.stages[stage].samples[row]) for stage, row in places)
        tracked: Iterator[tuple[Objective, Sample]] = self.display.track(rows, len(places), "information")
        return anchors(self.model.network, self.recipe.stages[number].adapter, tracked, seed=seed)

    def held(self, number: int, attached: Attached) -> Attached:
        """The adapter that was attached, with the penalty of what it moves."""
        hold = self.recipe.stages[number].hold
        if not isinstance(hold, Ewc) or self.anchors is None:
            return attached
        return Elastic(attached, self.anchors, hold.strength)

    def anchored(self, number: int, work: Work) -> Work:
        """The work with what the network said before; called before any weight moves or is restored."""
        stage = self.recipe.stages[number]
        if not isinstance(stage.hold, Previous):
            return work
        then = self.ranks.in_turn(
            lambda: said_before.before(
                work.network,
                stage.objective,
                self.begun,
                inner=work.companion,
                folder=cache_root() / "companions",
                budget=self.recipe.budget,
                display=self.display,
            )
        )
        return replace(work, objective=Anchored(stage.objective, stage.hold), companion=then)

    # Rehearsal

    def _rehearsing(self, number: int, prepared: Prepared, asked: Rehearsal) -> Prepared:
        found = self.ranks.told(lambda: [asdict(row) for row in self._memory(number, asked)])
        rows = [Remembered(**row) for row in found]
        memory = Memory(list(self._samples(rows)))
        stage, own = self.recipe.stages[number], prepared.samples
        plan = interleaved(
            prepared.plan, memory, own=_trained(own), ratio=asked.ratio, steps=stage.steps, epochs=stage.epochs
        )
        samples = Joined(parts=(*own.parts, memory))
        if isinstance(self.record, Record):
            data = dict(read_run(self.record.folder).data)
            summaries = [dict(summary) for summary in data["stages"]]
            summaries[number] |= {"steps": plan.steps, "remembered": len(memory)}
            self.record.write_json("data.json", data | {"stages": summaries})
        self.display.say(f"Rehearsing {len(memory)} rows of earlier stages: {plan.rows} rows an epoch")
        return replace(prepared, samples=samples, plan=plan)

    def _memory(self, number: int, asked: Rehearsal) -> list[Remembered]:
        """What was chosen, and by now is written down: a run that goes on does not choose again."""
        folder = self.record.folder
        if not read_memory(folder, number):
            write_memory(folder, number, self._choose(number, asked))
        rows = read_memory(folder, number)
        ids = {(row.taught, row.row): self._id(row.taught, row.row) for row in rows if row.taught < number}
        refuse_others(rows, ids, folder)
        return rows

    def _id(self, stage: int, row: int) -> str:
        samples = self.stages[stage].samples
        found: str = samples[row].id if row < len(samples) else ""
        return found

    def _choose(self, number: int, asked: Rehearsal) -> list[Remembered]:
        sizes = [len(one.samples) for one in self.stages[:number]]
        found: list[Remembered] = []
        for taught, share in enumerate(quotas(sizes, asked.size(sum(sizes)))):
            if share:
                found += self._of_stage(number, taught, share, asked)
        return found

    def _of_stage(self, number: int, taught: int, rows: int, asked: Rehearsal) -> list[Remembered]:
        samples, objective = self.stages[taught].samples, self.recipe.stages[taught].objective
        places = chosen(
            samples,
            rows,
            asked,
            objective,
            model=self.model,
            seed=self.recipe.seed + taught,
            budget=self.recipe.budget,
            display=self.display,
        )
        examples = self._examples(taught, [place.row for place in places])
        own: Mapping[int, tuple[str | None, str]] = {}
        if asked.answers == "own":
            chats = {row: one for row, one in examples.items() if isinstance(one, Chat) and self._whole(taught, row)}
            own = own_answers(self.model, chats, max_new_tokens=asked.max_new_tokens, display=self.display)
        task = ", ".join(task.name for task in self.recipe.tasks if task.stage == taught)
        lines = []
        for place in places:
            example = examples[place.row]
            answer, kept = own.get(place.row, (None, ""))
            if answer is not None and self._encoded(taught, example, answer) is None:
                answer, kept = None, "its own does not fit into a row"
            lines.append(
                Remembered(
                    stage=number,
                    taught=taught,
                    task=task or f"stage {taught + 1}",
                    row=place.row,
                    id=self._id(taught, place.row),
                    source=example.source,
                    line=example.line,
                    why=place.why,
                    text=shown(example)[:SHOWN],
                    answer=answer,
                    kept=kept,
                )
            )
        return lines

    def _samples(self, rows: Sequence[Remembered]) -> Iterator[Sample]:
        """As their own stage encoded them, or with the model's own answers."""
        written: dict[tuple[int, int], Example] = {}
        for taught in sorted({row.taught for row in rows if row.answer is not None}):
            wanted = [row.row for row in rows if row.taught == taught and row.answer is not None]
            written |= {(taught, row): example for row, example in self._examples(taught, wanted).items()}
        for row in rows:
            sample = self.stages[row.taught].samples[row.row]
            if row.answer is not None:
                sample = self._encoded(row.taught, written[row.taught, row.row], row.answer) or sample
            yield sample

    def _encoded(self, taught: int, example: Example, answer: str) -> Sample | None:
        assert isinstance(example, Chat)
        found = samples_of(answered(example, answer), self.recipe.stages[taught].objective, self.model.text)
        return found[0] if isinstance(found, list) and len(found) == 1 else None

    def _whole(self, taught: int, row: int) -> bool:
        """Whether a row gave one sample: of several, an answer may be in any."""
        return not _PART.search(self._id(taught, row))

    def _examples(self, taught: int, rows: Sequence[int]) -> dict[int, Example]:
        """The rows of a stage's files that these samples were made of, read again."""
        stage, parts = self.recipe.stages[taught], self.stages[taught].samples.parts
        ends = list(accumulate(len(part) for part in parts))
        found: dict[int, Example] = {}
        for part, source in enumerate(stage.data):
            start = ends[part - 1] if part else 0
            wanted: dict[str, list[int]] = {}
            for row in (row for row in rows if start <= row < ends[part]):
                name = self._id(taught, row)
                for each in {name, _PART.sub("", name)}:
                    wanted.setdefault(each, []).append(row)
            if wanted:
                found |= by_id(training_rows(source, stage, self.recipe), wanted)
        return found

    # A stage ends

    def passed(self, number: int, step: int) -> bool:
        """Measure the tasks between stages, and ask the gate; False where the run ends here."""
        gate, last = self.recipe.stages[number].gate, number + 1 == len(self.recipe.stages)
        if gate is not None or not last:
            self.suite.between(number, step)
        if gate is None:
            return True
        fallen = self.ranks.told(lambda: [asdict(fall) for fall in self.suite.falls(number, allowed=gate.forget)])
        refused = [fall for fall in fallen if fall["refused"]]
        said = {"stage": number, "forget": gate.forget, "then": gate.then, "refused": bool(refused), "falls": fallen}
        self.gates.append(said)
        if isinstance(self.record, Record):
            self.record.update(gates=self.gates)
        if not refused:
            self.display.say(f"gate after stage {number}: passed")
            return True
        return self._refuse(number, gate, refused)

    def _refuse(self, number: int, gate: Gate, refused: Sequence[Mapping[str, Any]]) -> bool:
        assert self.before is not None, "taken as the stage began"
        self.before.put_back(self.model)
        self.before = None
        self.suite.stand(number, to=number + 1)
        falls = "; ".join(f"{one['task']}: {one['metric']} fell by {told(Score(**one['fall']))}" for one in refused)
        what = f"{falls}, and {gate.forget:g} is allowed"
        self.display.say(f"gate after stage {number}: {what}. The weights from before the stage are back")
        if gate.then == "go-on":
            return True
        self.suite.stand(number, to=len(self.recipe.stages))
        mend = "The weights from before it were saved. Rehearse more, hold more, or allow more."
        self.refusal = Refused(Problem(field=f"stages.{number}.gate", what=what, mend=mend))
        return False

    def require_passed(self, summary: Mapping[str, Any]) -> None:
        """Refused where a gate has ended the run: all else about it is written down."""
        if self.refusal is not None:
            if isinstance(self.record, Record):
                self.record.update(summary=summary)
            raise self.refusal


def _trained(samples: Joined) -> Any:
    """Predictions of each sample, `[samples] int64`."""
    import numpy as np

    return np.concatenate([part.trained for part in samples.parts])
