"""A model in a folder, for tests that read one."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))
