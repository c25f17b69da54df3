"""A model that writes and an encoder that reads, each in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from encoders import tiny_encoder
from tiny import tiny_model

from mingshi.model.load import Model, load


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture
def model(folder: Path) -> Model:
    return load(folder, precision="float32")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder(tmp_path_factory.mktemp("encoder"))
