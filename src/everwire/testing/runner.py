"""Run one coroutine in virtual time, and let nothing that went wrong beside it pass."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

from .clock import DeadlockError, VirtualLoop, describe_tasks

_T = TypeVar("_T")

CLEANUP = 60.0  # virtual seconds that cancelled tasks may take to end
_FROZEN = gc.get_freeze_count()  # some versions of Python freeze a few objects of their own


class LeftoverError(RuntimeError):
    """Tasks were still running when the main coroutine had returned; the text names them."""


class Runner:
    """Runs coroutines on one :class:`VirtualLoop`; between them its time stands still.

    For tests that are not one coroutine, as stateful ones of hypothesis, whose rules are
    plain functions::

        with Runner(seed=1) as runner:
            client = runner.run(connected)
            runner.run(asyncio.sleep, 10)

    What runs in tasks goes on in the next :meth:`run`. Leaving the block ends it as the end
    of :func:`run` does, and raises what that would.

    Args:
        seed: of ``loop.random``.
        limit: virtual seconds of all runs together; one that takes longer fails.
        allow_leftovers: whether tasks may be left over at the end.

    Attributes:
        loop: where the coroutines run.
        reported: what was reported to the loop's exception handler so far. Leaving the block
            raises what is in here.
    """

    def __init__(
        self, *, seed: int = 0, limit: float = 3600.0, allow_leftovers: bool = False
    ) -> None:
        self.loop = VirtualLoop(seed=seed, limit=limit)
        self.reported: list[BaseException] = []
        self._allow_leftovers = allow_leftovers
        self._stack = ExitStack()
        self.loop.set_exception_handler(
            lambda _, context: self.reported.append(_as_exception(context))
        )

    def __enter__(self) -> Self:
        self._stack.enter_context(_garbage())
        return self

    def run(
        self, main: Coroutine[Any, Any, _T] | Callable[..., Coroutine[Any, Any, _T]], *args: Any
    ) -> _T:
        """Run ``main``, a coroutine or a function called with ``args`` inside the loop.

        Raises:
            DeadlockError: nothing can happen any more and ``main`` still waits.
            TimeLimitError: the limit is reached.
            BaseException: what ``main`` raised.
        """
        _refuse_nesting(main)
        return _run_main(self.loop, main, args)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        loop, reported = self.loop, self.reported
        with self._stack:
            try:
                if error is None and not self._allow_leftovers:
                    _check_leftovers(loop, reported)
            except BaseException as failure:
                error = failure
                raise
            finally:
                try:
                    _end(loop)
                finally:
                    _collect(loop)
                    if error is not None:
                        for each in reported:
                            error.add_note(f"also reported to the event loop: {each!r}")
        if error is not None:
            return
        if len(reported) == 1 and isinstance(reported[0], LeftoverError):
            raise reported[0]
        if reported:
            raise BaseExceptionGroup("reported to the event loop", reported)


def run(
    main: Coroutine[Any, Any, _T] | Callable[..., Coroutine[Any, Any, _T]],
    *args: Any,
    seed: int = 0,
    limit: float = 3600.0,
    allow_leftovers: bool = False,
) -> _T:
    """Run ``main`` on a :class:`VirtualLoop` of its own and return what it returns.

    After ``main`` has returned, what can still happen without time passing happens.
    Tasks that run even then are cancelled: nobody owned them.

    Args:
        main: a coroutine, or a function that is called with ``args`` inside the loop.
        args: for ``main``.
        seed: of ``loop.random``.
        limit: virtual seconds; a run that takes longer fails.
        allow_leftovers: whether tasks may be left over.

    Raises:
        DeadlockError: nothing can happen any more and ``main`` still waits.
        TimeLimitError: ``limit`` is reached.
        LeftoverError: tasks are left over.
        ExceptionGroup: what was reported to the loop's exception handler (exceptions in
            callbacks, and of tasks which nobody asked for their result). If ``main``
            raised, it is added to that exception as notes instead.
        BaseException: what ``main`` raised.
    """
    _refuse_nesting(main)
    with Runner(seed=seed, limit=limit, allow_leftovers=allow_leftovers) as runner:
        return runner.run(main, *args)


def _run_main(
    loop: VirtualLoop,
    main: Coroutine[Any, Any, _T] | Callable[..., Coroutine[Any, Any, _T]],
    args: tuple[Any, ...],
) -> _T:
    async def entry() -> _T:
        return await (main if isinstance(main, Coroutine) else main(*args))

    return loop.run_until_complete(loop.create_task(entry(), name="main"))


def _check_leftovers(loop: VirtualLoop, reported: list[BaseException]) -> None:
    loop.run_until_complete(loop.settle())
    if tasks := asyncio.all_tasks(loop):
        reported.append(
            LeftoverError(
                "tasks were left over when main had returned; await or cancel them there, "
                f"or pass allow_leftovers=True:{describe_tasks(tasks)}"
            )
        )


def _end(loop: VirtualLoop) -> None:
    """Cancel what is left, and report whatever goes wrong then."""
    loop.limit = loop.time() + CLEANUP
    # In the order in which they were made, the same each time: a set has none.
    tasks = sorted(asyncio.all_tasks(loop), key=lambda t: (len(t.get_name()), t.get_name()))
    try:
        loop.run_until_complete(_cancel(loop, tasks))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
    except DeadlockError as error:
        loop.call_exception_handler({"message": "some tasks would not end", "exception": error})


async def _cancel(loop: VirtualLoop, tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel("left over")
    for task in tasks:
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            loop.call_exception_handler(
                {"message": "raised when it was cancelled", "exception": error, "task": task}
            )


def _as_exception(context: dict[str, Any]) -> BaseException:
    message = context.get("message", "")
    error: BaseException = context.get("exception") or RuntimeError(message)
    about = [f"{key}: {context[key]!r}" for key in ("task", "future", "handle") if key in context]
    error.add_note("; ".join([message, *about]))
    return error


def _collect(loop: VirtualLoop) -> None:
    """A failed task that nobody awaited reports when it is collected."""
    loop.close()
    gc.collect()


@contextmanager
def _garbage() -> Iterator[None]:
    """Make a full collection cheap: it looks only at what was made since."""
    if gc.get_freeze_count() > _FROZEN:  # somebody's own; it must not be undone
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _refuse_nesting(main: Any) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if isinstance(main, Coroutine):
        main.close()
    raise RuntimeError("run() makes a loop of its own: it cannot be called from inside one")
