"""Subscribing, and sending history until a reader is where the channel is.

The order of rule 3 of the delivery contract: the broker confirms the subscription; the
subscription is registered as recovering; numbering and history are read in one step; the
answer says where delivery starts; history follows as ordinary messages, a page at a time;
and when the last message that the hub knows of is reached, the subscription joins live,
in one step. The same path takes up readers that were too slow, and heals holes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from ..brokers.base import Page
from ..codes import ErrorCode
from ..errors import BadRequest, BrokerUnavailable, Forbidden, RequestError
from ..hub.patterns import Pattern
from ..hub.registry import Channel, Subscription
from ..protocol import messages as m
from ..protocol.positions import NOWHERE
from ..protocol.states import SubscriptionState
from .access import check_info, filter_of
from .churn import check_churn
from .identity.channel_tokens import check_rights, hold
from .recovering import ALIVE, has_room, push, send_gap, settle
from .turns import Turn

if TYPE_CHECKING:
    from ..limits import Limits
    from .access import Channelled
    from .connection import Connection
    from .identity.rights import ChannelRights
    from .node import Node

Rights: TypeAlias = "Mapping[str, ChannelRights | None]"  # what channels' own tokens allowed


class Begun:
    """A subscription that was registered, and what is to be sent once it was answered."""

    __slots__ = ("asked", "latest", "page", "presence", "subscription")

    def __init__(
        self,
        subscription: Subscription,
        page: Page,
        asked: m.Position | None,
        presence: bool,
        latest: bool,
    ) -> None:
        self.subscription = subscription
        self.page = page
        self.asked = asked
        self.presence = presence
        self.latest = latest


async def subscribe(
    node: Node,
    connection: Connection,
    requests: Sequence[m.ChannelRequest],
    instead: str | None = None,
    *,
    assigned: bool = False,
) -> tuple[list[m.ChannelResult], list[Begun]]:
    """Register subscriptions; whoever is present takes the place of the connection ``instead``.

    Those that are ``assigned`` by the application need no permission.

    Returns:
        A result for each request, and what :func:`follow` takes once they were sent.

    Cancelling leaves those that were registered so far for the connection to release.
    """
    results: list[m.ChannelResult] = []
    begun: list[Begun] = []
    held = 0
    try:
        if not assigned:
            check_churn(connection, len(requests))
    except RequestError as error:
        refused = error_body(error)
        return [m.ChannelResult(one.channel, error=refused) for one in requests], begun
    for request in requests:
        try:
            one = await _subscribe_one(node, connection, request, instead, assigned)
        except RequestError as error:
            results.append(m.ChannelResult(request.channel, error=error_body(error)))
        except BrokerUnavailable as error:
            node.broker_failed()
            unavailable = RequestError(str(error), code=ErrorCode.UNAVAILABLE)
            results.append(m.ChannelResult(request.channel, error=error_body(unavailable)))
        except Exception:
            where = f"the handler of channel {request.channel!r}"
            node.log_defect(where, "a channel's handler")
            results.append(
                m.ChannelResult(
                    request.channel, error=error_body(RequestError(code=ErrorCode.INTERNAL))
                )
            )
        else:
            page, channel = one.page, one.subscription.channel
            start = page.start
            results.append(
                m.ChannelResult(
                    request.channel,
                    channel.sid,
                    start.epoch,
                    start.offset,
                    start.id,
                    one.asked is not None and page.recovered,
                    channel.options.history > 0,
                )
            )
            if page.records:
                held += sum(len(record.payload) for record in page.records)
            # Too much at once is read again when there is room to send it.
            if held > (node.limits.write_high if one.latest else node.limits.write_low):
                one.page = Page(page.top, page.start, (), page.recovered, page.reason)
            begun.append(one)
    for result in results:
        if result.error is not None:
            node.tally.refuse(result.error.code)
    return results, begun


async def _subscribe_one(
    node: Node,
    connection: Connection,
    request: m.ChannelRequest,
    instead: str | None,
    assigned: bool,
) -> Begun:
    name = request.channel
    _check_room(node, connection, name)  # before the application is asked anything
    if assigned:
        granted = node.access.assigned(connection, name)
    else:
        granted = await node.access.ask(connection, name, request.token)
    if not granted.grant.subscribe:
        raise Forbidden(f"not allowed to subscribe to {name!r}")
    if granted.presence:
        check_info(connection, granted)
    before = connection.subscriptions.get(name)
    if before is None:
        _check_room(node, connection, name)
        return await _begin(node, connection, request, granted, instead)
    _drop(node, connection, before)  # subscribed anew, from where it says; it stays present
    try:
        return await _begin(node, connection, request, granted, instead)
    except BaseException:
        # Unless it comes to nothing. Who is gone may be back, and is seen to where it is let go.
        if name not in connection.subscriptions and connection.state in ALIVE:
            node.left(connection, [before])
        raise


async def _begin(
    node: Node,
    connection: Connection,
    request: m.ChannelRequest,
    granted: Channelled,
    instead: str | None,
) -> Begun:
    """Register a subscription, and read where it begins."""
    name = request.channel
    if connection.state not in ALIVE:
        raise RequestError(code=ErrorCode.CANCELLED)
    channel = await _open(node, connection, granted)
    subscription = Subscription(connection, channel)
    subscription.filter = filter_of(node, granted)
    connection.subscriptions[name] = subscription
    node.hub.add(subscription)
    node.hub.keep(subscription)
    if isinstance(channel, Pattern):
        page = Page(NOWHERE, NOWHERE, (), False, "dropped")
        subscription.state = SubscriptionState.RECOVERING
        subscription.begin(channel.position)
        return Begun(subscription, page, request.position, presence=False, latest=False)
    try:
        page = await _first_page(node, granted, request.position)
    except BaseException:
        _drop(node, connection, subscription)
        raise
    if subscription.state is not SubscriptionState.SUBSCRIBING:
        check_rights(connection, granted)
        raise RequestError(code=ErrorCode.CANCELLED)
    node.hub.learn(channel, page.top)
    subscription.state = SubscriptionState.RECOVERING
    subscription.begin(page.start)
    if granted.presence:
        node.presence.appear(connection, granted, subscription, instead)
    watches = request.presence and granted.presence and granted.grant.presence
    return Begun(subscription, page, request.position, watches, granted.latest)


async def _open(node: Node, connection: Connection, granted: Channelled) -> Channel:
    """Have the channel ready, and see whether it is still wanted then."""
    channel = await node.open_channels.open(granted)
    try:
        if connection.state not in ALIVE:
            raise RequestError(code=ErrorCode.CANCELLED)
        hold(connection, granted)
    except RequestError:
        node.hub.unused(channel)
        raise
    return channel


async def _first_page(node: Node, granted: Channelled, position: m.Position | None) -> Page:
    """Read where delivery starts, and what of history comes first."""
    options, may_read = granted.options, granted.grant.history
    if granted.latest and position is None and may_read:
        return await node.broker.latest(granted.key, limit=1, options=options)
    page = await node.broker.read(
        granted.key,
        position,
        limit=node.limits.page,
        limit_bytes=node.limits.write_low,
        options=options,
    )
    if may_read or position is None or (page.recovered and page.start == page.top):
        return page
    # A position is easily made up: whoever may not read history begins with what comes next.
    return Page(page.top, page.top, (), False, page.reason or "expired")


def _check_room(node: Node, connection: Connection, name: str) -> None:
    most = node.limits.subscriptions
    if len(connection.subscriptions) >= most and name not in connection.subscriptions:
        node.count("subscriptions_refused")
        raise RequestError(
            f"a connection may have {most} subscriptions (limit subscriptions)",
            code=ErrorCode.SUBSCRIPTIONS,
        )


def check_request(limits: Limits, requests: Sequence[m.ChannelRequest]) -> None:
    """Raise :exc:`RequestError` if one ``subscribe`` asks for too much."""
    if len(requests) > limits.subscribe_batch:
        raise BadRequest(f"at most {limits.subscribe_batch} channels at a time")
    if sum(map(_size, requests)) > limits.subscribe_bytes:
        raise RequestError(
            f"names, tokens and positions have more than {limits.subscribe_bytes} bytes: "
            "subscribe to fewer channels at a time",
            code=ErrorCode.TOO_BIG,
        )


def _size(request: m.ChannelRequest) -> int:
    size = len(request.channel.encode("utf-8", "replace")) + len(request.token or "")
    position = request.position
    return size if position is None else size + len(position.epoch) + len(position.id)


def _drop(node: Node, connection: Connection, subscription: Subscription) -> None:
    node.hub.remove(subscription)
    connection.behind.pop(subscription, None)
    name = subscription.channel.name
    if connection.subscriptions.get(name) is subscription:
        del connection.subscriptions[name]


def follow(node: Node, connection: Connection, begun: Sequence[Begun]) -> None:
    """Send what follows the answer: gaps, history, who is present; then go on live."""
    for one in begun:
        subscription = one.subscription
        if subscription.state is not SubscriptionState.RECOVERING:
            continue
        if one.asked is not None and not one.page.recovered:
            send_gap(connection, subscription, one.page.start, one.page.reason, one.asked)
        if has_room(connection):
            push(connection, subscription, one.page.records)
        settle(node, connection, subscription)
        if one.presence:
            node.presence.show(connection, subscription)


def unsubscribe(node: Node, connection: Connection, name: str) -> bool:
    """End a subscription; return whether there was one."""
    subscription = connection.subscriptions.pop(name, None)
    connection.channels.pop(name, None)
    if subscription is None:
        return False
    node.hub.remove(subscription)
    connection.behind.pop(subscription, None)
    node.left(connection, [subscription])
    return True


def expel(
    node: Node, connection: Connection, name: str, code: int, *, temporary: bool = False
) -> bool:
    """End a subscription and say so; return whether there was one."""
    subscription = connection.subscriptions.get(name)
    unsubscribe(node, connection, name)
    if connection.visit is not None:
        connection.visit.channels.pop(name, None)
    if subscription is None:
        return False
    told = None if connection.dialect.acknowledges else name
    connection.send(m.Unsubscribed(subscription.channel.sid, code, temporary, channel=told))
    return True


async def reauthorise(node: Node, connection: Connection) -> None:
    """Ask for every subscription again: the connection has authenticated anew.

    Channels that are being subscribed to or left are looked at when that is done, without
    waiting for it here. Cancelling leaves the rest as it was granted before.
    """
    rights = {name: one.rights for name, one in connection.channels.items()}
    connection.channels.clear()
    busy = list(connection.operations)
    if busy:
        turn = Turn(connection, busy)
        node.tasks.start(_reauthorise_later(node, connection, busy, turn, rights), "reauthorise")
    settled = [one for one in connection.subscriptions if one not in busy]
    await _reauthorise(node, connection, settled, rights)


async def _reauthorise_later(
    node: Node, connection: Connection, names: Sequence[str], turn: Turn, rights: Rights
) -> None:
    async with turn:
        await _reauthorise(node, connection, names, rights)


async def _reauthorise(
    node: Node, connection: Connection, names: Sequence[str], rights: Rights
) -> None:
    for name in names:
        subscription = connection.subscriptions.get(name)
        if subscription is None:
            continue
        try:
            # What was asked since then has its answer, perhaps by a newer token. What a
            # channel's own token allowed before stays allowed, to the same user.
            granted = connection.channels.get(name)
            if granted is None:
                granted = await node.access.ask(connection, name, rights.get(name))
            if granted.grant.subscribe and granted.key == subscription.channel.key:
                if filter_of(node, granted) == subscription.filter:
                    if not granted.grant.presence:
                        node.presence.hide(connection, subscription)
                    continue
                # From its own position it is sent what may be new to it.
                error = RequestError("another filter", code=ErrorCode.UNAVAILABLE, temporary=True)
            else:
                error = RequestError(code=ErrorCode.FORBIDDEN)
        except RequestError as refused:
            error = refused
        except Exception:
            node.log_defect(f"the handler of channel {name!r}", "a channel's handler")
            error = RequestError(code=ErrorCode.INTERNAL, temporary=True)
        if connection.subscriptions.get(name) is subscription:
            expel(node, connection, name, error.code, temporary=error.temporary)


def result_payload(result: m.ChannelResult) -> dict[str, Any]:
    """A result as it stands inside a response: nothing of a success is left out."""
    if result.error is not None:
        return {"channel": result.channel, "error": msgspec.to_builtins(result.error)}
    return {
        "channel": result.channel,
        "sid": result.sid,
        "epoch": result.epoch,
        "offset": result.offset,
        "id": result.id,
        "recovered": result.recovered,
        "recoverable": result.recoverable,
    }


def error_body(error: RequestError) -> m.ErrorBody:
    """An error as it stands inside a response."""
    return m.ErrorBody(
        error.code,
        error.name,
        error.message,
        error.temporary,
        None if error.retry_after is None else int(error.retry_after * 1000),
    )
