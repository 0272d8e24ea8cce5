"""How many values a JSON text has, told before anything is built of it."""

from __future__ import annotations


def has_more_than(text: bytes, most: int) -> bool:
    """Tell whether a JSON text has more than ``most`` values and keys.

    What is no JSON is counted as if it were. No text takes longer than a few ``most``.
    """
    if len(text) <= 2 * most:  # a value takes a byte, and another one keeps it from the next
        return False
    if _separated(text) <= most:
        return False
    # Much may be inside of text, where it means nothing: look only at what is outside.
    if b"\\" in text:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if text.count(b'"') > 2 * most:
        return True
    outside = b"0".join(text.split(b'"')[::2])
    if b"[" in outside or b"{" in outside:
        outside = outside.translate(None, b" \t\r\n")
    return _separated(outside) - outside.count(b"[]") - outside.count(b"{}") > most


def _separated(text: bytes) -> int:
    """Count what begins, or follows a separator: of an empty array two."""
    return 1 + text.count(b",") + text.count(b":") + text.count(b"[") + text.count(b"{")
