"""Memory that a CPU run gives back and takes again in every step stays with the process."""

from __future__ import annotations

import ctypes
import platform

# From glibc's malloc.h. Blocks of 32 MB and more are mapped one by one whatever is asked.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK = 32 * 1024 * 1024


def keep_freed_memory() -> bool:
    """Keep freed pages for the next step: to ask the system for fresh ones costs more than many a layer.

    The process then stays at its peak size. Returns whether the C library took the setting; without glibc this does
    nothing.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    allocator = ctypes.CDLL(None)
    took_threshold = allocator.mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK)
    return bool(took_threshold and allocator.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
