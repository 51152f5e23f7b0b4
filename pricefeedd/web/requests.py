"""What a client may ask on `/ws`, protocol version 1: each op with its keys, what they may hold, and why."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

import attrs
import orjson

from pricefeedd.instruments import MARKETS
from pricefeedd.web.fields import (
    ABSENT,
    API_KEY,
    Anything,
    BadRequest,
    Choice,
    Flag,
    Identifier,
    Nested,
    Numbers,
    Text,
    Topics,
    Whole,
    given,
    read_object,
    read_query,
)

EVERY_MS: Final = Whole(least=10, most=60_000)
DEPTH: Final = Whole(least=1, most=1_000)
#: Events of each topic that one `history` may bring.
HISTORY: Final = Whole(least=1, most=1_000)
BATCH_MS: Final = Whole(least=1, most=10_000)

_TOPICS = "Topics `channel:venue:instrument`. In a pattern `*` stands for any part; a venue's own symbol is understood too."
_ID = "Your own mark, which the answer bears."


@attrs.frozen(kw_only=True)
class Since:
    """How far a client has read, so that it gets what it missed."""

    epoch: str = given(
        Text(), "The `epoch` of the `welcome` in which the numbers were counted.", example="5f1c0e8a9b7d"
    )
    seq: Mapping[str, int] = given(
        Numbers(), "The last `seq` that was read of each topic.", example={"trade:binance:BTC-USDT": 918_274}
    )


_SINCE = Nested(Since)


@attrs.frozen(kw_only=True)
class Request:
    """What all requests have."""

    op: ClassVar[str]

    id: int | str | None = given(Identifier(), _ID, default=None, example=1)

    @property
    def cost(self) -> float:
        """What it counts for in the limit of requests: one, and one more for each 100 topics."""
        return 1.0


@attrs.frozen(kw_only=True)
class _OfTopics(Request):
    topics: tuple[str, ...] = given(
        Topics(), _TOPICS, example=["trade:binance:BTC-USDT", "candle_1m:*:BTC-USDT"]
    )

    @property
    def cost(self) -> float:
        """What it counts for in the limit of requests."""
        return 1 + len(self.topics) / 100


@attrs.frozen(kw_only=True)
class Subscribe(_OfTopics):
    """Read topics from now on. Asking again for a topic with other options changes the options."""

    op: ClassVar[str] = "subscribe"

    snapshot: bool = given(
        Flag(), "Whether the present state comes first. A book always starts with a snapshot.", default=True
    )
    every_ms: int | None = given(
        EVERY_MS,
        "At most one data message for each topic in so many milliseconds: the newest. Changes of a book are merged. "
        "Closed candles, `status` and `gap` pass at once.",
        default=None,
        example=1_000,
    )
    depth: int | None = given(
        DEPTH,
        "Books only: the best so many levels of each side. A level that leaves the view comes with size `0`.",
        default=None,
        example=10,
    )
    since: Since | None = given(  # noqa: RUF009  # it makes an attrs field, and nothing that is shared
        _SINCE,
        "How far you have read. Events after that come again from what is kept; state comes as the newest only; what is "
        "kept no longer is told by a `gap`.",
        default=None,
    )


@attrs.frozen(kw_only=True)
class Unsubscribe(_OfTopics):
    """Read topics no longer. They are named as they were when subscribed."""

    op: ClassVar[str] = "unsubscribe"


@attrs.frozen(kw_only=True)
class List(Request):
    """Tell what is subscribed."""

    op: ClassVar[str] = "list"


@attrs.frozen(kw_only=True)
class Get(_OfTopics):
    """Tell the latest messages of topics, once."""

    op: ClassVar[str] = "get"


@attrs.frozen(kw_only=True)
class History(_OfTopics):
    """Tell the latest events that are kept of topics: trades, closed candles, liquidations, `status`, `gap`."""

    op: ClassVar[str] = "history"

    limit: int = given(HISTORY, "The most events of each topic; the newest of the range.", default=100)
    from_seq: int | None = given(Whole(), "The first `seq` wanted.", default=None, example=918_000)
    to_seq: int | None = given(Whole(), "The last `seq` wanted.", default=None)


@attrs.frozen(kw_only=True)
class Instruments(Request):
    """Tell what the venues list."""

    op: ClassVar[str] = "instruments"

    venue: str = given(Text(longest=64), "One venue; `*` means all.", default="*")
    market: str | None = given(Choice(MARKETS), "One market.", default=None, example="spot")


@attrs.frozen(kw_only=True)
class Status(Request):
    """Tell how the daemon is."""

    op: ClassVar[str] = "status"


@attrs.frozen(kw_only=True)
class Ping(Request):
    """Ask for a `pong`."""

    op: ClassVar[str] = "ping"

    data: object = given(Anything(), "Comes back as it is.", default=ABSENT)


@attrs.frozen(kw_only=True)
class Connection:
    """Options of the whole connection, in the URL."""

    batch_ms: int | None = given(
        BATCH_MS,
        "Data messages are collected for so many milliseconds and come as one JSON array in a frame. All other messages "
        "stay single objects and come at once, after what was collected before them.",
        default=None,
        example=100,
    )
    numbers: str = given(
        Choice(("text", "float")),
        "`float` gives prices and sizes as JSON numbers in place of exact decimal text.",
        default="text",
    )
    api_key: str | None = given(API_KEY, "A key, where headers cannot be set.", default=None)


#: All requests by their `op`.
REQUESTS: Final[dict[str, type[Request]]] = {
    made.op: made for made in (Subscribe, Unsubscribe, List, Get, History, Instruments, Status, Ping)
}


def parse(text: str | bytes) -> Request:
    """Return the request that a client sent.

    Raises:
        BadRequest: It is not JSON, or none that we know, or a key is wrong. It bears `id` and `op` as far as they
            could be read.
    """
    try:
        message = orjson.loads(text)
    except orjson.JSONDecodeError as e:
        raise BadRequest("bad_json", f"not JSON: {e}") from e
    if not isinstance(message, dict):
        raise BadRequest("bad_request", "a request is a JSON object with an op")
    op = message.pop("op", None)
    mark = _mark(message)
    if not isinstance(op, str):
        raise BadRequest("bad_request", f"op: expected one of {', '.join(REQUESTS)}", (), "op", mark)
    made = REQUESTS.get(op)
    if made is None:
        near = tuple(difflib.get_close_matches(op[:40], REQUESTS))
        raise BadRequest("unknown_op", f"unknown op {op[:40]!r}", near, "op", mark, op[:40])
    try:
        request = read_object(made, message)
    except BadRequest as e:
        raise attrs.evolve(e, id=mark, op=op) from e
    if isinstance(request, History) and None not in (request.from_seq, request.to_seq):
        assert request.from_seq is not None
        assert request.to_seq is not None
        if request.from_seq > request.to_seq:
            raise BadRequest("bad_request", "from_seq is larger than to_seq", (), "from_seq", mark, op)
    return request


def connection(args: Mapping[str, Sequence[str]]) -> Connection:
    """Return the options in the URL of a connection.

    Args:
        args: The texts of each parameter, such as `websocket.args.to_dict(flat=False)`.

    Raises:
        BadRequest: A parameter is unknown or wrong.
    """
    return read_query(Connection, args)


def _mark(message: Mapping[str, Any]) -> int | str | None:
    try:
        found: int | str = Identifier().read(message.get("id"))
    except ValueError:
        return None
    return found
