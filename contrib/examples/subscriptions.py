#!/usr/bin/env python3
"""A bot that says by REST what it needs, watches that it comes, and lets go of it: Python alone, nothing to install.

    python3 contrib/examples/subscriptions.py http://127.0.0.1:8765 order-manager trades:BTCUSDT --venue binance --watch 5

A key is taken from PRICEFEEDD_API_KEY. Each record is printed as a line of JSON on stdout, everything else goes to
stderr. Exit codes: 0, 1 refused, 2 usage, 3 the daemon cannot be reached.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any

#: A daemon that has just begun may not know its instruments yet: it is asked again so often.
TRIES = 10


class RefusedError(Exception):
    """The daemon said no.

    Attributes:
        code: Why, for programs, such as SUBSCRIPTION_EXISTS.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Subscriptions:
    """The subscriptions API of one daemon."""

    def __init__(self, base: str, api_key: str | None = None) -> None:
        self._url = f"{base.rstrip('/')}/api/v1/subscriptions"
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["X-API-Key"] = api_key

    def subscribe(self, service: str, channel_type: str, symbol: str | None = None, **more: Any) -> Any:
        """Return the new record.

        Raises:
            RefusedError: For one, because the service has it already.
        """
        order = {"requesting_service": service, "channel_type": channel_type, "symbol": symbol, **more}
        return self._call("POST", body=order)

    def mine(self, service: str) -> list[Any]:
        """Return what is served for a service now."""
        query = urllib.parse.urlencode({"requesting_service": service, "is_active": "true"})
        return list(self._call("GET", f"?{query}")["subscriptions"])

    def cancel(self, id_: str) -> Any:
        """End one, and return its record."""
        return self._call("DELETE", f"/{id_}")

    def cancel_all(self, service: str) -> int:
        """End all of a service; return how many there were."""
        return int(self._call("DELETE", f"/by-service/{urllib.parse.quote(service)}")["cancelled_count"])

    def _call(self, method: str, path: str = "", *, body: Mapping[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        for tries in range(1, TRIES + 1):
            request = urllib.request.Request(self._url + path, data, self._headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as e:
                told = json.load(e)
                wait_s = e.headers.get("Retry-After")
                if wait_s is None or tries == TRIES:
                    raise RefusedError(told["code"], told["error"]) from e
                print(f"{told['error']}; again in {wait_s} s", file=sys.stderr)
                time.sleep(int(wait_s))
        raise AssertionError("the last try returns or raises")


def run(api: Subscriptions, arguments: argparse.Namespace) -> None:
    """Subscribe, watch, and let go."""
    service = arguments.service
    for wanted in arguments.wanted:
        channel_type, _, symbol = wanted.partition(":")
        try:
            record = api.subscribe(service, channel_type, symbol or None, venue=arguments.venue)
        except RefusedError as e:
            if e.code != "SUBSCRIPTION_EXISTS":
                raise
            print(f"{wanted}: we have that since an earlier life", file=sys.stderr)
        else:
            print(f"{wanted}: read {record['feed']}", file=sys.stderr)
    until = time.monotonic() + arguments.watch
    while time.monotonic() < until:
        if all(record["last_event_at"] for record in api.mine(service)):
            break
        time.sleep(0.2)
    for record in api.mine(service):
        print(json.dumps(record), flush=True)
    if arguments.keep:
        return
    print(f"let go of {api.cancel_all(service)}", file=sys.stderr)


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("base", help="the daemon, such as http://127.0.0.1:8765")
    parser.add_argument("service", help="what this bot calls itself")
    parser.add_argument("wanted", nargs="+", metavar="CHANNEL_TYPE[:SYMBOL]")
    parser.add_argument("--venue", default="bybit")
    parser.add_argument("--watch", type=float, default=5.0, metavar="S", help="wait so long for data of each")
    parser.add_argument("--keep", action="store_true", help="leave the subscriptions as they are at the end")
    arguments = parser.parse_args()
    try:
        run(Subscriptions(arguments.base, os.environ.get("PRICEFEEDD_API_KEY")), arguments)
    except RefusedError as e:
        print(e, file=sys.stderr)
        return 1
    except OSError as e:
        print(f"cannot reach {arguments.base}: {e}", file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
