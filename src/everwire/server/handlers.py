"""What a node calls of a user's functions beside :class:`everwire.handling.handlers.Handler`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

from ..errors import BadData, BadRequest, ConfigError
from ..from_thread import remember_loop
from ..handling.handlers import BY_NAME
from ..handling.threads import in_thread
from ..limits import MAX_DEPTH
from ..protocol.data import TooDeep, check_data

Function = Callable[..., Any]

TOO_DEEP = {"limit": "MAX_DEPTH", "most": MAX_DEPTH}  # the details of such a refusal


def check_parameters(function: Function, offered: tuple[str, ...]) -> None:
    """Check that ``function`` needs nothing beside what is offered.

    Raises:
        ConfigError: it does; the text names what it may have.
    """
    for name, parameter in inspect.signature(function).parameters.items():
        if (
            name not in offered
            and parameter.default is inspect.Parameter.empty
            and parameter.kind in BY_NAME
        ):
            raise ConfigError(
                f"{_name(function)}() has a parameter {name!r}; it may have " + ", ".join(offered)
            )


@lru_cache(64)
def _called_with(function: Function, offered: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Which of what is offered the function has parameters for, and whether it is async."""
    check_parameters(function, offered)
    parameters = inspect.signature(function).parameters
    wanted = tuple(name for name in parameters if name in offered)
    is_async = inspect.iscoroutinefunction(function)  # or an object that is called like one
    return wanted, is_async or inspect.iscoroutinefunction(type(function).__call__)


def _name(function: Function) -> str:
    return getattr(function, "__name__", type(function).__name__)


async def call_flexibly(function: Function, offered: dict[str, Any]) -> Any:
    """Call ``function`` with those of ``offered`` that it has parameters for.

    Cancelling cancels it; a function that is not async runs in a thread to its end.

    Raises:
        ConfigError: it needs a parameter that is not offered.
    """
    wanted, is_async = _called_with(function, tuple(offered))
    chosen = {name: offered[name] for name in wanted}
    remember_loop()
    if is_async:
        return await function(**chosen)
    return await in_thread(partial(function, **chosen))


def checked(data: Any) -> None:
    """Raise :exc:`BadRequest` for a payload that is not allowed on the wire."""
    try:
        check_data(data)
    except BadData as error:
        raise refusal(error) from None


def refusal(error: BadData) -> BadRequest:
    """What a client is told of data that is not allowed on the wire."""
    return BadRequest(str(error), details=TOO_DEEP if isinstance(error, TooDeep) else None)
