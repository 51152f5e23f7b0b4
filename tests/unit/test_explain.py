"""The verdict on a topic, on literal facts."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from pricefeedd.explain.verdict import CAUSES, Verdict, judge, span

_LINE = {
    "channel": "book",
    "state": "live",
    "reason": "",
    "speaks_every_s": 1.0,
    "stale_after_s": 30.0,
    "waits_for": "",
    "waits": 0,
    "late_snapshots": 0,
}
_STREAM = {"stream": "btcusdt@depth", "state": "accepted", "reason": "", "again_s": None}
_CONNECTION = {
    "feed": "spot",
    "index": 0,
    "open": True,
    "kept": True,
    "silent": False,
    "opened_before": False,
    "next_try_s": None,
    "last_error": "",
    "asks_in_s": 0.0,
    "last_frame_s": 0.3,
    "endpoint": "spot_ws",
    "connect_budget": "connect",
    "topics": {"live": 12},
}
_BREAKER = {"endpoint": "spot_ws", "state": "closed", "failures": 0, "wait_s": 0.0}
_BUDGET = {"budget": "connect", "left": 239.0, "capacity": 240.0, "wait_s": 0.0, "stopped": False}
_FACTS: dict[str, Any] = {
    "topic": "book:binance:BTC-USDT",
    "channel": "book",
    "venue": "binance",
    "instrument": "BTC-USDT",
    "leader": None,
    "upstream": None,
    "at_work": True,
    "state": {"state": "live", "reason": "", "last_event_s": 0.2},
    "readers": {"clients": 2, "lagging": 0, "sinks": []},
    "wanted": {"configured": "[[venues.binance.subscribe]] number 1 (market spot)", "on_demand": None},
    "demand": {"offered": False, "holds": 0, "leaving_s": None},
    "served": {"by": "BTC-USDT", "chain": ["book"], "always": True, "no_room": False},
    "has": True,
    "listed": {"market": "spot", "name": "BTC-USDT", "tradable": True, "status": "TRADING"},
    "markets": [{"market": "spot", "instruments": 3, "not_loaded": ""}],
    "account": None,
    "lines": [_LINE],
    "streams": [_STREAM],
    "connections": [_CONNECTION],
    "bad_frames": [],
    "breakers": [_BREAKER],
    "budgets": [_BUDGET],
    "last_error": "",
    "last_error_s": None,
    "clock": {"jumped_s": None, "by_s": None},
    "loop_s": 0.4,
    "gaps": [],
}


def verdict(changes: Mapping[str, Any]) -> Verdict:
    """Judge a live topic's facts with some of them changed: of dictionaries and of the first row of lists the keys."""
    facts = deepcopy(_FACTS)
    for key, value in changes.items():
        known = facts[key]
        if isinstance(known, dict) and isinstance(value, dict):
            known.update(value)
        elif isinstance(known, list) and known and isinstance(value, dict):
            known[0].update(value)
        else:
            facts[key] = value
    return judge(facts)


def down(state: str, reason: str = "", **more: Any) -> dict[str, Any]:
    return {"state": {"state": state, "reason": reason}, **more}


_CLOSED = {"open": False, "last_frame_s": None, "topics": {"connecting": 12}}
_UPSTREAM = {"source": "relay", "state": "up", "reason": ""}
_ACCOUNT = {"environment": "mainnet", "login_refused": False, "whole": True, "clock_ahead_s": 0.0}
_NOWHERE = {"state": None, "served": None, "lines": [], "streams": [], "connections": []}
_BAD = {"age_s": 4.0, "feed": "spot", "reason": "bad frame b'<html>'", "text": "<html>"}
_GAP = {"age_s": 9.0, "reason": "trades missed", "missing": 4}

#: By what is the matter: the facts that differ, the cause, and words that the text must have.
_CASES: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "all is well": ({}, "live", ("0.2 s ago", "2 clients")),
    "all is well, and a sink alone reads": (
        {"readers": {"clients": 0, "sinks": ["zmq"]}},
        "live",
        ("the sink zmq",),
    ),
    "nothing is traded": (
        {"state": {"last_event_s": 300.0}, "lines": {"stale_after_s": None}},
        "quiet",
        ("5 min ago", "no fault"),
    ),
    "nothing came so far": ({"state": {"last_event_s": None}}, "quiet", ("nothing has come yet", "30 s")),
    "a slow pace is no silence": (
        {"state": {"last_event_s": 900.0}, "lines": {"speaks_every_s": 60.0}},
        "live",
        ("15 min ago",),
    ),
    "the reader's own problem": ({"readers": {"lagging": 1}}, "reader_lags", ("1 of its readers",)),
    "a hole lately": ({"gaps": [_GAP]}, "gap", ("4 events", "trades missed")),
    "a hole that was filled": ({"gaps": [_GAP | {"missing": 0}]}, "live", ()),
    "trades held back": (
        {"lines": {"waits_for": "trades_rest", "waits": 7}},
        "held_back",
        ("7 that came since",),
    ),
    "garbage beside what is live": ({"bad_frames": [_BAD]}, "garbage", ("<html>", "4.0 s ago")),
    "old garbage": ({"bad_frames": [_BAD | {"age_s": 900.0}]}, "live", ()),
    "halted, and live": (
        {"listed": {"tradable": False, "status": "BREAK"}},
        "not_tradable",
        ("BREAK",),
    ),
    "standby": (
        _NOWHERE | {"leader": {"leads": False, "leader": "feed-1:7:ab", "reason": ""}},
        "standby",
        ("feed-1:7:ab leads",),
    ),
    "the leader itself": ({"leader": {"leads": True, "leader": "me", "reason": ""}}, "live", ()),
    "plugin crashed": (
        down("down", "the venue's plugin crashed: KeyError('x')", at_work=False, served=None),
        "crashed",
        ("KeyError('x')",),
    ),
    "relay: upstream away": (
        {"upstream": _UPSTREAM | {"state": "lost", "reason": "connection refused"}},
        "upstream_lost",
        ("lost", "connection refused"),
    ),
    "relay: never told": (_NOWHERE | {"upstream": _UPSTREAM}, "not_relayed", ("nothing",)),
    "relay: the upstream's trouble": (
        down("stale", "no data for 40 s", upstream=_UPSTREAM, lines=[]),
        "upstream_says",
        ("stale: no data for 40 s",),
    ),
    "relay: live": ({"upstream": _UPSTREAM, "lines": []}, "live", ()),
    "instruments not loaded": (
        _NOWHERE
        | {
            "listed": None,
            "markets": [{"market": "spot", "instruments": None, "not_loaded": "HTTP 503"}],
            "breakers": [_BREAKER | {"endpoint": "spot_rest", "state": "open", "wait_s": 12.0}],
        },
        "instruments_not_loaded",
        ("HTTP 503", "spot_rest is open", "12 s"),
    ),
    "no such instrument": (_NOWHERE | {"listed": None}, "unknown_instrument", ("lists no BTC-USDT",)),
    "no such channel": (_NOWHERE | {"has": False}, "no_channel", ("has no book of BTC-USDT",)),
    "no such channel, though configured": (
        down("down", "Binance has no book here", served={"chain": []}, streams=[], connections=[]),
        "no_channel",
        (),
    ),
    "halted, and not served": (
        _NOWHERE | {"listed": {"tradable": False, "status": "HALT"}},
        "not_tradable",
        ("HALT",),
    ),
    "on demand with nobody": (
        _NOWHERE
        | {
            "demand": {"offered": True},
            "wanted": {
                "configured": None,
                "on_demand": "[[venues.binance.subscribe]] number 2 (market spot)",
            },
        },
        "on_demand_idle",
        ("Nobody reads it", "number 2"),
    ),
    "on demand and just asked for": (_NOWHERE | {"demand": {"offered": True, "holds": 1}}, "starting", ()),
    "configured and not begun": (_NOWHERE, "starting", ("number 1",)),
    "nothing asks for it": (_NOWHERE | {"wanted": {"configured": None}}, "not_configured", ("spot",)),
    "clock jump": (
        down("resyncing", clock={"jumped_s": 3.0, "by_s": -7200.0}),
        "clock_jump",
        ("-7200.0 s", "3.0 s ago"),
    ),
    "clock jumped long ago": (
        down("stale", "no data for 40 s", clock={"jumped_s": 900.0, "by_s": 3.0}),
        "silent_stream",
        (),
    ),
    "stuck loop": (down("stale", loop_s=9.0), "overloaded", ("9.0 s",)),
    "no connection more": (
        down("down", "over the venue's limit of 10 connections", served={"no_room": True}),
        "no_room",
        ("limit of 10 connections",),
    ),
    "refused by the venue": (
        down("down", "refused", streams={"state": "refused", "reason": "Invalid symbol", "again_s": 3000.0}),
        "refused",
        ("btcusdt@depth: Invalid symbol", "50 min"),
    ),
    "breaker open": (
        down(
            "down",
            "refused",
            connections=_CLOSED | {"last_error": "HTTP 502", "next_try_s": 0.0},
            breakers={"state": "open", "failures": 5, "wait_s": 21.0},
        ),
        "breaker_open",
        ("5 failures", "HTTP 502", "21 s"),
    ),
    "connection never opened": (
        down("connecting", connections=_CLOSED | {"last_error": "no route to host", "next_try_s": 8.0}),
        "never_connected",
        ("never opened: no route to host", "8.0 s"),
    ),
    "connection lost": (
        down(
            "connecting",
            connections=_CLOSED | {"opened_before": True, "last_error": "reset", "next_try_s": 2.0},
        ),
        "connection_lost",
        ("ended: reset",),
    ),
    "accepted, and silent from the first": (
        down(
            "stale",
            "no data came for 30 s",
            connections=_CLOSED
            | {"opened_before": True, "silent": True, "last_error": "no data", "next_try_s": 2.0},
        ),
        "silent_connection",
        ("sent nothing",),
    ),
    "accepted, silent, and halted": (
        down(
            "stale",
            connections=_CLOSED | {"silent": True, "last_error": "no data", "next_try_s": 2.0},
            listed={"tradable": False, "status": "BREAK"},
        ),
        "not_tradable",
        ("BREAK",),
    ),
    "rate budget of connections": (
        down("connecting", connections=_CLOSED | {"next_try_s": 0.0}, budgets={"left": 0.0, "wait_s": 90.0}),
        "budget_empty",
        ("connect is used up (0 of 240 left)", "90 s"),
    ),
    "the venue said stop": (
        down("connecting", connections=_CLOSED, budgets={"wait_s": 600.0, "stopped": True}),
        "budget_empty",
        ("told us to stop", "10 min"),
    ),
    "another budget does not matter": (
        down("connecting", connections=_CLOSED, budgets={"budget": "weight", "wait_s": 90.0}),
        "connecting",
        (),
    ),
    "being opened": (down("connecting", connections=_CLOSED), "connecting", ("spot #0",)),
    "one of two connections is there": (
        down("stale", "no data for 40 s", connections=[_CONNECTION, _CONNECTION | _CLOSED]),
        "silent_stream",
        (),
    ),
    "not answered": (down("connecting", streams={"state": "asked"}), "unanswered", ("btcusdt@depth",)),
    "put off": (
        down("down", "too many requests", streams={"state": "later", "again_s": 300.0}),
        "put_off",
        ("too many requests", "5 min"),
    ),
    "waits for its turn": (down("connecting", streams={"state": "queued"}), "queued", ("pace",)),
    "waits for a budget of requests": (
        down("connecting", streams={"state": "queued"}, connections={"asks_in_s": 40.0}),
        "budget_empty",
        ("requests", "40 s"),
    ),
    "book waits for REST": (
        down(
            "resyncing",
            "gap",
            lines={"waits_for": "snapshot_rest", "reason": "expected what follows 4, got 9"},
            last_error="HTTP 500",
            last_error_s=2.0,
        ),
        "book_snapshot",
        ("expected what follows 4, got 9", "by REST", "HTTP 500"),
    ),
    "book waits for REST, whose breaker is open": (
        down(
            "resyncing",
            lines={"waits_for": "snapshot_rest"},
            breakers=[
                _BREAKER,
                _BREAKER | {"endpoint": "spot_rest", "state": "open", "failures": 5, "wait_s": 9.0},
            ],
            last_error="HTTP 500",
        ),
        "breaker_open",
        ("spot_rest", "HTTP 500"),
    ),
    "book waits for REST, whose budget is empty": (
        down("resyncing", lines={"waits_for": "snapshot_rest"}, budgets={"budget": "weight", "wait_s": 30.0}),
        "budget_empty",
        ("weight", "30 s"),
    ),
    "book waits for the stream": (
        down("resyncing", "checksum", lines={"waits_for": "snapshot_stream"}),
        "book_snapshot",
        ("that the stream sends",),
    ),
    "garbage alone": (down("stale", "no data for 40 s", bad_frames=[_BAD]), "garbage", ("<html>",)),
    "halted": (
        down("stale", "no data for 40 s", listed={"tradable": False, "status": "BREAK"}),
        "not_tradable",
        ("BREAK",),
    ),
    "dead connection": (
        down("stale", "no data for 40 s", connections={"last_frame_s": 25.0}),
        "silent_connection",
        ("25 s",),
    ),
    "all streams stopped": (
        down("stale", "no data for 40 s", connections={"topics": {"stale": 12}}),
        "silent_connection",
        ("none of its 12 topics",),
    ),
    "silent stream": (
        down("stale", "no data for 40 s", connections={"topics": {"live": 11, "stale": 1}}),
        "silent_stream",
        ("11 of its 12 topics live", "no data for 40 s"),
    ),
    "nothing explains it": (down("resyncing", "why not"), "unexplained", ("resyncing: why not",)),
    "login refused": (
        down(
            "down",
            "login",
            account=_ACCOUNT,
            served=None,
            connections=_CLOSED | {"kept": False, "last_error": "invalid api key", "next_try_s": 3600.0},
        ),
        "login_refused",
        ("invalid api key",),
    ),
    "account: REST is behind": (
        {"account": _ACCOUNT | {"whole": False}, "served": None, "state": {"reason": "not all is known yet"}},
        "catching_up",
        ("not all is known yet",),
    ),
}


@pytest.mark.parametrize("what", _CASES)
def test_the_cause_is_found(what: str) -> None:
    changes, cause, words = _CASES[what]

    found = verdict(changes)

    assert found.cause == cause, found.text
    assert all(word in found.text for word in words), found.text
    assert found.text.endswith(".")
    assert ".." not in found.text


def test_every_cause_has_a_case() -> None:
    assert {cause for _, cause, _ in _CASES.values()} == set(CAUSES)


def test_only_what_is_live_is_healthy() -> None:
    for changes, cause, _ in _CASES.values():
        found = verdict(changes)
        live = "state" not in changes or (changes["state"] or {}).get("state", "live") == "live"
        assert live or not found.healthy, cause
    assert {verdict(changes).cause for changes, _, _ in _CASES.values() if verdict(changes).healthy} == {
        "live",
        "quiet",
        "reader_lags",
        "gap",
        "not_tradable",
    }


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (45, "45 s"), (300, "5 min"), (90_000, "25 h")]
)
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert span(seconds) == text
