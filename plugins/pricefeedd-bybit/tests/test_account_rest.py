"""Signed requests: what is signed, what is asked, how answers are read, and what their codes stand for."""

from __future__ import annotations

import hashlib
import hmac
import itertools
from typing import Any
from urllib.parse import parse_qsl

import orjson
import pytest

from pricefeedd.errors import (
    ClockSkewError,
    DecodeError,
    LoginRejectedError,
    RateLimitedError,
    SubscriptionRejectedError,
    VenueError,
)
from pricefeedd.events import AccountEvent
from pricefeedd.rest import HttpReply, HttpRequest, RestCall
from pricefeedd.venue import Account
from pricefeedd_bybit.account_rest import BybitAccountRest
from pricefeedd_bybit.venue import bybit

REST = BybitAccountRest()
ACCOUNT = Account(name="main", api_key="the-key", api_secret="the-secret")
MS = 1_790_373_640_000
DAY_NS = 86_400_000_000_000

ROW = {
    "symbol": "BTCUSDT", "orderId": "o", "orderLinkId": "", "side": "Buy", "orderStatus": "New", "orderType": "Limit",
    "price": "99", "qty": "0.1", "cumExecQty": "0", "createdTime": str(MS - 9), "updatedTime": str(MS - 5),
}  # fmt: skip


def reply(result: Any = None, code: int = 0, text: str = "OK", status: int = 200) -> HttpReply:
    body = {"retCode": code, "retMsg": text, "result": result or {}, "retExtInfo": {}, "time": MS}
    return HttpReply(status=status, body=orjson.dumps(body), received_ns=7)


def paths(calls: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call.request.path, dict(call.request.params)) for call in calls]


def test_what_is_signed_is_what_is_sent() -> None:
    request = HttpRequest(
        endpoint="private_rest", path="/v5/order/history", params={"category": "spot", "cursor": "a%3D1&b:c"}
    )
    headers = REST.sign(request, ACCOUNT, MS * 1_000_000 + 999_999)
    assert parse_qsl(request.query) == [("category", "spot"), ("cursor", "a%3D1&b:c")]
    due = hmac.new(b"the-secret", f"{MS}the-key5000{request.query}".encode(), hashlib.sha256).hexdigest()
    assert headers == {
        "X-BAPI-API-KEY": "the-key",
        "X-BAPI-TIMESTAMP": str(MS),
        "X-BAPI-RECV-WINDOW": "5000",
        "X-BAPI-SIGN": due,
    }


def test_how_an_account_stands_is_asked_of_each_market() -> None:
    orders = [(params["category"], params.get("settleCoin")) for _, params in paths(REST.state("order"))]
    assert orders == [("spot", None), ("linear", "USDT"), ("linear", "USDC"), ("inverse", None)]
    positions = [
        (params["category"], params.get("settleCoin")) for _, params in paths(REST.state("position"))
    ]
    assert positions == [("linear", "USDT"), ("linear", "USDC"), ("inverse", None)], "there are none on spot"
    assert paths(REST.state("balance")) == [("/v5/account/wallet-balance", {"accountType": "UNIFIED"})]
    assert REST.state("execution") == ()


@pytest.mark.parametrize("channel", ["order", "execution"])
def test_the_past_is_asked_for_a_week_at_a_time(channel: str) -> None:
    begin = MS * 1_000_000
    calls = REST.missed(channel, begin, begin + 20 * DAY_NS)
    windows: dict[Any, list[tuple[Any, Any]]] = {}
    for _, params in paths(calls):
        assert params["endTime"] - params["startTime"] < 7 * 86_400_000
        windows.setdefault(params["category"], []).append((params["startTime"], params["endTime"]))
    assert set(windows) == {"spot", "linear", "inverse"}
    for spans in windows.values():
        assert spans[0][0] == MS
        assert spans[-1][1] == MS + 20 * 86_400_000
        assert all(one[1] + 1 == two[0] for one, two in itertools.pairwise(spans)), "without a hole"
    assert REST.missed("balance", begin, begin + DAY_NS) == ()


def test_what_is_not_named_any_more_is_asked_for_by_itself() -> None:
    def one(*arguments: str) -> Any:
        call = REST.one(*arguments)
        return None if call is None else paths([call])[0]

    assert one("order", "spot", "BTCUSDT", "o-1") == (
        "/v5/order/history",
        {"category": "spot", "orderId": "o-1", "limit": 50},
    )
    assert one("position", "linear", "BTCUSDT", "0") == (
        "/v5/position/list",
        {"category": "linear", "symbol": "BTCUSDT", "limit": 200},
    )
    assert one("balance", "", "", "ETH") == (
        "/v5/account/wallet-balance",
        {"accountType": "UNIFIED", "coin": "ETH"},
    )
    assert one("order", "option", "BTC-29JAN27-60000-C", "o") is None


def test_rows_are_those_of_the_stream_with_the_same_keys() -> None:
    (call, *_) = REST.state("order")
    page = call.parse(reply({"category": "spot", "list": [ROW], "nextPageCursor": ""}))
    (event,) = page.items
    stream = {"topic": "order", "id": "m", "creationTime": MS, "data": [ROW | {"category": "spot"}]}
    venue = bybit()
    (live,) = venue.codec.decode(orjson.dumps(stream), feed=venue.feed("private"), names={}, received_ns=7)
    assert isinstance(live, AccountEvent)
    assert (event.key, event.fields, event.venue_time_ns) == (live.key, live.fields, live.venue_time_ns)
    assert page.next is None


def follow(call: RestCall[AccountEvent], cursors: list[str]) -> list[str]:
    asked = []
    following: RestCall[AccountEvent] | None = call
    while following is not None:
        asked.append(str(following.request.params.get("cursor", "")))
        rows = [ROW] if cursors[0] != "empty" else []
        following = following.parse(reply({"list": rows, "nextPageCursor": cursors.pop(0)})).next
    return asked


def test_pages_are_followed_to_their_end() -> None:
    (call, *_) = REST.state("order")
    assert follow(call, ["a%3D", "b", ""]) == ["", "a%3D", "b"]
    assert follow(call, ["a", "a"]) == ["", "a"], "a cursor that goes nowhere ends it"
    assert follow(call, ["empty"]) == [""]


def test_a_position_that_never_was_is_none() -> None:
    call = REST.one("position", "linear", "BTCUSDT", "0")
    assert call is not None
    row = {"symbol": "BTCUSDT", "side": "", "size": "0", "positionIdx": 0, "positionStatus": "Normal"}
    for never in ("", "0"):
        assert call.parse(reply({"list": [row | {"updatedTime": never}]})).items == []


def test_the_venues_time() -> None:
    page = REST.clock().parse(reply({"timeSecond": "1688639403", "timeNano": "1688639403423213947"}))
    assert page.items == (1688639403423213947,)
    for wrong in ({}, {"timeNano": 5}, {"timeNano": "soon"}, {"timeNano": "9" * 30}):
        with pytest.raises(DecodeError):
            REST.clock().parse(reply(wrong))


@pytest.mark.parametrize(
    "result", [{}, {"list": None}, {"list": [5]}, {"list": [{}]}, {"list": [ROW], "nextPageCursor": 7}]
)
def test_answers_of_the_wrong_shape_are_refused(result: dict[str, Any]) -> None:
    (call, *_) = REST.state("order")
    with pytest.raises(DecodeError):
        call.parse(reply(result))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (10002, ClockSkewError), (10003, LoginRejectedError), (10004, LoginRejectedError), (10005, LoginRejectedError),
        (10010, LoginRejectedError), (33004, LoginRejectedError), (10001, SubscriptionRejectedError),
        (10006, RateLimitedError), (10016, VenueError),
    ],
)  # fmt: skip
def test_codes(code: int, error: type[VenueError]) -> None:
    with pytest.raises(error) as caught:
        REST.examine(
            reply(code=code, text="error sign! origin_string[1790373640000the-key5000category=spot]")
        )
    assert type(caught.value) is error
    if code in (10002, 10004):
        assert "the-key" not in str(caught.value)


def test_a_good_answer_passes() -> None:
    REST.examine(reply())
    with pytest.raises(VenueError):
        REST.examine(HttpReply(status=502, body=b"<html>", received_ns=1))
