"""Through the launchers themselves: each process starts again with its allocator, and what befalls one is passed on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from parallel.scenes import FULL, environment, place_in, run_of, sft, written

pytestmark = pytest.mark.slow

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "mingshi"]
ACCELERATE = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
ACCELERATE += ["--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no", "-m", "mingshi"]
LIMIT = 240.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place_in(tmp_path_factory.mktemp("launchers"))


def start(place: Path, name: str, launcher: list[str], *, steps: int) -> subprocess.Popen[str]:
    recipe = written(place, name, sft(place, adapter=FULL, steps=steps))
    settings = environment(place)
    del settings["MINGSHI_ALLOCATOR"], settings["OMP_NUM_THREADS"]
    command = [sys.executable, *launcher, "train", recipe]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=settings)


def workers(launcher: int) -> list[int]:
    """The launcher's children, by their number."""
    found = {}
    for process in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        settings = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        ranks = [int(entry[5:]) for entry in settings if entry.startswith(b"RANK=")]
        found |= dict.fromkeys(ranks, int(process))
    return [found[number] for number in sorted(found)]


def after_steps(process: subprocess.Popen[str], run: Path, steps: int) -> None:
    began = time.monotonic()
    while not (run / "steps.jsonl").exists() or (run / "steps.jsonl").read_bytes().count(b"\n") < steps:
        assert process.poll() is None and time.monotonic() - began < LIMIT, process.communicate()[0]
        time.sleep(0.02)


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_a_run_is_done(launcher: list[str], place: Path, request: pytest.FixtureRequest) -> None:
    name = f"done-{request.node.callspec.id}"
    process = start(place, name, launcher, steps=4)
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    run = run_of(place, name)
    assert run.status == "done" and run.run["processes"] == 2 and len(run.steps) == 4
    assert said.count("weights train") == 1
    cores = len(os.sched_getaffinity(0))
    assert run.run["machine"]["threads"] == max(1, cores // 2)


def test_a_signal_to_one_process_saves_and_stops_all(place: Path) -> None:
    process = start(place, "signalled", TORCHRUN, steps=400)
    after_steps(process, place / "signalled", 3)
    os.kill(workers(process.pid)[1], signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and "exitcode  : 75" in said, said
    run = run_of(place, "signalled")
    assert run.status == "preempted"
    assert (place / "signalled" / "checkpoints" / "stage-0" / f"step-{len(run.steps):08d}").is_dir()


def test_a_signal_to_the_launcher_saves_and_stops_all(place: Path) -> None:
    process = start(place, "stopped", TORCHRUN, steps=400)
    after_steps(process, place / "stopped", 3)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    run = run_of(place, "stopped")
    assert run.status == "preempted", said


def test_a_killed_process_ends_all_and_is_named(place: Path) -> None:
    process = start(place, "killed", TORCHRUN, steps=400)
    after_steps(process, place / "killed", 3)
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    began = time.monotonic()
    said, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and time.monotonic() - began < 60
    assert "rank      : 1" in said and "process 1 of 2" in said, said
    run = run_of(place, "killed")
    assert run.status == "failed" and "process 1 of 2" in run.run["summary"]["error"]
