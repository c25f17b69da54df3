"""peft, without bitsandbytes where nothing is in four bits: its import takes a second, and peft always imports it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

NAME = "bitsandbytes"


@contextmanager
def unseen(*, unless: bool = False) -> Iterator[None]:
    """Bitsandbytes is not there for what is imported here, `unless` it is needed; one that is loaded stays."""
    if unless or NAME in sys.modules:
        yield
        return
    sys.modules[NAME] = None  # type: ignore[assignment]  # what stands for a module that cannot be imported
    try:
        yield
    finally:
        del sys.modules[NAME]
        forget()


def forget() -> None:
    """Peft asks once whether bitsandbytes is there, and keeps the answer: what it was told meanwhile does not hold."""
    from peft.import_utils import is_bnb_4bit_available, is_bnb_available

    for kept in (is_bnb_available, is_bnb_4bit_available):
        kept.cache_clear()


with unseen():
    from peft import PeftConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    from peft.tuners.lora.layer import Linear as LoraLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

__all__ = [
    "AuxiliaryTrainingWrapper",
    "LoraLayer",
    "PeftConfig",
    "PeftModel",
    "get_peft_model",
    "get_peft_model_state_dict",
    "unseen",
]
