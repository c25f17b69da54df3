"""Nothing that must not be shown reaches a run folder: no secret by key, shape or environment, no absolute path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mingshi import provenance
from mingshi.record import Record, read_run
from mingshi.types import Scores

RECIPE = {"model": "smollm2-135m", "seed": 0}

CANARIES = {
    "hub token": "hf_" + "aB3dE6gH9jK2mN5pQ8",
    "model service": "sk-" + "proj-aB3dE6gH9jK2mN5p",
    "git host": "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4",
    "cloud": "AKIA" + "IOSFODNN7EXAMPLE",
    "web token": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "environment": "correct horse battery staple",
    "by key": "hunter2-by-key",
    "by nested key": "hunter2-by-nested-key",
    "after a flag": "hunter2-after-a-flag",
    "in a flag": "hunter2-in-a-flag",
    "in an address": "hunter2-in-an-address",
    "header": "aHVudGVyMi1oZWFkZXI=",
    "private key": "MIIEpAIBAAKCAQEA",
    "api key": "hunter2-api-key",
    "chinese key": "hunter2-chinese",
}


def test_no_canary_survives_anywhere_in_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", CANARIES["environment"])
    hostile = {
        "token": CANARIES["by key"],
        "deep": [{"hub": {"dbPassword": CANARIES["by nested key"], "OPENAI_API_KEY": CANARIES["api key"]}}],
        "address": f"https://me:{CANARIES['in an address']}@example.org/x",
        "text": f"use {CANARIES['hub token']} and {CANARIES['model service']}, {CANARIES['git host']}",
        "more": [CANARIES["cloud"], f"x{CANARIES['environment']}y", CANARIES["web token"]],
        "header": f"Authorization: Bearer {CANARIES['header']}",
        "pem": f"-----BEGIN RSA PRIVATE KEY-----\n{CANARIES['private key']}\n-----END RSA PRIVATE KEY-----",
        "接口密钥": CANARIES["chinese key"],
    }
    command = ["mingshi", "--api-key", CANARIES["after a flag"], f"--hub-token={CANARIES['in a flag']}"]
    command += ["--set", f"a.password={CANARIES['by key']}", CANARIES["hub token"]]
    with Record.create(tmp_path / "run", recipe={**RECIPE, "notes": hostile}, command=command, resume=False) as run:
        run.write_json("data.json", hostile)
        run.write_json("findings.json", [hostile])
        run.update(extra=hostile)
        everywhere = Scores(scores={}, samples=[hostile])
        run.write_eval(stage=0, step=0, when="before", data=hostile["text"], kind="k", scores=everywhere)
        run.finish("failed", {"error": " ".join(CANARIES[name] for name in ("hub token", "environment"))})
    written = "".join(path.read_text() for path in (tmp_path / "run").iterdir())
    assert [name for name, canary in CANARIES.items() if canary in written] == []
    assert written.count("[redacted]") > 50


@pytest.mark.parametrize(
    "innocent",
    [
        {"tokens": 512, "max_new_tokens": 64, "trained_tokens": 3},
        {"eos_token": "<|endoftext|>", "pad_token": "[PAD]", "token": None},
        {"tokenizer": "fast", "key": "label", "primary_key": "customer", "keys": ["a"]},
        {"secret_santa": "a game", "monkey": "a.b", "secretary": "x"},
        {"text": "a=b; x = 3; max_tokens=5; see https://example.org/a@b", "think": "/no_think"},
        {"learning_rate": 2e-4, "flag": True, "nothing": None, "path": "data/train.jsonl"},
    ],
)
def test_innocent_values_are_left_alone(innocent: dict[str, Any]) -> None:
    assert provenance.redact(innocent) == innocent
    assert provenance.recordable(innocent) == innocent


def test_what_was_redacted_stays_the_same_when_redacted_again() -> None:
    once = provenance.recordable({"token": "abcdefgh12", "a": "--password=abc hf_aaaaaaaaaaaaaaaaaaaa", "p": "/a/b/c"})
    assert provenance.recordable(once) == once


def test_no_absolute_path_is_written(tmp_path: Path) -> None:
    home = str(tmp_path)
    recipe = {
        **RECIPE,
        "model": f"{home}/models/m",
        "output": f"{home}/my runs/x",
        "stages": [{"data": [{"path": "/d.jsonl"}]}],
    }
    command = ["/usr/bin/mingshi", "train", f"{home}/r.yaml", f"--output={home}/x", "--set", f"stages.0.path={home}/y"]
    with Record.create(tmp_path / "run", recipe=recipe, command=command, resume=False) as run:
        run.write_json("data.json", {"sources": [{"path": Path(home) / "train.jsonl"}]})
        run.finish("failed", {"error": f"{home}/train.jsonl:3: text: is missing. Look into {home}/rejects.jsonl."})
    for path in (tmp_path / "run").iterdir():
        assert home not in path.read_text()
    fields = read_run(tmp_path / "run").run
    assert fields["command"] == ["mingshi", "train", "r.yaml", "--output=x", "--set", "stages.0.path=y"]
    assert (fields["recipe"]["model"], fields["recipe"]["output"]) == ("m", "x")
    assert fields["recipe"]["stages"][0]["data"][0]["path"] == "d.jsonl"
    assert fields["summary"]["error"] == "train.jsonl:3: text: is missing. Look into rejects.jsonl."
