"""All messages of `/ws`, protocol version 1, for the documents: name, schema, and an example that is real."""

from __future__ import annotations

from typing import Any, Final

import attrs
import orjson

from pricefeedd import message, wire
from pricefeedd.events import (
    DERIVED_CHANNELS,
    PRIVATE_CHANNELS,
    AccountEvent,
    BookDelta,
    BookSnapshot,
    Candle,
    Event,
    Gap,
    Liquidation,
    Price,
    Quote,
    Side,
    State,
    Status,
    Ticker,
    Trade,
    topic_channel,
)
from pricefeedd.instruments import Instrument
from pricefeedd.web import schema
from pricefeedd.web.daemon import Limits
from pricefeedd.web.fields import GIVEN, object_schema
from pricefeedd.web.goodbye import BAD_REQUEST, LIMIT, SHUTDOWN, STATE_LOST, TOO_SLOW, UNAUTHORISED, Goodbye
from pricefeedd.web.reading import INSTRUMENT_KEYS
from pricefeedd.web.requests import REQUESTS, Request
from pricefeedd.web.schema import Schema, closed, described
from pricefeedd.web.topics import Problem

_AT_NS: Final = 1_767_225_600_123_456_000
_SPOT: Final[dict[str, Any]] = {
    "venue": "binance",
    "instrument": "BTC-USDT",
    "venue_time_ns": _AT_NS - 4_000_000,
    "received_ns": _AT_NS,
}
_PERP: Final = _SPOT | {"venue": "bybit", "instrument": "BTC-USDT-PERP"}

#: Events that make the examples.
SAMPLES: Final[dict[str, Event]] = {
    "trade": Trade(id="3829012834", price="65000.10", size="0.00150", aggressor=Side.BUY, **_SPOT),
    "quote": Quote(
        bid_price="65000.00", bid_size="1.250", ask_price="65000.10", ask_size="0.871", sequence=99_120, **_SPOT
    ),
    "ticker": Ticker(
        last="65000.10", high_24h="66120.00", low_24h="64010.50", volume_24h="18231.113", mark_price="65001.22",
        funding_rate="0.0001", next_funding_ns=1_767_254_400_000_000_000, **_PERP,
    ),
    "candle": Candle(
        start_ns=1_767_225_600_000_000_000, open="64990.00", high="65010.00", low="64985.30", close="65000.10",
        volume="12.41200", turnover="806650.91", trades=1021, closed=True, **_SPOT,
    ),
    "book_snapshot": BookSnapshot(
        bids=[["65000.00", "1.250"], ["64999.90", "0.400"]], asks=[["65000.10", "0.871"]], sequence=99_120, **_SPOT
    ),
    "book_delta": BookDelta(bids=[["64999.90", "0"]], asks=[["65000.20", "2.000"]], sequence=99_121, **_SPOT),
    "price": Price(
        price="65000.12", conf="21.5", ema_price="64980.00", ema_conf="22.0",
        publish_time_ns=1_767_225_600_000_000_000, slot=231_000_111,
        **(_SPOT | {"venue": "pyth", "instrument": "BTC-USD"}),
    ),
    "liquidation": Liquidation(price="64100.00", size="0.250", side=Side.SELL, **_PERP),
    "account": AccountEvent(
        account="main", kind="order", key="o-1", fields={"status": "new", "price": "64000", "size": "0.1"},
        trace_id="5e1d0c8ab33f4d0e9b1f6c7a2d4e8f90", **_PERP,
    ),
    "status": Status(topic_channel="trade", state=State.STALE, reason="no message for 30 s", **_SPOT),
    "gap": Gap(
        topic_channel="trade", from_ns=_AT_NS - 9_000_000_000, to_ns=_AT_NS, reason="reconnect", recovered=41,
        missing=0, **_SPOT,
    ),
}  # fmt: skip

_ABOUT: Final = {
    "ticker": "Rolling 24 hour statistics. What the venue does not say is left out.",
    "candle": "One interval of trading. An open candle comes again and again; a closed one once, in order.",
    "book_snapshot": "A whole order book. Forget the one you have.",
    "book_delta": "Changes to an order book: absolute sizes, `0` removes the level.",
    "account": "Something that concerns one account. Needs a key with the scope `account:NAME`.",
}


@attrs.frozen(kw_only=True)
class Described:
    """One message for the documents.

    Attributes:
        name: Its name in the documents.
        about: One or two sentences.
        schema: Its JSON Schema.
        example: One that is real.
    """

    name: str
    about: str
    schema: Schema
    example: Any


def types_of(name: str) -> tuple[str, ...]:
    """Return what `type` may be in the messages of an event."""
    if name == "candle":
        return ("candle_1m", *DERIVED_CHANNELS)
    if name == "account":
        return PRIVATE_CHANNELS
    return (schema.EVENTS[name].channel,)


def _event(name: str, made: type[Event]) -> Described:
    sample = SAMPLES[name]
    place = sample.account if isinstance(sample, AccountEvent) else sample.instrument
    topic = f"{topic_channel(sample)}:{sample.venue}:{place}"
    return Described(
        name=name,
        about=_ABOUT.get(name) or schema.summary(made),
        schema=schema.message_of(made, types_of(name)),
        example=orjson.loads(wire.encode(topic, 918_274, sample)),
    )


#: The data: what a subscription brings.
EVENTS: Final = tuple(_event(name, made) for name, made in schema.EVENTS.items())

_ref = "#/components/schemas/".__add__
TOPIC: Final[Schema] = {"$ref": _ref("Topic")}
SEQ: Final[Schema] = {"$ref": _ref("Seq")}
TIME: Final[Schema] = {"$ref": _ref("Time")}
_ID: Final[Schema] = {"type": ["integer", "string", "null"], "description": "The `id` of the request."}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_TEXT: Final[Schema] = {"type": "string"}

PROBLEM: Final = closed(
    {
        **schema.of_class(Problem)["properties"],
        "did_you_mean": {"type": "array", "items": _TEXT, "description": "The nearest words that exist."},
    },
    optional=("did_you_mean",),
)
INSTRUMENT: Final = schema.of_class(Instrument, names=INSTRUMENT_KEYS)
MESSAGE: Final[Schema] = {"oneOf": [{"$ref": _ref(event.name)} for event in EVENTS]}

#: What the schemas of messages refer to.
SHARED: Final[dict[str, Schema]] = {
    **schema.SHARED,
    "Problem": PROBLEM,
    "Instrument": INSTRUMENT,
    **{event.name: event.schema for event in EVENTS},
}


def results(**more: Schema) -> Schema:
    """Return the schema of the results for topics, in the order asked.

    Args:
        more: What a good result has besides; what is not always there begins with `maybe_`.
    """
    given = {name.removeprefix("maybe_"): each for name, each in more.items()}
    optional = [name.removeprefix("maybe_") for name in more if name.startswith("maybe_")]
    good = {
        "topic": described(_TEXT, "As you asked for it."),
        "ok": {"const": True},
        "matched": described(_COUNT, "Topics that it means now; more may come."),
        "as": described(_TEXT, "What it is called here, if that differs."),
        **given,
    }
    bad = {"topic": _TEXT, "ok": {"const": False}, "error": {"$ref": _ref("Problem")}}
    return {"type": "array", "items": {"oneOf": [closed(good, optional=("as", *optional)), closed(bad)]}}


_MESSAGES: Final[Schema] = {"type": "array", "items": MESSAGE}
LATEST_RESULTS: Final = results(messages=_MESSAGES)
_ON_DEMAND = {
    "const": True,
    "description": "The topic is brought because it is read: its data begins shortly.",
}
SUBSCRIBE_RESULTS: Final = results(
    maybe_on_demand=_ON_DEMAND, maybe_replayed=described(_COUNT, "Events that come again, with `since`.")
)

_STATUS: Final = closed(
    {
        "ts": TIME,
        "epoch": _TEXT,
        "venues": {"type": "array", "items": _TEXT},
        "topics": _COUNT,
        "states": {"type": "object", "additionalProperties": _COUNT},
        "clients": _COUNT,
    }
)

#: What the acknowledgement of each op has besides `type`, `id` and `op`.
_ANSWERS: Final[dict[str, Schema]] = {
    "subscribe": {
        "results": SUBSCRIBE_RESULTS,
        "epoch": described(_TEXT, "Ours, if you gave `since`."),
        "epoch_changed": {"const": True, "description": "Yours was another: numbers began anew."},
    },
    "unsubscribe": {"results": results()},
    "list": {"results": results()},
    "get": {"results": LATEST_RESULTS},
    "history": {
        "results": results(
            messages=_MESSAGES,
            complete=described(
                {"type": "boolean"}, "Nothing of the range had been forgotten, or was cut off by `limit`."
            ),
        )
    },
    "instruments": {"results": {"type": "array", "items": {"$ref": _ref("Instrument")}}},
    "status": {"result": _STATUS},
}
_ANSWER_EXAMPLES: Final[dict[str, Any]] = {
    "subscribe": {
        "results": [
            {"topic": "trade:binance:BTCUSDT", "ok": True, "matched": 1, "as": "trade:binance:BTC-USDT"},
            {
                "topic": "trade:binance:BTC-USDC",
                "ok": False,
                "error": {
                    "code": "unknown_instrument",
                    "message": "unknown instrument 'BTC-USDC' on binance",
                    "did_you_mean": ["BTC-USDT"],
                },
            },
        ]
    },
    "unsubscribe": {"results": [{"topic": "trade:binance:BTC-USDT", "ok": True, "matched": 1}]},
    "list": {"results": [{"topic": "candle_1m:*:BTC-USDT", "ok": True, "matched": 9}]},
    "get": {
        "results": [
            {"topic": "trade:binance:BTC-USDT", "ok": True, "matched": 1, "messages": [EVENTS[0].example]}
        ]
    },
    "history": {
        "results": [
            {
                "topic": "trade:binance:BTC-USDT",
                "ok": True,
                "matched": 1,
                "messages": [EVENTS[0].example],
                "complete": True,
            }
        ]
    },
    "instruments": {
        "results": [
            {
                "venue": "binance",
                "market": "spot",
                "instrument": "BTC-USDT",
                "symbol": "BTCUSDT",
                "kind": "spot",
                "base": "BTC",
                "quote": "USDT",
                "tradable": True,
                "tick_size": "0.01",
                "lot_size": "0.00001",
            }
        ]
    },
    "status": {
        "result": {
            "ts": _AT_NS // 1000,
            "epoch": "5f1c0e8a9b7d",
            "venues": ["binance", "bybit"],
            "topics": 412,
            "states": {"live": 410, "stale": 2},
            "clients": 37,
        }
    },
}
INSTRUMENT_EXAMPLE: Final = _ANSWER_EXAMPLES["instruments"]["results"][0]


def request_of(made: type[Request]) -> Described:
    """Return the message of a request; its example gives every option."""
    body = object_schema(made)
    op: Schema = {"const": made.op}
    example: dict[str, Any] = {"op": made.op}
    for field in attrs.fields(made):
        told = field.metadata[GIVEN]
        if told.example is not None:
            example[field.name] = told.example
    return Described(
        name=f"{made.op}_request",
        about=schema.summary(made),
        schema=body
        | {"properties": {"op": op, **body["properties"]}, "required": ["op", *body.get("required", ())]},
        example=example,
    )


def _answer(op: str) -> Described:
    if op == "ping":
        return Described(
            name="pong",
            about="The answer to `ping`.",
            schema=closed(
                {
                    "type": {"const": "pong"},
                    "id": _ID,
                    "ts": TIME,
                    "data": {"description": "As you sent it."},
                },
                optional=("data",),
            ),
            example={"type": "pong", "id": 1, "ts": _AT_NS // 1000},
        )
    first = {"type": {"const": "ack"}, "id": _ID, "op": {"const": op}}
    return Described(
        name=f"{op}_ack",
        about=f"The answer to `{op}`.",
        schema=closed(first | _ANSWERS[op], optional=("epoch", "epoch_changed")),
        example={"type": "ack", "id": 1, "op": op, **_ANSWER_EXAMPLES[op]},
    )


REQUESTED: Final = {op: request_of(made) for op, made in REQUESTS.items()}
ANSWERS: Final = {op: _answer(op) for op in REQUESTS}

_LIMITS = Limits()
WELCOME: Final = Described(
    name="welcome",
    about="The first message: who we are, and what you may do.",
    schema=closed(
        {
            "type": {"const": "welcome"},
            "protocol": {"const": wire.PROTOCOL},
            "session": described(_TEXT, "Your connection's name in our logs."),
            "epoch": described(_TEXT, "One life of all streams: `seq` counts only within it."),
            "heartbeat_s": {"type": "number"},
            "limits": closed({name: schema.of(type(value)) for name, value in _LIMITS.public().items()}),
        }
    ),
    example={
        "type": "welcome",
        "protocol": wire.PROTOCOL,
        "session": "6f0f3a52c9b1d7e4",
        "epoch": "5f1c0e8a9b7d",
        "heartbeat_s": 15.0,
        "limits": _LIMITS.public(),
    },
)
ERROR: Final = Described(
    name="error",
    about="A request that was not understood. The connection goes on.",
    schema=closed(
        {
            "type": {"const": "error"},
            "id": _ID,
            "op": {"type": ["string", "null"]},
            "error": {"$ref": _ref("Problem")},
        }
    ),
    example={
        "type": "error",
        "id": 1,
        "op": "subscribe",
        "error": {
            "code": "bad_request",
            "message": "unknown key 'everyms'; known: id, topics, snapshot, every_ms, depth, since",
            "did_you_mean": ["every_ms"],
        },
    },
)
HEARTBEAT: Final = Described(
    name="heartbeat",
    about="The last `seq` of each topic that you read, so that you can tell that nothing is missing.",
    schema=closed(
        {"type": {"const": "heartbeat"}, "ts": TIME, "seq": {"type": "object", "additionalProperties": SEQ}}
    ),
    example={"type": "heartbeat", "ts": _AT_NS // 1000, "seq": {"trade:binance:BTC-USDT": 918_274}},
)
CONFLATED: Final = Described(
    name="conflated",
    about="You were slow, and newer state took the place of older. The message after it is the newest.",
    schema=closed(
        {"type": {"const": "conflated"}, "topic": TOPIC, "seq": SEQ, "data": closed({"dropped": _COUNT})}
    ),
    example=orjson.loads(message.conflated("quote:binance:BTC-USDT", 99_120, 4).text),
)
MISSED: Final = Described(
    name="missed",
    about="A gap of yours alone: events that you were too slow for, or that are kept no longer. It has no `origin`, "
    "unlike a `gap` in the topic itself, which concerns all readers. Ask again with `history` or `since`.",
    schema=closed(
        {
            "type": {"const": "gap"},
            "topic": TOPIC,
            "seq": SEQ,
            "data": closed(
                {
                    "reason": _TEXT,
                    "from_seq": described(SEQ, "First that is missing."),
                    "to_seq": {
                        "anyOf": [SEQ, {"type": "null"}],
                        "description": "Last that is missing, if known.",
                    },
                    "recovered": _COUNT,
                    "missing": {"type": ["integer", "null"], "description": "How many, if known."},
                }
            ),
        }
    ),
    example=orjson.loads(message.lost("trade:binance:BTC-USDT", 918_200, 918_273, 74).text),
)
UPSTREAM: Final = Described(
    name="upstream",
    about="From a relay alone: whether it still hears the daemon whose topics it serves. While that is `lost`, all that you "
    "have may be old. It stands apart from the topics and has no `seq`, since all numbers are that other daemon's. It comes "
    "behind `welcome` if the upstream is lost then, and with each change.",
    schema=closed(
        {
            "type": {"const": "upstream"},
            "ts": TIME,
            "state": {"enum": ["live", "lost"]},
            "reason": described(_TEXT, "Why it is lost; empty if it is live."),
        }
    ),
    example={
        "type": "upstream",
        "ts": _AT_NS // 1000,
        "state": "lost",
        "reason": "the broker closed the connection",
    },
)
_GOODBYE = Goodbye(SHUTDOWN, "pricefeedd is stopping", 1_000)
BYE: Final = Described(
    name="bye",
    about="The last message before we close.",
    schema=closed({"type": {"const": "bye"}, **schema.of_class(Goodbye)["properties"]}),
    example=_GOODBYE.message(),
)

#: What we say of the connection itself.
OTHERS: Final = (WELCOME, ERROR, HEARTBEAT, CONFLATED, MISSED, UPSTREAM, BYE)

#: Close codes: what each means, and whether to come back.
CLOSE_CODES: Final = {
    SHUTDOWN: "The daemon stops. Come back after `retry_after_ms`.",
    STATE_LOST: "What the numbers count in is gone, or not known yet: the upstream of a relay began anew, or is being read. "
    "Come back after `retry_after_ms`.",
    TOO_SLOW: "You took nothing for too long. Come back, and read faster or subscribe less.",
    BAD_REQUEST: "You asked what we do not understand, too often. Do not come back unchanged.",
    UNAUTHORISED: "A key is needed, or yours is not known. Do not come back without one.",
    LIMIT: "A limit was reached: too many clients, or too many requests.",
}
