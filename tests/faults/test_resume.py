"""A run that was killed any number of times ends with the very numbers of one that was not.

Real processes, `kill -9`, and equality of bits. Fifty kills: `./scripts/check --slow -k fifty_kills`.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
import torch
from faults.kill import (
    Moment,
    Process,
    assert_equal_histories,
    evaluating,
    history,
    publishing,
    saving,
    schedule,
    signal_at,
    stands,
    starting,
    stepping,
    to_its_end,
)
from tiny import ROWS, tiny_model

from mingshi import run as story
from mingshi.data.formats import DataSource
from mingshi.display import Silent
from mingshi.errors import DivergedError, Preempted, RecipeError
from mingshi.evals import Perplexity
from mingshi.evaluate import run_evaluator
from mingshi.model.load import load
from mingshi.objectives import Sft
from mingshi.prepare import prepare_tests
from mingshi.recipe import Recipe, parse, write_recipe
from mingshi.record import read_run

STEPS = {"lora": 27, "two_stages": 22}  # that each recipe below comes to
GRACE = 10.0  # seconds from a signal to the end of a process: a step and a save, or an evaluation's item
EVALS = [{"kind": "perplexity"}, {"kind": "generation", "limit": 4, "max_new_tokens": 8}]
LORA = {"kind": "lora", "rank": 4, "dropout": 0.2}


def values(place: Path, *, output: str, stages: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
    """A recipe whose steps are several micro-batches each: a stream holds three or four rows."""
    data = [{"path": str(place / "rows.jsonl")}]
    test = [{"path": str(place / "test.jsonl")}]
    common = {"data": data, "validation": 0.2, "batch": 8, "checkpoint": 2}
    told = {"model": str(place / "model"), "output": str(place / output), "seed": 7, "stream": 128, "evals": EVALS}
    return told | {"test": test, "stages": [common | stage for stage in stages]} | more


def lora(place: Path, output: str) -> dict[str, Any]:
    """LoRA with dropout in float32; early stopping ends it long before its last step, after the best one."""
    stage = {"adapter": LORA, "optim": {"learning_rate": 0.02}, "steps": 60, "evaluate": 3}
    stage |= {"early_stopping": {"patience": 8, "min_delta": 4.0}}
    return values(place, output=output, stages=[stage], precision="float32")


def two_stages(place: Path, output: str) -> dict[str, Any]:
    """Every weight in bfloat16 over float32 masters, and then LoRA with dropout upon what that gave."""
    first = {"adapter": {"kind": "full"}, "optim": {"learning_rate": 2e-3}, "steps": 10, "evaluate": 4}
    second = {"adapter": LORA, "optim": {"learning_rate": 0.01, "weight_decay": 0.1}, "steps": 12, "evaluate": "epoch"}
    return values(place, output=output, stages=[first, second], precision="bf16")


RECIPES: Mapping[str, Callable[[Path, str], dict[str, Any]]] = {"lora": lora, "two_stages": two_stages}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("resume")
    tiny_model(folder / "model")
    for name, rows in (("rows", ROWS), ("test", ROWS[:6])):
        (folder / f"{name}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINGSHI_CACHE", str(folder / "cache"))
        yield folder


def written(place: Path, name: str, output: str) -> tuple[Path, Path]:
    """The recipe as a file, and the run folder that it names."""
    file = place / f"{output}.yaml"
    write_recipe(parse(RECIPES[name](place, output)), file)
    return file, place / output


@pytest.fixture(scope="module")
def whole(place: Path) -> Callable[[str], dict[str, Any]]:
    """The history of a recipe's run that nothing disturbed, made here when it is first asked for."""
    told: dict[str, dict[str, Any]] = {}

    def of(name: str) -> dict[str, Any]:
        if name not in told:
            _, run = written(place, name, f"{name}-whole")
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # as in the processes that are killed
            story.execute(parse(RECIPES[name](place, run.name)))
            torch.set_num_threads(threads)
            told[name] = history(run)
            assert len(told[name]["steps"]) == STEPS[name]
        return told[name]

    return of


def killed(recipe: Path, run: Path, moments: Sequence[Moment]) -> str:
    """Run to the end, killed at each of these moments on the way and resumed; says when the kills were."""
    told: list[str] = []
    best = 0
    for number, moment in enumerate(moments):
        process = Process(recipe, run, ["--resume"] if number else [])
        ended = signal_at(process, moment, signal.SIGKILL)
        told.append(f"{moment.phase} + {1000 * moment.delay:.0f} ms at step {process.steps()}")
        assert ended.signalled and ended.code == -signal.SIGKILL, f"{told}: {ended}"
        now = stands(run)
        assert now >= best, f"a checkpoint was lost: {told}"
        best = now
    to_its_end(recipe, run, "--resume")
    return "; ".join(told)


ORDINARY: Mapping[str, Callable[[random.Random], list[Moment]]] = {
    "lora": lambda chance: [
        evaluating(chance),
        saving(chance, chance.randrange(3, 16)),
        publishing(chance),
    ],
    "two_stages": lambda chance: [
        stepping(chance, chance.randrange(2, 9)),
        saving(chance, chance.randrange(11, 16)),
    ],
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
    name: str, place: Path, whole: Callable[[str], dict[str, Any]]
) -> None:
    recipe, run = written(place, name, f"{name}-killed")
    told = killed(recipe, run, ORDINARY[name](random.Random()))
    assert_equal_histories(history(run), whole(name), told=told)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
@pytest.mark.parametrize("name", RECIPES)
def test_fifty_kills_change_not_one_bit(
    name: str, attempt: int, place: Path, whole: Callable[[str], dict[str, Any]]
) -> None:
    """Five kills to a run, ten runs."""
    recipe, run = written(place, name, f"{name}-{attempt}")
    told = killed(recipe, run, schedule(random.Random(), kills=5, steps=STEPS[name]))
    assert_equal_histories(history(run), whole(name), told=told)


def test_what_two_stages_publish_is_what_was_measured_after_them(
    place: Path, whole: Callable[[str], dict[str, Any]]
) -> None:
    """The whole model: an adapter of the second stage alone would have lost the first."""
    (after,) = [line for line in map(orjson.loads, whole("two_stages")["evals"]) if line["when"] == "after"][:1]
    model = load(place / "two_stages-whole" / "model", precision="bf16")
    tests = prepare_tests((DataSource(path=str(place / "test.jsonl")),), Sft(), model.text, Silent())
    scores = run_evaluator(Perplexity(), model, tests, objective=Sft(), stream=128, seed=7, display=Silent())
    assert list(scores.items["nats_per_token.sum"]) == after["items"]["nats_per_token.sum"]


def stopped(recipe: Path, run: Path, moments: Sequence[Moment]) -> str:
    """The same with SIGTERM: each process ends by itself, in time, with the code that says resumable."""
    told: list[str] = []
    for number, moment in enumerate(moments):
        ended = signal_at(Process(recipe, run, ["--resume"] if number else []), moment, signal.SIGTERM)
        told.append(f"{moment.phase} + {1000 * moment.delay:.0f} ms")
        assert ended.code in (75, 0), f"{told}: {ended}"
        assert ended.seconds_to_die < GRACE and "Traceback" not in ended.said, f"{told}: {ended}"
        assert ended.code == 0 or "--resume" in ended.said.splitlines()[-1]
        stands(run)
    to_its_end(recipe, run, "--resume")
    return "; ".join(told)


def test_sigterm_ends_a_run_resumable_at_any_moment(place: Path, whole: Callable[[str], dict[str, Any]]) -> None:
    chance = random.Random()
    recipe, run = written(place, "lora", "lora-stopped")
    step = chance.randrange(1, 20)
    told = stopped(recipe, run, [starting(chance), stepping(chance, step)])
    assert_equal_histories(history(run), whole("lora"), told=told)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
def test_twenty_five_signals_change_not_one_bit(
    attempt: int, place: Path, whole: Callable[[str], dict[str, Any]]
) -> None:
    recipe, run = written(place, "two_stages", f"stopped-{attempt}")
    told = stopped(recipe, run, schedule(random.Random(), kills=5, steps=STEPS["two_stages"]))
    assert_equal_histories(history(run), whole("two_stages"), told=told)


def test_a_second_signal_ends_a_run_at_once(place: Path) -> None:
    recipe, run = written(place, "lora", "lora-twice")
    process = Process(recipe, run)
    while "Loading" not in process.said() and process.process.poll() is None:
        time.sleep(0.001)
    began = time.monotonic()
    while process.process.poll() is None:  # two that come together are one: so until the second has been heard
        process.process.send_signal(signal.SIGTERM)
        time.sleep(0.02)
    ended = process.ended(since=began)
    assert ended.code == -signal.SIGTERM and ended.seconds_to_die < GRACE, ended
    assert read_run(run).status == "interrupted"


# What follows needs no process of its own


class Ends(Silent):
    """A display that ends the run at a step, as a fault would."""

    def __init__(self, step: int):
        self.last = step

    def step(self, step: Any, steps: int) -> None:
        if step.number == self.last:
            raise DivergedError("the test ends it here")


class Heard(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture
def broken(tmp_path: Path, place: Path) -> Recipe:
    """A run that ended in its middle, on data and a model of its own that a test may change."""
    tiny_model(tmp_path / "model")
    for name in ("rows", "test"):
        (tmp_path / f"{name}.jsonl").write_bytes((place / f"{name}.jsonl").read_bytes())
    recipe = parse(lora(tmp_path, "run"))
    with pytest.raises(DivergedError):
        story.execute(recipe, display=Ends(5))
    return recipe


def untouched(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, but for the lock: it says who held it last."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "lock"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_changed_recipe_is_refused_and_every_difference_is_named(broken: Recipe) -> None:
    stage = broken.stages[0]
    optim = stage.optim.model_copy(update={"learning_rate": 0.5})
    changed = broken.model_copy(update={"seed": 8, "stages": (stage.model_copy(update={"batch": 4, "optim": optim}),)})
    before = untouched(Path(broken.output))
    with pytest.raises(RecipeError) as caught:
        story.execute(changed, resume=True)
    named = {problem.field: problem.what for problem in caught.value.problems}
    assert set(named) == {"seed", "stages.0.batch", "stages.0.optim.learning_rate"}
    assert "was 8" in named["stages.0.batch"] and "is 4 now" in named["stages.0.batch"]
    assert untouched(Path(broken.output)) == before


def test_how_much_is_kept_and_where_it_is_saved_may_change(broken: Recipe) -> None:
    stage = broken.stages[0].model_copy(update={"checkpoint": 7})
    heard = Heard()
    assert story.execute(broken.model_copy(update={"keep": 3, "stages": (stage,)}), resume=True, display=heard)
    assert any(line.startswith("Resuming after step 4 ") for line in heard.lines)


@pytest.mark.parametrize("name", ["rows.jsonl", "test.jsonl"])
def test_data_that_changed_under_its_name_is_refused(name: str, broken: Recipe, tmp_path: Path) -> None:
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole.replace(b"number 3", b"number 4"))
    with pytest.raises(RecipeError) as caught:
        story.execute(broken, resume=True)
    assert [problem.field for problem in caught.value.problems] == [f"data.{name}"]
    (tmp_path / name).write_bytes(whole)
    assert story.execute(broken, resume=True).status == "done", "the refusal overwrote what the run began with"


def test_a_model_that_changed_in_its_folder_is_refused(broken: Recipe, tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", seed=1)
    with pytest.raises(RecipeError) as caught:
        story.execute(broken, resume=True)
    assert [problem.field for problem in caught.value.problems] == ["model.files.model.safetensors"]


def test_a_damaged_checkpoint_is_passed_over_and_the_bits_are_the_same(
    broken: Recipe, whole: Callable[[str], dict[str, Any]]
) -> None:
    """Steps whose checkpoint is lost are recorded once, and their numbers are those that they had."""
    (newest,) = Path(broken.output).glob("checkpoints/stage-0/step-00000004")
    weights = newest / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    heard = Heard()
    story.execute(broken, resume=True, display=heard)
    assert any("passed over" in line for line in heard.lines)
    mine, theirs = history(Path(broken.output)), whole("lora")
    assert mine["steps"] == theirs["steps"] and mine["weights"] == theirs["weights"]
    assert mine["evals"] == theirs["evals"]


def test_resuming_a_finished_run_says_so_and_changes_nothing(broken: Recipe) -> None:
    folder = Path(broken.output)
    first = story.execute(broken, resume=True)
    before, heard = untouched(folder), Heard()
    (folder / ".report.99.html").write_text("half a rep")
    again = story.execute(broken, resume=True, display=heard)
    assert heard.lines == ["This run is finished: there is nothing left to do"]
    assert untouched(folder) == before
    assert orjson.dumps(again.as_dict()) == orjson.dumps(first.as_dict())
    assert again.generate("Say the number 3.", max_new_tokens=8) == first.generate(
        "Say the number 3.", max_new_tokens=8
    )


def test_what_killed_processes_left_goes_and_what_a_person_put_there_stays(broken: Recipe) -> None:
    folder, left = Path(broken.output), "0" * 32
    (folder / f".adapter-{left}").mkdir()
    (folder / f".adapter-{left}" / "half.safetensors").write_bytes(b"half")
    (folder / f".model-old-{left}").mkdir()
    (folder / ".steps.jsonl.new").write_bytes(b"{")
    (folder / "notes.md").write_text("mine")
    (folder / ".adapter-mine").mkdir()
    story.execute(broken, resume=True)
    hidden = {path.name for path in folder.iterdir() if path.name.startswith(".")}
    assert hidden == {".adapter-mine"} and (folder / "notes.md").read_text() == "mine"


def test_what_a_kill_within_the_last_save_left_goes_though_nothing_is_saved_again(
    broken: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_here(context: Any) -> None:
        raise DivergedError("the test ends it here")

    with monkeypatch.context() as patch:
        patch.setattr(story, "_publish", killed_here)
        with pytest.raises(DivergedError):
            story.execute(broken, resume=True)
    stage, name = Path(broken.output) / "checkpoints" / "stage-0", read_run(Path(broken.output)).run["id"]
    kept = sorted(path.name for path in stage.iterdir())
    for left in (f".trash-{name}-0011223344556677", f".staging-{name}-0011223344556677"):
        (stage / left).mkdir()
        (stage / left / "state.json").write_text("{")
    story.execute(broken, resume=True)
    assert sorted(path.name for path in stage.iterdir()) == kept


class Asked(Silent):
    """A display during which a signal comes."""

    def step(self, step: Any, steps: int) -> None:
        if step.number == 5:
            signal.raise_signal(signal.SIGTERM)


def test_a_signal_between_two_checkpoints_makes_one(tmp_path: Path, place: Path) -> None:
    recipe = parse(lora(place, str(tmp_path / "run")))
    with pytest.raises(Preempted) as caught:
        story.execute(recipe, display=Asked())
    assert caught.value.exit_code == 75 and read_run(tmp_path / "run").status == "preempted"
    kept = {path.name for path in (tmp_path / "run" / "checkpoints" / "stage-0").iterdir()}
    assert kept == {"step-00000003", "step-00000005"}, "the best, and the one that the signal asked for"
