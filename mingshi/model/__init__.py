"""Networks: loading, packed attention, log-probabilities, adapters, generation, export."""

import logging
import sys

# peft imports bitsandbytes where it is installed, and that fetches a kernel for some processors from the Hub as it is
# imported, or warns that it could not. No code comes from there.
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
