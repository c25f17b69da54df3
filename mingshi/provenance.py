"""Where a run comes from, in words that may be shown: fingerprints, versions, machine; no secrets, no absolute paths.

Also whether a run may go on with a recipe: where it comes from must still be true.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from pydantic import BaseModel

from mingshi.errors import Problem

REDACTED = "[redacted]"
MAY_CHANGE = frozenset({"output", "name", "notes", "keep", "logging", "report", "lang", "evals"})
MAY_CHANGE_IN_STAGE = frozenset({"checkpoint", "shard"})  # when it is saved, and who holds what, moves no weight

_PACKAGES = ["mingshi", "torch", "transformers", "peft", "safetensors", "tokenizers", "numpy", "scipy", "pydantic"]
_SECRET_WORDS = {"secret", "password", "passwd", "passphrase", "pwd", "authorization", "credential", "apikey", "cookie"}
_SECRET_WORDS |= {"token", "auth", "secrets", "passwords", "credentials"}
_SECRET_CHARACTERS = ("密码", "密钥", "口令", "令牌")
_KEY_WORDS = {"api", "access", "secret", "private", "auth", "account", "signing", "encryption", "ssh", "service"}
_LIKE_A_KEY = re.compile(r"(?=.*\d)[\w.+/=-]{16,}", re.ASCII)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_MARKUP = re.compile(r"[<\[].*[>\]]|\s*", re.DOTALL)  # a tokenizer's <eos>, not a secret
_PRIVATE_KEY = r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}"
    r"|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)|" + _PRIVATE_KEY,
    re.DOTALL,
)
_USER_IN_ADDRESS = re.compile(r"\b([a-z][a-z0-9+.-]*://)[^/\s@'\"]+@", re.IGNORECASE)
_BEARER = re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_ASSIGNMENT = re.compile(r"([\w.-]+)=([^\s&;,'\"]+)")
_PATH_IN_TEXT = re.compile(r"(?<![\w.:/~-])/(?:[^\s/'\":,;=]+/)+([^\s/'\":,;=]+)")
_PATH_FIELDS = {"path", "file", "folder", "model", "output", "template", "adapter", "teacher", "source"}
_MESSAGE_FIELDS = {"error", "message", "detail", "reason", "what"}


def recordable(value: Any, *, secrets: Collection[str] | None = None) -> Any:
    """`value` as plain JSON values that may be written and moved: redacted, and without absolute paths.

    Numbers that are not finite become "NaN", "Infinity" and "-Infinity": JSON has no others, and null would hide them.
    `secrets` are values to hide wherever they occur; by default those that the environment holds.
    """
    return _recordable(value, secrets_in_environment() if secrets is None else secrets, field="")


def redact(value: Any, *, secrets: Collection[str] | None = None) -> Any:
    """Hide secrets: by the name of their key, by their shape, in addresses, and where the environment holds them."""
    known = secrets_in_environment() if secrets is None else secrets
    if isinstance(value, str):
        return _redact_text(value, known)
    if isinstance(value, Mapping):
        return {
            key: REDACTED if _names_secret(str(key), inner) else redact(inner, secrets=known)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(inner, secrets=known) for inner in value]
    return value


def redact_command(command: Sequence[str], *, secrets: Collection[str] | None = None) -> list[str]:
    """A command line without secrets (also those that follow their flag) and without absolute paths."""
    known = secrets_in_environment() if secrets is None else secrets
    before = ("", *command)
    return [
        REDACTED if flag.startswith("-") and _names_secret(flag, word) else _portable_word(_redact_text(word, known))
        for flag, word in zip(before, command, strict=False)
    ]


def _portable_word(word: str) -> str:
    """`/a/b`, `--output=/a/b` and `--set model=/a/b` lose their folders."""
    name, equals, value = word.rpartition("=")
    return f"{name}{equals}{PurePath(value).name or '/'}" if value.startswith("/") else word


def without_paths(text: str) -> str:
    """Absolute paths inside a text, reduced to their last names."""
    return _PATH_IN_TEXT.sub(r"\1", text)


def resume_conflicts(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Problem]:
    """Every field in which two resolved recipes differ and must not; a field that nobody listed must not.

    A recipe is recorded whole, so a field that it lacks came with a later version: one that is empty now is as it was.
    """
    before, after = _leaves(recordable(old)), _leaves(recordable(new))
    problems = []
    for place in dict.fromkeys([*before, *after]):
        was, now = before.get(place, "not set"), after.get(place, "not set")
        came_later = place not in before and not now
        if was == now or came_later or _may_change(place) or REDACTED in str(was):
            continue
        what = f"was {_short(was)} when this run began, and is {_short(now)} now"
        mend = "Put it back to resume, or begin a new run in another `output`."
        problems.append(Problem(field=".".join(place), what=what, mend=mend))
    return problems


def secrets_in_environment() -> frozenset[str]:
    """Values of environment variables whose names say that they are secret; short ones would hide ordinary words."""
    return frozenset(
        value
        for name, value in os.environ.items()
        if len(value) >= 8 and (_names_secret(name, value) or name.upper().endswith("KEY"))
    )


def fingerprint_file(path: Path) -> dict[str, Any]:
    """Name, sha256 and size in bytes of one file, or of a folder with all that is in it."""
    name = path.name if path.is_absolute() else str(path)
    if path.is_dir():
        files = hash_folder(path, ("**/*",))
        whole = hashlib.sha256("".join(f"{file}\0{files[file]}\n" for file in files).encode()).hexdigest()
        return {"path": name, "sha256": whole, "bytes": sum((path / file).stat().st_size for file in files)}
    return {"path": name, "sha256": _hash_file(path), "bytes": path.stat().st_size}


def hash_folder(path: Path, patterns: Sequence[str]) -> dict[str, str]:
    """sha256 by relative name of the files that match; a file that has not changed is hashed once per process."""
    files = {file for pattern in patterns for file in path.glob(pattern) if file.is_file()}
    return {file.relative_to(path).as_posix(): _hash_file(file) for file in sorted(files)}


def versions() -> dict[str, str]:
    """Python's and the packages' versions, read without importing them."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_sha256() -> str:
    """Of the package's sources and their names."""
    digest = hashlib.sha256()
    for name, file_digest in hash_folder(Path(__file__).resolve().parent, ["**/*.py"]).items():
        digest.update(f"{name} {file_digest}\n".encode())
    return digest.hexdigest()


def code() -> dict[str, Any]:
    """Which code ran: sha256 over the package's sources and, in a git checkout, the commit and whether it is dirty."""
    package = Path(__file__).resolve().parent
    found: dict[str, Any] = {"sha256": code_sha256()}
    if (package.parent / ".git").exists():
        commit = _git(package.parent, "rev-parse", "--verify", "HEAD")
        changes = _git(package.parent, "status", "--porcelain", "--", package.name)
        if commit is not None and changes is not None:
            found |= {"commit": commit, "dirty": bool(changes)}
    return found


def machine() -> dict[str, Any]:
    """Processor, cores, threads and memory; results repeat bit for bit only where these are equal."""
    torch = sys.modules.get("torch")  # asked only if it is there: the command line starts without it
    return {
        "processor": _processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def _recordable(value: Any, secrets: Collection[str], field: str) -> Any:
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _name_of_number(value)
    if isinstance(value, str | PurePath):
        return _portable(_redact_text(str(value), secrets), field)
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}  # names from the type
    if isinstance(value, Mapping):
        return {
            str(key): REDACTED if _names_secret(str(key), inner) else _recordable(inner, secrets, str(key))
            for key, inner in value.items()
        }
    if isinstance(value, np.ndarray | np.generic):
        return _recordable(value.tolist(), secrets, field)
    if isinstance(value, Sequence | AbstractSet):
        ordered = sorted(value, key=str) if isinstance(value, AbstractSet) else value
        return [_recordable(inner, secrets, field) for inner in ordered]
    raise TypeError(f"a {type(value).__name__} cannot be recorded")


def _name_of_number(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _portable(text: str, field: str) -> str:
    """An absolute path becomes its last name. Other texts that begin with a slash (`/no_think`) stay."""
    if field in _MESSAGE_FIELDS:
        return without_paths(text)
    one_word = len(text.split()) == 1 and text.rstrip("/").count("/") > 1
    if text.startswith("/") and (field in _PATH_FIELDS or one_word):
        return PurePath(text).name or "/"
    return text


def _names_secret(key: str, value: Any) -> bool:
    """Does the key say that its value is secret. `max_tokens: 5` and `eos_token: <eos>` do not."""
    words = [word.lower() for word in _WORDS.findall(key)]
    last = words[-1] if words else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return last in _SECRET_WORDS - {"token"}
    if not isinstance(value, str) or _MARKUP.fullmatch(value):
        return False
    if last in ("key", "keys"):
        return bool(_KEY_WORDS.intersection(words)) or bool(_LIKE_A_KEY.fullmatch(value))
    return last in _SECRET_WORDS or key.endswith(_SECRET_CHARACTERS)


def _redact_text(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    text = _SHAPES.sub(REDACTED, text)
    text = _USER_IN_ADDRESS.sub(rf"\1{REDACTED}@", text)
    text = _BEARER.sub(rf"\1 {REDACTED}", text)
    return _ASSIGNMENT.sub(lambda match: f"{match[1]}={REDACTED}" if _names_secret(*match.groups()) else match[0], text)


def _leaves(value: Any, place: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Every leaf of a tree by its place. An empty list is a leaf, so that it differs from an absent one."""
    items = (
        list(value.items()) if isinstance(value, Mapping) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not items:
        return {place: value}
    return {leaf: inner for key, child in items for leaf, inner in _leaves(child, (*place, str(key))).items()}


def _may_change(place: tuple[str, ...]) -> bool:
    return place[0] in MAY_CHANGE or (place[0] == "stages" and place[2:3] != () and place[2] in MAY_CHANGE_IN_STAGE)


def _short(value: Any) -> str:
    text = value if value == "not set" else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _hash_file(path: Path) -> str:
    status = path.stat()
    return _hash_unchanged(str(path), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=4096)
def _hash_unchanged(path: str, device: int, inode: int, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _git(folder: Path, *words: str) -> str | None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
