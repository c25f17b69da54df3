"""The model card that is saved beside a trained model, in the Hub's front matter and a page of text."""

from __future__ import annotations

from pathlib import Path

from mingshi.objectives import Classify
from mingshi.recipe import Recipe


def model_card(recipe: Recipe, folder: Path, *, kind: str) -> str:
    """What it was made from and how; figures stay in the run's report, where their intervals are.

    `kind`: whether the folder holds an `adapter` or a whole `model`.
    """
    classifies = recipe.stages[-1].objective.kind == "classify"
    stages = []
    for stage in recipe.stages:
        files = ", ".join(Path(source.path).name for source in stage.data)
        stages.append(f"* {stage.objective.kind}, {stage.adapter.kind}, {stage.batch} examples a step, on {files}")
    head = [
        "---",
        f"base_model: {recipe.model}",
        f"library_name: {'peft' if kind == 'adapter' else 'transformers'}",
        f"pipeline_tag: text-{'classification' if classifies else 'generation'}",
        "tags: [mingshi]",
        "---",
        f"# {folder.name}",
        "",
        f"Fine-tuned from `{recipe.model}` with Mingshi, seed {recipe.seed}:",
        "",
    ]
    tail = [
        "",
        *(_use_of_classifier(recipe, kind) if classifies else ()),
        "`mingshi.json` holds the hash of every file and of prompts rendered at training time; "
        "`mingshi verify` checks both.",
        "",
    ]
    return "\n".join(head + stages + tail)


def _use_of_classifier(recipe: Recipe, kind: str) -> list[str]:
    """How it is asked, which depends on what transformers can read."""
    objective = recipe.stages[-1].objective
    pooling = objective.pooling if isinstance(objective, Classify) else "auto"
    told = "`mingshi predict FOLDER FILE` gives each text its label and the probabilities of all."
    if kind == "adapter":
        told += " `mingshi merge` makes a whole model of it, which `transformers.pipeline` reads too."
    elif pooling == "auto":
        told += ' So does `transformers.pipeline("text-classification", FOLDER)`, with the same scores.'
    else:
        told += (
            f" It pools by `{pooling}`. If that is not its architecture's own way, transformers refuses the folder, "
            "since its classes would pool otherwise: the network's settings stand in `config.json` under `network`, "
            "and the head is given what was pooled."
        )
    return [told, ""]
