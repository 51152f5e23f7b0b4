"""What is remembered of one channel of one account: what was told already, and what may not be told any more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import attrs

from pricefeedd.events import AccountEvent, Event, Origin, State
from pricefeedd.lines import Context, Line, Seen

#: Keys are remembered this long, so that what is fetched after an absence is known again.
REMEMBER_S = 7 * 86_400.0
#: Fewest keys, and most orders, that are remembered.
ENTRIES = 20_000

#: The field that tells one from another, within its market and symbol.
ID_FIELDS = {"order": "order_id", "position": "position_index", "balance": "coin"}


@attrs.frozen(kw_only=True)
class Held:
    """An order that is open, a position that is not flat, or a coin that is owned, when we were told last.

    Once the venue names it no more, it is asked for by itself: it may have ended while nobody told us.

    Attributes:
        id: Of the order, the position's index, or the coin.
        told_ns: When we were told, by our clock.
    """

    market: str
    symbol: str
    id: str
    told_ns: int


class AccountLine(Line[AccountEvent]):
    """One topic of an account. What comes again, or too late to be true still, is dropped.

    Attributes:
        whole: Nothing is missing: it is live, and what happened before was fetched.
        newest: The newest event of each coin, position or open order.
        held: What there is that may end, by market, symbol and id.
    """

    def __init__(self, channel: str, account: str, context: Context) -> None:
        super().__init__(channel, account, context)
        self.whole = False
        self.newest: dict[tuple[object, ...], AccountEvent] = {}
        self.held: dict[tuple[str, str, str], Held] = {}
        self._seen = Seen(REMEMBER_S, max(ENTRIES, context.dedupe_entries))

    def end(self) -> None:
        """Note that from here on something may be missed."""
        self.whole = False

    def tick(self, now_ns: int, out: list[Event]) -> None:
        """Do nothing: an account may rightly be silent for days. Its connection is watched by its pings."""

    def explain(self, reason: str, now_ns: int, out: list[Event]) -> None:
        """Say why what is live is not whole; "" once it is."""
        if self.carriers and self.state is State.LIVE:
            self.say(State.LIVE, reason, now_ns, out)

    def admit(self, event: AccountEvent, out: list[Event], carrier: int = 0) -> None:
        """Let an event through if it is news."""
        self.count += 1
        if self._seen.again(event.key, event.received_ns) or not self.is_news(event):
            self.duplicate()
            self._still(event)
        else:
            self.seen_ns = event.received_ns
            out.append(event)

    def is_news(self, event: AccountEvent) -> bool:
        """Return whether an event whose key is new tells anything, and remember it."""
        return True

    def recall(self, held: Iterable[Held]) -> None:
        """Remember what there was when we last ran."""
        for one in held:
            self.held.setdefault((one.market, one.symbol, one.id), one)

    def _still(self, event: AccountEvent) -> None:
        """Note that what is there was told of again."""
        fields = event.fields
        id_ = fields.get(ID_FIELDS.get(self.channel, ""))
        key = (str(fields.get("market", "")), str(fields.get("symbol", "")), str(id_))
        held = self.held.get(key)
        if held is not None:
            self.held[key] = attrs.evolve(held, told_ns=event.received_ns)

    def _hold(self, event: AccountEvent, id_: object, *, lasts: bool) -> None:
        """Note whether what the event tells of is still there."""
        fields = event.fields
        market, symbol = str(fields.get("market", "")), str(fields.get("symbol", ""))
        key = (market, symbol, str(id_))
        self.held.pop(key, None)
        if lasts:
            self.held[key] = Held(market=market, symbol=symbol, id=str(id_), told_ns=event.received_ns)


class StateLine(AccountLine):
    """Balances and positions: each event replaces the one before of the same coin or position."""

    def is_news(self, event: AccountEvent) -> bool:
        """Return whether it is newer than what is known, and says something else if it was asked for."""
        fields = event.fields
        subject = tuple(fields.get(name) for name in ("market", "symbol", "position_index", "coin"))
        known = self.newest.get(subject)
        if known is not None:
            if (event.venue_time_ns or 0) < (known.venue_time_ns or 0):
                return False
            if event.origin is Origin.BACKFILL and dict(fields) == dict(known.fields):
                return False
        self.newest[subject] = event
        if self.channel == "position":
            self._hold(event, fields.get("position_index"), lasts=_decimal(fields.get("size")) != 0)
        elif "coin" in fields:
            self._hold(event, fields["coin"], lasts=_decimal(fields.get("wallet_balance")) != 0)
        return True


@attrs.frozen
class _Known:
    open: bool
    updated_us: int
    filled: Decimal


class OrderLine(AccountLine):
    """Orders, which never go back in time: messages of one order may overtake each other."""

    def __init__(self, channel: str, account: str, context: Context) -> None:
        super().__init__(channel, account, context)
        self._orders: OrderedDict[str, _Known] = OrderedDict()

    def is_news(self, event: AccountEvent) -> bool:
        """Return whether it is later than what is known of the order, and does not open it again."""
        fields = event.fields
        order_id = str(fields.get("order_id"))
        updated = fields.get("updated_us")
        now = _Known(bool(fields.get("open")), int(updated or 0), _decimal(fields.get("filled_size")))
        known = self._orders.get(order_id)
        if known is not None and _goes_back(known, now):
            return False
        told = self.newest.get((order_id,))
        if told is not None and event.origin is Origin.BACKFILL and _same(told, event):
            return False
        self._orders[order_id] = now
        self._orders.move_to_end(order_id)
        if len(self._orders) > ENTRIES:
            self._orders.popitem(last=False)
        self._hold(event, order_id, lasts=now.open)
        self.newest.pop((order_id,), None)
        if now.open:
            self.newest[order_id,] = event
        return True

    def gone(self, before_ns: int, now_ns: int, out: list[Event]) -> None:
        """Tell of orders that ended unseen: all that are open were told by now, and these were not.

        Args:
            before_ns: What was told since then is open.
        """
        for held in [held for held in self.held.values() if held.told_ns < before_ns]:
            known = self.newest.get((held.id,))
            fields = {"market": held.market, "symbol": held.symbol, "order_id": held.id}
            event = AccountEvent(
                venue=self.context.venue,
                instrument=held.symbol if known is None else known.instrument,
                received_ns=now_ns,
                origin=Origin.DERIVED,
                account=self.instrument,
                kind=self.channel,
                key=f"{held.id}:gone",
                fields={**(fields if known is None else known.fields), "status": "unknown", "open": False},
            )
            self.admit(event, out)


def _goes_back(known: _Known, now: _Known) -> bool:
    """Return whether what is told now was true before what is known."""
    if known.open != now.open:
        # Closed is for ever, whatever the clocks say.
        return now.open
    if now.updated_us != known.updated_us:
        return now.updated_us < known.updated_us
    return now.filled < known.filled


def _same(one: AccountEvent, other: AccountEvent) -> bool:
    """Return whether two rows say the same, whenever each was told."""
    return {**one.fields, "updated_us": None} == {**other.fields, "updated_us": None}


def _decimal(text: object) -> Decimal:
    try:
        return Decimal(str(text))
    except InvalidOperation:
        return Decimal(0)


def line_for(channel: str, account: str, context: Context) -> AccountLine:
    """Return the line that fits a channel of an account."""
    if channel == "order":
        return OrderLine(channel, account, context)
    if channel in ("position", "balance"):
        return StateLine(channel, account, context)
    return AccountLine(channel, account, context)
