"""Somebody who trades on the fake Bybit: rows as the venue prints them, and what happens told and kept."""

from __future__ import annotations

from typing import Any, Protocol


class _Exchange(Protocol):
    def now_ns(self) -> int: ...
    def happen(self, key: str, topic: str, *rows: dict[str, Any]) -> int: ...


class Trader:
    """One account's owner. Each deed is told on the stream, if anybody listens, and known to REST."""

    def __init__(self, fake: _Exchange, key: str) -> None:
        self._fake = fake
        self._key = key
        self._count = 0

    def _ms(self) -> str:
        return str(self._fake.now_ns() // 1_000_000)

    def order(self, order_id: str = "order-1", status: str = "New", **change: Any) -> dict[str, Any]:
        """Let an order become so; the fields that change keep the venue's names."""
        row = self.order_row(order_id, status, **change)
        self._fake.happen(self._key, "order", row)
        return row

    def order_row(self, order_id: str = "order-1", status: str = "New", **change: Any) -> dict[str, Any]:
        """Return an order as it is told, and tell nobody."""
        return {
            "category": "linear", "symbol": "BTCUSDT", "orderId": order_id, "orderLinkId": "", "side": "Buy",
            "positionIdx": 0, "orderStatus": status, "cancelType": "UNKNOWN", "rejectReason": "EC_NoError",
            "timeInForce": "GTC", "price": "60000", "qty": "1", "avgPrice": "", "leavesQty": "1", "leavesValue": "60000",
            "cumExecQty": "0", "cumExecValue": "0", "cumExecFee": "0", "orderType": "Limit", "reduceOnly": False,
            "createdTime": self._ms(), "updatedTime": self._ms(), **change,
        }  # fmt: skip

    def fill(self, order_id: str = "order-1", size: str = "0.1", **change: Any) -> dict[str, Any]:
        """Let a part of an order be executed; each execution has an id of its own, `fill-1` and so on."""
        self._count += 1
        row = {
            "category": "linear", "symbol": "BTCUSDT", "execId": f"fill-{self._count}", "orderId": order_id,
            "orderLinkId": "", "side": "Buy", "orderType": "Limit", "orderPrice": "60000", "orderQty": "1",
            "leavesQty": "0", "execPrice": "60000", "execQty": size, "execValue": "6000", "execFee": "3.3",
            "feeRate": "0.00055", "feeCurrency": "USDT", "execType": "Trade", "execTime": self._ms(), "isMaker": False,
            "seq": 140_612_148_849_000 + self._count, **change,
        }  # fmt: skip
        self._fake.happen(self._key, "execution", row)
        return row

    def position(self, size: str, **change: Any) -> dict[str, Any]:
        """Let a position become so."""
        self._count += 1
        row = {
            "category": "linear", "symbol": "BTCUSDT", "positionIdx": 0, "side": "Buy" if size.strip("0.") else "",
            "size": size, "entryPrice": "60000", "leverage": "10", "positionValue": "60000", "markPrice": "60000",
            "positionIM": "", "positionMM": "", "unrealisedPnl": "0", "curRealisedPnl": "0", "cumRealisedPnl": "0",
            "liqPrice": "", "positionStatus": "Normal", "createdTime": "1694402496913", "updatedTime": self._ms(),
            "seq": 8_327_597_000 + self._count, **change,
        }  # fmt: skip
        self._fake.happen(self._key, "position", row)
        return row

    def wallet(self, **coins: str) -> dict[str, Any]:
        """Let these coins have these balances; the others stay as they are."""
        rows = [
            {
                "coin": coin, "equity": size, "usdValue": size, "walletBalance": size, "availableToWithdraw": "",
                "availableToBorrow": "", "borrowAmount": "0", "accruedInterest": "0", "totalOrderIM": "0",
                "totalPositionIM": "0", "totalPositionMM": "0", "unrealisedPnl": "0", "cumRealisedPnl": "0", "bonus": "0",
                "collateralSwitch": True, "marginCollateral": True, "locked": "0",
            }
            for coin, size in coins.items()
        ]  # fmt: skip
        row = {"accountType": "UNIFIED", "totalEquity": "1000", "coin": rows}
        self._fake.happen(self._key, "wallet", row)
        return row
