"""What an operator writes, and what is said to mistakes."""

from __future__ import annotations

from typing import Any

import pytest

from pricefeedd_zmq.settings import ZmqSettings

KEY = "x" * 40


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ({}, ("tcp://127.0.0.1:5545",)),
        ({"bind": "tcp://*:6000"}, ("tcp://*:6000",)),
        ({"bind": ["tcp://eth0:6000", "ipc:///run/x"]}, ("tcp://eth0:6000", "ipc:///run/x")),
        ({"bind": "tcp://[::1]:6000", "ipv6": True}, ("tcp://[::1]:6000",)),
        ({"mode": "push"}, ("tcp://127.0.0.1:5546",)),
        ({"mode": "push", "connect": "tcp://proxy:5546"}, ("tcp://proxy:5546",)),
    ],
)
def test_addresses(given: dict[str, Any], addresses: tuple[str, ...]) -> None:
    assert ZmqSettings(**given).addresses == addresses


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"bind": "127.0.0.1:5545"}, 'expected an address such as "tcp://127.0.0.1:5545"'),
        ({"bind": 5545}, "found 5545"),
        ({"bind": [1]}, "or an array of them"),
        ({"bind": "tcp://127.0.0.1:70000"}, "a port is a number from 0 to 65535"),
        ({"bind": "tcp://[::1]:6000"}, "set ipv6 = true"),
        ({"bind": "inproc://x"}, "expected an address"),
        ({"mode": "push", "bind": "tcp://*:1"}, "write connect in place of bind"),
        ({"connect": "tcp://a:1"}, 'or mode = "push"'),
        ({"mode": "push", "connect": "tcp://*:1"}, "has a host and a port"),
        ({"high_water_mark": 0}, "expected at least 1, found 0"),
        ({"snapshot_every_s": float("nan")}, "expected at least 0.1"),
        ({"curve_secret_key": "short"}, "expected the 40 characters of a CURVE key (Z85), found 5"),
        ({"mode": "push", "curve_secret_key": KEY}, "needs both"),
        ({"curve_server_key": KEY}, 'for mode = "push"'),
    ],
)
def test_mistakes_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        ZmqSettings(**given)

    assert said in str(raised.value)


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(ZmqSettings(curve_secret_key=KEY))
