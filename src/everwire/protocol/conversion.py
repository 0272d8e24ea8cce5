"""From plain data to what an annotation asks for; what does not fit is named by its place.

Annotations are what msgspec understands: plain types, Structs, dataclasses, TypedDicts; and
models of pydantic, which is not imported unless an annotation is made of it.
"""

from __future__ import annotations

import re
from typing import Any, get_args

import msgspec

_PLACE = re.compile(r" - at (`key` in )?`\$(.*)`$", re.DOTALL)
_MISSING = re.compile(r"^Object missing required field `(.*)`$", re.DOTALL)


class Mismatch(ValueError):
    """Data is not what was asked for.

    Attributes:
        text: what is wrong.
        place: of the value, as ``items[3].price``; "" for the whole.
    """

    def __init__(self, text: str, place: str = "") -> None:
        self.text = text
        self.place = place
        super().__init__(f"{place}: {text}" if place else text)


class Converter:
    """Turns plain data into one kind of value.

    Args:
        kind: an annotation.
    """

    __slots__ = ("_adapter", "_kind")

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._adapter: Any = None
        if of_pydantic(kind):
            from pydantic import TypeAdapter

            self._adapter = TypeAdapter(kind)

    def __call__(self, value: Any, *, strict: bool = True, str_keys: bool = False) -> Any:
        """Convert ``value``. Unless it is ``strict``, text is read as what is asked for.

        Raises:
            Mismatch: it does not fit.
        """
        if self._adapter is not None:
            return _validated(self._adapter.validate_python, value)
        try:
            return msgspec.convert(
                value, self._kind, strict=strict, str_keys=str_keys, dec_hook=_decode
            )
        except msgspec.ValidationError as error:
            raise _mismatch(error) from None
        except (ValueError, OverflowError) as error:  # as a date after the last one
            raise Mismatch(str(error)) from None


def of_pydantic(kind: Any) -> bool:
    """Whether an annotation holds a model of pydantic, or what pydantic says of a type."""
    if isinstance(kind, type):
        found = hasattr(kind, "__pydantic_validator__")
    else:
        found = type(kind).__module__.partition(".")[0] == "pydantic"
    metadata = getattr(kind, "__metadata__", ())
    return found or any(of_pydantic(one) for one in (*get_args(kind), *metadata))


def _validated(validate: Any, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise Mismatch(first["msg"], _place(first["loc"])) from None


def _place(parts: tuple[str | int, ...]) -> str:
    names = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return "".join(names).removeprefix(".")


def _decode(kind: type, value: Any) -> Any:
    """Read what msgspec does not know: a model of pydantic within something else."""
    if of_pydantic(kind):
        return _validated(kind.model_validate, value)  # type: ignore[attr-defined]
    if isinstance(value, kind):
        return value
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _mismatch(error: msgspec.ValidationError) -> Mismatch:
    text = str(error)
    place = ""
    found = _PLACE.search(text)
    if found is not None:
        text, place = text[: found.start()], found[2].removeprefix(".")
        if found[1]:
            text = f"a key: {text}"
    inner = error.__cause__
    if isinstance(inner, Mismatch):
        return Mismatch(inner.text, join(place, inner.place))
    missing = _MISSING.match(text)
    if missing is not None:
        return Mismatch("is missing", join(place, missing[1]))
    return Mismatch(text, place)


def join(outer: str, inner: str) -> str:
    """The place of something within something."""
    if not (outer and inner) or inner.startswith("["):
        return outer + inner
    return f"{outer}.{inner}"
