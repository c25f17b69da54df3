"""Whatever operation of a save fails, dies or loses power: the last good checkpoint is found, and the next save works.

The loops are exhaustive: fault at operation 1, 2, 3 … until the save is through without meeting it.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from faults.faulty_disk import EIO, ENOSPC, Death, FaultyDisk

from mingshi import checkpoint
from mingshi.errors import ModelError, ResourceError

RUN = "a1b2c3"
NEW = "new"


def save(folder: Path, step: int, mark: str = "old", *, keep: int = 1) -> Path:
    tensors = {"weights": {"layer": torch.full((8, 8), float(step))}, "optimizer": {"moment": torch.ones(3)}}
    return checkpoint.save(folder, run=RUN, step=step, tensors=tensors, state={"mark": mark}, keep=keep)


def fresh(folder: Path) -> None:
    """No checkpoint yet, and no folder."""


def two_older(folder: Path) -> None:
    """Two older ones, one of which the new save retires."""
    save(folder, 1, keep=2)
    save(folder, 2, keep=2)


def same_step(folder: Path) -> None:
    """The only checkpoint is of the step that is saved again."""
    save(folder, 3)


def crashed_before(folder: Path) -> None:
    """A replacement of the same step that was killed between its two renames, staging, and trash."""
    save(folder, 3).rename(folder / "step-00000003.replaced")
    for name in (f".staging-{RUN}-1", f".trash-{RUN}-2"):
        (folder / name).mkdir()
        (folder / name / "weights.safetensors").write_bytes(b"half")


SCENES = (fresh, two_older, same_step, crashed_before)
FAULTS = {"input or output error": EIO, "disk full": ENOSPC, "killed": None, "bytes": None, "names and bytes": None}
POWER_LOSS = ("bytes", "names and bytes")


@pytest.fixture(autouse=True)
def _no_waiting_for_the_real_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def strikes(tmp_path: Path, scene: Callable[[Path], None], fault: str) -> Iterator[tuple[Path, FaultyDisk, bool]]:
    """Run the same save again and again with the fault one operation later: folder, disk, did the save return."""
    scene(tmp_path / fault / "checkpoints")
    for at in itertools.count(1):
        folder = tmp_path / f"{fault} {at}" / "checkpoints"
        folder.parent.mkdir()
        if (tmp_path / fault / "checkpoints").exists():
            shutil.copytree(tmp_path / fault / "checkpoints", folder)
        disk = FaultyDisk(folder, at=at, error=FAULTS[fault], power_loss=fault if fault in POWER_LOSS else "")
        returned = False
        with disk.armed():
            try:
                save(folder, 3, NEW)
                returned = True
            except ResourceError as error:
                assert FAULTS[fault] is not None and "step 3 was not written" in str(error)
            except Death:
                assert FAULTS[fault] is None
        yield folder, disk, returned
        if not disk.struck:
            assert returned and at > 15
            return
        shutil.rmtree(folder.parent)


def marks(folder: Path) -> tuple[int, str] | None:
    found, _ = checkpoint.latest(folder, run=RUN)
    if found is None:
        return None
    loaded = checkpoint.load(found)
    assert torch.equal(loaded.tensors["weights"]["layer"], torch.full((8, 8), float(loaded.step)))
    return loaded.step, loaded.state["mark"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scene", SCENES)
def test_a_fault_at_any_operation_leaves_a_good_checkpoint_and_a_next_save_that_works(
    tmp_path: Path, scene: Callable[[Path], None], fault: str
) -> None:
    before = {fresh: None, two_older: (2, "old"), same_step: (3, "old"), crashed_before: (3, "old")}[scene]
    for folder, _, returned in strikes(tmp_path, scene, fault):
        assert marks(folder) in ([(3, NEW)] if returned else [before, (3, NEW)])
        if fault not in POWER_LOSS:  # no half checkpoint is visible even before it is verified
            assert all(checkpoint.verify(path) for path in folder.glob("step-*"))
        if FAULTS[fault]:  # a save that fails cleans up after itself
            assert {path.name for path in folder.glob(".staging-*")} <= {f".staging-{RUN}-1"}
        save(folder, 4)
        assert marks(folder) == (4, "old")
        assert [path.name for path in folder.iterdir()] == ["step-00000004"]


@pytest.mark.parametrize("scene", SCENES)
def test_what_a_save_returned_survives_a_loss_of_power(tmp_path: Path, scene: Callable[[Path], None]) -> None:
    folder = tmp_path / "checkpoints"
    scene(folder)
    disk = FaultyDisk(folder, power_loss="names and bytes")
    with disk.armed():
        save(folder, 3, NEW, keep=9)
    disk.lose_power()
    assert marks(folder) == (3, NEW)


def test_everything_is_durable_before_it_is_named_and_named_before_older_ones_go(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    two_older(folder)
    disk = FaultyDisk(folder)
    with disk.armed():
        save(folder, 3, keep=1)
    place = {event: number for number, event in reversed(list(enumerate(disk.trace)))}
    staging = next(name for operation, name in disk.trace if operation == "rename" and name.startswith(".staging"))
    order = [("fsync", "manifest.json"), ("fsync", staging), ("rename", staging), ("fsync", "checkpoints")]
    for name in ("state.json", "weights.safetensors", "optimizer.safetensors"):
        assert place["fsync", name] < place["_write_bytes", "manifest.json"]
    assert [place[event] for event in order] == sorted(place[event] for event in order)
    assert place["_write_bytes", "manifest.json"] < place["fsync", "manifest.json"]
    removals = [number for number, (operation, _) in enumerate(disk.trace) if operation in ("unlink", "rmdir")]
    assert removals and min(removals) > place["fsync", "checkpoints"]


@pytest.mark.parametrize(
    "forgotten", ["state.json", "weights.safetensors", "manifest.json", ".staging-", "checkpoints"]
)
def test_the_power_loss_harness_notices_any_forgotten_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: str
) -> None:
    real = checkpoint._sync
    monkeypatch.setattr(checkpoint, "_sync", lambda path: None if path.name.startswith(forgotten) else real(path))
    assert any(marks(folder) is None for fault in POWER_LOSS for folder, _, _ in strikes(tmp_path, two_older, fault))


def test_what_does_not_read_back_is_taken_down_and_the_older_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "checkpoints"
    two_older(folder)
    real = checkpoint._publish

    def publish_and_rot(staging: Path, target: Path, run: str) -> None:
        real(staging, target, run)
        (target / "weights.safetensors").write_bytes(b"rot")

    monkeypatch.setattr(checkpoint, "_publish", publish_and_rot)
    with pytest.raises(ModelError, match=r"weights\.safetensors"):
        save(folder, 3)
    assert marks(folder) == (2, "old")
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000001", "step-00000002"]
