"""Lines of stdin, read from a thread so that waiting for them stops nothing else."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import AsyncIterator

from .running import Failed

CHUNK = 1 << 16
AHEAD = 4  # chunks that are read before the first of them was used


async def stdin_lines() -> AsyncIterator[bytes]:
    """Yield the lines of stdin without their ends; the last may lack one.

    Cancelling is safe; what was read ahead is lost.

    Raises:
        Failed: stdin cannot be read.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[list[bytes] | OSError | None] = asyncio.Queue(AHEAD)

    def put(item: list[bytes] | OSError | None) -> None:
        asyncio.run_coroutine_threadsafe(queue.put(item), loop).result()

    def read() -> None:
        rest: list[bytes] = []
        try:
            while chunk := os.read(0, CHUNK):
                lines = chunk.split(b"\n")
                if len(lines) > 1:
                    lines[0] = b"".join([*rest, lines[0]])
                    rest.clear()
                    put(lines[:-1])
                if lines[-1]:
                    rest.append(lines[-1])
            if rest:
                put([b"".join(rest)])
            put(None)
        except OSError as error:
            put(error)
        except RuntimeError:
            pass  # the loop has gone: nobody wants more

    # A daemon: an interrupted command must not wait for somebody to type a line.
    threading.Thread(target=read, name="stdin", daemon=True).start()
    while (item := await queue.get()) is not None:
        if isinstance(item, OSError):
            raise Failed(f"cannot read stdin: {item.strerror}")
        for line in item:
            yield line.removesuffix(b"\r")


def stdin_size() -> int | None:
    """How many bytes stdin holds, None if that is not known beforehand."""
    try:
        status = os.fstat(0)
        return (
            status.st_size - os.lseek(0, 0, os.SEEK_CUR) if stat.S_ISREG(status.st_mode) else None
        )
    except OSError:
        return None
