"""One thread a process: in networks this small, threads wait for one another ten times longer than they work."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
