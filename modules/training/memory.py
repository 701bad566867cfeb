"""Memory that large tensors leave on the CPU is kept for the next ones."""

import ctypes
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names of mallopt(3)


def keep_freed_memory():
    """Let this process keep the memory that large tensors leave.

    By default glibc gives it back to the system at once, and each training step has all its pages mapped and zeroed
    again: a fifth of an image model's time (`benchmarks/bench_memory.py`). With another C library nothing changes.
    """
    with suppress(AttributeError, OSError, TypeError):  # no mallopt; no library to be found so
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
