"""What Pyth is: its market, addresses, connection, limits and rules."""

from __future__ import annotations

import attrs

from pricefeedd.venue import Ack, Budget, Feed, Transport, Venue
from pricefeedd_pyth.codec import VENUE, PythCodec
from pricefeedd_pyth.rest import ASSET_TYPES, PythRest
from pricefeedd_pyth.rules import rules


@attrs.frozen(kw_only=True)
class PythSettings:
    """Keys that `[venues.pyth]` takes besides the common ones.

    Attributes:
        api_key: Needed for all prices since 2026-08-26; only the list of feeds is free.
        asset_types: Kinds of feeds to list, such as `["crypto", "fx"]`; none for all of them.
    """

    api_key: str = attrs.field(default="", repr=False, metadata={"secret": True})
    asset_types: tuple[str, ...] = attrs.field(
        default=(), validator=attrs.validators.deep_iterable(attrs.validators.in_(ASSET_TYPES))
    )


def _configure(venue: Venue, settings: PythSettings) -> Venue:
    return attrs.evolve(
        venue,
        codec=PythCodec(settings.api_key),
        rest=PythRest(settings.api_key, settings.asset_types),
    )


def pyth() -> Venue:
    """Return the declaration of Pyth with its default settings."""
    return Venue(
        name=VENUE,
        api_version=1,
        title="Pyth",
        codec=PythCodec(),
        rest=PythRest(),
        channels={"oracle": frozenset({"price", "candle_1m"})},
        # `https://pyth.dourolabs.app/hermes` has the same routes.
        endpoints={
            "oracle_sse": "https://hermes.pyth.network",
            "oracle_rest": "https://hermes.pyth.network",
            "oracle_history": "https://benchmarks.pyth.network",
        },
        # The prices of test networks: other feed ids, other data, and no history of their own.
        environments={
            "testnet": {
                "oracle_sse": "https://hermes-beta.pyth.network",
                "oracle_rest": "https://hermes-beta.pyth.network",
                "oracle_history": "https://benchmarks.pyth.network",
            }
        },
        feeds=(
            Feed(
                name="oracle",
                market="oracle",
                endpoint="oracle_sse",
                path="/v2/updates/price/stream",
                transport=Transport.SSE,
                # The length of the URL is the limit: 100 ids make 7 kB.
                streams_per_connection=100,
                streams_per_request=100,
                connect_budget="hermes",
                ack=Ack.STREAM,
                # The first event confirms; a round may be late, but not later than that.
                ack_within_s=20.0,
                # An empty comment comes after 15 s without an event.
                silence_s=20.0,
                # The venue cuts a connection after 24 h.
                lifetime_s=23 * 3600.0,
                max_message_bytes=4 << 20,
            ),
        ),
        # Both limits are per address; above them everything is refused for a minute.
        budgets=(
            Budget(name="hermes", capacity=10, per_s=10),  # connections count as requests
            Budget(name="benchmarks", capacity=90, per_s=10),
        ),
        rules=rules(),
        settings=PythSettings,
        configure=_configure,
    )
