"""The laws that all codecs obey, on Hyperliquid's frames."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.testing.laws import codec_laws
from pricefeedd_hyperliquid.venue import hyperliquid


def _perpetual(coin: str) -> Instrument:
    return Instrument(
        venue="hyperliquid",
        market="linear",
        name=spell(coin, "USD", Kind.PERPETUAL),
        symbol=coin,
        kind=Kind.PERPETUAL,
        base=coin,
        quote="USD",
    )


def _pair(symbol: str, base: str) -> Instrument:
    return Instrument(
        venue="hyperliquid",
        market="spot",
        name=spell(base, "USDC", Kind.SPOT),
        symbol=symbol,
        kind=Kind.SPOT,
        base=base,
        quote="USDC",
    )


_ROW = '{{"coin":"{coin}","side":"{side}","px":"{px}","sz":"0.5","time":{time},"hash":"0x00","tid":{tid},"users":["0x1","0x2"]}}'


def _trades(coin: str) -> bytes:
    rows = [
        _ROW.format(coin=coin, side=side, px="12.5", time=1790000000000 + i * 1000, tid=437413095582311 + i)
        for i, side in enumerate("BAB")
    ]
    return f'{{"channel":"trades","data":[{",".join(rows)}]}}'.encode()


_ACK = b'{"channel":"subscriptionResponse","data":{"method":"subscribe","subscription":{"type":"l2Book","coin":"kPEPE","nSigFigs":null,"mantissa":null,"fast":true}}}'
_GONE = b'{"channel":"subscriptionResponse","data":{"method":"unsubscribe","subscription":{"type":"bbo","coin":"ETH"}}}'
_PONG = b'{"channel":"pong"}'
_TWICE = b'{"channel":"error","data":"Already subscribed: {\\"type\\":\\"trades\\",\\"coin\\":\\"ETH\\"}"}'
_UNREAD = b'{"channel":"error","data":"Error parsing JSON into valid websocket request: {\\"method\\":\\"subscribe\\",\\"subscription\\":{\\"type\\":\\"l3Book\\",\\"coin\\":\\"ETH\\"}}"}'
_QUOTE = b'{"channel":"bbo","data":{"coin":"ETH","time":1790000001200,"bbo":[{"px":"2070.1","sz":"3.2","n":4},{"px":"2070.2","sz":"0.01","n":1}]}}'
_NO_BID = b'{"channel":"bbo","data":{"coin":"@107","time":1790000001200,"bbo":[null,{"px":"42.2","sz":"0.5","n":1}]}}'
_CANDLE = b'{"channel":"candle","data":{"t":1790000040000,"T":1790000099999,"s":"ETH","i":"1m","o":"2070.0","c":"2070.5","h":"2071.0","l":"2069.9","v":"12.5","n":7}}'
_FAST = b'{"channel":"l2Book","data":{"coin":"ETH","time":1790000001200,"levels":[[{"px":"2070.1","sz":"3.2","n":4},{"px":"2070.0","sz":"1.0","n":1}],[{"px":"2070.2","sz":"0.01","n":1}]],"fast":true}}'
_EMPTY = b'{"channel":"l2Book","data":{"coin":"kPEPE","time":1790000001200,"levels":[[],[]]}}'
_PERP = b'{"channel":"activeAssetCtx","data":{"coin":"ETH","ctx":{"funding":"-0.0000125","openInterest":"512.5","prevDayPx":"2050.0","dayNtlVlm":"45123456.125","premium":null,"oraclePx":"2070.4","markPx":"2070.3","midPx":null,"impactPxs":null,"dayBaseVlm":"21795.1"}}}'
_SPOT = b'{"channel":"activeSpotAssetCtx","data":{"coin":"@107","ctx":{"prevDayPx":"41.5","dayNtlVlm":"1234567.8","markPx":"42.1","midPx":"42.15","circulatingSupply":"333928180.9","coin":"@107","totalSupply":"999990392.6","dayBaseVlm":"29000.5"}}}'
_USER = b'{"channel":"user","data":{"fills":[]}}'

TestLaws = codec_laws(
    hyperliquid(),
    frames={
        "linear": [
            _trades("kPEPE"),
            _ACK,
            _GONE,
            _PONG,
            _TWICE,
            _UNREAD,
            _QUOTE,
            _CANDLE,
            _FAST,
            _EMPTY,
            _PERP,
            _USER,
        ],
        "spot": [
            _trades("@107"),
            _trades("PURR/USDC"),
            _NO_BID,
            _SPOT,
            _CANDLE.replace(b'"ETH"', b'"PURR/USDC"'),
            b"Websocket connection established.",
        ],
    },
    instruments=[_perpetual("ETH"), _perpetual("kPEPE"), _pair("@107", "HYPE"), _pair("PURR/USDC", "PURR")],
)
