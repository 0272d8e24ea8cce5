"""Reading the ``Cookie`` header as web frameworks do, so that all mean the same session."""

from __future__ import annotations

from http.cookies import _unquote


def read_cookies(header: str) -> dict[str, str]:
    """Return what a ``Cookie`` header holds, by name; of equal names the last one.

    Nothing is refused: browsers send what any page of the site has set.
    """
    found: dict[str, str] = {}
    for pair in header.split(";"):
        name, equals, value = pair.partition("=")
        if not equals:
            name, value = "", name
        if name.strip() or value.strip():
            found[name.strip()] = _unquote(value.strip())
    return found
