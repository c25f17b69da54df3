"""Distillation as a plain loop: `python -m benchmarks.peers.plain_distill TASK SETTING`, both JSON.

The teacher is asked at each step. Networks, batches and arithmetic are those that transformers and torch give.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn import functional

from benchmarks.peers.padded import padded
from benchmarks.rows import Row, fingerprint, read_rows
from benchmarks.side import answer
from benchmarks.task import DistillOutcome, DistillTask, LoopSetting, resident_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A micro-batch: `N` rows, `T` columns, `M` targets."""

    tokens_NT: torch.Tensor
    kept_NT: torch.Tensor
    from_NT: torch.Tensor  # where the next token is a target
    target_M: torch.Tensor


def pieces(rows: Sequence[Row], size: int) -> Iterator[Piece]:
    """The rows of a step as padded micro-batches."""
    for start in range(0, len(rows), size):
        tokens_NT, kept_NT, targets_NT = padded(rows[start : start + size])
        from_NT = torch.zeros_like(targets_NT)
        from_NT[:, :-1] = targets_NT[:, 1:]
        yield Piece(tokens_NT, kept_NT, from_NT, tokens_NT[:, 1:][targets_NT[:, 1:]])


def logits(network: Any, piece: Piece, *, selected: bool) -> torch.Tensor:
    """`[M, V]` float32, at the targets; the head runs there alone, or everywhere and the rest is dropped."""
    if not selected:
        every_NTV: torch.Tensor = network(input_ids=piece.tokens_NT, attention_mask=piece.kept_NT).logits
        return every_NTV[piece.from_NT].float()
    hidden_NTW = network.base_model(input_ids=piece.tokens_NT, attention_mask=piece.kept_NT).last_hidden_state
    scores: torch.Tensor = network.get_output_embeddings()(hidden_NTW[piece.from_NT])
    return scores.float()


class Loop:
    """Student, teacher and optimiser."""

    def __init__(self, task: DistillTask, setting: LoopSetting):
        loader: Any = transformers.AutoModelForCausalLM  # its functions carry no types
        self.task, self.setting = task, setting
        attention = setting.attention
        self.student = loader.from_pretrained(task.model, dtype=torch.float32, attn_implementation=attention).train()
        teacher = loader.from_pretrained(task.teacher, dtype=torch.bfloat16, attn_implementation=attention)
        self.teacher = teacher.eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.student.parameters(), lr=task.learning_rate, weight_decay=0.0, fused=True
        )

    def step(self, batch: Sequence[Piece]) -> tuple[float, float]:
        """One update; the loss of the step and the norm of its gradient before clipping."""
        count, total = sum(len(piece.target_M) for piece in batch), 0.0
        for piece in batch:
            with torch.no_grad():
                taught_MV = logits(self.teacher, piece, selected=self.setting.selected).log_softmax(-1)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                own_MV = logits(self.student, piece, selected=self.setting.selected)
            own_MV = own_MV.log_softmax(-1)
            drawn = functional.kl_div(own_MV, taught_MV, reduction="sum", log_target=True)
            nats = functional.nll_loss(own_MV, piece.target_M, reduction="sum")
            loss = (self.task.alpha * drawn + (1 - self.task.alpha) * nats) / count
            torch.autograd.backward(loss)
            total += float(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.student.parameters(), self.task.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return total, float(norm)


def run(task: DistillTask, setting: LoopSetting) -> DistillOutcome:
    """Train and count."""
    rows, loop = read_rows(Path(task.rows)), Loop(task, setting)
    steps = [rows[start : start + task.batch] for start in range(0, len(rows), task.batch)]
    batches = [list(pieces(step, setting.micro_batch)) for step in steps]
    before = {name: weight.detach().clone() for name, weight in loop.student.named_parameters()}
    loaded, times, told = resident_bytes(), [time.perf_counter()], []
    for place in task.order:
        told.append(loop.step(batches[place]))
        times.append(time.perf_counter())
    real = [sum(len(row.tokens) for row in steps[place]) for place in task.order]
    return DistillOutcome(
        fingerprint=fingerprint(seen for batch in batches for piece in batch for seen in _seen(piece)),
        seconds=[end - start for start, end in pairwise(times)],
        real=real,
        processed=[sum(piece.tokens_NT.numel() for piece in batches[place]) for place in task.order],
        read=real,
        written=real,
        trained=[sum(len(piece.target_M) for piece in batches[place]) for place in task.order],
        losses=[loss for loss, _ in told],
        gradient_norms=[norm for _, norm in told],
        change=max(
            float((weight.detach() - before[name]).abs().max()) for name, weight in loop.student.named_parameters()
        ),
        loaded_bytes=loaded,
        peak_bytes=resident_bytes("VmHWM"),
        teacher_seconds=0.0,
        versions={"transformers": transformers.__version__, "torch": torch.__version__},
        settings={name: str(value) for name, value in asdict(setting).items()},
    )


def _seen(piece: Piece) -> Iterator[tuple[list[int], list[int]]]:
    """What reaches the network, as rows."""
    for tokens_T, kept_T, from_T in zip(piece.tokens_NT, piece.kept_NT.bool(), piece.from_NT, strict=True):
        yield tokens_T[kept_T].tolist(), [0, *from_T[kept_T].int().tolist()[:-1]]


if __name__ == "__main__":
    answer(run, DistillTask, LoopSetting)
