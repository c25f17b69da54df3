"""Runs as several processes, without a launcher: this one imports everything and forks them.

    python driver.py SCENES.json

A scene is a run: its recipe, how many processes, and what befalls one of them. What became of each is written beside
the recipe: exit codes and seconds into NAME.json, what process K said into NAME.K.err and NAME.K.out.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PLACES = {
    "prepare": ("mingshi.run", "prepare"),
    "step": ("mingshi.optim", "Optimiser.step"),
    "validate": ("mingshi.watching", "validation_scores"),
    "save": ("mingshi.checkpoint", "_publish"),
}
LIMIT = 180.0  # seconds for a scene


def befall(how: str) -> None:
    Path(os.environ["FAULT_FILE"]).write_text(str(time.monotonic()))
    if how == "raise":
        raise RuntimeError("the test ends it here")
    if how == "sleep":
        time.sleep(3600)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}[how])


def arm(fault: dict[str, Any]) -> None:
    """The function of that place fails when it is called for the `at`-th time."""
    module_name, name = PLACES[fault["where"]]
    owner: Any = sys.modules[module_name]
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    stock: Callable[..., Any] = getattr(owner, last)
    calls = [0]

    def failing(*given: Any, **named: Any) -> Any:
        calls[0] += 1
        if calls[0] == fault["at"]:
            befall(fault["how"])
        return stock(*given, **named)

    setattr(owner, last, failing)


def be(scene: dict[str, Any], number: int, port: int) -> None:
    """One process of a scene, from here to its end."""
    from mingshi import cli
    from mingshi.ranks import pulse

    place = Path(scene["recipe"]).parent
    for descriptor, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(place / f"{scene['name']}.{number}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    count = str(scene["count"])
    if scene["count"] > 1:
        os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["FAULT_FILE"] = str(place / f"{scene['name']}.fault")
    pulse.IDLE, pulse.SILENCE = scene.get("patience", (pulse.IDLE, pulse.SILENCE))
    fault = scene.get("fault")
    if fault and fault["process"] == number:
        arm(fault)
    sys.argv = ["mingshi", "train", scene["recipe"], *scene.get("words", [])]
    cli.main()


def play(scene: dict[str, Any]) -> None:
    place = Path(scene["recipe"]).parent
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = {}
    for number in range(scene["count"]):
        process = os.fork()
        if not process:
            be(scene, number, port)
            raise AssertionError("it has not ended")
        processes[process] = number
    codes: dict[int, int] = {}
    ends: dict[int, float] = {}
    deadline = time.monotonic() + LIMIT
    while len(codes) < scene["count"] and time.monotonic() < deadline:
        for process in processes.keys() - codes.keys():
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                codes[process], ends[process] = os.waitstatus_to_exitcode(status), time.monotonic()
        frozen = {process for process in processes if (scene.get("fault") or {}).get("how") == "stop"} - codes.keys()
        if len(frozen) == 1:  # nothing in it can end it: that is a launcher's
            os.kill(frozen.pop(), signal.SIGKILL)
        time.sleep(0.02)
    for process in processes.keys() - codes.keys():
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    fault = place / f"{scene['name']}.fault"
    began = float(fault.read_text()) if fault.exists() else time.monotonic()
    told = {processes[process]: code for process, code in codes.items()}
    ended = max((ends[process] for process in codes), default=began)
    orderly = {"codes": [told.get(number) for number in range(scene["count"])], "seconds": ended - began}
    (place / f"{scene['name']}.json").write_text(json.dumps(orderly))


if __name__ == "__main__":
    import peft  # noqa: F401  what a run imports on its way, once for all of them
    from transformers.models.llama import modeling_llama  # noqa: F401

    import mingshi.cli
    import mingshi.ranks.together
    import mingshi.report.page
    import mingshi.run
    import mingshi.use  # noqa: F401

    for each in json.loads(Path(sys.argv[1]).read_text()):
        play(each)
