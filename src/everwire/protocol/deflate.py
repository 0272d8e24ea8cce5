"""permessage-deflate (RFC 7692), without a context in either direction. No I/O.

No context is kept from message to message, and the server's window is the same for
everybody: so one compressed frame serves every reader, a connection costs no memory for
it, and inflating can be stopped at a limit.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from ..codes import CloseCode
from .assembly import Refused
from .frames import frame

WINDOW_BITS = 12
THRESHOLD = 512  # bytes; what is smaller is left alone
LEVEL = 5
_TAIL = b"\x00\x00\xff\xff"
_LAST = b"\x01\x00\x00\xff\xff"  # an empty last block: shows that all before it was whole
_RSV1 = 0x40

ACCEPTED = (
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
    f"server_max_window_bits={WINDOW_BITS}"
)

_CHAR = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
_TOKEN = _CHAR + "+"
_PARAMETER = rf'[ \t]*;[ \t]*({_TOKEN})(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:\\?{_CHAR})+)"))?'
_OFFER = re.compile(rf"[ \t]*({_TOKEN})((?:{_PARAMETER})*)[ \t]*")
_NOTHING = re.compile(r"[ \t]*(?:,|\Z)")  # an element of a list may be empty
_PARAMETERS = re.compile(_PARAMETER)
_BITS = re.compile(r"[89]|1[0-5]")


class MalformedExtensions(ValueError):
    """The header ``Sec-WebSocket-Extensions`` is not what RFC 6455 section 9.1 says."""


def negotiate_deflate(header: str) -> str | None:
    """Pick the first offer of permessage-deflate that can be met.

    Returns:
        The answer for the header ``Sec-WebSocket-Extensions``, or None for none.

    Raises:
        MalformedExtensions: the header is malformed.
    """
    chosen: str | None = None
    for name, parameters in _offers(header):
        if chosen is None and name == "permessage-deflate" and _can_be_met(parameters):
            chosen = ACCEPTED
    return chosen


def _offers(header: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    position = 0
    while position < len(header):
        if nothing := _NOTHING.match(header, position):
            position = nothing.end()
            continue
        found = _OFFER.match(header, position)
        if found is None or header[found.end() : found.end() + 1] not in ("", ","):
            raise MalformedExtensions("malformed Sec-WebSocket-Extensions")
        yield (
            found[1],
            [
                (name, value or quoted.replace("\\", "") or None)
                for name, value, quoted in _PARAMETERS.findall(found[2])
            ],
        )
        position = found.end() + 1


def _can_be_met(parameters: list[tuple[str, str | None]]) -> bool:
    """RFC 7692 section 7.1: an offer with an unknown, repeated or wrong parameter is declined."""
    names = [name for name, _ in parameters]
    if len(set(names)) < len(names):
        return False
    for name, value in parameters:
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return False
        elif name == "client_max_window_bits":
            if value is not None and not _BITS.fullmatch(value):
                return False
        elif name == "server_max_window_bits":
            if value is None or not _BITS.fullmatch(value) or int(value) < WINDOW_BITS:
                return False
        else:
            return False
    return True


def inflate(data: bytes, limit: int) -> bytes:
    """Inflate a message, at most to ``limit`` bytes.

    Raises:
        Refused: it would be larger (1009), or is no deflate stream, or not a whole one (1007).
    """
    inflater = zlib.decompressobj(-15)
    try:
        message = inflater.decompress(data, limit + 1)
        if len(message) <= limit:
            message += inflater.decompress(inflater.unconsumed_tail + _TAIL + _LAST, limit + 1)
    except zlib.error:
        raise Refused(CloseCode.INVALID_DATA, "not a deflate stream") from None
    if len(message) > limit:
        raise Refused(CloseCode.TOO_BIG, f"a message may have {limit} bytes")
    # It may have a last block of its own, and behind that one empty block, cut (section 7.2.3.5).
    if not inflater.eof or inflater.unused_data not in (b"", _TAIL + _LAST, b"\0" + _TAIL + _LAST):
        raise Refused(CloseCode.INVALID_DATA, "not a whole deflate stream")
    return message


def deflated_frame(opcode: int, payload: bytes) -> bytes:
    """Put ``payload`` into one frame, compressed if that makes it smaller."""
    if len(payload) >= THRESHOLD:
        deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -WINDOW_BITS)
        small = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        small = small.removesuffix(_TAIL)
        if len(small) < len(payload):
            return frame(_RSV1 | opcode, small)
    return frame(opcode, payload)
