"""The limit that the matrix products set: `python -m benchmarks.roof MODEL_FOLDER`, one JSON line.

Training LoRA on a frozen base needs, for each token, a product with every weight of the body forwards and one
backwards (4 N floating-point operations for N weights) and, for each trained token, the same with the head (4 H V).
Nothing that computes these products can be faster; attention, norms and the adapters come on top. The products are
timed here at the model's own shapes, in bf16 with all threads and results written in place.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOKENS = 2048  # rows of each product: enough for the full rate
HEAD_TOKENS = 512
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Product:
    """`count` weights of `outputs x inputs`."""

    inputs: int
    outputs: int
    count: int

    @property
    def weights(self) -> int:
        """Numbers in all of them together."""
        return self.inputs * self.outputs * self.count


def body(config: dict[str, Any]) -> list[Product]:
    """The linear layers of a Llama-shaped network, from its `config.json`."""
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head_width = config.get("head_dim") or width // heads
    keys = (config.get("num_key_value_heads") or heads) * head_width
    return [
        Product(width, heads * head_width, layers),
        Product(width, keys, 2 * layers),
        Product(heads * head_width, width, layers),
        Product(width, inner, 2 * layers),
        Product(inner, width, layers),
    ]


def head(config: dict[str, Any]) -> Product:
    """The output layer."""
    return Product(config["hidden_size"], config["vocab_size"], 1)


def seconds_per_token(product: Product, tokens: int) -> float:
    """Best of a few forward and backward-to-the-input products, for one token and all `count` weights."""
    import torch  # the driver reads `limit` and must stay small

    weight = torch.randn(product.outputs, product.inputs, dtype=torch.bfloat16)
    hidden = torch.randn(tokens, product.inputs, dtype=torch.bfloat16)
    result = torch.empty(tokens, product.outputs, dtype=torch.bfloat16)
    gradient = torch.empty_like(hidden)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.mm(hidden, weight.t(), out=result)
        torch.mm(result, weight, out=gradient)
        times.append(time.perf_counter() - start)
    return min(times) * product.count / tokens


def roof(config: dict[str, Any]) -> dict[str, float]:
    """Seconds and operations a token needs for the body, and a trained token for the head; the rate they give."""
    body_seconds = sum(seconds_per_token(product, TOKENS) for product in body(config))
    head_seconds = seconds_per_token(head(config), HEAD_TOKENS)
    body_operations = 4.0 * sum(product.weights for product in body(config))
    head_operations = 4.0 * head(config).weights
    return {
        "body_seconds": body_seconds,
        "head_seconds": head_seconds,
        "body_operations": body_operations,
        "head_operations": head_operations,
        "gigaflops": (body_operations + head_operations) / (body_seconds + head_seconds) / 1e9,
    }


def limit(measured: dict[str, float], trained_share: float, *, whole: bool = False) -> float:
    """Real tokens a second if nothing but the matrix products took time.

    Where the `whole` network trains, every weight has a third product, of its gradient: 6 N and 6 H V.
    """
    seconds = measured["body_seconds"] + trained_share * measured["head_seconds"]
    return 1 / (1.5 * seconds if whole else seconds)


if __name__ == "__main__":
    print(json.dumps(roof(json.loads((Path(sys.argv[1]) / "config.json").read_text()))))
