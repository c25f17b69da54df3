"""Which evaluators ask for the run's seed."""

from __future__ import annotations

import pytest

from mingshi.evals import Choice, Evaluator, Generation, Instructions, Perplexity, seed_of


@pytest.mark.parametrize(
    ("evaluator", "seed"),
    [(Perplexity(), 0), (Choice(), 0), (Generation(), 0), (Instructions(), 0), (Generation(temperature=0.7), 5)],
)
def test_the_runs_seed_is_for_answers_that_are_sampled(evaluator: Evaluator, seed: int) -> None:
    assert seed_of(evaluator, 5) == seed
