"""Acme's REST dialect: it lists instruments, and nothing else. https://docs.acme.test/rest/v1."""

from __future__ import annotations

from pricefeedd.errors import DecodeError
from pricefeedd.events import BookSnapshot, Candle, Trade
from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.rest import (
    HttpReply,
    HttpRequest,
    Page,
    RateSignal,
    RestCall,
    raise_for_status,
)


class AcmeRest:
    """Requests and how to read their answers."""

    def instruments(self, market: str) -> RestCall[Instrument]:
        """Ask for all instruments: one page."""
        request = HttpRequest(endpoint="rest", path="/v1/instruments", budget="rest")
        return RestCall(request=request, parse=_instruments)

    def book(self, instrument: Instrument) -> RestCall[BookSnapshot] | None:
        """Return None: snapshots come in the stream."""
        return None

    def candles(self, instrument: Instrument, start_ns: int, end_ns: int) -> RestCall[Candle] | None:
        """Return None: Acme has no candles."""
        return None

    def trades(
        self, instrument: Instrument, *, after_id: str | None, before_id: str | None, from_ns: int, to_ns: int
    ) -> RestCall[Trade] | None:
        """Return None: Acme has no history."""
        return None

    def examine(self, reply: HttpReply) -> RateSignal:
        """Go by the status code."""
        raise_for_status(reply, venue="acme")
        return RateSignal()


def _instruments(reply: HttpReply) -> Page[Instrument]:
    try:
        rows = reply.json()["instruments"]
        return Page(
            items=[
                Instrument(
                    venue="acme",
                    market="spot",
                    name=spell(row["base"], row["quote"], Kind.SPOT),
                    symbol=row["symbol"],
                    kind=Kind.SPOT,
                    base=row["base"],
                    quote=row["quote"],
                    settle=row["quote"],
                    tick_size=row["tick"],
                    lot_size=row["lot"],
                    tradable=row["state"] == "open",
                    status=row["state"],
                )
                for row in rows
            ]
        )
    except (KeyError, TypeError) as e:
        raise DecodeError(f"bad list of instruments ({e!r})", venue="acme") from e
