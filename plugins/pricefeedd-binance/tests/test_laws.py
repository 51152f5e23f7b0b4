"""The laws that all codecs obey, on Binance's frames."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.testing.laws import codec_laws
from pricefeedd_binance.venue import binance


def _instrument(market: str, symbol: str, base: str, quote: str) -> Instrument:
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="binance",
        market=market,
        name=spell(base, quote, kind),
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
    )


_ACK = b'{"result":null,"id":1}'
_CTK = b'{"stream":"ctkusdt@aggTrade","data":{"e":"aggTrade","E":1626992763303,"a":16599318,"s":"CTKUSDT","p":"1.01200","q":"10","nq":"10","f":23961370,"l":23961370,"T":1626992763148,"m":false,"st":1}}'
_SUSHI = b'{"stream":"sushiusdt@kline_1m","data":{"e":"kline","E":1626992760203,"s":"SUSHIUSDT","k":{"t":1626992700000,"T":1626992759999,"s":"SUSHIUSDT","i":"1m","f":126902874,"L":126902986,"o":"7.6080","c":"7.6170","h":"7.6180","l":"7.6070","v":"3005","n":113,"x":true,"q":"22875.8590","V":"1900","Q":"14464.6960","B":"0"}}}'
_MARK = b'{"stream":"ctkusdt@markPrice@1s","data":{"e":"markPriceUpdate","E":1562305380000,"s":"CTKUSDT","p":"11794.15000000","i":"11784.62659091","P":"11784.25641265","r":"0.00038167","T":1562306400000}}'
_FORCE = b'{"stream":"ctkusdt@forceOrder","data":{"e":"forceOrder","E":1568014460893,"o":{"s":"CTKUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9910","X":"FILLED","l":"0.014","z":"0.014","T":1568014460893}}}'
_EOS = b'{"stream":"eosusd_perp@depth@100ms","data":{"e":"depthUpdate","E":1626916426441,"T":1626916426420,"s":"EOSUSD_PERP","ps":"EOSUSD","U":167006223535,"u":167006223839,"pu":167006223476,"b":[["3.468","0"]],"a":[]}}'
_ETC = b'{"stream":"etcusd_perp@bookTicker","data":{"u":167006102335,"e":"bookTicker","s":"ETCUSD_PERP","ps":"ETCUSD","b":"42.267","B":"584","a":"42.271","A":"68","T":1626916405423,"E":1626916405429}}'
_BLZ = b'{"stream":"blzeth@depth@100ms","data":{"e":"depthUpdate","E":1633998522873,"s":"BLZETH","U":281916629,"u":281916629,"b":[["0.00006537","0.00000000"]],"a":[]}}'
_LRC = b'{"stream":"lrcbtc@bookTicker","data":{"u":259345549,"s":"LRCBTC","b":"0.00000637","B":"6500.00000000","a":"0.00000638","A":"5219.00000000"}}'
_NKN = b'{"stream":"lrcbtc@ticker","data":{"e":"24hrTicker","E":1672515782136,"s":"LRCBTC","p":"0.0015","P":"250.00","w":"0.0018","c":"0.0025","Q":"10","o":"0.0010","h":"0.0025","l":"0.0010","v":"10000","q":"18","O":0,"C":86400000,"F":0,"L":18150,"n":18151}}'
_SHUTDOWN = b'{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1770123456789}}'

TestLaws = codec_laws(
    binance(),
    frames={
        "spot": [_ACK, _BLZ, _LRC, _NKN, _SHUTDOWN, b'{"code":2,"msg":"Invalid request"}'],
        "linear-market": [_ACK, _CTK, _SUSHI, _MARK, _FORCE, _NKN.replace(b"LRCBTC", b"CTKUSDT")],
        "inverse-public": [_ACK, _EOS, _ETC],
    },
    instruments=[
        _instrument("spot", "BLZETH", "BLZ", "ETH"),
        _instrument("spot", "LRCBTC", "LRC", "BTC"),
        _instrument("linear", "CTKUSDT", "CTK", "USDT"),
        _instrument("linear", "SUSHIUSDT", "SUSHI", "USDT"),
        _instrument("inverse", "EOSUSD_PERP", "EOS", "USD"),
        _instrument("inverse", "ETCUSD_PERP", "ETC", "USD"),
    ],
)
