"""The accounts of the fake Bybit: what each owns and did, and the signed REST that tells it."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import attrs

from pricefeedd.testing import Request

Row = dict[str, Any]

_OPEN = frozenset({"New", "PartiallyFilled", "Untriggered"})
_CATEGORIES = ("spot", "linear", "inverse", "option")
_WEEK_MS = 7 * 86_400_000
_TOTALS = {
    "accountType": "UNIFIED", "totalEquity": "1000", "totalWalletBalance": "1000", "totalMarginBalance": "1000",
    "totalAvailableBalance": "1000", "totalPerpUPL": "0", "totalInitialMargin": "0", "totalMaintenanceMargin": "0",
    "accountIMRate": "0", "accountMMRate": "0", "accountLTV": "0",
}  # fmt: skip


class BadQueryError(Exception):
    """An answer with another code than 0, and HTTP 200 as all."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@attrs.define
class Ledger:
    """What one account owns and did, as rows of the private stream.

    Attributes:
        orders: The newest row of each order, by id.
        executions: All of them, oldest first.
        positions: The newest row of each, by category, symbol and index.
        coins: The newest row of each coin.
        totals: Of the whole account.
        denial: Code and text that answer all requests; None for none.
    """

    orders: dict[str, Row] = attrs.field(factory=dict)
    executions: list[Row] = attrs.field(factory=list)
    positions: dict[tuple[str, str, int], Row] = attrs.field(factory=dict)
    coins: dict[str, Row] = attrs.field(factory=dict)
    totals: Row = attrs.field(factory=lambda: dict(_TOTALS))
    denial: tuple[int, str] | None = None

    def note(self, topic: str, row: Mapping[str, Any]) -> None:
        """Note a row of a topic: `order`, `execution`, `position` or `wallet`."""
        if topic == "order":
            self.orders[row["orderId"]] = dict(row)
        elif topic == "execution":
            self.executions.append(dict(row))
        elif topic == "position":
            self.positions[row["category"], row["symbol"], row["positionIdx"]] = dict(row)
        else:
            self.totals |= {key: value for key, value in row.items() if key != "coin"}
            self.coins |= {coin["coin"]: dict(coin) for coin in row["coin"]}

    # --- REST ---------------------------------------------------------------------------------------------

    def open_orders(self, query: Mapping[str, str]) -> Row:
        """Answer `/v5/order/realtime`: newest first."""
        category = _category(query)
        if category == "linear" and not {"symbol", "baseCoin", "settleCoin"} & query.keys():
            raise BadQueryError(10001, "params error: symbol, baseCoin or settleCoin is required")
        rows = [
            row
            for row in self.orders.values()
            if row["category"] == category and row["orderStatus"] in _OPEN and _settled(row, query)
        ]
        return _paged(category, sorted(rows, key=_created, reverse=True), query, (20, 50))

    def order_history(self, query: Mapping[str, str]) -> Row:
        """Answer `/v5/order/history`: by when orders were made, newest first."""
        category = _category(query)
        rows = [row for row in self.orders.values() if row["category"] == category]
        if "orderId" in query:
            rows = [row for row in rows if row["orderId"] == query["orderId"]]
        else:
            begin, end = _range(query)
            rows = [row for row in rows if begin <= _created(row) <= end]
        return _paged(category, sorted(rows, key=_created, reverse=True), query, (20, 50))

    def execution_list(self, query: Mapping[str, str]) -> Row:
        """Answer `/v5/execution/list`: newest first."""
        category = _category(query)
        begin, end = _range(query)
        rows = [
            row
            for row in self.executions
            if row["category"] == category and begin <= int(row["execTime"]) <= end
        ]
        return _paged(
            category, sorted(rows, key=lambda row: int(row["execTime"]), reverse=True), query, (50, 100)
        )

    def position_list(self, query: Mapping[str, str]) -> Row:
        """Answer `/v5/position/list`: without a symbol only those that are not flat."""
        category = _category(query)
        if category == "linear" and not {"symbol", "settleCoin"} & query.keys():
            raise BadQueryError(10001, "params error: symbol or settleCoin is required")
        rows = [row for row in self.positions.values() if row["category"] == category]
        if "symbol" in query:
            rows = [row for row in rows if row["symbol"] == query["symbol"]]
        else:
            rows = [row for row in rows if float(row["size"]) and _settled(row, query)]
        return _paged(category, rows, query, (20, 200))

    def wallet(self, query: Mapping[str, str]) -> Row:
        """Answer `/v5/account/wallet-balance`: without coins all that are not zero."""
        if query.get("accountType") != "UNIFIED":
            raise BadQueryError(10001, "accountType only support UNIFIED.")
        wanted = query["coin"].split(",") if "coin" in query else None
        coins = [
            row
            for name, row in self.coins.items()
            if (name in wanted if wanted is not None else float(row["walletBalance"]))
        ]
        return {"list": [self.totals | {"coin": coins}]}


HANDLERS: Mapping[str, Callable[[Ledger, Mapping[str, str]], Row]] = {
    "/v5/order/realtime": Ledger.open_orders,
    "/v5/order/history": Ledger.order_history,
    "/v5/execution/list": Ledger.execution_list,
    "/v5/position/list": Ledger.position_list,
    "/v5/account/wallet-balance": Ledger.wallet,
}


def signer(request: Request, secrets: Mapping[str, str], now_ms: int) -> str:
    """Return the key that signed a request rightly.

    Raises:
        BadQueryError: Nobody did. As at the venue, the text may repeat what was signed, key and all.
    """
    headers = {name.lower(): value for name, value in request.headers.items()}
    key = headers.get("x-bapi-api-key", "")
    timestamp, window = headers.get("x-bapi-timestamp", ""), headers.get("x-bapi-recv-window", "5000")
    if key not in secrets:
        raise BadQueryError(10003, "API key is invalid.")
    if not (timestamp.isdecimal() and window.isdecimal()):
        raise BadQueryError(10001, "empty value: apiTimestamp[] apiKey[] apiSignature[]")
    if not now_ms - int(window) <= int(timestamp) < now_ms + 1000:
        raise BadQueryError(
            10002,
            "invalid request, please check your server timestamp or recv_window param. "
            f"req_timestamp[{timestamp}],server_timestamp[{now_ms}],recv_window[{window}]",
        )
    text = f"{timestamp}{key}{window}{urlencode(request.pairs)}"
    due = hmac.new(secrets[key].encode(), text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(due, headers.get("x-bapi-sign", "")):
        raise BadQueryError(10004, f"error sign! origin_string[{text}]")
    return key


def _category(query: Mapping[str, str]) -> str:
    category = query.get("category", "")
    if category not in _CATEGORIES:
        raise BadQueryError(10001, "Illegal category")
    return category


def _created(row: Mapping[str, Any]) -> int:
    return int(row["createdTime"])


def _settled(row: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    coin = query.get("settleCoin")
    if coin is None:
        return True
    return ("USDT" if "USDT" in row["symbol"] else "USDC") == coin


def _range(query: Mapping[str, str]) -> tuple[int, int]:
    try:
        begin, end = int(query["startTime"]), int(query["endTime"])
    except (KeyError, ValueError):
        raise BadQueryError(10001, "startTime and endTime must be passed together") from None
    if end - begin > _WEEK_MS:
        raise BadQueryError(10001, "The time range between startTime and endTime cannot exceed 7 days")
    return begin, end


def _paged(category: str, rows: Sequence[Row], query: Mapping[str, str], limits: tuple[int, int]) -> Row:
    usual, most = limits
    limit = int(query.get("limit", usual))
    if not 1 <= limit <= most:
        raise BadQueryError(10001, "params error: limit invalid")
    # A cursor is escaped once more, as at the venue: it must come back letter by letter.
    start = int(query["cursor"].removeprefix("page_args%3D").removesuffix("%26")) if "cursor" in query else 0
    page = rows[start : start + limit]
    more = f"page_args%3D{start + limit}%26" if start + limit < len(rows) else ""
    # The rows of REST do not name their category.
    told = [{key: value for key, value in row.items() if key != "category"} for row in page]
    return {"category": category, "list": told, "nextPageCursor": more}
