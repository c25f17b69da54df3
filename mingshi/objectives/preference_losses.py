"""What a pair of answers costs, by each of the losses: pure functions of log-probabilities.

Letters: `N` pairs, `x` a prompt, `w` its chosen answer, `l` its rejected one, `|y|` the tokens of an answer `y`,
`sigma` the logistic function. A difference is the chosen answer's score less the rejected one's; a margin is beta
times a difference.
"""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid

SUREST = -1e-7  # nats a token, nearest to certainty: at certainty itself the odds are infinite


def sigmoid(margin_N: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """`-(1 - e) log sigma(margin) - e log sigma(-margin)`.

    With `margin = beta (log pi(w|x) / ref(w|x) - log pi(l|x) / ref(l|x))`: DPO, Rafailov et al. 2023, equation 7; with
    label smoothing `e` the conservative DPO of Mitchell 2023 ("A note on DPO with noisy preferences"), which takes a
    share `e` of the labels to be wrong. With log-ratios divided by `|y|`: length-normalised DPO, Lambert et al. 2024
    (Tulu 3), equation 6.
    """
    return -(1 - label_smoothing) * logsigmoid(margin_N) - label_smoothing * logsigmoid(-margin_N)


def robust(margin_N: torch.Tensor, *, label_smoothing: float) -> torch.Tensor:
    """`((1 - e) L(margin) - e L(-margin)) / (1 - 2 e)` with `L = -log sigma`, `e` below a half.

    Robust DPO, Chowdhury et al. 2024, equation 12: unbiased where a share `e` of the labels is flipped at random.
    """
    told, flipped = -logsigmoid(margin_N), -logsigmoid(-margin_N)
    return ((1 - label_smoothing) * told - label_smoothing * flipped) / (1 - 2 * label_smoothing)


def hinge(margin_N: torch.Tensor) -> torch.Tensor:
    """`max(0, 1 - margin)`: SLiC, Zhao et al. 2023, equation 1, on DPO's log-ratios (Liu et al. 2024, equation 9)."""
    return torch.relu(1 - margin_N)


def ipo(difference_N: torch.Tensor, *, beta: float) -> torch.Tensor:
    """`(difference - 1 / (2 beta))^2`: IPO, Azar et al. 2023, equation 17, whose tau is beta.

    The difference is that of log-ratios divided by `|y|`: their sums would set the same target for every length.
    """
    return (difference_N - 1 / (2 * beta)) ** 2


def simpo(margin_N: torch.Tensor, *, gamma: float, label_smoothing: float = 0.0) -> torch.Tensor:
    """`-log sigma(beta (log pi(w|x) / |w| - log pi(l|x) / |l|) - gamma)`: SimPO, Meng et al. 2024, equation 6."""
    return sigmoid(margin_N - gamma, label_smoothing=label_smoothing)


def orpo(chosen_N: torch.Tensor, rejected_N: torch.Tensor, *, beta: float) -> torch.Tensor:
    """`-log P(w|x) - beta log sigma(log odds(w|x) - log odds(l|x))`, `odds = P / (1 - P)`, `log P = log pi(y|x) / |y|`.

    ORPO, Hong et al. 2024, equations 4, 6 and 7; beta is their lambda. Takes the mean log-probability of a token in
    each answer. The first term teaches the chosen answer, so no reference and no fine-tuning before it are needed.
    """
    return -chosen_N - beta * logsigmoid(_log_odds(chosen_N) - _log_odds(rejected_N))


def _log_odds(log_probability_N: torch.Tensor) -> torch.Tensor:
    """`log p - log(1 - p)`, exact for small and for large `p`."""
    log_p = log_probability_N.clamp(max=SUREST)
    return log_p - torch.log(-torch.expm1(log_p))
