"""The plug-in for PyTorch, torch 2.6 to 2.15.

It is active when `PILOTLIGHT_URL` is set: through the entry point in the group `torch.backends`, which `import torch` runs
at its end, or through `import pilotlight.torch`. With the variable unset nothing is imported and nothing changes.

It never imports `torch._inductor`: that takes seconds, and programs that compile nothing would pay for it. What it patches
is patched when torch itself imports it.
"""

import os
import sys


def _autoload() -> None:
    """Activates the plug-in, once. No exception escapes: one here would make `import torch` fail."""
    if not os.environ.get("PILOTLIGHT_URL"):
        return
    try:
        from pilotlight.torch import activation

        activation.activate()
    except Exception as error:
        print(f"pilotlight: not active: {type(error).__name__}: {error}", file=sys.stderr)


_autoload()
