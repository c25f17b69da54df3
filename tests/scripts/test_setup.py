"""The set-up scripts against a make-believe Python that writes down what it is asked to do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mingshi.recipe import read_recipe

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/bash
echo "$*" >>"$LOG"
case "$*" in
*version_info*) [[ $STUB != old ]] ;;
*ensurepip*) [[ $STUB != bare ]] ;;
"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
"-m pip install"*) [[ $STUB != offline ]] ;;
*train*) mkdir -p "${4#output=}" ;;
esac
"""


class Checkout:
    """A copy of the scripts, and a machine that has what its `state` says."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "log"
        for name in ("scripts", "requirements"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "python3").write_text(PYTHON)
        (folder / "python3").chmod(0o755)

    def run(self, script: str, *words: str, state: str = "good", **variables: str) -> subprocess.CompletedProcess[str]:
        """Run from another folder, as continuous integration may."""
        self.log.write_text("")
        known = {"PATH": os.environ["PATH"], "PYTHON": str(self.folder / "python3"), "LOG": str(self.log)}
        command = ["bash", str(self.folder / script), *words]
        environment = {**known, "STUB": state, **variables}
        return subprocess.run(command, cwd="/", env=environment, capture_output=True, text=True, check=False)

    def installs(self) -> list[str]:
        asked = (line for line in self.log.read_text().splitlines() if line.startswith("-m pip install"))
        return [line.split("--quiet ")[1] for line in asked]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_torch_comes_first_then_the_locks_then_the_project(checkout: Checkout) -> None:
    assert checkout.run("scripts/setup", "dev").returncode == 0
    assert checkout.installs() == [
        "torch==2.13.0",
        "--requirement requirements/runtime.txt --requirement requirements/dev.txt",
        "--no-deps --no-build-isolation --editable .",
    ]


def test_a_second_call_installs_nothing_until_a_lock_changes(checkout: Checkout) -> None:
    checkout.run("scripts/setup", "dev")
    checkout.run("scripts/setup", "dev")
    assert checkout.installs() == []
    checkout.run("scripts/setup", "runtime")
    assert checkout.installs() == [], "the development environment has the runtime in it"
    with (checkout.folder / "requirements" / "runtime.txt").open("a") as lock:
        lock.write("one-more==1.0\n")
    checkout.run("scripts/setup", "runtime")
    assert len(checkout.installs()) == 3


def test_another_build_of_torch_may_be_asked_for(checkout: Checkout) -> None:
    checkout.run("scripts/setup", MINGSHI_TORCH="torch==2.13.0 --index-url https://example.org/whl")
    assert checkout.installs()[0] == "torch==2.13.0 --index-url https://example.org/whl"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("old", "Python 3.11 or newer is needed"),
        ("bare", "apt-get install python3-venv"),
        ("offline", "Is there a network?"),
    ],
)
def test_what_a_machine_lacks_is_said_with_its_mend(checkout: Checkout, state: str, words: str) -> None:
    finished = checkout.run("scripts/setup", state=state)
    assert finished.returncode == 1
    assert words in finished.stderr
    assert not list(checkout.folder.glob(".venv/*.stamp"))


def test_a_full_disk_is_said_before_anything_is_downloaded(checkout: Checkout) -> None:
    df = checkout.folder / "df"
    df.write_text("#!/bin/bash\nprintf 'Filesystem 1M-blocks Used Available\\n/dev/x 9000 8000 1000\\n'\n")
    df.chmod(0o755)
    finished = checkout.run("scripts/setup", PATH=f"{checkout.folder}:{os.environ['PATH']}")
    assert finished.returncode == 1
    assert "1000 MB are free on this disk; 4000 MB are needed" in finished.stderr
    assert checkout.installs() == []


def test_each_quickstart_takes_a_run_folder_of_its_own_and_names_the_report(checkout: Checkout) -> None:
    checkout.run("scripts/setup")
    shutil.copy(checkout.folder / "python3", checkout.folder / ".venv" / "bin" / "mingshi")
    for number in (1, 2):
        finished = checkout.run("scripts/quickstart", "--set", "seed=1")
        assert finished.returncode == 0, finished.stderr
        run = f"runs/docstrings-{number}"
        asked = f"train recipes/docstrings.yaml --set output={run} --set seed=1"
        assert checkout.log.read_text().splitlines()[-1] == asked
        assert f"{run}/report.html" in finished.stdout


def test_the_locks_pin_every_package_and_the_torch_that_setup_installs() -> None:
    for name in ("runtime", "dev"):
        lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
        assert all("==" in line for line in lines if not line.startswith("#"))
    assert "torch==2.13.0" in (ROOT / "requirements" / "runtime.txt").read_text().splitlines()
    assert "MINGSHI_TORCH:-torch==2.13.0}" in (ROOT / "scripts" / "setup").read_text()


def test_the_recipe_of_the_quickstart_reads_the_files_that_the_script_writes() -> None:
    recipe = read_recipe(ROOT / "recipes" / "docstrings.yaml")
    (stage,) = recipe.stages
    sides = {"train": stage.data, "validation": stage.validation, "test": recipe.test}
    assert {side: [source.path for source in sources] for side, sources in sides.items()} == {
        side: [f"data/docstrings/{side}.jsonl"] for side in sides
    }
