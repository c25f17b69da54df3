"""What is said of rows that were lost before training."""

from __future__ import annotations

import numpy as np

from mingshi.checks.tokens import check_tokens


def test_the_remedy_for_lost_rows_is_the_one_that_their_objective_gave() -> None:
    """Pairs are never cut: they are not to be advised to be."""
    lost = {
        "source": "pairs.jsonl",
        "line": 3,
        "reason": "too_long",
        "detail": "900 tokens of prompt and both answers, over max_length 512. Raise objective.max_length.",
    }
    entry = {"path": "pairs.jsonl", "rows": 10, "rejected": {"too_long": 1}, "examples": [lost]}
    (finding,) = check_tokens(np.array([12, 40]), [entry], max_length=512)
    assert finding.remedy == "Raise objective.max_length."
    assert (finding.kind, finding.count, finding.severity) == ("too_long", 1, "warning")
    assert finding.rows == [{"source": "pairs.jsonl", "line": 3}]
