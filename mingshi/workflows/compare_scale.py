"""What a comparison's file says of amounts of data: each amount of each model is a row of the comparison.

An amount is that many of the file's first rows, so every amount holds those below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field, field_validator

from mingshi.data.formats.rows import file_rows
from mingshi.recipe import Recipe
from mingshi.types import Settings

LONGEST_LABEL = 28  # characters: the name of a row has room for as many, a dash and an amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One model and one amount of data."""

    label: str  # of the model
    model: str  # as the file names it
    rows: int

    @property
    def name(self) -> str:
        """Of the comparison's row."""
        return f"{self.label}-{self.rows}"

    @property
    def set(self) -> tuple[str, ...]:
        """What it changes in the recipe."""
        return (f"model={orjson.dumps(self.model).decode()}", f"stages.0.data.0.limit={self.rows}")


class Scale(Settings):
    """How much data: several models, each trained on several amounts of the same rows."""

    models: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Names or folders, in the place of the recipe's `model`."""
    rows: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=2)
    """Amounts: so many of the first rows of the recipe's training file."""

    @field_validator("models")
    @classmethod
    def _apart(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        labels = [_label(model).lower() for model in models]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"two models are called {twice!r}. Give their folders names that differ.")
        return models

    @field_validator("rows")
    @classmethod
    def _rising(cls, rows: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(rows)) < len(rows):
            raise ValueError("an amount is given twice. Give each once.")
        return tuple(sorted(rows))

    def cells(self) -> list[Cell]:
        """Model by model, the smallest amount first."""
        return [Cell(label=_label(model), model=model, rows=rows) for model in self.models for rows in self.rows]

    def tuned(self, cell: Cell) -> Cell:
        """Where the learning rate of the cell's model is searched for: at the amount in the middle."""
        return Cell(label=cell.label, model=cell.model, rows=self.rows[len(self.rows) // 2])


def unscalable(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Field, what and mend of each thing that keeps a recipe from being trained on several amounts of its rows."""
    if len(recipe.stages) > 1 or len(recipe.stages[0].data) > 1:
        what = "has several stages, or several files to train on: of which are the amounts?"
        yield "scale", what, "Give the recipe one stage, and one file as its `data`."
    if isinstance(recipe.stages[0].validation, float) and recipe.stages[0].validation > 0:
        what = "is a share of the rows, so that every amount would be measured on other ones"
        yield "stages.0.validation", what, "Give files of its own, or 0."


def too_few_rows(recipe: Recipe, rows: int) -> str:
    """What is wrong where a training file has not as many rows; "" where it has."""
    path = recipe.stages[0].data[0].path
    there = sum(1 for _ in islice(file_rows(path), rows))
    return f"{path} has {there:,} rows, and {rows:,} are asked for" if there < rows else ""


def _label(model: str) -> str:
    """The model's name as that of a folder may be: what follows the last slash."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", Path(model).name)[:LONGEST_LABEL].strip("-") or "model"
