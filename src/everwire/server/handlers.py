"""From an annotated function to a handler: payloads in, results out.

The first parameter is the connection. The others are filled from the payload, an object,
by name, and checked against their annotations (anything msgspec understands). A handler
whose only other parameter is called ``payload`` is given the payload as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, get_type_hints

import msgspec

from ..errors import BadData, BadRequest, ConfigError
from ..from_thread import remember_loop
from ..protocol.data import check_data
from .threads import FromThread, in_thread

Function = Callable[..., Any]


class Handler:
    """A user's function, ready to be called with a payload."""

    __slots__ = ("_is_async", "_keywords", "_names", "_struct", "_whole", "function", "name")

    def __init__(self, name: str, function: Function) -> None:
        self.name = name
        self.function = function
        self._is_async = inspect.iscoroutinefunction(function)
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise ConfigError(f"handler {name!r} must take the connection as its first parameter")
        self._check_first(parameters[0])
        parameters = parameters[1:]
        self._keywords = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in _BY_NAME]
        self._names = frozenset(p.name for p in named)
        self._whole = [p.name for p in named] == ["payload"] and not self._keywords
        self._struct = self._build(named)

    def _check_first(self, parameter: inspect.Parameter) -> None:
        """Find the parameter that was meant to come from the payload."""
        if parameter.annotation in _NOT_A_CONNECTION:
            raise ConfigError(
                f"{self.function.__name__}({parameter.name}: …): the first parameter is the "
                "connection; put one before it, as conn: Connection"
            )

    def takes(self, names: tuple[str, ...], what: str) -> None:
        """Check that the function has exactly these parameters beside the connection.

        Raises:
            ConfigError: it has others; the text names both.
        """
        if self._keywords or (self._names == frozenset(names) and not self._whole):
            return
        wanted = ", ".join(("conn", *names))
        raise ConfigError(
            f"{self.function.__name__}() does not fit {what}: its parameters must be ({wanted})"
        )

    def _build(self, named: list[inspect.Parameter]) -> Any:
        try:
            hints = get_type_hints(self.function, include_extras=True)
        except NameError as error:
            raise ConfigError(
                f"handler {self.name!r} has an annotation that cannot be resolved: {error}; "
                "define or import the name at module level"
            ) from None
        if self._whole:
            return hints.get("payload", Any)
        fields: list[Any] = []
        for parameter in named:
            kind = hints.get(parameter.name, Any)
            if parameter.default is inspect.Parameter.empty:
                fields.append((parameter.name, kind))
            else:
                default = msgspec.field(default_factory=partial(_same, parameter.default))
                fields.append((parameter.name, kind, default))
        return msgspec.defstruct(f"{self.name} payload", fields, kw_only=True)

    def arguments(self, payload: Any, *, strict: bool = True) -> dict[str, Any]:
        """Turn a payload into keyword arguments.

        Unless it is ``strict``, text is read as what the annotation asks for.

        Raises:
            BadRequest: a field is missing, unknown or of the wrong kind; the text names it.
        """
        try:
            if self._whole:
                return {"payload": msgspec.convert(payload, self._struct)}
            if payload is None:
                payload = {}
            if not isinstance(payload, dict):
                raise BadRequest(f"{self.name}: the payload must be an object")
            unknown = payload.keys() - self._names
            if unknown and not self._keywords:
                raise BadRequest(f"{self.name}: there is no parameter {min(unknown)!r}")
            built = msgspec.convert(payload, self._struct, strict=strict)
        except msgspec.ValidationError as error:
            raise BadRequest(f"{self.name}: {error}") from None
        arguments = {name: getattr(built, name) for name in self._names}
        if unknown:
            arguments.update({name: payload[name] for name in unknown})
        return arguments

    async def call(self, connection: Any, arguments: dict[str, Any]) -> Any:
        """Run the function; one that is not async runs in a thread.

        Cancelling cancels it; a thread runs to its end, and its result is dropped.
        """
        loop = remember_loop()
        if self._is_async:
            return await self.function(connection, **arguments)
        return await in_thread(partial(self.function, FromThread(connection, loop), **arguments))


def _same(value: Any) -> Any:
    """A function's default, of whatever kind."""
    return value


_NOT_A_CONNECTION = frozenset(
    {int, str, float, bool, bytes, list, dict, "int", "str", "float", "bool", "bytes", "dict"}
)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def check_parameters(function: Function, offered: tuple[str, ...]) -> None:
    """Check that ``function`` needs nothing beside what is offered.

    Raises:
        ConfigError: it does; the text names what it may have.
    """
    for name, parameter in inspect.signature(function).parameters.items():
        if (
            name not in offered
            and parameter.default is inspect.Parameter.empty
            and parameter.kind in _BY_NAME
        ):
            raise ConfigError(
                f"{function.__name__}() has a parameter {name!r}; it may have " + ", ".join(offered)
            )


@lru_cache(64)
def _called_with(function: Function, offered: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    """Which of what is offered the function has parameters for, and whether it is async."""
    check_parameters(function, offered)
    parameters = inspect.signature(function).parameters
    wanted = tuple(name for name in parameters if name in offered)
    return wanted, inspect.iscoroutinefunction(function)


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
        raise BadRequest(str(error)) from None
