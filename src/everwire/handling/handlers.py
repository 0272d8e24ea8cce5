"""From an annotated function to a handler: payloads in, results out.

The first parameter is the connection, on the client's side the client. The others are
filled from the payload, an object, by name, and checked against their annotations (see
:mod:`everwire.protocol.conversion`). A handler whose only other parameter is called
``payload`` is given the payload whole.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any, TypeVar, get_type_hints

import msgspec

from ..errors import BadRequest, ConfigError
from ..from_thread import remember_loop
from ..protocol.conversion import Converter, Mismatch, join, of_pydantic
from .threads import FromThread, in_thread

Function = Callable[..., Any]
F = TypeVar("F", bound=Function)

CONNECTION = "conn: Connection"
CLIENT = "client: Client"


class Handler:
    """A user's function, ready to be called with a payload.

    Args:
        name: what it answers to.
        function: the user's.
        first: its first parameter, as one would write it.
        may_stream: it may be an async generator, whose items are sent one by one.
        concurrency: how many calls of it may run at a time, None for any number.
        timeout: seconds that a call may take, None for what the node allows.
        idempotent: to run it twice is to run it once.

    Attributes:
        streams: it is one.

    Raises:
        ConfigError: the function cannot be a handler; the text says why.
    """

    __slots__ = (
        "_convert", "_is_async", "_keywords", "_models", "_names", "_whole",
        "concurrency", "function", "idempotent", "name", "streams", "timeout",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        function: Function,
        *,
        first: str = CONNECTION,
        may_stream: bool = False,
        concurrency: int | None = None,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> None:
        if concurrency is not None and (type(concurrency) is not int or concurrency < 1):
            raise ConfigError(f"handler {name!r}: concurrency must be 1 or more")
        if timeout is not None and (type(timeout) not in (int, float) or timeout <= 0):
            raise ConfigError(f"handler {name!r}: timeout must be more than 0 seconds")
        self.name = name
        self.function = function
        self.concurrency = concurrency
        self.timeout = timeout
        self.idempotent = idempotent
        self._is_async = inspect.iscoroutinefunction(function)
        self.streams = inspect.isasyncgenfunction(function)
        if inspect.isgeneratorfunction(function) or (self.streams and not may_stream):
            raise ConfigError(
                f"handler {name!r} yields: only a query of the server may, as an async function"
            )
        parameters = list(inspect.signature(function).parameters.values())
        if not parameters or parameters[0].kind is inspect.Parameter.KEYWORD_ONLY:
            raise ConfigError(
                f"handler {name!r} must take the {_kind(first)} as its first parameter"
            )
        self._check_first(parameters[0], first)
        parameters = parameters[1:]
        self._keywords = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        named = [p for p in parameters if p.kind in BY_NAME]
        self._names = frozenset(p.name for p in named)
        self._whole = [p.name for p in named] == ["payload"] and not self._keywords
        self._models: dict[str, Converter] = {}
        self._convert = Converter(self._build(named))

    def _check_first(self, parameter: inspect.Parameter, first: str) -> None:
        """Find the parameter that was meant to come from the payload."""
        if parameter.annotation in _FROM_A_PAYLOAD:
            raise ConfigError(
                f"{self.function.__name__}({parameter.name}: …): the first parameter is the "
                f"{_kind(first)}; put one before it, as {first}"
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
            if of_pydantic(kind):  # beyond msgspec: it is looked at afterwards
                self._models[parameter.name], kind = Converter(kind), Any
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
            BadRequest: a field is missing, unknown or of the wrong kind; the text names it, and
                so does ``details``, ``{"field": "items[3].price"}``.
        """
        try:
            if self._whole:
                return {"payload": self._convert(payload)}
            return self._named_arguments({} if payload is None else payload, strict)
        except Mismatch as error:
            details = {"field": error.place} if error.place else None
            raise BadRequest(f"{self.name}: {error}", details=details) from None

    def _named_arguments(self, payload: Any, strict: bool) -> dict[str, Any]:
        if not isinstance(payload, dict):
            raise Mismatch("the payload must be an object")
        unknown = payload.keys() - self._names
        if unknown and not self._keywords:
            name = min(unknown)[:80]
            details = {"field": name}
            raise BadRequest(f"{self.name}: there is no parameter {name!r}", details=details)
        built = self._convert(payload, strict=strict)
        arguments = {name: getattr(built, name) for name in self._names}
        for name in self._models.keys() & payload.keys():
            try:
                arguments[name] = self._models[name](payload[name])
            except Mismatch as error:
                raise Mismatch(error.text, join(name, error.place)) from None
        if unknown:
            arguments.update({name: payload[name] for name in unknown})
        return arguments

    async def call(
        self, caller: Any, arguments: dict[str, Any], ended: Callable[[], None] | None = None
    ) -> Any:
        """Run the function; one that is not async runs in a thread.

        Cancelling cancels it; a thread runs to its end, and its result is dropped. ``ended``
        is called once, when it no longer runs.
        """
        loop = remember_loop()
        if not self._is_async:
            function = partial(self.function, FromThread(caller, loop), **arguments)
            return await in_thread(function, ended)
        try:
            return await self.function(caller, **arguments)
        finally:
            if ended is not None:
                ended()

    def stream(self, caller: Any, arguments: dict[str, Any]) -> AsyncGenerator[Any, None]:
        """Begin a function that :attr:`streams`; who calls this closes it."""
        remember_loop()
        return self.function(caller, **arguments)  # type: ignore[no-any-return]


def declare(table: dict[str, Handler], function: F, **settings: Any) -> F:
    """Put a function into a table of handlers, under its name; return it as it was.

    The ``settings`` are those of :class:`Handler`.

    Raises:
        ConfigError: there is one of the name, or it cannot be a handler.
    """
    name = function.__name__
    if name in table:
        raise ConfigError(f"{name!r} is declared twice")
    table[name] = Handler(name, function, **settings)
    return function


def _kind(first: str) -> str:
    """What the first parameter is called in texts."""
    return first.rpartition(" ")[2].lower()


def _same(value: Any) -> Any:
    """A function's default, of whatever kind."""
    return value


_FROM_A_PAYLOAD = frozenset(
    {int, str, float, bool, bytes, list, dict, "int", "str", "float", "bool", "bytes", "dict"}
)
BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
