"""Strategies as recipes: which tokens of which skill each stage trains on, and for how many steps.

Every strategy trains as many tokens (predictions that are scored) as every other: a budget, shared out among skills by
what they have. Where a strategy reads some rows again, its stages shrink alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mingshi.data.formats import read
from mingshi.errors import DataError, Problem
from mingshi.model.load import load_text
from mingshi.model.merging import Merge
from mingshi.objectives import Distill, Sft
from mingshi.objectives.distill import Teacher
from mingshi.recipe import Recipe, Stage
from mingshi.types import Example, Sample
from mingshi.workflows.skills_file import Distillation, Dmt, ExpertsFirst, Merging, Sequential, Skills

Tokens = Mapping[str, float]  # trained ones, by skill


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """Rows of a skill that can be trained on, and the tokens of them that are."""

    rows: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A strategy with its settings, or an expert: a row of the table."""

    name: str
    kind: str
    stages: tuple[Tokens, ...] = ()  # of what it trains itself; of experts_first without its start, which is chosen
    k: float | None = None
    scale: float | None = None
    settings: ExpertsFirst | Merging | Distillation | None = None

    @property
    def needs_experts(self) -> bool:
        return self.settings is not None


def counted(told: Skills) -> dict[str, Counted]:
    """Rows and trained tokens of each skill, as its stages will encode them; DataError where one has none."""
    text = load_text(told.model, template=told.training.template)
    objective = Sft(max_length=told.training.max_length)
    found = {}
    for skill in told.skills:
        rows = tokens = 0
        for source in skill.data:
            for example in read(source):
                encoded = objective.encode(example, text) if isinstance(example, Example) else []
                samples = [encoded] if isinstance(encoded, Sample) else encoded if isinstance(encoded, list) else []
                rows += len(samples)
                tokens += sum(len(sample.target) for sample in samples)
        if not tokens:
            what = f"no row of {skill.name} can be trained on"
            raise DataError(Problem(file=skill.data[0].path, what=what, mend="Is training.max_length long enough?"))
        found[skill.name] = Counted(rows=rows, tokens=tokens)
    return found


def shared(told: Skills, counts: Mapping[str, Counted]) -> dict[str, float]:
    """The budget, by skill."""
    whole = sum(one.tokens for one in counts.values())
    budget = told.training.tokens or told.training.epochs * whole
    return {name: budget * one.tokens / whole for name, one in counts.items()}


def experts(told: Skills, counts: Mapping[str, Counted]) -> list[Row]:
    """One for each skill, by its share of the budget."""
    return [
        Row(name=f"alone-{name}", kind="alone", stages=({name: tokens},))
        for name, tokens in shared(told, counts).items()
    ]


def planned(told: Skills, counts: Mapping[str, Counted]) -> list[Row]:
    """The strategies in the file's order, with multi_task first; those of k and of scale once for each."""
    share = shared(told, counts)
    special = {name: share[name] for name in told.special}
    last = {told.last: share[told.last]}
    rows = [Row(name="multi_task", kind="multi_task", stages=(share,))]
    for one in told.strategies:
        if one.kind == "mixed_sequential":
            rows.append(Row(name=one.kind, kind=one.kind, stages=(special, last)))
        elif isinstance(one, Sequential):
            order = one.order or (*told.special, told.last)
            rows.append(Row(name=one.kind, kind=one.kind, stages=tuple({name: share[name]} for name in order)))
        elif isinstance(one, Dmt):
            rows += [_dmt(special, last, k) for k in one.k]
        elif isinstance(one, Merging):
            rows += [_merge(one, scale) for scale in one.scale]
        elif isinstance(one, ExpertsFirst):
            rows.append(Row(name=one.kind, kind=one.kind, settings=one))
        elif isinstance(one, Distillation):
            rows.append(Row(name=f"distill-{one.combine}", kind=one.kind, stages=(share,), settings=one))
    return list({row.name: row for row in rows}.values())


def _dmt(special: Tokens, last: Tokens, k: float) -> Row:
    """Both stages shrink alike until all that is read fits the budget: what is read twice costs tokens too."""
    again = {name: k * tokens for name, tokens in special.items()}
    whole = sum(special.values()) + sum(last.values())
    shrunk = whole / (whole + sum(again.values()))
    stages = tuple({name: shrunk * tokens for name, tokens in stage.items()} for stage in (special, {**again, **last}))
    return Row(name=f"dmt-k{k:.4g}", kind="dmt", stages=stages, k=k)


def _merge(one: Merging, scale: float) -> Row:
    name = f"merge-{one.method}" + (f"-x{scale:g}" if len(one.scale) > 1 else "")
    return Row(name=name, kind="merge", scale=scale, settings=one)


def after_start(told: Skills, counts: Mapping[str, Counted], row: Row, start: str) -> Tokens:
    """What experts_first trains after its start: the budget less what the start has read, by the ratio."""
    share = shared(told, counts)
    assert isinstance(row.settings, ExpertsFirst)
    ratio = row.settings.ratio or share
    left = sum(share.values()) - share[start]
    return {name: left * ratio[name] / sum(ratio.values()) for name in share}


def merge_of(told: Skills, row: Row, seed: int) -> Merge:
    assert isinstance(row.settings, Merging) and row.scale is not None
    return row.settings.of(row.scale, [skill.name for skill in told.skills], seed)


def recipe_of(
    told: Skills,
    counts: Mapping[str, Counted],
    stages: Sequence[Tokens],
    *,
    seed: int,
    output: Path,
    start: Path | None = None,
    teachers: Sequence[Path] = (),
    distillation: Distillation | None = None,
) -> Recipe:
    """The recipe of these stages, from the base model or from what another run has made."""
    training = told.training
    objective: Sft | Distill = Sft(max_length=training.max_length)
    if distillation is not None:
        objective = Distill(
            teachers=tuple(Teacher(model=str(folder)) for folder in teachers),
            combine=distillation.combine,
            alpha=distillation.alpha,
            temperature=distillation.temperature,
            max_length=training.max_length,
        )
    later = 1 if start is not None else 0
    made = tuple(
        _stage(told, counts, tokens, objective, later=number + later > 0) for number, tokens in enumerate(stages)
    )
    return Recipe(
        model=str(start) if start is not None else told.model,
        output=str(output),
        seed=seed,
        template="auto" if start is not None else training.template,
        precision=training.precision,
        device=training.device,
        stream=training.stream,
        stages=made,
        evals=(),
    )


def passes(counts: Mapping[str, Counted], tokens: Tokens) -> dict[str, float]:
    """How often each skill's rows are gone through."""
    return {name: wanted / counts[name].tokens for name, wanted in tokens.items()}


def _stage(
    told: Skills, counts: Mapping[str, Counted], tokens: Tokens, objective: Sft | Distill, *, later: bool
) -> Stage:
    """Skills weighed so that the one that is gone through most often is whole in every epoch."""
    often = passes(counts, tokens)
    weights = {name: times / max(often.values()) for name, times in often.items()}
    data = tuple(
        source.model_copy(update={"weight": float(f"{weights[skill.name]:.6g}")})
        for skill in told.skills
        if skill.name in tokens
        for source in skill.data
    )
    rows = sum(weights[name] * counts[name].rows for name in tokens)
    mean = sum(weights[name] * counts[name].tokens for name in tokens) / rows  # tokens of a row of the mixture
    training = told.training
    stage = Stage(
        data=data,
        validation=0.0,
        objective=objective,
        adapter=training.adapter,
        optim=training.optim,
        batch=training.batch,
        steps=max(1, round(sum(tokens.values()) / (training.batch * mean))),
    )
    if not later or training.later_rate == 1.0:
        return stage
    rate = (training.optim.learning_rate or stage.default_learning_rate()[0]) * training.later_rate
    return stage.model_copy(update={"optim": training.optim.model_copy(update={"learning_rate": float(f"{rate:.6g}")})})
