"""RFC 6455 against a model of it: every combination of a frame's bits, and sequences of frames.

The server's side is a real listener in another process, the client's side our network
connected to a server that is nothing but a socket.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

from everwire.net.websocket import PicowsNetwork

from .model import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    Reaction,
    legal_close_code,
    parse,
    react,
)
from .wire import code_of, exchange_all

MAX = 16 * 2**20  # of the echo server
GOODBYE = Frame(CLOSE, (1000).to_bytes(2, "big"))

SIZES = [
    (b"", "7"),
    (b"x" * 125, "7"),
    (b"x" * 126, "16"),
    (b"x" * 65536, "64"),
    (b"x" * 125, "16"),
    (b"x" * 300, "64"),
    (b"x" * 10, "msb"),
]
"""payloads and how their length is written: the shortest form, one too long, one impossible"""

EVERY_FRAME = [
    Frame(opcode, payload, fin, rsv, masked, length)
    for opcode, rsv, fin, masked, (payload, length) in itertools.product(
        range(16), range(8), (True, False), (True, False), SIZES
    )
    # one fault is enough to be refused: combined ones are walked with the short payloads
    if len(payload) < 1000 or (rsv in (0, 4) and masked)
]


def close(code: int, reason: bytes = b"") -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big") + reason)


CLOSES = [
    Frame(CLOSE),
    Frame(CLOSE, b"\x03"),
    *(close(code) for code in range(997, 1032)),
    *(close(code) for code in (0, 1, 500, 999, 1999, 2000, 2998, 2999, 3000, 3001, 3999, 4000)),
    *(close(code) for code in (4001, 4400, 4502, 4998, 4999, 5000, 5001, 9999, 32768, 65535)),
    *(close(code) for code in range(2, 5000, 97)),
    close(1000, b"x" * 123),
    close(1000, b"x" * 124),
    close(3000, "–".encode() * 41),
    close(1000, b"\xff"),
    close(1000, "–".encode()[:2]),
    close(1000, b"\xed\xa0\x80"),
    close(1000, b"x" * 121 + b"\xc3\xa9"),
    close(999, b"\xff"),
]

BAD_TEXTS = [
    b"\xff",
    b"\xc0\xaf",  # a slash, too long
    b"\xe0\x80\xaf",
    b"\xed\xa0\x80",  # a surrogate
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
    b"\xf8\x88\x80\x80\x80",
    b"\x80",
    "ends too soon –".encode()[:-1],
    b"ends too soon \xf0\x9f\x98",
]


# ---- the server's side -----------------------------------------------------------------


def wire_of(frames: Sequence[Frame]) -> bytes:
    return b"".join(frame.encode() for frame in frames)


def pieces_of(frames: Sequence[Frame], model: Reaction) -> list[bytes]:
    """What is in order, the frame that is at fault, and what follows it: not all in one read."""
    fault = model.consumed if model.peer is not None else model.consumed + 1
    pieces = [frames[: model.consumed], frames[model.consumed : fault], frames[fault:]]
    return [wire_of(piece) for piece in pieces if piece]


def server_model(frames: Sequence[Frame]) -> Reaction:
    return react(frames, from_client=True, max_message=MAX)


def check_answer(
    expected: Reaction, answer: Sequence[Frame], what: object, *, lost: int = 0
) -> None:
    """The echo's frames are those that the model wants, and its close frame comes last.

    ``lost``: so many of the last answers before a fault may be missing.
    """
    answers = [(frame.opcode, frame.payload) for frame in answer if frame.opcode != CLOSE]
    wanted = expected.in_order
    admitted = [wanted[: len(wanted) - n] for n in range(min(lost, len(wanted)) + 1)]
    assert answers in admitted, (what, shorten(answers), shorten(wanted))
    assert all(frame.fin and not frame.rsv for frame in answer)
    closes = [frame for frame in answer if frame.opcode == CLOSE]
    if not expected.close:
        assert not closes, what
        return
    assert len(closes) == 1, (what, closes)
    assert answer[-1] is closes[0], what
    assert code_of(closes[0]) in expected.close, (what, code_of(closes[0]), expected.close)
    assert len(closes[0].payload) != 1
    closes[0].payload[2:].decode()


def shorten(answers: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    return [(opcode, payload[:20]) for opcode, payload in answers]


def check_server(port: int, sequences: Sequence[Sequence[Frame]]) -> None:
    """Each sequence on a connection of its own; what is legal is closed by a goodbye.

    The frames before a fault are sent before it, and the rest after it: see
    ``test_picows_contract.py`` on frames that are parsed ahead.
    """
    whole = [
        [*frames, GOODBYE] if not server_model(frames).close else list(frames)
        for frames in sequences
    ]
    expected = [server_model(frames) for frames in whole]
    talks = [pieces_of(frames, model) for frames, model in zip(whole, expected, strict=True)]
    pause = 0.02 if max(map(len, talks)) > 1 else 0
    answers = exchange_all(port, talks, pause=pause)
    wrong = []
    for frames, model, answer in zip(whole, expected, answers, strict=True):
        try:
            check_answer(model, answer, frames, lost=1 if model.peer is None else 0)
        except AssertionError as error:
            wrong.append(str(error).splitlines()[0][:400])
    assert not wrong, "\n".join([f"{len(wrong)} of {len(whole)}", *wrong[:20]])


def finished(frame: Frame) -> list[Frame]:
    """A legal sequence around a frame that opens a message or goes on with one."""
    end = [] if frame.fin or frame.control else [Frame(CONTINUATION, b"end")]
    return [frame, *end]


def is_legal(frames: Sequence[Frame]) -> bool:
    return not server_model(frames).close


LEGAL = [frame for frame in EVERY_FRAME if is_legal([frame]) or frame.opcode == CONTINUATION]


def test_every_legal_frame_is_taken_by_the_server(echo: int) -> None:
    openings = [Frame(TEXT, "a–b".encode(), fin=False), Frame(BINARY, b"\xff", fin=False)]
    frames = [
        one
        for frame in LEGAL
        if is_legal(finished(frame))
        for one in finished(frame)
        if frame.opcode != CLOSE
    ]
    for opening, frame in itertools.product(openings, LEGAL):
        inside = [opening, *finished(frame)]
        if frame.control:
            inside.append(Frame(CONTINUATION, b"end"))
        if is_legal(inside):
            frames += inside
    assert len(frames) > 50
    check_server(echo, [frames])


def test_every_illegal_frame_is_refused_by_the_server_with_the_right_code(echo: int) -> None:
    illegal = [[frame] for frame in EVERY_FRAME if not is_legal([frame]) and frame.opcode != CLOSE]
    assert len(illegal) > 2000
    check_server(echo, illegal)


def test_every_frame_that_is_illegal_inside_a_message_is_refused_by_the_server(echo: int) -> None:
    opening = Frame(TEXT, b"a", fin=False)
    illegal = [
        [opening, frame]
        for frame in EVERY_FRAME
        if frame.masked and len(frame.payload) < 1000 and frame.opcode != CLOSE
        if not is_legal([opening, frame])
    ]
    assert len(illegal) > 500
    check_server(echo, illegal)


def test_every_close_code_is_answered_or_refused_by_the_server(echo: int) -> None:
    wrong = [frame for frame in EVERY_FRAME if frame.opcode == CLOSE and frame.masked]
    check_server(echo, [[frame] for frame in [*CLOSES, *wrong]])


def test_what_follows_a_close_frame_in_the_same_read_counts_for_nothing(echo: int) -> None:
    closes = [close(1000, b"bye"), close(4999), Frame(CLOSE)]
    behind = [
        close(1000),
        close(1005),
        Frame(CLOSE, b"x"),
        Frame(3),
        Frame(TEXT, b"x", rsv=4),
        Frame(TEXT, b"x", masked=False),
        Frame(BINARY, b"", claims=2**40),
    ]
    talks = [[wire_of([first, second])] for first in closes for second in behind]
    answers = exchange_all(echo, talks)
    codes = [[code_of(frame) for frame in answer] for answer in answers]
    named, unnamed = codes[: 2 * len(behind)], codes[2 * len(behind) :]
    assert named == [[code] for code in (1000, 4999) for _ in behind]
    assert all(answer in ([None], [1000]) for answer in unnamed), unnamed


def test_text_that_is_no_utf_8_is_refused_by_the_server_as_soon_as_it_is_seen(echo: int) -> None:
    whole = [[Frame(TEXT, text)] for text in BAD_TEXTS]
    in_parts = [
        [Frame(TEXT, text[:cut], fin=False), Frame(CONTINUATION, text[cut:])]
        for text in BAD_TEXTS
        for cut in range(len(text))
    ]
    unfinished = [[Frame(TEXT, b"a" + text, fin=False)] for text in BAD_TEXTS[:8]]
    check_server(echo, whole + in_parts)
    check_server(echo, unfinished)


def test_a_message_that_is_announced_as_too_big_is_refused_before_it_comes(echo: int) -> None:
    part = Frame(BINARY, b"x" * 1000, fin=False)
    check_server(
        echo,
        [
            [Frame(BINARY, b"", claims=MAX + 1)],
            [Frame(TEXT, b"", claims=2**62)],
            [Frame(BINARY, b"", fin=False, claims=MAX + 1)],
            [part, Frame(CONTINUATION, b"", fin=False, claims=2**40)],
            [part, Frame(PING, b""), Frame(CONTINUATION, b"", claims=MAX + 1)],
        ],
    )


def test_a_message_in_too_many_fragments_is_refused(echo: int) -> None:
    # so many that no limit on their number can be above it
    tiny = [Frame(TEXT, fin=False), *[Frame(CONTINUATION, fin=False)] * 20_000]
    (answer,) = exchange_all(echo, [[wire_of(tiny)]])
    assert [code_of(frame) for frame in answer] == [1009]


def test_a_large_message_comes_back_whole_or_in_fragments(echo: int) -> None:
    large = b"\x00\xff" * 2**20
    step = 64 * 1024
    parts = [large[at : at + step] for at in range(0, len(large), step)]
    fragments = [
        Frame(BINARY if not n else CONTINUATION, part, fin=n == len(parts) - 1)
        for n, part in enumerate(parts)
    ]
    data = wire_of([Frame(BINARY, large), *fragments, GOODBYE])
    (answer,) = exchange_all(echo, [[data[:100], data[100 : 2**20], data[2**20 :]]])
    assert [frame.payload == large for frame in answer[:2]] == [True, True]
    assert [code_of(frame) for frame in answer[2:]] == [1000]


SHORT_EXCHANGES = {
    "text": [Frame(TEXT, "a–b".encode()), close(1000, b"bye")],
    "fragments with a ping between": [
        Frame(TEXT, "–".encode()[:1], fin=False),
        Frame(PING, b"p"),
        Frame(CONTINUATION, "–".encode()[1:2], fin=False),
        Frame(CONTINUATION, "–".encode()[2:]),
        Frame(CLOSE),
    ],
    "16 bits of length": [Frame(BINARY, b"x" * 126), close(4999)],
    "a fault at the end": [Frame(BINARY, b"ok"), Frame(PING, b"p"), Frame(3)],
    "a fault in the text": [Frame(TEXT, b"ok"), Frame(TEXT, b"\xed\xa0\x80")],
    "a close that may not be": [Frame(PONG, b"unasked"), close(1005)],
}


@pytest.mark.parametrize("name", SHORT_EXCHANGES)
def test_an_exchange_cut_at_every_byte_is_the_same_exchange(echo: int, name: str) -> None:
    frames = SHORT_EXCHANGES[name]
    data, model = wire_of(frames), server_model(frames)
    talks = [[data[:cut], data[cut:]] for cut in range(len(data))]
    for cut, answer in enumerate(exchange_all(echo, talks, pause=0.01)):
        check_answer(model, answer, (name, cut), lost=1 if model.peer is None else 0)


payloads = st.one_of(
    st.binary(max_size=6),
    st.sampled_from(
        [b"", "–".encode()[:1], "–".encode()[1:], "😀".encode()[:3], b"\x80", b"x" * 126]
    ),
    st.text(max_size=4).map(lambda text: text.encode()),
)
some_frames = st.builds(
    Frame,
    st.sampled_from([TEXT, BINARY, CONTINUATION, CONTINUATION, CONTINUATION, PING, PONG]),
    payloads,
    st.booleans(),
)
frames_of_all_kinds = st.one_of(
    some_frames,
    some_frames,
    some_frames.map(lambda frame: replace(frame, fin=True)),
    st.builds(Frame, st.integers(0, 15), payloads, st.booleans(), st.sampled_from([0, 0, 1, 2, 4])),
    st.sampled_from(CLOSES),
)
sequences = st.lists(frames_of_all_kinds, min_size=1, max_size=8)
few = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking over sockets takes minutes
)


@few
@given(st.lists(sequences, min_size=8, max_size=16))
def test_any_sequence_of_frames_has_the_reaction_that_the_model_says(
    echo: int, batch: list[list[Frame]]
) -> None:
    check_server(echo, batch)


@st.composite
def fragmented(draw: st.DrawFn) -> list[Frame]:
    """A message in pieces that care for nothing, with control frames between them."""
    text = draw(st.booleans())
    data = draw(st.text(max_size=12)).encode() if text else draw(st.binary(max_size=12))
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    edges = [0, *cuts, len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(edges)]
    frames = []
    for n, part in enumerate(parts):
        if draw(st.integers(0, 9)) == 0:  # of many pings in one read only some are answered
            frames.append(Frame(draw(st.sampled_from([PING, PONG])), draw(st.binary(max_size=5))))
        opcode = CONTINUATION if n else TEXT if text else BINARY
        frames.append(Frame(opcode, part, fin=n == len(parts) - 1))
    return frames


@few
@given(st.lists(fragmented(), min_size=5, max_size=20))
def test_messages_in_any_fragments_with_control_frames_between_come_back_whole(
    echo: int, messages: list[list[Frame]]
) -> None:
    frames = list(itertools.chain(*messages))
    assert len(server_model(frames).delivered) == len(messages)
    check_server(echo, [frames])


# ---- the client's side -------------------------------------------------------------------


class Noted:
    """A receiver that writes down what it is told."""

    def __init__(self) -> None:
        self.delivered: list[tuple[int, bytes]] = []
        self.ends: list[tuple[int, str]] = []
        self.ended = asyncio.Event()

    def received(self, opcode: int, payload: bytes | memoryview) -> None:
        assert not self.ends
        self.delivered.append((int(opcode), bytes(payload)))

    def heard(self) -> None:
        assert not self.ends

    def closed(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self.ended.set()

    def pause_writing(self) -> None:
        """What is written here is small."""

    resume_writing = pause_writing


def answer_to(request: bytes) -> bytes:
    key = request.lower().split(b"sec-websocket-key:")[1].split(b"\r\n")[0]
    at = request.lower().index(key)
    magic = request[at : at + len(key)].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(magic).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
    )


def has_close(data: bytes) -> bool:
    """Whether a client wrote a whole close frame."""
    try:
        return any(frame.opcode == CLOSE for frame in parse(data, unmask=True))
    except (AssertionError, IndexError):
        return False


async def client_reads(pieces: Sequence[bytes]) -> tuple[Noted, list[Frame]]:
    """Have our client read bytes; return what it was told and the frames that it wrote."""
    loop = asyncio.get_running_loop()
    written: asyncio.Future[bytes] = loop.create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = b""
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer_to(request) + pieces[0])
            for piece in pieces[1:]:
                await asyncio.sleep(0.01)
                writer.write(piece)
            while (piece := await reader.read(1 << 16)) and not has_close(data + piece):
                data += piece
            data += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
        finally:
            writer.close()
            written.set_result(data)

    noted = Noted()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with asyncio.timeout(20):
            transport = await PicowsNetwork().connect(
                f"ws://127.0.0.1:{port}/", noted, max_message=CLIENT_MAX
            )
            await noted.ended.wait()
            data = await written
        transport.abort()
    return noted, parse(data, unmask=True)


CLIENT_MAX = 2**20


def client_model(frames: Sequence[Frame]) -> Reaction:
    return react(frames, from_client=False, max_message=CLIENT_MAX)


def check_client(sequences: Sequence[Sequence[Frame]]) -> None:
    """The mirror of :func:`check_server`."""

    async def check(frames: Sequence[Frame]) -> None:
        frames = list(frames)
        if not client_model(frames).close:
            frames.append(replace(GOODBYE, masked=False))
        model = client_model(frames)
        noted, answer = await client_reads(pieces_of(frames, model))
        check_answer(
            Reaction(close=model.close, in_order=[one for one in model.in_order if one[0] == PONG]),
            answer,
            frames,
            lost=1 if model.peer is None else 0,
        )
        admitted = [model.delivered] if model.peer else [model.delivered, model.delivered[:-1]]
        assert noted.delivered in admitted, (frames, shorten(noted.delivered))
        assert len(noted.ends) == 1
        code, reason = noted.ends[0]
        if model.peer is not None:
            assert (code, reason) == model.peer
        else:
            assert code in model.close, (frames, code)

    wrong: list[str] = []

    async def note(frames: Sequence[Frame]) -> None:
        try:
            await check(frames)
        except AssertionError as error:
            wrong.append(str(error).splitlines()[0][:400])

    async def main() -> None:
        for start in range(0, len(sequences), 40):
            async with asyncio.TaskGroup() as group:
                for frames in sequences[start : start + 40]:
                    group.create_task(note(frames))

    asyncio.run(main())
    assert not wrong, "\n".join([f"{len(wrong)} of {len(sequences)}", *wrong[:20]])


def from_server(frames: Sequence[Frame]) -> list[Frame]:
    return [replace(frame, masked=not frame.masked) for frame in frames]


def test_every_legal_frame_is_taken_by_the_client() -> None:
    frames = [
        one
        for frame in from_server(LEGAL)
        if not client_model(finished(frame)).close
        for one in (finished(frame) if frame.fin else [frame, Frame(0, b"end", masked=False)])
        if frame.opcode != CLOSE
    ]
    frames = [replace(frame, masked=False) for frame in frames]
    assert len(frames) > 10
    check_client([frames])


def test_every_illegal_frame_is_refused_by_the_client_with_the_right_code() -> None:
    illegal = [
        [frame]
        for frame in from_server(EVERY_FRAME)
        if frame.opcode != CLOSE and len(frame.payload) < 1000
        if frame.rsv in (0, 1, 2, 4) and (not frame.masked or frame.length == "7")
        if client_model([frame]).close
    ]
    assert len(illegal) > 500
    check_client(illegal)


def test_every_close_code_is_taken_or_refused_by_the_client() -> None:
    check_client([[frame] for frame in from_server(CLOSES)])


def test_text_that_is_no_utf_8_is_refused_by_the_client() -> None:
    whole = [[Frame(TEXT, text, masked=False)] for text in BAD_TEXTS]
    unfinished = [[Frame(TEXT, text, fin=False, masked=False)] for text in BAD_TEXTS[:8]]
    check_client(whole + unfinished)


def test_a_message_too_big_is_refused_by_the_client() -> None:
    part = Frame(BINARY, b"x" * 1000, fin=False, masked=False)
    check_client(
        [
            [Frame(BINARY, claims=CLIENT_MAX + 1, masked=False)],
            [part, Frame(CONTINUATION, b"x" * CLIENT_MAX, masked=False)],
        ]
    )


@few
@given(st.lists(sequences, min_size=4, max_size=8))
def test_the_client_reacts_to_any_sequence_of_frames_as_the_model_says(
    batch: list[list[Frame]],
) -> None:
    check_client([from_server(frames) for frames in batch])


@pytest.mark.parametrize("name", SHORT_EXCHANGES)
def test_for_the_client_too_an_exchange_cut_at_every_byte_is_the_same(name: str) -> None:
    frames = from_server(SHORT_EXCHANGES[name])
    data, model = wire_of(frames), client_model(frames)

    async def check(cut: int) -> None:
        noted, answer = await client_reads([data[:cut], data[cut:]])
        admitted = [model.delivered] if model.peer else [model.delivered, model.delivered[:-1]]
        assert noted.delivered in admitted, cut
        assert code_of(answer[-1]) in model.close, cut

    async def main() -> None:
        for start in range(0, len(data), 40):
            async with asyncio.TaskGroup() as group:
                for cut in range(start, min(start + 40, len(data))):
                    group.create_task(check(cut))

    asyncio.run(main())


def test_the_model_knows_the_codes_that_may_be_sent() -> None:
    sent = [code for code in range(5001) if legal_close_code(code)]
    assert sent[:12] == [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014]
    assert sent[12] == 3000
    assert sent[-1] == 4999
