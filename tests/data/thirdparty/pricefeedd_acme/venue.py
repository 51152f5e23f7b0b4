"""Acme as data: one market, one feed, one endpoint of each kind."""

from __future__ import annotations

import attrs

from pricefeedd.rules import BookRule, Rules, Source, TradeIds, TradeRule, linked
from pricefeedd.venue import Ack, Budget, Feed, Venue
from pricefeedd_acme.codec import AcmeCodec
from pricefeedd_acme.rest import AcmeRest


@attrs.frozen(kw_only=True)
class AcmeSettings:
    """Keys of `[venues.acme]`.

    Attributes:
        book_levels: Levels kept on each side of a book.
        regions: Where quotes may come from; empty for everywhere.
    """

    book_levels: int = attrs.field(default=50, validator=[attrs.validators.ge(1), attrs.validators.le(500)])
    regions: tuple[str, ...] = ()


def _rules(book_levels: int) -> Rules:
    return Rules(
        book=BookRule(source=Source.STREAM, joins=linked, follows=linked, depth=book_levels),
        trade=TradeRule(ids=TradeIds.CONSECUTIVE),
    )


def _configure(venue: Venue, settings: AcmeSettings) -> Venue:
    return attrs.evolve(venue, rules={"spot": _rules(settings.book_levels)})


ACME = Venue(
    name="acme",
    api_version=1,
    title="Acme",
    codec=AcmeCodec(),
    rest=AcmeRest(),
    channels={"spot": frozenset({"trade", "book"})},
    endpoints={"ws": "wss://stream.acme.test", "rest": "https://api.acme.test"},
    feeds=(
        Feed(
            name="public",
            market="spot",
            endpoint="ws",
            path="/v1",
            ack=Ack.STREAM,
            streams_per_connection=100,
            streams_per_request=20,
            ping_interval_s=20.0,
        ),
    ),
    budgets=(Budget(name="rest", capacity=60, per_s=60),),
    rules={"spot": _rules(50)},
    settings=AcmeSettings,
    configure=_configure,
)
