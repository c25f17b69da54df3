"""The model card."""

from __future__ import annotations

from pathlib import Path

import pytest

from mingshi.card import model_card
from mingshi.recipe import parse


@pytest.mark.parametrize(("kind", "library"), [("adapter", "peft"), ("model", "transformers")])
def test_the_card_names_the_library_of_what_lies_beside_it(kind: str, library: str, tmp_path: Path) -> None:
    """A run that began from an adapter ends in a whole model, whatever it trained."""
    source = [{"path": "rows.jsonl", "format": "chat"}]
    recipe = parse({"model": "a", "output": str(tmp_path), "stages": [{"data": source, "adapter": {"kind": "lora"}}]})
    assert f"library_name: {library}\n" in model_card(recipe, tmp_path, kind=kind)
