"""`python -m benchmarks NAME [options]`: one benchmark, by its name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

BENCHMARKS = {
    "sft": "fine-tuning with LoRA or of all weights, against TRL and Unsloth",
    "dpo": "preference pairs, against TRL",
    "distill": "distillation over two epochs, against a loop that asks the teacher at each step",
    "generate": "answers to prompts, against transformers",
    "data": "reading and encoding rows, in time and memory",
    "memory": "what a run is estimated to take, and what it takes",
    "startup": "time to --help, and to the first finished step",
    "ways": "what each reshaping of the computation gives",
}


def main(words: Sequence[str]) -> int:
    """Run the benchmark that the first word names with the rest; 2 and the list of all where it names none."""
    if not words or words[0] not in BENCHMARKS:
        wanted = bool(words) and words[0] not in ("-h", "--help")
        lines = [f"  {name:9} {about}" for name, about in BENCHMARKS.items()]
        usage = ["usage: python -m benchmarks NAME [options]", "", *lines, "", "Each has a --help of its own."]
        if wanted:
            usage.insert(0, f"no benchmark {words[0]!r}")
        print("\n".join(usage), file=sys.stderr if wanted else sys.stdout)
        return 2 if wanted else 0
    code: int = import_module(f"benchmarks.{words[0]}").main(list(words[1:]))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
