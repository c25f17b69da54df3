"""The peers' own environments, and processes started with the right variables."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import threads
from benchmarks.task import ALLOCATOR

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "benchmarks" / "peers"
OWN = ""  # no environment but this project's

# The environments of peers/requirements-NAME.txt, and what is put there without what it asks for.
ENVIRONMENTS: Mapping[str, Sequence[str]] = {
    "trl": (),
    "unsloth": ("unsloth==2026.10.9", "unsloth_zoo==2026.10.9"),  # they ask for what a GPU needs
}


def peer_python(environment: str) -> str:
    """The interpreter of a peer's environment, which is made on first use and again when the pins change."""
    if environment == OWN:
        return sys.executable
    folder, requirements = ROOT / f".venv-{environment}", PINS / f"requirements-{environment}.txt"
    python, mark, alone = folder / "bin" / "python", folder / "installed", ENVIRONMENTS[environment]
    wanted = hashlib.sha256(requirements.read_bytes() + " ".join(alone).encode()).hexdigest()
    if not mark.exists() or mark.read_text() != wanted:
        print(f"installing the peer into {folder.name}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        torch = shlex.split(os.environ.get("MINGSHI_TORCH", "torch==2.13.0"))  # as scripts/setup chooses the build
        for packages in (torch, ["-r", str(requirements)], ["--no-deps", *alone] if alone else []):
            if packages:
                subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        mark.write_text(wanted)
    return str(python)


def variables(inherited: Mapping[str, str], *, allocator: bool) -> dict[str, str]:
    """The variables of a measured process: every thread, no network, and the allocator's setting only if asked."""
    kept = {name: value for name, value in inherited.items() if not name.startswith("MALLOC_")}
    common = {"OMP_NUM_THREADS": str(threads()), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return kept | common | (ALLOCATOR if allocator else {})


def answer(python: str, module: str, *parameters: str, allocator: bool, log: Path) -> dict[str, Any]:
    """Run `python -m module` in a fresh process and read the JSON line it prints last.

    Raises RuntimeError with the end of what it wrote to standard error if it fails; `log` keeps all of that.
    """
    with log.open("wb") as errors:
        process = subprocess.run(
            [python, "-m", module, *parameters],
            cwd=ROOT,
            env=variables(os.environ, allocator=allocator),
            stdout=subprocess.PIPE,
            stderr=errors,
            check=False,
        )
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{module} ended with {process.returncode}; {log} has all it said:\n{tail}")
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result
