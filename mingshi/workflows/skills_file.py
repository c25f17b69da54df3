"""The file of a mixture of skills: which skills, how they are trained and checked, and which strategies are compared.

Everything that can be wrong is found here, before anything is trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from mingshi.data.formats import DataSource
from mingshi.errors import Problem, RecipeError
from mingshi.evals import Evaluator
from mingshi.model.adapters import Adapter, Lora
from mingshi.model.merging import Merge
from mingshi.optim import Optim
from mingshi.provenance import fingerprint_file
from mingshi.tasks import TAKEN, refuse_second_readings
from mingshi.types import Settings
from mingshi.workflows.settings_problems import Parts, problem_of
from mingshi.yaml_text import load

NAME = r"^[A-Za-z0-9_-]{1,40}$"
FIRST = "multi_task"  # what the other strategies are tested against


class Skill(Settings):
    """Something that the model should learn, and how that is checked."""

    name: str = Field(pattern=NAME)
    data: tuple[DataSource, ...] = Field(min_length=1)
    """Rows to train on."""
    validation: DataSource
    """Rows by which a start is chosen; never trained on."""
    test: DataSource
    """Rows by which strategies are told apart, and nothing else."""
    eval: Evaluator
    metric: str | None = None
    """`kind.name` of what stands for the skill; by default as for `tasks` of a recipe."""


class Training(Settings):
    """How every stage of every strategy is trained: alike."""

    adapter: Adapter = Lora()
    optim: Optim = Optim()
    batch: int = Field(default=16, ge=1)
    max_length: int = Field(default=1024, ge=2)
    """Tokens of one sample; longer rows are left out."""
    tokens: int | None = Field(default=None, ge=1)
    """Trained tokens of every strategy; left out, `epochs` times those of all skills' rows."""
    epochs: float = Field(default=1.0, gt=0)
    later_rate: float = Field(default=1.0, gt=0)
    """Times the learning rate in stages after the first, which begin with a warm-up of their own."""
    template: Literal["auto", "own", "turns", "zh-instruction", "alpaca"] = "auto"
    precision: Literal["auto", "bf16", "float32"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    stream: Literal["auto"] | Annotated[int, Field(ge=128)] = 4096
    """Tokens of one packed stream."""


# Strategies


class Plain(Settings):
    """alone: each skill by itself, an expert; multi_task: all mixed; mixed_sequential: specialised, then general."""

    kind: Literal["alone", "multi_task", "mixed_sequential"]


class Sequential(Settings):
    """One skill after the other."""

    kind: Literal["sequential"] = "sequential"
    order: tuple[str, ...] = ()
    """Left out, the order of the file, with the general skill last."""


class Dmt(Settings):
    """Dual-stage mixed fine-tuning (Dong et al. 2024, arXiv:2310.05492, section 3.4).

    First the specialised skills together; then the general one with a fraction `k` of the specialised.
    """

    kind: Literal["dmt"] = "dmt"
    k: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(default=(1 / 4, 1 / 16), min_length=1)
    """A strategy for each."""


class ExpertsFirst(Settings):
    """The best expert, as validation rows tell it, goes on with a mixture of all skills."""

    kind: Literal["experts_first"] = "experts_first"
    ratio: Mapping[str, Annotated[float, Field(gt=0)]] | None = None
    """Of trained tokens in the mixture, by skill; left out, as much as each has."""


class Merging(Settings):
    """The experts merged, which trains nothing."""

    kind: Literal["merge"] = "merge"
    method: Literal["cat", "average", "arithmetic", "ties", "dare", "svd"] = "average"
    scale: tuple[float, ...] = Field(default=(1.0,), min_length=1)
    """A strategy for each."""
    weights: Mapping[str, float] | None = None
    """By skill; left out, all alike."""
    density: float | None = Field(default=None, gt=0, le=1)
    rank: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Merging:
        self.of(self.scale[0], (), 0)
        return self

    def of(self, scale: float, skills: Sequence[str], seed: int) -> Merge:
        """What is done for one scale; weights in the order of `skills`."""
        weights = None if self.weights is None or not skills else tuple(self.weights[name] for name in skills)
        told = {"method": self.method, "scale": scale, "density": self.density, "rank": self.rank}
        return Merge.model_validate({**told, "weights": weights, "seed": seed})


class Distillation(Settings):
    """The experts teach one student on all skills' rows."""

    kind: Literal["distill"] = "distill"
    combine: Literal["route", "probabilities"] = "route"
    """route: the expert to which a row's answer is likeliest teaches it; probabilities: their mean."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=1.0, gt=0)


Strategy = Annotated[Plain | Sequential | Dmt | ExpertsFirst | Merging | Distillation, Field(discriminator="kind")]
OF_EXPERTS = ("alone", "experts_first", "merge", "distill")  # these need every skill's expert


class Skills(Settings):
    """The file."""

    model: str = Field(min_length=1)
    output: str = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(default=(0, 1, 2), min_length=1)
    skills: tuple[Skill, ...] = Field(min_length=2)
    general: str = ""
    """The skill that two-stage strategies train last; left out, the last of `skills`."""
    training: Training = Training()
    strategies: tuple[Strategy, ...] = (Plain(kind="multi_task"), Plain(kind="mixed_sequential"), Dmt())
    """By kind, with settings where it has some; the others are tested against multi_task."""
    slack: float = Field(default=0.03, gt=0)
    """By which share of the budget trained tokens may differ before it is told aloud."""
    keep_models: bool = False
    """Keep every strategy's weights; experts' are kept in any case."""

    @field_validator("strategies", mode="before")
    @classmethod
    def _named_alone(cls, value: Any) -> Any:
        """A strategy without settings is its name."""
        return [{"kind": str(one)} if isinstance(one, str) else one for one in value] if _is_list(value) else value

    @model_validator(mode="after")
    def _fits_together(self) -> Skills:
        names = [skill.name for skill in self.skills]
        twice = next((name for name in names if names.count(name) > 1 or name in TAKEN), None)
        if twice is not None:
            raise ValueError(f"skills: {twice!r} means something else too. Give each skill a name of its own.")
        if self.general and self.general not in names:
            raise ValueError(f"general: there is no skill {self.general!r}. Known are {', '.join(names)}.")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed is given twice. Give each once: a run repeats itself bit for bit.")
        if not any(one.kind == FIRST for one in self.strategies):
            raise ValueError("strategies: multi_task is missing, which the others are tested against. Add it.")
        for skill in self.skills:
            if weighed := [source.path for source in skill.data if source.weight != 1]:
                raise ValueError(f"skills: {weighed[0]} has a weight. Leave it out: strategies weigh skills by tokens.")
        for one in self.strategies:
            _require_skills(one, names)
        return self

    @property
    def last(self) -> str:
        """The general skill."""
        return self.general or self.skills[-1].name

    @property
    def special(self) -> tuple[str, ...]:
        return tuple(skill.name for skill in self.skills if skill.name != self.last)

    @property
    def needs_experts(self) -> bool:
        return any(one.kind in OF_EXPERTS for one in self.strategies)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _require_skills(one: Any, names: Sequence[str]) -> None:
    """ValueError for a strategy that does not name every skill once where it names skills."""
    told = {"sequential": "order", "experts_first": "ratio", "merge": "weights"}.get(one.kind)
    found = {"order": lambda: one.order, "ratio": lambda: one.ratio, "weights": lambda: one.weights}
    given = found[told]() if told is not None else None
    if given and sorted(given) != sorted(names):
        raise ValueError(f"strategies: {told} of {one.kind} must name every skill once. Known are {', '.join(names)}.")


PARTS: Parts = {
    "skills": (Skill, DataSource),
    "training": (Training, Optim),
    "strategies": (Sequential, Dmt, ExpertsFirst, Merging, Distillation),
}


def read_skills(path: Path) -> Skills:
    """A file of skills; RecipeError lists what is wrong with it, and files that are not there or are read twice."""
    values = load(path)
    try:
        told = Skills.model_validate(values)
    except ValidationError as error:
        raise RecipeError([problem_of(detail, values, str(path), Skills, PARTS) for detail in error.errors()]) from None
    refuse_second_readings(ledger(told))
    return told


def ledger(told: Skills) -> list[dict[str, Any]]:
    """The files, what each is for and its hash; RecipeError names those that cannot be read."""
    found, problems = [], []
    for skill in told.skills:
        named = [*(("train", source) for source in skill.data), ("validation", skill.validation)]
        for role, source in [*named, (skill.name, skill.test)]:
            try:
                sha256 = fingerprint_file(Path(source.path))["sha256"]
                found.append({"role": role, "skill": skill.name, "path": source.path, "sha256": sha256})
            except OSError as error:
                what = f"cannot be read ({error.strerror})"
                problems.append(Problem(file=source.path, field=f"{skill.name}, {role}", what=what))
    if problems:
        raise RecipeError(problems)
    return found
