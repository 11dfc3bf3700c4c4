"""Compiles GPT-2 after one of ten small edits, as a job of anybody's: which caches it asks is in the environment.

python -m bench.compression.recompile NUMBER
"""

from __future__ import annotations

import sys
from typing import Any

EDITS = 10


def compile_edited(number: int) -> None:
    import torch

    from demo.models import SEED, gpt2

    torch.manual_seed(SEED)
    task = gpt2()

    class Edited(torch.nn.Module):  # type: ignore[misc]
        """The model with the one line that somebody changes between two runs."""

        def __init__(self) -> None:
            super().__init__()
            self.model = task.model

        def forward(self, tokens: torch.Tensor) -> Any:
            output = self.model(tokens)
            output.logits = output.logits * (1 + number / 64)
            return output

    task.run(torch.compile(Edited()))


if __name__ == "__main__":
    compile_edited(int(sys.argv[1]))
