"""One thread a process: in networks of a few thousand weights, threads wait for one another ten times longer than they work."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
