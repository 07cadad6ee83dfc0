"""Keep memory that PyTorch frees instead of giving it back to the system after each step."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_LARGE = 2**31 - 1


def keep_memory() -> bool:
    """Tell glibc's malloc to reuse large blocks; whether it could be told.

    Without this each activation of more than 32 MiB is fresh memory in every step, and a third of the time of a batch goes
    into making its pages. It holds for the whole process, and the process keeps its largest size: the command line wants
    that, a library must not do it unasked.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all([mallopt(_M_MMAP_MAX, 0), mallopt(_M_TRIM_THRESHOLD, _LARGE), mallopt(_M_TOP_PAD, 64 << 20)])
