"""The model card that is saved beside a trained model, in the Hub's front matter and a page of text."""

from __future__ import annotations

from pathlib import Path

from mingshi.recipe import Recipe


def model_card(recipe: Recipe, folder: Path) -> str:
    """What it was made from and how; figures stay in the run's report, where their intervals are."""
    stages = []
    for stage in recipe.stages:
        files = ", ".join(Path(source.path).name for source in stage.data)
        stages.append(f"* {stage.objective.kind}, {stage.adapter.kind}, {stage.batch} examples a step, on {files}")
    adapter = recipe.stages[-1].adapter.kind != "full" and len(recipe.stages) == 1
    head = [
        "---",
        f"base_model: {recipe.model}",
        f"library_name: {'peft' if adapter else 'transformers'}",
        "pipeline_tag: text-generation",
        "tags: [mingshi]",
        "---",
        f"# {folder.name}",
        "",
        f"Fine-tuned from `{recipe.model}` with Mingshi, seed {recipe.seed}:",
        "",
    ]
    tail = [
        "",
        "`mingshi.json` holds the hash of every file and of prompts rendered at training time; "
        "`mingshi verify` checks both.",
        "",
    ]
    return "\n".join(head + stages + tail)
