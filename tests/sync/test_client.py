"""The blocking API does what the asynchronous one does, from whichever thread."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from everwire import BadData, ClosedOK, ConfigError, Gap, Message, RequestTimeout, Unauthorized
from everwire.client import Ack
from everwire.sync import Socket, connect
from everwire.sync.background import background
from everwire.sync.facade import Iterating

from .conftest import Server


def text(item: Message | Gap) -> object:
    assert isinstance(item, Message)
    return item.data


def interrupt_main() -> None:
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


def test_everything_as_with_the_asynchronous_client(server: Server) -> None:
    with connect(server.url, token="t-ada") as client:
        ack = client.publish("c", {"n": 1})
        assert ack.position is not None
        assert ack.position.offset == 1
        assert client.query("double", {"n": 4}, type=int) == 8
        with client.subscribe("c", presence=True) as room:
            client.publish("c", {"n": 2})
            for item in room:
                assert text(item) == {"n": 2}
                break
            assert room.position is not None
            assert room.position.offset == 2
            assert [member.user for member in room.members.values()] == ["t-ada"]
            client.publish("c", {"n": 3})
            assert text(next(room)) == {"n": 3}
        assert room.state == "unsubscribed"
        assert [text(one) for one in client.history("c", limit=2)] == [{"n": 2}, {"n": 3}]
        assert client.stats.acknowledged == 3
        assert client.state == "ready"
        assert "ready" in repr(client)
    assert client.state == "closed"
    with pytest.raises(ClosedOK):
        client.publish("c", 1)


def test_without_with_it_is_opened_and_closed_by_hand(server: Server) -> None:
    client = connect(server.url)
    with pytest.raises(ConfigError, match="open the client first"):
        client.publish("c", 1)
    assert client.open() is client
    client.publish("c", 1)
    client.close()
    client.close()
    assert client.state == "closed"


def test_what_is_raised_is_what_the_asynchronous_client_raises(
    server: Server, deaf_port: int
) -> None:
    with connect(server.url) as client:
        with pytest.raises(BadData):
            client.publish("c", object())
        with pytest.raises(RequestTimeout):
            client.query("forever", timeout=0.05)
    with pytest.raises(OSError, match=r"Connect call failed|refused"):
        connect(f"ws://127.0.0.1:{deaf_port}/ws", timeout=0.2).open()
    with pytest.raises(ConfigError):
        connect("http://127.0.0.1")


def test_a_subscription_that_is_only_iterated_is_entered_and_left(server: Server) -> None:
    with connect(server.url) as client:
        ack = client.publish("c", 1)
        for since in (ack.position, None):
            room = client.subscribe("c", since=since)
            items = iter(room)
            done = threading.Event()

            def publish(done: threading.Event = done) -> None:
                while not done.wait(0.01):
                    client.publish("c", 2)

            publishing = threading.Thread(target=publish)
            publishing.start()
            assert text(next(items)) == 2
            done.set()
            publishing.join()
            del items  # as at the end of a for loop
            assert room.state == "unsubscribed"


def test_a_timeout_ends_the_waiting_and_loses_nothing(server: Server) -> None:
    with connect(server.url) as client, client.subscribe("c") as room:
        with pytest.raises(TimeoutError):
            room.get(timeout=0.01)
        for n in range(3):
            client.publish("c", n)
        items = room.iterate(timeout=0.05)
        assert [text(next(items)) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(TimeoutError):
            next(items)
        client.publish("c", "later")
        assert text(room.get(timeout=5)) == "later"


def test_iteration_ends_with_the_subscription_and_with_the_client(server: Server) -> None:
    with connect(server.url) as client:
        with client.subscribe("c") as room:
            threading.Timer(0.05, room.unsubscribe).start()
            assert list(room) == []
            with pytest.raises(ClosedOK):
                room.get()
        with client.subscribe("c") as room:
            threading.Timer(0.05, client.close).start()
            assert list(room) == []


def test_many_threads_share_one_client_and_one_loop(server: Server) -> None:
    def work(number: int) -> list[Ack]:
        acks = []
        for n in range(10):
            acks.append(client.publish("c", [number, n]))
            assert client.query("double", {"n": n}, type=int) == 2 * n
        return acks

    with connect(server.url) as client:
        with ThreadPoolExecutor(50) as threads:
            acks = [ack for done in threads.map(work, range(50)) for ack in done]
        offsets = sorted(ack.position.offset for ack in acks if ack.position is not None)
        assert offsets == list(range(1, 501))
        stored = [text(one) for one in client.history("c", limit=500)]
        for number in range(50):
            mine = [n for who, n in stored if who == number]  # type: ignore[misc]
            assert mine == list(range(10)), "the order of one thread is kept"
    assert [thread.name for thread in threading.enumerate()].count("everwire.sync") == 1


def test_each_item_goes_to_one_of_the_threads_that_iterate(server: Server) -> None:
    seen: list[object] = []

    def read() -> None:
        seen.extend(text(item) for item in room)

    with connect(server.url) as client, client.subscribe("c") as room:
        readers = [threading.Thread(target=read) for _ in range(4)]
        for reader in readers:
            reader.start()
        for n in range(200):
            client.publish_nowait("c", n)
        while len(seen) < 200:
            readers[0].join(0.01)
        room.unsubscribe()
        for reader in readers:
            reader.join(10)
    assert sorted(seen) == list(range(200))  # type: ignore[type-var]


def test_publish_nowait_returns_a_future_for_threads(server: Server) -> None:
    with connect(server.url) as client:
        futures = [client.publish_nowait("c", n) for n in range(10)]
        assert all(isinstance(future, Future) for future in futures)
        assert [future.result(5).position.offset for future in futures] == list(range(1, 11))  # type: ignore[union-attr]
        with pytest.raises(BadData):
            client.publish_nowait("c", object())
        cancelled = client.publish_nowait("c", "all the same")
        cancelled.cancel()
        client.publish("c", "last")
        assert [text(one) for one in client.history("c", limit=2)] == ["all the same", "last"]


def test_a_stream_is_iterated_and_ends_on_the_server_when_it_is_left(server: Server) -> None:
    with connect(server.url) as client:
        assert list(client.stream("count", {"n": 100}, type=int)) == list(range(100))
        server.cancelled.clear()
        with client.stream("count", {"n": 10_000}) as stream:
            assert next(stream) == 0
            assert stream.get(timeout=5) == 1
        assert server.cancelled.wait(5)
        server.cancelled.clear()
        for part in client.stream("count", {"n": 10_000}):
            assert part == 0
            break
        assert server.cancelled.wait(5)


def test_functions_that_are_called_with_messages_may_block_and_call_back(server: Server) -> None:
    seen: list[object] = []
    done = threading.Event()

    def on_message(message: Message) -> None:
        assert threading.current_thread().name != "everwire.sync"
        seen.append(client.query("double", {"n": message.data}, type=int))
        if len(seen) == 3:
            done.set()

    with connect(server.url) as client:
        room = client.subscribe("c", on_message=on_message).open()
        for n in range(3):
            client.publish("c", n)
        assert done.wait(10)
        room.unsubscribe()
    assert seen == [0, 2, 4]


# ---- interrupting ------------------------------------------------------------------------


def test_ctrl_c_cancels_the_call_and_raises(server: Server) -> None:
    def interrupt() -> None:
        assert server.began.wait(10)
        interrupt_main()

    with connect(server.url) as client:
        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            client.query("forever", timeout=60)
        interrupting.join()
        assert server.cancelled.wait(5), "the handler on the server was not cancelled"
        assert client.query("double", {"n": 1}) == 2


def test_an_item_taken_when_ctrl_c_came_is_there_the_next_time() -> None:
    class Source:
        taken = 0

        def __aiter__(self) -> AsyncIterator[int]:
            return self

        async def __anext__(self) -> int:
            self.taken += 1
            if self.taken % 2:
                interrupt_main()
            return self.taken

    home = background()
    items: Iterating[Source, int] = Iterating(home, home.do(Source))
    seen: list[int] = []
    while len(seen) < 50:
        try:
            seen.append(items.get())
        except KeyboardInterrupt:
            home.do(lambda: None)  # whatever was under way has come to its end
    assert seen == list(range(1, 51))


# ---- where it must not block ---------------------------------------------------------------


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(RuntimeError) as error:
        call()
    return str(error.value)


def test_inside_an_event_loop_it_names_the_asynchronous_api(server: Server) -> None:
    async def main() -> None:
        assert "from everwire import connect" in refused(lambda: connect(server.url))
        assert "from everwire import connect" in refused(lambda: client.publish("c", 1))
        assert await asyncio.to_thread(client.query, "double", {"n": 2}) == 4

    with connect(server.url) as client:
        asyncio.run(main())


def test_in_a_hook_it_says_that_it_would_wait_for_itself(server: Server) -> None:
    said: list[str] = []
    with connect(server.url) as client:
        client.on_state = lambda state: said.append(refused(lambda: client.publish("c", state)))
        assert client.on_state is not None
    assert len(said) == 2
    assert all("wait for itself" in one for one in said)


def test_a_token_function_may_block_and_call_the_blocking_api(server: Server) -> None:
    def token() -> str:
        assert threading.current_thread().name != "everwire.sync"
        with connect(server.url, token="t-first") as first:
            return f"t-{first.query('double', {'n': 21})}"

    async def later() -> str:
        return "t-async"

    with connect(server.url, token=token), connect(server.url, token=lambda: "t-lambda"):
        pass
    with connect(server.url, token=later):
        pass
    assert sorted(server.tokens) == ["t-42", "t-async", "t-first", "t-lambda"]


def test_a_refused_token_is_an_error_of_entering(server: Server) -> None:
    def token() -> str:
        raise Unauthorized("nobody is logged in")

    with pytest.raises(Exception, match="nobody is logged in"):
        connect(server.url, token=token, timeout=0.3).open()


# ---- Socket --------------------------------------------------------------------------------


def test_a_socket_to_any_server(server: Server) -> None:
    """Its URL may be a function that blocks; its hooks can be set, and are called."""
    states: list[str] = []

    def url() -> str:
        assert threading.current_thread().name != "everwire.sync"
        return server.url

    with Socket(url, on_state=states.append) as socket:
        assert socket.on_state is not None
        socket.send_json({"action": "subscribe", "channel": "c"})
        assert '"c"' in str(socket.recv())
        socket.drop()
        future = socket.send_nowait('{"action": "subscribe", "channel": "d"}')
        assert future.result(10) is None
        assert '"d"' in str(next(socket))
        with pytest.raises(TimeoutError):
            socket.get(timeout=0.01)
        assert socket.stats.opened == 2
        socket.on_state = None
    assert socket.state == "closed"
    assert list(socket) == []
    assert states == ["ready", "connecting", "ready"]
