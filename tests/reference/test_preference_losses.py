"""Preference losses and their gradients against TRL's own trainers, on given log-probabilities and whole networks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from networks import network
from tiny import tiny_tokenizer

from mingshi.display import Silent
from mingshi.model import logprob
from mingshi.model.reference import Reference
from mingshi.objectives import Dpo
from mingshi.objectives.dpo import pair
from mingshi.types import Batch, Rendered, Sample

pytest.importorskip("trl", reason="TRL is a development dependency: requirements/dev.txt")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")  # TRL's own

VOCABULARY = 97
LENGTHS = [(5, 9, 4), (3, 4, 12), (8, 7, 7), (2, 1, 6), (6, 15, 2)]  # prompt, chosen, rejected
EXACT = 1e-6
NETWORK = 2e-6  # two ways of computing one attention in float32
LOSSES: dict[str, dict[str, Any]] = {
    "dpo": {"loss_type": "sigmoid", "beta": 0.3},
    "ipo": {"loss_type": "ipo", "beta": 0.3},
    "hinge": {"loss_type": "hinge", "beta": 0.3},
    "robust": {"loss_type": "robust", "beta": 0.3, "label_smoothing": 0.2},
    "length-normalised": {"loss_type": "sigmoid_norm", "beta": 3.0},
}
every_dpo_loss = pytest.mark.parametrize("settings", LOSSES.values(), ids=LOSSES)


def rendered(prompt: Sequence[int], answer: Sequence[int]) -> Rendered:
    weights = (0.0,) * len(prompt) + (1.0,) * len(answer)
    return Rendered(tokens=(*prompt, *answer), weights=weights, reasons=("",) * len(weights))


def texts(*, prompt_tokens: int | None = None) -> list[tuple[list[int], list[int], list[int]]]:
    generator = np.random.default_rng(5)
    return [
        tuple(generator.integers(0, VOCABULARY, length).tolist() for length in (prompt_tokens or prompt, *answers))
        for prompt, *answers in LENGTHS
    ]


def samples_of(rows: Sequence[Any]) -> list[Sample]:
    made = [pair(rendered(prompt, chosen), rendered(prompt, rejected), "") for prompt, chosen, rejected in rows]
    return [replace(sample, row=place, id=str(place)) for place, sample in enumerate(made)]


@pytest.fixture(scope="module")
def dpo_trainer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """TRL's trainer as a user makes it, with another network as its reference."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")), use_cpu=True, bf16=False, report_to=[], max_length=None
    )
    return DPOTrainer(
        model=network("llama", implementation="sdpa"),
        ref_model=network("llama", implementation="sdpa", seed=1),
        args=arguments,
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}]),
        processing_class=tiny_tokenizer(),
    )


def inputs_of(trainer: Any, rows: Sequence[Any]) -> dict[str, torch.Tensor]:
    collated: dict[str, torch.Tensor] = trainer.data_collator(
        [{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected} for prompt, chosen, rejected in rows]
    )
    return collated


def set_loss(trainer: Any, settings: dict[str, Any]) -> None:
    trainer.loss_types = [settings["loss_type"]]
    trainer.beta = settings["beta"]
    trainer.label_smoothing = settings.get("label_smoothing", 0.0)


class Given:
    """Log-probabilities in float64 for every token of every answer, as TRL's padded rows and as our predictions."""

    def __init__(self, rows: Sequence[Any], seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.answers = [
            [-3 * torch.rand(len(answer), generator=generator, dtype=torch.float64) for answer in row[1:]]
            for row in rows
        ]
        self.prompts = [len(row[0]) for row in rows]

    def padded(self, columns: int) -> torch.Tensor:
        """`[2 N, columns - 1]`: chosen first; column `i` is the token after position `i`."""
        grid = torch.zeros(2 * len(self.answers), columns - 1, dtype=torch.float64)
        for place, (answers, prompt) in enumerate(zip(self.answers, self.prompts, strict=True)):
            for side, answer in enumerate(answers):
                grid[side * len(self.answers) + place, prompt - 1 : prompt - 1 + len(answer)] = answer
        return grid

    def flat(self) -> torch.Tensor:
        """`[M]` in the order of our predictions."""
        return torch.cat([torch.cat(answers) for answers in self.answers])


@every_dpo_loss
def test_losses_and_gradients_are_trls_own_for_the_same_log_probabilities(
    settings: dict[str, Any], dpo_trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = texts()
    policy, frozen = Given(rows, 1), Given(rows, 2)
    batch = inputs_of(dpo_trainer, rows)
    columns = batch["input_ids"].shape[1]
    theirs = policy.padded(columns).requires_grad_()

    def answering(values: torch.Tensor) -> Any:
        blank = torch.zeros_like(values)
        said = SimpleNamespace(log_probs=values, entropy=blank, mean_logits=blank, is_top1=blank.bool())
        return lambda **inputs: said

    set_loss(dpo_trainer, settings)
    monkeypatch.setattr(dpo_trainer, "ref_model", answering(frozen.padded(columns)))
    wanted = dpo_trainer._compute_loss(answering(theirs), batch, False)
    wanted.backward()

    ours = policy.flat().requires_grad_()
    found = loss_of(Dpo(**settings), rows, ours, frozen.flat(), monkeypatch)
    found.backward()
    assert float(found) == pytest.approx(float(wanted), abs=EXACT)
    assert ours.grad is not None and theirs.grad is not None
    assert bool(ours.grad.any())
    agree(by_side(ours.grad, rows), padded_by_side(theirs.grad, rows))


def loss_of(
    objective: Dpo,
    rows: Sequence[Any],
    logp_M: torch.Tensor,
    reference_M: torch.Tensor | None,
    monkeypatch: pytest.MonkeyPatch,
) -> torch.Tensor:
    """Our mean loss of a pair where the network gives these log-probabilities."""
    batch = objective.collate(samples_of(rows), "cpu")
    monkeypatch.setattr(logprob, "token_log_probabilities", lambda net, streams: logp_M)
    beside = None
    if reference_M is not None:
        ends = np.cumsum([0] + [len(chosen) + len(rejected) for _, chosen, rejected in rows])
        beside = Reference(reference_M.numpy(), ends)
    return objective.loss(None, batch, beside).sum / batch.weight


def by_side(values_M: torch.Tensor, rows: Sequence[Any]) -> list[torch.Tensor]:
    sizes = [len(answer) for row in rows for answer in row[1:]]
    return list(values_M.split(sizes))


def padded_by_side(grid: torch.Tensor, rows: Sequence[Any]) -> list[torch.Tensor]:
    found = []
    for place, (prompt, *answers) in enumerate(rows):
        for side, answer in enumerate(answers):
            found.append(grid[side * len(rows) + place, len(prompt) - 1 : len(prompt) - 1 + len(answer)])
    return found


def agree(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor]) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=EXACT)


@every_dpo_loss
def test_with_whole_networks_too(settings: dict[str, Any], dpo_trainer: Any) -> None:
    """Packed with a shared prompt against padded rows; the reference is another network in both."""
    from mingshi.model.reference import reference_log_probabilities

    rows = texts()
    set_loss(dpo_trainer, settings)
    model = dpo_trainer.model.train()
    model.zero_grad()
    wanted = dpo_trainer._compute_loss(model, inputs_of(dpo_trainer, rows), False)
    wanted.backward()

    objective, samples = Dpo(**settings), samples_of(rows)
    ours = network("llama").requires_grad_(True)
    beside = reference_log_probabilities(
        network("llama", seed=1), samples, folder=Path(dpo_trainer.args.output_dir), budget=64, display=Silent()
    )
    batch = objective.collate(samples, "cpu")
    found = objective.loss(ours, batch, beside).sum / batch.weight
    found.backward()
    assert float(found) == pytest.approx(float(wanted), rel=NETWORK)
    same_gradients(ours, model)


def same_gradients(ours: Any, theirs: Any) -> None:
    wanted = dict(theirs.named_parameters())
    gaps, norms = [], []
    for name, one in ours.named_parameters():
        assert one.grad is not None and float(one.grad.norm()) > 0
        gaps.append(float((one.grad - wanted[name].grad).norm()))
        norms.append(float(wanted[name].grad.norm()))
        assert gaps[-1] <= 3 * NETWORK * norms[-1], name
    assert math.hypot(*gaps) <= NETWORK * math.hypot(*norms)  # 9.5e-7 at most where this was written


# The losses without a reference


def bare(kind: type, **fields: Any) -> Any:
    """One of TRL's trainers with what its loss reads, and no training around it."""
    from accelerate import Accelerator

    trainer = object.__new__(kind)
    common = {"accelerator": Accelerator(cpu=True), "is_encoder_decoder": False, "aux_loss_enabled": False}
    vars(trainer).update(
        common | {"pad_token_id": 0, "padding_value": 0, "label_smoothing": 0.0, "alpha": 0.0} | fields
    )
    vars(trainer)["_stored_metrics"] = defaultdict(lambda: defaultdict(list))
    return trainer


def simpo_trainer(**fields: Any) -> Any:
    from trl.experimental.cpo import CPOTrainer

    return bare(CPOTrainer, loss_type="simpo", cpo_alpha=0.0, **fields)


def orpo_trainer(**fields: Any) -> Any:
    from trl.experimental.orpo import ORPOTrainer

    return bare(ORPOTrainer, **fields)


def concatenated(rows: Sequence[Any]) -> dict[str, torch.Tensor]:
    """TRL's older batch: each side padded, with labels on the answers alone."""
    found = {}
    for side, name in ((1, "chosen"), (2, "rejected")):
        longest = max(len(row[0]) + len(row[side]) for row in rows)
        grids: dict[str, list[list[int]]] = defaultdict(list)
        for row in rows:
            tokens, padding = [*row[0], *row[side]], longest - len(row[0]) - len(row[side])
            grids["input_ids"].append(tokens + [0] * padding)
            grids["attention_mask"].append([1] * len(tokens) + [0] * padding)
            grids["labels"].append([-100] * len(row[0]) + list(row[side]) + [-100] * padding)
        found |= {f"{name}_{kind}": torch.tensor(grid) for kind, grid in grids.items()}
    return found


def means(rows: Sequence[Any], values_M: torch.Tensor) -> Iterator[torch.Tensor]:
    """Mean log-probability of each side's answers, as TRL's loss functions take them."""
    by_answer = torch.stack([answer.mean() for answer in by_side(values_M, rows)]).view(-1, 2)
    yield from by_answer.unbind(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.15])
def test_simpo_and_its_gradient_are_trls_own(smoothing: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = texts()
    values = Given(rows, 1).flat()
    theirs, ours = values.clone().requires_grad_(), values.clone().requires_grad_()
    trainer = simpo_trainer(beta=2.5, simpo_gamma=1.4)
    trainer.label_smoothing = smoothing
    losses, *rewards = trainer.cpo_loss(*means(rows, theirs))
    losses.mean().backward()
    objective = Dpo(loss_type="simpo", beta=2.5, gamma=1.4, label_smoothing=smoothing)
    found = loss_of(objective, rows, ours, None, monkeypatch)
    found.backward()
    assert float(found) == pytest.approx(float(losses.mean()), abs=EXACT)
    agree([ours.grad], [theirs.grad])
    sums = objective.measure(None, objective.collate(samples_of(rows), "cpu"), None)
    agree([sums["reward_chosen"].detach(), sums["reward_rejected"].detach()], rewards)


@pytest.mark.parametrize("nearness", [1.0, 1e-4])  # of the likelihoods to one, where odds are hard to compute
def test_orpos_odds_ratio_and_its_gradient_are_trls_own(nearness: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL takes its likelihood term over the prompt too; here it is the paper's, over the answer: see the next test."""
    rows = texts()
    values = Given(rows, 1).flat() * nearness
    theirs, ours = values.clone().requires_grad_(), values.clone().requires_grad_()
    chosen, rejected = means(rows, theirs)
    wanted = (-chosen - float32_free(orpo_trainer(beta=0.4), chosen, rejected)).mean()
    wanted.backward()
    found = loss_of(Dpo(loss_type="orpo", beta=0.4), rows, ours, None, monkeypatch)
    found.backward()
    assert float(found) == pytest.approx(float(wanted), abs=EXACT)
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-5, atol=EXACT)


def float32_free(trainer: Any, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """TRL's own `beta log sigma(log odds ratio)`, with its casts to float32 left out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", lambda self: self)
        found: torch.Tensor = trainer.odds_ratio_loss(chosen, rejected)[0]
    return found


def test_simpo_with_whole_networks_too() -> None:
    rows = texts()
    theirs = network("llama", implementation="sdpa").requires_grad_(True)
    wanted, _ = simpo_trainer(beta=2.5, simpo_gamma=1.4).get_batch_loss_metrics(theirs, concatenated(rows))
    wanted.backward()
    ours = network("llama").requires_grad_(True)
    objective = Dpo(loss_type="simpo", beta=2.5, gamma=1.4)
    batch = objective.collate(samples_of(rows), "cpu")
    found = objective.loss(ours, batch, None).sum / batch.weight
    found.backward()
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=NETWORK)
    same_gradients(ours, theirs)


def test_orpo_with_whole_networks_and_its_likelihood_term_too() -> None:
    """Prompts of one token, which nothing predicts, and pairs one by one: TRL's likelihood is then the answers' own."""
    rows = texts(prompt_tokens=1)
    theirs = network("llama", implementation="sdpa").requires_grad_(True)
    trainer = orpo_trainer(beta=0.4)
    wanted = sum(trainer.get_batch_loss_metrics(theirs, concatenated([row]))[0] for row in rows) / len(rows)
    wanted.backward()
    ours = network("llama").requires_grad_(True)
    objective = Dpo(loss_type="orpo", beta=0.4)
    batch = objective.collate(samples_of(rows), "cpu")
    found = objective.loss(ours, batch, None).sum / batch.weight
    found.backward()
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=NETWORK)
    same_gradients(ours, theirs)


def test_conservative_dpo_is_trls_sigmoid_with_smoothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL has it without a reference, which one of even odds is."""
    from trl.experimental.cpo import CPOTrainer

    rows = texts()
    values = Given(rows, 1).flat()
    sums = torch.stack([answer.sum() for answer in by_side(values, rows)]).view(-1, 2)
    trainer = bare(CPOTrainer, loss_type="sigmoid", beta=0.3, cpo_alpha=0.0)
    trainer.label_smoothing = 0.2
    wanted = trainer.cpo_loss(*sums.unbind(1))[0].mean()
    objective = Dpo(loss_type="sigmoid", beta=0.3, label_smoothing=0.2)
    found = loss_of(objective, rows, values, torch.zeros_like(values), monkeypatch)
    assert float(found) == pytest.approx(float(wanted), abs=EXACT)


def collated(batch: Batch) -> int:
    return len(batch.tokens)


def test_our_stream_holds_each_prompt_once() -> None:
    rows = texts()
    batch = Dpo().collate(samples_of(rows), "cpu")
    ends = 2 * len(rows)  # an answer's last token is only predicted
    assert collated(batch) == sum(len(part) for row in rows for part in row) - ends
