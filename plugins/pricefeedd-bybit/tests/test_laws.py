"""The laws that all codecs obey, on frames in the form of Bybit's documents."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind, spell
from pricefeedd.testing.laws import codec_laws
from pricefeedd_bybit.venue import bybit


def _instrument(market: str, symbol: str, base: str, quote: str) -> Instrument:
    kind = Kind.SPOT if market == "spot" else Kind.PERPETUAL
    return Instrument(
        venue="bybit",
        market=market,
        name=spell(base, quote, kind),
        symbol=symbol,
        kind=kind,
        base=base,
        quote=quote,
    )


_ACK = b'{"success":true,"ret_msg":"","conn_id":"d6ki1eae","req_id":"1","op":"subscribe"}'
_SPOT_ACK = b'{"success":true,"ret_msg":"subscribe","conn_id":"2324d924","req_id":"1","op":"subscribe"}'
_NACK = b'{"success":false,"ret_msg":"error:handler not found,topic:orderbook.500.BTCUSDT","conn_id":"d6","req_id":"2","op":"subscribe"}'
_AGAIN = b'{"success":false,"ret_msg":"error:already subscribed,topic:tickers.BTCUSDT","conn_id":"d6","req_id":"2","op":"subscribe"}'
_ARGS = b'{"success":false,"ret_msg":"args size \\u003e10","conn_id":"d6","req_id":"2","op":"subscribe"}'
_PONG = b'{"success":true,"ret_msg":"pong","conn_id":"465772b1","req_id":"","op":"ping"}'
_TRADES = b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1790373639990,"data":[{"T":1790373639988,"s":"BTCUSDT","S":"Sell","v":"0.001","p":"69916.80","L":"MinusTick","i":"8c931d9a-b703-5c34-9aeb-860867cf1f66","BT":false,"RPI":false,"seq":549792210006},{"T":1790373639988,"s":"BTCUSDT","S":"Buy","v":"0.032","p":"69916.10","L":"PlusTick","i":"307fb58f-09dc-5121-b24f-eb2f81873445","BT":false,"RPI":false,"seq":549792210006}]}'
_QUOTE = b'{"topic":"orderbook.1.BTCUSDT","ts":1790373639990,"type":"snapshot","data":{"s":"BTCUSDT","b":[["28165.07","0.175231"]],"a":[],"u":20404754,"seq":4281281856},"cts":1790373639987}'
_SNAPSHOT = b'{"topic":"orderbook.50.BTCUSDT","type":"snapshot","ts":1790373639990,"data":{"s":"BTCUSDT","b":[["71423.80","0.557"],["71423.10","0.102"]],"a":[["71423.90","4.669"]],"u":10132540,"seq":546137962055},"cts":1790373639987}'
_DELTA = b'{"topic":"orderbook.50.BTCUSDT","type":"delta","ts":1790373639990,"data":{"s":"BTCUSDT","b":[["71419.80","0"]],"a":[["71427.90","0.006"]],"u":10132541,"seq":546137962186},"cts":1790373639987}'
_TICKER = b'{"topic":"tickers.BTCUSDT","type":"snapshot","data":{"symbol":"BTCUSDT","lastPrice":"61874.00","prevPrice24h":"62484.60","highPrice24h":"62752.90","lowPrice24h":"61000.10","markPrice":"61875.25","indexPrice":"61903.73","openInterest":"58117.022","turnover24h":"6073739017.8331","volume24h":"98430.1050","nextFundingTime":"1790380800000","fundingRate":"-0.00008055"},"cs":176530003895,"ts":1790373639990}'
_TICKER_DELTA = b'{"topic":"tickers.BTCUSDT","type":"delta","data":{"symbol":"BTCUSDT","markPrice":"61875.06","bid1Price":"61873.90"},"cs":176530004279,"ts":1790373639995}'
_KLINE = b'{"topic":"kline.1.BTCUSDT","data":[{"start":1790373600000,"end":1790373659999,"interval":"1","open":"16649.5","close":"16677","high":"16677","low":"16608","volume":"2.081","turnover":"34666.4005","confirm":true,"timestamp":1790373659882}],"ts":1790373660001,"type":"snapshot"}'
_LIQUIDATION = b'{"topic":"allLiquidation.BTCUSDT","type":"snapshot","ts":1790373639990,"data":[{"T":1790373639500,"s":"BTCUSDT","S":"Sell","v":"20000","p":"0.04499"}]}'
_AUTH = b'{"req_id":"login","success":true,"ret_msg":"","op":"auth","conn_id":"d2a4c6"}'
_ORDER = b'{"topic":"order.linear","id":"6255_SOL_1","creationTime":1790373639990,"data":[{"category":"linear","symbol":"BTCUSDT","orderId":"f38c5e38","orderLinkId":"","side":"Buy","positionIdx":0,"orderStatus":"Cancelled","cancelType":"CancelByUser","rejectReason":"EC_PerCancelRequest","timeInForce":"GTC","price":"99","qty":"0.1","avgPrice":"","leavesQty":"0","cumExecQty":"0","cumExecValue":"0","orderType":"Limit","reduceOnly":false,"createdTime":"1790373639000","updatedTime":"1790373639989"}]}'
_EXECUTION = b'{"topic":"execution","id":"3868_BTC_1","creationTime":1790373639990,"data":[{"category":"linear","symbol":"BTCUSDT","execFee":"26.3725275","execId":"0ab1bdf7","execPrice":"95900.1","execQty":"0.5","execType":"Trade","execValue":"47950.05","leavesQty":"0","orderId":"9aac161b","orderLinkId":"","orderType":"Market","side":"Sell","execTime":"1790373639989","isMaker":false,"seq":140612148849382}]}'
_POSITION = b'{"id":"1003_b","topic":"position","creationTime":1790373639990,"data":[{"positionIdx":2,"symbol":"BTCUSDT","side":"","size":"0","entryPrice":"0","leverage":"10","updatedTime":"1790373639989","liqPrice":"","category":"linear","positionStatus":"Normal","seq":-1}]}'
_WALLET = b'{"id":"1004_d","topic":"wallet","creationTime":1790373639990,"data":[{"totalEquity":"100.27","coin":[{"coin":"BTC","equity":"0.0003058","walletBalance":"0.0003058","locked":"0"}],"accountType":"UNIFIED"}]}'


def _without_mark(frame: bytes) -> bytes:
    return frame.replace(b'"markPrice":"61875.25","indexPrice":"61903.73",', b"")


TestLaws = codec_laws(
    bybit(),
    frames={
        "spot": [_SPOT_ACK, _ARGS, _TRADES, _QUOTE, _SNAPSHOT, _DELTA, _KLINE, _without_mark(_TICKER)],
        "linear": [
            _ACK, _NACK, _AGAIN, _PONG, _TRADES, _QUOTE, _SNAPSHOT, _DELTA, _TICKER, _TICKER_DELTA, _KLINE,
            _LIQUIDATION,
        ],
        "inverse": [frame.replace(b"BTCUSDT", b"BTCUSD") for frame in (_TRADES, _DELTA, _TICKER, _LIQUIDATION)],
        "private": [_AUTH, _ACK, _ORDER, _EXECUTION, _POSITION, _WALLET],
    },
    instruments=[
        _instrument("spot", "BTCUSDT", "BTC", "USDT"),
        _instrument("spot", "ETHBTC", "ETH", "BTC"),
        _instrument("linear", "BTCUSDT", "BTC", "USDT"),
        _instrument("linear", "BTCPERP", "BTC", "USDC"),
        _instrument("inverse", "BTCUSD", "BTC", "USD"),
    ],
)  # fmt: skip
