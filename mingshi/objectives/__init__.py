"""Objectives: one file, one meaning. The table is all there is to registering one."""

from mingshi.objectives.classify import Classify
from mingshi.objectives.contrastive import Contrastive
from mingshi.objectives.distill import Distill
from mingshi.objectives.dpo import Dpo
from mingshi.objectives.sft import Sft

OBJECTIVES = {"sft": Sft, "dpo": Dpo, "classify": Classify, "distill": Distill, "contrastive": Contrastive}

__all__ = ["OBJECTIVES", "Classify", "Contrastive", "Distill", "Dpo", "Sft"]
