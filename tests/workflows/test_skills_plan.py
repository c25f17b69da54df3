"""What strategies come to before anything is trained: tokens, weights and steps; which start is the best; bad files."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from mingshi.errors import RecipeError
from mingshi.workflows.skills_file import Skills, read_skills
from mingshi.workflows.skills_recipes import Counted, after_start, experts, passes, planned, recipe_of
from mingshi.workflows.skills_start import chosen
from mingshi.yaml_text import load

COUNTS = {
    "sums": Counted(rows=100, tokens=1000),
    "json": Counted(rows=50, tokens=2000),
    "chat": Counted(rows=200, tokens=3000),
}
KINDS = ["multi_task", "sequential", "mixed_sequential", {"kind": "dmt", "k": [1, 0.25]}, "experts_first"]


def told(**changed: object) -> Skills:
    skills = [
        {"name": name, "data": [{"path": f"{name}.jsonl"}], "validation": {"path": "v"}, "test": {"path": "t"}}
        | {"eval": {"kind": "perplexity"}}
        for name in COUNTS
    ]
    values = {"model": "tiny", "output": "out", "skills": skills, "strategies": KINDS, "training": {"batch": 10}}
    return Skills.model_validate(values | changed)


def test_all_strategies_share_one_budget() -> None:
    rows = {row.name: row for row in planned(told(), COUNTS)}
    assert list(rows) == ["multi_task", "sequential", "mixed_sequential", "dmt-k1", "dmt-k0.25", "experts_first"]
    for name, row in rows.items():
        if name != "experts_first":
            assert sum(sum(stage.values()) for stage in row.stages) == pytest.approx(6000)
    assert [list(stage) for stage in rows["sequential"].stages] == [["sums"], ["json"], ["chat"]]
    assert [list(stage) for stage in rows["mixed_sequential"].stages] == [["sums", "json"], ["chat"]]
    mixture = after_start(told(), COUNTS, rows["experts_first"], "json")
    assert sum(mixture.values()) == pytest.approx(4000) and mixture["chat"] == pytest.approx(2000)
    assert [row.stages for row in experts(told(), COUNTS)] == [({"sums": 1000},), ({"json": 2000},), ({"chat": 3000},)]


@pytest.mark.parametrize(("name", "k"), [("dmt-k1", 1.0), ("dmt-k0.25", 0.25)])
def test_dmt_reads_the_fraction_k_of_the_specialised_rows_again(name: str, k: float) -> None:
    """Dong et al. 2024, section 3.4; both stages shrink alike, for what is read again counts too."""
    row = next(row for row in planned(told(), COUNTS) if row.name == name)
    first, second = row.stages
    shrunk = 6000 / (6000 + k * 3000)
    assert first == pytest.approx({"sums": 1000 * shrunk, "json": 2000 * shrunk})
    assert second == pytest.approx({"sums": k * 1000 * shrunk, "json": k * 2000 * shrunk, "chat": 3000 * shrunk})
    assert passes(COUNTS, second)["chat"] == pytest.approx(shrunk)


def test_a_stage_weighs_rows_and_counts_steps_so_that_the_tokens_come_out() -> None:
    wanted = {"sums": 500.0, "json": 4000.0}  # half a pass, and two passes
    recipe = recipe_of(told(), COUNTS, [wanted], seed=3, output=Path("x"))
    (stage,) = recipe.stages
    assert {source.path: source.weight for source in stage.data} == {"sums.jsonl": 0.25, "json.jsonl": 1.0}
    # an epoch: 25 rows of 10 tokens and 50 of 40; so 75 rows of 30 on average, and 4500 tokens are 150 rows
    assert stage.steps == 15 and stage.validation == 0 and recipe.seed == 3 and recipe.evals == ()


def test_later_stages_may_learn_more_slowly() -> None:
    plan = told(training={"batch": 10, "later_rate": 0.5})
    recipe = recipe_of(plan, COUNTS, [{"sums": 1000.0}, {"chat": 3000.0}], seed=0, output=Path("x"))
    assert [stage.optim.learning_rate for stage in recipe.stages] == [None, 1e-4]
    after = recipe_of(plan, COUNTS, [{"chat": 3000.0}], seed=0, output=Path("x"), start=Path("expert"))
    assert after.model == "expert" and after.stages[0].optim.learning_rate == 1e-4


def test_the_budget_may_be_told_in_tokens() -> None:
    rows = planned(told(training={"batch": 10, "tokens": 12000}), COUNTS)
    assert rows[0].stages[0] == pytest.approx({"sums": 2000, "json": 4000, "chat": 6000})


SCORES = {
    "sums": {"sums": 0.9, "json": 0.1, "chat": 0.2},
    "json": {"sums": 0.2, "json": 0.8, "chat": 0.3},
    "chat": {"sums": 0.1, "json": 0.1, "chat": 0.4},
}


def test_the_best_start_is_best_over_all_skills_and_says_which_it_favours() -> None:
    found = chosen(SCORES, dict.fromkeys(COUNTS, "generation.exact_match"))
    assert found["chosen"] == "json" and found["by"] == "mean" and found["favours"] == "json"
    assert found["means"]["json"] == pytest.approx(1.3 / 3)
    assert found["ahead"] == pytest.approx({"sums": -0.3, "json": 0.7, "chat": 0.0})


def test_metrics_without_a_common_unit_are_ranked() -> None:
    nats = {name: {skill: 3 - value for skill, value in scores.items()} for name, scores in SCORES.items()}
    found = chosen(nats, dict.fromkeys(COUNTS, "perplexity.nats_per_token"))
    assert found["by"] == "rank" and found["chosen"] == "json" and found["means"]["json"] == pytest.approx(5 / 3)


@pytest.mark.parametrize("name", ["skills", "skills_small"])
def test_the_files_of_the_house_can_be_read(name: str) -> None:
    plan = Skills.model_validate(load(Path(__file__).parents[2] / f"recipes/{name}.yaml"))
    assert plan.last == "lists" and plan.needs_experts
    counts = {skill.name: Counted(rows=10, tokens=100) for skill in plan.skills}
    assert len({row.name for row in planned(plan, counts)}) == len(planned(plan, counts)) > 5


def written(folder: Path, text: str) -> Path:
    for name in ("a", "a-v", "a-t", "b", "b-v", "b-t"):
        (folder / f"{name}.jsonl").write_bytes(orjson.dumps({"instruction": name, "output": name}))
    (folder / "skills.yaml").write_text(text)
    return folder / "skills.yaml"


GOOD = """\
model: tiny
output: out
skills:
  - {name: a, data: [{path: a.jsonl}], validation: {path: a-v.jsonl}, test: {path: a-t.jsonl}, eval: {kind: perplexity}}
  - {name: b, data: [{path: b.jsonl}], validation: {path: b-v.jsonl}, test: {path: b-t.jsonl}, eval: {kind: perplexity}}
strategies: [multi_task, {kind: dmt, k: [0.5]}]
"""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[multi_task, ", "[", "strategies: multi_task is missing"),
        ("k: [0.5]", "k: [2]", "skills.yaml:6: strategies.1.k.0: Input should be less than or equal to 1"),
        ("dmt, k: [0.5]", "dmtt", "there is no kind 'dmtt'"),
        ("output: out", "output: out\ngeneral: c", "general: there is no skill 'c'"),
        ("output: out", "output: out\nseed: [0]", "unknown key 'seed'. Did you mean 'seeds'?"),
        ("name: b", "name: a", "'a' means something else too"),
        ("a-t.jsonl", "b.jsonl", "is tested on and also trained on"),
        ("a-t.jsonl", "none.jsonl", "none.jsonl: a, a: cannot be read"),
        ("path: a.jsonl", "path: a.jsonl, weight: 2", "a.jsonl has a weight"),
        ("kind: dmt, k: [0.5]", "kind: sequential, order: [a]", "order of sequential must name every skill once"),
        ("kind: dmt, k: [0.5]", "kind: merge, method: cat, rank: 4", "cat keeps all ranks"),
    ],
)
def test_a_wrong_file_is_told_before_anything_is_trained(
    old: str, new: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    read_skills(written(tmp_path, GOOD))
    with pytest.raises(RecipeError) as error:
        read_skills(written(tmp_path, GOOD.replace(old, new, 1)))
    assert said in str(error.value)
