"""Every number that goes over the wire as a verdict: close codes and error codes.

This is the only file that gives such a number a meaning. ``docs/protocol.md``
takes its tables from here (see ``tests/test_docs.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class CloseCode(IntEnum):
    """Why a WebSocket was closed (RFC 6455 section 7.4, and our 4000–4999).

    The number says whether to come back: 4000–4499 reconnect, 4500–4999 do not.
    """

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005
    ABNORMAL = 1006
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    MANDATORY_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_FAILURE = 1015

    BAD_MESSAGES = 4400
    AUTH_DEADLINE = 4401
    TOKEN_REFUSED = 4402
    HEARTBEAT = 4408
    RATE_LIMITED = 4429
    SLOW_CONSUMER = 4430
    DRAINING = 4440

    UNAUTHORIZED = 4500
    FORBIDDEN = 4501
    VIOLATION = 4502
    DISCONNECTED = 4504
    FEATURE_UNKNOWN = 4505
    CONNECTION_LIMIT = 4506
    REPLACED = 4507


CLOSE_MEANINGS: dict[CloseCode, str] = {
    CloseCode.BAD_MESSAGES: "too many bad messages within a minute",
    CloseCode.AUTH_DEADLINE: "no auth arrived by the deadline",
    CloseCode.TOKEN_REFUSED: "the token was refused or has expired; fetch a fresh one",
    CloseCode.HEARTBEAT: "nothing arrived within the heartbeat's deadline",
    CloseCode.RATE_LIMITED: "too many messages, connections or refused tokens; slow down",
    CloseCode.SLOW_CONSUMER: "the reader made no progress for 30 s, or is too slow for a channel that disconnects",
    CloseCode.DRAINING: "the node is draining; connect again, to another",
    CloseCode.UNAUTHORIZED: "these credentials are refused for good",
    CloseCode.FORBIDDEN: "this user may not connect here",
    CloseCode.VIOLATION: (
        "the protocol was broken: a request before auth, a second auth in flight, "
        "or a request id used twice"
    ),
    CloseCode.DISCONNECTED: "disconnected by an administrator",
    CloseCode.FEATURE_UNKNOWN: "the client requires a feature that this node does not know",
    CloseCode.CONNECTION_LIMIT: "this user has as many connections as are allowed",
    CloseCode.REPLACED: "a newer connection of the same client took this one's place",
}

# Of the standard codes, those after which trying again would end the same way.
_STANDARD_FINAL = frozenset({1002, 1003, 1007, 1008, 1009, 1010, 1015})


def reconnects(code: int) -> bool:
    """Tell whether a client that was closed with ``code`` by the server comes back."""
    return code not in _STANDARD_FINAL and not 4500 <= code <= 4999


class ErrorCode(IntEnum):
    """Why a request failed. Codes are never reused."""

    BAD_REQUEST = 100
    UNKNOWN_TYPE = 101
    TIMEOUT = 102
    CANCELLED = 103
    OUTCOME_UNKNOWN = 104
    KEY_REUSED = 105
    DUPLICATE_ID = 106
    AMBIGUOUS_TARGET = 107
    UNAUTHENTICATED = 200
    TOKEN_EXPIRED = 201
    FORBIDDEN = 202
    BAD_CHANNEL = 300
    NOT_SUBSCRIBED = 301
    TOO_BIG = 400
    RATE_LIMITED = 401
    SUBSCRIPTIONS = 402
    DEDUPE_FULL = 403
    INTERNAL = 500
    UNAVAILABLE = 501
    HELD = 502
    DRAINING = 503

    @property
    def wire_name(self) -> str:
        """The name that goes over the wire: ``bad_request``."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What a client may assume of an error when the message says nothing else."""

    temporary: bool
    meaning: str


ERRORS: dict[ErrorCode, ErrorInfo] = {
    ErrorCode.BAD_REQUEST: ErrorInfo(False, "a field is missing or of the wrong kind"),
    ErrorCode.UNKNOWN_TYPE: ErrorInfo(False, "no message, query or command has this name"),
    ErrorCode.TIMEOUT: ErrorInfo(True, "not finished within the request's timeout"),
    ErrorCode.CANCELLED: ErrorInfo(False, "the caller cancelled the request"),
    ErrorCode.OUTCOME_UNKNOWN: ErrorInfo(
        False, "the command was begun by a node that died; it may have run"
    ),
    ErrorCode.KEY_REUSED: ErrorInfo(False, "the idempotency key was used with another payload"),
    ErrorCode.DUPLICATE_ID: ErrorInfo(False, "a request with this id is still in flight"),
    ErrorCode.AMBIGUOUS_TARGET: ErrorInfo(False, "the command needs exactly one connection"),
    ErrorCode.UNAUTHENTICATED: ErrorInfo(False, "authenticate first"),
    ErrorCode.TOKEN_EXPIRED: ErrorInfo(True, "fetch a fresh token and authenticate again"),
    ErrorCode.FORBIDDEN: ErrorInfo(False, "this user may not do this"),
    ErrorCode.BAD_CHANNEL: ErrorInfo(False, "no channel can have, or has, this name"),
    ErrorCode.NOT_SUBSCRIBED: ErrorInfo(False, "subscribe to the channel first"),
    ErrorCode.TOO_BIG: ErrorInfo(False, "larger than the message limit that hello announces"),
    ErrorCode.RATE_LIMITED: ErrorInfo(True, "slow down"),
    ErrorCode.SUBSCRIPTIONS: ErrorInfo(False, "as many subscriptions as are allowed"),
    ErrorCode.DEDUPE_FULL: ErrorInfo(
        True, "the channel remembers as many message ids as it may; later"
    ),
    ErrorCode.INTERNAL: ErrorInfo(False, "the server failed; its log says how"),
    ErrorCode.UNAVAILABLE: ErrorInfo(
        True, "it cannot be done now: the broker does not answer, or too much is being done"
    ),
    ErrorCode.HELD: ErrorInfo(
        True, "an earlier publish of this channel failed; resend in order with the next run"
    ),
    ErrorCode.DRAINING: ErrorInfo(True, "the node is draining"),
}
