"""Memory that is free but still ours: given back to the system where that is possible."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Any

APART = 64 * 1024  # bytes from which on a block is mapped by itself
WORTHWHILE = 8 * 2**20  # bytes that came free, for which the heap is gone through
TRIM_EVERY = 15.0  # seconds; going through the heap takes some milliseconds
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


class _HeapFigures(ctypes.Structure):
    """glibc's ``struct mallinfo2``; the ninth is what is free in the heap."""

    _fields_ = [(f"figure{n}", ctypes.c_size_t) for n in range(10)]  # type: ignore[mutable-override]


class Trimmer:
    """Gives the system what thousands of connections left free in the middle of the heap.

    glibc by itself gives back only what is free at its end, where something is always left.
    Put it on a :class:`~everwire.net.heartbeat.Wheel`.
    """

    __slots__ = ("_free", "_resident")

    def __init__(self) -> None:
        self._free = self._resident = 0

    def tick(self, now: float) -> float:
        """Trim the heap if much came free in it since the last time, or memory grew."""
        if not hasattr(_libc, "mallinfo2"):
            return 0.0
        _libc.mallinfo2.restype = _HeapFigures
        free, resident = _libc.mallinfo2().figure8, _resident()
        grown = max(free - self._free, min(free, resident - self._resident))
        if grown >= WORTHWHILE:
            _libc.malloc_trim(0)
            self._free, self._resident = free, _resident()
        else:
            self._free = min(self._free, free)
            self._resident = min(self._resident, resident)
        return TRIM_EVERY


def _resident() -> int:
    """Bytes of memory that this process has (glibc: so there is a Linux below)."""
    with open("/proc/self/statm", "rb") as statm:
        return int(statm.read().split()[1]) * mmap.PAGESIZE
