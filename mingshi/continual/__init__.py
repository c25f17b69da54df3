"""Stages that do not forget what stages before them taught: rehearsal, weights that are held, and a gate after them.

settings     what a stage may say
choose       which rows stand for many: random, k-means, herding, k-centre
states       what rows look like to a network
remembered   rows of earlier stages among a stage's own, and the file that says which
elastic      the penalty on weights that earlier stages need (EWC)
previous     the model before the stage as a teacher (LwF)
gate         whether a task fell by more than a stage allows
"""

from __future__ import annotations

from mingshi.continual.settings import Ewc, Gate, Hold, Previous, Rehearsal, require_lessons

__all__ = ["Ewc", "Gate", "Hold", "Previous", "Rehearsal", "require_lessons"]
