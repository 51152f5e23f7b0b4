"""The laws that all codecs obey, on Gate's frames in the documented form."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.testing.laws import codec_laws
from pricefeedd_gateio.venue import gateio


def _instrument(market: str, base: str, quote: str, settle: str) -> Instrument:
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="gateio",
        market=market,
        name=spell(base, quote, kind),
        symbol=f"{base}_{quote}",
        kind=kind,
        base=base,
        quote=quote,
        settle=settle,
    )


_SPOT = [
    b'{"time":1790359170,"time_ms":1790359170614,"id":1,"conn_id":"d7de","trace_id":"e6fd","channel":"spot.obu","event":"subscribe","payload":["ob.BTC_USDT.400"],"result":{"status":"success"}}',
    b'{"time":1790359171,"time_ms":1790359171120,"channel":"spot.trades","event":"update","result":{"id":220643714,"id_market":220643714,"create_time":1790359171,"create_time_ms":"1790359171119.653000","side":"sell","currency_pair":"BTC_USDT","amount":"0.002984","price":"83790.9","range":"220643714-220643714","trade_mode":0}}',
    b'{"time":1790359172,"time_ms":1790359172022,"channel":"spot.book_ticker","event":"update","result":{"t":1790359172017,"u":48733182,"s":"BTC_USDT","b":"83790.8","B":"0.6135","a":"83790.9","A":"1.7"}}',
    b'{"time":1790359173,"time_ms":1790359173406,"channel":"spot.tickers","event":"update","result":{"currency_pair":"ETH_USDT","last":"2666.4","lowest_ask":"2666.5","highest_bid":"2666.4","change_percentage":"-1.8254","base_volume":"9110.473081735","quote_volume":"24508208.2535","high_24h":"2716.9","low_24h":"2646.1"}}',
    b'{"time":1790359182,"time_ms":1790359182100,"channel":"spot.candlesticks","event":"update","result":{"t":"1790359140","v":"50236.32035","c":"83790.1","h":"83791.1","l":"83779.1","o":"83781.1","n":"1m_BTC_USDT","a":"0.5996","w":true}}',
    b'{"time":1790359183,"time_ms":1790359183031,"channel":"spot.order_book_update","event":"update","result":{"t":1790359183017,"l":"100","e":"depthUpdate","E":1790359183,"s":"ETH_USDT","U":48776301,"u":48776306,"b":[["2666.4","0.0001"],["2666.1","0"]],"a":[["2666.5","0.6135"]]}}',
    b'{"channel":"spot.obu","result":{"t":1790359183125,"full":true,"s":"ob.BTC_USDT.400","u":73777715168,"b":[["83790.8","509"],["83790.7","128"]],"a":[["83790.9","5"]]},"time_ms":1790359183158}',
    b'{"channel":"spot.obu","result":{"t":1790359183225,"s":"ob.BTC_USDT.400","U":73777715169,"u":73777715212,"b":[["83790.8","0"]]},"time_ms":1790359183260}',
    b'{"time":1790359190,"time_ms":1790359190001,"channel":"spot.pong","event":"","result":null}',
    b'{"type":"upgrade","msg":"The connection will soon be closed for a service upgrade. Please reconnect."}',
    b'{"time":1790000000,"time_ms":1790000000482,"id":4,"channel":"spot.tickers","event":"subscribe","payload":["NO_PE"],"error":{"code":2,"message":"unknown currency pair NO_PE"},"result":{"status":"fail"}}',
]

_FUTURES = [
    b'{"time":1790359195,"time_ms":1790359195732,"channel":"futures.trades","event":"update","result":[{"id":842235619,"size":-3,"create_time":1790359195,"create_time_ms":1790359195732,"price":"83746.9","contract":"BTC_USDT"},{"id":842235620,"size":"0.5","create_time":1790359195,"create_time_ms":1790359195733,"price":"83747.0","contract":"BTC_USDT"}]}',
    b'{"time":1790359196,"time_ms":1790359196021,"channel":"futures.book_ticker","event":"update","result":{"t":1790359196010,"u":6160056,"s":"ETH_USDT","b":"2666.1","B":136,"a":"2666.2","A":"65.5"}}',
    b'{"time":1790359197,"time_ms":1790359197123,"channel":"futures.tickers","event":"update","result":[{"contract":"BTC_USDT","last":"83747","change_percentage":"0.77","funding_rate":"-0.000114","funding_rate_indicative":"0.01875","mark_price":"83746.35","index_price":"83748.36","total_size":"73648","volume_24h":"745487577","volume_24h_base":"74548","volume_24h_quote":"6243138470","volume_24h_settle":"6243138470","quanto_base_rate":"","low_24h":"82992","high_24h":"84132.5","funding_next_apply":1790380800,"t":1790359197120}]}',
    b'{"time":1790359200,"time_ms":1790359200934,"channel":"futures.candlesticks","event":"update","result":[{"t":1790359140,"v":"402","c":"83747","h":"83750","l":"83740.1","o":"83741","n":"1m_BTC_USDT","a":"3366.71","w":true},{"t":1790359200,"v":0,"c":"83747","h":"83747","l":"83747","o":"83747","n":"1m_BTC_USDT","a":"0","w":false}]}',
    b'{"time":1790359201,"time_ms":1790359201359,"channel":"futures.order_book_update","event":"update","result":{"U":6160001,"a":[{"p":"2666.5","s":0}],"b":[{"p":"2666.1","s":"12"}],"s":"ETH_USDT","t":1790359201297,"u":6160001,"l":"100"}}',
    b'{"channel":"futures.obu","result":{"t":1790359202995,"full":true,"s":"ob.BTC_USDT.400","u":79072179673,"b":[["83705.9","30166"]],"a":[["83706","4208.5"]]},"time_ms":1790359202999}',
    b'{"channel":"futures.obu","result":{"t":1790359203017,"s":"ob.BTC_USDT.400","U":79072179674,"u":79072179694,"b":[["83702.2","62"],["83702.1","0"]]},"time_ms":1790359203020}',
    b'{"channel":"futures.public_liquidates","event":"update","time":1790359204,"time_ms":1790359204123,"result":[{"price":"83700.1","size":"-124.5","time":1790359204001,"contract":"BTC_USDT"},{"price":"2665.2","size":10,"time":1790359204,"contract":"ETH_USDT"}]}',
    b'{"time":1790359205,"time_ms":1790359205000,"channel":"futures.system","event":"update","result":{"type":"upgrade","msg":"Please reconnect."}}',
    b'{"time":1790359206,"time_ms":1790359206000,"channel":"futures.pong","event":"","result":null}',
]

TestLaws = codec_laws(
    gateio(),
    frames={
        "spot": _SPOT,
        "linear": _FUTURES,
        "inverse": [frame.replace(b"_USDT", b"_USD") for frame in _FUTURES],
    },
    instruments=[
        _instrument("spot", "BTC", "USDT", "USDT"),
        _instrument("spot", "ETH", "USDT", "USDT"),
        _instrument("linear", "BTC", "USDT", "USDT"),
        _instrument("linear", "ETH", "USDT", "USDT"),
        _instrument("linear", "BTC", "USD1", "USD1"),
        _instrument("inverse", "BTC", "USD", "BTC"),
        _instrument("inverse", "ETH", "USD", "ETH"),
    ],
)
