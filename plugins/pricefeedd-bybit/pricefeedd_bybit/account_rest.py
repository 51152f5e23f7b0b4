"""What an account asks of Bybit by REST: open orders, positions, the wallet, and what it missed.

https://bybit-exchange.github.io/docs/v5/guide#authentication
https://bybit-exchange.github.io/docs/v5/order/open-order
https://bybit-exchange.github.io/docs/v5/order/order-list
https://bybit-exchange.github.io/docs/v5/order/execution
https://bybit-exchange.github.io/docs/v5/position
https://bybit-exchange.github.io/docs/v5/account/wallet-balance
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from pricefeedd.codec import integer, ns_of_ms, row_list
from pricefeedd.errors import ClockSkewError, DecodeError, LoginRejectedError
from pricefeedd.events import AccountEvent
from pricefeedd.rest import HttpReply, HttpRequest, Page, RateSignal, RestCall, checked
from pricefeedd.venue import Account
from pricefeedd_bybit.accounts import PRIVATE_TOPICS, read_rows
from pricefeedd_bybit.rest import BybitRest
from pricefeedd_bybit.wire import VENUE, ns_of_text

_MS = 1_000_000
_CATEGORIES: tuple[str, ...] = ("spot", "linear", "inverse")

#: Orders and positions of linear are asked for by the coin that they are settled in.
_SETTLED_IN = {"spot": ("",), "linear": ("USDT", "USDC"), "inverse": ("",)}

#: How far the time in a request may lie behind the venue's; the documented default is 5000.
RECV_WINDOW_MS = 5000

#: A request about the past covers no more than this.
_WINDOW_MS = 7 * 86_400_000

#: Most rows in one answer.
_PAGE = {
    "/v5/order/realtime": 50,
    "/v5/order/history": 50,
    "/v5/execution/list": 100,
    "/v5/position/list": 200,
}

#: What is wrong with the credentials, by the venue's code. https://bybit-exchange.github.io/docs/v5/error
_DENIED = {
    10003: "the API key is not known in this environment",
    10004: "the signature is wrong: look at the API secret",
    10005: "the API key lacks the permission for this",
    10007: "the user is not known",
    10010: "the API key is bound to other IP addresses",
    33004: "the API key has expired",
}
_WRONG_TIME = 10002


class BybitAccountRest:
    """Asks for an account in all three markets."""

    def __init__(self) -> None:
        self._rest = BybitRest()

    def state(self, channel: str) -> Sequence[RestCall[AccountEvent]]:
        """Ask for all open orders, all positions, or the whole wallet."""
        if channel == "balance":
            return (_call("wallet", "/v5/account/wallet-balance", {"accountType": "UNIFIED"}),)
        path: str
        categories: tuple[str, ...]
        if channel == "position":
            path, categories = "/v5/position/list", _CATEGORIES[1:]
        elif channel == "order":
            path, categories = "/v5/order/realtime", _CATEGORIES
        else:
            return ()
        calls = []
        for category in categories:
            for coin in _SETTLED_IN[category]:
                params = {"category": category} | ({"settleCoin": coin} if coin else {})
                calls.append(_call(PRIVATE_TOPICS[channel], path, params))
        return calls

    def missed(self, channel: str, from_ns: int, to_ns: int) -> Sequence[RestCall[AccountEvent]]:
        """Ask for executions and closed orders, a week at a time and oldest first."""
        paths = {"order": "/v5/order/history", "execution": "/v5/execution/list"}
        if channel not in paths:
            return ()
        calls = []
        from_ms, to_ms = from_ns // _MS, -(-to_ns // _MS)
        while from_ms <= to_ms:
            until_ms = min(to_ms, from_ms + _WINDOW_MS - 1)
            for category in _CATEGORIES:
                params: dict[str, str | int] = {
                    "category": category,
                    "startTime": from_ms,
                    "endTime": until_ms,
                }
                calls.append(_call(PRIVATE_TOPICS[channel], paths[channel], params))
            from_ms = until_ms + 1
        return calls

    def one(self, channel: str, market: str, symbol: str, id_: str) -> RestCall[AccountEvent] | None:
        """Ask for one of them by its id or symbol.

        The history is of when orders were made, not of when they ended; lists of positions and coins are of those that
        are not zero.
        """
        if channel == "balance":
            return _call("wallet", "/v5/account/wallet-balance", {"accountType": "UNIFIED", "coin": id_})
        if market not in _CATEGORIES:
            return None
        if channel == "order":
            return _call("order", "/v5/order/history", {"category": market, "orderId": id_})
        return _call("position", "/v5/position/list", {"category": market, "symbol": symbol})

    def clock(self) -> RestCall[int]:
        """Ask for the venue's time."""

        def read(reply: HttpReply) -> Page[int]:
            nanos = reply.json()["result"]["timeNano"]
            if not (type(nanos) is str and nanos.isdecimal() and len(nanos) < 20):
                raise ValueError(f"not a time in ns: {nanos!r}")
            return Page(items=(int(nanos),))

        request = HttpRequest(endpoint="private_rest", path="/v5/market/time", budget="rest")
        return RestCall(request=request, parse=checked(read, venue=VENUE))

    def sign(self, request: HttpRequest, account: Account, now_ns: int) -> Mapping[str, str]:
        """Return the four headers: the key, the time, how long it holds, and an HMAC over these and the query."""
        timestamp, window = str(now_ns // _MS), str(RECV_WINDOW_MS)
        text = f"{timestamp}{account.api_key}{window}{request.query}".encode() + (request.body or b"")
        return {
            "X-BAPI-API-KEY": account.api_key,
            "X-BAPI-TIMESTAMP": timestamp,
            "X-BAPI-RECV-WINDOW": window,
            "X-BAPI-SIGN": hmac.new(account.api_secret.encode(), text, hashlib.sha256).hexdigest(),
        }

    def examine(self, reply: HttpReply) -> RateSignal:
        """Tell what is wrong with credentials and clocks; all else is as for public data.

        The venue's words are left out where they repeat what was signed, key and all.

        Raises:
            ClockSkewError: Code 10002.
            LoginRejectedError: The key, its rights or its signature are not good for this.
            VenueError: As for public data.
        """
        code = _code(reply)
        if code == _WRONG_TIME:
            raise ClockSkewError(
                f"the time of the request is not the venue's, give or take {RECV_WINDOW_MS} ms (code {code});"
                " set this host's clock by NTP",
                venue=VENUE,
            )
        if code in _DENIED:
            raise LoginRejectedError(f"{_DENIED[code]} (code {code})", venue=VENUE)
        return self._rest.examine(reply)


def _code(reply: HttpReply) -> int | None:
    """Return the venue's code; None where there is none, which the public dialect judges."""
    if reply.status != 200:
        return None
    try:
        return integer(reply.json()["retCode"])
    except (DecodeError, KeyError, TypeError):
        return None


def _call(topic: str, path: str, params: Mapping[str, str | int], cursor: str = "") -> RestCall[AccountEvent]:
    """Ask for one page of rows.

    Args:
        topic: The stream's topic that has the same rows.
        cursor: The venue's mark of the page; "" for the first.
    """
    limit: dict[str, str | int] = {"limit": _PAGE[path]} if path in _PAGE else {}
    more: dict[str, str | int] = {"cursor": cursor} if cursor else {}

    def read(reply: HttpReply) -> Page[AccountEvent]:
        body = reply.json()
        result = body["result"]
        time_ns = ns_of_ms(body["time"])
        rows = row_list(result["list"])
        if "category" in params:
            # Rows do not say their category: the answer as a whole does.
            rows = [row | {"category": params["category"]} for row in rows]
        if topic == "position":
            rows = [row for row in rows if _was_traded(row)]
        events = read_rows(topic, rows, f"rest-{time_ns // _MS}", time_ns, reply.received_ns)
        following = result.get("nextPageCursor") or ""
        if type(following) is not str:
            raise TypeError("nextPageCursor is not a text")
        # An empty page ends it, whatever the cursor says.
        again = bool(rows) and following not in ("", cursor)
        return Page(items=events, next=_call(topic, path, params, following) if again else None)

    request = HttpRequest(
        endpoint="private_rest", path=path, params={**params, **limit, **more}, budget="rest"
    )
    return RestCall(request=request, parse=checked(read, venue=VENUE))


def _was_traded(row: Any) -> bool:
    """Return whether a position ever was one: those that never were have no time."""
    return bool(row["updatedTime"]) and ns_of_text(row["updatedTime"]) > 0
