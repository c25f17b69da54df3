"""Between processes: one owner of a run folder, a killed owner's lock falls free, and signals are flags."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mingshi import record
from mingshi.errors import RecipeError
from mingshi.record import Record, list_runs
from mingshi.signals import Stop

RECIPE = {"model": "m"}

HOLDER = """
import sys, time
from pathlib import Path
from mingshi.record import Record
try:
    run = Record.create(Path(sys.argv[1]), recipe={"model": "m"}, command=[], resume="resume" in sys.argv)
except Exception as error:
    print(type(error).__name__, error, flush=True)
else:
    print("held", flush=True)
    time.sleep(60)
"""


def create(folder: Path, *, resume: bool = False) -> Record:
    return Record.create(folder, recipe=RECIPE, command=[], resume=resume)


def hold(folder: Path, *words: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(record.__file__).parents[1])}
    command = [sys.executable, "-c", HOLDER, str(folder), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_of_many_simultaneous_starts_one_wins_and_a_killed_owner_is_succeeded(tmp_path: Path) -> None:
    processes = [hold(tmp_path / "run") for _ in range(4)]
    try:
        answers = {process: said(process) for process in processes}
        winner = next(process for process, answer in answers.items() if answer == "held")
        losers = [answer for process, answer in answers.items() if process is not winner]
        assert all(answer.startswith("RecipeError") and f"process {winner.pid} on" in answer for answer in losers)
        assert [line.status for line in list_runs(tmp_path)] == ["running"]
        with pytest.raises(RecipeError, match=f"process {winner.pid} on"):
            create(tmp_path / "run", resume=True)
        winner.kill()
        winner.wait()
        assert [line.status for line in list_runs(tmp_path)] == ["interrupted"]
        with create(tmp_path / "run", resume=True) as run:
            assert run.resumed
    finally:
        for process in processes:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def test_listing_runs_never_keeps_a_run_from_starting(tmp_path: Path) -> None:
    create(tmp_path / "run").__exit__()
    quit_listing = threading.Event()

    def list_all_the_time() -> None:
        while not quit_listing.is_set():
            list_runs(tmp_path)

    thread = threading.Thread(target=list_all_the_time)
    thread.start()
    try:
        for _ in range(8):
            create(tmp_path / "run", resume=True).__exit__()
    finally:
        quit_listing.set()
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_a_flag_and_handlers_come_back(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with Stop() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_second_signal_ends_the_process_at_once() -> None:
    program = (
        "import os, signal\nfrom mingshi.signals import Stop\nwith Stop() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    print(stop.requested, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n    print('still here', flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(record.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("True\n", -signal.SIGINT)


def test_in_another_thread_nothing_is_installed() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with Stop() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
