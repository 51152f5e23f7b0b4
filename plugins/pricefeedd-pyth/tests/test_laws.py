"""The laws that all codecs obey, on Pyth's events."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind
from pricefeedd.testing.laws import codec_laws
from pricefeedd_pyth.venue import pyth

_BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
_AAPL = "49f6b65cb1de6b10eaf75e7c03ca029c306d0357e91b5311b175084a5ad55688"


def _instrument(feed_id: str, symbol: str, base: str) -> Instrument:
    return Instrument(
        venue="pyth",
        market="oracle",
        name=f"{base}-USD",
        symbol=feed_id,
        rest_symbol=symbol,
        kind=Kind.ORACLE,
        base=base,
        quote="USD",
    )


def _event(feed_id: str, mantissa: str, exponent: int) -> bytes:
    number = f'"price":"{mantissa}","conf":"152","expo":{exponent},"publish_time":1785424136'
    row = f'{{"id":"{feed_id}","price":{{{number}}},"ema_price":{{{number}}},"metadata":{{"slot":305542333,"proof_available_time":1785424138,"prev_publish_time":1785424136}}}}'
    return f'data:{{"binary":{{"encoding":"base64","data":["UE5BVQ=="]}},"parsed":[{row}]}}'.encode()


TestLaws = codec_laws(
    pyth(),
    frames={
        "oracle": [
            _event(_BTC, "6163260000000", -8),
            _event(_AAPL, "33223750", -5),
            _event(_AAPL, "-3", 0),
            b"event:error\ndata:Error receiving update: lagged",
            b"event:error\ndata:Connection timeout reached (24h)",
        ]
    },
    instruments=[
        _instrument(_BTC, "Crypto.BTC/USD", "BTC"),
        _instrument(_AAPL, "Equity.US.AAPL/USD", "AAPL"),
    ],
)
