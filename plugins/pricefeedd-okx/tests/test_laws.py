"""The laws that all codecs obey, on OKX's frames."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.testing.laws import codec_laws
from pricefeedd_okx.venue import okx


def _instrument(market: str, symbol: str, kind: Kind, quote: str, expiry_ns: int | None = None) -> Instrument:
    return Instrument(
        venue="okx",
        market=market,
        name=spell("BTC", quote, kind, expiry_ns),
        symbol=symbol,
        kind=kind,
        base="BTC",
        quote=quote,
        expiry_ns=expiry_ns,
    )


_ACK = b'{"id":"7","event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"a4d3ae55"}'
_ERROR = b'{"id":"7","event":"error","code":"60018","msg":"Subscribe failed, wrong URL or channel:trades,instId:X-Y doesn\'t exist. Please use the correct URL.","connId":"e1f69f02"}'
_NOTICE = b'{"event":"notice","code":"64008","msg":"The connection will soon be closed.","connId":"a4d3ae55"}'
_TRADE = b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"1000062","px":"60000.1","sz":"0.0250","side":"buy","ts":"1790358565298","count":"3","source":"0","seqId":81625379835}]}'
_FILLS = b'{"arg":{"channel":"trades-all","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"1000063","px":"60000.1","sz":"0.0250","side":"sell","ts":"1790358565298"}]}'
_QUOTE = b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["60000.2","1.5","0","3"]],"bids":[],"ts":"1790358565300","seqId":81625379836}]}'
_SNAPSHOT = b'{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"action":"snapshot","data":[{"asks":[["60010.2","1.5","0","3"],["60010.5","20","0","1"]],"bids":[["60010.1","7.25","0","4"]],"ts":"1790358602106","checksum":0,"seqId":100,"prevSeqId":-1}]}'
_UPDATE = b'{"arg":{"channel":"books","instId":"BTC-USDT-SWAP"},"action":"update","data":[{"asks":[["60010.2","0","0","0"]],"bids":[],"instId":"BTC-USDT-SWAP","ts":"1790358602206","checksum":-1404728636,"seqId":107,"prevSeqId":100}]}'
_CANDLE = b'{"arg":{"channel":"candle1m","instId":"BTC-USDT-SWAP"},"data":[["1790358540000","60010","60020.5","60009.9","60010.1","350.5","3.505","210000.5","1"],["1790358600000","60010.1","60010.1","60010.1","60010.1","0","0","0","0"]]}'
_TICKER = b'{"arg":{"channel":"tickers","instId":"BTC-USD-SWAP"},"data":[{"instType":"SWAP","instId":"BTC-USD-SWAP","last":"60005.1","lastSz":"10","askPx":"60005.2","askSz":"25","bidPx":"","bidSz":"","open24h":"59000","high24h":"61000","low24h":"58000.5","sodUtc0":"59500","sodUtc8":"59400","volCcy24h":"5777.7823","vol24h":"289425","ts":"1790358603143"}]}'
_MARK = b'{"arg":{"channel":"mark-price","instId":"BTC-USD-SWAP"},"data":[{"instId":"BTC-USD-SWAP","instType":"SWAP","markPx":"60004.8","ts":"1790358603778"}]}'
_INDEX = b'{"arg":{"channel":"index-tickers","instId":"BTC-USD"},"data":[{"instId":"BTC-USD","idxPx":"60003.1","open24h":"59000","high24h":"61000","low24h":"58000","sodUtc0":"59500","sodUtc8":"59400","ts":"1790358603099"}]}'
_FUNDING = b'{"arg":{"channel":"funding-rate","instId":"BTC-USD-SWAP"},"data":[{"formulaType":"withRate","fundingRate":"-0.0000263463215391","fundingTime":"1790380800000","instId":"BTC-USD-SWAP","instType":"SWAP","method":"current_period","nextFundingRate":"","nextFundingTime":"1790409600000","settState":"settled","ts":"1790358563915"}]}'
_INTEREST = b'{"arg":{"channel":"open-interest","instId":"BTC-USD-SWAP"},"data":[{"instId":"BTC-USD-SWAP","instType":"SWAP","oi":"2874486.99000000925","oiCcy":"28744.8","oiUsd":"1724692194","ts":"1790358595759"}]}'
_LIQUIDATION = b'{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[{"details":[{"bkLoss":"0","bkPx":"59990.5","ccy":"","posSide":"long","side":"sell","sz":"13","ts":"1790358434010"}],"instFamily":"BTC-USD","instId":"BTC-USD-SWAP","instType":"SWAP","uly":"BTC-USD"}]}'

TestLaws = codec_laws(
    okx(),
    frames={
        "spot-public": [b"pong", _ACK, _ERROR, _NOTICE, _TRADE, _QUOTE],
        "spot-business": [_FILLS],
        "linear-book": [_SNAPSHOT, _UPDATE],
        "linear-business": [_CANDLE],
        "inverse-public": [_TICKER, _MARK, _INDEX, _FUNDING, _INTEREST, _LIQUIDATION],
    },
    instruments=[
        _instrument("spot", "BTC-USDT", Kind.SPOT, "USDT"),
        _instrument("spot", "BTC-USDC", Kind.SPOT, "USDC"),
        _instrument("linear", "BTC-USDT-SWAP", Kind.PERPETUAL, "USDT"),
        _instrument("linear", "BTC-USD_UM-261225", Kind.FUTURE, "USD", 1_798_185_600_000_000_000),
        _instrument("inverse", "BTC-USD-SWAP", Kind.PERPETUAL, "USD"),
        _instrument("inverse", "BTC-USD-261225", Kind.FUTURE, "USD", 1_798_185_600_000_000_000),
    ],
)
