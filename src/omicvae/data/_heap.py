"""Memory that Python has freed and the process still holds."""

from __future__ import annotations

import ctypes
import sys


def return_free_memory() -> None:
    """Return what is free on the heap to the operating system, where its C library can.

    Reading the names of a million samples takes several times the memory that they hold in the end. glibc keeps the
    rest for small objects, and takes the large tensors of training from elsewhere.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # not in every C library
        if trim is not None:
            trim(0)
