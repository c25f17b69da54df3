"""Objectives: one file, one meaning. The table is all there is to registering one."""

from mingshi.objectives.sft import Sft

OBJECTIVES = {"sft": Sft}

__all__ = ["OBJECTIVES", "Sft"]
