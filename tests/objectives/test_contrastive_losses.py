"""Losses of pictures and texts against open_clip's formulae, written out here in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import cross_entropy, logsigmoid, normalize

from mingshi.objectives import contrastive_losses as losses

N, E = 7, 5


def space(seed: int = 0, count: int = N) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, count, E, generator=generator, dtype=torch.float64)
    image, text = (normalize(one, dim=1).requires_grad_() for one in drawn)
    return image, text


def distinct(count: int = N):
    return losses.alike(torch.arange(count))


@pytest.mark.parametrize("shared", ["positive", "mask", "negative"])
def test_infonce_of_distinct_rows_is_clips(shared: losses.Same) -> None:
    """open_clip's ClipLoss: the mean of two cross-entropies to the diagonal."""
    image, text = space()
    log_scale = torch.tensor(math.log(1 / 0.07), dtype=torch.float64)
    logits = log_scale.exp() * image @ text.T
    own = torch.arange(N)
    wanted = (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
    found = losses.infonce(image, text, log_scale, distinct(), shared=shared).mean()
    assert float((found - wanted).detach().abs()) < 1e-12
    for one, other in zip(*(torch.autograd.grad(one, (image, text)) for one in (found, wanted)), strict=True):
        assert torch.allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("shared", ["positive", "mask", "negative"])
def test_siglip_of_distinct_rows_is_siglips(shared: losses.Same) -> None:
    """open_clip's SigLipLoss: minus the sum of log-sigmoids of signed logits, over the rows."""
    image, text = space()
    log_scale, bias = torch.tensor(math.log(10), dtype=torch.float64), torch.tensor(-10.0, dtype=torch.float64)
    logits = log_scale.exp() * image @ text.T + bias
    signs = 2 * torch.eye(N, dtype=torch.float64) - 1
    wanted = -logsigmoid(signs * logits).sum() / N
    found = losses.siglip(image, text, log_scale, bias, distinct(), shared=shared).mean()
    assert float((found - wanted).detach().abs()) < 1e-12


def test_the_cosine_baseline_is_torchs_with_one_other_text_for_each_picture() -> None:
    image, text = space()
    other = losses.shuffled(N, torch.device("cpu"))
    pairs = torch.cat([image, image]), torch.cat([text, text[other]])
    targets = torch.tensor([1.0] * N + [-1.0] * N)
    wanted = torch.nn.CosineEmbeddingLoss(margin=0.1)(*pairs, targets)
    found = losses.cosine(image, text, other, distinct(), shared="negative", margin=0.1).mean()
    assert float((found - wanted).detach().abs()) < 1e-12


@pytest.mark.parametrize("count", [2, 3, 50])
def test_a_shuffle_leaves_no_row_in_its_place(count: int) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        other = losses.shuffled(count, torch.device("cpu"))
        assert sorted(other.tolist()) == list(range(count))
        assert not bool((other == torch.arange(count)).any())


def test_rows_with_one_text_are_alike() -> None:
    """Two rows of one text: positive has the gradient of the cross-entropy to equal shares, mask none of the other."""
    image, text = space()
    with torch.no_grad():
        text[1] = text[0]
    log_scale = torch.tensor(1.0, dtype=torch.float64)
    same = losses.alike(torch.tensor([0, 0, 2, 3, 4, 5, 6]))
    logits = log_scale.exp() * image @ text.T
    shares = torch.eye(N, dtype=torch.float64)
    shares[:2, :2] = 0.5
    wanted = (cross_entropy(logits, shares) + cross_entropy(logits.T, shares)) / 2
    found = losses.infonce(image, text, log_scale, same, shared="positive").mean()
    for one, other in zip(*(torch.autograd.grad(one, (image, text)) for one in (found, wanted)), strict=True):
        assert torch.allclose(one, other, atol=1e-12)
    assert float((wanted - found).detach()) == pytest.approx(2 * math.log(2) / N)  # the shares' own entropy
    held = torch.full_like(logits, 0.0)
    held[0, 1] = held[1, 0] = -math.inf
    own = torch.arange(N)
    wanted = (cross_entropy(logits + held, own) + cross_entropy(logits.T + held, own)) / 2
    found = losses.infonce(image, text, log_scale, same, shared="mask").mean()
    assert float((found - wanted).detach().abs()) < 1e-12
    told_apart = losses.infonce(image, text, log_scale, same, shared="negative").mean()
    assert float(told_apart.detach()) > float(found.detach())


def test_siglip_leaves_out_what_is_masked_and_turns_what_is_positive() -> None:
    image, text = space()
    log_scale, bias = torch.tensor(1.0, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64)
    same = losses.alike(torch.tensor([0, 0, 2, 3, 4, 5, 6]))
    logits = (log_scale.exp() * image @ text.T + bias).detach()
    whole = {
        name: losses.siglip(image, text, log_scale, bias, same, shared=name).sum().detach()
        for name in ("positive", "mask", "negative")
    }  # type: ignore[arg-type]
    cells = [logits[0, 1], logits[1, 0]]
    assert float(whole["negative"] - whole["mask"]) == pytest.approx(-sum(float(logsigmoid(-one)) for one in cells))
    assert float(whole["positive"] - whole["mask"]) == pytest.approx(-sum(float(logsigmoid(one)) for one in cells))


@pytest.mark.parametrize("shared", ["positive", "mask", "negative"])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, shared: losses.Same) -> None:
    image, text = space(count=11)
    log_scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-2.0, dtype=torch.float64)
    same = losses.alike(torch.tensor([0, 0, 2, 3, 4, 5, 6, 2, 8, 9, 10]), torch.tensor([*range(9), 3, 3]))
    found = []
    for size in (4096, 3):
        monkeypatch.setattr(
            losses, "blocks", lambda count, size=size: [slice(s, min(s + size, count)) for s in range(0, count, size)]
        )
        total = losses.infonce(image, text, log_scale, same, shared=shared).sum()
        total = total + losses.siglip(image, text, log_scale, bias, same, shared=shared).sum()
        found.append((total, *torch.autograd.grad(total, (image, text, log_scale))))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


def test_equal_rows_twice_change_nothing() -> None:
    image, text = space()
    log_scale = torch.tensor(1.0, dtype=torch.float64)
    once = losses.infonce(image, text, log_scale, distinct(), shared="positive")
    twice = losses.infonce(
        torch.cat([image, image]),
        torch.cat([text, text]),
        log_scale,
        losses.alike(torch.arange(N).repeat(2)),
        shared="positive",
    )
    assert torch.allclose(twice, once.repeat(2), atol=1e-12)
