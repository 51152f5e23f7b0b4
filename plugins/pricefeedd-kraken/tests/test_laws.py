"""The laws that all codecs obey, on Kraken's frames."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.testing.laws import codec_laws
from pricefeedd_kraken.venue import kraken


def _instrument(base: str, quote: str) -> Instrument:
    return Instrument(
        venue="kraken",
        market="spot",
        name=spell(base, quote, Kind.SPOT),
        symbol=f"{base}/{quote}",
        kind=Kind.SPOT,
        base=base,
        quote=quote,
    )


_ACK = b'{"method":"subscribe","req_id":14,"result":{"channel":"book","depth":100,"snapshot":true,"symbol":"BTC/USD"},"success":true,"time_in":"2026-05-19T16:27:13.694962Z","time_out":"2026-05-19T16:27:13.695006Z"}'
_REFUSAL = b'{"error":"Currency pair not supported WWW/USD","method":"subscribe","req_id":11,"success":false,"symbol":"WWW/USD","time_in":"2026-05-19T16:27:13.694962Z","time_out":"2026-05-19T16:27:13.695006Z"}'
_STATUS = b'{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2","connection_id":6437862339878838704}]}'
_TRADE = b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"buy","price":60000.0,"qty":0.01044926,"ord_type":"limit","trade_id":80635299,"timestamp":"2026-05-27T12:43:11.798009Z"},{"symbol":"BTC/USD","side":"sell","price":60001,"qty":2,"ord_type":"market","trade_id":80635300,"timestamp":"2026-05-27T12:43:11.798009Z"}]}'
_TICKER = b'{"channel":"ticker","type":"snapshot","data":[{"symbol":"ETH/EUR","bid":2500.12,"bid_qty":12.31628629,"ask":2500.13,"ask_qty":0.31232000,"last":2500.12,"volume":4182.59447976,"vwap":2498.5,"low":2420.00,"high":2550.01,"change":13.80,"change_pct":0.55,"timestamp":"2026-08-18T20:43:35.824274Z"}]}'
_OHLC = b'{"channel":"ohlc","type":"snapshot","timestamp":"2026-09-10T17:44:43.105760475Z","data":[{"symbol":"ETH/EUR","open":2500.10,"high":2501.00,"low":2500.10,"close":2500.50,"trades":2,"volume":0.00208254,"vwap":2500.4,"interval_begin":"2026-09-10T17:41:00.000000000Z","interval":1,"timestamp":"2026-09-10T17:42:00.000000Z"},{"symbol":"ETH/EUR","open":2500.60,"high":2500.60,"low":2499.30,"close":2500.10,"trades":17,"volume":1.29749671,"vwap":2500.0,"interval_begin":"2026-09-10T17:43:00.000000000Z","interval":1,"timestamp":"2026-09-10T17:44:00.000000Z"}]}'
_BOOK = b'{"channel":"book","type":"snapshot","data":[{"symbol":"BTC/USD","bids":[{"price":60000.0,"qty":0.50544743},{"price":59999.9,"qty":1.79829263}],"asks":[{"price":60000.1,"qty":2.15468719}],"checksum":2892435853,"timestamp":"2026-08-18T20:43:35.824274Z"}]}'
_DELTA = b'{"channel":"book","type":"update","data":[{"symbol":"BTC/USD","bids":[{"price":60000.0,"qty":0.00000000},{"price":59999.8,"qty":1e-07}],"asks":[],"checksum":1818111995,"timestamp":"2026-08-18T20:44:00.934299Z"}]}'

TestLaws = codec_laws(
    kraken(),
    frames={
        "spot": [
            b'{"channel":"heartbeat"}',
            _ACK,
            _REFUSAL,
            _STATUS,
            _TRADE,
            _TRADE.replace(b"update", b"snapshot"),
            _TICKER,
            _OHLC,
            _OHLC.replace(b"snapshot", b"update"),
            _BOOK,
            _DELTA,
        ]
    },
    instruments=[_instrument("BTC", "USD"), _instrument("ETH", "EUR")],
)
