"""What a checkpoint promises: it reads back bit for bit, damage is always found, and nothing of others is removed."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mingshi import checkpoint
from mingshi.errors import MingshiError, ModelError, ResourceError

RUN = "a1b2c3"


@pytest.fixture(autouse=True, scope="module")
def _no_waiting_for_the_real_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def weights(value: float = 1.0) -> dict[str, dict[str, torch.Tensor]]:
    return {"weights": {"layer": torch.full((4, 3), value)}, "optimizer": {"step": torch.tensor(value)}}


def save(folder: Path, step: int, **options: int) -> Path:
    return checkpoint.save(folder, run=RUN, step=step, tensors=weights(step), state={"step": step}, **options)


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def test_every_dtype_reads_back_bit_for_bit(tmp_path: Path) -> None:
    names = [
        "float64",
        "float32",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "int64",
        "int32",
        "int16",
        "int8",
        "uint16",
        "complex64",
    ]
    generator = torch.Generator().manual_seed(0)
    raw = torch.randint(0, 256, (64,), generator=generator).to(torch.uint8)
    tensors = {name: raw.view(getattr(torch, name)) for name in names}
    tensors["bool"] = raw > 100
    tensors["odd numbers"] = torch.tensor([float("nan"), float("inf"), -0.0, 5e-324], dtype=torch.float64)
    loaded = checkpoint.load(
        checkpoint.save(tmp_path, run=RUN, step=1, tensors={"weights": tensors}, state={})
    ).tensors["weights"]
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_awkward_tensors_are_saved_as_their_values(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    awkward = {
        "scalar": torch.tensor(7, dtype=torch.int64),
        "empty": torch.zeros(0, 3),
        "nothing": torch.zeros(0),
        "whole": base,
        "shared": base,
        "rows": base[1:],
        "overlapping": base[:2],
        "turned": base.t(),
        "learned": torch.nn.Parameter(base.clone()),
    }
    loaded = checkpoint.load(checkpoint.save(tmp_path, run=RUN, step=1, tensors={"weights": awkward}, state={}))
    for name, tensor in awkward.items():
        assert torch.equal(loaded.tensors["weights"][name], tensor.detach()), name


def test_empty_mappings_and_exact_state(tmp_path: Path) -> None:
    state = {
        "step": 3,
        "best": 0.1 + 0.2,
        "tiny": 5e-324,
        "seed": 2**63,
        "name": "名师",
        "none": None,
        "list": [1, [2.5]],
    }
    loaded = checkpoint.load(checkpoint.save(tmp_path, run=RUN, step=3, tensors={"optimizer": {}}, state=state))
    assert loaded.tensors == {"optimizer": {}}
    assert loaded.state == state
    assert (loaded.run, loaded.step) == (RUN, 3)
    assert checkpoint.load(checkpoint.save(tmp_path, run=RUN, step=4, tensors={}, state={})).tensors == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), (1, 2), torch.ones(1), {1: 2}])
def test_a_state_that_json_would_change_is_refused_before_anything_is_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(MingshiError, match="state of a checkpoint"):
        checkpoint.save(tmp_path, run=RUN, step=1, tensors={}, state={"best": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stem", ["../weights", "", "a/b", "Weights"])
def test_file_stems_cannot_leave_the_folder(tmp_path: Path, stem: str) -> None:
    with pytest.raises(MingshiError):
        checkpoint.save(tmp_path, run=RUN, step=1, tensors={stem: {}}, state={})


def test_one_flipped_bit_anywhere_is_found_and_the_file_named(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    chance = random.Random(0)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for _ in range(100):
            offset = chance.randrange(len(good))
            bad = bytearray(good)
            bad[offset] ^= 1 << chance.randrange(8)
            file.write_bytes(bad)
            with pytest.raises(ModelError, match=file.name):
                checkpoint.load(path)
        file.write_bytes(good)
    assert checkpoint.load(path).step == 1


def test_every_truncation_and_every_missing_file_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    for file in sorted(path.iterdir()):
        good = file.read_bytes()
        for length in range(0, len(good), 7):
            file.write_bytes(good[:length])
            with pytest.raises(ModelError, match=file.name):
                checkpoint.load(path)
        file.unlink()
        with pytest.raises(ModelError, match=file.name):
            checkpoint.load(path)
        file.write_bytes(good)


def test_all_damaged_files_are_named_at_once(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "state.json").write_bytes(b"")
    (path / "weights.safetensors").unlink()
    with pytest.raises(ModelError) as caught:
        checkpoint.load(path)
    assert len(caught.value.problems) == 2


def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints", 1)
    elsewhere = tmp_path / "elsewhere"
    (path / "state.json").rename(elsewhere)
    (path / "state.json").symlink_to(elsewhere)
    with pytest.raises(ModelError, match=r"state\.json.*not a plain file"):
        checkpoint.load(path)


def test_latest_falls_back_to_the_newest_that_verifies_and_says_so(tmp_path: Path) -> None:
    save(tmp_path, 1)
    second = save(tmp_path, 2)
    (second / "optimizer.safetensors").write_bytes(b"x")
    found, notes = checkpoint.latest(tmp_path, run=RUN)
    assert found is not None and checkpoint.load(found).step == 1
    assert len(notes) == 1 and "optimizer.safetensors" in notes[0]


def test_latest_goes_by_step_and_never_by_time_or_by_name_length(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000):
        save(tmp_path, step)
    os.utime(tmp_path / "step-99999999", (4e9, 4e9))
    assert checkpoint.latest(tmp_path, run=RUN)[0] == tmp_path / "step-100000000"


def test_a_renamed_or_foreign_checkpoint_is_not_the_latest(tmp_path: Path) -> None:
    save(tmp_path, 1)
    checkpoint.save(tmp_path, run="other", step=5, tensors={}, state={})
    save(tmp_path, 2).rename(tmp_path / "step-00000009")
    (tmp_path / "my-step-00000900-backup").mkdir()
    (tmp_path / "step-00000800").symlink_to(tmp_path / "step-00000001")
    found, notes = checkpoint.latest(tmp_path, run=RUN)
    assert found == tmp_path / "step-00000001"
    assert len(notes) == 2
    assert checkpoint.latest(tmp_path / "nowhere", run=RUN) == (None, ())


def test_a_newer_format_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    fields = json.loads((path / "manifest.json").read_bytes())
    (path / "manifest.json").write_text(json.dumps({**fields, "format": 7, "novelty": []}))
    with pytest.raises(ModelError, match=r"format 7 is newer than 1"):
        checkpoint.load(path)


def test_retention_keeps_the_newest_the_best_and_the_resumed(tmp_path: Path) -> None:
    for step in range(1, 8):
        save(tmp_path, step, keep=2, best=2, **({"resumed": 4} if step > 4 else {}))
    assert steps(tmp_path) == [2, 4, 6, 7]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_rewound_run_keeps_what_it_just_saved_and_drops_the_abandoned_steps(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save(tmp_path, step, keep=5)
    save(tmp_path, 15, keep=1, resumed=10)
    assert steps(tmp_path) == [10, 15]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 1)
    path = checkpoint.save(tmp_path, run=RUN, step=1, tensors={}, state={"again": True})
    assert checkpoint.load(path).state == {"again": True}
    assert [entry.name for entry in tmp_path.iterdir()] == ["step-00000001"]


def test_a_damaged_folder_in_the_way_is_set_aside_not_deleted(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    (path / "manifest.json").write_bytes(b"{}")
    save(tmp_path, 1)
    assert checkpoint.load(path).step == 1
    assert len(list(tmp_path.glob("step-00000001.in-the-way-*"))) == 1


def test_only_our_own_folders_are_ever_removed(tmp_path: Path) -> None:
    outside = save(tmp_path / "outside", 1)
    folder = tmp_path / "checkpoints"
    other = checkpoint.save(folder, run="other", step=1, tensors={}, state={})
    (folder / "step-00000002").symlink_to(outside)
    (folder / "step-00000003").mkdir()
    (folder / "step-00000003" / "thesis.txt").write_text("keep me")
    noted = save(folder, 4)
    (noted / "notes.txt").write_text("keep me too")
    (folder / ".staging-other-1").mkdir()
    (folder / f".trash-{RUN}-link").symlink_to(outside)
    for step in (5, 6):
        save(folder, step, keep=1)
    assert other.is_dir() and noted.is_dir() and (folder / ".staging-other-1").is_dir()
    assert (folder / "step-00000003" / "thesis.txt").is_file() and (folder / "step-00000002").is_symlink()
    assert checkpoint.load(outside).step == 1
    assert steps(folder) == [1, 2, 3, 4, 6]


def test_leftovers_of_a_killed_save_are_swept_unless_in_use(tmp_path: Path) -> None:
    for name in ("dead", "alive"):
        (tmp_path / f".staging-{RUN}-{name}").mkdir()
        (tmp_path / f".staging-{RUN}-{name}" / "weights.safetensors").write_bytes(b"half")
    claim = os.open(tmp_path / f".staging-{RUN}-alive", os.O_RDONLY)
    fcntl.flock(claim, fcntl.LOCK_EX)
    save(tmp_path, 1)
    os.close(claim)
    assert [path.name for path in tmp_path.glob(".staging-*")] == [f".staging-{RUN}-alive"]
    save(tmp_path, 2)
    assert list(tmp_path.glob(".staging-*")) == []


def test_files_follow_the_umask(tmp_path: Path) -> None:
    modes = {file.stat().st_mode for file in save(tmp_path, 1).iterdir()}
    (tmp_path / "plain").touch()
    assert modes == {(tmp_path / "plain").stat().st_mode}


def test_too_little_space_is_refused_beforehand(tmp_path: Path) -> None:
    checkpoint.ensure_space(tmp_path / "not" / "yet", bytes=1)
    free = shutil.disk_usage(tmp_path).free
    with pytest.raises(ResourceError, match="GB are needed"):
        checkpoint.ensure_space(tmp_path / "not" / "yet", bytes=free // 2, keep=2)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 9)), min_size=1, max_size=8),
    keep=st.integers(1, 3),
)
def test_any_history_keeps_latest_best_and_resumed(
    tmp_path_factory: pytest.TempPathFactory, data: list[tuple[int, bool, int]], keep: int
) -> None:
    """A history is saves `advance` steps apart, some the best so far, some after going back to an older checkpoint."""
    folder = tmp_path_factory.mktemp("history")
    step, best, resumed = 0, None, None
    for advance, is_best, back in data:
        present = steps(folder)
        if back < len(present):  # stopped, and resumed from a checkpoint of the user's choice
            step = resumed = present[back]
            best = best if best is not None and best <= step else None
        step += advance
        best = step if is_best else best
        checkpoint.save(
            folder, run=RUN, step=step, tensors={}, state={"step": step}, keep=keep, best=best, resumed=resumed
        )
        kept = set(steps(folder))
        assert {step, best, resumed} - {None} <= kept
        assert max(kept) == step
        assert len(kept) <= keep + 2
        assert checkpoint.latest(folder, run=RUN) == (folder / f"step-{step:08d}", ())
