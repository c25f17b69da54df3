"""Tables of counts, `G` groups by `L` labels in `K` strata: are groups and labels independent, and how far from it.

Rows are taken to be independent of one another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import chdtrc, ndtri
from scipy.stats import random_table

from mingshi.evals import statistics
from mingshi.types import Score

EXPECTED = 5  # in every cell, for the test to be the asymptotic one
DRAWS = 1999  # of tables with the same margins, where a cell expects less
CHUNK = 2_000_000  # cells in memory at a time
CERTAINTY = float(ndtri(0.5 + statistics.LEVEL / 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class Independence:
    """What a table says of independence."""

    g: float  # likelihood ratio
    p: float
    cramers_v: float  # 0 where independent, 1 where the group says the label
    exact: bool  # drawn, and not asymptotic


def independence(table_GL: np.ndarray, *, seed: int = 0) -> Independence:
    """The G test; where a cell expects fewer than 5 rows, among tables drawn with the same margins."""
    table = _kept(table_GL)
    if min(table.shape) < 2:
        return Independence(g=0.0, p=1.0, cramers_v=0.0, exact=False)
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    expected = np.outer(rows, columns) / total
    g = float(_likelihood(table, expected))
    chi = float(((table - expected) ** 2 / expected).sum())
    v = math.sqrt(chi / total / (min(table.shape) - 1))
    exact = bool(expected.min() < EXPECTED)
    if exact:
        p = (1 + np.count_nonzero(_drawn(rows, columns, expected, seed) >= g - 1e-9)) / (DRAWS + 1)
    else:
        p = chdtrc((len(rows) - 1) * (len(columns) - 1), g)
    return Independence(g=g, p=float(p), cramers_v=v, exact=exact)


def _drawn(rows_G: np.ndarray, columns_L: np.ndarray, expected_GL: np.ndarray, seed: int) -> np.ndarray:
    """Statistics `[DRAWS]` of tables with these margins."""
    generator = np.random.default_rng(seed)
    tables = random_table(rows_G.astype(int), columns_L.astype(int))
    step = max(1, CHUNK // expected_GL.size)
    starts = range(0, DRAWS, step)
    drawn = (tables.rvs(min(step, DRAWS - start), random_state=generator) for start in starts)
    return np.concatenate([_likelihood(each, expected_GL) for each in drawn])


def _likelihood(tables: np.ndarray, expected_GL: np.ndarray) -> np.ndarray:
    """Twice the log-likelihood ratio of tables `[..., G, L]`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(tables > 0, tables * np.log(tables / expected_GL), 0.0)
    ratio: np.ndarray = 2 * parts.sum(axis=(-2, -1))
    return ratio


def _kept(table_GL: np.ndarray) -> np.ndarray:
    """Without groups and labels that no row has."""
    table: np.ndarray = np.asarray(table_GL, np.float64)
    kept: np.ndarray = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    return kept


def share_gap(first: tuple[int, int], second: tuple[int, int], *, signature: str) -> Score:
    """The first share less the second, each (successes, rows): the interval of two of Wilson's (Newcombe 1998, 10)."""
    (a, m), (b, n) = first, second
    p, q = a / m, b / n
    low_p, high_p = statistics.wilson(a, m)
    low_q, high_q = statistics.wilson(b, n)
    low = p - q - math.hypot(p - low_p, high_q - q)
    high = p - q + math.hypot(high_p - p, q - low_q)
    return Score(value=p - q, low=low, high=high, count=m + n, signature=signature)


def within_strata(tables_KGL: np.ndarray) -> tuple[float, float]:
    """Generalised Cochran-Mantel-Haenszel statistic of no association inside any stratum, and its p-value (Landis,
    Heyman and Koch 1978): chi-square with (G - 1)(L - 1) degrees of freedom, fewer where strata lack groups or labels.
    """
    kinds, labels = tables_KGL.shape[1] - 1, tables_KGL.shape[2] - 1
    apart, covariance = np.zeros(kinds * labels), np.zeros((kinds * labels, kinds * labels))
    for table in np.asarray(tables_KGL, np.float64):
        total = table.sum()
        if total < 2:
            continue
        rows, columns = table.sum(axis=1), table.sum(axis=0)
        apart += (table - np.outer(rows, columns) / total)[:-1, :-1].ravel()
        spread_rows = (np.diag(rows) * total - np.outer(rows, rows))[:-1, :-1]
        spread_columns = (np.diag(columns) * total - np.outer(columns, columns))[:-1, :-1]
        covariance += np.kron(spread_rows, spread_columns) / (total**2 * (total - 1))
    freedom = int(np.linalg.matrix_rank(covariance, hermitian=True)) if covariance.any() else 0
    if freedom == 0:
        return 0.0, 1.0
    statistic = float(apart @ np.linalg.pinv(covariance, hermitian=True) @ apart)
    return statistic, float(chdtrc(freedom, statistic))


def common_odds(tables_K22: np.ndarray, *, signature: str) -> Score:
    """The odds ratio that strata have in common (Mantel and Haenszel 1959), with the interval of Robins, Breslow and
    Greenland (1986); nan where no stratum compares anything."""
    tables = np.asarray(tables_K22, np.float64)
    tables = tables[tables.sum(axis=(1, 2)) > 0]
    a, b, c, d = tables[:, 0, 0], tables[:, 0, 1], tables[:, 1, 0], tables[:, 1, 1]
    total = tables.sum(axis=(1, 2))
    r, s = a * d / total, b * c / total
    count = int(total.sum())
    if r.sum() == 0 or s.sum() == 0:
        return Score(value=math.nan, low=math.nan, high=math.nan, count=count, signature=signature)
    value = float(r.sum() / s.sum())
    p, q = (a + d) / total, (b + c) / total
    variance = (
        (p * r).sum() / (2 * r.sum() ** 2)
        + (p * s + q * r).sum() / (2 * r.sum() * s.sum())
        + (q * s).sum() / (2 * s.sum() ** 2)
    )
    half = CERTAINTY * math.sqrt(variance)
    return Score(
        value=value, low=value * math.exp(-half), high=value * math.exp(half), count=count, signature=signature
    )


def largest_log_ratio(table_GL: np.ndarray) -> float:
    """The largest log of one group's share of a label over another's; half a row is added to every cell."""
    table = np.asarray(table_GL, np.float64) + 0.5
    shares = np.log(table / table.sum(axis=1, keepdims=True))
    return float((shares.max(axis=0) - shares.min(axis=0)).max())


def impact_ratios(table_GL: np.ndarray) -> np.ndarray:
    """Disparate impact of each label `[L]`: the smallest share among groups over the largest; nan of a label that no
    row has. Below 0.8 the four-fifths rule of US labour law is broken."""
    table = np.asarray(table_GL, np.float64)
    shares = table / table.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        ratios: np.ndarray = shares.min(axis=0) / shares.max(axis=0)
    return ratios
