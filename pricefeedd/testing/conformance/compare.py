"""What a reader got, held against what the fake told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from pricefeedd.events import Candle, Gap, Price, Quote, Ticker, Trade
from pricefeedd.rules import CandleEnd, EmptyMinutes, TradeIds
from pricefeedd.testing.conformance.scene import Scene

_MINUTE_NS = 60_000_000_000

Row = tuple[float, ...]


def check_complete(scene: Scene, *names: str, bad_frames: int = 0) -> None:
    """Assert that the reader has everything of these instruments, or all: once, in order, and as it was told.

    Trades may be missing only where a gap says so.

    Args:
        bad_frames: How many frames may at most have been impossible to decode.
    """
    scene.rig.check_sequence()
    assert not scene.witness.crashes, scene.witness.crashes[0]
    stats = scene.stats
    assert stats.decode_errors <= bad_frames, (
        f"{stats.decode_errors} frames could not be decoded: {stats.bad_frames[-1].reason}"
    )
    for name in names or scene.names:
        for channel in scene.channels:
            _CHECKS[channel](scene, name)
            topic = f"{channel}:{name}"
            assert scene.rig.live(topic), f"{topic} is {scene.rig.state(topic)} in the end"


def check_trades(scene: Scene, name: str) -> None:
    """Assert that the trades are those of the market up to the last, with holes only where gaps tell them."""
    topic = f"trade:{name}"
    truth = rows(scene.fake.told_trades(name))
    assert truth, f"{name}: the fake told no trades"
    blocks: list[list[Row]] = [[]]
    allowed: list[int | None] = []
    for message in scene.rig.topic(topic):
        event = message.event
        if isinstance(event, Trade):
            blocks[-1].append((float(event.price), float(event.size)))
        elif isinstance(event, Gap) and event.missing != 0:
            allowed.append(event.missing)
            blocks.append([])
    assert any(blocks), f"{topic}: no trade came"
    check_ids(scene, name)
    end = len(truth)
    hole: int | None = 0
    for number in range(len(blocks) - 1, -1, -1):
        if number < len(allowed):
            told = allowed[number]
            hole = None if hole is None or told is None else hole + told
        block = blocks[number]
        if not block:
            continue
        start = _find(truth, block, end, hole)
        assert start is not None, _difference(topic, truth, block, end)
        end, hole = start, 0


def _find(truth: Sequence[Row], block: Sequence[Row], end: int, hole: int | None) -> int | None:
    """Return where a block of trades stands in the truth: `hole` rows before `end`, or the last place if None."""
    highest = end - len(block) - (hole or 0)
    for start in range(highest, -1 if hole is None else highest - 1, -1):
        if start < 0:
            return None
        if truth[start] == block[0] and list(truth[start : start + len(block)]) == list(block):
            return start
    return None


def _difference(topic: str, truth: Sequence[Row], block: Sequence[Row], end: int) -> str:
    """Return in words how a block of trades differs from the truth that ends at `end`."""
    told = list(truth[max(0, end - len(block)) : end])
    extra = Counter(block) - Counter(truth)
    if extra:
        example, times = next(iter(extra.items()))
        known = example in set(truth)
        return (
            f"{topic}: {sum(extra.values())} trades came that were not told, or came again, the first "
            f"{example} ({times} times{', told once' if known else ', never told'})"
        )
    if Counter(block) == Counter(told):
        at = next(i for i, (a, b) in enumerate(zip(block, told, strict=True)) if a != b)
        return f"{topic}: all trades came, but out of order, first at {block[at]} where {told[at]} was told"
    missing = Counter(told) - Counter(block)
    return f"{topic}: {sum(missing.values())} trades are missing and no gap says so, the first {next(iter(missing), None)}"


def check_ids(scene: Scene, name: str) -> None:
    """Assert what the rule promises of trade ids: consecutive ones have no hole but a told one, none is twice."""
    rule = scene.cast.rules.trade
    ids = [t.id for t in scene.rig.events(f"trade:{name}", Trade) if t.id is not None]
    if rule is None or rule.ids is TradeIds.NONE:
        return
    assert ids, f"trade:{name}: the rule says that ids are {rule.ids.value}, and the trades have none"
    twice = [one for one, times in Counter(ids).items() if times > 1]
    assert not twice, f"trade:{name}: {len(twice)} ids came twice, such as {twice[0]}"
    if rule.ids in (TradeIds.CONSECUTIVE, TradeIds.INCREASING):
        numbers = [int(one) for one in ids]
        assert numbers == sorted(numbers), f"trade:{name}: ids do not grow"


def check_book(scene: Scene, name: str) -> None:
    """Assert that the reader's book is the market's, level by level."""
    rule = scene.cast.rules.book
    got = scene.rig.book(name)
    assert got is not None, f"book:{name}: no snapshot came"
    depth = None if rule is None else rule.depth
    for side, ours, told in zip(("bids", "asks"), got, scene.fake.told_book(name), strict=True):
        mine, theirs = rows(ours), rows(told)[:depth]
        assert theirs, f"book:{name}: the fake told no {side}"
        if mine != theirs:
            wrong = sorted(set(mine) ^ set(theirs))
            raise AssertionError(
                f"book:{name}: {len(mine)} {side} where {len(theirs)} were told; {len(wrong)} levels differ, such as "
                f"{wrong[0] if wrong else 'their order'}"
            )


def check_quote(scene: Scene, name: str) -> None:
    """Assert that the newest quote is the market's best bid and offer."""
    quotes = scene.rig.events(f"quote:{name}", Quote)
    assert quotes, f"quote:{name}: no quote came"
    last = quotes[-1]
    got = [last.bid_price, last.bid_size, last.ask_price, last.ask_size]
    told = [text for side in scene.fake.told_quote(name) for text in side]
    for ours, theirs in zip(got, told, strict=True):
        assert ours is None or float(ours) == float(theirs), (
            f"quote:{name}: the last is {got}, told was {told}"
        )
    assert got[0] is not None, f"quote:{name}: the last has no bid, told was {told}"


def check_ticker(scene: Scene, name: str) -> None:
    """Assert that tickers came, whole ones."""
    tickers = scene.rig.events(f"ticker:{name}", Ticker)
    assert tickers, f"ticker:{name}: no ticker came"
    assert not any(ticker.partial for ticker in tickers), f"ticker:{name}: a partial one reached the reader"


def check_candles(scene: Scene, name: str) -> None:
    """Assert that each minute closed once, in order, without a hole, with the market's own numbers."""
    rule = scene.cast.rules.candle
    topic = f"candle_1m:{name}"
    assert rule is not None, f"{topic}: the market offers minutes and has no rule for them"
    closed = [c for c in scene.rig.events(topic, Candle) if c.closed]
    assert closed, f"{topic}: no minute closed"
    starts = [c.start_ns for c in closed]
    told = {c.start_ns: c for c in scene.fake.told_candles(name)}
    if rule.empty is EmptyMinutes.NONE:
        # Minutes without anything do not exist; an oracle's count no trades at any time.
        told = {start: c for start, c in told.items() if c.trades or rule.built_from == "price"}
        expected = [start for start in sorted(told) if starts[0] <= start <= starts[-1]]
    else:
        expected = list(range(starts[0], starts[-1] + 1, _MINUTE_NS))
    if starts != expected:
        absent, strange = sorted(set(expected) - set(starts)), len(starts) - len(set(starts))
        raise AssertionError(
            f"{topic}: {len(absent)} minutes are missing, {strange} came twice"
            f"{'' if absent or strange else ', or they are out of order'}"
        )
    for candle in closed:
        truth = told.get(candle.start_ns)
        if truth is None:
            continue
        ours = [float(getattr(candle, field)) for field in _CANDLE_FIELDS]
        theirs = [float(getattr(truth, field)) for field in _CANDLE_FIELDS]
        close = all(abs(a - b) <= 1e-9 * max(abs(a), abs(b)) for a, b in zip(ours, theirs, strict=True))
        assert close, f"{topic}: minute {candle.start_ns} is {ours} ({candle.origin}), told was {theirs}"
    final = [start for start, truth in told.items() if truth.closed]
    # Closed by the next one's appearance, the last may still be open when the market stops.
    late = 2 if rule.end is CandleEnd.NEXT or rule.built_from else 1
    assert not final or starts[-1] > max(final) - late * _MINUTE_NS, f"{topic}: the last minutes are missing"


_CANDLE_FIELDS = ("open", "high", "low", "close", "volume")


def check_prices(scene: Scene, name: str) -> None:
    """Assert that an oracle's prices come in the order of their slots, none invented, the last one last."""
    topic = f"price:{name}"
    prices = scene.rig.events(topic, Price)
    assert prices, f"{topic}: no price came"
    slots = [price.slot for price in prices if price.slot is not None]
    assert all(a < b for a, b in pairwise(slots)), f"{topic}: slots out of order"
    told = [float(text) for text in scene.fake.told_prices(name)]
    assert told, f"{topic}: the fake's `told_prices` has none"
    remaining = iter(told)
    for price in prices:
        assert float(price.price) in remaining, f"{topic}: {price.price} was not told, or not in this order"
    assert float(prices[-1].price) == told[-1], (
        f"{topic}: the last is {prices[-1].price}, told was {told[-1]}"
    )


def rows(pairs: Sequence[tuple[str, str]]) -> list[Row]:
    """Return pairs of texts as numbers."""
    return [(float(a), float(b)) for a, b in pairs]


_CHECKS = {
    "trade": check_trades,
    "quote": check_quote,
    "ticker": check_ticker,
    "candle_1m": check_candles,
    "book": check_book,
    "price": check_prices,
}
