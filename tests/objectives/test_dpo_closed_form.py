"""In a world small enough to solve, DPO finds what it is known to seek: `ref(y|x) exp(r(x, y) / beta)`, normalised.

Rafailov et al. 2023, equation 4. Rewards are known, and people choose by them as Bradley and Terry (1952) say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mingshi.display import Silent
from mingshi.model import attention
from mingshi.objectives import Dpo
from mingshi.objectives.dpo import pair
from mingshi.types import Rendered, Sample

PROMPTS, ANSWERS = 4, 12  # a prompt and an answer are one token each
COMPARISONS = 400_000  # of each prompt
BETA = 0.5


class Last(torch.nn.Module):
    """The last token as a vector with a one in its place."""

    def forward(self, *, input_ids: torch.Tensor, **rest: Any) -> Any:
        found = torch.nn.functional.one_hot(input_ids, ANSWERS + PROMPTS).float()
        return SimpleNamespace(last_hidden_state=found)


class Table(torch.nn.Module):
    """A language model whose next token depends on the last one alone: its head's weight is a table of logits."""

    def __init__(self, logits_AP: torch.Tensor):
        torch.nn.Module.__init__(self)
        self.base_model = Last()
        self.head = torch.nn.Linear(ANSWERS + PROMPTS, ANSWERS, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()[:, ANSWERS:] = logits_AP
        told: dict[str, Any] = {}
        text = SimpleNamespace(to_dict=lambda: told)
        self.config = SimpleNamespace(
            _attn_implementation=attention.NAME, get_text_config=lambda: text, to_diff_dict=lambda: told
        )
        self.dtype, self.device = torch.float32, torch.device("cpu")

    def get_output_embeddings(self) -> torch.nn.Linear:
        return self.head

    def log_policy(self) -> torch.Tensor:
        """`[A, P]`: log-probability of each answer to each prompt."""
        return self.head.weight[:, ANSWERS:].detach().double().log_softmax(dim=0)


def rendered(prompt: int, answer: int) -> Rendered:
    return Rendered(tokens=(ANSWERS + prompt, answer), weights=(0.0, 1.0), reasons=("", ""))


def comparisons(reference_AP: torch.Tensor, reward_AP: torch.Tensor, *, flipped: float) -> Iterator[tuple[Sample, int]]:
    """Each pair of answers drawn from the reference, and how often the first was chosen; a share is turned round."""
    generator = np.random.default_rng(0)
    for prompt in range(PROMPTS):
        odds = reference_AP[:, prompt].double().softmax(0).numpy()
        drawn = generator.choice(ANSWERS, size=(COMPARISONS, 2), p=odds / odds.sum())
        first, second = drawn[drawn[:, 0] != drawn[:, 1]].T
        reward = reward_AP[:, prompt].double().numpy()
        wins = generator.random(len(first)) < 1 / (1 + np.exp(reward[second] - reward[first]))
        wins ^= generator.random(len(first)) < flipped
        counts = np.zeros((ANSWERS, ANSWERS), dtype=np.int64)
        np.add.at(counts, (np.where(wins, first, second), np.where(wins, second, first)), 1)
        for chosen, rejected in zip(*np.nonzero(counts), strict=True):
            sample = pair(
                rendered(prompt, int(chosen)), rendered(prompt, int(rejected)), f"{prompt}:{chosen}>{rejected}"
            )
            yield sample, int(counts[chosen, rejected])


def correlation(one_AP: torch.Tensor, other_AP: torch.Tensor) -> float:
    """Of what is left of each prompt's log-probabilities without their mean."""
    left, right = (table - table.mean(dim=0) for table in (one_AP, other_AP))
    return float((left * right).sum() / (left.norm() * right.norm()))


@pytest.mark.parametrize(
    "settings", [{}, {"label_smoothing": 0.2, "loss_type": "robust"}], ids=["told", "a fifth flipped"]
)
def test_dpo_recovers_the_policy_that_the_rewards_ask_for(settings: dict[str, Any], tmp_path: Path) -> None:
    """With a fifth of the choices turned round, robust DPO finds the same policy."""
    torch.manual_seed(1)
    reference_AP, reward_AP = 0.7 * torch.randn(ANSWERS, PROMPTS), torch.randn(ANSWERS, PROMPTS)
    told = list(comparisons(reference_AP, reward_AP, flipped=settings.get("label_smoothing", 0.0)))
    samples = [replace(sample, row=row) for row, (sample, _) in enumerate(told)]
    network = Table(reference_AP)
    objective = Dpo(beta=BETA, **settings)
    beside = objective.companion(
        SimpleNamespace(network=network), samples, folder=tmp_path, budget=1 << 20, display=Silent()
    )
    batch = objective.collate(samples, "cpu")
    counts = torch.tensor([count for _, count in told], dtype=torch.float32)
    batch = replace(batch, parts=counts, weight=float(counts.sum()))  # a pair that came so many times

    search = torch.optim.LBFGS([network.head.weight], max_iter=60, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss = objective.loss(network, batch, beside).sum / batch.weight
        loss.backward()
        return loss

    search.step(closure)
    wanted_AP = (reference_AP + reward_AP / BETA).double().log_softmax(dim=0)
    found_AP = network.log_policy()
    assert correlation(found_AP, wanted_AP) >= 0.99
    divergence_P = (wanted_AP.exp() * (wanted_AP - found_AP)).sum(dim=0)
    assert float(divergence_P.max()) <= 0.01
    assert correlation(reference_AP.double().log_softmax(dim=0), wanted_AP) < 0.9, "it was to be learnt"
