"""How a step is shared out, and what a process is told of its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from mingshi.errors import RecipeError
from mingshi.ranks import place, refuse_unsuitable, share
from mingshi.ranks.place import Place, threads


@given(some.lists(some.integers(0, 500), max_size=40), some.integers(1, 8))
def test_everything_is_shared_out_once_and_nobody_has_much_more_than_another(sizes: list[int], count: int) -> None:
    shares = share(sizes, count)
    assert sorted(one for mine in shares for one in mine) == list(range(len(sizes)))
    loads = [sum(sizes[one] for one in mine) for mine in shares]
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_one_process_has_all_in_order() -> None:
    assert share([3, 1, 2], 1) == [[0, 1, 2]]


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_environment_says_which_process_this_is(second: pytest.MonkeyPatch) -> None:
    assert place() == Place(number=1, count=4, local=1, beside=2)
    second.setenv("WORLD_SIZE", "1")
    assert place() is None


def test_threads_are_shared_out_unless_a_person_said_how_many(
    second: pytest.MonkeyPatch,
) -> None:
    mine = Place(number=1, count=4, local=1, beside=2)
    second.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    second.delenv("OMP_NUM_THREADS", raising=False)
    assert threads(mine) == 4
    second.setenv("OMP_NUM_THREADS", "1")
    assert threads(mine) is None


@pytest.mark.parametrize(
    ("command", "name", "value", "told"),
    [
        ("eval", "LOCAL_RANK", "0", "`mingshi eval` is the work of one process"),
        ("train", "ACCELERATE_USE_FSDP", "true", "belongs to the recipe"),
        ("train", "ACCELERATE_USE_DEEPSPEED", "true", "belongs to the recipe"),
        ("train", "ACCELERATE_MIXED_PRECISION", "bf16", "precision: bf16"),
    ],
)
def test_what_many_processes_cannot_do_is_refused(
    command: str, name: str, value: str, told: str, second: pytest.MonkeyPatch
) -> None:
    second.setenv(name, value)
    second.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(SystemExit, match="2"):  # process 0 speaks for all
        refuse_unsuitable(command)
    second.setenv("RANK", "0")
    with pytest.raises(RecipeError, match=told):
        refuse_unsuitable(command)
    second.delenv("WORLD_SIZE")
    refuse_unsuitable(command)


def test_what_train_can_do_is_not_refused(second: pytest.MonkeyPatch) -> None:
    second.setenv("ACCELERATE_MIXED_PRECISION", "PrecisionType.NO")
    second.setenv("ACCELERATE_USE_FSDP", "false")
    refuse_unsuitable("train")
