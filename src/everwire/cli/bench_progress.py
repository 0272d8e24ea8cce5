"""How far ``bench`` is, on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.text import Text

from .bench_run import Bench


class _State(ProgressColumn):
    """Asks the run whenever it is drawn: a message costs nothing to count."""

    def __init__(self, one: Bench) -> None:
        super().__init__()
        self._one = one

    def render(self, task: Task) -> Text:
        """Draw the counts."""
        one, totals = self._one, self._one.load.totals
        if not one.begun:
            task.completed = one.result.connected
            return Text(f"{one.result.connected:,} of {task.total:,.0f} connected")
        task.completed = time.monotonic() - one.begun
        late = "" if one.result.end is None else ", waiting for stragglers"
        return Text(f"{totals.published:,} published, {totals.delivered:,} delivered{late}")


@contextmanager
def show(one: Bench) -> Iterator[Callable[[], None]]:
    """Show the progress of ``one``; call what this yields when all are connected."""
    settings = one.settings
    console = Console(stderr=True)
    columns = [BarColumn(), _State(one), TimeElapsedColumn()]
    # Few frames a second: drawing happens in this process, and it measures.
    with Progress(*columns, console=console, transient=True, refresh_per_second=4) as progress:
        task = progress.add_task("", total=settings.connections + settings.publishers)

        def connected() -> None:
            progress.reset(task, total=settings.warmup + settings.duration)

        yield connected
