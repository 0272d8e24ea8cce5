"""A look at MessagePack before anything is built of it: how much it is, and its maps' keys.

A megabyte may be a million empty arrays, and a map's keys may be anything: arrays of -1
and -2 all have one hash in Python, so that a map of them takes quadratic time to build,
minutes for a megabyte. Keys must be text here anyway; text is hashed with a secret.
"""

from __future__ import annotations

SMALL = 4096  # bytes; what a map of this size costs, whatever its keys, is a millisecond

# By the first byte of a value: how many bytes it has, where that is known from it alone.
_SIZES = [1] * 256
for _first in range(0xA0, 0xC0):
    _SIZES[_first] = _first - 0x9F
for _first, _size in {
    0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9,
    0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18,
}.items():  # fmt: skip
    _SIZES[_first] = _size
for _first in (*range(0x80, 0xA0), *range(0xC4, 0xCA), *range(0xD9, 0xE0)):
    _SIZES[_first] = 0
# Where a length follows: of how many bytes it is, and how many more than it says there are.
_COUNTED = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
_TEXT = frozenset((*range(0xA0, 0xC0), 0xD9, 0xDA, 0xDB))


def has_more_than(data: bytes, most: int) -> bool:
    """Tell whether ``data`` has more than ``most`` values and keys; takes no longer for more."""
    return len(data) > most and _walk(data, most)[0] > most


def has_odd_keys(data: bytes) -> bool:
    """Tell whether a large map in ``data`` has a key that is not text.

    Maps of up to fifteen entries cannot hurt, so that most messages are not looked into.
    """
    if len(data) <= SMALL or (0xDE not in data and 0xDF not in data):
        return False
    return _walk(data, len(data))[1]


def _walk(data: bytes, most: int) -> tuple[int, bool]:
    """Count values and keys, until there are more than ``most`` or a key is not text."""
    position, end, seen = 0, len(data), 0
    stack: list[tuple[int, bool]] = []
    left, in_map = 1, False  # of a map keys and values are left, a key first
    while position < end and seen <= most:
        while left == 0:
            if not stack:
                return seen, False
            left, in_map = stack.pop()
        first = data[position]
        if in_map and left & 1 == 0 and first not in _TEXT:
            return seen, True
        seen += 1
        left -= 1
        size = _SIZES[first]
        if size:
            position += size
            continue
        if first in _COUNTED:
            width, more = _COUNTED[first]
            size = int.from_bytes(data[position + 1 : position + 1 + width], "big")
            position += 1 + width + more + size
            continue
        if first < 0xA0:
            count, head, is_map = first & 15, 1, first < 0x90
        else:
            head = 3 if first in (0xDC, 0xDE) else 5
            count = int.from_bytes(data[position + 1 : position + head], "big")
            is_map = first >= 0xDE
        position += head
        if count:
            if left:
                stack.append((left, in_map))
            left, in_map = (2 * count, True) if is_map else (count, False)
    return seen, False
