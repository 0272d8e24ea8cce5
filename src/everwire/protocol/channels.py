"""Names of channels, and patterns of them."""

from __future__ import annotations

import re
import unicodedata

from ..errors import BadData, ConfigError
from ..limits import MAX_CHANNEL

RESERVED = ("system",)
RESERVED_PREFIX = "everwire."


def check_channel(name: object) -> str:
    """Return ``name`` if a channel may be called so.

    1 to 255 bytes of UTF-8 in normal form C, without control characters, spaces, line
    separators, bidirectional controls or other invisible characters; ``system`` and
    names that begin with ``everwire.`` are reserved.

    Raises:
        BadData: it may not; the text says why.
    """
    if not isinstance(name, str) or not name:
        raise BadData("a channel's name must be text of at least one character")
    if name.isascii():
        size = len(name)
        if " " in name or not name.isprintable():
            raise BadData("a channel's name must not hold spaces or control characters")
    else:
        try:
            size = len(name.encode())
        except UnicodeEncodeError:
            raise BadData("a channel's name must be valid Unicode") from None
        if any(unicodedata.category(char)[0] in "CZ" for char in name):
            raise BadData("a channel's name must not hold spaces or invisible characters")
        if not unicodedata.is_normalized("NFC", name):
            raise BadData("a channel's name must be in Unicode normal form C")
    if size > MAX_CHANNEL:
        raise BadData(f"a channel's name may have {MAX_CHANNEL} bytes, this one has {size}")
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise BadData(f"the channel name {name!r} is reserved")
    return name


def channel_key(tenant: str, channel: str) -> str:
    """One key for a channel of a tenant; two different pairs never have the same one.

    Neither part can hold a control character, so one between them keeps them apart.
    """
    return f"{tenant}\x00{channel}" if tenant else channel


def split_key(key: str) -> tuple[str, str]:
    """Undo :func:`channel_key`: ``(tenant, channel)``."""
    tenant, _, channel = key.rpartition("\x00")
    return tenant, channel


_STAYS = "-._~@+"
_PARAMETER = re.compile(r"\{([a-zA-Z_][a-zA-Z0-9_]*)(:path)?\}")


class ChannelPattern:
    """``"chat:{room}"``: matches channel names and yields their parameters.

    ``{room}`` stands for one or more characters other than ``:`` and ``/``;
    ``{rest:path}`` for one or more of any. A pattern without parameters is a name.
    """

    __slots__ = ("_regex", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: tuple[str, ...] = tuple(match[1] for match in _PARAMETER.finditer(text))
        parts, end = [], 0
        for match in _PARAMETER.finditer(text):
            parts.append(re.escape(text[end : match.start()]))
            parts.append(f"(?P<{match[1]}>{'.+' if match[2] else '[^:/]+'})")
            end = match.end()
        rest, literal = text[end:], _PARAMETER.sub("", text)
        if not text or "{" in literal or "}" in literal or len(set(self.names)) < len(self.names):
            raise ConfigError(
                f"{text!r} is not a channel pattern: write parameters as {{name}} or "
                "{name:path}, each name once"
            )
        try:
            check_channel(_PARAMETER.sub("x", text))
        except BadData as error:
            raise ConfigError(f"no channel fits the pattern {text!r}: {error}") from None
        parts.append(re.escape(rest))
        self._regex = re.compile("".join(parts))

    def match(self, channel: str) -> dict[str, str] | None:
        """Return the parameters if ``channel`` fits, None otherwise."""
        found = self._regex.fullmatch(channel)
        return found.groupdict() if found else None

    def __repr__(self) -> str:
        return f"ChannelPattern({self.text!r})"


class OwnChannel:
    """``"user:{user}"``: the name of each user's own channel.

    Args:
        text: a pattern with one parameter, which stands for the user's name.

    Raises:
        ConfigError: it is none.
    """

    __slots__ = ("_after", "_before", "text")

    def __init__(self, text: str) -> None:
        pattern = ChannelPattern(text)
        if len(pattern.names) != 1:
            raise ConfigError(f"{text!r} must have one parameter: the user, as in user:{{user}}")
        self.text = text
        self._before, _, rest = text.partition("{")
        self._after = rest.partition("}")[2]

    def name(self, user: str) -> str:
        """The user's channel; two different users never have the same one."""
        return self._before + quoted(user) + self._after


def quoted(text: str) -> str:
    """Write any text so that it fits into a channel's name, in place of one parameter.

    Letters and digits stay, and ``-._~@+``; what else there is becomes ``%`` and two digits
    for each byte. Different texts stay different.
    """
    plain = unicodedata.is_normalized("NFC", text)
    return "".join(
        char
        if char in _STAYS or (char.isalnum() and (plain or char.isascii()))
        else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        for char in text
    )
