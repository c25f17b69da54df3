"""How much memory a stage takes at its peak, known before it runs, and the streams that fit what is free.

The peak is the end of the forward over the largest stream of any step:

    weights      as they are kept: their type, four bits, the block layouts of frozen ones, adapters
    optimiser    float32 masters and two moments of what trains, and gradients where a step has several streams
    activations  what autograd keeps of that stream (`model/kept.py`), and the head's chunk of logits
    other        the interpreter with its libraries, and what the allocator cannot fill again

Bytes throughout; on CUDA what torch allocates, on the processor what is resident.
"""

from __future__ import annotations

import os
import resource
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mingshi.data.plan import micro_batches
from mingshi.display import Display
from mingshi.errors import ResourceError
from mingshi.model.adapter_targets import linears
from mingshi.model.adapters import Lora, Qlora
from mingshi.model.divergence import AT_ONCE
from mingshi.model.kept import kept_bytes, reshape
from mingshi.model.load import Model, Text, choose_device, choose_precision
from mingshi.model.logprob import CHUNK_BYTES
from mingshi.model.lora_linear import PACKED_BYTES
from mingshi.model.skeleton import skeleton
from mingshi.objectives import Classify, Contrastive, Distill
from mingshi.prepare import Prepared
from mingshi.ranks import Onlooker, Ranks
from mingshi.recipe import Recipe, Stage
from mingshi.record import Record
from mingshi.types import Network, Step

LOOKED_AT = 512  # steps whose streams are compared; a stream is full long before that
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # of one number: four bits, a byte a block, a float for 256 of those
MOST = {"cpu": 4096, "cuda": 16384}  # tokens of a stream that `auto` begins with: longer ones are no faster
SHARE = 0.9  # of the free memory that `auto` plans with
LIBRARIES = 250e6  # what torch, peft and oneDNN load once they compute
# Freed blocks that the next ones do not fit into, as a share of the activations: measured on the processor with
# smollm2-135m in streams of 4096 tokens (benchmarks/notes/2026-11-23-memory.md), most where many sizes are mixed.
HOLES = {"full": 0.10, "qlora": 0.60}
USUAL_HOLES = 0.30
PARTS = ("weights", "optimiser", "activations", "other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Bytes at the peak of one stage."""

    weights: int
    optimiser: int
    activations: int
    other: int
    stream: int  # tokens of one stream at most
    largest: int  # tokens of the stream that takes most

    @property
    def total(self) -> int:
        return self.weights + self.optimiser + self.activations + self.other

    def as_dict(self) -> dict[str, int]:
        return asdict(self) | {"total": self.total}

    def __str__(self) -> str:
        return described(self.as_dict())


def described(told: Mapping[str, int]) -> str:
    """An estimate for a person."""
    parts = ", ".join(f"{name} {gigabytes(told[name])}" for name in PARTS)
    return f"about {gigabytes(told['total'])} GB ({parts}), in streams of {told['stream']} tokens"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Account:
    """What a stage takes whatever its streams are, and what is needed to say the rest."""

    network: Network  # on `meta`, with its adapter
    stage: Stage
    prepared: Prepared
    weights: int
    masters: int  # with moments
    gradients: int  # in float32, summed over streams
    interpreter: int
    device: str
    known: dict[int, Estimate] = field(default_factory=dict)  # by budget: an estimate takes most of a second

    @property
    def longest(self) -> int:
        """Tokens of the longest sample, or of a whole step that may not be cut."""
        lengths = self.prepared.samples.lengths
        if self.stage.objective.additive:
            return int(lengths.max())
        return max(int(lengths[rows].sum()) for rows in self._steps())

    def at(self, budget: int) -> Estimate:
        """With streams of at most so many tokens."""
        if budget not in self.known:
            self.known[budget] = self._estimate(budget)
        return self.known[budget]

    def _estimate(self, budget: int) -> Estimate:
        costs = [self._stream(rows, count) for rows, count in self._largest(budget)]
        activations, gradients, tokens = max(costs, key=lambda cost: cost[0] + cost[1])
        other = self.interpreter
        if self.device == "cpu":
            other += int(LIBRARIES + HOLES.get(self.stage.adapter.kind, USUAL_HOLES) * activations)
        return Estimate(
            weights=self.weights,
            optimiser=self.masters + gradients,
            activations=activations,
            other=other,
            stream=budget,
            largest=tokens,
        )

    def _steps(self) -> list[np.ndarray]:
        plan = self.prepared.plan
        return [plan.indices(step) for step in range(min(plan.steps, LOOKED_AT))]

    def _largest(self, budget: int) -> list[tuple[list[int], int]]:
        """The stream of most tokens and that of most scores, with the number of streams of their step."""
        lengths = self.prepared.samples.lengths.astype(np.int64)
        found: list[tuple[int, int, list[int], int]] = []
        for rows in self._steps():
            cuts = micro_batches(lengths[rows].tolist(), budget)
            if not self.stage.objective.additive:
                cuts = [list(range(len(rows)))]
            for cut in cuts:
                chosen = lengths[rows[cut]]
                found.append((int(chosen.sum()), int((chosen**2).sum()), rows[cut].tolist(), len(cuts)))
        first, second = max(found, key=lambda one: one[0]), max(found, key=lambda one: one[1])
        return [(rows, count) for _, _, rows, count in ([first] if second[2] == first[2] else [first, second])]

    def _stream(self, rows: Sequence[int], count: int) -> tuple[int, int, int]:
        """Activations, gradients that are there beside them, and tokens of one stream."""
        batch = self.stage.objective.collate([self.prepared.samples[row] for row in rows], "cpu")
        head = 0 if isinstance(self.stage.objective, Classify) else self._head(len(batch.target))
        narrow = sum(one.nbytes for one in self.network.parameters() if one.requires_grad)
        # Gradients of one stream stand beside the sums when all activations are gone.
        activations = max(kept_bytes(self.network, batch) + head, narrow)
        return activations, self.gradients if count > 1 else 0, len(batch.tokens)

    def _head(self, predictions: int) -> int:
        """A chunk of logits as it is made, in both precisions, and the gradients that are made of it."""
        linear = self.network.get_output_embeddings()
        vocabulary, width = linear.weight.shape
        size = linear.weight.element_size()
        states = 2 * predictions * width * size
        if isinstance(self.stage.objective, Distill):
            logits = min(predictions, CHUNK_BYTES // (4 * AT_ONCE * vocabulary)) * vocabulary * 4 * 10
        else:
            logits = min(predictions, CHUNK_BYTES // (4 * vocabulary)) * vocabulary * (4 + 2 * size)
        trained = vocabulary * width * (4 + size) if linear.weight.requires_grad else 0
        return int(states + logits + trained)


def account(stage: Stage, recipe: Recipe, text: Text, prepared: Prepared, *, interpreter: int) -> Account:
    """Put together from the model's configuration alone; `interpreter` is what the process took with nothing loaded."""
    first = recipe.stages[0].objective
    classes = first.classes(seed=recipe.seed) if isinstance(first, Classify) else None
    network = skeleton(recipe.model, classes=classes)
    device = choose_device(recipe.device)
    network.to(choose_precision(recipe.precision, device))
    if len(text.tokenizer) > network.get_input_embeddings().weight.shape[0]:
        network.resize_token_embeddings(len(text.tokenizer), mean_resizing=False)
    reshape(network)
    saved = _copies(network, stage, device)
    network = _attached(network, stage, text)
    moved = [one for one in network.parameters() if one.requires_grad]
    wide = 4 * sum(one.numel() for one in moved)
    second = 4 * sum(one.numel() for one in moved if one.dtype != torch.float32)  # a float32 weight is its own master
    return Account(
        network=network,
        stage=stage,
        prepared=prepared,
        weights=sum(one.nbytes for one in [*network.parameters(), *network.buffers()]) + saved,
        masters=2 * wide + second,
        gradients=wide,
        interpreter=0 if device.startswith("cuda") else interpreter,
        device=device,
    )


def _copies(network: Network, stage: Stage, device: str) -> int:
    """Bytes by which the frozen linear layers take more than their weights, or less."""
    layers = linears(network)
    if isinstance(stage.adapter, Qlora):
        return int(sum(NF4_BYTES * one.weight.numel() - one.weight.nbytes for one in layers.values()))
    if not isinstance(stage.adapter, Lora) or stage.adapter.dora or device != "cpu":
        return 0
    weights = [layers[path].weight for path in stage.adapter.places(network) if type(layers[path]) is torch.nn.Linear]
    packed = 2 * sum(weight.nbytes for weight in weights)
    return packed if packed <= PACKED_BYTES and all(one.dtype == torch.bfloat16 for one in weights) else 0


def _attached(network: Network, stage: Stage, text: Text) -> Network:
    """The network with the stage's adapter in it, as far as shapes go."""
    adapter: Any = stage.adapter
    network.requires_grad_(False)
    if isinstance(adapter, Lora):
        adapter = adapter.model_copy(update={"start": "zero"})  # where it starts from takes a decomposition
    if isinstance(adapter, Qlora):
        adapter = Lora(rank=adapter.rank, dropout=adapter.dropout, targets=adapter.targets)
    model = Model(text, network, None)
    with warnings.catch_warnings():  # transformers warns of its own attribute, which peft asks for
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        adapter.attach(model, seed=0)
    if isinstance(stage.adapter, Qlora):  # it goes through peft's own forward
        for module in model.network.modules():
            if "lora_A" in dict(module.named_children()):
                vars(module).pop("forward", None)
    return model.network.to("meta")


def choose(accounts: Sequence[Account], free: int) -> int:
    """Tokens of one stream with which every stage fits into `free` bytes; ResourceError where one sample does not."""
    longest = max(one.longest for one in accounts)
    budget = max(longest, MOST["cpu" if accounts[0].device == "cpu" else "cuda"])
    while True:
        needed = max((one.at(budget) for one in accounts), key=lambda estimate: estimate.total)
        if needed.total <= SHARE * free:
            return budget
        if budget == longest:
            what = f"the longest sample alone, {longest} tokens, needs {needed}; {gigabytes(free)} GB are free"
            mend = "Lower objective.max_length, train with an adapter, or give `stream` a number to try all the same."
            raise ResourceError(what, mend)
        budget = max(longest, budget // 2)


def fitted(
    recipe: Recipe,
    accounts: list[Account] | str,
    record: Record | Onlooker,
    display: Display,
    *,
    free: int,
    ranks: Ranks,
) -> Recipe:
    """The recipe with a number for its streams; what each stage will take is said and put down.

    `free` are the bytes that one process may have. A run that goes on keeps the streams that it chose when it began:
    others would round otherwise.
    """
    began = record.fields.get("memory")
    if recipe.stream == "auto":
        if isinstance(accounts, str):
            raise ResourceError(f"stream: auto knows no measure for this model: {accounts}", "Give `stream` a number.")
        chosen = ranks.told(lambda: began[0]["stream"] if began else choose(accounts, free))
        recipe = recipe.model_copy(update={"stream": chosen})
    if isinstance(accounts, str):
        display.say(f"Memory cannot be estimated for this model: {accounts}")
        return recipe
    estimates = [one.at(recipe.budget) for one in accounts]
    for estimate in estimates:
        display.say(f"Memory{' of each process' if ranks.count > 1 else ''}: {estimate}")
    if isinstance(record, Record) and not began:
        record.update(memory=[{"stream": one.stream, "estimate": one.as_dict()} for one in estimates])
    return recipe


def accounts_of(recipe: Recipe, text: Text, stages: Sequence[Prepared], *, interpreter: int) -> list[Account] | str:
    """One for each stage; a sentence where the model's code cannot be run without weights."""
    if any(isinstance(stage.objective, Contrastive) for stage in recipe.stages):
        return "what an image tower takes is not counted"
    try:
        made = [
            account(stage, recipe, text, prepared, interpreter=interpreter)
            for stage, prepared in zip(recipe.stages, stages, strict=True)
        ]
        for one in made:
            one.at(one.longest if recipe.stream == "auto" else recipe.budget)
    except (AttributeError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:100]}" if str(error) else type(error).__name__
    return made


def note_smaller(record: Record | Onlooker, display: Display, step: Step, *, stage: int) -> None:
    """Say and put down, once, that a step took smaller streams than were asked for."""
    memory = record.fields.get("memory")
    if (
        isinstance(record, Onlooker)
        or not memory
        or step.stream >= memory[stage].get("sufficed", memory[stage]["stream"])
    ):
        return
    display.say(f"Step {step.number}: too little memory. Streams of {step.stream} tokens from here on, same experiment")
    told = {"sufficed": step.stream, "from_step": step.number}
    record.update(memory=[one | told if number == stage else one for number, one in enumerate(memory)])


def note_peak(record: Record | Onlooker, *, stage: int, device: str) -> None:
    """Put down beside a stage's estimate the most that the process has taken until its end."""
    memory = record.fields.get("memory")
    if isinstance(record, Record) and memory:
        told = {"measured": peak(device)}
        record.update(memory=[one | told if number == stage else one for number, one in enumerate(memory)])


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f}"


# What there is


def resident() -> int:
    """Bytes of this process that are in memory now."""
    return _status("VmRSS") or peak("cpu")


def peak(device: str) -> int:
    """The most bytes that this process has had: allocated on CUDA, resident on the processor."""
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    # ru_maxrss is also that of the process which started this one, if that was larger
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _status(name: str) -> int:
    """A line of /proc/self/status in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)


def free_bytes(device: str, *, root: Path = Path("/")) -> int:
    """What this process may have in all: what it has, and what is left under every limit that it stands under."""
    if device.startswith("cuda"):
        free, _ = torch.cuda.mem_get_info()
        return int(free + torch.cuda.memory_reserved())
    return resident() + min([_available(root), *_limits(root)])


def _available(root: Path) -> int:
    """The kernel's own guess at what can be had without swapping."""
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _limits(root: Path) -> list[int]:
    """What is left of every control group around this process (version 2, or 1)."""
    try:
        own = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        return []
    found = []
    for _, controllers, path in own:
        names = (
            ("memory.max", "memory.current") if not controllers else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        place = top / path.lstrip("/")
        for folder in [place, *place.parents]:
            if not folder.is_relative_to(top):
                break
            found += _left(folder, *names)
    return found


def _left(folder: Path, limit: str, usage: str) -> list[int]:
    """A group's limit less its use, file pages that it can let go of not counted; nothing where it has no limit."""
    try:
        most = (folder / limit).read_text().strip()
        if most == "max":
            return []
        told: Mapping[str, str] = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [int(most) - int((folder / usage).read_text()) + int(told.get("inactive_file", 0))]
    except (OSError, ValueError):
        return []
