"""Lines to stdout, and then, never before, the positions they stand for to a file."""

from __future__ import annotations

import asyncio
import os
import queue
import select
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import msgspec

from ..protocol.messages import Position
from .running import Failed

SAVE_EVERY = 1_000  # lines
SAVE_AFTER = 0.2  # seconds
AHEAD = 4_096  # lines that may wait for a slow reader of stdout

Positions = dict[str, Position]
_file = msgspec.json.Decoder(Positions)


class PositionFile:
    """The positions of channels in a file, replaced as a whole: there is never half of one.

    Channels that it holds beside ours are kept. Two processes must not share it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.positions: Positions = {}
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise Failed(f"cannot read {path}: {error.strerror}") from None
        try:
            self.positions = _file.decode(text)
        except msgspec.MsgspecError as error:
            raise Failed(
                f"{path} is no file of positions: {error}; remove it to begin anew"
            ) from None

    def save(self) -> None:
        """Replace the file.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        beside = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        body = msgspec.json.format(msgspec.json.encode(self.positions), indent=1) + b"\n"
        try:
            with beside.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise


class _Batch(NamedTuple):
    text: bytes
    lines: int
    positions: Positions


class Output:
    """Prints from a thread, so that a slow reader of stdout never stops the event loop.

    With the loop stopped, the server's pings would go unanswered and the link be lost.
    The thread saves positions after the lines they belong to have been written.

    Args:
        file: where positions go, or None.
        ended: called in the loop when printing has become impossible: None if the
            reader of stdout has gone, otherwise what went wrong.
    """

    def __init__(self, file: PositionFile | None, ended: Callable[[OSError | None], None]) -> None:
        self._file = file
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._pending: list[bytes] = []
        self._positions: Positions = {}
        self._scheduled = False
        self._waiting = 0
        self._room = asyncio.Event()
        self._room.set()
        # A daemon: the process must be able to end while nobody reads its stdout.
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)
        self._thread.start()
        if _is_pipe():
            threading.Thread(target=self._watch, name="watch", daemon=True).start()

    async def line(self, text: bytes, channel: str, position: Position | None) -> None:
        """Print one line; wait while too many wait already.

        Cancelling it while it waits means that the line is not printed.
        """
        await self._room.wait()
        self._pending.append(text + b"\n")
        self._waiting += 1
        if self._waiting >= AHEAD:
            self._room.clear()
        self.reached(channel, position)

    def reached(self, channel: str, position: Position | None) -> None:
        """Note where a channel stands after everything printed so far."""
        if position is not None and self._file is not None:
            self._positions[channel] = position
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._pending or self._positions:
            self._queue.put(_Batch(b"".join(self._pending), len(self._pending), self._positions))
            self._pending, self._positions = [], {}

    def _written(self, count: int) -> None:
        self._waiting -= count
        if self._waiting < AHEAD:
            self._room.set()

    async def close(self, patience: float = 2.0) -> None:
        """Print what waits and save the positions, if stdout takes it within ``patience`` s."""
        self._hand_over()
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join, patience)

    # what follows runs in threads

    def _watch(self) -> None:
        # Not by the loop: uvloop would make stdout non-blocking, for everybody who shares it.
        poller = select.poll()
        poller.register(1, 0)
        poller.poll()
        self._report(None)

    def _work(self) -> None:
        try:
            self._print_and_save()
        except BrokenPipeError:
            self._report(None)
        except OSError as error:
            self._report(error)

    def _report(self, error: OSError | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: the process is ending anyway
            self._loop.call_soon_threadsafe(self._ended, error)

    def _print_and_save(self) -> None:
        unsaved, saved_at = 0, monotonic()
        try:
            while True:
                try:
                    timeout = max(0.0, saved_at + SAVE_AFTER - monotonic()) if unsaved else None
                    batch = self._queue.get(timeout=timeout)
                except queue.Empty:
                    pass
                else:
                    if batch is None:
                        return
                    unsaved += self._print(batch)
                if unsaved >= SAVE_EVERY or (unsaved and monotonic() >= saved_at + SAVE_AFTER):
                    self._save()
                    unsaved, saved_at = 0, monotonic()
        finally:
            if unsaved:
                self._save()

    def _print(self, batch: _Batch) -> int:
        """Print; return how much there is now to save."""
        view = memoryview(batch.text)
        while view:
            view = view[os.write(1, view) :]
        if batch.lines:
            self._loop.call_soon_threadsafe(self._written, batch.lines)
        if self._file is None or not batch.positions:
            return 0
        self._file.positions |= batch.positions
        return max(1, batch.lines)

    def _save(self) -> None:
        assert self._file is not None
        self._file.save()


def _is_pipe() -> bool:
    """Tell whether stdout is a pipe, which shows at once when its reader goes.

    So ``everwire sub … | head -1`` ends with head, and not with the next message.
    """
    try:
        return hasattr(select, "poll") and stat.S_ISFIFO(os.fstat(1).st_mode)
    except OSError:
        return False
