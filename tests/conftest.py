"""What holds for every test."""

import os

# One thread for each process: tests run side by side, and many of them start processes that compute.
# Before torch is imported, which reads it once; and inherited by what the tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
