"""What ``net/websocket`` takes for granted about picows' inside, one test for each.

Each says what would break. A new version of picows that fails one of these is not to be
let in before the place named is changed. Two things cannot occur and have no test of their
own: picows' own server (``ws_create_server``), with its statuses, its own handshake and its
default backlog, is not used; and its per-connection ping task is never started. That its
read buffer never shrinks has its test in ``tests/attacks``, where memory can be seen.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import everwire
from everwire.limits import Limits
from everwire.net.heartbeat import Wheel
from everwire.net.transport import Handshake, Receiver, Transport
from everwire.net.websocket import PicowsNetwork
from everwire.protocol.frames import frame
from everwire.server.native.listener import Listener

from .model import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, parse
from .test_rfc6455 import answer_to, wire_of
from .wire import REQUEST, code_of, split_head


class Kept:
    """A receiver that keeps what it is given, uncopied."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport
        self.received_: list[tuple[int, Any]] = []
        self.ends: list[tuple[int, str]] = []
        self.pauses = 0
        self.writing = False
        self.paused_inside = 0
        self.news = asyncio.Event()

    def received(self, opcode: int, payload: Any) -> None:
        self.received_.append((int(opcode), payload))
        self.news.set()

    def heard(self) -> None:
        self.news.set()

    def closed(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self.news.set()

    def pause_writing(self) -> None:
        self.pauses += 1
        self.paused_inside += self.writing

    def resume_writing(self) -> None:
        self.pauses -= 1

    def write(self, data: bytes) -> None:
        self.writing = True
        self.transport.write(data)
        self.writing = False

    @property
    def payloads(self) -> list[Any]:
        return [payload for _, payload in self.received_]

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.news.clear()
                await self.news.wait()


class Served:
    """A listener, the receivers that it made, and a way to talk to it."""

    def __init__(self) -> None:
        self.receivers: list[Any] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.listener: Listener

    async def dial(self, request: bytes = REQUEST, more: bytes = b"") -> Any:
        """Open a WebSocket; return its reader, its writer, and the server's receiver."""
        count = len(self.receivers)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.listener.port, limit=2**26)
        self.writers.append(writer)
        writer.write(request + more)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        return reader, writer, self.receivers[count]


@asynccontextmanager
async def listening(
    make: Callable[[Transport], Receiver] = Kept, **limits: Any
) -> AsyncIterator[Served]:
    served = Served()
    wheel = Wheel(asyncio.get_running_loop())

    def accept(transport: Transport, handshake: Handshake) -> Receiver:
        receiver = make(transport)
        served.receivers.append(receiver)
        return receiver

    served.listener = Listener(
        limits=Limits(**limits),
        wheel=wheel,
        accept=accept,
        paths=frozenset({"/ws"}),
        assets={},
    )
    wheel.start()
    await served.listener.start("127.0.0.1", 0)
    try:
        yield served
    finally:
        served.listener.close()
        wheel.stop()
        for writer in served.writers:
            writer.transport.abort()
        for receiver in served.receivers:
            receiver.transport.abort()
        await asyncio.sleep(0.01)


def on_sockets(
    scenario: Callable[[Served], Coroutine[Any, Any, None]],
    make: Callable[[Transport], Receiver] = Kept,
    **limits: Any,
) -> None:
    async def main() -> None:
        async with listening(make, **limits) as served:
            await scenario(served)

    asyncio.run(main())


def protocol_of(receiver: Kept) -> Any:
    return receiver.transport._picows.underlying_transport.get_protocol()


async def read_frames(reader: asyncio.StreamReader) -> list[Frame]:
    async with asyncio.timeout(10):
        try:
            return parse(await reader.read(-1))
        except ConnectionResetError:
            return []


def close_frame(code: int = 1000) -> Frame:
    return Frame(CLOSE, code.to_bytes(2, "big"))


# ---- the handshake ---------------------------------------------------------------------


def test_only_the_versions_that_these_tests_ran_with_are_admitted() -> None:
    assert re.match(r"2\.3\.", version("picows"))
    assert re.match(r"1\.2\.", version("aiofastnet"))


@pytest.mark.parametrize(
    "change",
    [
        (b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),  # as Firefox has it
        (b"Connection: Upgrade", b"Connection: upgrade,x"),
        (b"Host: h\r\n", b"Host: h\r\nX-Empty:\r\nX-Latin: \xe9\r\n"),
        (b"Upgrade: websocket", b"Upgrade: WebSocket"),
    ],
)
def test_picows_never_sees_the_clients_request(change: tuple[bytes, bytes]) -> None:
    """It refuses some that are legal: so ``accept_upgrade`` shows it one of our own."""

    async def scenario(served: Served) -> None:
        await served.dial(REQUEST.replace(*change))

    on_sockets(scenario)


def test_the_request_that_picows_is_shown_keeps_its_read_buffer_small() -> None:
    """The buffer never shrinks, so a long request would cost each connection for good."""

    async def scenario(served: Served) -> None:
        long = REQUEST[:-2] + b"Cookie: " + b"c" * 7000 + b"\r\n\r\n"
        _, _, receiver = await served.dial(long)
        assert len(protocol_of(receiver).get_buffer(-1)) <= 2048

    on_sockets(scenario)


def test_the_headers_are_dropped_and_nothing_misses_them() -> None:
    """``on_ws_connected`` drops them; picows must not read them again, not even at the end."""

    async def scenario(served: Served) -> None:
        reader, writer, receiver = await served.dial()
        assert receiver.transport._picows.request.headers is None
        assert receiver.transport._picows.response.headers is None
        writer.write(wire_of([Frame(TEXT, b"x"), close_frame()]))
        assert [code_of(one) for one in await read_frames(reader)] == [1000]
        assert receiver.payloads == [b"x"]

    on_sockets(scenario)


@pytest.mark.parametrize("cut", [0, 1, 5, 7, 12])
def test_frames_in_the_segment_of_the_handshake_are_delivered_in_order(cut: int) -> None:
    """They are fed to picows by hand: ``get_buffer``, ``buffer_updated``."""

    async def scenario(served: Served) -> None:
        data = wire_of([Frame(TEXT, b"a"), Frame(BINARY, b"b"), Frame(TEXT, b"c")])
        _, writer, receiver = await served.dial(more=data[:cut])
        writer.write(data[cut:])
        await receiver.until(lambda: len(receiver.payloads) == 3)
        assert receiver.received_ == [(TEXT, b"a"), (BINARY, b"b"), (TEXT, b"c")]

    on_sockets(scenario)


def test_a_large_leftover_of_the_handshake_is_fed_whole() -> None:
    async def scenario(served: Served) -> None:
        messages = [b"%d" % n * 100 for n in range(1, 400)]
        data = wire_of([Frame(BINARY, message) for message in messages])
        _, _, receiver = await served.dial(more=data)
        await receiver.until(lambda: len(receiver.payloads) == len(messages))
        assert receiver.payloads == messages

    on_sockets(scenario)


def test_frames_behind_a_handshake_that_is_turned_away_are_not_delivered() -> None:
    class Leaving(Kept):
        def __init__(self, transport: Any) -> None:
            super().__init__(transport)
            transport.close(1013, "full")

    async def scenario(served: Served) -> None:
        reader, _, receiver = await served.dial(more=wire_of([Frame(TEXT, b"a"), Frame(3)]))
        frames = await read_frames(reader)
        assert [code_of(one) for one in frames] == [1013]
        assert receiver.payloads == []
        await receiver.until(lambda: receiver.ends)
        assert len(receiver.ends) == 1

    on_sockets(scenario, Leaving)


def test_what_the_application_raises_at_a_handshake_is_not_told_to_the_client(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """picows answers 500 with the exception's text: nothing may raise in its factory."""

    def fail(transport: Transport) -> Receiver:
        raise RuntimeError("postgres://user:secret@db")

    async def scenario(served: Served) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.listener.port)
        served.writers.append(writer)
        writer.write(REQUEST)
        async with asyncio.timeout(5):
            try:
                answer = await reader.read(-1)
            except ConnectionResetError:
                answer = b""
        assert b"secret" not in answer
        assert b"RuntimeError" not in answer

    on_sockets(scenario, fail)
    assert len(caplog.records) == 1


def test_the_backlog_takes_a_storm_of_connections() -> None:
    """The default of 100 makes clients wait seconds for the kernel to try again."""

    async def scenario(served: Served) -> None:
        (backlog,) = backlogs(served.listener.port)
        most = int(Path("/proc/sys/net/core/somaxconn").read_text())
        assert backlog == min(4096, most)

    on_sockets(scenario)


def backlogs(port: int) -> list[int]:
    """Of this process' sockets that listen on a port, how many connections may wait there."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with sock:
            if (
                sock.family == socket.AF_INET
                and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and sock.getsockname()[1] == port
            ):
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
                found.append(int.from_bytes(info[28:32], sys.byteorder))  # tcpi_sacked
    return found


# ---- reading ---------------------------------------------------------------------------


def test_a_flood_of_small_messages_does_not_grow_the_read_buffer() -> None:
    """It doubles whenever a read fills it: SO_RCVBUF, set on the listening socket, bounds it."""

    async def scenario(served: Served) -> None:
        _, writer, receiver = await served.dial()
        writer.write(wire_of([Frame(BINARY, b"x" * 100)]) * 80_000)
        await writer.drain()
        await receiver.until(lambda: len(receiver.received_) == 80_000)
        await asyncio.sleep(0)
        assert len(protocol_of(receiver).get_buffer(-1)) <= 512 * 1024

    on_sockets(scenario)


def test_pings_are_ours_to_answer_and_each_read_has_a_last_frame() -> None:
    """picows' own answers hide the last frame of a read: what waits for it would wait for ever."""

    async def scenario(served: Served) -> None:
        reader, writer, receiver = await served.dial()
        pings = [Frame(PING, b"%d" % n) for n in range(40)]
        writer.write(wire_of([Frame(TEXT, b"a"), *pings, Frame(TEXT, b"b")]))
        await receiver.until(lambda: len(receiver.payloads) == 2)
        writer.write(wire_of([Frame(TEXT, b"c"), Frame(PING, b"last"), close_frame()]))
        pongs = [one.payload for one in await read_frames(reader) if one.opcode == PONG]
        assert pongs[:2] == [b"0", b"1"]
        assert b"39" in pongs  # the most recent one of a flood is always answered
        assert pongs[-1] == b"last"
        assert len(pongs) < 40

    on_sockets(scenario)


def test_payloads_stay_what_they_were_when_more_is_read() -> None:
    """picows lends its buffer for the time of the call: what is handed on must be a copy."""

    async def scenario(served: Served) -> None:
        _, writer, receiver = await served.dial()
        writer.write(wire_of([Frame(TEXT, b"aaaa"), Frame(TEXT, b"bbbb")]))
        writer.write(wire_of([Frame(TEXT, b"cc", fin=False), Frame(CONTINUATION, b"cc")]))
        await receiver.until(lambda: len(receiver.payloads) == 3)
        writer.write(wire_of([Frame(BINARY, b"zzzzzz")] * 100))
        await receiver.until(lambda: len(receiver.payloads) == 103)
        assert receiver.payloads[:3] == [b"aaaa", b"bbbb", b"cccc"]

    on_sockets(scenario)


def test_an_exception_in_handling_a_message_ends_the_connection_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """picows logs a traceback for each frame, goes on delivering, and ends 10 ms later."""

    class Failing(Kept):
        def received(self, opcode: int, payload: Any) -> None:
            super().received(opcode, payload)
            raise RuntimeError("secret")

    async def scenario(served: Served) -> None:
        reader, writer, receiver = await served.dial()
        writer.write(wire_of([Frame(TEXT, b"x")] * 5))
        frames = await read_frames(reader)
        assert [code_of(one) for one in frames] == [1011]
        assert b"secret" not in frames[0].payload
        assert len(receiver.received_) == 1
        assert [code for code, _ in receiver.ends] == [1011]

    on_sockets(scenario, Failing)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("bad", [Frame(3), Frame(TEXT, masked=False), Frame(CLOSE, b"x")])
def test_what_the_parser_refuses_comes_once_and_leaves_no_line_in_the_log(
    bad: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    """It calls its logger with ``((code, text),)``, for the frame and for each later read."""
    caplog.set_level(logging.INFO)

    async def scenario(served: Served) -> None:
        reader, writer, receiver = await served.dial()
        writer.write(bad.encode())
        for _ in range(5):
            await asyncio.sleep(0.001)
            writer.write(wire_of([Frame(TEXT, b"x"), Frame(TEXT, b"x")]))
        frames = await read_frames(reader)
        assert [code_of(one) for one in frames] == [1002]
        ((code, reason),) = receiver.ends
        assert code == 1002
        assert "Received" in reason
        assert receiver.payloads == []

    on_sockets(scenario)
    assert not caplog.records


def test_a_link_held_for_its_last_word_is_let_go_with_the_loop_at_the_latest() -> None:
    async def scenario(served: Served) -> None:
        reader, writer, _ = await served.dial()
        writer.write(Frame(3).encode())
        assert [frame.opcode for frame in await read_frames(reader)] == [CLOSE]

    before = own_sockets()
    on_sockets(scenario)
    assert own_sockets() == before


def own_sockets() -> set[str]:
    """This process' sockets, as the kernel numbers them."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            if (target := os.readlink(entry)).startswith("socket:"):
                found.add(target)
    return found


def test_a_frame_before_a_refused_one_in_the_same_read_is_not_delivered() -> None:
    """picows parses one frame ahead, and fails before it hands on what it has.

    Nothing hangs on it: who breaks the protocol has no claim to an answer. When this
    changes, ``test_rfc6455.py`` need not send the frames in pieces.
    """

    async def scenario(served: Served) -> None:
        reader, writer, receiver = await served.dial()
        writer.write(wire_of([Frame(TEXT, b"a"), Frame(TEXT, b"b"), Frame(3)]))
        frames = await read_frames(reader)
        assert [code_of(one) for one in frames] == [1002]
        assert receiver.payloads == [b"a"]

    on_sockets(scenario)


@pytest.mark.parametrize("behind", [Frame(CLOSE, b"\x03\xe8"), Frame(3), Frame(TEXT, masked=False)])
def test_what_is_refused_behind_a_close_frame_in_the_same_read_is_nothing(behind: Frame) -> None:
    """picows fails before it hands on the close frame, but has noted it."""

    async def scenario(served: Served) -> None:
        for body in (b"\x0f\xa0bye", b""):
            reader, writer, receiver = await served.dial()
            writer.write(wire_of([Frame(TEXT, b"a"), Frame(CLOSE, body), behind]))
            (frame,) = await read_frames(reader)
            assert code_of(frame) == (4000 if body else 1000)
            assert receiver.payloads == [b"a"]
            assert receiver.ends == [(4000, "bye") if body else (1000, "")]

    on_sockets(scenario)


# ---- writing ---------------------------------------------------------------------------


def test_writes_of_the_hub_do_not_pass_through_picows() -> None:
    """Its ``send`` keeps a copy of the largest message, up to 8 KiB a connection, for good."""

    async def scenario(served: Served) -> None:
        _, _, receiver = await served.dial()
        underlying = receiver.transport._picows.underlying_transport
        assert receiver.transport.write == underlying.write_nocheck

    on_sockets(scenario)


def test_writes_of_all_kinds_under_back_pressure_leave_the_stream_whole() -> None:
    """picows' header for a large message is a view of a buffer that the next send changes.

    aiofastnet copies what it cannot write at once. If it did not, this stream would be torn.
    """

    async def scenario(served: Served) -> None:
        reader, writer, receiver = await served.dial()
        writer.transport.pause_reading()
        expected = []
        for n in range(150):
            large, small = b"%d" % n * 8000, b"%d" % n
            receiver.transport.send(BINARY, large)
            receiver.transport.ping()
            receiver.transport.write(frame(TEXT, small) + frame(BINARY, large[:9000]))
            receiver.transport.send(TEXT, small)
            expected += [(BINARY, large), (PING, b""), (TEXT, small), (BINARY, large[:9000])]
            expected.append((TEXT, small))
            if n % 10 == 0:
                await asyncio.sleep(0)
        assert receiver.pauses == 1
        receiver.transport.close(1000)
        writer.transport.resume_reading()
        data = b""
        async with asyncio.timeout(20):
            while not data.endswith(b"\x88\x02\x03\xe8"):
                data += await reader.read(1 << 20)
        frames = parse(data)
        assert [(one.opcode, one.payload) for one in frames[:-1]] == expected
        writer.close()

    on_sockets(scenario)


def test_the_pause_comes_inside_of_the_write_that_crosses_the_mark(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So whoever writes to many must not change the list of them when told to pause."""

    async def scenario(served: Served) -> None:
        _, writer, receiver = await served.dial()
        writer.transport.pause_reading()
        for _ in range(100):
            receiver.write(frame(BINARY, b"x" * 65536))
        assert (receiver.pauses, receiver.paused_inside) == (1, 1)
        receiver.transport.abort()
        await receiver.until(lambda: receiver.ends)

    on_sockets(scenario)
    assert not caplog.records


def test_nothing_goes_out_after_the_close_frame() -> None:
    """picows lets raw writes through."""

    async def scenario(served: Served) -> None:
        reader, writer, receiver = await served.dial()
        receiver.transport.write(frame(TEXT, b"before"))
        receiver.transport.close(4400, "why")
        receiver.transport.write(frame(TEXT, b"after"))
        receiver.transport.send(TEXT, b"after")
        receiver.transport.ping()
        receiver.transport.close(1000)
        writer.write(wire_of([Frame(TEXT, b"late"), Frame(PING, b"late"), close_frame(4400)]))
        frames = await read_frames(reader)
        assert [one.payload for one in frames] == [b"before", b"\x11\x30why"]
        await receiver.until(lambda: receiver.ends)
        assert receiver.payloads == []

    on_sockets(scenario)


def test_nothing_writes_from_another_thread() -> None:
    """Neither picows nor aiofastnet stops raw writes from there; so no layer has threads."""
    package = Path(everwire.__file__).parent
    for folder in ("net", "hub", "protocol", "server/native"):
        for path in (package / folder).rglob("*.py"):
            text = path.read_text()
            assert not re.search(r"\bimport threading|to_thread|run_in_executor", text), path


# ---- the end ---------------------------------------------------------------------------


async def stand_still(served: Served) -> tuple[Any, Any]:
    """Open a connection whose peer reads nothing, with megabytes waiting for it."""
    _, writer, receiver = await served.dial()
    writer.transport.pause_reading()
    for _ in range(100):
        receiver.transport.write(frame(BINARY, b"x" * 65536))
    assert receiver.transport.write_buffer_size() > 2**20
    return writer, receiver


async def until_dropped(receiver: Any, transport: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while transport.is_open:
            await asyncio.sleep(0.05)
    assert len(receiver.ends) == 1


def test_a_reader_that_stands_still_is_gone_at_once_when_aborted() -> None:
    async def scenario(served: Served) -> None:
        _, receiver = await stand_still(served)
        receiver.transport.close(1000)
        receiver.transport.abort()
        await until_dropped(receiver, receiver.transport, 1)

    on_sockets(scenario)


@pytest.mark.parametrize(
    "last",
    [Frame(3), Frame(TEXT, b"\xff"), Frame(CLOSE, b"x"), close_frame(), Frame(0, b"orphan")],
)
@pytest.mark.parametrize("closed_before", [False, True])
def test_a_reader_that_stands_still_is_dropped_whatever_it_says_last(
    last: Frame, closed_before: bool
) -> None:
    """picows disconnects gracefully, which for such a reader never ends.

    The receiver has been told of the end by then and looks after nothing any more.
    """

    async def scenario(served: Served) -> None:
        writer, receiver = await stand_still(served)
        transport = receiver.transport
        if closed_before:
            transport.close(1000)
        writer.write(last.encode())
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await receiver.until(lambda: receiver.ends)
        if receiver.ends or not closed_before:  # otherwise it still looks after it itself
            await until_dropped(receiver, transport, 2)

    on_sockets(scenario, close_timeout=0.5)


def test_a_client_whose_server_never_hangs_up_hangs_up_itself() -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(answer_to(request) + Frame(CLOSE, masked=False).encode())
                gone.set_result(await reader.read(-1))

        gone = asyncio.get_running_loop().create_future()
        receiver = Kept(None)
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"
            await PicowsNetwork().connect(url, receiver, max_message=1000)
            async with asyncio.timeout(8):
                assert [one.opcode for one in parse(await gone, unmask=True)] == [CLOSE]
                await receiver.until(lambda: receiver.ends)
        assert receiver.ends == [(1005, "")]

    asyncio.run(main())


def test_a_client_that_refuses_a_frame_leaves_no_exception_that_nobody_takes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """picows sets one on a future for ``wait_disconnected``; asyncio logs it when it is lost."""

    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with closing(writer):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(answer_to(request) + Frame(3, masked=False).encode())
                await reader.read(-1)

        receiver = Kept(None)
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}/"
            await PicowsNetwork().connect(url, receiver, max_message=1000)
            await receiver.until(lambda: receiver.ends)
            await asyncio.sleep(0.1)
        assert [code for code, _ in receiver.ends] == [1002]

    asyncio.run(main())
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []


def test_the_handshakes_head_ends_where_the_frames_begin() -> None:
    assert split_head(b"HTTP/1.1 101 x\r\n\r\n\x81\x00") == b"\x81\x00"
