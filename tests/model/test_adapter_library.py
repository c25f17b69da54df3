"""peft is imported without bitsandbytes, and finds it again."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import sys
from mingshi.model import adapter_library
assert "bitsandbytes" not in sys.modules
with adapter_library.unseen():
    from peft.import_utils import is_bnb_available
    assert not is_bnb_available()
assert is_bnb_available()
import bitsandbytes
with adapter_library.unseen():
    assert sys.modules["bitsandbytes"] is bitsandbytes
"""


def test_a_start_without_four_bits_leaves_bitsandbytes_out() -> None:
    pytest.importorskip("bitsandbytes")
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
