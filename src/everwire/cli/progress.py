"""How far ``pub`` is, on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TimeElapsedColumn,
)
from rich.text import Text

from .sending import Sender


class _Counts(ProgressColumn):
    """Asks the sender whenever it is drawn: a line costs nothing to count."""

    def __init__(self, sender: Sender) -> None:
        super().__init__()
        self._sender = sender

    def render(self, task: Task) -> Text:
        """Draw the counts."""
        sender = self._sender
        task.completed = sender.size
        failed = sender.read - sender.acknowledged - sender.waiting
        text = f"{sender.acknowledged:,} acknowledged, {sender.waiting} waiting"
        return Text(text + (f", {failed:,} failed" if failed else ""))


@contextmanager
def show(sender: Sender, size: int | None) -> Iterator[None]:
    """Show the progress of ``sender``, out of ``size`` bytes if that is known."""
    columns = [SpinnerColumn(), _Counts(sender), TimeElapsedColumn()]
    if size is not None:
        columns.insert(1, BarColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True) as progress:
        progress.add_task("", total=size)
        yield
