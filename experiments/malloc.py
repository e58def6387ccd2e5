"""Keep freed memory in the process (glibc malloc)."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def tune_malloc() -> None:
    """Make glibc's malloc keep large freed buffers; a no-op elsewhere.

    The buffers of a search or a train step are hundreds of megabytes, freed at its end. If they
    return to the system, the next one must map all pages again, a tenth of its time on a CPU. Call
    it before JAX initializes its devices: otherwise their threads get separate heaps.
    HEED_KEEP_MEMORY=0 in the environment disables it.
    """
    if sys.platform != "linux" or os.environ.get("HEED_KEEP_MEMORY") == "0":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # One heap, no separately mapped blocks, and no trimming of the heap.
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
            mallopt(option, value)
