"""`/api/v1/subscriptions`: services say what they need, and it is served until they say otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import attrs
import orjson
import trio
from quart import Quart, Response

from pricefeedd.offer import CHANNEL_TYPES, SubscriptionRefusedError, Wish
from pricefeedd.registry import Registry, not_found
from pricefeedd.store.records import SubscriptionRecord
from pricefeedd.web.authority import check_may_change, not_ours
from pricefeedd.web.daemon import Daemon, Limits
from pricefeedd.web.fields import BadRequest, Choice, Flag, Text, Whole, given
from pricefeedd.web.http import Query, asked, body, own_scopes, respond
from pricefeedd.web.keys import ADMIN

PATH: Final = "/api/v1/subscriptions"

#: What a refusal is in HTTP; all others are 400.
STATUS: Final[Mapping[str, int]] = {
    "subscription_not_found": 404,
    "subscription_exists": 409,
    "limit": 429,
    "instruments_not_loaded": 503,
    "store_not_loaded": 503,
    "shutting_down": 503,
}
#: A refusal with 503 or 429 asks its client to wait so many seconds.
_RETRY_S: Final = 5
#: A change is told to be done when the store has it, or after so long: then it is written later.
_STORED_S: Final = 2.0


@attrs.frozen(kw_only=True)
class ChannelType(Choice):
    """One of the words for channels; another one is refused with a code of its own."""

    words: tuple[str, ...] = tuple(CHANNEL_TYPES)

    def read(self, value: Any) -> str:
        """Take one of the words.

        Raises:
            BadRequest: It is none.
        """
        try:
            return super().read(value)
        except ValueError as e:
            shown = orjson.dumps(value).decode()[:60]
            raise BadRequest("invalid_channel_type", f"expected {self.expected}, found {shown}") from e


@attrs.frozen(kw_only=True)
class Name(Text):
    """What a service calls itself: a word that can stand in a URL."""

    longest: int = 100
    expected: str = "1 to 100 letters, digits and ._:@+- beginning with a letter or digit"

    _FORM: ClassVar = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@+-]{0,99}")

    @property
    def schema(self) -> dict[str, Any]:
        """A string of that form."""
        return {"type": "string", "pattern": f"^{self._FORM.pattern}$"}

    def read(self, value: Any) -> str:
        """Take such a word."""
        if not isinstance(value, str) or not self._FORM.fullmatch(value):
            raise ValueError
        return value


@attrs.frozen(kw_only=True)
class Id(Text):
    """The id of a subscription. Whatever is none means nothing, like one that was never given out."""

    expected: str = "a UUID"

    @property
    def schema(self) -> dict[str, Any]:
        """A string with a UUID."""
        return {"type": "string", "format": "uuid"}


NAME: Final = Name()
ID: Final = Id()
_VENUE: Final = Text(longest=64)
_SYMBOL: Final = Text(shortest=0, longest=64)


@attrs.frozen(kw_only=True)
class Order:
    """What a service wants to be served."""

    channel_type: str = given(ChannelType(), "What kind of data.", example="trades")
    symbol: str | None = given(
        _SYMBOL,
        "The venue's symbol, or our name. `order`, `balance` and `position` have none.",
        default=None,
        example="BTCUSDT",
    )
    requesting_service: str = given(
        NAME,
        "What the service calls itself: its subscriptions are counted, and ended, by that.",
        example="order-manager",
    )
    venue: str = given(_VENUE, "The venue's section in the configuration.", default="bybit", example="bybit")
    market: str | None = given(
        Text(longest=64),
        "The market of the symbol. Without it the first that lists the symbol: `linear`, `spot`, `inverse`, `option`, "
        "`oracle`.",
        default=None,
        example="linear",
    )
    account: str | None = given(
        Text(longest=64),
        "Whose `order`, `balance` or `position`: an account of the configuration; may be left out where there is one.",
        default=None,
        example=None,
    )
    topic: str | None = given(
        Text(longest=200),
        "The venue's own topic, or ours, where the channel type leaves a choice (`candle_5m:bybit:BTC-USDT-PERP`).",
        default=None,
        example="publicTrade.BTCUSDT",
    )


@attrs.frozen(kw_only=True)
class SubscriptionsQuery(Query):
    """Which subscriptions."""

    requesting_service: str | None = given(
        Text(longest=100), "Those of one service.", default=None, example="order-manager"
    )
    is_active: bool | None = given(
        Flag(), "Those that are served, or those that were cancelled.", default=None, example=True
    )
    channel_type: str | None = given(
        Choice(tuple(CHANNEL_TYPES)), "Those of one kind.", default=None, example="trades"
    )
    venue: str | None = given(_VENUE, "Those of one venue.", default=None, example="bybit")
    limit: int = given(Whole(least=1, most=10_000), "The most rows.", default=1_000, example=100)
    offset: int = given(Whole(), "Rows to pass over.", default=0)


def when(time_us: int | None) -> str | None:
    """Return a time as ISO 8601, UTC."""
    if time_us is None:
        return None
    seconds, micros = divmod(time_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros).isoformat(timespec="microseconds")


class Subscriptions:
    """The handlers, over one daemon."""

    def __init__(self, daemon: Daemon, limits: Limits) -> None:
        self._daemon = daemon
        self._limits = limits

    @property
    def _registry(self) -> Registry:
        """The registry of the present term."""
        return self._daemon.subscriptions

    def add_routes(self, app: Quart) -> None:
        """Add the paths to the app."""
        one, service = f"{PATH}/<subscription_id>", f"{PATH}/by-service/<name>"
        for rule, name, method, handler in (
            (PATH, "subscriptions", "GET", self.list),
            (PATH, "subscribe", "POST", self.create),
            (one, "subscription", "GET", self.get),
            (one, "unsubscribe", "DELETE", self.cancel),
            (service, "unsubscribe_service", "DELETE", self.cancel_service),
        ):
            app.add_url_rule(rule, name, handler, methods=[method])
        app.register_error_handler(SubscriptionRefusedError, self._refused)

    async def list(self) -> Response:
        """List the subscriptions, all or some, the oldest first."""
        query = asked(SubscriptionsQuery)
        names = ("requesting_service", "is_active", "channel_type", "venue")
        wanted = {name: value for name in names if (value := getattr(query, name)) is not None}
        scopes = self._scopes()
        found = [
            record
            for record in self._registry.records()
            if _may_see(record, scopes)
            and all(getattr(record, name) == value for name, value in wanted.items())
        ]
        rows = [self._row(record) for record in found[query.offset : query.offset + query.limit]]
        return respond({"subscriptions": rows, "total": len(found)})

    async def create(self) -> Response:
        """Serve a service what it asks for."""
        check_may_change(self._daemon)
        order = await body(Order)
        wish = Wish(
            venue=order.venue,
            channel_type=order.channel_type,
            symbol=order.symbol,
            topic=order.topic,
            market=order.market,
            account=order.account,
        )
        try:
            with trio.fail_after(self._limits.listing_s):
                meaning = await self._registry.find(wish)
        except trio.TooSlowError:
            raise SubscriptionRefusedError(
                "instruments_not_loaded",
                f"the instruments of {wish.venue} are not loaded yet; try again soon",
            ) from None
        record = self._registry.create(wish, meaning, order.requesting_service)
        await self._stored([record])
        return respond(self._row(record), 201)

    async def get(self, subscription_id: str) -> Response:
        """Tell one subscription."""
        asked(Query)
        record = self._registry.get(subscription_id)
        if not _may_see(record, self._scopes()):
            raise not_found(subscription_id)
        return respond(self._row(record))

    async def cancel(self, subscription_id: str) -> Response:
        """End one subscription; that it has ended already is no mistake."""
        check_may_change(self._daemon)
        asked(Query)
        record = self._registry.cancel(subscription_id)
        await self._stored([record])
        return respond(self._row(record))

    async def cancel_service(self, name: str) -> Response:
        """End all subscriptions of a service."""
        check_may_change(self._daemon)
        asked(Query)
        try:
            NAME.read(name)
        except ValueError as e:
            raise BadRequest("bad_request", f"name: expected {NAME.expected}", where="name") from e
        ended = self._registry.cancel_service(name)
        await self._stored(ended)
        return respond({"cancelled_count": len(ended)})

    # --- answers ---------------------------------------------------------------------------------------

    def _row(self, record: SubscriptionRecord) -> dict[str, Any]:
        """Return what is told of a record."""
        now = self._registry.told(record)
        return {
            "id": now.id,
            "channel_type": now.channel_type,
            "symbol": now.symbol,
            "topic": now.topic,
            "requesting_service": now.requesting_service,
            "is_active": now.is_active,
            "created_at": when(now.created_at),
            "updated_at": when(now.updated_at),
            "last_event_at": when(now.last_event_at),
            "venue": now.venue,
            "market": now.market,
            "account": now.account,
            "feed": self._registry.feed(now),
        }

    async def _stored(self, records: Iterable[SubscriptionRecord]) -> None:
        """Wait until the store has what was changed, but not for ever: without the store it is done all the same."""
        with trio.move_on_after(_STORED_S):
            await self._registry.stored(records)

    async def _refused(self, error: SubscriptionRefusedError) -> Response:
        """Say why something cannot be had."""
        told: dict[str, object] = {"error": error.message, "code": error.code.upper()}
        if error.parameter is not None:
            told["parameter"] = error.parameter
        if error.did_you_mean:
            told["did_you_mean"] = list(error.did_you_mean)
        status = STATUS.get(error.code, 400)
        response = respond(told, status)
        if status in (429, 503):
            response.headers["Retry-After"] = str(_RETRY_S)
        return response

    # --- who may ---------------------------------------------------------------------------------------

    def _scopes(self) -> frozenset[str]:
        """Return what the client may do; without keys, a program of this machine may do all."""
        if not self._daemon.config.web.keys and not_ours(self._daemon) is None:
            return frozenset({ADMIN})
        return own_scopes(self._daemon)


def _may_see(record: SubscriptionRecord, scopes: frozenset[str]) -> bool:
    return record.account is None or ADMIN in scopes or f"account:{record.account}" in scopes
