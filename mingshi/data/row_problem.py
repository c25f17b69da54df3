"""Why one row cannot be used."""

from __future__ import annotations


class RowProblem(Exception):
    """A row that is left out: a short code that the ledger counts, and a sentence for a person.

    Not a `MingshiError`: one such row does not end a run. Whoever knows the row's file and line makes it a `Reject`.
    """

    def __init__(self, reason: str, detail: str):
        self.reason = reason
        self.detail = detail
        Exception.__init__(self, f"{reason}: {detail}")
