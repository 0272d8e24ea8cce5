"""The client for code that blocks: scripts, threads, Flask, notebooks.

The same names as in :mod:`everwire`, without ``async`` and ``await``::

    from everwire.sync import connect

    with connect("ws://127.0.0.1:8000/ws", token="t-ada") as client:
        print(client.publish("chat:lobby", {"text": "hello"}).position)
        with client.subscribe("chat:lobby") as room:
            for item in room:
                print(item)

Whatever is used here is safe to use from several threads. All of it runs on one event loop in
a thread of its own, which the first call starts. When the process exits, what is open is
closed. After a fork, a child connects anew.

A call that is interrupted, as by Ctrl-C, is cancelled on the loop: what the docstrings say of
interrupting holds then. Hooks (``on_state``, ``on_event``, …) are called on the loop's thread,
and must not block; ``token`` and other functions that return something run in threads.
"""

from __future__ import annotations

from .client import Client
from .connect import connect
from .pool import Pool
from .socket import Socket
from .socket_pool import SocketPool
from .streams import Stream
from .subscription import StatefulSubscription, Subscription

__all__ = [
    "Client",
    "Pool",
    "Socket",
    "SocketPool",
    "StatefulSubscription",
    "Stream",
    "Subscription",
    "connect",
]
