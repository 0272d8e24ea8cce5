"""Finished WebSocket frames, as a server writes them and as a client does."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, strategies as st

from everwire.protocol.frames import (
    Opcode,
    close_payload,
    frame,
    masked_frames,
    may_be_sent,
    split_frames,
)

from .wire import examples

SIZES = [0, 1, 125, 126, 127, 65535, 65536, 70000]


def read_one(data: bytes) -> tuple[int, bytes]:
    """RFC 6455 section 5.2, straight from its figure: one frame and nothing after it."""
    assert data[0] & 0x80, "FIN"
    assert not data[0] & 0x70, "reserved bits"
    assert not data[1] & 0x80, "a server does not mask"
    size, start = data[1] & 0x7F, 2
    if size == 126:
        size, start = int.from_bytes(data[2:4], "big"), 4
        assert size > 125, "the shortest form"
    elif size == 127:
        size, start = int.from_bytes(data[2:10], "big"), 10
        assert size > 65535, "the shortest form"
    assert len(data) == start + size
    return data[0] & 0x0F, data[start:]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_a_frame_is_as_the_rfc_has_it(size: int, opcode: Opcode) -> None:
    payload = bytes(range(256)) * (size // 256 + 1)
    assert read_one(frame(opcode, payload[:size])) == (opcode, payload[:size])


@examples(200)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(Opcode)),
            st.binary(max_size=20) | st.sampled_from(SIZES).map(bytes),
        ),
        max_size=6,
    )
)
def test_joined_frames_come_apart_as_they_were(messages: list[tuple[Opcode, bytes]]) -> None:
    joined = b"".join(frame(opcode, payload) for opcode, payload in messages)
    assert list(split_frames(joined)) == messages


@examples(300)
@given(st.integers(1000, 4999), st.text(max_size=200) | st.text("aé😀", min_size=30, max_size=130))
def test_a_close_reason_is_cut_between_characters(code: int, reason: str) -> None:
    payload = close_payload(code, reason)
    assert len(payload) <= 125
    assert int.from_bytes(payload[:2], "big") == code
    text = payload[2:].decode()  # valid UTF-8
    assert reason.startswith(text)
    if text != reason:
        next_one = reason[len(text)].encode()
        assert len(payload) + len(next_one) > 125, "no more was cut than needed"


def test_a_close_reason_need_not_be_valid_text() -> None:
    assert close_payload(1000, "a\ud800b")[2:].decode() == "a?b"


def test_exactly_the_close_codes_that_a_frame_may_carry_may_be_sent() -> None:
    allowed = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(65_536) if may_be_sent(code)} == allowed


@given(st.lists(st.one_of(st.binary(max_size=300), st.sampled_from(SIZES).map(bytes)), max_size=5),
       st.randoms(use_true_random=False))  # fmt: skip
def test_a_client_masks_each_frame_with_its_own_key(payloads: list[bytes], chance: Random) -> None:
    keys = chance.randbytes(4 * len(payloads))
    data = masked_frames(Opcode.BINARY, payloads, keys)
    for number, payload in enumerate(payloads):
        plain = frame(Opcode.BINARY, payload)
        head = len(plain) - len(payload)
        assert data[0] == plain[0]
        assert data[1] == plain[1] | 0x80
        assert data[2:head] == plain[2:head]
        key = data[head : head + 4]
        assert key == keys[4 * number : 4 * number + 4]
        end = head + 4 + len(payload)
        masked = data[head + 4 : end]
        assert bytes(byte ^ key[at % 4] for at, byte in enumerate(masked)) == payload
        data = data[end:]
    assert data == b""
