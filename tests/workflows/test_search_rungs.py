"""Which trials go on, as functions of records: no process is started here."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mingshi.workflows.search_rungs import Trial, best_first, rung_steps, rung_tokens, settled

SHARES = [1 / 9, 1 / 3, 1.0]


def at(number: int, *scores: float, state: str = "open", target: int | None = None) -> Trial:
    reached = len(scores) - 1 if target is None else target
    return Trial(number=number, point={}, scores=scores, target=max(0, reached), state=state)


def carried_out(finals: list[float], *, noise: float, factor: int = 3, seed: int = 0) -> list[Trial]:
    """One worker: the trials one after another, a trial that may go on first; lower is better."""
    drawn = random.Random(seed)
    trials: list[Trial] = []
    while True:
        while True:
            promoted, pruned = settled(trials, planned=len(finals), factor=factor, higher=False)
            for number in promoted:
                trials[number] = replace(trials[number], target=trials[number].target + 1)
            for number in pruned:
                trials[number] = replace(trials[number], state="pruned")
            if not promoted and not pruned:
                break
        wanted = sorted((one for one in trials if one.wanted), key=lambda one: (-one.target, one.number))
        if wanted:
            one = wanted[0]
        elif len(trials) < len(finals):
            one = at(len(trials))
            trials.append(one)
        else:
            return trials
        rung = len(one.scores)
        score = finals[one.number] + (0.0 if rung == 2 else drawn.gauss(0, noise * (2 - rung)))
        scores = (*one.scores, score)
        trials[one.number] = replace(one, scores=scores, state="done" if rung == 2 else "open")


def spent(trials: list[Trial]) -> float:
    """Whole runs."""
    return sum(SHARES[len(trial.scores) - 1] for trial in trials)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_of_many_is_trained_whole_at_less_than_two_fifths_of_the_tokens(seed: int) -> None:
    finals = [random.Random(seed).random() for _ in range(27)]
    trials = carried_out(finals, noise=0.0, seed=seed)
    assert all(trial.state in ("done", "pruned") for trial in trials)
    assert trials[finals.index(min(finals))].state == "done"
    assert best_first(trials, higher=False)[0].number == finals.index(min(finals))
    assert spent(trials) < 0.4 * len(finals)


def test_scores_that_are_noisy_at_a_rung_cost_little() -> None:
    regrets = []
    for seed in range(40):
        finals = [random.Random(seed).random() for _ in range(27)]
        trials = carried_out(finals, noise=0.05, seed=seed)
        best = best_first(trials, higher=False)[0]
        regrets.append(finals[best.number] - min(finals))
    assert sum(regrets) / len(regrets) < 0.05


def test_a_trial_waits_until_it_is_among_the_best_that_have_come() -> None:
    two = [at(0, 1.0), at(1, 2.0)]
    assert settled(two, planned=9, factor=3, higher=False) == ([], [])
    three = [*two, at(2, 3.0)]
    assert settled(three, planned=9, factor=3, higher=False) == ([0], [])
    assert settled(three, planned=9, factor=3, higher=True) == ([2], [])


def test_a_trial_that_can_no_longer_be_among_the_best_is_pruned() -> None:
    trials = [at(number, float(number)) for number in range(5)]
    promoted, pruned = settled(trials, planned=9, factor=3, higher=False)
    assert promoted == [0] and pruned == [3, 4]  # three of nine go on at most


def test_once_all_have_come_one_goes_on_though_they_are_few() -> None:
    trials = [at(0, 2.0), at(1, 1.0)]
    assert settled(trials, planned=2, factor=3, higher=False) == ([1], [0])


def test_a_failed_trial_counts_among_those_that_came_and_is_never_the_best() -> None:
    failed = at(0, 0.5, state="failed", target=1)
    trials = [failed, at(1, 1.0), at(2, 2.0)]
    assert settled(trials, planned=9, factor=3, higher=False) == ([1], [])
    trials += [at(number, 3.0, target=0) for number in (3, 4, 5)]
    assert settled(trials, planned=9, factor=3, higher=False)[0] == [1, 2]
    assert 0 not in [one.number for one in best_first(trials, higher=False)]
    never = [at(0, state="failed"), at(1, state="failed"), at(2, 2.0)]
    assert settled(never, planned=9, factor=3, higher=False) == ([2], [])


def test_rungs_are_tokens_and_a_shorter_trial_is_judged_at_its_end_for_all_that_follow() -> None:
    rungs = rung_tokens(budget=900, shares=SHARES)
    assert rungs == [100, 300, 900]
    assert rung_steps(steps=90, budget=900, rungs=rungs) == (10, 30, 90)
    assert rung_steps(steps=45, budget=450, rungs=rungs) == (10, 30, 45)
    assert rung_steps(steps=45, budget=900, rungs=rungs) == (5, 15, 45)  # of a larger batch
    assert rung_steps(steps=2, budget=900, rungs=rungs) == (1, 1, 2)
    assert rung_steps(steps=100, budget=1000, rungs=rung_tokens(budget=1000, shares=SHARES)) == (11, 33, 100)
