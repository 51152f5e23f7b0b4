"""The laws that all codecs obey, on frames of the form that Coinbase documents."""

from __future__ import annotations

from pricefeedd.instruments import Instrument, Kind
from pricefeedd.testing.laws import codec_laws
from pricefeedd_coinbase.venue import coinbase


def _instrument(base: str) -> Instrument:
    symbol = f"{base}-USD"
    return Instrument(
        venue="coinbase", market="spot", name=symbol, symbol=symbol, kind=Kind.SPOT, base=base, quote="USD"
    )


_TRADE = b'{"channel":"market_trades","timestamp":"2026-09-30T02:39:54.014999553Z","sequence_num":22,"events":[{"type":"update","trades":[{"product_id":"BTC-USD","trade_id":"1100253488","price":"83277.26","size":"0.00058346","time":"2026-09-30T02:39:53.977543Z","side":"SELL"}]}]}'
_TRADES = b'{"channel":"market_trades","client_id":"","timestamp":"2026-09-30T02:39:54Z","sequence_num":1,"events":[{"type":"snapshot","trades":[{"product_id":"ETH-USD","trade_id":"3","price":"2666.07","size":"0.1","time":"2026-09-30T02:39:52.402705Z","side":"BUY"},{"product_id":"ETH-USD","trade_id":"2","price":"2666","size":"1","time":"2026-09-30T02:39:51Z","side":"SELL"}]}]}'
_BOOK = b'{"channel":"l2_data","timestamp":"2026-09-30T02:39:53.670986313Z","sequence_num":0,"events":[{"type":"snapshot","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"2026-09-30T02:39:53.407329Z","price_level":"83277.25","new_quantity":"0.00715626"},{"side":"offer","event_time":"2026-09-30T02:39:53.407329Z","price_level":"83277.26","new_quantity":"0.01110256"}]}]}'
_DELTA = b'{"channel":"l2_data","timestamp":"2026-09-30T02:39:53.690955245Z","sequence_num":2,"events":[{"type":"update","product_id":"BTC-USD","updates":[{"side":"bid","event_time":"2026-09-30T02:39:53.606233Z","price_level":"83242.46","new_quantity":"0"},{"side":"offer","event_time":"2026-09-30T02:39:53.606233Z","price_level":"83281","new_quantity":"0.0601005"}]}]}'
_TICKER = b'{"channel":"ticker","client_id":"","timestamp":"2023-02-09T20:30:37.167359596Z","sequence_num":0,"events":[{"type":"snapshot","tickers":[{"type":"ticker","product_id":"BTC-USD","price":"21932.98","volume_24_h":"16038.28770938","low_24_h":"21835.29","high_24_h":"23011.18","low_52_w":"15460","high_52_w":"48240","price_percent_chg_24_h":"-4.15775596190603","best_bid":"21931.98","best_bid_quantity":"8000.21","best_ask":"21933.98","best_ask_quantity":"8038.07770938"}]}]}'
_EMPTY = b'{"channel":"ticker_batch","client_id":"","timestamp":"2023-02-09T20:30:37.167359596Z","sequence_num":0,"events":[{"type":"snapshot","tickers":[{"type":"ticker","product_id":"","price":"","volume_24_h":"","low_24_h":"","high_24_h":"","low_52_w":"","high_52_w":"","price_percent_chg_24_h":""}]}]}'
_BEAT = b'{"channel":"heartbeats","timestamp":"2026-09-30T02:39:54.168476664Z","sequence_num":29,"events":[{"current_time":"2026-09-30 02:39:54.167689127 +0000 UTC m=+12240.233883420","heartbeat_counter":12240}]}'
_ANSWER = b'{"channel":"subscriptions","timestamp":"2026-09-30T02:39:53.78865513Z","sequence_num":11,"events":[{"subscriptions":{"heartbeats":["heartbeats"],"level2":["BTC-USD","ETH-USD"]}}]}'
_ERROR = b'{"type":"error","message":"authentication failure"}'

TestLaws = codec_laws(
    coinbase(),
    frames={
        "spot": [_TRADE, _TRADES, _TICKER, _EMPTY, _BEAT, _ANSWER, _ERROR],
        "spot-book": [_BOOK, _DELTA, _BEAT, _ANSWER],
    },
    instruments=[_instrument("BTC"), _instrument("ETH")],
)
