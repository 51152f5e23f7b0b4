"""`/openapi.json` of what explains a topic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pricefeedd.events import State
from pricefeedd.explain.verdict import CAUSES
from pricefeedd.web.explain import PATH, ExplainQuery
from pricefeedd.web.operation import COUNT, MAYBE_TEXT, TEXT, Operation, open_object
from pricefeedd.web.schema import Schema, closed, described, of

_FLAG: Final[Schema] = {"type": "boolean"}
_MAYBE_COUNT: Final[Schema] = {"type": ["integer", "null"]}
_SECONDS: Final[Schema] = {"type": "number"}
_MAYBE_SECONDS: Final[Schema] = {"type": ["number", "null"]}
_TIME: Final[Schema] = {"$ref": "#/components/schemas/Time"}
_TEXTS: Final[Schema] = {"type": "array", "items": TEXT}


def _maybe(schema: Schema, text: str) -> Schema:
    return described({"anyOf": [schema, {"type": "null"}]}, text)


def _rows(properties: Mapping[str, Schema], text: str) -> Schema:
    return described({"type": "array", "items": open_object(dict(properties))}, text)


_VERDICT: Final = closed(
    {
        "cause": described({"enum": list(CAUSES)}, " ".join(f"`{c}`: {t}" for c, t in CAUSES.items())),
        "healthy": described(_FLAG, "Readers get what the venue says, as new as it says it."),
        "text": described(TEXT, "For people: what is the matter."),
        "advice": described(TEXT, "What to do; empty where there is nothing."),
    }
)
_STATE: Final = closed(
    {
        "state": of(State),
        "reason": TEXT,
        "state_s": described(_MAYBE_SECONDS, "Since it is so."),
        "seq": COUNT,
        "events": COUNT,
        "last_message_s": described(_MAYBE_SECONDS, "Since the last message of any kind."),
        "last_event_s": described(_MAYBE_SECONDS, "Since the last data."),
        "last": {
            "type": ["object", "null"],
            "description": "`data` of the last event; of a book its best levels.",
        },
    }
)
_READERS: Final = closed(
    {
        "clients": COUNT,
        "lagging": described(COUNT, "Clients that have not taken what they were given."),
        "options": _rows({"every_ms": COUNT, "depth": COUNT, "readers": COUNT}, "How some of them want it."),
        "sinks": _TEXTS,
        "services": described(_TEXTS, "Who subscribed it by `/api/v1/subscriptions`."),
    }
)
_LISTED: Final = closed(
    {"market": TEXT, "name": TEXT, "symbol": TEXT, "tradable": _FLAG, "status": TEXT, "alias_of": MAYBE_TEXT}
)
_LINE: Final = {
    "channel": TEXT,
    "state": of(State),
    "reason": TEXT,
    "connections": COUNT,
    "events": COUNT,
    "duplicates": COUNT,
    "gaps": COUNT,
    "seen_s": _MAYBE_SECONDS,
    "speaks_every_s": described(_MAYBE_SECONDS, "As learnt from the stream."),
    "stale_after_s": described(_MAYBE_SECONDS, "Null where silence is no fault."),
    "sequence": described(
        _MAYBE_COUNT, "The last id, number or slot; of minutes the start of the last that closed."
    ),
    "waits_for": described(
        {"enum": ["", "trades_rest", "candles_rest", "snapshot_rest", "snapshot_stream"]},
        "What must come before it goes on.",
    ),
    "waits": described(COUNT, "Events that wait for it."),
    "requests": described(COUNT, "REST requests for it that are under way."),
}
_STREAM: Final = {
    "stream": described(TEXT, "By the venue's own name."),
    "feed": TEXT,
    "index": COUNT,
    "state": {"enum": ["accepted", "asked", "queued", "later", "refused", "unasked"]},
    "reason": TEXT,
    "again_s": described(_MAYBE_SECONDS, "When it is asked for again."),
    "suspect": described(_FLAG, "It was being asked for when a connection ended."),
}
_CONNECTION: Final = {
    "feed": TEXT,
    "index": COUNT,
    "path": TEXT,
    "streams": COUNT,
    "open": _FLAG,
    "open_s": _MAYBE_SECONDS,
    "flowing": _FLAG,
    "silent": _FLAG,
    "retiring": _FLAG,
    "kept": described(_FLAG, "False where our credentials were refused."),
    "dials": described(_FLAG, "It is being opened just now."),
    "opened_before": _FLAG,
    "sessions": COUNT,
    "next_try_s": _MAYBE_SECONDS,
    "last_error": TEXT,
    "last_error_s": _MAYBE_SECONDS,
    "unanswered": described(COUNT, "Streams that were asked for and not answered."),
    "refused": described(COUNT, "Streams that the venue refused."),
    "asks_in_s": described(_SECONDS, "How long its rate budgets hold the next request up."),
    "last_frame_s": _MAYBE_SECONDS,
    "last_ping_s": _MAYBE_SECONDS,
    "last_frame": _maybe(closed({"age_s": _SECONDS, "bytes": COUNT, "text": TEXT}), "Its beginning."),
    "endpoint": TEXT,
    "connect_budget": TEXT,
    "topics": described({"type": "object", "additionalProperties": COUNT}, "How many it brings, by state."),
}
_BAD_FRAME: Final = {"age_s": _SECONDS, "feed": TEXT, "reason": TEXT, "text": TEXT}
_BREAKER: Final = {
    "endpoint": TEXT,
    "state": {"enum": ["closed", "half-open", "open"]},
    "failures": described(COUNT, "In a row."),
    "wait_s": _SECONDS,
}
_BUDGET: Final = {
    "budget": TEXT,
    "left": _SECONDS,
    "capacity": _SECONDS,
    "per_s": _SECONDS,
    "wait_s": described(_SECONDS, "Until one more may be taken."),
    "stopped": described(_FLAG, "The venue told us to stop."),
}
_GAP: Final = {
    "age_s": _SECONDS,
    "from": _TIME,
    "to": _TIME,
    "reason": TEXT,
    "recovered": COUNT,
    "missing": _MAYBE_COUNT,
}
_LATENCY: Final = closed(
    {
        f"{part}_{share}_s": _MAYBE_SECONDS
        for part in ("venue", "published", "sent")
        for share in ("p50", "p99")
    }
)

_SCHEMA: Final = closed(
    {
        "topic": {"$ref": "#/components/schemas/Topic"},
        "verdict": _VERDICT,
        "at": _TIME,
        "epoch": TEXT,
        "channel": TEXT,
        "venue": TEXT,
        "instrument": TEXT,
        "leader": _maybe(
            closed({"elector": TEXT, "leads": _FLAG, "leader": TEXT, "reason": TEXT}),
            "Where several may lead.",
        ),
        "upstream": _maybe(
            closed(
                {
                    "source": TEXT,
                    "state": TEXT,
                    "reason": TEXT,
                    "last_message_s": _MAYBE_SECONDS,
                    "lag_s": _MAYBE_SECONDS,
                    "missing": COUNT,
                }
            ),
            "Of a relay: the daemon whose topics it serves.",
        ),
        "at_work": described(_FLAG, "Whether its venue, or account, is."),
        "state": _maybe(_STATE, "Null where nobody has served it yet."),
        "readers": _READERS,
        "wanted": closed(
            {
                "configured": described(MAYBE_TEXT, "The entry that has it served always."),
                "on_demand": described(MAYBE_TEXT, "The entry that offers it."),
            }
        ),
        "demand": closed(
            {
                "offered": _FLAG,
                "holds": described(COUNT, "Readers and services that hold it."),
                "leaving_s": described(_MAYBE_SECONDS, "When it is let go; null while somebody holds it."),
            }
        ),
        "served": _maybe(
            closed(
                {
                    "by": described(TEXT, "The instrument whose streams bring it: nearly always its own."),
                    "chain": described(_TEXTS, "Its channel, the one it is made of, and so on."),
                    "always": _FLAG,
                    "no_room": described(_FLAG, "The venue allows no connection that takes it."),
                }
            ),
            "Null where it is not asked for.",
        ),
        "has": described(_FLAG, "Whether the market has the channel."),
        "listed": _maybe(_LISTED, "What the venue says of the instrument."),
        "markets": _rows(
            {
                "market": TEXT,
                "instruments": described(_MAYBE_COUNT, "Null while they are not known."),
                "loaded_s": _MAYBE_SECONDS,
                "not_loaded": described(TEXT, "Why they could not be had."),
            },
            "Whose instruments are known.",
        ),
        "account": _maybe(
            closed(
                {
                    "environment": TEXT,
                    "login_refused": _FLAG,
                    "whole": _FLAG,
                    "clock_ahead_s": described(_SECONDS, "The venue's clock before ours."),
                }
            ),
            "Of an account's topic.",
        ),
        "lines": _rows(_LINE, "The topic, what it is made of, and so on: what is remembered of each."),
        "streams": _rows(_STREAM, "What the venue is asked for."),
        "connections": _rows(_CONNECTION, "What carries these streams."),
        "bad_frames": _rows(_BAD_FRAME, "The last that could not be decoded, the newest first."),
        "breakers": _rows(_BREAKER, "The circuit breakers of the venue."),
        "budgets": _rows(_BUDGET, "The rate budgets of the venue."),
        "last_error": described(TEXT, "Of the market, or the account."),
        "last_error_s": _MAYBE_SECONDS,
        "clock": closed({"jumped_s": _MAYBE_SECONDS, "by_s": _MAYBE_SECONDS}),
        "loop_s": described(
            _MAYBE_SECONDS, "Since the venue's loop looked at the clock: about once a second."
        ),
        "latency": _maybe(_LATENCY, "Of the market in the last minute: to us, to the bus, to the sockets."),
        "gaps": _rows(_GAP, "The newest holes of the topic."),
    }
)

_EXAMPLE: Final[dict[str, Any]] = {
    "topic": "quote:binance:BTC-USDT",
    "verdict": {
        "cause": "silent_stream",
        "healthy": False,
        "text": "The connection spot #0 works (a frame 0.1 s ago, 2 of its 3 topics live), "
        "and this stream stopped: no data for 31 s.",
        "advice": "It is asked for again by itself; ask whether the venue still trades it.",
    },
    "at": 1_767_225_600_123_456,
    "epoch": "5f1c0e8a9b7d",
    "channel": "quote",
    "venue": "binance",
    "instrument": "BTC-USDT",
    "leader": None,
    "state": {
        "state": "stale",
        "reason": "no data for 31 s",
        "state_s": 2.4,
        "seq": 230,
        "events": 227,
        "last_message_s": 2.4,
        "last_event_s": 33.8,
        "last": {
            "bid_price": "59988.12",
            "bid_size": "0.00075",
            "ask_price": "59996.28",
            "ask_size": "0.04664",
            "venue_sequence": 620_423_064,
        },
    },
    "readers": {"clients": 3, "lagging": 0, "options": [], "sinks": [], "services": []},
    "gaps": [],
    "at_work": True,
    "upstream": None,
    "account": None,
    "wanted": {"configured": "[[venues.binance.subscribe]] number 1 (market spot)", "on_demand": None},
    "demand": {"offered": False, "holds": 0, "leaving_s": None},
    "served": {"by": "BTC-USDT", "chain": ["quote"], "always": True, "no_room": False},
    "has": True,
    "listed": {
        "market": "spot",
        "name": "BTC-USDT",
        "symbol": "BTCUSDT",
        "tradable": True,
        "status": "TRADING",
        "alias_of": None,
    },
    "markets": [{"market": "spot", "instruments": 3, "loaded_s": 92.0, "not_loaded": ""}],
    "lines": [
        {
            "channel": "quote",
            "state": "stale",
            "reason": "no data for 31 s",
            "connections": 1,
            "events": 227,
            "duplicates": 0,
            "gaps": 0,
            "seen_s": 33.8,
            "speaks_every_s": 1.0,
            "stale_after_s": 60.0,
            "sequence": 620_423_064,
            "waits_for": "",
            "waits": 0,
            "requests": 0,
        }
    ],
    "streams": [
        {
            "stream": "btcusdt@bookTicker",
            "feed": "spot",
            "index": 0,
            "state": "accepted",
            "reason": "",
            "again_s": None,
            "suspect": False,
        }
    ],
    "connections": [
        {
            "feed": "spot",
            "index": 0,
            "path": "/stream",
            "streams": 3,
            "open": True,
            "flowing": True,
            "sessions": 1,
            "next_try_s": None,
            "last_error": "",
            "open_s": 92.0,
            "silent": False,
            "retiring": False,
            "unanswered": 0,
            "asks_in_s": 0.0,
            "last_frame_s": 0.1,
            "last_ping_s": None,
            "last_frame": {
                "age_s": 0.1,
                "bytes": 187,
                "text": '{"stream":"btcusdt@aggTrade","data":{"e":"aggTrade","E":1767225600123,"s":"BTCUSDT","a":46671177,"p":"60003.49","q":"0.01036",',
            },
            "dials": False,
            "opened_before": False,
            "last_error_s": None,
            "refused": 0,
            "kept": True,
            "endpoint": "spot_ws",
            "connect_budget": "spot-connect",
            "topics": {"live": 2, "stale": 1},
        }
    ],
    "bad_frames": [],
    "breakers": [{"endpoint": "spot_ws", "state": "closed", "failures": 0, "wait_s": 0.0}],
    "budgets": [
        {
            "budget": "spot-connect",
            "left": 239.0,
            "capacity": 240.0,
            "per_s": 300,
            "wait_s": 0.0,
            "stopped": False,
        }
    ],
    "last_error": "",
    "last_error_s": None,
    "clock": {"jumped_s": None, "by_s": None},
    "loop_s": 0.4,
    "latency": {
        "venue_p50_s": 0.00025,
        "venue_p99_s": 0.000495,
        "published_p50_s": 1.3e-05,
        "published_p99_s": 2.5e-05,
        "sent_p50_s": 1.3e-05,
        "sent_p99_s": 2.5e-05,
    },
}

EXPLAIN: Final = Operation(
    path=PATH,
    name="explain",
    summary="Why a topic is as it is",
    about="All that is known of one topic, from the venue to its readers, and in `verdict` the most likely cause of how "
    "it stands and what to do. Keys that end in `_s` are seconds, and ago where they tell of the past. An account's topic "
    "needs its scope.",
    query=ExplainQuery,
    schema=_SCHEMA,
    example=_EXAMPLE,
    refusals=(403, 404),
)
