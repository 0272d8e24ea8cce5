"""A look at the keys of MessagePack maps before anything is built of them.

A map's keys may be anything in MessagePack, and arrays of -1 and -2 all have one hash in
Python: a map of them takes quadratic time to build, minutes for a megabyte. Keys must be
text here anyway; text is hashed with a secret.
"""

from __future__ import annotations

SMALL = 4096  # bytes; what a map of this size costs, whatever its keys, is a millisecond

# What follows the first byte: a fixed number of bytes, or a length of so many bytes and
# so many more bytes beside what it counts.
_FIXED = {
    0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
    0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_COUNTED = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip


def has_odd_keys(data: bytes) -> bool:
    """Tell whether a large map in ``data`` has a key that is not text.

    Maps of up to fifteen entries cannot hurt, so that most messages are not looked into.
    """
    if len(data) <= SMALL or (0xDE not in data and 0xDF not in data):
        return False
    position, end = 0, len(data)
    stack: list[tuple[int, bool, bool]] = []
    left, in_map, key_next = 1, False, False
    while position < end:
        while left == 0:
            if not stack:
                return False
            left, in_map, key_next = stack.pop()
        first = data[position]
        if in_map and key_next and not (0xA0 <= first <= 0xBF or 0xD9 <= first <= 0xDB):
            return True
        key_next = not key_next
        left -= 1
        if first < 0x80 or first >= 0xE0 or 0xC0 <= first <= 0xC3:
            position += 1
        elif 0xA0 <= first <= 0xBF:
            position += first - 0x9F
        elif first in _FIXED:
            position += 1 + _FIXED[first]
        elif first in _COUNTED:
            width, more = _COUNTED[first]
            size = int.from_bytes(data[position + 1 : position + 1 + width], "big")
            position += 1 + width + more + size
        else:
            count, head, is_map = _container(data, position, first)
            position += head
            stack.append((left, in_map, key_next))
            left, in_map, key_next = (2 * count, True, True) if is_map else (count, False, False)
    return False


def _container(data: bytes, position: int, first: int) -> tuple[int, int, bool]:
    """Read the head of an array or a map: its count, its size, and whether it is a map."""
    if first < 0x90:
        return first - 0x80, 1, True
    if first < 0xA0:
        return first - 0x90, 1, False
    width = 2 if first in (0xDC, 0xDE) else 4
    count = int.from_bytes(data[position + 1 : position + 1 + width], "big")
    return count, 1 + width, first >= 0xDE
