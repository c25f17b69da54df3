"""Opening a search: whose folder it is, what every process must agree on, and where trials are judged."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import orjson

from mingshi.display import Display
from mingshi.errors import DataError, MingshiError, ModelError, Problem, RecipeError, ResourceError
from mingshi.recipe import Recipe
from mingshi.workflows.compare_child import Failure
from mingshi.workflows.search_file import SearchPlan, trial_recipe
from mingshi.workflows.search_rungs import rung_tokens
from mingshi.workflows.search_study import ATTENDED, JOURNAL, LOCK, Study, attend, changes
from mingshi.workflows.search_trial import Size, size_of

ERRORS = {2: RecipeError, 3: DataError, 4: ModelError, 6: ResourceError}


def opened(plan: SearchPlan, *, resume: bool) -> tuple[Study, int]:
    """The study of the folder, and a descriptor that says that somebody works on it."""
    folder = plan.output
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if JOURNAL not in inside and inside - {LOCK, ATTENDED}:  # these two come before the journal
        what, mend = "is not empty, and holds no search", "Choose another output."
        raise RecipeError(Problem(file=str(folder), field="output", what=what, mend=mend))
    attending, others = attend(folder)
    try:
        study = Study(folder, plan.space, higher=plan.higher)
        now = orjson.loads(orjson.dumps(plan.kept_to()))
        with study.held():
            kept = study.facts().get("kept")
            if kept is None:
                study.note("kept", now)
                return study, attending
        if not (resume or others):
            what, mend = "holds a search already", "Go on with it by --resume, or choose another output."
            raise RecipeError(Problem(file=str(folder), field="output", what=what, mend=mend))
        mend = "Put it back to go on, or choose another output."
        places = [place for place in changes(kept, now) if not place.startswith("recipe.output")]
        if places:
            what = "is not what the search began with"
            raise RecipeError([Problem(file=str(plan.file), field=place, what=what, mend=mend) for place in places])
        return study, attending
    except BaseException:
        os.close(attending)
        raise


def rungs_of(plan: SearchPlan, study: Study, display: Display) -> tuple[int, ...]:
    """Where trials are judged, in trained tokens: shares of what the longest trial reads, the same for all of them.

    Who comes first reads the data; the others wait for that.
    """
    with study.held():
        rungs = study.facts().get("rungs")
        if rungs is None:
            display.say("Reading the data, to know how long a trial is")
            recipe = trial_recipe(plan.recipe_at(plan.space.longest()))
            try:
                size = size_of(recipe, folder=plan.output / "plan")
            except Failure as failure:
                raise ERRORS.get(failure.code, MingshiError)(failure.error) from None
            rungs = rung_tokens(budget=size.tokens, shares=plan.shares)
            study.note(_size_name(recipe), [size.steps, size.tokens])
            study.note("rungs", rungs)
    places = ", ".join(f"{tokens:,}" for tokens in rungs)
    display.say(
        f"{plan.trials} trials of {len(plan.space.axes)} fields; judged after {places} tokens, in {plan.output}"
    )
    return tuple(rungs)


def length(study: Study, recipe: Recipe, folder: Path) -> Size:
    """How long a recipe trains; worked out once for recipes that read the same rows in the same batches."""
    name = _size_name(recipe)
    with study.held():
        known = study.facts().get(name)
    if known is not None:
        return Size(steps=known[0], tokens=known[1])
    size = size_of(recipe, folder=folder)
    with study.held():
        study.note(name, [size.steps, size.tokens])
    return size


def _size_name(recipe: Recipe) -> str:
    values = recipe.model_dump(mode="json", exclude={"output": True, "stages": {"__all__": {"optim", "adapter"}}})
    return f"size.{hashlib.sha256(orjson.dumps(values)).hexdigest()[:16]}"
