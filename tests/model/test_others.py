"""Models beside the one that trains: whose tokens are whose."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_model

from mingshi.errors import ModelError
from mingshi.model.load import load_text
from mingshi.model.others import template_beside


def test_a_base_model_teaches_a_student_that_has_a_chat_template(tmp_path: Path) -> None:
    """What its own template would add is no token of the student, and so is not added."""
    student, base = tiny_model(tmp_path / "student"), tiny_model(tmp_path / "base", template=None)
    text = load_text(student)
    assert load_text(base).tokenizer_sha256 != text.tokenizer_sha256
    assert load_text(base, template=template_beside(str(base), text, role="teacher")).new_tokens == ()
    assert template_beside(str(student), text, role="reference") == "auto"


def test_tokens_that_the_student_gets_are_new_to_a_reference_and_unknown_to_a_teacher(tmp_path: Path) -> None:
    student, other = tiny_model(tmp_path / "student", template=None), tiny_model(tmp_path / "other")
    text = load_text(student)
    assert text.new_tokens and template_beside(str(other), text, role="reference") == text.template.name
    with pytest.raises(ModelError, match=r"the teacher .*other has another tokenizer"):
        template_beside(str(other), text, role="teacher")
