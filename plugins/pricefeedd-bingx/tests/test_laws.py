"""The laws that all codecs obey, on BingX's frames."""

from __future__ import annotations

import gzip

from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.testing.laws import codec_laws
from pricefeedd_bingx.venue import bingx


def _instrument(market: str, base: str) -> Instrument:
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="bingx",
        market=market,
        name=spell(base, "USDT", kind),
        symbol=f"{base}-USDT",
        kind=kind,
        base=base,
        quote="USDT",
    )


_ACK = b'{"id":"7","code":0,"msg":"","dataType":"","data":null}'
_ERROR = b'{"id":"8","code":80015,"msg":"dataType not support","dataType":"","data":null}'
_TRADES = b'{"code":0,"dataType":"BTC-USDT@trade","data":[{"q":"0.0162","p":"121934.9","T":1790373600450,"m":false,"s":"BTC-USDT"},{"q":"0.0551","p":"121926.9","T":1790373600450,"m":true,"s":"BTC-USDT"}]}'
_KLINE = b'{"code":0,"dataType":"BTC-USDT@kline_1m","s":"BTC-USDT","data":[{"c":"121697.7","o":"121684.1","h":"121697.7","l":"121638.7","v":"5.8244","T":1790373600000}]}'
_TICKER = b'{"code":0,"dataType":"BTC-USDT@ticker","data":{"e":"24hTicker","E":1790373600388,"s":"BTC-USDT","p":"-262.0","P":"-0.21","c":"121621.7","L":"0.0010","h":"124152.9","l":"121412.0","v":"17030.6463","q":"210028.10","o":"121883.7","O":1790287200000,"C":1790373600000,"A":"121621.7","a":"11.3115","B":"121621.5","b":"6.4426"}}'
_MARK = b'{"code":0,"dataType":"BTC-USDT@markPrice","data":{"e":"markPriceUpdate","E":1790373600357,"s":"BTC-USDT","p":"121570.0"}}'
_QUOTE = b'{"code":0,"dataType":"BTC-USDT@bookTicker","data":{"e":"bookTicker","u":578534658,"E":1790373600686,"T":1790373600687,"s":"BTC-USDT","b":"121584.1","B":"18.7084","a":"121584.3","A":"4.9602"}}'
_DEPTH = b'{"code":0,"dataType":"BTC-USDT@depth5@500ms","ts":1790373600928,"data":{"bids":[["121825.7","7.7622"],["121825.6","0.0060"]],"asks":[["121826.1","0.0143"],["121825.9","9.2345"]]}}'
_ALL = b'{"code":0,"dataType":"ETH-USDT@incrDepth","data":{"action":"all","lastUpdateId":857550007,"time":1790373600998,"bids":[["86378.9","0.0001"]],"asks":[["86379.1","87.1230"]]}}'
_UPDATE = _ALL.replace(b'"all"', b'"update"').replace(b"0.0001", b"0.0000")
_SPOT_PING = b'{"ping":"2177c68e4d0e45679965f482929b59c2","time":"2022-06-07T16:27:36.323+0800"}'
_SPOT_TRADE = b'{"code":0,"data":{"E":1790373600336,"T":1790373600316,"e":"trade","m":true,"p":"121123.47","q":"0.003189","s":"BTC-USDT","t":"172356086"},"dataType":"BTC-USDT@trade","success":true,"timestamp":1790373600336}'
_SPOT_KLINE = b'{"code":0,"data":{"E":1790373602349,"K":{"T":1790373659999,"c":"121137.93299999999","h":"121137.946","i":"1min","l":"121137.93299999999","n":4,"o":"121137.946","q":"3131.052371","s":"BTC-USDT","t":1790373600000,"v":"0.025847000000000000"},"e":"kline","s":"BTC-USDT"},"dataType":"BTC-USDT@kline_1min","success":true}'
_SPOT_TICKER = b'{"code":0,"timestamp":1790373601401,"dataType":"BTC-USDT@ticker","data":{"e":"24hTicker","E":1790373601399,"s":"BTC-USDT","p":-632.32,"P":"-0.52%","o":121931.93,"h":123750,"l":119666.27,"c":121299.61,"v":3087.49,"q":375356180.14,"O":1790287200000,"C":1790373601399,"A":121300,"a":0.00013099999999999999,"B":121291.64,"b":9.293124}}'
_SPOT_QUOTE = b'{"code":0,"data":{"A":"0.000016","B":"4.372149","E":1790373605920,"a":"121348.56","b":"121342.22","e":"bookTicker","s":"BTC-USDT"},"dataType":"BTC-USDT@bookTicker","success":true}'
_SPOT_DEPTH = b'{"code":0,"data":{"asks":[["121398.38","0.000025"],["121396.60","0.000010"]],"bids":[["121228.61","0.000321"]],"lastUpdateId":14669994934},"dataType":"BTC-USDT@depth100","success":true,"timestamp":1790373605887}'
_SPOT_ERROR = (
    b'{"code":100400,"msg":"code:100400:incrDepth dataType is not supported","timestamp":1790373605749}'
)

TestLaws = codec_laws(
    bingx(),
    frames={
        "linear": [
            *(_ACK, _ERROR, _TRADES, _KLINE, _TICKER, _MARK, _QUOTE, _DEPTH, _ALL, _UPDATE, b"Ping"),
            *(gzip.compress(frame, mtime=0) for frame in (b"Ping", _TRADES, _ALL)),
        ],
        "spot": [
            *(_SPOT_PING, _SPOT_TRADE, _SPOT_KLINE, _SPOT_TICKER, _SPOT_QUOTE, _SPOT_DEPTH, _SPOT_ERROR),
            *(gzip.compress(frame, mtime=0) for frame in (_SPOT_PING, _SPOT_TRADE)),
        ],
    },
    instruments=[_instrument(market, base) for market in ("spot", "linear") for base in ("BTC", "ETH")],
    examples=60,
)
