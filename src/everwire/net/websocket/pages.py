"""Memory that is free but still ours: given back to the system where that is possible."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

APART = 64 * 1024  # bytes from which on a block is mapped by itself
_M_MMAP_THRESHOLD = -3
_DONT_NEED = getattr(mmap, "MADV_DONTNEED", None)
try:
    _libc: Any = ctypes.CDLL(None)
    _libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
except (AttributeError, OSError, TypeError):  # neither Linux nor another Unix
    _libc = None


def keep_large_apart() -> None:
    """Have large blocks of memory returned to the system when they are freed.

    glibc stops doing so after the first one: read buffers of many connections then leave
    a heap full of holes. It is a setting of the process, so it is made where a command begins.
    """
    if sys.platform == "linux" and hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, APART)


def give_back(free: memoryview) -> None:
    """Let the system have the whole pages of ``free``; they read as zeros when used again."""
    if _libc is None or _DONT_NEED is None:
        return
    start = ctypes.addressof(ctypes.c_char.from_buffer(free))
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (start + len(free)) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        _libc.madvise(first, end - first, _DONT_NEED)
