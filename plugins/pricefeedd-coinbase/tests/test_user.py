"""Orders of an account: the channel `user`, its tokens, and the whole pipeline against the fake's user host."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from trio.testing import MockClock

from pricefeedd.codec import Accepted, Count, LoginRefused
from pricefeedd.errors import DecodeError, LoginRejectedError
from pricefeedd.events import AccountEvent, Origin, State
from pricefeedd.instruments import Instrument, Kind
from pricefeedd.testing.desk import Desk, desk
from pricefeedd.testing.rig import SkewedClock
from pricefeedd.venue import Account
from pricefeedd_coinbase.testing import CoinbaseFake
from pricefeedd_coinbase.venue import coinbase

VENUE = coinbase()
FEED = VENUE.feed("user")
NOW_NS = 1_790_736_000_000_000_000
NAME = "organizations/1/apiKeys/2"
ED25519 = base64.b64encode(bytes(range(32))).decode()
EC = (
    generate_private_key(SECP256R1())
    .private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    .decode()
)
MAIN: dict[str, Any] = {"api_key": NAME, "api_secret": ED25519, "channels": ("order",)}
NOBODY = Instrument(venue="coinbase", market="", name="", symbol="", kind=Kind.SPOT, base="", quote="")
EMPTY = b'{"channel":"user","client_id":"","timestamp":"2026-09-30T02:37:14.089808906Z","sequence_num":0,"events":[{"type":"snapshot","orders":[],"positions":{"perpetual_futures_positions":[],"expiring_futures_positions":[],"prediction_market_positions":[]}}]}'
ROW = {
    "order_id": "o-1", "client_order_id": "mine", "product_id": "BTC-USDC", "order_side": "BUY", "order_type": "Limit",
    "status": "OPEN", "limit_price": "80000.10", "avg_price": "79999.5", "cumulative_quantity": "0.25",
    "leaves_quantity": "0.75", "total_fees": "1.2", "filled_value": "19999.875", "creation_time": "2026-09-30T02:00:00.5Z",
    "stop_price": "", "time_in_force": "GOOD_UNTIL_CANCELLED", "cancel_reason": "", "reject_reason": "",
}  # fmt: skip


def frame(*rows: dict[str, Any], kind: str = "update", number: int = 3) -> bytes:
    body = {
        "channel": "user",
        "timestamp": "2026-09-30T02:37:14.089808906Z",
        "sequence_num": number,
        "events": [{"type": kind, "orders": list(rows)}],
    }
    return orjson.dumps(body)


def say(data: bytes) -> list[Any]:
    return list(VENUE.codec.decode(data, feed=FEED, names={}, received_ns=NOW_NS))


def order(**change: Any) -> AccountEvent:
    _, event = say(frame(ROW | change))
    assert isinstance(event, AccountEvent)
    return event


# --- The channel ------------------------------------------------------------------------------------------


def test_a_real_frame_without_orders_is_only_counted() -> None:
    assert say(EMPTY) == [Count(0)]


def test_an_order_in_our_words() -> None:
    event = order()
    assert (event.kind, event.instrument, event.origin, event.account) == (
        "order",
        "BTC-USDC",
        Origin.LIVE,
        "",
    )
    assert event.venue_time_ns == 1_790_735_834_089_808_906
    assert event.fields == {
        "market": "spot", "symbol": "BTC-USDC", "side": "buy", "order_id": "o-1", "client_order_id": "mine", "type": "Limit",
        "time_in_force": "GOOD_UNTIL_CANCELLED", "price": "80000.10", "trigger_price": None, "size": "1.00",
        "average_price": "79999.5", "filled_size": "0.25", "filled_value": "19999.875", "remaining_size": "0.75",
        "fee": "1.2", "cancel_reason": None, "reject_reason": None, "status": "partially_filled", "venue_status": "OPEN",
        "open": True, "created_us": 1_790_733_600_500_000, "updated_us": 1_790_735_834_089_808,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("status", "ours", "is_open"),
    [
        ("PENDING", "pending", True), ("OPEN", "partially_filled", True), ("CANCEL_QUEUED", "partially_filled", True),
        ("FILLED", "filled", False), ("CANCELLED", "canceled", False), ("EXPIRED", "expired", False),
        ("FAILED", "rejected", False), ("NEVER_HEARD_OF", "unknown", False),
    ],
)  # fmt: skip
def test_states(status: str, ours: str, is_open: bool) -> None:
    fields = order(status=status).fields
    assert (fields["status"], fields["venue_status"], fields["open"]) == (ours, status, is_open)


def test_nothing_is_written_as_an_empty_text() -> None:
    bare = {key: "" for key in ROW if key not in ("order_id", "product_id", "order_side", "status")}
    fields = order(**bare).fields
    assert {fields[key] for key in ("price", "size", "fee", "created_us", "client_order_id")} == {None}


def test_what_is_told_again_has_the_same_key() -> None:
    (_, first), (_, again) = say(frame(ROW, kind="snapshot")), say(frame(ROW, kind="snapshot", number=9))
    assert first.key == again.key
    assert first.origin is Origin.BACKFILL
    assert order(status="FILLED").key == order(status="FILLED").key


@pytest.mark.parametrize(
    "broken",
    [
        b'{"channel":"user"}', frame({"order_id": "o-1"}), frame(ROW | {"order_side": "HOLD"}),
        frame(ROW | {"limit_price": "a lot"}), frame(ROW | {"creation_time": "yesterday"}), frame(ROW, kind="other"),
        frame(ROW | {"cumulative_quantity": 1}),
    ],
)  # fmt: skip
def test_frames_of_the_wrong_shape_are_refused(broken: bytes) -> None:
    with pytest.raises(DecodeError):
        say(broken)


def test_answers_and_errors_of_the_user_host() -> None:
    answer = b'{"channel":"subscriptions","client_id":"","timestamp":"2026-09-30T02:37:14Z","sequence_num":1,"events":[{"subscriptions":{"user":["7f1c-id"],"heartbeats":["heartbeats"]}}]}'
    assert say(answer) == [Count(1), Accepted(streams=("user", "heartbeats"), complete=True)]
    (refused,) = say(b'{"type":"error","message":"authentication failure"}')
    assert isinstance(refused, LoginRefused)
    assert "clock" in refused.reason


def test_user_data_on_the_market_host_is_passed_over() -> None:
    said = VENUE.codec.decode(frame(ROW), feed=VENUE.feed("spot"), names={}, received_ns=NOW_NS)
    assert said == (Count(3),)


def test_a_key_that_is_none_is_told_without_it() -> None:
    account = Account(name="main", api_key=NAME, api_secret="-----BEGIN not a key")
    (stream,) = VENUE.codec.streams("order", NOBODY)
    with pytest.raises(LoginRejectedError, match="account 'main'") as caught:
        VENUE.codec.subscribe(FEED, [stream], request_id=1, now_ns=NOW_NS, account=account)
    assert "BEGIN" not in str(caught.value)


def test_only_orders_are_offered() -> None:
    assert VENUE.account_channels == {"order"}
    assert VENUE.codec.streams("balance", NOBODY) == ()


# --- The pipeline -----------------------------------------------------------------------------------------


async def live(on: Desk) -> None:
    with trio.fail_after(400):
        while not on.whole():  # noqa: ASYNC110  # the clock is mocked
            await trio.sleep(0.05)


def told(on: Desk) -> list[tuple[Any, Any, Origin]]:
    return [(e.fields["order_id"], e.fields["status"], e.origin) for e in on.events("order")]


@pytest.mark.parametrize("secret", [ED25519, EC], ids=["ed25519", "ec"])
async def test_open_orders_come_first_and_then_what_changes(autojump_clock: MockClock, secret: str) -> None:
    fake = CoinbaseFake()
    user = fake.user(NAME, secret)
    for number in range(100):
        fake.order(NAME, f"o-{number}", product_id="BTC-USDC")
    fake.order(NAME, "done", "FILLED")
    async with desk(VENUE, fake, {"main": MAIN | {"api_secret": secret}}, endpoints=fake.endpoints()) as on:
        await live(on)
        assert told(on) == [(f"o-{n}", "new", Origin.BACKFILL) for n in range(100)]
        assert user.tokens == 2, "one for the heartbeats, one for the orders"
        fake.order(NAME, "o-7", "FILLED", cumulative_quantity="1", leaves_quantity="0")
        await on.until(lambda: len(on.events("order")) == 101)
        event = on.events("order")[-1]
        assert (event.account, event.instrument, event.fields["status"]) == ("main", "BTC-USDC", "filled")
        assert len(event.trace_id) == 32
        await trio.sleep(7200)
        assert fake.logins[NAME] == 1, "heartbeats keep it, and no token expires"


async def test_each_connection_has_fresh_tokens_and_what_ended_meanwhile_is_told(
    autojump_clock: MockClock,
) -> None:
    fake = CoinbaseFake()
    user = fake.user(NAME, ED25519)
    for name in ("stays", "ends", "moves"):
        fake.order(NAME, name)
    async with desk(VENUE, fake, {"main": MAIN}, endpoints=fake.endpoints()) as on:
        await live(on)
        before = len(on.events("order"))
        with fake.faults.refuse("/user"):
            fake.faults.cut("/user")
            await trio.sleep(300)
            fake.order(NAME, "ends", "CANCELLED")
            fake.order(NAME, "moves", cumulative_quantity="0.5", leaves_quantity="0.5")
            fake.order(NAME, "comes")
        await trio.sleep(60)
        await live(on)
        assert sorted(told(on)[before:]) == [
            ("comes", "new", Origin.BACKFILL),
            ("ends", "unknown", Origin.DERIVED),
            ("moves", "partially_filled", Origin.BACKFILL),
        ]
        (gap,) = on.gaps("order")
        assert gap.missing is None
        assert "does not tell" in gap.reason
        assert user.tokens == len(user.nonces) == 4


async def test_a_bad_key_is_down_and_does_not_hammer(autojump_clock: MockClock) -> None:
    fake = CoinbaseFake()
    fake.user(NAME, EC)
    async with desk(VENUE, fake, {"main": MAIN}, endpoints=fake.endpoints()) as on:
        await trio.sleep(3500)
        assert on.state() is State.DOWN
        assert "authentication failure" in on.said("order")[-1][1]
        assert fake.seen.sockets == 1
        await trio.sleep(200)
        assert fake.seen.sockets == 2


async def test_a_clock_far_off_is_told(autojump_clock: MockClock) -> None:
    fake = CoinbaseFake()
    fake.user(NAME, ED25519)
    clock = SkewedClock(fake.now_ns)
    clock.ahead_ns = -600_000_000_000
    async with desk(VENUE, fake, {"main": MAIN}, endpoints=fake.endpoints(), clock=clock) as on:
        await trio.sleep(600)
        assert on.state() is State.DOWN
        assert "clock" in on.said("order")[-1][1]


async def test_a_lost_frame_is_seen_by_its_number(autojump_clock: MockClock) -> None:
    fake = CoinbaseFake()
    fake.user(NAME, ED25519)
    async with desk(VENUE, fake, {"main": MAIN}, endpoints=fake.endpoints()) as on:
        await live(on)
        fake.faults.drop(1, match="user")
        fake.order(NAME, "lost")
        await on.until(lambda: told(on) == [("lost", "new", Origin.BACKFILL)])
        assert fake.logins[NAME] == 2
