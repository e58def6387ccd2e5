"""Keep freed memory in the process (glibc malloc)."""

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # of glibc's malloc.h


def tune_malloc() -> None:
    """Tell glibc's malloc to keep large buffers when they are freed; elsewhere nothing.

    The buffers of a search or a train step are hundreds of megabytes, freed when it ends. Given
    back to the system, all their pages are made anew in the next: on a CPU that is a tenth of its
    time. To be called before JAX starts its devices, whose threads would take heaps of their own.
    HEED_KEEP_MEMORY=0 in the environment leaves malloc as it is.
    """
    if sys.platform != "linux" or os.environ.get("HEED_KEEP_MEMORY") == "0":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        # One heap, no mapping of a block by itself, and never a part of the heap's end given back.
        for option, value in ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1)):
            mallopt(option, value)
