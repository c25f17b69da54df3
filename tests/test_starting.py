"""How a command starts: what it does once the process that started it is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """\
import sys, time
from pathlib import Path
from mingshi.signals import Stop
from mingshi.starting import prepare

prepare(["train", "recipe.yaml"])
with Stop() as stop:
    Path(sys.argv[1], "started").touch()
    until = time.monotonic() + 20
    while not stop.requested and time.monotonic() < until:
        time.sleep(0.01)
Path(sys.argv[1], "ended").write_text("asked" if stop.requested else "left alone")
"""
PARENT = """\
import os, subprocess, sys, time
environment = {**os.environ, "MINGSHI_PARENT": str(os.getpid())}
subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]], env=environment)
time.sleep(60)
"""


def awaited(path: Path) -> str:
    until = time.monotonic() + 30
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    time.sleep(0.05)
    return path.read_text()


@pytest.fixture(autouse=True)
def _no_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting again would be `python -m mingshi` and not what is tested."""
    monkeypatch.setenv("MINGSHI_ALLOCATOR", "off")


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells that a parent is gone")


def test_a_run_stops_with_the_process_that_started_it(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path), CHILD])
    try:
        awaited(tmp_path / "started")
        assert not (tmp_path / "ended").exists()
    finally:
        process.kill()
        process.wait()
    assert awaited(tmp_path / "ended") == "asked"


def test_a_run_whose_starter_is_gone_already_does_not_begin(tmp_path: Path) -> None:
    environment = os.environ | {"MINGSHI_PARENT": "1"}
    ended = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], env=environment, capture_output=True)
    assert ended.returncode == 75 and not (tmp_path / "started").exists()
