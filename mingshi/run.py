"""The story of a run. Read this file first.

load the model → read and encode the data → evaluate → train each stage, measuring and saving on the way → put the best
weights back → evaluate again → publish the model → write the report.

Whatever happens, the run folder says so. A killed run goes on from its last checkpoint, and ends with the very numbers
that it would have had.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mingshi import checkpoint, health, memory, sharding
from mingshi.card import model_card
from mingshi.checks.fit import fits
from mingshi.data.plan import Plan
from mingshi.display import Display, Silent, Watched
from mingshi.errors import MingshiError, Preempted, ResourceError
from mingshi.evaluate import Suite, as_json, subjects
from mingshi.lessons import Lessons
from mingshi.loop import Work, train
from mingshi.model import export
from mingshi.model.adapters import fold, trainable
from mingshi.model.assets import cache_root, resolve
from mingshi.model.attached import Attached
from mingshi.model.load import Model
from mingshi.model.origin import Origin
from mingshi.optim import Optimiser
from mingshi.outcome import Outcome
from mingshi.prepare import (
    Joined,
    Prepared,
    counted,
    open_for,
    prepare,
    require_fitting,
    settled,
)
from mingshi.provenance import hash_folder
from mingshi.ranks import Onlooker, Ranks, opened
from mingshi.recipe import Recipe, Stage
from mingshi.record import RUN, Record, Run, read_run
from mingshi.report.fit import verdicts
from mingshi.report.page import write_report
from mingshi.resume import finished, recorded_scores, refuse_changes, sweep
from mingshi.shortage import hand_back, is_shortage
from mingshi.signals import Asked, Stop
from mingshi.tasks import refuse_second_readings
from mingshi.types import Chat, Objective
from mingshi.watching import Standing, Watch, training_sample, validation_streams


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """What every part of a run shares."""

    recipe: Recipe
    model: Model
    record: Record | Onlooker
    stop: Asked
    display: Display
    ranks: Ranks


def execute(
    recipe: Recipe,
    *,
    resume: bool = False,
    command: Sequence[str] = (),
    display: Display | None = None,
    language: str = "en",
) -> Outcome:
    """Carry out a recipe. Raises one of `mingshi.errors`; the run folder then says which, and `resume` goes on.

    To resume a run that is done is no error: it comes back as it was recorded.
    """
    folder, values = Path(recipe.output), recipe.model_dump(mode="json")
    run = finished(folder, values) if resume else None
    with opened(recipe.device) as ranks:
        display = display if display is not None and ranks.first else Silent()
        ranks.agree("run folder", run and run.run["id"])
        if run is not None:
            return _finished(run, display, language, ranks)
        record = _record(folder, ranks, lambda: Record.create(folder, recipe=values, command=command, resume=resume))
        with Stop() as stop, record:
            if ranks.first:
                sweep(folder)
            try:
                outcome = _run(recipe, record, ranks.heed(stop), Watched(display, stop), ranks)
            except Exception as error:
                ended = _failed(recipe, record, ranks, ranks.blame(error), language)
                if ended is error:
                    raise
                raise ended from error
        if ranks.first:
            write_report(folder, language=language)
    return outcome


def _record(folder: Path, ranks: Ranks, create: Callable[[], Record]) -> Record | Onlooker:
    """The run folder: one process takes it, and the others must see it."""
    record = create() if ranks.first else None
    name = ranks.exchange(record and record.id)[0]
    ranks.agree("run folder", read_run(folder).run["id"] if (folder / RUN).is_file() else None)
    return record if record is not None else Onlooker(folder, name)


def _failed(recipe: Recipe, record: Record | Onlooker, ranks: Ranks, error: Exception, language: str) -> Exception:
    """Put down how a run ended; gives what to raise."""
    ours = error if isinstance(error, MingshiError) else _out_of_memory(error, recipe, ranks)
    status = {5: "diverged", 7: "refused", 75: "preempted"}.get(ours.exit_code if ours else 0, "failed")
    told = {"error": str(ours) if ours else f"{type(error).__name__}: {error}"}
    record.finish(status, {**record.fields.get("summary", {}), **told})
    if isinstance(record, Record):
        with suppress(Exception):  # what ended the run is what must be told
            _judge(record, diverged=status == "diverged")
            write_report(record.folder, language=language)
    return ours or error


def _out_of_memory(error: Exception, recipe: Recipe, ranks: Ranks) -> ResourceError | None:
    """Outside a step, or in one that processes share out: smaller streams are up to whoever reads this."""
    if not is_shortage(error):
        return None
    mend = f"Set `stream` lower (it is {recipe.stream}): it does not change the result. Or train with an adapter."
    if ranks.count > 1 and not ranks.divided:
        mend += f" Each of the {ranks.count} processes holds the whole network: more of them do not make room."
    return ResourceError("the memory does not suffice for one stream", mend)


def _finished(run: Run, display: Display, language: str, ranks: Ranks) -> Outcome:
    from mingshi.use import open_model

    display.say("This run is finished: there is nothing left to do")
    if ranks.first:
        sweep(run.folder)
        write_report(run.folder, language=language)  # the process that finished may have been killed before this
    return Outcome(folder=run.folder, status="done", scores=recorded_scores(run), model=open_model(run.folder))


def _run(recipe: Recipe, record: Record | Onlooker, stop: Asked, display: Display, ranks: Ranks) -> Outcome:
    display.say(f"Loading {recipe.model}")
    recipe, interpreter = settled(recipe), memory.resident()
    local = isinstance(resolve(recipe.model), Path)
    opened_as = sharding.first_opened(recipe, ranks)
    model = open_for(opened_as) if local else ranks.in_turn(lambda: open_for(opened_as))
    require_fitting(recipe, model.text)
    stages = ranks.in_turn(lambda: [prepare(stage, recipe, model.text, display) for stage in recipe.stages])
    recipe = sharding.fitted(recipe, model, stages, record, display, interpreter=interpreter, ranks=ranks)
    context = Context(recipe, model, record, stop, display, ranks)
    suite = Suite(recipe, model, ranks.in_turn(lambda: subjects(recipe, model.text, display)), record, display)
    ledger = [entry for prepared in stages for entry in prepared.ledger] + suite.ledger
    refuse_second_readings(ledger)
    if isinstance(record, Record):
        _record_start(context, record, stages, ledger)
    record.truncate_after(*_resume_point(record, len(stages)))
    ranks.lent(suite.before)
    lessons = Lessons(recipe, model, record, display, ranks, suite, stages)
    standings = []
    for number in range(len(stages)):
        standings.append(_train_stage(context, number, lessons))
        if not lessons.passed(number, standings[-1].best_step):
            break
    if isinstance(record, Record):
        _judge(record)
        for fit in filter(None, verdicts(read_run(record.folder))):
            display.say(f"fit: {fit['verdict'].replace('_', ' ')}. {fit['said']['en']} {fit['next']['en']}")
    if model.changed:
        fold(model)  # an adapter saved alone would lose what was merged before it, so the whole model is
    ranks.lent(lambda: suite.after(standings[-1].best_step, validation=stages[-1].validation))
    if ranks.first:
        _publish(context)
    if isinstance(record, Record) and (forgetting := suite.forgetting()):
        record.update(forgetting=forgetting)
    differences = {name: as_json(score) for name, score in suite.differences().items()}
    summary = {"stages": [asdict(standing) for standing in standings], "differences": differences}
    lessons.require_passed(summary)
    record.finish("done", summary)
    return Outcome(folder=record.folder, status="done", scores=suite.scores(), model=model)


def _train_stage(context: Context, number: int, lessons: Lessons) -> Standing:
    """Train one stage from its last checkpoint, or from the start, and leave the model with its best weights."""
    recipe, model, record = context.recipe, context.model, context.record
    stage, prepared = recipe.stages[number], lessons.begin(number)
    attached = lessons.held(number, stage.adapter.attach(model, seed=recipe.seed))
    if context.ranks.divided:
        sharding.borrow(model.network)
    held = _companion(context, stage.objective, prepared.validation)
    work = _work(context, stage, prepared, attached)
    trained = lessons.anchored(number, work)
    folder = record.folder / "checkpoints" / f"stage-{number}"
    origin = _origin(context, stage, prepared.validation)
    standing = _restore(context, work, folder)
    watch = _watch(context, number, prepared, held, work, origin)
    if standing.steps == 0 and len(prepared.validation):
        watch.begin()
    for step in () if standing.stopped_early else train(trained, start=standing.steps):
        standing.steps = step.number
        record.write_step(step, stage=number)
        context.display.step(step, work.plan.steps)
        memory.note_smaller(record, context.display, step, stage=number)
        measured = len(prepared.validation) > 0 and _due(stage.evaluate, step.number, work.plan)
        if measured:
            watch.measure(standing)
        if measured or context.stop.requested or _due(stage.checkpoint, step.number, work.plan):
            _save(context, work, folder, standing)
        if context.stop.requested:
            raise Preempted(f"stopped after step {step.number} of {work.plan.steps}", "Go on with --resume.")
        if standing.stopped_early:
            break
    memory.note_peak(record, stage=number, device=model.device)
    _keep_best(context, work, folder, standing)
    hand_back()
    return standing


def _judge(record: Record, *, diverged: bool = False) -> None:
    """Put down whether each stage overfits, as far as it was measured."""
    run = read_run(record.folder)
    record.update(fit=fits(run.evals, run.data.get("stages", ()), diverged=diverged))


def _companion(context: Context, objective: Objective, samples: Joined) -> Any:
    """What the objective wants beside the network for these samples; the network must be as the stage begins."""
    if not len(samples):
        return None
    folder, budget = cache_root() / "companions", context.recipe.budget
    model, display = context.model, context.display
    return context.ranks.in_turn(
        lambda: objective.companion(model, samples, folder=folder, budget=budget, display=display)
    )


def _work(context: Context, stage: Stage, prepared: Prepared, attached: Attached) -> Work:
    rate, reason = stage.default_learning_rate()
    if stage.optim.learning_rate is None:
        context.display.say(f"Learning rate {rate:g}: {reason}")
    network = context.model.network
    trains, whole = trainable(network)
    context.display.say(f"{trains:,} of {whole:,} weights train ({trains / whole:.2%})")
    context.record.update(model=context.record.fields["model"] | {"trainable": trains})
    # A master and two moments in float32 for each number that trains.
    checkpoint.ensure_space(context.record.folder, bytes=12 * trains, keep=context.recipe.keep + 1)
    return Work(
        network=network,
        objective=stage.objective,
        companion=_companion(context, stage.objective, prepared.samples),
        samples=prepared.samples,
        plan=prepared.plan,
        optimiser=Optimiser(network.named_parameters(), stage.optim, rate=attached.rate),
        peak=stage.optim.learning_rate or rate,
        budget=context.recipe.budget,
        device=context.model.device,
        seed=context.recipe.seed,
        adapter=attached,
        ranks=context.ranks,
    )


def _due(every: str | int, step: int, plan: Plan) -> bool:
    """Is something that happens every so many steps, or every epoch, due after this 1-based step? Always at the end."""
    interval = plan.steps_per_epoch if every == "epoch" else int(every)
    return step % interval == 0 or step == plan.steps


def _origin(context: Context, stage: Stage, validation: Joined) -> Origin | None:
    """The network as the stage finds it, where a run that has tasks is to say how far it goes from there."""
    recipe, model = context.recipe, context.model
    if not (recipe.tasks and len(validation) and Chat in stage.objective.accepts):
        return None
    streams = functools.partial(validation_streams, stage.objective, validation, recipe.budget, model.device)
    return context.ranks.lent(lambda: Origin.of(model.network, streams()))


def _watch(context: Context, number: int, prepared: Prepared, held: Any, work: Work, origin: Origin | None) -> Watch:
    """The validation rows, and as many that are trained on."""
    count = len(prepared.validation)
    return Watch(
        model=context.model,
        stage=context.recipe.stages[number],
        number=number,
        record=context.record,
        display=context.display,
        budget=context.recipe.budget,
        validation=prepared.validation,
        held=held,
        sample=training_sample(prepared.samples, work.plan, count=count, seed=context.recipe.seed) if count else (),
        trained=work.companion,
        origin=origin,
        ranks=context.ranks,
    )


def _save(context: Context, work: Work, folder: Path, standing: Standing) -> None:
    """One process writes, when all stand at the same place, and nobody goes on before it is done."""
    context.ranks.agree("standing", asdict(standing))
    if context.ranks.first:
        checkpoint.save(
            folder,
            run=context.record.id,
            step=standing.steps,
            tensors=work.tensors(),
            state={"standing": asdict(standing)},
            keep=context.recipe.keep,
            best=standing.best_step or None,
        )
    context.ranks.exchange(standing.steps)


def _resume_point(record: Record | Onlooker, stages: int) -> tuple[int, int]:
    """Stage and step of the newest whole checkpoint; everything recorded after it will be recorded again."""
    for stage in reversed(range(stages)):
        path, _ = checkpoint.latest(record.folder / "checkpoints" / f"stage-{stage}", run=record.id)
        if path is not None:
            return stage, checkpoint.load(path).step
    return 0, 0


def _restore(context: Context, work: Work, folder: Path) -> Standing:
    """The newest whole checkpoint of this stage put back, bit for bit; a fresh standing where there is none."""
    path, notes = checkpoint.latest(folder, run=context.record.id)
    for note in notes:
        context.display.say(note)
    standing = Standing()
    if path is not None:
        saved = checkpoint.load(path)
        work.restore(saved.tensors)
        standing = Standing(**saved.state["standing"])
        context.display.say(f"Resuming after step {standing.steps} of {work.plan.steps}")
    context.ranks.agree("checkpoint", standing.steps)
    if context.ranks.count > 1:
        context.ranks.agree("network", work.fingerprint())
    return standing


def _keep_best(context: Context, work: Work, folder: Path, standing: Standing) -> None:
    """Put the weights of the best validation score back, where they are not the last ones; nothing is saved after."""
    best_step = standing.best_step or None
    if context.ranks.first:
        checkpoint.tidy(folder, run=context.record.id, step=standing.steps, keep=context.recipe.keep, best=best_step)
    if standing.best_step in (0, standing.steps):
        return
    best = checkpoint.load(folder / f"step-{standing.best_step:08d}")
    work.restore_weights(best.tensors)
    context.display.say(f"Best weights restored: step {standing.best_step}")


def _record_start(
    context: Context, record: Record, stages: Sequence[Prepared], ledger: Sequence[Mapping[str, Any]]
) -> None:
    """What is known before the first step: rows, tokens, findings, the model."""
    recipe, model = context.recipe, context.model
    facts = model_facts(model)
    if record.resumed:
        refuse_changes(record, sources=ledger, model=facts)
    told_stages = [prepared.summary(stage.objective) for prepared, stage in zip(stages, recipe.stages, strict=True)]
    record.write_json("data.json", {"sources": ledger, "stages": told_stages})
    findings = [finding for prepared in stages for finding in prepared.findings]
    findings += health.findings(recipe, ledger, context.display)
    record.write_json("findings.json", [asdict(finding) for finding in findings])
    record.update(name=record.folder.resolve().name, model=facts, device=model.device)
    if context.ranks.count > 1:
        record.update(processes=context.ranks.count)
    for note in model.notes:
        context.display.say(note)
    for entry in ledger:
        context.display.say(counted(entry))
    for finding in findings:
        if finding.severity != "note":
            context.display.say(f"warning: {finding.message}. {finding.remedy}")


def model_facts(model: Model) -> dict[str, Any]:
    return {
        "name": model.name,
        "parameters": sum(parameter.numel() for parameter in model.network.parameters()),
        "precision": str(model.network.dtype).removeprefix("torch."),
        "packed": model.packs,
        "template": model.template.name,
        "template_sha256": model.template.fingerprint,
        "files": hash_folder(model.folder, ("*.safetensors", "*.json", "*.jinja")) if model.folder else {},
    }


def _publish(context: Context) -> None:
    """The trained model or adapter, in a folder that proves itself."""
    model, record, recipe = context.model, context.record, context.recipe
    facts = {"run": record.id, "base": recipe.model, "kind": "adapter" if model.adapter is not None else "model"}
    export.save(
        model, record.folder / facts["kind"], facts=facts, card=model_card(recipe, record.folder, kind=facts["kind"])
    )
