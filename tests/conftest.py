"""One thread a process: in networks this small, threads wait for one another ten times longer than they work."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every call: a change is what makes a test fail, not the day. Search for more with
# HYPOTHESIS_PROFILE=search.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
