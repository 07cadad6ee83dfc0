"""How much memory there is; and keep what PyTorch frees for its next step, or give large blocks back to the system."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_LARGE = 2**31 - 1
_USUAL_MMAP_MAX = 65536


def keep_memory() -> bool:
    """Tell glibc's malloc to reuse large blocks; whether it could be told.

    Without this each activation of more than 32 MiB is fresh memory in every step, and a third of the time of a batch goes
    into making its pages. It holds for the whole process, and the process keeps its largest size: the command line wants
    that, a library must not do it unasked.
    """
    return _told((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _LARGE), (_M_TOP_PAD, 64 << 20))


def give_back() -> bool:
    """Let glibc's malloc map large blocks one by one again, as it does by itself; whether it could be told.

    A few copies of a picture of 12 megapixels, 144 MB each, leave gaps in kept memory that nothing else fits into.
    """
    return _told((_M_MMAP_MAX, _USUAL_MMAP_MAX))


def available() -> int | None:
    """Bytes of memory that programs could still get; None where the system doesn't say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _told(*options: tuple[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return all(mallopt(name, value) for name, value in options)
